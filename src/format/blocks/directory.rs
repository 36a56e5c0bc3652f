//! The upper level of a two-level table: where the tables of the lower level are.

use std::ops::Range;

use crate::error::Result;
use crate::memory;

use super::coding::{BAD, FREE};

/// The locations of tables of one size; numbers count units of `1 << bits` bytes.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Entries per table.
    pub(super) per_table: u64,
    /// Length of a table in bytes.
    table_len: u64,
    bits: u32,
    /// Where the directory itself is.
    own: u64,
    /// The number of each table; [`FREE`] if there is none.
    words: Vec<u32>,
    /// The offsets of the directory itself and of each table: each once, in order, with capacity for all of them.
    places: Vec<u64>,
}

impl Directory {
    /// The directory at `own`, which is as long as a table, with these numbers.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(
        own: u64,
        (table_len, per_table): (u64, u64),
        bits: u32,
        words: Vec<u32>,
    ) -> Result<Self> {
        let mut places = Vec::new();
        memory::reserve(&mut places, words.len() + 1)?;
        places.push(own);
        let known = words.iter().filter(|word| **word < BAD);
        places.extend(known.map(|word| u64::from(*word) << bits));
        places.sort_unstable();
        places.dedup();
        Ok(Self {
            per_table,
            table_len,
            bits,
            own,
            words,
            places,
        })
    }

    /// Where the directory itself is.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// The number of a table.
    pub(super) fn word(&self, table: u64) -> u32 {
        self.words.get(table as usize).copied().unwrap_or(FREE)
    }

    /// The numbers of all tables.
    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }

    /// Length of a table in bytes.
    pub(super) fn table_len(&self) -> u64 {
        self.table_len
    }

    /// The offset of a table, if there is one.
    pub(crate) fn host(&self, table: u64) -> Option<u64> {
        let word = self.word(table);
        (word < BAD).then(|| u64::from(word) << self.bits)
    }

    /// The number for a table at `host`; None if no entry can express it.
    pub(super) fn number(&self, host: u64) -> Option<u32> {
        u32::try_from(host >> self.bits)
            .ok()
            .filter(|word| *word < BAD)
    }

    /// Changes the number of a table.
    pub(super) fn set(&mut self, table: u64, word: u32) {
        let old = self.host(table);
        if let Some(place) = self.words.get_mut(table as usize) {
            *place = word;
        }
        if let Some(old) = old
            && old != self.own
            && !self
                .words
                .iter()
                .any(|word| u64::from(*word) << self.bits == old)
            && let Ok(at) = self.places.binary_search(&old)
        {
            self.places.remove(at);
        }
        if let Some(host) = self.host(table)
            && let Err(at) = self.places.binary_search(&host)
        {
            self.places.insert(at, host);
        }
    }

    /// Grows the directory to `tables` tables; the new ones have no place.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn grow(&mut self, tables: u64) -> Result<()> {
        let more = (tables as usize).saturating_sub(self.words.len());
        memory::reserve(&mut self.words, more)?;
        let room = (self.words.len() + more + 1).saturating_sub(self.places.len());
        memory::reserve(&mut self.places, room)?;
        self.words.extend(std::iter::repeat_n(FREE, more));
        Ok(())
    }

    /// Makes all tables unplaced.
    pub(super) fn clear(&mut self) {
        let own = self.own;
        self.words.fill(FREE);
        self.places.retain(|place| *place == own);
    }

    /// Whether the directory or a table overlaps a range.
    pub(super) fn is_in(&self, place: &Range<u64>) -> bool {
        let first = place.start.saturating_sub(self.table_len - 1);
        let at = self.places.partition_point(|start| *start < first);
        self.places.get(at).is_some_and(|start| *start < place.end)
    }

    /// Whether a table overlaps another one or the directory.
    pub(super) fn shares_places(&self) -> bool {
        let known = self.words.iter().filter(|word| **word < BAD).count();
        let mut pairs = self.places.iter().zip(self.places.iter().skip(1));
        known + 1 > self.places.len() || pairs.any(|(one, next)| next - one < self.table_len)
    }

    /// Where the directory and the tables are.
    pub(super) fn places(&self) -> impl Iterator<Item = Range<u64>> {
        let places = self.places.iter();
        places.map(|start| *start..start.saturating_add(self.table_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_keeps_its_place_whatever_a_table_names() {
        let mut directory = Directory::new(4096, (4096, 512), 12, vec![1, 2, 2, BAD]).unwrap();
        assert!(directory.is_in(&(8191..8192)));
        assert!(directory.is_in(&(12287..20000)));
        assert!(!directory.is_in(&(0..4096)));
        assert!(!directory.is_in(&(12288..20000)));
        directory.set(0, FREE);
        assert!(directory.is_in(&(4096..4097)));
        directory.set(1, 7);
        assert!(directory.is_in(&(8192..8193)));
        directory.set(2, FREE);
        assert!(!directory.is_in(&(8192..8193)));
        assert!(directory.is_in(&(7 << 12..8 << 12)));
        let places: Vec<_> = directory.places().map(|place| place.start).collect();
        assert_eq!(places, [4096, 7 << 12]);
        directory.clear();
        assert_eq!(directory.places().count(), 1);
    }

    #[test]
    fn tables_that_share_a_place_are_found() {
        for (words, shared) in [
            (vec![2, 4, 6, BAD, FREE], false),
            (vec![2, 4, 2], true),
            (vec![2, 5, 6], true),
            // Overlaps the directory.
            (vec![4, 0], true),
        ] {
            let directory = Directory::new(0, (8192, 1024), 12, words).unwrap();
            assert_eq!(directory.shares_places(), shared);
        }
    }
}
