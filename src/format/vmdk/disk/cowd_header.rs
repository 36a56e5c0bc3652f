//! The header of an extent of an ESX redo log, "COWD".
//! Description: libyal, "VMware Virtual Disk (VMDK) format", "The COWD sparse extent data file".

use crate::bytes::le32;
use crate::error::{Error, Result};

use super::sparse_header::not_vmdk;

/// The first bytes of the header.
pub(in crate::format::vmdk) const MAGIC: [u8; 4] = *b"COWD";

/// Length of the header.
pub(in crate::format::vmdk) const HEADER_LEN: usize = 2048;

/// Entries per grain table.
pub(in crate::format::vmdk) const TABLE_ENTRIES: u64 = 4096;

/// Maximum grain size in sectors: 16 MiB, as for hosted extents.
const MAX_GRAIN: u32 = 0x8000;

/// The header; positions and sizes are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct CowdHeader {
    /// Guest size.
    pub(in crate::format::vmdk) capacity: u32,
    /// Size of a grain.
    pub(in crate::format::vmdk) grain: u32,
    /// First sector of the grain directory.
    pub(in crate::format::vmdk) directory: u32,
    /// Number of its entries.
    pub(in crate::format::vmdk) directory_entries: u32,
}

impl CowdHeader {
    /// Parses the header.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotAnImage`], [`crate::ErrorKind::Unsupported`] for another version,
    /// [`crate::ErrorKind::Corrupt`] for impossible numbers.
    pub(in crate::format::vmdk) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let fields = || {
            let header = Self {
                capacity: le32(bytes, 12)?,
                grain: le32(bytes, 16)?,
                directory: le32(bytes, 20)?,
                directory_entries: le32(bytes, 24)?,
            };
            Some((le32(bytes, 4)?, header))
        };
        let (version, header) = fields()
            .filter(|_| bytes.starts_with(&MAGIC))
            .ok_or_else(not_vmdk)?;
        if version != 1 {
            return Err(Error::unsupported(format!(
                "Unsupported VMDK version {version}"
            )));
        }
        if header.grain == 0 || !header.grain.is_power_of_two() || header.grain > MAX_GRAIN {
            let what = format!(
                "Invalid granularity of {} sectors, image may be corrupt",
                header.grain
            );
            return Err(Error::corrupt(what).with_offset(16));
        }
        let span = u64::from(header.grain) * TABLE_ENTRIES;
        if u64::from(header.directory_entries).saturating_mul(span) < u64::from(header.capacity) {
            let what = format!(
                "A grain directory of {} entries is too short for {} sectors",
                header.directory_entries, header.capacity
            );
            return Err(Error::corrupt(what).with_offset(24));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(version: u32, capacity: u32, grain: u32, entries: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [version, 3, capacity, grain, 4, entries, 6] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_numbers_must_fit_each_other() {
        let header = CowdHeader::from_bytes(&bytes(1, 4096, 1, 1)).unwrap();
        assert_eq!((header.capacity, header.directory), (4096, 4));
        for (version, capacity, grain, entries) in
            [(2, 1, 1, 1), (1, 1, 0, 1), (1, 1, 3, 1), (1, 4097, 1, 1)]
        {
            CowdHeader::from_bytes(&bytes(version, capacity, grain, entries)).unwrap_err();
        }
        CowdHeader::from_bytes(b"COWD").unwrap_err();
    }
}
