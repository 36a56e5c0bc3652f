//! The digests of the disk, in the sections `hash` and `digest`.

use super::checksum::is_whole;

/// Length of the data of either section in bytes.
const HASH_LEN: usize = 36;
const DIGEST_LEN: usize = 80;

/// The recorded digests of the disk; zeroes mean that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Hashes {
    pub(in super::super) md5: Option<[u8; 16]>,
    pub(in super::super) sha1: Option<[u8; 20]>,
    /// The checksum of a section is wrong.
    pub(in super::super) is_damaged: bool,
}

fn digest<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    let found: [u8; LEN] = bytes.get(at..at + LEN)?.try_into().ok()?;
    Some(found).filter(|found| *found != [0; LEN])
}

impl Hashes {
    /// Adds the digests in a section; other sections are ignored.
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

    /// Whether the section is one of those, and how many bytes of it to read.
    pub(in super::super) fn wants(kind: &[u8]) -> Option<usize> {
        match kind {
            b"hash" => Some(HASH_LEN),
            b"digest" => Some(DIGEST_LEN),
            _ => None,
        }
    }
}
