//! Permits for requests: they limit the number of concurrent connections to a server.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::job::JobControl;

/// How long to wait for a free lane before checking the control again.
const LOOK: Duration = Duration::from_millis(50);

/// One lane for each request that may be in flight.
#[derive(Debug)]
pub(in crate::storage) struct Lanes {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    all: usize,
}

/// The permit for one request.
#[derive(Debug)]
pub(in crate::storage) struct Lane<'a>(&'a Lanes);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.0.state.lock().free += 1;
        self.0.freed.notify_one();
    }
}

impl Lanes {
    pub(in crate::storage) fn new(count: usize) -> Self {
        Self {
            state: Mutex::new(State {
                free: count,
                all: count,
            }),
            freed: Condvar::new(),
        }
    }

    /// Total number of lanes.
    pub(in crate::storage) fn count(&self) -> usize {
        self.state.lock().all
    }

    /// Raises the total to `count`, if it is lower.
    pub(in crate::storage) fn widen(&self, count: usize) {
        let mut state = self.state.lock();
        let more = count.saturating_sub(state.all);
        state.all += more;
        state.free += more;
        drop(state);
        self.freed.notify_all();
    }

    /// Waits for a free lane.
    ///
    /// # Errors
    /// Errors of the control.
    pub(in crate::storage) fn take(&self, control: &JobControl) -> Result<Lane<'_>> {
        let mut state = self.state.lock();
        while state.free == 0 {
            control.check()?;
            self.freed.wait_for(&mut state, LOOK);
        }
        state.free -= 1;
        Ok(Lane(self))
    }

    /// Takes a lane if one is free; does not block.
    pub(in crate::storage) fn try_take(&self) -> Option<Lane<'_>> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Lane(self))
    }

    /// Gives up the caller's lane for good, because the server accepts no more connections, and takes another; false if
    /// it is the last one.
    pub(in crate::storage) fn narrow(&self, control: &JobControl) -> Result<bool> {
        let mut state = self.state.lock();
        if state.all <= 1 {
            return Ok(false);
        }
        state.all -= 1;
        while state.free == 0 {
            if let Err(over) = control.check() {
                // The caller still holds the lane that it was giving up.
                state.all += 1;
                return Err(over);
            }
            self.freed.wait_for(&mut state, LOOK);
        }
        state.free -= 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_taken_given_back_and_become_fewer() {
        let control = JobControl::default();
        let lanes = Lanes::new(2);
        let one = lanes.take(&control).unwrap();
        let other = lanes.try_take().unwrap();
        assert!(lanes.try_take().is_none());
        drop(other);
        // `one` now stands for the other lane.
        assert!(lanes.narrow(&control).unwrap());
        assert!(lanes.try_take().is_none());
        assert!(!lanes.narrow(&control).unwrap());
        drop(one);
        let again = lanes.try_take().unwrap();
        assert!(lanes.try_take().is_none());
        assert_eq!(lanes.count(), 1);
        lanes.widen(2);
        lanes.widen(1);
        assert_eq!(lanes.count(), 2);
        let other = lanes.try_take().unwrap();
        assert!(lanes.try_take().is_none());
        drop((again, other));
    }
}
