//! A cache of the units of an image that were decoded last, so that many small reads of a unit decode it only once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Maximum number of cached units, which are searched linearly.
const MAX_UNITS: usize = 64;

/// Maximum number of bytes that they occupy together; a unit that exceeds it is cached alone.
const MAX_BYTES: usize = 4 << 20;

/// Decoded units by the location of their encoded bytes. Reads of whole units cache nothing: a caller that reads those
/// is unlikely to return for a part.
#[derive(Debug, Default)]
pub(crate) struct DecodedUnits {
    state: Mutex<State>,
    /// Signalled when a unit is no longer being decoded.
    changed: Condvar,
    /// Number of units that are cached or being decoded; if it is zero, lookups return at once.
    present: AtomicUsize,
}

/// The offset and length of the encoded bytes.
type Key = (u64, u64);

#[derive(Debug)]
struct State {
    units: Vec<Unit>,
    /// Maximum number of cached bytes, except for a single unit that exceeds it.
    max_bytes: usize,
    /// Additional bytes that may be cached for now.
    more: usize,
    pending: Vec<Pending>,
    bytes: usize,
    clock: u64,
    /// The buffer for the next unit to be decoded.
    spare: Option<IoBuf>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            max_bytes: MAX_BYTES,
            more: 0,
            pending: Vec::new(),
            bytes: 0,
            clock: 0,
            spare: None,
        }
    }
}

#[derive(Debug)]
struct Unit {
    key: Key,
    bytes: Arc<IoBuf>,
    used: u64,
}

/// A unit that is being decoded.
#[derive(Debug)]
struct Pending {
    key: Key,
    /// The result for waiting threads, even if it is not cached.
    outcome: Arc<OnceLock<Arc<IoBuf>>>,
}

/// The result of looking for a unit to decode.
enum Lookup<'a> {
    Kept(Arc<IoBuf>),
    Ours(DecodeTurn<'a>),
}

/// The right to decode a unit, held until this is dropped.
struct DecodeTurn<'a> {
    units: &'a DecodedUnits,
    key: Key,
    outcome: Arc<OnceLock<Arc<IoBuf>>>,
    spare: Option<IoBuf>,
}

impl DecodedUnits {
    /// For units that are larger than usual: caches up to this many bytes of them.
    pub(crate) fn of_bytes(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                max_bytes,
                ..State::default()
            }),
            ..Self::default()
        }
    }

    /// Allows this many bytes to be cached beyond the usual limit, until the next call.
    pub(crate) fn keep_more(&self, bytes: usize) {
        let state = &mut *self.state.lock();
        state.more = bytes;
        let spare = state.make_room(0);
        self.note(state);
        drop(spare);
    }

    /// Whether no unit is cached or being decoded: then lookups cost nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.present.load(Ordering::Acquire) == 0
    }

    /// The unit whose encoded bytes are the `len` bytes at `offset`, if it is cached.
    pub(crate) fn get(&self, offset: u64, len: u64) -> Option<Arc<IoBuf>> {
        if self.is_empty() {
            return None;
        }
        self.state.lock().get((offset, len))
    }

    /// As [`DecodedUnits::get`], but if a thread is just decoding the unit, waits for it.
    pub(crate) fn get_or_wait(&self, offset: u64, len: u64) -> Option<Arc<IoBuf>> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        let kept = state.get((offset, len));
        kept.or_else(|| {
            let outcome = state.outcome((offset, len))?;
            self.wait(&mut state, &outcome);
            outcome.get().cloned()
        })
    }

    /// Returns a cached unit, or else the result of `decode`, which is then cached. While one thread decodes a unit,
    /// others that want it wait.
    ///
    /// # Errors
    /// The errors of `decode`.
    pub(crate) fn get_or_decode(
        &self,
        offset: u64,
        len: u64,
        decode: impl FnOnce(&mut IoBuf) -> Result<()>,
    ) -> Result<Arc<IoBuf>> {
        loop {
            match self.look_up((offset, len), true)? {
                Some(Lookup::Kept(unit)) => return Ok(unit),
                Some(Lookup::Ours(mut turn)) => {
                    let mut bytes = turn.spare.take().unwrap_or_default();
                    decode(&mut bytes)?;
                    return Ok(turn.finish(bytes));
                }
                // The thread that decoded it failed.
                None => {}
            }
        }
    }

    /// Returns a cached unit, or else the result of `decode`, which is then cached; does not wait. None if another
    /// thread is decoding the unit, or if `decode` would have to wait.
    ///
    /// # Errors
    /// The errors of `decode`.
    pub(crate) fn try_get_or_decode(
        &self,
        offset: u64,
        len: u64,
        decode: impl FnOnce(&mut IoBuf) -> Result<bool>,
    ) -> Result<Option<Arc<IoBuf>>> {
        Ok(match self.look_up((offset, len), false)? {
            Some(Lookup::Kept(unit)) => Some(unit),
            Some(Lookup::Ours(mut turn)) => {
                let mut bytes = turn.spare.take().unwrap_or_default();
                decode(&mut bytes)?.then(|| turn.finish(bytes))
            }
            None => None,
        })
    }

    /// Looks for a unit, or else lets the caller decode it. None if another thread is decoding it, or failed to do so
    /// while this one waited.
    fn look_up(&self, key: Key, wait: bool) -> Result<Option<Lookup<'_>>> {
        let mut state = self.state.lock();
        if let Some(unit) = state.get(key) {
            return Ok(Some(Lookup::Kept(unit)));
        }
        if let Some(outcome) = state.outcome(key) {
            if !wait {
                return Ok(None);
            }
            self.wait(&mut state, &outcome);
            return Ok(outcome.get().cloned().map(Lookup::Kept));
        }
        let outcome = Arc::default();
        let pending = Pending {
            key,
            outcome: Arc::clone(&outcome),
        };
        memory::push(&mut state.pending, pending)?;
        self.note(&state);
        Ok(Some(Lookup::Ours(DecodeTurn {
            units: self,
            key,
            outcome,
            spare: state.spare.take(),
        })))
    }

    fn wait(
        &self,
        state: &mut parking_lot::MutexGuard<'_, State>,
        outcome: &Arc<OnceLock<Arc<IoBuf>>>,
    ) {
        while state.is_pending(outcome) {
            self.changed.wait(state);
        }
    }

    /// Must be called when other bytes have been written to the `len` bytes at `offset`.
    pub(crate) fn forget(&self, offset: u64, len: u64) {
        let state = &mut *self.state.lock();
        let end = offset.saturating_add(len);
        let apart = |key: Key| key.0 >= end || key.0.saturating_add(key.1) <= offset;
        let mut freed = 0;
        state.units.retain(|unit| {
            let apart = apart(unit.key);
            if !apart {
                freed += unit.bytes.len();
            }
            apart
        });
        state.bytes -= freed;
        // Threads that wait for one of these look it up again.
        state.pending.retain(|pending| apart(pending.key));
        self.note(state);
        self.changed.notify_all();
    }

    fn note(&self, state: &State) {
        let present = state.units.len() + state.pending.len();
        self.present.store(present, Ordering::Release);
    }
}

impl State {
    fn get(&mut self, key: Key) -> Option<Arc<IoBuf>> {
        let unit = self.units.iter_mut().find(|unit| unit.key == key)?;
        self.clock += 1;
        unit.used = self.clock;
        Some(unit.bytes.clone())
    }

    fn outcome(&self, key: Key) -> Option<Arc<OnceLock<Arc<IoBuf>>>> {
        let pending = self.pending.iter().find(|pending| pending.key == key)?;
        Some(pending.outcome.clone())
    }

    fn is_pending(&self, outcome: &Arc<OnceLock<Arc<IoBuf>>>) -> bool {
        let is_it = |pending: &Pending| Arc::ptr_eq(&pending.outcome, outcome);
        self.pending.iter().any(is_it)
    }

    /// Drops the oldest units until `size` more bytes may be cached; returns the buffer of one.
    fn make_room(&mut self, size: usize) -> Option<IoBuf> {
        let most = self.max_bytes.saturating_add(self.more);
        let most_units = MAX_UNITS + self.more / (MAX_BYTES / MAX_UNITS);
        let mut spare = None;
        while self.units.len() >= most_units || self.bytes + size > most {
            let Some(oldest) = (0..self.units.len()).min_by_key(|&at| self.units[at].used) else {
                break;
            };
            let unit = self.units.swap_remove(oldest);
            self.bytes -= unit.bytes.len();
            // A reader may still be using it.
            spare = Arc::into_inner(unit.bytes).or(spare);
        }
        spare
    }

    /// Caches a unit; returns the buffer of one that is no longer cached.
    fn keep(&mut self, key: Key, bytes: &Arc<IoBuf>) -> Option<IoBuf> {
        let spare = self.make_room(bytes.len());
        if memory::reserve(&mut self.units, 1).is_ok() {
            self.clock += 1;
            self.bytes += bytes.len();
            self.units.push(Unit {
                key,
                bytes: bytes.clone(),
                used: self.clock,
            });
        }
        spare
    }
}

impl DecodeTurn<'_> {
    /// Caches the decoded unit, unless it was invalidated in the meantime.
    fn finish(&self, bytes: IoBuf) -> Arc<IoBuf> {
        let bytes = Arc::new(bytes);
        let mut state = self.units.state.lock();
        if state.is_pending(&self.outcome) {
            let spare = state.keep(self.key, &bytes);
            state.spare = spare.or(state.spare.take());
            // Only the holder of this turn sets it.
            let _ = self.outcome.set(bytes.clone());
        }
        bytes
    }
}

impl Drop for DecodeTurn<'_> {
    fn drop(&mut self) {
        let state = &mut *self.units.state.lock();
        let own = |pending: &Pending| Arc::ptr_eq(&pending.outcome, &self.outcome);
        state.pending.retain(|pending| !own(pending));
        self.units.note(state);
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

    impl DecodedUnits {
        fn keep(&self, offset: u64, len: u64, bytes: IoBuf) {
            let decode = |room: &mut IoBuf| {
                *room = bytes;
                Ok(())
            };
            self.get_or_decode(offset, len, decode).unwrap();
        }
    }

    #[test]
    fn units_are_kept_within_bounds_and_the_oldest_goes_first() {
        let units = DecodedUnits::default();
        assert!(units.get(0, 10).is_none());
        for n in 0..MAX_UNITS as u64 {
            units.keep(n * 10, 10, unit(n as u8, 4096));
        }
        assert_eq!(units.get(0, 10).unwrap()[0], 0);
        units.keep(9999, 10, unit(99, 4096));
        // Its buffer is reused for the next one.
        assert_eq!(units.state.lock().spare.as_ref().unwrap()[0], 1);
        assert!(units.get(10, 10).is_none() && units.get(0, 10).is_some());
        assert!(units.get(9999, 11).is_none());
        for n in 0..5 {
            units.keep(1 << 20 | n, 1, unit(n as u8, MAX_BYTES / 2));
            let state = units.state.lock();
            let held: usize = state.units.iter().map(|unit| unit.bytes.len()).sum();
            assert!(held == state.bytes && held <= MAX_BYTES);
        }
        assert_eq!(units.state.lock().units.len(), 2);
        units.keep(7, 1, unit(1, MAX_BYTES));
        units.keep(8, 1, unit(1, 2 * MAX_BYTES));
        {
            let state = units.state.lock();
            assert_eq!((state.units.len(), state.bytes), (1, 2 * MAX_BYTES));
        }
        // More are cached while that is requested.
        units.keep_more(2 * MAX_BYTES);
        for n in 0..6 {
            units.keep(n, 1, unit(1, MAX_BYTES / 2));
        }
        assert_eq!(units.state.lock().bytes, 3 * MAX_BYTES);
        units.keep_more(0);
        assert_eq!(units.state.lock().bytes, MAX_BYTES);
        assert!(units.get(5, 1).is_some());
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
        // No thread is left waiting after a failure.
        assert!(units.get_or_decode(0, 512, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn who_waits_gets_what_is_not_kept_and_who_must_not_wait_gets_nothing() {
        let units = DecodedUnits::default();
        let (begun, go_on) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let decoded = units.get_or_decode(0, 8, |bytes| {
                    begun.wait();
                    go_on.wait();
                    bytes.room(8)?.fill(1);
                    Ok(())
                });
                decoded.unwrap();
                // It is evicted at once by the next unit.
                units.keep(100, 1, unit(2, MAX_BYTES));
            });
            begun.wait();
            let never = |_: &mut IoBuf| unreachable!("it is being decoded");
            assert!(units.try_get_or_decode(0, 8, never).unwrap().is_none());
            let waiting = scope.spawn(|| units.get_or_wait(0, 8).unwrap()[7]);
            while Arc::strong_count(&units.state.lock().pending[0].outcome) < 3 {
                std::thread::yield_now();
            }
            go_on.wait();
            assert_eq!(waiting.join().unwrap(), 1);
        });
        let would_block = units.try_get_or_decode(7, 7, |_| Ok(false)).unwrap();
        assert!(would_block.is_none() && units.get_or_wait(7, 7).is_none());
    }

    #[test]
    fn what_is_overwritten_while_it_is_decoded_is_not_kept() {
        let units = DecodedUnits::default();
        let old = units.get_or_decode(0, 8, |bytes| {
            bytes.room(8)?.fill(1);
            units.forget(4, 1);
            Ok(())
        });
        assert_eq!(old.unwrap()[0], 1);
        assert!(units.get(0, 8).is_none());
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
