//! What stands in a log: the format of the Linux kernel's dm-log-writes (its documentation is
//! `admin-guide/device-mapper/log-writes.rst`). All numbers are little-endian; the superblock and each entry
//! take a sector of the log, and the data of an entry follows it.

use crate::error::{Error, Result};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

/// Sectors of a log are powers of two from the smallest to below this.
const SECTOR_LIMIT: u64 = 16 << 20;
const MIN_SECTOR: u64 = 512;

/// The beginning of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// How many entries are known to follow it.
    pub(super) entries: u64,
    /// The length of a sector in bytes.
    pub(super) sector: u64,
}

impl Superblock {
    /// The length of its fields; the rest of the sector is zeroes.
    pub(super) const LEN: usize = 28;

    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where it is none.
    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self> {
        if number(bytes, 0) != MAGIC {
            return Err(Error::invalid("Invalid log superblock magic"));
        }
        let version = number(bytes, 8);
        if version != VERSION {
            return Err(Error::invalid(format!("Unsupported log version {version}")));
        }
        let mut sector = [0; 4];
        sector.copy_from_slice(&bytes[24..28]);
        Ok(Self {
            entries: number(bytes, 16),
            sector: check_sector(u64::from(u32::from_le_bytes(sector)))?,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
        // It is less than 2^32.
        bytes[24..].copy_from_slice(&self.sector.to_le_bytes()[..4]);
        bytes
    }
}

/// # Errors
/// [`crate::ErrorKind::Invalid`] where no log has sectors of that length.
pub(super) fn check_sector(sector: u64) -> Result<u64> {
    let fits = sector.is_power_of_two() && (MIN_SECTOR..SECTOR_LIMIT).contains(&sector);
    match fits {
        true => Ok(sector),
        false => Err(Error::invalid(format!("Invalid log sector size {sector}"))),
    }
}

bitflags::bitflags! {
    /// What an entry records.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u64 {
        /// A flush.
        const FLUSH = 1;
        /// A discard; no data follows.
        const DISCARD = 4;
        const _ = !0;
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins on the device, in sectors of the log.
    pub(super) sector: u64,
    /// Its length in sectors of the log.
    pub(super) sectors: u64,
    pub(super) flags: Flags,
}

impl Entry {
    /// The length of its fields. The last one is the length of the text of a mark, and 0 for all else.
    pub(super) const LEN: usize = 32;

    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            sector: number(bytes, 0),
            sectors: number(bytes, 8),
            flags: Flags::from_bits_retain(number(bytes, 16)),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.sector.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.flags.bits().to_le_bytes());
        bytes
    }

    /// The bytes that follow it, in a log of such sectors; None where no file is that long.
    pub(super) fn data_len(self, sector: u64) -> Option<u64> {
        match self.flags.contains(Flags::DISCARD) {
            true => Some(0),
            false => self.sectors.checked_mul(sector),
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_survive() {
        let superblock = Superblock {
            entries: 77,
            sector: 4096,
        };
        assert_eq!(
            Superblock::from_bytes(&superblock.to_bytes()).unwrap(),
            superblock
        );
        let entry = Entry {
            sector: 1 << 40,
            sectors: 9,
            flags: Flags::DISCARD,
        };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
        assert_eq!(entry.data_len(512), Some(0));
    }

    #[test]
    fn what_is_no_superblock_is_refused() {
        let fine = Superblock {
            entries: 0,
            sector: 512,
        };
        for (at, text) in [
            (0, "Invalid log superblock magic"),
            (8, "Unsupported log version 254"),
            (24, "Invalid log sector size 767"),
        ] {
            let mut bytes = fine.to_bytes();
            bytes[at] ^= 0xff;
            assert_eq!(
                Superblock::from_bytes(&bytes).unwrap_err().to_string(),
                text
            );
        }
        for sector in [0, 1, 511, 513, 16 << 20, u64::MAX] {
            check_sector(sector).unwrap_err();
        }
    }
}
