//! The region table (section 2.2.3), of which there are two copies: it locates the BAT and the metadata.

use uuid::{Uuid, uuid};

use crate::bytes::{array, le32, le64};
use crate::error::{Error, Result};
use crate::memory;

use super::{MIB, checksum};

/// Offsets of the copies.
pub(in super::super) const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
/// Length of each copy.
pub(in super::super) const REGION_TABLE_LEN: usize = 64 << 10;

const SIGNATURE: &[u8; 4] = b"regi";
const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 32;
/// Maximum number of entries.
const MAX_ENTRIES: usize = 2047;

const BAT: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Region {
    /// Its offset in the file.
    pub(in super::super) offset: u64,
    /// Its length in bytes.
    pub(in super::super) len: u32,
}

impl Region {
    /// Where it ends.
    pub(in super::super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct RegionTable {
    /// The block allocation table.
    pub(in super::super) bat: Region,
    /// The metadata.
    pub(in super::super) metadata: Region,
    /// Regions of an unknown kind, which need not be understood.
    pub(in super::super) others: Vec<Other>,
}

/// A region of an unknown kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Other {
    id: Uuid,
    pub(in super::super) region: Region,
}

impl RegionTable {
    /// Whether the bytes are a table with a correct checksum.
    pub(in super::super) fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == REGION_TABLE_LEN && bytes.starts_with(SIGNATURE) && checksum::holds(bytes)
    }

    /// Parses a copy with a correct checksum.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for an unknown region that is required,
    /// [`crate::ErrorKind::Corrupt`] for regions that are missing, repeated or out of place.
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = |what: &str| {
            Error::corrupt(format!("The VHDX region table {what}")).with_offset(REGION_TABLES[0])
        };
        let count = le32(bytes, 8).unwrap_or(0) as usize;
        if count > MAX_ENTRIES {
            return Err(bad("has too many entries"));
        }
        let (mut bat, mut metadata, mut others) = (None, None, Vec::new());
        let entries = bytes
            .get(HEADER_LEN..)
            .unwrap_or_default()
            .chunks_exact(ENTRY_LEN);
        for entry in entries.take(count) {
            let (Some(id), Some(offset), Some(len), Some(flags)) = (
                array(entry, 0),
                le64(entry, 16),
                le32(entry, 24),
                le32(entry, 28),
            ) else {
                return Err(bad("is cut off"));
            };
            let id = Uuid::from_bytes_le(id);
            let region = Region { offset, len };
            let placed =
                offset >= MIB && offset.is_multiple_of(MIB) && u64::from(len).is_multiple_of(MIB);
            if !placed || len == 0 || offset.checked_add(u64::from(len)).is_none() {
                return Err(bad(&format!(
                    "places the region {id} at {offset}, {len} bytes long"
                )));
            }
            match id {
                BAT if bat.is_none() => bat = Some(region),
                METADATA if metadata.is_none() => metadata = Some(region),
                BAT | METADATA => return Err(bad(&format!("has the region {id} twice"))),
                _ if flags & 1 != 0 => {
                    return Err(Error::unsupported(format!(
                        "Unknown VHDX region {id} that is required"
                    )));
                }
                _ => others.push(Other { id, region }),
            }
        }
        Ok(Self {
            bat: bat.ok_or_else(|| bad("names no block allocation table"))?,
            metadata: metadata.ok_or_else(|| bad("names no metadata"))?,
            others,
        })
    }

    /// The on-disk representation.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(in super::super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let known = [(BAT, self.bat, 1u32), (METADATA, self.metadata, 1)];
        let others = self.others.iter().map(|other| (other.id, other.region, 0));
        let mut bytes = Vec::new();
        memory::reserve(&mut bytes, REGION_TABLE_LEN)?;
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(2 + self.others.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for (id, region, flags) in known.into_iter().chain(others) {
            bytes.extend_from_slice(&id.to_bytes_le());
            bytes.extend_from_slice(&region.offset.to_le_bytes());
            bytes.extend_from_slice(&region.len.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
        }
        bytes.resize(REGION_TABLE_LEN, 0);
        checksum::seal(&mut bytes);
        Ok(bytes)
    }

    /// All regions, with their names for messages.
    pub(in super::super) fn regions(&self) -> impl Iterator<Item = (&'static str, Region)> {
        let known = [
            ("the block allocation table", self.bat),
            ("the metadata", self.metadata),
        ];
        let others = self
            .others
            .iter()
            .map(|other| ("an unknown region", other.region));
        known.into_iter().chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(mib: u64) -> Region {
        Region {
            offset: mib << 20,
            len: 1 << 20,
        }
    }

    fn table() -> RegionTable {
        RegionTable {
            bat: region(3),
            metadata: region(2),
            others: Vec::new(),
        }
    }

    /// The entry at `index` with another ID and other flags.
    fn with(index: usize, id: Uuid, flags: u32) -> Vec<u8> {
        let mut bytes = table().to_bytes().unwrap();
        let at = HEADER_LEN + index * ENTRY_LEN;
        bytes[at..at + 16].copy_from_slice(&id.to_bytes_le());
        bytes[at + 16..at + 24].copy_from_slice(&(9u64 << 20).to_le_bytes());
        bytes[at + 24..at + 28].copy_from_slice(&(1u32 << 20).to_le_bytes());
        bytes[at + 28..at + 32].copy_from_slice(&flags.to_le_bytes());
        bytes[8] = bytes[8].max(index as u8 + 1);
        bytes
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let bytes = table().to_bytes().unwrap();
        assert!(RegionTable::is_valid(&bytes));
        assert_eq!(RegionTable::from_bytes(&bytes).unwrap(), table());
    }

    #[test]
    fn unknown_regions_are_kept_unless_they_are_required() {
        let id = Uuid::from_u128(9);
        let read = RegionTable::from_bytes(&with(2, id, 0)).unwrap();
        assert_eq!(read.others.len(), 1);
        assert_eq!(
            RegionTable::from_bytes(&read.to_bytes().unwrap()).unwrap(),
            read
        );
        let error = RegionTable::from_bytes(&with(2, id, 1)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    }

    #[test]
    fn a_table_without_what_is_needed_or_with_it_twice_is_refused() {
        RegionTable::from_bytes(&with(0, Uuid::from_u128(9), 0)).unwrap_err();
        RegionTable::from_bytes(&with(1, Uuid::from_u128(9), 0)).unwrap_err();
        RegionTable::from_bytes(&with(2, BAT, 1)).unwrap_err();
        let mut bytes = table().to_bytes().unwrap();
        bytes[HEADER_LEN + 17] = 1;
        RegionTable::from_bytes(&bytes).unwrap_err();
        bytes[8..12].copy_from_slice(&3000u32.to_le_bytes());
        RegionTable::from_bytes(&bytes).unwrap_err();
    }
}
