//! Memory for data in transit between clients and images, bounded across all clients.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::memory::IoBuf;

/// Number of buffers kept for the next request: reusing one costs no page faults and no zeroing.
const KEPT: usize = 16;
/// Only buffers up to this size are kept.
const KEPT_LEN: usize = 2 << 20;

/// The number of bytes that all clients of a server together may have in transit.
#[derive(Debug)]
pub(super) struct Budget {
    total: u64,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    most: u64,
    /// Number of threads waiting for a part: nothing is reserved in the meantime.
    waiting: usize,
    buffers: Vec<IoBuf>,
}

/// A part of the budget, returned when dropped, with a buffer if one was requested.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: u64,
    buffer: IoBuf,
}

impl Budget {
    pub(super) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self {
            total: total.max(1),
            state: Mutex::default(),
            returned: Condvar::new(),
        })
    }

    /// Takes a part of the budget with a buffer of `len` bytes, whose contents are unspecified; None if it does not
    /// become free before the deadline.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn take(self: &Arc<Self>, len: usize, until: Instant) -> Result<Option<Held>> {
        // A request larger than the budget takes all of it.
        let bytes = (len as u64).min(self.total);
        let mut state = self.state.lock();
        while self.total - state.used < bytes {
            state.waiting += 1;
            let timed_out = self.returned.wait_until(&mut state, until).timed_out();
            state.waiting -= 1;
            if timed_out && self.total - state.used < bytes {
                return Ok(None);
            }
        }
        state.used += bytes;
        state.most = state.most.max(state.used);
        let buffer = state.buffers.pop().unwrap_or_default();
        drop(state);
        let mut held = Held {
            budget: self.clone(),
            bytes,
            buffer,
        };
        held.buffer.room(len)?;
        Ok(Some(held))
    }

    /// Takes a part of the budget without a buffer, at most an eighth; None if that is not free now.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let bytes = bytes.min(self.total / 8);
        let mut state = self.state.lock();
        if bytes == 0 || state.waiting > 0 || self.total - state.used < bytes {
            return None;
        }
        state.used += bytes;
        state.most = state.most.max(state.used);
        Some(Held {
            budget: self.clone(),
            bytes,
            buffer: IoBuf::new(),
        })
    }

    /// Number of bytes in use, and the maximum so far.
    pub(super) fn used(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.used, state.most)
    }
}

impl Held {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn buffer(&self) -> &IoBuf {
        &self.buffer
    }

    pub(super) fn buffer_mut(&mut self) -> &mut IoBuf {
        &mut self.buffer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut state = self.budget.state.lock();
        state.used -= self.bytes;
        let fits = !buffer.is_empty() && buffer.len() <= KEPT_LEN;
        let spare = if fits && state.buffers.len() < KEPT {
            state.buffers.push(buffer);
            None
        } else {
            Some(buffer)
        };
        drop(state);
        self.budget.returned.notify_all();
        drop(spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[test]
    fn no_more_is_lent_than_there_is() {
        let budget = Budget::new(100);
        let first = budget.take(60, soon()).unwrap().unwrap();
        assert_eq!(first.buffer().len(), 60);
        assert!(budget.take(60, soon()).unwrap().is_none());
        let second = budget.take(40, soon()).unwrap().unwrap();
        assert_eq!(budget.used(), (100, 100));
        drop(first);
        drop(second);
        // A request larger than the budget runs alone.
        let all = budget.take(1000, soon()).unwrap().unwrap();
        assert_eq!(all.buffer().len(), 1000);
        assert!(budget.take(1, soon()).unwrap().is_none());
        drop(all);
        assert_eq!(budget.used(), (0, 100));
    }

    #[test]
    fn who_waits_gets_what_is_given_back() {
        let budget = Budget::new(10);
        let held = budget.take(10, soon()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let late = Instant::now() + Duration::from_secs(60);
                budget.take(10, late).unwrap().is_some()
            });
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }
}
