//! The headers and table entries of a space-efficient sparse extent of ESXi 6.5 and later. VMware has not published the
//! format: the facts are those that appear in its logs.

use crate::bytes::le64;
use crate::error::{Error, Result};
use crate::size::SECTOR;

/// Significant length of either header in bytes.
pub(in crate::format::vmdk) const HEADER_LEN: usize = 512;

const CONST_MAGIC: u64 = 0xcafe_babe;
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
/// Version 2.1.
const VERSION: u64 = 0x2_0000_0001;

/// Entries per grain table: 64 sectors of 8 bytes each.
pub(in crate::format::vmdk) const TABLE_ENTRIES: u64 = 4096;

/// The only sizes in use, in sectors.
const GRAIN: u64 = 8;
const TABLE: u64 = 64;

/// Upper half of a grain directory entry that refers to a table.
const ALLOCATED: u64 = 0x1000_0000;

/// The constant header; offsets are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct ConstHeader {
    /// Guest size in sectors.
    pub(in crate::format::vmdk) capacity: u64,
    /// Offset of the volatile header.
    pub(in crate::format::vmdk) volatile: u64,
    /// Offset of the grain directory.
    pub(in crate::format::vmdk) directory: u64,
    /// Length of the grain directory in bytes.
    pub(in crate::format::vmdk) directory_len: u64,
    /// Offset of the first grain table.
    pub(in crate::format::vmdk) tables: u64,
    /// Offset of the first grain.
    pub(in crate::format::vmdk) grains: u64,
}

impl ConstHeader {
    /// Parses the header.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] or [`crate::ErrorKind::Unsupported`].
    pub(in crate::format::vmdk) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |n: usize| le64(bytes, n * 8).unwrap_or_default();
        if word(0) != CONST_MAGIC {
            return Err(Error::corrupt(format!(
                "Bad const header magic: {:#018x}",
                word(0)
            )));
        }
        if word(1) != VERSION {
            return Err(Error::unsupported(format!(
                "Unsupported version: {:#018x}",
                word(1)
            )));
        }
        if (word(3), word(4)) != (GRAIN, TABLE) {
            return Err(Error::unsupported(format!(
                "Unsupported sizes of a grain ({} sectors) and a grain table ({} sectors)",
                word(3),
                word(4)
            )));
        }
        // After flags and four reserved words: pairs of offset and size.
        let bytes_at = |n: usize| {
            let sectors = word(n);
            let bytes = sectors
                .checked_mul(SECTOR)
                .filter(|at| *at <= i64::MAX as u64);
            bytes.ok_or_else(|| {
                Error::corrupt(format!("A part of the extent begins at sector {sectors}"))
                    .with_offset(n as u64 * 8)
            })
        };
        if word(2) > i64::MAX as u64 / SECTOR {
            return Err(
                Error::corrupt(format!("A capacity of {} sectors", word(2))).with_offset(16)
            );
        }
        let header = Self {
            capacity: word(2),
            volatile: bytes_at(10)?,
            directory: bytes_at(16)?,
            directory_len: bytes_at(17)?,
            tables: bytes_at(18)?,
            grains: bytes_at(24)?,
        };
        let span = GRAIN * TABLE_ENTRIES;
        if header.directory_len / 8 < header.capacity.div_ceil(span) {
            return Err(Error::corrupt(format!(
                "A grain directory of {} bytes is too short for {} sectors",
                header.directory_len, header.capacity
            ))
            .with_offset(17 * 8));
        }
        Ok(header)
    }
}

/// Checks the volatile header.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`]; [`crate::ErrorKind::Unsupported`] if the journal has to be replayed.
pub(in crate::format::vmdk) fn check_volatile(bytes: &[u8]) -> Result<()> {
    let word = |n: usize| le64(bytes, n * 8).unwrap_or_default();
    if word(0) != VOLATILE_MAGIC {
        return Err(Error::corrupt(format!(
            "Bad volatile header magic: {:#018x}",
            word(0)
        )));
    }
    if word(3) != 0 {
        return Err(Error::unsupported(
            "The image is marked dirty: its journal must be replayed first, which the product that wrote it does",
        ));
    }
    Ok(())
}

/// The number of the grain table that a grain directory entry refers to; `None` if there is none.
///
/// # Errors
/// The entry, if it is invalid.
pub(in crate::format::vmdk) fn table_of(entry: u64) -> Result<Option<u32>, u64> {
    match (entry >> 32, entry as u32) {
        (0, 0) => Ok(None),
        (ALLOCATED, index) => Ok(Some(index)),
        _ => Err(entry),
    }
}

/// The meaning of a grain table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) enum GrainEntry {
    /// Not allocated: the parent shows through.
    Absent,
    /// Zeroes.
    Zero,
    /// The grain with this number.
    Grain(u64),
}

/// Decodes a grain table entry.
///
/// # Errors
/// The entry, if it is invalid.
pub(in crate::format::vmdk) fn grain_of(entry: u64) -> Result<GrainEntry, u64> {
    match entry >> 60 {
        // Unallocated or unmapped: the parent shows through both.
        0 | 1 => Ok(GrainEntry::Absent),
        2 => Ok(GrainEntry::Zero),
        3 => {
            // The low 12 bits of the number are stored above the others.
            let low = entry >> 48 & 0xfff;
            let high = entry & 0xffff_ffff_ffff;
            Ok(GrainEntry::Grain(high << 12 | low))
        }
        _ => Err(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_apart() {
        assert_eq!(table_of(0), Ok(None));
        assert_eq!(table_of(0x1000_0000_0000_0005), Ok(Some(5)));
        assert_eq!(table_of(5), Err(5));
        assert_eq!(grain_of(0), Ok(GrainEntry::Absent));
        assert_eq!(grain_of(1 << 60), Ok(GrainEntry::Absent));
        assert_eq!(grain_of(2 << 60), Ok(GrainEntry::Zero));
        assert_eq!(grain_of(3 << 60 | 1 << 48), Ok(GrainEntry::Grain(1)));
        assert_eq!(
            grain_of(3 << 60 | 2 << 48 | 1),
            Ok(GrainEntry::Grain(1 << 12 | 2))
        );
        assert!(grain_of(4 << 60).is_err());
    }

    #[test]
    fn a_journal_that_waits_is_refused() {
        let mut bytes = [0; HEADER_LEN];
        check_volatile(&bytes).unwrap_err();
        bytes[..8].copy_from_slice(&VOLATILE_MAGIC.to_le_bytes());
        check_volatile(&bytes).unwrap();
        bytes[24] = 1;
        let error = check_volatile(&bytes).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    }
}
