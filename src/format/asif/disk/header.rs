//! The header, in the first sector.

use crate::bytes::{array, be32, be64};
use crate::error::{Error, ErrorKind, Result};
use crate::size::SECTOR;

use super::{CHUNK, COVERED};

/// Length of the header in bytes.
pub(in super::super) const HEADER_LEN: usize = 512;

/// The first bytes of the header.
pub(in super::super) const MAGIC: &[u8; 4] = b"shdw";

/// The only known version.
const VERSION: u32 = 1;

/// Where the fields with a known meaning end.
const KNOWN_LEN: usize = 80;

/// The contents of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Offsets of the two copies of the directory.
    pub(in super::super) directories: [u64; 2],
    /// The virtual size in bytes.
    pub(in super::super) len: u64,
    /// The maximum size to which it can grow.
    pub(in super::super) max_len: u64,
}

impl Header {
    /// Decodes the first sector of a file.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Unsupported`] if a field has an unknown value, or
    /// [`ErrorKind::Corrupt`].
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at| be32(bytes, at).unwrap_or_default();
        let long = |at| be64(bytes, at).unwrap_or_default();
        let short = |at| array(bytes, at).map_or(0, u16::from_be_bytes);
        if !bytes.starts_with(MAGIC) {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image not in asif format",
            ));
        }
        for (what, found, known) in [
            ("version", word(4), VERSION),
            ("header size", word(8), HEADER_LEN as u32),
            ("set of flags", word(12), 0),
            ("chunk size", word(64), CHUNK as u32),
            ("sector size", u32::from(short(68)), SECTOR as u32),
            // A single file has one segment, or leaves the number at 0.
            ("number of segments", u32::from(short(70)).max(1), 1),
        ] {
            if found != known {
                return Err(Error::unsupported(format!(
                    "The image has a {what} that is not known ({found})"
                )));
            }
        }
        // Flags, and what an image may need besides itself: a layer of a stack shows something other than its file.
        let rest = bytes.iter().enumerate().skip(KNOWN_LEN);
        let mut rest = rest.take(HEADER_LEN - KNOWN_LEN);
        if let Some((at, byte)) = rest.find(|(_, byte)| **byte != 0) {
            let why =
                format!("The header has a value that is not known ({byte:#04x} at byte {at})");
            return Err(Error::unsupported(why).with_offset(at as u64));
        }
        let bytes_of = |sectors: u64| sectors.checked_mul(SECTOR);
        let len = bytes_of(long(48)).filter(|len| *len <= i64::MAX as u64);
        let len = len.ok_or_else(|| Error::corrupt("The disk is too large").with_offset(48))?;
        let most = bytes_of(long(56)).filter(|most| *most >= len);
        let most = most.ok_or_else(|| {
            Error::corrupt("The disk is larger than the image lets it be").with_offset(56)
        })?;
        let metadata = long(72);
        let behind = len.div_ceil(CHUNK)..most.div_ceil(CHUNK);
        if metadata != 0 && !behind.contains(&metadata) {
            let why = format!(
                "The metadata is said to be in chunk {metadata}, which is not between the end of the disk and \
                 what that can grow to"
            );
            return Err(Error::corrupt(why).with_offset(72));
        }
        Ok(Self {
            directories: [long(16), long(24)],
            len,
            max_len: most,
        })
    }

    /// The number of tables of the disk.
    pub(in super::super) fn tables(&self) -> u64 {
        self.len.div_ceil(COVERED)
    }

    /// The number of tables for which a directory has room.
    pub(in super::super) fn max_tables(&self) -> u64 {
        self.max_len.div_ceil(COVERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first sector of an image of 500 GB created by Apple's tool, as published.
    fn published() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"shdw\0\0\0\x01\0\0\x02\0");
        put(16, &0x200_u64.to_be_bytes());
        put(24, &0x4_1400_u64.to_be_bytes());
        put(48, &0x3a38_6030_u64.to_be_bytes());
        put(56, &(1_u64 << 43).to_be_bytes());
        put(64, &[0, 0x10, 0, 0, 2, 0]);
        // The last chunk that the disk can have.
        put(72, &0xffff_ffff_u64.to_be_bytes());
        bytes
    }

    #[test]
    fn a_directory_takes_the_room_that_the_copies_leave() {
        let header = Header::from_bytes(&published()).unwrap();
        assert_eq!(header.tables(), 4);
        let len = (header.max_tables() + 1) * 8;
        let [first, second] = header.directories;
        assert_eq!(first + len.next_multiple_of(SECTOR), second);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (at, byte, kind) in [
            (3, b'x', ErrorKind::NotAnImage),
            (7, 2, ErrorKind::Unsupported),
            (10, 4, ErrorKind::Unsupported),
            (15, 1, ErrorKind::Unsupported),
            (65, 0x20, ErrorKind::Unsupported),
            (68, 16, ErrorKind::Unsupported),
            (71, 2, ErrorKind::Unsupported),
            (48, 1, ErrorKind::Corrupt),
            (58, 0, ErrorKind::Corrupt),
        ] {
            let mut bytes = published();
            bytes[at] = byte;
            if at == 58 {
                bytes[56..64].fill(0);
            }
            let error = Header::from_bytes(&bytes).unwrap_err();
            assert_eq!(error.kind(), kind, "{at}: {error}");
        }
        for at in KNOWN_LEN..HEADER_LEN {
            let mut bytes = published();
            bytes[at] = 0x80;
            let error = Header::from_bytes(&bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{at}: {error}");
            assert!(error.to_string().ends_with(&format!("(0x80 at byte {at})")));
        }
        // Every image has an identity of its own.
        let mut bytes = published();
        bytes[32..48].fill(0xa5);
        assert!(Header::from_bytes(&bytes).is_ok());
    }

    #[test]
    fn metadata_is_behind_the_disk() {
        let end = 0x3a38_6030_u64.div_ceil(2048);
        for (chunk, is_right) in [
            (0, true),
            (1, false),
            (end - 1, false),
            (end, true),
            (u64::from(u32::MAX), true),
            (1 << 32, false),
            (u64::MAX, false),
        ] {
            let mut bytes = published();
            bytes[72..80].copy_from_slice(&chunk.to_be_bytes());
            let header = Header::from_bytes(&bytes);
            assert_eq!(header.is_ok(), is_right, "{chunk}: {header:?}");
        }
    }
}
