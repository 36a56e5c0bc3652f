//! A bounded cache of pieces of metadata. A changed piece is referenced by whoever has to write it until it is on disk,
//! so that it stays cached; pieces that are not in use may be dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::Result;
use crate::memory;

/// The pieces, each with its number.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    state: RwLock<State<T>>,
    /// Maximum number of cached pieces, exceeded only while more are in use.
    most: usize,
}

#[derive(Debug)]
struct State<T> {
    pieces: HashMap<u64, Arc<T>>,
    /// How many times pieces were dropped.
    drops: u64,
}

impl<T> State<T> {
    fn make_room(&mut self, count: usize, most: usize) -> Result<()> {
        if self.pieces.len().saturating_add(count) > most {
            let before = self.pieces.len();
            self.pieces.retain(|_, piece| Arc::strong_count(piece) > 1);
            self.drops += u64::from(self.pieces.len() < before);
        }
        self.pieces.try_reserve(count).map_err(|_| memory::lack())
    }
}

impl<T> Kept<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            state: RwLock::new(State {
                pieces: HashMap::new(),
                drops: 0,
            }),
            most: most.max(1),
        }
    }

    /// The piece, if it is in memory.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.state.read().pieces.get(&number).cloned()
    }

    /// The piece; if it is not in memory, `read` reads it.
    ///
    /// # Errors
    /// The errors of `read`, or if memory is exhausted.
    pub(crate) fn get_or_read(&self, number: u64, read: impl Fn() -> Result<T>) -> Result<Arc<T>> {
        loop {
            let drops = {
                let state = self.state.read();
                if let Some(piece) = state.pieces.get(&number) {
                    return Ok(piece.clone());
                }
                state.drops
            };
            let piece = memory::shared(read()?)?;
            let state = &mut *self.state.write();
            if let Some(known) = state.pieces.get(&number) {
                return Ok(known.clone());
            }
            // It may have been cached, changed, written and dropped since it was read.
            if state.drops != drops {
                continue;
            }
            state.make_room(1, self.most)?;
            state.pieces.insert(number, piece.clone());
            return Ok(piece);
        }
    }

    /// Maximum number of cached pieces.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether the piece is in memory.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.state.read().pieces.contains_key(&number)
    }

    /// Brings several pieces into memory together; `read` returns each with its number. Those that are already in
    /// memory are left unchanged.
    ///
    /// # Errors
    /// The errors of `read`, or if memory is exhausted.
    pub(crate) fn bring(&self, read: impl FnOnce() -> Result<Vec<(u64, T)>>) -> Result<()> {
        let drops = self.state.read().drops;
        let read = read()?;
        let mut pieces = Vec::new();
        memory::reserve(&mut pieces, read.len())?;
        for (number, piece) in read {
            pieces.push((number, memory::shared(piece)?));
        }
        let state = &mut *self.state.write();
        // As in `get_or_read`; whoever needs them will read them again.
        if state.drops == drops {
            state.make_room(pieces.len(), self.most)?;
            for (number, piece) in pieces {
                state.pieces.entry(number).or_insert(piece);
            }
        }
        Ok(())
    }

    /// Stores a piece, replacing any previous one.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn put(&self, number: u64, piece: T) -> Result<()> {
        let piece = memory::shared(piece)?;
        let state = &mut *self.state.write();
        state.make_room(1, self.most)?;
        state.pieces.insert(number, piece);
        Ok(())
    }

    /// Drops all of them.
    pub(crate) fn clear(&self) {
        let state = &mut *self.state.write();
        state.pieces.clear();
        state.drops += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_piece_that_is_held_stays() {
        let kept = Kept::new(2);
        let held = kept.get_or_read(0, || Ok(1)).unwrap();
        for number in 1..9 {
            kept.get_or_read(number, || Ok(2)).unwrap();
        }
        assert!(Arc::ptr_eq(&held, &kept.get(0).unwrap()));
        assert!(kept.get(1).is_none() && kept.state.read().pieces.len() <= 2);
        kept.put(0, 3).unwrap();
        assert_eq!(*kept.get(0).unwrap(), 3);
        kept.clear();
        assert!(kept.get(0).is_none());
    }

    #[test]
    fn pieces_that_are_brought_leave_those_in_memory_as_they_are() {
        let kept = Kept::new(4);
        let held = kept.get_or_read(1, || Ok(1)).unwrap();
        kept.get_or_read(9, || Ok(9)).unwrap();
        let read = |numbers: &[u64]| Ok(numbers.iter().map(|number| (*number, 2)).collect());
        kept.bring(|| read(&[0, 1])).unwrap();
        assert!(kept.has(0) && kept.has(9) && Arc::ptr_eq(&held, &kept.get(1).unwrap()));
        // Pieces that are not in use make room, but none of the new ones.
        kept.bring(|| read(&[2, 3])).unwrap();
        assert!(kept.has(1) && kept.has(2) && kept.has(3) && !kept.has(9));
        let lost = || {
            kept.clear();
            read(&[5])
        };
        kept.bring(lost).unwrap();
        assert!(!kept.has(5));
    }

    /// The disk: while one thread reads a piece, another one changes, writes and drops it.
    #[test]
    fn what_was_read_before_it_changed_on_disk_is_read_again() {
        let kept = Kept::new(1);
        let disk = Cell::new(1);
        let is_first = Cell::new(true);
        let read = || {
            let found = disk.get();
            if is_first.replace(false) {
                kept.get_or_read(7, || Ok(disk.get())).unwrap();
                disk.set(2);
                kept.get_or_read(8, || Ok(0)).unwrap();
                assert!(kept.get(7).is_none());
            }
            Ok(found)
        };
        assert_eq!(*kept.get_or_read(7, read).unwrap(), 2);
        assert_eq!(*kept.get(7).unwrap(), 2);
    }
}
