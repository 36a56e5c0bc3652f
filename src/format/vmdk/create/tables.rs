//! The grain tables of a new extent: entries are set in ascending order, and tables are written when they are full.

use crate::error::Result;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Storage;

use super::layout::SparseLayout;

/// Number of tables that are collected before they are written together.
const WINDOW: u64 = 32;

/// The tables that are being filled.
#[derive(Debug)]
pub(super) struct Tables {
    layout: SparseLayout,
    /// Number of the first table of the window.
    first: u64,
    words: Vec<u32>,
    /// Some word of the window is not 0.
    touched: bool,
}

impl Tables {
    /// Starts with empty tables.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn new(layout: SparseLayout) -> Result<Self> {
        let count = layout.tables.min(WINDOW) * SparseLayout::ENTRIES;
        Ok(Self {
            layout,
            first: 0,
            words: memory::filled(count as usize, 0)?,
            touched: false,
        })
    }

    /// Sets the entry of a grain, which must not come before those that have been set already.
    ///
    /// # Errors
    /// If full tables cannot be written.
    pub(super) fn set(&mut self, grain: u64, word: u32, out: &dyn Storage) -> Result<()> {
        let table = grain / SparseLayout::ENTRIES;
        if table >= self.first + WINDOW {
            self.flush(out)?;
            self.first = table;
        }
        let at = grain - self.first * SparseLayout::ENTRIES;
        if let Some(place) = self.words.get_mut(at as usize) {
            *place = word;
            self.touched = true;
        }
        Ok(())
    }

    /// Writes the tables of the window. A window without any entry remains a hole in the file.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn flush(&mut self, out: &dyn Storage) -> Result<()> {
        if !self.touched {
            return Ok(());
        }
        let left = (self.layout.tables - self.first.min(self.layout.tables)).min(WINDOW);
        let words = self
            .words
            .iter()
            .take((left * SparseLayout::ENTRIES) as usize);
        let mut bytes = memory::zeroed(words.len() * 4)?;
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for directory in self.layout.directories() {
            let sector = self.layout.first_table(directory) + self.first * SparseLayout::TABLE;
            out.write_at(&bytes, sector * SECTOR)?;
        }
        self.words.fill(0);
        self.touched = false;
        Ok(())
    }
}
