//! Which MiB of the file are in use.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;

use super::disk::MIB;

/// Maximum length of a file that is examined: twice what the largest disk takes.
const MAX_FILE: u64 = 128 << 40;

/// A bit for each MiB of a file.
#[derive(Debug)]
pub(super) struct Occupied {
    words: Vec<u64>,
    /// Number of MiB in the file; the last one may be partial.
    units: u64,
}

impl Occupied {
    /// A file of this length, of which nothing is in use.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for a file that is too long for any disk.
    pub(super) fn new(file_len: u64) -> Result<Self> {
        if file_len > MAX_FILE {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("A file of {file_len} bytes is longer than any VHDX"),
            ));
        }
        let units = file_len.div_ceil(MIB);
        Ok(Self {
            words: memory::filled(units.div_ceil(64) as usize, 0)?,
            units,
        })
    }

    /// Marks a range as used; returns false, without changing anything, if part of it already is. The part past the end
    /// of the file counts as unused.
    pub(super) fn occupy(&mut self, offset: u64, len: u64) -> bool {
        let units = self.units_of(offset, len);
        if units.clone().any(|unit| self.is_taken(unit)) {
            return false;
        }
        for unit in units {
            if let Some(word) = self.words.get_mut((unit / 64) as usize) {
                *word |= 1 << (unit % 64);
            }
        }
        true
    }

    fn units_of(&self, offset: u64, len: u64) -> Range<u64> {
        let end = offset.saturating_add(len).div_ceil(MIB).min(self.units);
        (offset / MIB).min(end)..end
    }

    fn is_taken(&self, unit: u64) -> bool {
        let word = self.words.get((unit / 64) as usize);
        word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
    }

    /// The unused runs of whole MiB, in bytes.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn free(&self) -> Result<Vec<Range<u64>>> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.units {
            if at % 64 == 0 && self.words.get((at / 64) as usize) == Some(&u64::MAX) {
                at += 64;
                continue;
            }
            let start = at;
            while at < self.units && !self.is_taken(at) {
                at += 1;
            }
            if start < at {
                memory::push(&mut runs, start * MIB..at * MIB)?;
            } else {
                at += 1;
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_once_and_the_rest_is_free() {
        let mut file = Occupied::new(200 * MIB + 1).unwrap();
        assert!(file.occupy(0, 3 * MIB));
        assert!(file.occupy(70 * MIB, 64 * MIB));
        assert!(!file.occupy(133 * MIB, MIB));
        assert!(!file.occupy(2 * MIB, 100 * MIB));
        assert!(file.occupy(198 * MIB, 256 * MIB));
        let free: Vec<_> = file
            .free()
            .unwrap()
            .iter()
            .map(|run| (run.start / MIB, run.end / MIB))
            .collect();
        assert_eq!(free, [(3, 70), (134, 198)]);
        Occupied::new(u64::MAX).unwrap_err();
        assert!(Occupied::new(0).unwrap().free().unwrap().is_empty());
    }
}
