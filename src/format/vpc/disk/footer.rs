//! The hard disk footer: "Hard Disk Footer Format" of the specification.

use uuid::Uuid;

use crate::bytes::{array, be16, be32, be64, put};
use crate::error::{Error, ErrorKind, Result};

use super::Geometry;

/// Length of a footer in bytes.
pub(crate) const FOOTER_LEN: usize = 512;

/// The first bytes of a footer.
pub(crate) const COOKIE: &[u8; 8] = b"conectix";

const CHECKSUM: usize = 0x40;

/// Where a disk that is being truncated says so, in reserved bytes, and what it says there.
const SHRINK: usize = 0x1f0;
const SHRINK_TAG: &[u8; 8] = b"shrunk\0\0";

/// Programs whose images have the size of their geometry, not the one in the footer.
const BY_GEOMETRY: [&[u8; 4]; 2] = [b"vpc ", b"qemu"];

/// How the guest data is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskType {
    /// Contiguous, followed by the footer.
    Fixed,
    /// In blocks that are allocated when they are first written.
    Dynamic,
    /// In blocks, some of whose sectors are in the parent.
    Differencing,
}

impl DiskType {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            2 => Self::Fixed,
            3 => Self::Dynamic,
            4 => Self::Differencing,
            _ => return None,
        })
    }

    fn number(self) -> u32 {
        match self {
            Self::Fixed => 2,
            Self::Dynamic => 3,
            Self::Differencing => 4,
        }
    }
}

/// A footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) disk_type: DiskType,
    /// Offset of the dynamic header; all ones in a fixed disk.
    pub(crate) data_offset: u64,
    /// The program that created the image.
    pub(crate) creator: [u8; 4],
    /// When it was created, in seconds since 2000.
    pub(crate) timestamp: u32,
    /// The size of the disk when it was created, and now.
    pub(crate) original_size: u64,
    pub(crate) current_size: u64,
    pub(crate) geometry: Geometry,
    pub(crate) uuid: Uuid,
    /// Where this footer of a fixed disk was when an unfinished shrink began: everything past the disk is given up.
    pub(crate) shrunk_from: Option<u64>,
    /// The raw bytes, to preserve what is between the fields.
    raw: Vec<u8>,
}

/// The checksum that `bytes` must contain at `offset`: the complement of the sum of all other bytes.
pub(super) fn checksum(bytes: &[u8], offset: usize) -> u32 {
    let own = offset..offset + 4;
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !own.contains(at))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

/// The error if there is no footer.
pub(crate) fn not_an_image() -> Error {
    Error::new(ErrorKind::NotAnImage, "invalid VPC image")
}

impl Footer {
    /// Reads a footer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotAnImage`] if it is none, [`crate::ErrorKind::Corrupt`] or
    /// [`crate::ErrorKind::Unsupported`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let raw = with_cookie(bytes)?;
        match be32(raw, CHECKSUM) == Some(checksum(raw, CHECKSUM)) {
            true => Self::despite_checksum(raw),
            false => Err(Error::corrupt("Incorrect header checksum")),
        }
    }

    /// As [`Footer::from_bytes`], but ignores the checksum.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn despite_checksum(bytes: &[u8]) -> Result<Self> {
        let none = not_an_image;
        let raw = with_cookie(bytes)?;
        let number = |at| be32(raw, at).ok_or_else(none);
        let long = |at| be64(raw, at).ok_or_else(none);
        let version = number(0xc)?;
        if version >> 16 != 1 {
            return Err(Error::unsupported(format!(
                "Unsupported VPC image (version {}.{})",
                version >> 16,
                version & 0xffff
            )));
        }
        let disk_type = number(0x3c)?;
        Ok(Self {
            disk_type: DiskType::from_number(disk_type).ok_or_else(|| {
                Error::unsupported(format!("Unsupported VPC image (disk type {disk_type})"))
            })?,
            data_offset: long(0x10)?,
            timestamp: number(0x18)?,
            creator: array(raw, 0x1c).ok_or_else(none)?,
            original_size: long(0x28)?,
            current_size: long(0x30)?,
            geometry: Geometry {
                cylinders: be16(raw, 0x38).ok_or_else(none)?,
                heads: *raw.get(0x3a).ok_or_else(none)?,
                sectors: *raw.get(0x3b).ok_or_else(none)?,
            },
            uuid: array(raw, 0x44).map(Uuid::from_bytes).ok_or_else(none)?,
            shrunk_from: match raw.get(SHRINK..SHRINK + 8) == Some(SHRINK_TAG) {
                true => be64(raw, SHRINK + 8),
                false => None,
            },
            raw: raw.to_vec(),
        })
    }

    /// The footer of a new disk.
    pub(crate) fn new(disk_type: DiskType, size: u64, geometry: Geometry, timestamp: u32) -> Self {
        let mut raw = vec![0; FOOTER_LEN];
        for (at, bytes) in [
            (0, &COOKIE[..]),
            // A bit that is always set.
            (8, &2_u32.to_be_bytes()),
            (0xc, &0x0001_0000_u32.to_be_bytes()),
            (0x20, &0x0001_0000_u32.to_be_bytes()),
            (0x24, b"Wi2k"),
        ] {
            // The fields lie within the footer.
            let _ = put(&mut raw, at, bytes);
        }
        Self {
            disk_type,
            data_offset: match disk_type {
                DiskType::Fixed => u64::MAX,
                _ => FOOTER_LEN as u64,
            },
            creator: *b"plat",
            timestamp,
            original_size: size,
            current_size: size,
            geometry,
            uuid: Uuid::new_v4(),
            shrunk_from: None,
            raw,
        }
    }

    /// The bytes of the footer. What is between the fields is preserved.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.raw.clone();
        let geometry = [
            &self.geometry.cylinders.to_be_bytes()[..],
            &[self.geometry.heads, self.geometry.sectors],
        ]
        .concat();
        for (at, value) in [
            (0x10, &self.data_offset.to_be_bytes()[..]),
            (0x18, &self.timestamp.to_be_bytes()),
            (0x1c, &self.creator),
            (0x28, &self.original_size.to_be_bytes()),
            (0x30, &self.current_size.to_be_bytes()),
            (0x38, &geometry),
            (0x3c, &self.disk_type.number().to_be_bytes()),
            (0x44, self.uuid.as_bytes()),
        ] {
            // The fields lie within the footer.
            let _ = put(&mut bytes, at, value);
        }
        if let Some(from) = self.shrunk_from {
            let _ = put(&mut bytes, SHRINK, SHRINK_TAG);
            let _ = put(&mut bytes, SHRINK + 8, &from.to_be_bytes());
        } else if bytes.get(SHRINK..SHRINK + 8) == Some(SHRINK_TAG) {
            let _ = put(&mut bytes, SHRINK, &[0; 16]);
        }
        let sum = checksum(&bytes, CHECKSUM);
        let _ = put(&mut bytes, CHECKSUM, &sum.to_be_bytes());
        bytes
    }

    /// The virtual size, by the geometry or by the number in the footer, or as the program that created the image meant
    /// it.
    pub(crate) fn size(&self, by_geometry: Option<bool>) -> u64 {
        // If the geometry is empty or the largest one, the number counts.
        let usual = BY_GEOMETRY.contains(&&self.creator) && self.geometry.total() > 0;
        if by_geometry.unwrap_or(usual) && self.geometry != Geometry::MAX {
            self.geometry.total() * 512
        } else {
            self.current_size / 512 * 512
        }
    }
}

/// The bytes of a footer, if they begin like one.
fn with_cookie(bytes: &[u8]) -> Result<&[u8]> {
    let raw = bytes.get(..FOOTER_LEN);
    raw.filter(|raw| raw.starts_with(COOKIE))
        .ok_or_else(not_an_image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_read_as_it_was_written() {
        let footer = Footer::new(DiskType::Dynamic, 10 << 20, Geometry::below(20480), 7);
        let bytes = footer.to_bytes();
        let mut read = Footer::from_bytes(&bytes).unwrap();
        read.raw.clone_from(&footer.raw);
        assert_eq!(read, footer);
        for at in [0, 0x10, 0x44, 511] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Footer::from_bytes(&bad).is_err(), "{at}");
        }
        assert!(Footer::from_bytes(&bytes[..511]).is_err());
    }

    #[test]
    fn the_size_is_what_the_program_that_made_the_image_meant() {
        let mut footer = Footer::new(DiskType::Dynamic, 10 << 20, Geometry::below(20480), 7);
        let by_geometry = footer.geometry.total() * 512;
        assert_ne!(by_geometry, 10 << 20);
        assert_eq!(footer.size(None), 10 << 20);
        footer.creator = *b"vpc ";
        assert_eq!(footer.size(None), by_geometry);
        assert_eq!(footer.size(Some(false)), 10 << 20);
        footer.geometry = Geometry::MAX;
        assert_eq!(footer.size(None), 10 << 20);
        footer.geometry = Geometry::below(0);
        assert_eq!(footer.size(None), 10 << 20);
    }
}
