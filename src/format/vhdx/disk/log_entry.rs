//! Log entries (section 2.3.1): a header, descriptors, and a data sector for each data descriptor.

use uuid::Uuid;

use crate::bytes::{array, le32, le64};

/// Size of a log sector, and of the page that a data descriptor changes.
pub(in super::super) const DATA_SECTOR: usize = 4096;
/// Length of an entry's header.
pub(in super::super) const ENTRY_HEADER_LEN: usize = 64;
/// Length of a descriptor.
pub(in super::super) const DESCRIPTOR_LEN: usize = 32;

const ENTRY: &[u8; 4] = b"loge";
const ZERO: &[u8; 4] = b"zero";
const DATA: &[u8; 4] = b"desc";
const SECTOR: &[u8; 4] = b"data";

/// Number of bytes at the beginning and at the end of a changed page that are stored in its descriptor.
const LEADING: usize = 8;
const TRAILING: usize = 4;

/// The header of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct EntryHeader {
    /// Over the whole entry.
    pub(in super::super) checksum: u32,
    /// Length of the entry in bytes.
    pub(in super::super) len: u32,
    /// Offset in the log of the beginning of the sequence that ends with this entry.
    pub(in super::super) tail: u32,
    /// One more than that of the previous entry.
    pub(in super::super) sequence: u64,
    /// Number of descriptors that follow.
    pub(in super::super) descriptors: u32,
    /// The log GUID that the file's header contains while the entry is valid.
    pub(in super::super) log: Uuid,
    /// Minimum length that the file durably had when the entry was written.
    pub(in super::super) flushed: u64,
    /// Minimum length of the file once the entry has been replayed.
    pub(in super::super) last: u64,
}

impl EntryHeader {
    /// Parses the header at the beginning of an entry; `None` if there is none.
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

    /// The on-disk representation, with the checksum as it is.
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

/// Length of the header with this many descriptors, rounded up to whole sectors.
pub(in super::super) fn descriptors_len(descriptors: u64) -> u64 {
    (ENTRY_HEADER_LEN as u64 + descriptors * DESCRIPTOR_LEN as u64)
        .next_multiple_of(DATA_SECTOR as u64)
}

/// A change that an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Descriptor {
    /// A range becomes zeroes.
    Zero {
        /// Its length in bytes.
        len: u64,
        /// Its offset in the file.
        offset: u64,
        /// Sequence number of the entry.
        sequence: u64,
    },
    /// A page is replaced by the data of one of the entry's sectors.
    Data {
        /// The last bytes of the page.
        trailing: [u8; TRAILING],
        /// The first bytes of the page.
        leading: [u8; LEADING],
        /// File offset of the page.
        offset: u64,
        /// Sequence number of the entry.
        sequence: u64,
    },
}

impl Descriptor {
    /// Parses a descriptor; `None` if it is of an unknown kind.
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

    /// The descriptor of a page that is replaced by these bytes.
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

    /// The on-disk representation.
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

/// The data sector of a page, without the bytes that are stored in the descriptor: in their place it has the entry's
/// sequence number, half at the beginning and half at the end.
pub(in super::super) fn data_sector(page: &[u8; DATA_SECTOR], sequence: u64) -> [u8; DATA_SECTOR] {
    let mut sector = *page;
    sector[..4].copy_from_slice(SECTOR);
    sector[4..LEADING].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
    sector[DATA_SECTOR - TRAILING..].copy_from_slice(&(sequence as u32).to_le_bytes());
    sector
}

/// Combines a sector and its descriptor into a page; `None` if the sector does not belong to the entry.
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
