//! Where the parts of a new sparse extent lie: header, descriptor, redundant tables, tables, grains.

use crate::error::Result;
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;

/// Sectors of a room for the descriptor.
const DESCRIPTOR: u64 = 20;

/// All numbers are sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SparseLayout {
    pub(super) capacity: u64,
    /// Grain tables.
    pub(super) tables: u64,
    /// First sector of the descriptor; 0 without one.
    pub(super) descriptor: u64,
    /// Its sectors.
    pub(super) descriptor_len: u64,
    /// The redundant directory; 0 without one.
    pub(super) redundant: u64,
    pub(super) directory: u64,
    /// Where the grains begin.
    pub(super) overhead: u64,
}

impl SparseLayout {
    /// Sectors of a grain.
    pub(super) const GRAIN: u64 = 128;
    /// Entries of a table.
    pub(super) const ENTRIES: u64 = 512;
    /// Sectors of a table.
    pub(super) const TABLE: u64 = Self::ENTRIES * 4 / SECTOR;
    /// The most bytes of both directories that an open accepts.
    const MAX_DIRECTORIES: u64 = 32 << 20;

    /// Of an extent of so many sectors; None where its tables cannot be counted.
    pub(super) fn new(capacity: u64, has_descriptor: bool, redundant: bool) -> Option<Self> {
        let tables = capacity.div_ceil(Self::GRAIN * Self::ENTRIES);
        if tables.checked_mul(8)? > Self::MAX_DIRECTORIES {
            return None;
        }
        let descriptor_len = if has_descriptor { DESCRIPTOR } else { 0 };
        let first = 1 + descriptor_len;
        let one = Self::directory_len(tables) + tables * Self::TABLE;
        let (redundant, directory) = match redundant {
            true => (first, first + one),
            false => (0, first),
        };
        let overhead = (directory + one).checked_next_multiple_of(Self::GRAIN)?;
        (overhead < u64::from(u32::MAX)).then_some(Self {
            capacity,
            tables,
            descriptor: if has_descriptor { 1 } else { 0 },
            descriptor_len,
            redundant,
            directory,
            overhead,
        })
    }

    /// Sectors of a directory.
    fn directory_len(tables: u64) -> u64 {
        (tables * 4).div_ceil(SECTOR)
    }

    /// The first table of the directory at `directory`.
    pub(super) fn first_table(&self, directory: u64) -> u64 {
        directory + Self::directory_len(self.tables)
    }

    /// The directories, the primary one last.
    pub(super) fn directories(&self) -> impl Iterator<Item = u64> {
        [self.redundant, self.directory]
            .into_iter()
            .filter(|directory| *directory != 0)
    }

    /// Bytes of a directory, which are those of the file.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(super) fn directory_bytes(&self, directory: u64) -> Result<IoBuf> {
        let first = self.first_table(directory);
        let len = usize::try_from(self.tables * 4).map_err(|_| memory::lack())?;
        let mut bytes = memory::zeroed(len)?;
        for (n, place) in (0..self.tables).zip(bytes.chunks_exact_mut(4)) {
            place.copy_from_slice(&((first + n * Self::TABLE) as u32).to_le_bytes());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_lie_as_other_writers_put_them() {
        let layout = SparseLayout::new(10_240_000, true, true).unwrap();
        assert_eq!(
            (layout.redundant, layout.directory, layout.overhead),
            (21, 651, 1408)
        );
        assert_eq!(
            layout.directory_bytes(21).unwrap()[..4],
            23u32.to_le_bytes()
        );
        let small = SparseLayout::new(0, false, false).unwrap();
        assert_eq!((small.directory, small.overhead), (1, 128));
        assert!(SparseLayout::new(u64::MAX / 512, true, true).is_none());
    }
}
