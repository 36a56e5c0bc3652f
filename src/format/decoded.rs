//! The units of an image that were decoded last, so that many small reads of one decode it once.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::memory::{self, IoBuf};

/// The most units that are kept: they are looked for one by one.
const MAX_UNITS: usize = 64;

/// The most bytes that they take together.
const MAX_BYTES: usize = 4 << 20;

/// Decoded units by the place of their encoded bytes. Reads of whole units need no look: whoever
/// reads those hardly comes back for a part.
#[derive(Debug, Default)]
pub(crate) struct DecodedUnits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    units: Vec<Unit>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Unit {
    offset: u64,
    len: u64,
    bytes: Arc<IoBuf>,
    used: u64,
}

impl DecodedUnits {
    /// The unit whose encoded bytes are the `len` bytes at `offset`, if it is kept.
    pub(crate) fn get(&self, offset: u64, len: u64) -> Option<Arc<IoBuf>> {
        let state = &mut *self.state.lock();
        let is_it = |unit: &&mut Unit| (unit.offset, unit.len) == (offset, len);
        let unit = state.units.iter_mut().find(is_it)?;
        state.clock += 1;
        unit.used = state.clock;
        Some(unit.bytes.clone())
    }

    /// Keeps a unit, unless it is too large. Gives a buffer back that is used no longer.
    pub(crate) fn keep(&self, offset: u64, len: u64, bytes: IoBuf) -> Option<IoBuf> {
        let size = bytes.len();
        if size > MAX_BYTES / 2 {
            return Some(bytes);
        }
        let state = &mut *self.state.lock();
        let mut spare = None;
        let known = |unit: &Unit| (unit.offset, unit.len) == (offset, len);
        if state.units.iter().any(known) {
            // Another thread was faster.
            return Some(bytes);
        }
        while state.units.len() >= MAX_UNITS || state.bytes + size > MAX_BYTES {
            let oldest = (0..state.units.len()).min_by_key(|&at| state.units[at].used)?;
            let unit = state.units.swap_remove(oldest);
            state.bytes -= unit.bytes.len();
            // A reader may still have it.
            spare = Arc::into_inner(unit.bytes).or(spare);
        }
        if memory::reserve(&mut state.units, 1).is_err() {
            return Some(bytes);
        }
        state.clock += 1;
        state.bytes += size;
        state.units.push(Unit {
            offset,
            len,
            bytes: Arc::new(bytes),
            used: state.clock,
        });
        spare
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

#[cfg(test)]
mod tests {
    use super::*;

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
