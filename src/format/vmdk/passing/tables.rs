//! Checks that the grains that were read are those that the tables refer to. Neither are retained: a digest is computed
//! of both in guest order, so that disks of any size take little memory.

use sha2::{Digest, Sha256};

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::memory;
use crate::size::SECTOR;

use super::super::disk::SparseHeader;

/// One of the two sides: places of grains, and the tables to which they belong.
#[derive(Debug, Default)]
struct Side {
    grains: Sha256,
    tables: Vec<u32>,
}

impl Side {
    fn grain(&mut self, entry: u64, sector: u64) {
        self.grains.update(entry.to_le_bytes());
        self.grains.update(sector.to_le_bytes());
    }
}

/// A grain table that was read before the directory.
#[derive(Debug)]
struct Place {
    sector: u64,
    is_empty: bool,
}

/// The grains and the tables of a stream.
#[derive(Debug)]
pub(super) struct Tables {
    per_table: u64,
    /// A table entry of 1 stands for zeroes.
    zeroed: bool,
    met: Side,
    named: Side,
    /// Tables whose number is only known from the directory.
    places: Vec<Place>,
    most: u64,
}

impl Tables {
    pub(super) fn new(header: &SparseHeader) -> Self {
        Self {
            per_table: u64::from(header.table_entries),
            zeroed: header.has_zeroed_grains(),
            met: Side::default(),
            named: Side::default(),
            places: Vec::new(),
            most: header.directory_entries(),
        }
    }

    /// Takes a grain with this number.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn grain(&mut self, number: u64, sector: u64) -> Result<()> {
        let table = u32::try_from(number / self.per_table).unwrap_or(u32::MAX);
        if self.met.tables.last() != Some(&table) {
            memory::push(&mut self.met.tables, table)?;
        }
        self.met.grain(number % self.per_table, sector);
        Ok(())
    }

    /// Takes a table whose number is known.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn numbered(&mut self, number: u32, table: &[u8]) -> Result<()> {
        match self.take(table) {
            true => Ok(()),
            false => memory::push(&mut self.named.tables, number),
        }
    }

    /// Takes a table whose number will be known from the directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if there are more than the directory has entries; if memory cannot be allocated.
    pub(super) fn placed(&mut self, sector: u64, table: &[u8]) -> Result<()> {
        if self.places.len() as u64 >= self.most {
            return Err(disagree());
        }
        let is_empty = self.take(table);
        memory::push(&mut self.places, Place { sector, is_empty })
    }

    /// Takes the entries of a table; returns whether it has none.
    fn take(&mut self, table: &[u8]) -> bool {
        let mut is_empty = true;
        for (n, word) in (0..).zip(table.chunks_exact(4)) {
            let word = le32(word, 0).unwrap_or_default();
            if self.is_used(word) {
                self.named.grain(n, u64::from(word));
                is_empty = false;
            }
        }
        is_empty
    }

    /// Whether an entry of a table or of the directory refers to a place.
    pub(super) fn is_used(&self, word: u32) -> bool {
        word > u32::from(self.zeroed)
    }

    /// Takes the directory, which follows the tables.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it refers to others; if memory cannot be allocated.
    pub(super) fn directory(&mut self, directory: &[u8]) -> Result<()> {
        let mut places = std::mem::take(&mut self.places).into_iter();
        for (n, word) in (0..).zip(directory.chunks_exact(4)) {
            let word = le32(word, 0).unwrap_or_default();
            if !self.is_used(word) {
                continue;
            }
            match places.next() {
                Some(place) if place.sector == u64::from(word) => {
                    if !place.is_empty {
                        memory::push(&mut self.named.tables, n)?;
                    }
                }
                _ => return Err(disagree()),
            }
        }
        Ok(())
    }

    /// Compares the two sides once everything has been read.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if tables refer to other grains than those that were read.
    pub(super) fn end(&mut self) -> Result<()> {
        let met = std::mem::take(&mut self.met);
        let named = std::mem::take(&mut self.named);
        let same = met.tables == named.tables && met.grains.finalize() == named.grains.finalize();
        match same && self.places.is_empty() {
            true => Ok(()),
            false => Err(disagree()),
        }
    }
}

/// Length of a table in bytes, rounded up to whole sectors.
pub(super) fn table_len(header: &SparseHeader) -> u64 {
    (u64::from(header.table_entries) * 4).next_multiple_of(SECTOR)
}

fn disagree() -> Error {
    Error::corrupt(
        "The grain tables name other grains than those that came; saved to a file, the image is read as its tables say",
    )
}
