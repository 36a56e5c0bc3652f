//! What precedes the disk in the archive: the description, the digests, and the header of the disk.

use bstr::{BStr, ByteSlice};

use crate::archive::{self, BLOCK};
use crate::crypto::Hash;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::IoBuf;

use super::envelope::{Disk, envelope};
use super::manifest;

/// Maximum length of the name from which those of the members are derived.
const MAX_STEM: usize = 80;

/// The name if the archive has none.
const NO_NAME: &str = "disk";

/// The hash for digests of members. Products support it since hardware version 13, and begin to reject weaker ones.
pub(super) const HASH: Hash = Hash::Sha256;

/// What precedes a disk. Its length is known before anything is known about the disk's file.
#[derive(Clone, Debug)]
pub(super) struct Front {
    stem: String,
    capacity: u64,
}

/// What is known about the disk once it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Length of its file in bytes.
    pub(super) len: u64,
    /// Number of guest bytes that it holds.
    pub(super) populated: u64,
    /// The digest of its file.
    pub(super) digest: Box<[u8]>,
}

impl Front {
    /// For a disk of this many guest bytes, in an archive at this path.
    pub(super) fn new(path: Option<&BStr>, capacity: u64) -> Self {
        Self {
            stem: stem(path),
            capacity,
        }
    }

    fn descriptor_name(&self) -> String {
        format!("{}.ovf", self.stem)
    }

    fn disk_name(&self) -> String {
        format!("{}-disk1.vmdk", self.stem)
    }

    fn envelope(&self, len: u64, populated: u64) -> String {
        let disk = Disk {
            file: &self.disk_name(),
            file_len: len,
            capacity: self.capacity,
            populated,
        };
        envelope(&self.stem, &disk)
    }

    /// Maximum length of the description.
    fn envelope_len(&self) -> usize {
        self.envelope(u64::MAX, u64::MAX).len()
    }

    fn manifest(&self, descriptor: &[u8], disk: &[u8]) -> String {
        let (first, second) = (self.descriptor_name(), self.disk_name());
        manifest::text(HASH, &[(&first, descriptor), (&second, disk)])
    }

    /// Number of bytes that precede the disk.
    pub(super) fn len(&self) -> u64 {
        let digest = vec![0; HASH.digest_len()];
        let manifest = self.manifest(&digest, &digest).len();
        let blocks = |len: usize| (len as u64).next_multiple_of(BLOCK);
        3 * BLOCK + blocks(self.envelope_len()) + blocks(manifest)
    }

    /// The bytes that precede the disk.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn bytes(&self, disk: &Written) -> Result<IoBuf> {
        let mut descriptor = self.envelope(disk.len, disk.populated);
        // White space may follow the last element of a description.
        let blank = self.envelope_len().saturating_sub(descriptor.len());
        descriptor.extend(std::iter::repeat_n('\n', blank));
        let digest = HASH.digest(&[descriptor.as_bytes()]);
        let manifest = self.manifest(&digest, &disk.digest);
        let mut out = IoBuf::new();
        for (name, bytes) in [
            (self.descriptor_name(), descriptor),
            (format!("{}.mf", self.stem), manifest),
        ] {
            out.extend_from_slice(&archive::header(&name, bytes.len() as u64)?)?;
            out.extend_from_slice(bytes.as_bytes())?;
            out.resize(out.len().next_multiple_of(BLOCK as usize))?;
        }
        out.extend_from_slice(&archive::header(&self.disk_name(), disk.len)?)?;
        match out.len() as u64 == self.len() {
            true => Ok(out),
            false => Err(Error::new(
                ErrorKind::Internal,
                "The description of a disk has another length than was foreseen",
            )),
        }
    }
}

/// Number of zeroes after a disk of this many bytes: the rest of its block, and the end of the archive.
pub(super) fn back_len(disk: u64) -> Result<u64> {
    let padded = archive::padded(disk).ok_or_else(|| Error::os(libc::EFBIG))?;
    Ok(padded - disk + archive::END)
}

/// The name of the archive without its extension, in characters that every reader accepts in a name.
fn stem(path: Option<&BStr>) -> String {
    let name = path.map(|path| path.rsplit_once_str("/").map_or(&**path, |(_, name)| name));
    let name = name.unwrap_or_default();
    let name = match name.rfind_byte(b'.') {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let stem: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(MAX_STEM)
        .collect();
    match stem.trim_start_matches(['.', '-']) {
        "" => NO_NAME.to_owned(),
        stem => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_characters_that_every_reader_takes() {
        let of = |path: &str| stem(Some(path.into()));
        assert_eq!(of("/a.b/web server.v2.ova"), "web_server.v2");
        assert_eq!(of("über"), "_ber");
        assert_eq!(of(".ova"), "ova");
        assert_eq!(of("-x.ova"), "x");
        assert_eq!(of("/"), "disk");
        assert_eq!(of(&"n".repeat(300)).len(), MAX_STEM);
        assert_eq!(stem(None), "disk");
        assert_eq!(stem(Some(b"\xff\xfe.ova".into())), "__");
    }

    #[test]
    fn the_length_is_known_before_the_disk_is() {
        let front = Front::new(Some("x.ova".into()), 10 << 30);
        for len in [0, 513, 9 << 30, u64::MAX >> 1] {
            let written = Written {
                len,
                populated: len / 2,
                digest: vec![7; 32].into(),
            };
            let bytes = front.bytes(&written).expect("memory");
            assert_eq!(bytes.len() as u64, front.len(), "{len}");
        }
    }
}
