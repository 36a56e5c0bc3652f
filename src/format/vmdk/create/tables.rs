//! The grain tables of a new extent: entries come in ascending order, and tables leave when they are full.

use crate::error::Result;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Storage;

use super::layout::SparseLayout;

/// Tables that are held before they are written together.
const WINDOW: u64 = 32;

/// The tables that are being filled.
#[derive(Debug)]
pub(super) struct Tables {
    layout: SparseLayout,
    /// The first table of the window.
    first: u64,
    words: Vec<u32>,
    /// Some word of the window is not 0.
    touched: bool,
}

impl Tables {
    /// None is filled yet.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(super) fn new(layout: SparseLayout) -> Result<Self> {
        let count = layout.tables.min(WINDOW) * SparseLayout::ENTRIES;
        Ok(Self {
            layout,
            first: 0,
            words: memory::filled(count as usize, 0)?,
            touched: false,
        })
    }

    /// Sets the entry of a grain; none before those that were set already.
    ///
    /// # Errors
    /// Of writing tables that are full.
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

    /// Writes what is held. Tables without an entry are holes of the file.
    ///
    /// # Errors
    /// Of I/O.
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
