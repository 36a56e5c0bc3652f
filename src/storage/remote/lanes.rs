//! The right to make a request: a server is asked by a few connections at once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::job::JobControl;

/// How long a wait for a free one goes without a look at the control.
const LOOK: Duration = Duration::from_millis(50);

/// As many lanes as requests may be made at once.
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

/// The right to make a request.
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

    /// How many there are.
    pub(in crate::storage) fn count(&self) -> usize {
        self.state.lock().all
    }

    /// Makes them as many as `count`, where they are fewer.
    pub(in crate::storage) fn widen(&self, count: usize) {
        let mut state = self.state.lock();
        let more = count.saturating_sub(state.all);
        state.all += more;
        state.free += more;
        drop(state);
        self.freed.notify_all();
    }

    /// Waits for one.
    ///
    /// # Errors
    /// Of the control.
    pub(in crate::storage) fn take(&self, control: &JobControl) -> Result<Lane<'_>> {
        let mut state = self.state.lock();
        while state.free == 0 {
            control.check()?;
            self.freed.wait_for(&mut state, LOOK);
        }
        state.free -= 1;
        Ok(Lane(self))
    }

    /// One, where there is nothing to wait for.
    pub(in crate::storage) fn try_take(&self) -> Option<Lane<'_>> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Lane(self))
    }

    /// Gives one back for good, as the server takes no more connections, and takes another one; false for the last
    /// of all.
    pub(in crate::storage) fn narrow(&self, control: &JobControl) -> Result<bool> {
        let mut state = self.state.lock();
        if state.all <= 1 {
            return Ok(false);
        }
        state.all -= 1;
        while state.free == 0 {
            if let Err(over) = control.check() {
                // The caller still holds the one that was given back.
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
        // `one` stands for the second one now.
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
