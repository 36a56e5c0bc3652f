//! What is done when a request fails, and when it is made again.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

/// How long after a failed request the next one follows.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such time.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// How often what a server does not have, or answers wrongly, is asked for again when it is first looked for.
const MAX_MISSING: u32 = 3;

/// What may be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Next {
    /// Nothing.
    Nothing,
    /// The request is made again.
    Again,
    /// The image is looked for again, from its own URL on.
    Elsewhere,
}

#[derive(Debug)]
pub(in crate::storage) struct Failure {
    pub(in crate::storage) error: Error,
    pub(in crate::storage) next: Next,
    /// When the server wants to be asked again.
    pub(in crate::storage) after: Option<Duration>,
}

impl Failure {
    /// One that nothing helps against.
    pub(in crate::storage) fn last(error: Error) -> Self {
        Self {
            error,
            next: Next::Nothing,
            after: None,
        }
    }
}

impl From<Error> for Failure {
    /// Of a connection, or of what the server sends.
    fn from(error: Error) -> Self {
        let next = match (error.kind(), error.errno()) {
            (ErrorKind::Cancelled | ErrorKind::Denied | ErrorKind::Limit, _)
            | (_, libc::ENOMEM | libc::ESTALE) => Next::Nothing,
            _ => Next::Again,
        };
        Self {
            error,
            next,
            after: None,
        }
    }
}

/// What is not there when it is first asked for is not waited for.
pub(in crate::storage) fn absent_at_first(failure: Failure) -> Failure {
    let errno = failure.error.errno();
    let absent = matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EINVAL
            | libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ETIMEDOUT
    );
    match absent {
        true => Failure {
            next: Next::Nothing,
            ..failure
        },
        false => failure,
    }
}

/// Makes the first attempt again for no longer than `retry` from its failure on: where the server is busy, or the
/// connection has ended; a few times where another server may be sent to, or where the answer makes no sense.
///
/// # Errors
/// Of the last attempt, or of the control.
pub(in crate::storage) fn opening<T>(
    retry: Duration,
    control: &JobControl,
    attempt: impl Fn() -> Result<T, Failure>,
) -> Result<T> {
    let mut tries = None;
    let mut missing = 0;
    loop {
        let failure = match attempt() {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        control.check()?;
        let counts = failure.next == Next::Elsewhere || failure.error.errno() == libc::EPROTO;
        missing += u32::from(counts);
        let over = failure.next == Next::Nothing || missing > MAX_MISSING;
        let tries = tries.get_or_insert_with(|| Tries::new(retry));
        if over || !tries.wait(failure.after, control)? {
            return Err(failure.error);
        }
    }
}

/// When a request is made again.
#[derive(Debug)]
pub(in crate::storage) struct Tries {
    until: Option<Instant>,
    pause: Duration,
}

impl Tries {
    pub(in crate::storage) fn new(time: Duration) -> Self {
        Self {
            until: Instant::now().checked_add(time),
            pause: PAUSE,
        }
    }

    /// Waits; false where the time is over before.
    pub(in crate::storage) fn wait(
        &mut self,
        wanted: Option<Duration>,
        control: &JobControl,
    ) -> Result<bool> {
        let pause = self.pause.max(wanted.unwrap_or_default());
        let again = Instant::now().checked_add(pause);
        let (Some(again), Some(until)) = (again, self.until) else {
            return Ok(false);
        };
        if again >= until {
            return Ok(false);
        }
        control.sleep(pause)?;
        self.pause = (self.pause * 2).min(LONG_PAUSE);
        Ok(true)
    }
}
