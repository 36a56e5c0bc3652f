//! The dynamic disk header: "Dynamic Disk Header Format" of the specification.

use bstr::BStr;
use uuid::Uuid;

use crate::bytes::{array, be32, be64, put};
use crate::error::{Error, Result};

use super::footer::checksum;
use super::locator::{LOCATOR_LEN, LOCATORS, LOCATORS_AT, Locator};

/// Length of the header in bytes.
pub(crate) const HEADER_LEN: usize = 1024;

const COOKIE: &[u8; 8] = b"cxsparse";
const CHECKSUM: usize = 0x24;
/// Offset of the name of the parent.
const NAME_AT: usize = 0x40;

/// Maximum number of entries: programs keep the table in memory, with a length in bytes that fits 31 bits.
const MOST_ENTRIES: u32 = i32::MAX as u32 / 4;

/// Maximum size of a block.
const MAX_BLOCK: u32 = 1 << 30;

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DynamicHeader {
    /// Offset of the table of blocks.
    pub(crate) table_offset: u64,
    pub(crate) entries: u32,
    pub(crate) block_size: u32,
    /// Identifies the parent; nil if there is none.
    pub(crate) parent: Uuid,
    /// When the parent was last changed, in seconds since 2000; 0 if unknown.
    pub(crate) parent_time: u32,
    /// The raw bytes, to preserve what is between the fields.
    raw: Vec<u8>,
}

impl DynamicHeader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let none = || Error::corrupt("Invalid header magic");
        let raw = bytes.get(..HEADER_LEN).ok_or_else(none)?;
        if !raw.starts_with(COOKIE) {
            return Err(none());
        }
        if be32(raw, CHECKSUM) != Some(checksum(raw, CHECKSUM)) {
            return Err(Error::corrupt(
                "Incorrect checksum of the dynamic disk header",
            ));
        }
        let header = Self {
            table_offset: be64(raw, 0x10).ok_or_else(none)?,
            entries: be32(raw, 0x1c).ok_or_else(none)?,
            block_size: be32(raw, 0x20).ok_or_else(none)?,
            parent: array(raw, 0x28).map(Uuid::from_bytes).ok_or_else(none)?,
            parent_time: be32(raw, 0x38).ok_or_else(none)?,
            raw: raw.to_vec(),
        };
        let block = header.block_size;
        if !block.is_power_of_two() || !(512..=MAX_BLOCK).contains(&block) {
            return Err(Error::corrupt(format!("Invalid block size {block}")));
        }
        if header.entries > MOST_ENTRIES {
            return Err(Error::corrupt(format!(
                "Max Table Entries too large ({})",
                header.entries
            )));
        }
        Ok(header)
    }

    /// The header of a new disk.
    pub(crate) fn new(table_offset: u64, entries: u32, block_size: u32) -> Self {
        let mut raw = vec![0; HEADER_LEN];
        for (at, bytes) in [
            (0, &COOKIE[..]),
            (8, &u64::MAX.to_be_bytes()),
            (0x18, &0x0001_0000_u32.to_be_bytes()),
        ] {
            // The fields lie within the header.
            let _ = put(&mut raw, at, bytes);
        }
        Self {
            table_offset,
            entries,
            block_size,
            parent: Uuid::nil(),
            parent_time: 0,
            raw,
        }
    }

    /// The bytes of the header. What is between the fields is preserved.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.raw.clone();
        for (at, value) in [
            (0x10, &self.table_offset.to_be_bytes()[..]),
            (0x1c, &self.entries.to_be_bytes()),
            (0x20, &self.block_size.to_be_bytes()),
            (0x28, self.parent.as_bytes()),
            (0x38, &self.parent_time.to_be_bytes()),
        ] {
            // The fields lie within the header.
            let _ = put(&mut bytes, at, value);
        }
        let sum = checksum(&bytes, CHECKSUM);
        let _ = put(&mut bytes, CHECKSUM, &sum.to_be_bytes());
        bytes
    }

    /// The names of the parent, for various kinds of system.
    pub(crate) fn locators(&self) -> impl Iterator<Item = Locator> {
        let table = self.raw.get(LOCATORS_AT..).unwrap_or_default();
        table
            .chunks_exact(LOCATOR_LEN)
            .take(LOCATORS)
            .filter_map(Locator::from_bytes)
    }

    /// Replaces the names of the parent; each occupies `space` bytes of the file.
    pub(crate) fn set_locators(&mut self, locators: &[Locator], space: u32) {
        let mut table = vec![0; LOCATORS * LOCATOR_LEN];
        for (place, locator) in table.chunks_exact_mut(LOCATOR_LEN).zip(locators) {
            place.copy_from_slice(&locator.to_bytes(space));
        }
        // The table lies within the header.
        let _ = put(&mut self.raw, LOCATORS_AT, &table);
    }

    /// The human-readable name of the parent: UTF-16, most significant byte first.
    pub(crate) fn parent_name(&self) -> &[u8] {
        self.raw.get(NAME_AT..LOCATORS_AT).unwrap_or_default()
    }

    /// Sets that name, or clears it if it is too long.
    pub(crate) fn set_parent_name(&mut self, name: &BStr) {
        let units = name.to_string();
        let mut bytes: Vec<u8> = units.encode_utf16().flat_map(u16::to_be_bytes).collect();
        if bytes.len() > LOCATORS_AT - NAME_AT {
            bytes.clear();
        }
        bytes.resize(LOCATORS_AT - NAME_AT, 0);
        let _ = put(&mut self.raw, NAME_AT, &bytes);
    }

    /// Length of the table in bytes.
    pub(crate) fn table_len(&self) -> u64 {
        u64::from(self.entries) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = DynamicHeader::new(1536, 6, 2 << 20);
        let bytes = header.to_bytes();
        let mut read = DynamicHeader::from_bytes(&bytes).unwrap();
        read.raw.clone_from(&header.raw);
        assert_eq!(read, header);
        for at in [0, 0x10, 0x44, 1023] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(DynamicHeader::from_bytes(&bad).is_err(), "{at}");
        }
        assert!(DynamicHeader::from_bytes(&bytes[..1023]).is_err());
        for (entries, block_size) in [(1, 0), (1, 3 << 20), (1, 256), (u32::MAX, 2 << 20)] {
            let header = DynamicHeader::new(1536, entries, block_size);
            assert!(DynamicHeader::from_bytes(&header.to_bytes()).is_err());
        }
    }
}
