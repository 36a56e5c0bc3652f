//! The block allocation table (section 2.5): entries, and which entry belongs to which block.

use crate::error::{Error, Result};

use super::MIB;

/// An entry as on disk: three bits of state, and an offset in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct BatEntry(pub(in super::super) u64);

/// The state of a payload block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum State {
    /// Not in this file: in the parent, or zeroes.
    NotPresent,
    /// Its content is undefined.
    Undefined,
    /// Zeroes.
    Zero,
    /// It has been discarded.
    Unmapped,
    /// All of it is at this offset.
    Present(u64),
    /// The sectors whose bits are set are at this offset, the others in the parent.
    Partial(u64),
}

/// The state of a sector bitmap block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum BitmapState {
    /// There is none.
    NotPresent,
    /// It is at this offset.
    Present(u64),
}

impl BatEntry {
    const STATE: u64 = 7;
    const MIB_SHIFT: u32 = 20;

    /// Not in the file.
    pub(in super::super) const NOT_PRESENT: Self = Self(0);
    /// Zeroes.
    pub(in super::super) const ZERO: Self = Self(2);

    /// A fully present payload block, or a sector bitmap, at an offset.
    pub(in super::super) fn present(offset: u64) -> Self {
        Self(offset >> Self::MIB_SHIFT << Self::MIB_SHIFT | 6)
    }

    /// A partially present payload block at an offset.
    pub(in super::super) fn partial(offset: u64) -> Self {
        Self(offset >> Self::MIB_SHIFT << Self::MIB_SHIFT | 7)
    }

    fn offset(self) -> u64 {
        self.0 & !(MIB - 1)
    }

    /// The state of a payload block.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] for an undefined state.
    pub(in super::super) fn payload(self) -> Result<State> {
        Ok(match self.0 & Self::STATE {
            0 => State::NotPresent,
            1 => State::Undefined,
            2 => State::Zero,
            3 => State::Unmapped,
            6 => State::Present(self.offset()),
            7 => State::Partial(self.offset()),
            other => return Err(Error::corrupt(format!("unknown state {other} of a block"))),
        })
    }

    /// The state of a sector bitmap block.
    ///
    /// # Errors
    /// As [`BatEntry::payload`].
    pub(in super::super) fn bitmap(self) -> Result<BitmapState> {
        Ok(match self.0 & Self::STATE {
            0 => BitmapState::NotPresent,
            6 => BitmapState::Present(self.offset()),
            other => {
                return Err(Error::corrupt(format!(
                    "unknown state {other} of a sector bitmap"
                )));
            }
        })
    }

    /// The offset of a payload block that has space of its own in the file.
    pub(in super::super) fn host(self) -> Option<u64> {
        matches!(self.0 & Self::STATE, 6 | 7).then(|| self.offset())
    }
}

/// How a disk is divided into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Geometry {
    block_bits: u32,
    sector: u32,
    /// log2 of the number of payload blocks that one bitmap block covers.
    chunk_bits: u32,
    has_parent: bool,
}

impl Geometry {
    /// Maximum size of a disk.
    pub(in super::super) const MAX_SIZE: u64 = 64 << 40;
    /// Number of sectors that one bitmap block covers.
    const SECTORS_PER_BITMAP: u64 = 8 * MIB;

    /// The geometry for these block and sector sizes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] for sizes that the format does not allow.
    pub(in super::super) fn new(block_size: u32, sector: u32, has_parent: bool) -> Result<Self> {
        if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
            return Err(Error::corrupt(format!(
                "Invalid VHDX block size {block_size}"
            )));
        }
        if !matches!(sector, 512 | 4096) {
            return Err(Error::corrupt(format!(
                "Invalid VHDX logical sector size {sector}"
            )));
        }
        let block_bits = block_size.trailing_zeros();
        let chunk = Self::SECTORS_PER_BITMAP * u64::from(sector);
        Ok(Self {
            block_bits,
            sector,
            chunk_bits: chunk.trailing_zeros() - block_bits,
            has_parent,
        })
    }

    /// The same geometry with or without a parent.
    pub(in super::super) fn with_parent(self, has_parent: bool) -> Self {
        Self { has_parent, ..self }
    }

    /// Size of a block in bytes.
    pub(in super::super) fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// Size of a logical sector in bytes.
    pub(in super::super) fn sector(&self) -> u64 {
        u64::from(self.sector)
    }

    /// Whether there may be a parent.
    pub(in super::super) fn has_parent(&self) -> bool {
        self.has_parent
    }

    /// The block that contains a guest offset.
    pub(in super::super) fn block(&self, offset: u64) -> u64 {
        offset >> self.block_bits
    }

    /// Position of a guest offset within its block.
    pub(in super::super) fn in_block(&self, offset: u64) -> u64 {
        offset & (self.block_size() - 1)
    }

    /// Guest offset of the beginning of a block.
    pub(in super::super) fn start(&self, block: u64) -> u64 {
        block << self.block_bits
    }

    /// Number of blocks of a disk of this size.
    pub(in super::super) fn blocks(&self, size: u64) -> u64 {
        size.div_ceil(self.block_size())
    }

    /// Number of payload blocks that one bitmap block covers.
    pub(in super::super) fn chunk_blocks(&self) -> u64 {
        1 << self.chunk_bits
    }

    /// The chunk of a block.
    pub(in super::super) fn chunk(&self, block: u64) -> u64 {
        block >> self.chunk_bits
    }

    /// Index in the table of a block's entry: a bitmap's entry follows those of each whole chunk.
    pub(in super::super) fn entry(&self, block: u64) -> u64 {
        block + (block >> self.chunk_bits)
    }

    /// Index in the table of the entry of a chunk's bitmap.
    pub(in super::super) fn bitmap_entry(&self, chunk: u64) -> u64 {
        (chunk << self.chunk_bits) + chunk + self.chunk_blocks()
    }

    /// Whether an entry of the table belongs to a bitmap.
    pub(in super::super) fn is_bitmap_entry(&self, place: u64) -> bool {
        place % (self.chunk_blocks() + 1) == self.chunk_blocks()
    }

    /// Number of entries in the table of a disk of this size.
    pub(in super::super) fn entries(&self, size: u64) -> u64 {
        match self.blocks(size) {
            0 => 0,
            blocks if self.has_parent => {
                blocks.div_ceil(self.chunk_blocks()) * (self.chunk_blocks() + 1)
            }
            blocks => self.entry(blocks - 1) + 1,
        }
    }

    /// Number of a sector's bit in its chunk's bitmap.
    pub(in super::super) fn bit(&self, offset: u64) -> u64 {
        offset / self.sector() % Self::SECTORS_PER_BITMAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_hold_state_and_place() {
        let at = 5 << 20;
        assert_eq!(BatEntry::present(at).payload().unwrap(), State::Present(at));
        assert_eq!(BatEntry::partial(at).payload().unwrap(), State::Partial(at));
        assert_eq!(
            BatEntry::present(at).bitmap().unwrap(),
            BitmapState::Present(at)
        );
        assert_eq!(BatEntry::ZERO.payload().unwrap(), State::Zero);
        assert_eq!(BatEntry::present(at).host(), Some(at));
        assert_eq!(BatEntry(at | 3).host(), None);
        for state in [4, 5] {
            BatEntry(state).payload().unwrap_err();
        }
        for state in [1, 2, 3, 7] {
            BatEntry(state).bitmap().unwrap_err();
        }
    }

    #[test]
    fn a_bitmap_entry_follows_each_chunk() {
        let alone = Geometry::new(256 << 20, 512, false).unwrap();
        assert_eq!(alone.chunk_blocks(), 16);
        let size = |blocks: u64| blocks << 28;
        for (blocks, entries) in [(0, 0), (1, 1), (16, 16), (17, 18), (33, 35)] {
            assert_eq!(alone.entries(size(blocks)), entries, "{blocks}");
        }
        let child = Geometry::new(256 << 20, 512, true).unwrap();
        for (blocks, entries) in [(0, 0), (1, 17), (16, 17), (17, 34)] {
            assert_eq!(child.entries(size(blocks)), entries, "{blocks}");
        }
        assert_eq!(
            (child.entry(15), child.bitmap_entry(0), child.entry(16)),
            (15, 16, 17)
        );
        assert_eq!(child.bitmap_entry(1), 33);
        let large = Geometry::new(1 << 20, 4096, true).unwrap();
        assert_eq!(large.chunk_blocks(), 32768);
        assert_eq!(large.bit((32 << 30) + 8192), 2);
    }

    #[test]
    fn sizes_that_the_format_does_not_know_are_refused() {
        for (block, sector) in [
            (1 << 19, 512),
            (3 << 20, 512),
            (1 << 29, 512),
            (1 << 20, 1024),
            (0, 512),
        ] {
            Geometry::new(block, sector, false).unwrap_err();
        }
    }
}
