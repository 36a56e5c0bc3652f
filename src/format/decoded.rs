//! The units of an image that were decoded last, so that many small reads of one decode it once.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// The most units that are kept: they are looked for one by one.
const MAX_UNITS: usize = 64;

/// The most bytes that they take together; a unit that is larger by itself is the only one.
const MAX_BYTES: usize = 4 << 20;

/// Decoded units by the place of their encoded bytes. Reads of whole units need no look: a caller that
/// reads those hardly comes back for a part.
#[derive(Debug, Default)]
pub(crate) struct DecodedUnits {
    state: Mutex<State>,
    /// A unit is decoded no longer.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    units: Vec<Unit>,
    /// The most bytes that are kept, except for a unit that is larger by itself.
    max_bytes: usize,
    /// Those that [`DecodedUnits::get_or_decode`] is about to have.
    pending: Vec<(u64, u64)>,
    bytes: usize,
    clock: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            max_bytes: MAX_BYTES,
            pending: Vec::new(),
            bytes: 0,
            clock: 0,
        }
    }
}

#[derive(Debug)]
struct Unit {
    offset: u64,
    len: u64,
    bytes: Arc<IoBuf>,
    used: u64,
}

impl DecodedUnits {
    /// For units that are larger than usual: so many bytes of them are kept.
    pub(crate) fn of_bytes(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                max_bytes,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// The unit whose encoded bytes are the `len` bytes at `offset`, if it is kept.
    pub(crate) fn get(&self, offset: u64, len: u64) -> Option<Arc<IoBuf>> {
        self.state.lock().get(offset, len)
    }

    /// Keeps a unit. Gives a buffer back that is used no longer.
    pub(crate) fn keep(&self, offset: u64, len: u64, bytes: IoBuf) -> Option<IoBuf> {
        let bytes = Arc::new(bytes);
        let spare = self.state.lock().keep(offset, len, &bytes);
        // Not kept: another thread was faster.
        spare.or_else(|| Arc::into_inner(bytes))
    }

    /// As [`DecodedUnits::get`], else what `decode` makes, which is kept. While one thread decodes a unit,
    /// others that want it wait.
    ///
    /// # Errors
    /// Of `decode`.
    pub(crate) fn get_or_decode(
        &self,
        offset: u64,
        len: u64,
        decode: impl FnOnce(&mut IoBuf) -> Result<()>,
    ) -> Result<Arc<IoBuf>> {
        let mut state = self.state.lock();
        loop {
            if let Some(unit) = state.get(offset, len) {
                return Ok(unit);
            }
            if !state.pending.contains(&(offset, len)) {
                break;
            }
            self.changed.wait(&mut state);
        }
        memory::push(&mut state.pending, (offset, len))?;
        drop(state);
        let pending = Pending {
            units: self,
            unit: (offset, len),
        };
        let mut bytes = IoBuf::new();
        decode(&mut bytes)?;
        let bytes = Arc::new(bytes);
        self.state.lock().keep(offset, len, &bytes);
        drop(pending);
        Ok(bytes)
    }

    /// Other bytes were written to the `len` bytes at `offset`.
    pub(crate) fn forget(&self, offset: u64, len: u64) {
        let state = &mut *self.state.lock();
        let end = offset.saturating_add(len);
        let mut freed = 0;
        state.units.retain(|unit| {
            let apart = unit.offset >= end || unit.offset.saturating_add(unit.len) <= offset;
            if !apart {
                freed += unit.bytes.len();
            }
            apart
        });
        state.bytes -= freed;
    }
}

impl State {
    fn get(&mut self, offset: u64, len: u64) -> Option<Arc<IoBuf>> {
        let is_it = |unit: &&mut Unit| (unit.offset, unit.len) == (offset, len);
        let unit = self.units.iter_mut().find(is_it)?;
        self.clock += 1;
        unit.used = self.clock;
        Some(unit.bytes.clone())
    }

    fn keep(&mut self, offset: u64, len: u64, bytes: &Arc<IoBuf>) -> Option<IoBuf> {
        let size = bytes.len();
        let mut spare = None;
        let known = |unit: &Unit| (unit.offset, unit.len) == (offset, len);
        if self.units.iter().any(known) {
            return None;
        }
        while self.units.len() >= MAX_UNITS || self.bytes + size > self.max_bytes {
            let Some(oldest) = (0..self.units.len()).min_by_key(|&at| self.units[at].used) else {
                break;
            };
            let unit = self.units.swap_remove(oldest);
            self.bytes -= unit.bytes.len();
            // A reader may still have it.
            spare = Arc::into_inner(unit.bytes).or(spare);
        }
        if memory::reserve(&mut self.units, 1).is_ok() {
            self.clock += 1;
            self.bytes += size;
            self.units.push(Unit {
                offset,
                len,
                bytes: bytes.clone(),
                used: self.clock,
            });
        }
        spare
    }
}

/// A unit that is being decoded, until this is dropped.
struct Pending<'a> {
    units: &'a DecodedUnits,
    unit: (u64, u64),
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let pending = &mut self.units.state.lock().pending;
        pending.retain(|unit| *unit != self.unit);
        self.units.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    fn unit(byte: u8, len: usize) -> IoBuf {
        memory::copied(&vec![byte; len]).unwrap()
    }

    #[test]
    fn units_are_kept_within_bounds_and_the_oldest_goes_first() {
        let units = DecodedUnits::default();
        for n in 0..MAX_UNITS as u64 {
            assert!(units.keep(n * 10, 10, unit(n as u8, 4096)).is_none());
        }
        assert_eq!(units.get(0, 10).unwrap()[0], 0);
        let spare = units.keep(9999, 10, unit(99, 4096)).unwrap();
        assert_eq!(spare[0], 1);
        assert!(units.get(10, 10).is_none() && units.get(0, 10).is_some());
        assert!(units.get(9999, 11).is_none());
        for n in 0..5 {
            units.keep(1 << 20 | n, 1, unit(n as u8, MAX_BYTES / 2));
            let state = units.state.lock();
            let held: usize = state.units.iter().map(|unit| unit.bytes.len()).sum();
            assert!(held == state.bytes && held <= MAX_BYTES);
        }
        assert_eq!(units.state.lock().units.len(), 2);
        assert!(units.keep(7, 1, unit(1, MAX_BYTES)).is_some());
        assert!(units.keep(8, 1, unit(1, 2 * MAX_BYTES)).is_some());
        let state = units.state.lock();
        assert_eq!((state.units.len(), state.bytes), (1, 2 * MAX_BYTES));
    }

    #[test]
    fn a_unit_that_many_threads_want_is_decoded_once() {
        let units = DecodedUnits::default();
        let decoded = AtomicUsize::new(0);
        let begin = Barrier::new(4);
        let read = || {
            begin.wait();
            let unit = units.get_or_decode(4096, 512, |bytes| {
                decoded.fetch_add(1, Ordering::SeqCst);
                bytes.room(512)?.fill(7);
                Ok(())
            });
            assert!(unit.unwrap().iter().all(|byte| *byte == 7));
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(read);
            }
        });
        assert_eq!(decoded.into_inner(), 1);
        let failed = units.get_or_decode(0, 512, |_| Err(Error::corrupt("bad")));
        assert_eq!(failed.unwrap_err().to_string(), "bad");
        // Nobody waits for what failed.
        assert!(units.get_or_decode(0, 512, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn what_was_overwritten_is_forgotten() {
        let units = DecodedUnits::default();
        for n in 0..4 {
            units.keep(n * 100, 100, unit(n as u8, 512));
        }
        units.forget(199, 2);
        let kept: Vec<_> = (0..4).map(|n| units.get(n * 100, 100).is_some()).collect();
        assert_eq!(kept, [true, false, false, true]);
        assert_eq!(units.state.lock().bytes, 1024);
    }
}
