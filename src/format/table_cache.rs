//! A cache of the second-level tables of an image, shared by all its extents. Entries are read without a lock; a
//! changed table stays in memory until it is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::Result;
use crate::memory;
use crate::storage::{ReadRange, Storage};

/// Minimum number of cached tables, whatever the policy says.
const LEAST: usize = 64;

/// Identifies a table: the extent, and the table within it.
pub(crate) type Key = (u32, u32);

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    words: Vec<AtomicU64>,
    dirty: AtomicBool,
    used: AtomicBool,
}

impl Table {
    /// A table with these entries.
    pub(crate) fn new(words: impl ExactSizeIterator<Item = u64>) -> Result<Self> {
        Ok(Self {
            words: memory::collect(words.map(AtomicU64::new))?,
            dirty: AtomicBool::new(false),
            used: AtomicBool::new(true),
        })
    }

    /// An entry; 0 past the end.
    pub(crate) fn get(&self, index: u64) -> u64 {
        let word = usize::try_from(index)
            .ok()
            .and_then(|at| self.words.get(at));
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Changes an entry, which must then be written.
    pub(crate) fn set(&self, index: u64, value: u64) {
        if let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|at| self.words.get(at))
        {
            word.store(value, Ordering::Release);
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Whether the table was changed; it counts as written from now on.
    pub(crate) fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }

    /// Marks the table to be written, even if it has not changed.
    pub(crate) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// All entries.
    pub(crate) fn words(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.words.iter().map(|word| word.load(Ordering::Acquire))
    }
}

/// The tables of an image.
#[derive(Debug)]
pub(crate) struct Cache {
    state: RwLock<State>,
    /// Maximum number of cached words.
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    tables: HashMap<Key, Arc<Table>>,
    words: usize,
    /// How many times tables were dropped.
    drops: u64,
}

/// The state of the cache when a table was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Cache {
    /// A cache of at most this many bytes, except while more has been changed and not written yet.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            state: RwLock::default(),
            room: usize::try_from(bytes / 8).unwrap_or(usize::MAX),
        }
    }

    /// The table, if it is in memory.
    pub(crate) fn get(&self, key: Key) -> Option<Arc<Table>> {
        let state = self.state.read();
        let table = state.tables.get(&key)?;
        table.used.store(true, Ordering::Relaxed);
        Some(table.clone())
    }

    /// Whether the table is in memory.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.state.read().tables.contains_key(&key)
    }

    /// Must be called before reading a table that is to be cached.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.state.read().drops)
    }

    /// Caches a table that was read after `epoch`, and returns the cached one: another thread may have been faster.
    /// None if it may be out of date and has to be read again.
    pub(crate) fn keep(&self, key: Key, table: Table, epoch: Epoch) -> Result<Option<Arc<Table>>> {
        let state = &mut *self.state.write();
        if let Some(known) = state.tables.get(&key) {
            return Ok(Some(known.clone()));
        }
        if state.drops != epoch.0 {
            return Ok(None);
        }
        state.tables.try_reserve(1).map_err(|_| memory::lack())?;
        let words = table.words.len();
        if state.words + words > self.room && state.tables.len() >= LEAST {
            state.make_room();
        }
        let table = memory::shared(table)?;
        state.words += words;
        state.tables.insert(key, table.clone());
        Ok(Some(table))
    }

    /// How many tables of this many words may be read together: a fraction of the cache.
    pub(crate) fn most_ahead(&self, words: u64) -> usize {
        let words = usize::try_from(words).unwrap_or(usize::MAX).max(1);
        (self.room / words).max(LEAST) / 4
    }

    /// Reads the tables of `len` bytes at these places with one call, and caches what `decode` makes of those that are
    /// not in memory; adjacent ones are read as one range. If tables were dropped in the meantime, none is cached.
    ///
    /// # Errors
    /// If I/O fails: none is cached then.
    pub(crate) fn load(
        &self,
        storage: &dyn Storage,
        places: &[(Key, u64)],
        len: u64,
        decode: impl Fn(&[u8]) -> Result<Table>,
    ) -> Result<()> {
        let epoch = self.epoch();
        let one = usize::try_from(len).map_err(|_| memory::lack())?;
        let mut bytes = memory::zeroed(one.saturating_mul(places.len()))?;
        let mut ranges: Vec<ReadRange<'_>> = Vec::new();
        let mut rest = &mut *bytes;
        for row in places.chunk_by(|one, next| one.1.checked_add(len) == Some(next.1)) {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(row.len() * one);
            rest = later;
            if let Some((_, offset)) = row.first() {
                memory::push(&mut ranges, (*offset, now))?;
            }
        }
        storage.read_many_at(&mut ranges)?;
        let mut tables = Vec::new();
        for ((key, _), bytes) in places.iter().zip(bytes.chunks_exact(one)) {
            memory::push(&mut tables, (*key, memory::shared(decode(bytes)?)?))?;
        }
        let state = &mut *self.state.write();
        if state.drops != epoch.0 {
            return Ok(());
        }
        let words: usize = tables.iter().map(|(_, table)| table.words.len()).sum();
        let more = tables.len();
        state.tables.try_reserve(more).map_err(|_| memory::lack())?;
        if state.words + words > self.room && state.tables.len() + more > LEAST {
            state.make_room();
        }
        for (key, table) in tables {
            if !state.tables.contains_key(&key) {
                state.words += table.words.len();
                state.tables.insert(key, table);
            }
        }
        Ok(())
    }

    /// Whether so much has been changed that it should be written.
    pub(crate) fn is_full(&self) -> bool {
        let state = self.state.read();
        state.words > self.room && state.tables.len() > LEAST
    }

    /// The changed tables of one extent.
    pub(crate) fn dirty(&self, extent: u32) -> Result<Vec<(u32, Arc<Table>)>> {
        let state = self.state.read();
        let mut dirty = Vec::new();
        for ((of, index), table) in &state.tables {
            if *of == extent && table.is_dirty() {
                memory::push(&mut dirty, (*index, table.clone()))?;
            }
        }
        drop(state);
        dirty.sort_unstable_by_key(|(index, _)| *index);
        Ok(dirty)
    }

    /// Drops everything, including changes.
    pub(crate) fn clear(&self) {
        let state = &mut *self.state.write();
        state.tables.clear();
        state.words = 0;
        state.drops += 1;
    }
}

impl State {
    /// Drops tables that are neither in use nor were used since the last call; if there are none, all that are not in
    /// use.
    fn make_room(&mut self) {
        let before = self.tables.len();
        let idle = |table: &Arc<Table>| Arc::strong_count(table) == 1 && !table.is_dirty();
        self.tables
            .retain(|_, table| !idle(table) || table.used.swap(false, Ordering::Relaxed));
        if self.tables.len() == before {
            self.tables.retain(|_, table| !idle(table));
        }
        self.words = self.tables.values().map(|table| table.words.len()).sum();
        self.drops += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn table() -> Table {
        Table::new(vec![0; 512].into_iter()).unwrap()
    }

    #[test]
    fn tables_that_are_read_together_are_those_of_their_places_and_no_more_than_fit() {
        let storage = MemoryStorage::new("tables");
        for place in [0u64, 16, 64] {
            let words = [place + 1, place + 2].map(u64::to_le_bytes);
            storage.write_at(words.as_flattened(), place).unwrap();
        }
        let decode = |bytes: &[u8]| {
            let words = bytes.chunks_exact(8);
            let words = words.map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            Table::new(words)
        };
        let cache = Cache::new(0);
        let there = Table::new([7, 8].into_iter()).unwrap();
        cache.keep((0, 2), there, cache.epoch()).unwrap();
        let places = [((0, 1), 0), ((0, 2), 16), ((0, 3), 64)];
        cache.load(&storage, &places, 16, decode).unwrap();
        let word = |key, index| cache.get(key).map(|table| table.get(index));
        assert_eq!([1, 2, 3].map(|n| word((0, n), 1)), [2, 8, 66].map(Some));
        // Tables in memory count towards the limit.
        let many: Vec<_> = (0..10_000).map(|n| ((1, n), 0)).collect();
        for some in many.chunks(cache.most_ahead(2)) {
            cache.load(&storage, some, 16, decode).unwrap();
        }
        let kept = many.iter().filter(|(key, _)| cache.get(*key).is_some());
        assert!(kept.count() <= LEAST);
        let last = many.last().unwrap().0;
        assert_eq!(word(last, 0), Some(1));
    }

    #[test]
    fn what_is_held_or_changed_stays() {
        let cache = Cache::new(0);
        let epoch = cache.epoch();
        for index in 0..LEAST as u32 {
            cache.keep((0, index), table(), epoch).unwrap().unwrap();
        }
        let held = cache.get((0, 0)).unwrap();
        cache.get((0, 1)).unwrap().set(3, 9);
        cache.keep((1, 0), table(), epoch).unwrap().unwrap();
        // The first round only clears their used flags.
        assert!(cache.get((0, 0)).is_some() && cache.get((0, 1)).is_some());
        assert_eq!(cache.get((0, 1)).unwrap().get(3), 9);
        assert!(cache.get((0, 2)).is_none());
        assert!(cache.keep((2, 0), table(), epoch).unwrap().is_none());
        assert_eq!(cache.dirty(0).unwrap().len(), 1);
        assert!(cache.dirty(0).unwrap()[0].1.take_dirty());
        assert!(cache.dirty(0).unwrap().is_empty());
        drop(held);
    }
}
