//! Where the blocks of a dynamic disk are: each is preceded by its bitmap of sectors.

use std::ops::Range;

use crate::format::blocks::{Entry, FREE, Layout};

use super::{DynamicHeader, FOOTER_LEN, HEADER_LEN};

/// Offsets in the table count sectors.
const SECTOR: u64 = 512;

/// The data of new blocks begins at a multiple of this.
const ALIGNMENT: u64 = 4096;

/// Length of the bitmap before a block in bytes: whole sectors.
fn bitmap_len(block_size: u64) -> u64 {
    (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
}

/// Blocks at any sector, each preceded by its bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VpcLayout {
    block_size: u64,
    bitmap: u64,
    /// Where the dynamic header is.
    header: (u64, u64),
    /// Where the table is.
    table: (u64, u64),
}

impl VpcLayout {
    /// For a disk whose dynamic header is at `at`.
    pub(crate) fn of(header: &DynamicHeader, at: u64) -> Self {
        let block_size = u64::from(header.block_size);
        Self {
            block_size,
            bitmap: bitmap_len(block_size),
            header: (at, at.saturating_add(HEADER_LEN as u64)),
            table: (
                header.table_offset,
                header
                    .table_offset
                    .saturating_add(header.table_len().next_multiple_of(SECTOR)),
            ),
        }
    }

    /// The same layout with the dynamic header elsewhere.
    pub(crate) fn with_header_at(self, at: u64) -> Self {
        let header = (at, at.saturating_add(HEADER_LEN as u64));
        Self { header, ..self }
    }

    /// Where the dynamic header is.
    pub(crate) fn header(&self) -> Range<u64> {
        self.header.0..self.header.1
    }

    /// Where the table is.
    pub(crate) fn table(&self) -> Range<u64> {
        self.table.0..self.table.1
    }

    /// Whether the footer, the dynamic header or the table overlaps a range.
    pub(crate) fn is_headers(&self, place: &Range<u64>) -> bool {
        let meets = |other: (u64, u64)| place.start < other.1 && other.0 < place.end;
        place.start < FOOTER_LEN as u64 || meets(self.header) || meets(self.table)
    }
}

impl Layout for VpcLayout {
    fn block_size(&self) -> u64 {
        self.block_size
    }

    fn lead(&self) -> u64 {
        self.bitmap
    }

    fn start(&self) -> u64 {
        FOOTER_LEN as u64
    }

    fn entry(&self, word: u32) -> Entry {
        match word {
            FREE => Entry::Free,
            sector => Entry::At(u64::from(sector) * SECTOR + self.bitmap),
        }
    }

    fn word(&self, host: u64) -> Option<u32> {
        let place = host.checked_sub(self.bitmap)?;
        let sector = u32::try_from(place / SECTOR).ok()?;
        (sector != FREE && place.is_multiple_of(SECTOR)).then_some(sector)
    }

    fn zero_word(&self) -> Option<u32> {
        None
    }

    fn next(&self, end: u64) -> u64 {
        end.saturating_add(self.bitmap).next_multiple_of(ALIGNMENT)
    }

    fn next_tight(&self, end: u64) -> u64 {
        end.next_multiple_of(SECTOR).saturating_add(self.bitmap)
    }
}
