//! The header of a growing redo log, versions 1 and 2.

use crate::bytes::{le32, le64, text};
use crate::error::{Error, ErrorKind, Result};
use crate::printable::printable;
use crate::size::SECTOR;

/// Bytes of the header that are read.
pub(in super::super) const HEADER_LEN: usize = 512;

const VERSION_1: u32 = 0x1_0000;
const VERSION_2: u32 = 0x2_0000;

/// Maximum number of entries of a catalog.
const MAX_CATALOG: u32 = 0x10_0000;

/// Maximum size of an extent.
const MAX_EXTENT: u32 = 0x80_0000;

const MAGIC: &[u8] = b"Bochs Virtual HD Image";
const TYPE: &[u8] = b"Redolog";
const GROWING: &[u8] = b"Growing";

/// The contents of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Offset of the catalog in the file.
    pub(in super::super) catalog_at: u64,
    /// The number of its entries.
    pub(in super::super) catalog: u32,
    /// Bytes before the data of an extent: its bitmap, in whole sectors.
    pub(in super::super) bitmap: u64,
    /// Guest bytes per extent.
    pub(in super::super) extent: u64,
    /// Virtual size in bytes.
    pub(in super::super) len: u64,
}

/// Whether a file that begins like this is a growing disk of a known version.
pub(in super::super) fn is_growing(head: &[u8]) -> bool {
    is_redo_log(head)
        && text(head, 48, 16) == Some(GROWING)
        && matches!(le32(head, 64), Some(VERSION_1 | VERSION_2))
}

fn is_redo_log(head: &[u8]) -> bool {
    text(head, 0, 32) == Some(MAGIC) && text(head, 32, 16) == Some(TYPE)
}

impl Header {
    /// Decodes the first [`HEADER_LEN`] bytes of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for other kinds of redo logs, [`ErrorKind::NotAnImage`] for other files, otherwise
    /// [`ErrorKind::Corrupt`].
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if !is_growing(bytes) {
            return Err(other(bytes));
        }
        let number = |at| le32(bytes, at).unwrap_or_default();
        let refuse = |at: u64, why: String| Err(Error::corrupt(why).with_offset(at));
        let (catalog, bitmap, extent) = (number(72), number(76), number(80));
        let len_at = match number(64) {
            VERSION_1 => 84,
            _ => 88,
        };
        if catalog > MAX_CATALOG {
            return refuse(72, "Catalog size is too large".to_owned());
        }
        if extent < SECTOR as u32 {
            return refuse(80, "Extent size must be at least 512".to_owned());
        }
        if !extent.is_power_of_two() {
            return refuse(80, format!("Extent size {extent} is not a power of two"));
        }
        if extent > MAX_EXTENT {
            return refuse(80, format!("Extent size {extent} is too large"));
        }
        let sectors = le64(bytes, len_at).unwrap_or_default() / SECTOR;
        let extents = sectors.div_ceil(u64::from(extent) / SECTOR);
        if extents > u64::from(catalog) {
            return refuse(
                72,
                "Catalog size is too small for this disk size".to_owned(),
            );
        }
        let header = Self {
            catalog_at: u64::from(number(68)),
            catalog,
            bitmap: u64::from(bitmap).next_multiple_of(SECTOR),
            extent: u64::from(extent),
            len: sectors * SECTOR,
        };
        if header.bitmap < header.bits() {
            let why = format!("A bitmap of {bitmap} bytes is too small for an extent of {extent}");
            return refuse(76, why);
        }
        Ok(header)
    }

    /// Bytes of a bitmap that hold the bits of sectors.
    pub(in super::super) fn bits(&self) -> u64 {
        (self.extent / SECTOR).div_ceil(8)
    }

    /// The end of the catalog, where the first extent begins.
    pub(in super::super) fn catalog_end(&self) -> u64 {
        self.catalog_at + u64::from(self.catalog) * 4
    }

    /// The offset of the bitmap of an extent in the file.
    pub(in super::super) fn extent_at(&self, number: u32) -> u64 {
        self.catalog_end() + u64::from(number) * (self.bitmap + self.extent)
    }
}

/// The error for a file that is not a growing disk.
fn other(head: &[u8]) -> Error {
    let subtype = text(head, 48, 16).unwrap_or_default();
    if is_redo_log(head) && subtype != GROWING {
        let subtype = String::from_utf8_lossy(subtype).into_owned();
        let hint = format!(
            "It is a redo log of the kind '{}', which holds the changes to another disk.",
            printable(&subtype)
        );
        return Error::unsupported("Image not in Bochs format").with_hint(hint);
    }
    Error::new(ErrorKind::NotAnImage, "Image not in Bochs format")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, numbers: [u32; 4], len: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[32..32 + TYPE.len()].copy_from_slice(TYPE);
        bytes[48..48 + GROWING.len()].copy_from_slice(GROWING);
        bytes[64..68].copy_from_slice(&version.to_le_bytes());
        for (n, number) in numbers.iter().enumerate() {
            bytes[68 + n * 4..72 + n * 4].copy_from_slice(&number.to_le_bytes());
        }
        let at = if version == VERSION_1 { 84 } else { 88 };
        bytes[at..at + 8].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    #[test]
    fn both_versions_say_the_same() {
        for version in [VERSION_1, VERSION_2] {
            let bytes = header(version, [512, 16, 1, 65536], 1_000_000);
            assert!(is_growing(&bytes));
            let found = Header::from_bytes(&bytes).unwrap();
            assert_eq!((found.len, found.bitmap), (999_936, 512));
            assert_eq!(found.extent_at(2), 512 + 64 + 2 * 66_048);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let text = |numbers, len| {
            let bytes = header(VERSION_2, numbers, len);
            Header::from_bytes(&bytes).unwrap_err().to_string()
        };
        for (numbers, len, why) in [
            ([512, 0x10_0001, 1, 0], 512, "Catalog size is too large"),
            ([512, 8, 1, 256], 512, "Extent size must be at least 512"),
            (
                [512, 8, 1, 1536],
                512,
                "Extent size 1536 is not a power of two",
            ),
            (
                [512, 8, 1, 1 << 24],
                512,
                "Extent size 16777216 is too large",
            ),
            (
                [512, 8, 1, 65536],
                9 << 16,
                "Catalog size is too small for this disk size",
            ),
            (
                [512, 8, 1, 65536],
                u64::MAX,
                "Catalog size is too small for this disk size",
            ),
            (
                [512, 8, 0, 65536],
                512,
                "A bitmap of 0 bytes is too small for an extent of 65536",
            ),
            (
                [512, 8, 512, 1 << 23],
                512,
                "A bitmap of 512 bytes is too small for an extent of 8388608",
            ),
        ] {
            assert_eq!(text(numbers, len), why);
        }
    }

    #[test]
    fn other_redo_logs_are_named() {
        let mut bytes = header(VERSION_2, [512, 8, 1, 65536], 512);
        bytes[48..64].copy_from_slice(b"Undoable\0\0\0\0\0\0\0\0");
        let error = Header::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.hints()[0].contains("'Undoable'"));
        bytes[0] = b'b';
        let error = Header::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "Image not in Bochs format");
        assert!(error.hints().is_empty());
    }
}
