//! Requests that a library carries out on threads of its own, and calls back when they have ended.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::IoBuf;

/// What a request gave, or an errno, and its bytes.
type Outcome = (Result<u64, i32>, IoBuf);

/// How many requests the library still works on.
#[derive(Default)]
struct Count {
    count: Mutex<usize>,
    none: Condvar,
}

/// The requests that are under way at one handle of a library.
#[derive(Default)]
pub(super) struct Running(Arc<Count>);

impl Running {
    /// Starts a request: `call` hands it, and the place of its bytes, which stay there, to the library, which gives
    /// it back to [`Request::taken_back`] once. On an error the library has not taken it.
    pub(super) fn start(
        &self,
        mut bytes: IoBuf,
        call: impl FnOnce(*mut u8, *mut c_void) -> Result<(), i32>,
    ) -> Result<Pending, i32> {
        let at = bytes.as_mut_ptr();
        let shared = Arc::new(Shared {
            count: self.0.clone(),
            state: Mutex::new(State::Running(bytes)),
            done: Condvar::new(),
        });
        let given = Arc::into_raw(shared.clone()).cast_mut().cast::<c_void>();
        *self.0.count.lock() += 1;
        if let Err(errno) = call(at, given) {
            // SAFETY: given away above, and by the contract of `call` nothing else takes it back.
            drop(unsafe { Request::taken_back(given) });
            return Err(errno);
        }
        Ok(Pending {
            shared,
            started: Instant::now(),
        })
    }

    /// Waits until there are none.
    pub(super) fn wait(&self) {
        let mut count = self.0.count.lock();
        while *count > 0 {
            self.0.none.wait(&mut count);
        }
    }
}

/// A request between who waits for it and the library, which both own it.
struct Shared {
    count: Arc<Count>,
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    /// The library has the address of the bytes: they are not touched here.
    Running(IoBuf),
    Done(Outcome),
    Taken,
}

/// A request that the library has given back.
pub(super) struct Request(Arc<Shared>);

impl Request {
    /// # Safety
    /// What [`Running::start`] gave to the library, for the first time; the library does not touch its bytes any
    /// more.
    pub(super) unsafe fn taken_back(given: *mut c_void) -> Self {
        // SAFETY: by the caller.
        Self(unsafe { Arc::from_raw(given.cast_const().cast::<Shared>()) })
    }

    /// It has ended, with this.
    pub(super) fn end(self, outcome: Result<u64, i32>) {
        let mut state = self.0.state.lock();
        if let State::Running(bytes) = std::mem::replace(&mut *state, State::Taken) {
            *state = State::Done((outcome, bytes));
        }
        self.0.done.notify_all();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut count = self.0.count.count.lock();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.0.count.none.notify_all();
        }
    }
}

/// A request that was started. Dropped, it runs to its end, and its bytes are freed then.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    started: Instant,
}

impl Pending {
    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What it gave, if that comes in time.
    pub(crate) fn wait(&self, time: Duration) -> Option<Outcome> {
        let mut state = self.shared.state.lock();
        if matches!(*state, State::Running(_)) {
            self.shared.done.wait_for(&mut state, time);
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }
}
