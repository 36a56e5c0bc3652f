//! A value that is replaced while others read it without a lock. What they borrow stays in place: earlier values are
//! retained to the end, so this is for what changes rarely.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// Groups of places, each twice as large as the one before it.
const GROUPS: usize = 31;

/// Places for values, allocated together.
type Group<T> = OnceLock<Box<[OnceLock<T>]>>;

/// The newest of several values; dereferences to it.
#[derive(Debug)]
pub(crate) struct Newest<T> {
    first: T,
    later: [Group<T>; GROUPS],
    /// The place of the current value, from 1 on; 0 for the first value.
    current: AtomicU32,
    /// The number of places taken. Locked while the value is replaced.
    taken: Mutex<u32>,
}

/// A value that was the newest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Earlier(u32);

impl<T> Newest<T> {
    /// Starts with the first value.
    pub(crate) fn new(first: T) -> Self {
        Self {
            first,
            later: [const { OnceLock::new() }; GROUPS],
            current: AtomicU32::new(0),
            taken: Mutex::new(0),
        }
    }

    /// Makes `value` the current one. Returns the previous one, to be restored.
    ///
    /// # Errors
    /// If there is no memory; the value is unchanged then.
    pub(crate) fn replace(&self, value: T) -> Result<Earlier> {
        let taken = &mut *self.taken.lock();
        let place = taken.checked_add(1).ok_or_else(memory::lack)?;
        let (group, index) = position(place);
        let group = self.later.get(group).ok_or_else(memory::lack)?;
        if group.get().is_none() {
            let mut places = Vec::new();
            memory::reserve(&mut places, place as usize)?;
            places.resize_with(place as usize, OnceLock::new);
            // No other thread can be here: the lock is held.
            let _ = group.set(places.into_boxed_slice());
        }
        let slot = group.get().and_then(|group| group.get(index));
        match slot.map(|slot| slot.set(value)) {
            Some(Ok(())) => {}
            _ => return Err(Error::new(ErrorKind::Internal, "A place is taken already")),
        }
        *taken = place;
        Ok(Earlier(self.current.swap(place, Ordering::AcqRel)))
    }

    /// A value that was the newest one.
    pub(crate) fn before(&self, earlier: Earlier) -> &T {
        self.at(earlier.0)
    }

    /// Makes an earlier value the current one again.
    pub(crate) fn restore(&self, earlier: Earlier) {
        let _taken = self.taken.lock();
        self.current.store(earlier.0, Ordering::Release);
    }

    fn at(&self, place: u32) -> &T {
        if place == 0 {
            return &self.first;
        }
        let (group, index) = position(place);
        let group = self.later.get(group).and_then(OnceLock::get);
        let value = group.and_then(|group| group.get(index));
        value.and_then(OnceLock::get).unwrap_or(&self.first)
    }
}

impl<T> Deref for Newest<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.at(self.current.load(Ordering::Acquire))
    }
}

/// The group of a place from 1 on, and the index in that group.
fn position(place: u32) -> (usize, usize) {
    let group = place.ilog2();
    (group as usize, (place - (1 << group)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_borrowed_stays_while_values_are_replaced() {
        let newest = Newest::new(0);
        let first = &*newest;
        for value in 1..100 {
            let before = *newest;
            let earlier = newest.replace(value).unwrap();
            assert_eq!(*newest, value);
            newest.restore(earlier);
            assert_eq!(*newest, before);
            newest.replace(value).unwrap();
        }
        assert_eq!((*first, *newest), (0, 99));
    }
}
