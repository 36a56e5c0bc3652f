//! Where the blocks of a VDI are.

use crate::format::blocks::{Entry, FREE, Layout};

use super::Header;

/// The number of a discarded block, which reads as zeroes, whatever the parent holds.
pub(crate) const DISCARDED: u32 = 0xffff_fffe;

/// The data of new images begins at a multiple of this.
pub(crate) const DATA_ALIGNMENT: u64 = 1 << 20;

/// Blocks of one size, one after the other, each preceded by its extra bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VdiLayout {
    data_offset: u64,
    block_size: u64,
    extra: u64,
}

impl VdiLayout {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            data_offset: u64::from(header.data_offset),
            block_size: u64::from(header.block_size),
            extra: u64::from(header.extra),
        }
    }

    /// Bytes of the file per block.
    pub(crate) fn unit(&self) -> u64 {
        self.block_size + self.extra
    }

    /// The number of blocks up to `end`, including a partial one.
    pub(crate) fn blocks_up_to(&self, end: u64) -> u64 {
        end.saturating_sub(self.data_offset).div_ceil(self.unit())
    }

    /// The end of the space of that many blocks.
    pub(crate) fn end_of(&self, blocks: u64) -> u64 {
        self.data_offset
            .saturating_add(blocks.saturating_mul(self.unit()))
    }

    /// The same layout with the data further back.
    pub(crate) fn moved_by(self, units: u64) -> Self {
        Self {
            data_offset: self.end_of(units),
            ..self
        }
    }
}

impl Layout for VdiLayout {
    fn places(&self, end: u64) -> Option<u64> {
        Some(self.blocks_up_to(end))
    }

    fn block_size(&self) -> u64 {
        self.block_size
    }

    fn lead(&self) -> u64 {
        self.extra
    }

    fn start(&self) -> u64 {
        self.data_offset
    }

    fn entry(&self, word: u32) -> Entry {
        match word {
            FREE => Entry::Free,
            DISCARDED => Entry::Zero,
            // No product of these sizes exceeds 64 bits.
            index => Entry::At(self.end_of(u64::from(index)) + self.extra),
        }
    }

    fn word(&self, host: u64) -> Option<u32> {
        let index = (host - self.extra).checked_sub(self.data_offset)? / self.unit();
        u32::try_from(index).ok().filter(|word| *word < DISCARDED)
    }

    fn zero_word(&self) -> Option<u32> {
        Some(DISCARDED)
    }

    fn next(&self, end: u64) -> u64 {
        self.end_of(self.blocks_up_to(end)) + self.extra
    }
}
