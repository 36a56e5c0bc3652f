//! Calls of a library that wait for a server: each on a thread of its own, which is left to itself when no one waits
//! for it any longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SendError, sync_channel};
use std::time::{Duration, Instant};

use crate::crew;
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::IoBuf;
use crate::sys::pending::Pending;
use crate::sys::signal::Blocked;

/// The longest time that a wait goes without a look at the control: whatever cancels can only store a flag.
const LOOK: Duration = Duration::from_millis(50);

/// Makes a call and gives its result; one that comes when no one waits any longer is dropped on its thread.
///
/// # Errors
/// Of the call; [`ErrorKind::Cancelled`]; with the errno `ETIMEDOUT` after `patience`.
pub(super) fn aside<T: Send + 'static>(
    control: &JobControl,
    patience: Option<Duration>,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    aside_or_undo(control, patience, call, drop)
}

/// The same for a call that makes something: what it made when no one waits any longer is undone on its thread.
pub(super) fn aside_or_undo<T: Send + 'static>(
    control: &JobControl,
    patience: Option<Duration>,
    call: impl FnOnce() -> Result<T> + Send + 'static,
    undo: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    let late = patience.and_then(|time| Instant::now().checked_add(time));
    let is_late = || late.is_some_and(|late| Instant::now() >= late);
    aside_until(control, is_late, call, undo)
}

/// Waits for a request that was started and gives its result: an errno where the library has failed it.
///
/// # Errors
/// As of [`aside`], with the patience counted from the start; what comes when no one waits any longer is dropped.
pub(super) fn ended(
    pending: &Pending,
    control: &JobControl,
    patience: Option<Duration>,
) -> Result<std::result::Result<(u64, IoBuf), i32>> {
    loop {
        if let Some((outcome, bytes)) = pending.wait(LOOK) {
            return Ok(outcome.map(|given| (given, bytes)));
        }
        control.check()?;
        if patience.is_some_and(|time| pending.age() >= time) {
            return Err(Error::os(libc::ETIMEDOUT));
        }
    }
}

/// The same as [`aside`] for a call that counts its steps: it may take long as long as it does not stand still for `patience`.
pub(super) fn aside_stepwise<T: Send + 'static>(
    control: &JobControl,
    patience: Duration,
    steps: &Arc<AtomicU64>,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut last = (steps.load(Ordering::Relaxed), Instant::now());
    let stands_still = || {
        let step = steps.load(Ordering::Relaxed);
        if step != last.0 {
            last = (step, Instant::now());
        }
        last.1.elapsed() >= patience
    };
    aside_until(control, stands_still, call, drop)
}

fn aside_until<T: Send + 'static>(
    control: &JobControl,
    mut is_late: impl FnMut() -> bool,
    call: impl FnOnce() -> Result<T> + Send + 'static,
    unwanted: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    // What was given was taken.
    let (give, take) = sync_channel(0);
    let thread = crew::thread("library");
    // The library's own threads are made in these calls, and no signal is to be handled on them.
    let blocked = Blocked::all();
    let made = thread.spawn(move || {
        if let Err(SendError(Ok(outcome))) = give.send(call()) {
            unwanted(outcome);
        }
    });
    drop(blocked);
    made.map_err(|error| Error::io(&error))?;
    loop {
        match take.recv_timeout(LOOK) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "A call of a library has ended early",
                ));
            }
        }
        control.check()?;
        if is_late() {
            return Err(Error::os(libc::ETIMEDOUT));
        }
    }
}
