//! The header of a VDI file. There is no published specification: the fields are those that DiscUtils names, and those
//! that VirtualBox writes.

use uuid::Uuid;

use crate::bytes::{array, le32, le64, put};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the file that hold the header in either version.
pub(crate) const HEAD_LEN: usize = 512;

/// The number at [`SIGNATURE_AT`].
pub(crate) const SIGNATURE: u32 = 0xbeda_107f;
/// Offset of the signature of a VDI.
pub(crate) const SIGNATURE_AT: usize = 64;

/// Maximum number of blocks of an image: its table and header stay below 2 GiB, so that the offset of the data can be
/// expressed.
pub(crate) const MAX_BLOCKS: u32 = 0x1fff_ff80;

/// Minimum and maximum size of a block in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=1 << 30;

/// The version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Before 2004: the table follows the header, the data the table.
    V0,
    /// The header says where both are.
    V1,
}

/// How the blocks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageType {
    /// Blocks are allocated when they are first written.
    Dynamic,
    /// All blocks are allocated.
    Fixed,
    /// Holds changes that can be undone.
    Undo,
    /// Holds what differs from a parent.
    Differencing,
}

impl ImageType {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Dynamic,
            2 => Self::Fixed,
            3 => Self::Undo,
            4 => Self::Differencing,
            _ => return None,
        })
    }

    fn number(self) -> u32 {
        match self {
            Self::Dynamic => 1,
            Self::Fixed => 2,
            Self::Undo => 3,
            Self::Differencing => 4,
        }
    }
}

/// Offsets of the fields in a version of the header.
struct Fields {
    image_type: usize,
    sector_size: usize,
    disk_size: usize,
    block_size: usize,
    blocks: usize,
    allocated: usize,
    image: usize,
    modification: usize,
    link: usize,
}

const V0: Fields = Fields {
    image_type: 0x48,
    sector_size: 0x15c,
    disk_size: 0x160,
    block_size: 0x168,
    blocks: 0x16c,
    allocated: 0x170,
    image: 0x174,
    modification: 0x184,
    link: 0x194,
};

const V1: Fields = Fields {
    image_type: 0x4c,
    sector_size: 0x168,
    disk_size: 0x170,
    block_size: 0x178,
    blocks: 0x180,
    allocated: 0x184,
    image: 0x188,
    modification: 0x198,
    link: 0x1a8,
};

/// Fields that only version 1 has.
const HEADER_SIZE: usize = 0x48;
const TABLE_OFFSET: usize = 0x154;
const DATA_OFFSET: usize = 0x158;
const EXTRA: usize = 0x17c;
const PARENT_MODIFICATION: usize = 0x1b8;
/// The sector size of the second geometry.
const LOGICAL_SECTOR_SIZE: usize = 0x1d4;

/// Offset of the UUID of the parent.
pub(crate) const LINK_AT: u64 = V1.link as u64;

/// Offset of the table of a V0 image.
const V0_TABLE: u32 = 0x1a4;

/// The size of the header that a new image states: up to the end of the second geometry.
const NEW_HEADER_SIZE: u32 = 400;

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: Version,
    pub(crate) image_type: ImageType,
    /// Offset of the table of blocks.
    pub(crate) table_offset: u32,
    /// Offset of the blocks.
    pub(crate) data_offset: u32,
    /// The virtual size.
    pub(crate) disk_size: u64,
    pub(crate) block_size: u32,
    /// Bytes that precede the data of each block.
    pub(crate) extra: u32,
    /// Number of table entries.
    pub(crate) blocks: u32,
    /// Number of blocks that have space in the file.
    pub(crate) allocated: u32,
    /// Identifies the image.
    pub(crate) image: Uuid,
    /// Changes when the contents change.
    pub(crate) modification: Uuid,
    /// The parent's [`Header::image`].
    pub(crate) link: Uuid,
    /// The parent's [`Header::modification`] when the image was created.
    pub(crate) parent_modification: Uuid,
    /// The raw bytes, to preserve what is between the fields.
    raw: Vec<u8>,
}

fn unsupported(what: String) -> Error {
    Error::unsupported(format!("unsupported VDI image ({what})"))
}

impl Header {
    /// Reads the header from the first [`HEAD_LEN`] bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`] if it is none, [`crate::ErrorKind::Unsupported`] or
    /// [`crate::ErrorKind::Corrupt`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let short = || Error::corrupt("The file ends within the VDI header");
        let number = |at| le32(bytes, at).ok_or_else(short);
        let uuid = |at| array(bytes, at).map(Uuid::from_bytes_le).ok_or_else(short);
        let signature = number(SIGNATURE_AT)?;
        if signature != SIGNATURE {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                format!("Image not in VDI format (bad signature {signature:08x})"),
            ));
        }
        let (version, fields) = match number(0x44)? {
            0x0001_0001 => (Version::V1, &V1),
            // The minor number is whatever the program used at the time.
            other if other >> 16 == 0 && other != 0 => (Version::V0, &V0),
            other => {
                return Err(unsupported(format!(
                    "version {}.{}",
                    other >> 16,
                    other & 0xffff
                )));
            }
        };
        let blocks = number(fields.blocks)?;
        let (table_offset, data_offset, extra, parent_modification) = match version {
            Version::V1 => (
                number(TABLE_OFFSET)?,
                number(DATA_OFFSET)?,
                number(EXTRA)?,
                uuid(PARENT_MODIFICATION)?,
            ),
            Version::V0 => (
                V0_TABLE,
                V0_TABLE.saturating_add(blocks.saturating_mul(4)),
                0,
                Uuid::nil(),
            ),
        };
        let image_type = number(fields.image_type)?;
        let header = Self {
            version,
            image_type: ImageType::from_number(image_type)
                .ok_or_else(|| unsupported(format!("type {image_type}")))?,
            table_offset,
            data_offset,
            disk_size: le64(bytes, fields.disk_size).ok_or_else(short)?,
            block_size: number(fields.block_size)?,
            extra,
            blocks,
            allocated: number(fields.allocated)?,
            image: uuid(fields.image)?,
            modification: uuid(fields.modification)?,
            link: uuid(fields.link)?,
            parent_modification,
            raw: bytes.get(..HEAD_LEN).ok_or_else(short)?.to_vec(),
        };
        header.check(number(fields.sector_size)?)?;
        Ok(header)
    }

    fn check(&self, sector_size: u32) -> Result<()> {
        if self.version == Version::V1 {
            for (what, offset) in [("block map", self.table_offset), ("data", self.data_offset)] {
                if offset % 512 != 0 {
                    return Err(unsupported(format!("unaligned {what} offset {offset:#x}")));
                }
            }
        }
        if sector_size != 512 {
            return Err(unsupported(format!("sector size {sector_size} is not 512")));
        }
        if matches!(self.image_type, ImageType::Undo | ImageType::Differencing)
            && self.link.is_nil()
        {
            return Err(Error::corrupt(
                "The VDI image stands over another one, and does not say which",
            )
            .with_offset(LINK_AT));
        }
        if !self.block_size.is_power_of_two() || !BLOCK_SIZES.contains(&self.block_size) {
            return Err(unsupported(format!("block size {}", self.block_size)));
        }
        if !self.extra.is_multiple_of(512) || self.extra > *BLOCK_SIZES.end() {
            return Err(unsupported(format!("{} extra bytes per block", self.extra)));
        }
        if self.blocks > MAX_BLOCKS {
            return Err(unsupported(format!(
                "too many blocks {}, max is {MAX_BLOCKS}",
                self.blocks
            )));
        }
        let most = Self::max_size(self.block_size);
        if self.disk_size > most {
            return Err(Error::unsupported(format!(
                "Unsupported VDI image size (size is {:#x}, max supported is {most:#x})",
                self.disk_size
            )));
        }
        let room = u64::from(self.blocks) * u64::from(self.block_size);
        if self.disk_size > room {
            return Err(unsupported(format!(
                "disk size {}, image bitmap has room for {room}",
                self.disk_size.next_multiple_of(512)
            )));
        }
        if self.table_offset < self.end() || self.table_end() > u64::from(self.data_offset) {
            return Err(Error::corrupt(
                "The block map of the VDI image overlaps the header or the data",
            )
            .with_offset(u64::from(self.table_offset)));
        }
        Ok(())
    }

    /// The end of the fields.
    fn end(&self) -> u32 {
        match self.version {
            Version::V0 => V0_TABLE,
            Version::V1 => PARENT_MODIFICATION as u32 + 16,
        }
    }

    /// The end of the table of blocks.
    pub(crate) fn table_end(&self) -> u64 {
        u64::from(self.table_offset) + u64::from(self.blocks) * 4
    }

    /// The maximum virtual size with blocks of that size.
    pub(crate) fn max_size(block_size: u32) -> u64 {
        u64::from(MAX_BLOCKS) * u64::from(block_size)
    }

    /// The header of a new image; sizes and offsets remain to be set.
    pub(crate) fn new(image_type: ImageType, block_size: u32) -> Self {
        let mut raw = vec![0; HEAD_LEN];
        let text = b"<<< Platter VM Virtual Disk Image >>>\n";
        for (at, bytes) in [
            (0, &text[..]),
            (SIGNATURE_AT, &SIGNATURE.to_le_bytes()),
            (0x44, &0x0001_0001_u32.to_le_bytes()),
            (HEADER_SIZE, &NEW_HEADER_SIZE.to_le_bytes()),
            (V1.sector_size, &512_u32.to_le_bytes()),
            (LOGICAL_SECTOR_SIZE, &512_u32.to_le_bytes()),
        ] {
            // The fields lie within the sector.
            let _ = put(&mut raw, at, bytes);
        }
        Self {
            version: Version::V1,
            image_type,
            table_offset: HEAD_LEN as u32,
            data_offset: 0,
            disk_size: 0,
            block_size,
            extra: 0,
            blocks: 0,
            allocated: 0,
            image: Uuid::new_v4(),
            modification: Uuid::new_v4(),
            link: Uuid::nil(),
            parent_modification: Uuid::nil(),
            raw,
        }
    }

    /// The first [`HEAD_LEN`] bytes of a file of version 1; older images are never written. What is between the fields
    /// is preserved.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.raw.clone();
        let fields = &V1;
        let mut number = |at: usize, value: &[u8]| {
            // The fields lie within the sector.
            let _ = put(&mut bytes, at, value);
        };
        number(fields.image_type, &self.image_type.number().to_le_bytes());
        number(fields.disk_size, &self.disk_size.to_le_bytes());
        number(fields.block_size, &self.block_size.to_le_bytes());
        number(fields.blocks, &self.blocks.to_le_bytes());
        number(fields.allocated, &self.allocated.to_le_bytes());
        number(fields.image, &self.image.to_bytes_le());
        number(fields.modification, &self.modification.to_bytes_le());
        number(fields.link, &self.link.to_bytes_le());
        number(TABLE_OFFSET, &self.table_offset.to_le_bytes());
        number(DATA_OFFSET, &self.data_offset.to_le_bytes());
        number(EXTRA, &self.extra.to_le_bytes());
        let parent = self.parent_modification.to_bytes_le();
        number(PARENT_MODIFICATION, &parent);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let mut header = Header::new(ImageType::Fixed, 1 << 20);
        header.data_offset = 1 << 20;
        header.blocks = 3;
        header.disk_size = 3 << 20;
        header.allocated = 2;
        header.link = Uuid::new_v4();
        let bytes = header.to_bytes();
        assert_eq!(bytes.len(), HEAD_LEN);
        let mut read = Header::from_bytes(&bytes).unwrap();
        read.raw.clone_from(&header.raw);
        assert_eq!(read, header);
        for len in 0..HEAD_LEN {
            assert!(Header::from_bytes(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_header_of_the_first_version_has_its_fields_elsewhere() {
        let mut bytes = vec![0; HEAD_LEN];
        for (at, value) in [
            (SIGNATURE_AT, SIGNATURE),
            (0x44, 2),
            (V0.image_type, 1),
            (V0.sector_size, 512),
            (V0.disk_size, 5 << 20),
            (V0.block_size, 1 << 20),
            (V0.blocks, 5),
            (V0.allocated, 4),
        ] {
            assert!(put(&mut bytes, at, &value.to_le_bytes()));
        }
        let header = Header::from_bytes(&bytes).unwrap();
        assert_eq!(header.version, Version::V0);
        assert_eq!((header.table_offset, header.data_offset), (420, 440));
    }

    #[test]
    fn an_image_over_another_names_it() {
        for (image_type, is_over_another) in [
            (ImageType::Dynamic, false),
            (ImageType::Fixed, false),
            (ImageType::Undo, true),
            (ImageType::Differencing, true),
        ] {
            let mut header = Header::new(image_type, 1 << 20);
            header.data_offset = 1 << 20;
            let refused = Header::from_bytes(&header.to_bytes());
            assert_eq!(refused.is_err(), is_over_another, "{image_type:?}");
            header.link = Uuid::new_v4();
            Header::from_bytes(&header.to_bytes()).unwrap();
        }
    }
}
