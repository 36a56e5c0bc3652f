//! Requests that a library carries out on threads of its own, with a callback on completion.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{IoBuf, Payload};

/// The memory of a request.
pub(super) enum Held {
    /// To be filled.
    Room(IoBuf),
    Bytes(Payload),
    None,
}

impl Held {
    /// Its address, which a library only writes to if the memory is to be filled.
    fn address(&mut self) -> *mut u8 {
        match self {
            Self::Room(room) => room.as_mut_ptr(),
            Self::Bytes(bytes) => bytes.as_ptr().cast_mut(),
            Self::None => std::ptr::null_mut(),
        }
    }
}

/// The result of a request, or an errno, along with what it was to fill.
type Outcome = (Result<u64, i32>, IoBuf);

/// Number of requests that the library is still working on.
#[derive(Default)]
struct Count {
    count: Mutex<usize>,
    none: Condvar,
}

/// The requests in flight on one handle of a library.
#[derive(Default)]
pub(super) struct Running(Arc<Count>);

impl Running {
    /// Starts a request: `call` passes it and the address of its memory, which stays in place, to the library, which
    /// passes it to [`Request::taken_back`] once. If `call` fails, the library must not have taken it.
    pub(super) fn start(
        &self,
        mut held: Held,
        call: impl FnOnce(*mut u8, *mut c_void) -> Result<(), i32>,
    ) -> Result<Pending, i32> {
        let at = held.address();
        let shared = Arc::new(Shared {
            count: self.0.clone(),
            state: Mutex::new(State::Running(held)),
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

    /// Waits until no request is in flight.
    pub(super) fn wait(&self) {
        let mut count = self.0.count.lock();
        while *count > 0 {
            self.0.none.wait(&mut count);
        }
    }
}

/// A request, owned jointly by the thread that waits for it and the library.
struct Shared {
    count: Arc<Count>,
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    /// The library has the address of the memory, so it must not be accessed here.
    Running(Held),
    Done(Outcome),
    Taken,
}

/// A request that the library has given back.
pub(super) struct Request(Arc<Shared>);

impl Request {
    /// # Safety
    /// `given` must be what [`Running::start`] passed to the library, for the first time; the library must no longer
    /// access its memory.
    pub(super) unsafe fn taken_back(given: *mut c_void) -> Self {
        // SAFETY: by the caller.
        Self(unsafe { Arc::from_raw(given.cast_const().cast::<Shared>()) })
    }

    /// Completes it with this result.
    pub(super) fn end(self, outcome: Result<u64, i32>) {
        let mut state = self.0.state.lock();
        if let State::Running(held) = std::mem::replace(&mut *state, State::Taken) {
            let room = match held {
                Held::Room(room) => room,
                Held::Bytes(_) | Held::None => IoBuf::new(),
            };
            *state = State::Done((outcome, room));
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

/// A request that has been started. If dropped, it still runs to completion, and then its memory is freed.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    started: Instant,
}

impl Pending {
    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The outcome, if the request completes in time.
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
