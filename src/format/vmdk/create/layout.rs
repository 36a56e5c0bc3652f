//! The layout of a new sparse extent: header, descriptor, redundant tables, tables, grains.

use crate::error::Result;
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;

/// Sectors that are reserved for the descriptor.
const DESCRIPTOR: u64 = 20;

/// Positions and lengths are in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SparseLayout {
    pub(super) capacity: u64,
    /// Number of grain tables.
    pub(super) tables: u64,
    /// First sector of the descriptor; 0 if there is none.
    pub(super) descriptor: u64,
    /// Its length.
    pub(super) descriptor_len: u64,
    /// First sector of the redundant directory; 0 if there is none.
    pub(super) redundant: u64,
    pub(super) directory: u64,
    /// First sector of the grains.
    pub(super) overhead: u64,
}

impl SparseLayout {
    /// Sectors per grain.
    pub(super) const GRAIN: u64 = 128;
    /// Entries per table.
    pub(super) const ENTRIES: u64 = 512;
    /// Sectors per table.
    pub(super) const TABLE: u64 = Self::ENTRIES * 4 / SECTOR;
    /// Maximum size of both directories in bytes that is accepted when an image is opened.
    const MAX_DIRECTORIES: u64 = 32 << 20;

    /// The layout of an extent of this many sectors; `None` if it would need too many tables.
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

    /// Sectors per directory.
    fn directory_len(tables: u64) -> u64 {
        (tables * 4).div_ceil(SECTOR)
    }

    /// First sector of the tables of the directory at `directory`.
    pub(super) fn first_table(&self, directory: u64) -> u64 {
        directory + Self::directory_len(self.tables)
    }

    /// The directories, the primary one last.
    pub(super) fn directories(&self) -> impl Iterator<Item = u64> {
        [self.redundant, self.directory]
            .into_iter()
            .filter(|directory| *directory != 0)
    }

    /// The on-disk bytes of a directory.
    ///
    /// # Errors
    /// If memory cannot be allocated.
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
