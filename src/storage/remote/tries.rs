//! What to do after a failed request, and when to retry it.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::storage::outage::Outage;

/// Initial pause between a failed request and its retry.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum pause.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// How often to retry, when an image is first opened, a request that the server cannot satisfy or answers incorrectly.
const MAX_MISSING: u32 = 3;

/// What can be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Next {
    /// Nothing.
    Nothing,
    /// The request can be retried.
    Again,
    /// The image has to be looked up again, starting from its own URL.
    Elsewhere,
}

#[derive(Debug)]
pub(in crate::storage) struct Failure {
    pub(in crate::storage) error: Error,
    pub(in crate::storage) next: Next,
    /// How long the server wants the client to wait before it retries.
    pub(in crate::storage) after: Option<Duration>,
}

impl Failure {
    /// A failure that is not worth retrying.
    pub(in crate::storage) fn last(error: Error) -> Self {
        Self {
            error,
            next: Next::Nothing,
            after: None,
        }
    }
}

impl From<Error> for Failure {
    /// Classifies an error of the connection, or of what the server sent.
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

/// Makes errors that mean the server is absent final: they are not retried when an image is first opened.
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

/// Retries the first attempt for at most `retry` after its first failure: where the server is busy, or the connection
/// was closed; only a few times where another server may be found, or where the response makes no sense.
///
/// # Errors
/// Errors of the last attempt, or of the control.
pub(in crate::storage) fn opening<T>(
    retry: Duration,
    control: &JobControl,
    attempt: impl Fn() -> Result<T, Failure>,
) -> Result<T> {
    let outage = Outage::default();
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
        let tries = tries.get_or_insert_with(|| Tries::new(&outage, retry));
        if over || !tries.wait(failure.after, control)? {
            return Err(failure.error);
        }
    }
}

/// Schedules the retries of a request.
#[derive(Debug)]
pub(in crate::storage) struct Tries<'a> {
    outage: &'a Outage,
    retry: Duration,
    until: Option<Instant>,
    pause: Duration,
}

impl<'a> Tries<'a> {
    /// For at most `retry`, or not at all where that was in vain before.
    pub(in crate::storage) fn new(outage: &'a Outage, retry: Duration) -> Self {
        Self {
            outage,
            retry,
            until: Instant::now().checked_add(outage.limit(retry)),
            pause: PAUSE,
        }
    }

    /// Bytes have come: what fails from now on is retried from the beginning.
    pub(in crate::storage) fn succeeded(&mut self) {
        self.outage.end();
        *self = Self::new(self.outage, self.retry);
    }

    /// Waits for the next retry; false where it would come too late.
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
            self.outage.begin();
            return Ok(false);
        }
        control.sleep(pause)?;
        self.pause = (self.pause * 2).min(LONG_PAUSE);
        Ok(true)
    }
}
