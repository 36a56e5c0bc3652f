//! Entries of the log (section 2.3.1): a header, descriptors, and a sector of data for each descriptor
//! of one.

use uuid::Uuid;

use crate::bytes::{array, le32, le64};

/// Bytes of a log sector, and of what a data descriptor changes.
pub(in super::super) const DATA_SECTOR: usize = 4096;
/// Bytes of an entry's header.
pub(in super::super) const ENTRY_HEADER_LEN: usize = 64;
/// Bytes of a descriptor.
pub(in super::super) const DESCRIPTOR_LEN: usize = 32;

const ENTRY: &[u8; 4] = b"loge";
const ZERO: &[u8; 4] = b"zero";
const DATA: &[u8; 4] = b"desc";
const SECTOR: &[u8; 4] = b"data";

/// What of a changed page stands in its descriptor: the bytes at the beginning, and those at the end.
const LEADING: usize = 8;
const TRAILING: usize = 4;

/// The header of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct EntryHeader {
    /// Over the whole entry.
    pub(in super::super) checksum: u32,
    /// Bytes of the entry.
    pub(in super::super) len: u32,
    /// Where in the log the sequence begins that ends with this entry.
    pub(in super::super) tail: u32,
    /// One more than that of the entry before.
    pub(in super::super) sequence: u64,
    /// How many descriptors follow.
    pub(in super::super) descriptors: u32,
    /// That of the header of the file while the entry counts.
    pub(in super::super) log: Uuid,
    /// The file was at least so long, durably, when the entry was written.
    pub(in super::super) flushed: u64,
    /// The file has to be at least so long when the entry was replayed.
    pub(in super::super) last: u64,
}

impl EntryHeader {
    /// The header at the beginning of an entry; None where there is none.
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(ENTRY) {
            return None;
        }
        Some(Self {
            checksum: le32(bytes, 4)?,
            len: le32(bytes, 8)?,
            tail: le32(bytes, 12)?,
            sequence: le64(bytes, 16)?,
            descriptors: le32(bytes, 24)?,
            log: Uuid::from_bytes_le(array(bytes, 32)?),
            flushed: le64(bytes, 48)?,
            last: le64(bytes, 56)?,
        })
    }

    /// As it stands on disk, its checksum as it is.
    pub(in super::super) fn to_bytes(&self) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = [0; ENTRY_HEADER_LEN];
        bytes[..4].copy_from_slice(ENTRY);
        bytes[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tail.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.descriptors.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.log.to_bytes_le());
        bytes[48..56].copy_from_slice(&self.flushed.to_le_bytes());
        bytes[56..].copy_from_slice(&self.last.to_le_bytes());
        bytes
    }
}

/// Bytes of the header with so many descriptors, in whole sectors.
pub(in super::super) fn descriptors_len(descriptors: u64) -> u64 {
    (ENTRY_HEADER_LEN as u64 + descriptors * DESCRIPTOR_LEN as u64)
        .next_multiple_of(DATA_SECTOR as u64)
}

/// What an entry changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Descriptor {
    /// A range becomes zeroes.
    Zero {
        /// Its length in bytes.
        len: u64,
        /// Where it begins.
        offset: u64,
        /// That of the entry.
        sequence: u64,
    },
    /// A page gets the data of a sector of the entry.
    Data {
        /// The last bytes of the page.
        trailing: [u8; TRAILING],
        /// The first bytes of the page.
        leading: [u8; LEADING],
        /// Where the page is.
        offset: u64,
        /// That of the entry.
        sequence: u64,
    },
}

impl Descriptor {
    /// A descriptor; None for one of an unknown kind.
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (offset, sequence) = (le64(bytes, 16)?, le64(bytes, 24)?);
        if bytes.starts_with(ZERO) {
            let len = le64(bytes, 8)?;
            return Some(Self::Zero {
                len,
                offset,
                sequence,
            });
        }
        bytes.starts_with(DATA).then_some(())?;
        Some(Self::Data {
            trailing: array(bytes, 4)?,
            leading: array(bytes, 8)?,
            offset,
            sequence,
        })
    }

    /// That of a page which gets these bytes.
    pub(in super::super) fn of_page(page: &[u8; DATA_SECTOR], offset: u64, sequence: u64) -> Self {
        let mut leading = [0; LEADING];
        let mut trailing = [0; TRAILING];
        leading.copy_from_slice(&page[..LEADING]);
        trailing.copy_from_slice(&page[DATA_SECTOR - TRAILING..]);
        Self::Data {
            trailing,
            leading,
            offset,
            sequence,
        }
    }

    /// As it stands on disk.
    pub(in super::super) fn to_bytes(self) -> [u8; DESCRIPTOR_LEN] {
        let mut bytes = [0; DESCRIPTOR_LEN];
        let (offset, sequence) = match self {
            Self::Zero {
                len,
                offset,
                sequence,
            } => {
                bytes[..4].copy_from_slice(ZERO);
                bytes[8..16].copy_from_slice(&len.to_le_bytes());
                (offset, sequence)
            }
            Self::Data {
                trailing,
                leading,
                offset,
                sequence,
            } => {
                bytes[..4].copy_from_slice(DATA);
                bytes[4..8].copy_from_slice(&trailing);
                bytes[8..16].copy_from_slice(&leading);
                (offset, sequence)
            }
        };
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        bytes[24..].copy_from_slice(&sequence.to_le_bytes());
        bytes
    }
}

/// The sector of an entry that holds a page, except for what stands in the descriptor: the number of the
/// entry stands there, half in front and half behind.
pub(in super::super) fn data_sector(page: &[u8; DATA_SECTOR], sequence: u64) -> [u8; DATA_SECTOR] {
    let mut sector = *page;
    sector[..4].copy_from_slice(SECTOR);
    sector[4..LEADING].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
    sector[DATA_SECTOR - TRAILING..].copy_from_slice(&(sequence as u32).to_le_bytes());
    sector
}

/// The page that a sector and its descriptor hold; None where the sector is not of that entry.
pub(in super::super) fn page_of(
    sector: &[u8],
    leading: [u8; LEADING],
    trailing: [u8; TRAILING],
    sequence: u64,
) -> Option<[u8; DATA_SECTOR]> {
    let mut page: [u8; DATA_SECTOR] = sector.try_into().ok()?;
    let high = u64::from(le32(sector, 4)?);
    let low = u64::from(le32(sector, DATA_SECTOR - TRAILING)?);
    if !sector.starts_with(SECTOR) || high << 32 | low != sequence {
        return None;
    }
    page[..LEADING].copy_from_slice(&leading);
    page[DATA_SECTOR - TRAILING..].copy_from_slice(&trailing);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_header_is_read_as_it_was_written() {
        let header = EntryHeader {
            checksum: 1,
            len: 8192,
            tail: 4096,
            sequence: 1 << 40,
            descriptors: 3,
            log: Uuid::from_u128(7),
            flushed: 5 << 20,
            last: 6 << 20,
        };
        assert_eq!(EntryHeader::from_bytes(&header.to_bytes()), Some(header));
        assert_eq!(EntryHeader::from_bytes(b"loge"), None);
        assert_eq!(descriptors_len(126), 4096);
        assert_eq!(descriptors_len(127), 8192);
    }

    #[test]
    fn a_page_goes_through_descriptor_and_sector_and_back() {
        let mut page = [0; DATA_SECTOR];
        for (n, byte) in page.iter_mut().enumerate() {
            *byte = (n % 251) as u8;
        }
        let sequence = 0x1_2345_6789;
        let descriptor = Descriptor::of_page(&page, 3 << 20, sequence);
        assert_eq!(
            Descriptor::from_bytes(&descriptor.to_bytes()),
            Some(descriptor)
        );
        let Descriptor::Data {
            trailing, leading, ..
        } = descriptor
        else {
            panic!("a descriptor of data");
        };
        let sector = data_sector(&page, sequence);
        assert_eq!(page_of(&sector, leading, trailing, sequence), Some(page));
        assert_eq!(page_of(&sector, leading, trailing, sequence + 1), None);
        let zero = Descriptor::Zero {
            len: 4096,
            offset: 8192,
            sequence,
        };
        assert_eq!(Descriptor::from_bytes(&zero.to_bytes()), Some(zero));
        assert_eq!(Descriptor::from_bytes(&[0; 32]), None);
    }
}
