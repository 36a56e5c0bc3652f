//! The digests of the disk: `hash` and `digest`.

use super::checksum::is_whole;

/// Bytes of the data of either section.
const HASH_LEN: usize = 36;
const DIGEST_LEN: usize = 80;

/// What is known of the disk; zeroes stand for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Hashes {
    pub(in super::super) md5: Option<[u8; 16]>,
    pub(in super::super) sha1: Option<[u8; 20]>,
    /// A section does not have its checksum.
    pub(in super::super) is_damaged: bool,
}

fn digest<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    let found: [u8; LEN] = bytes.get(at..at + LEN)?.try_into().ok()?;
    Some(found).filter(|found| *found != [0; LEN])
}

impl Hashes {
    /// Adds what a section says; other sections say nothing.
    pub(in super::super) fn add(&mut self, kind: &[u8], data: &[u8]) {
        let len = match kind {
            b"hash" => HASH_LEN,
            b"digest" => DIGEST_LEN,
            _ => return,
        };
        let Some(bytes) = data.get(..len).filter(|bytes| is_whole(bytes)) else {
            self.is_damaged = true;
            return;
        };
        self.md5 = digest(bytes, 0).or(self.md5);
        if kind == b"digest" {
            self.sha1 = digest(bytes, 16).or(self.sha1);
        }
    }

    /// Whether the section is one of those, and how many bytes of it are read.
    pub(in super::super) fn wants(kind: &[u8]) -> Option<usize> {
        match kind {
            b"hash" => Some(HASH_LEN),
            b"digest" => Some(DIGEST_LEN),
            _ => None,
        }
    }
}
