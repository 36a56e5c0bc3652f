//! How long a call waits for a peer.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::sys::stream::{Ready, wait, wait_any};

/// Maximum time between two checks of the control: cancelling may do no more than set a flag.
const LOOK: Duration = Duration::from_millis(50);

/// What limits a call that waits for a peer.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    control: Option<&'a JobControl>,
    deadline: Option<Instant>,
    silence: Option<Duration>,
}

impl<'a> Wait<'a> {
    /// Until the work of `control` is cancelled.
    pub fn new(control: &'a JobControl) -> Self {
        Self {
            control: Some(control),
            deadline: None,
            silence: None,
        }
    }

    /// Until the peer closes the connection or another thread shuts it down, without any checks.
    pub const fn forever() -> Self {
        Self {
            control: None,
            deadline: None,
            silence: None,
        }
    }

    /// Additionally until `deadline` at the latest; None changes nothing.
    #[must_use]
    pub fn until(self, deadline: Option<Instant>) -> Self {
        Self {
            deadline: [self.deadline, deadline].into_iter().flatten().min(),
            ..self
        }
    }

    /// Additionally until `time` from now at the latest.
    #[must_use]
    pub fn at_most(self, time: Duration) -> Self {
        // A time past the range of the clock sets no deadline.
        self.until(Instant::now().checked_add(time))
    }

    /// Additionally until the peer has neither sent nor accepted a byte for that long; None changes nothing.
    #[must_use]
    pub fn silent_for(self, silence: Option<Duration>) -> Self {
        Self { silence, ..self }
    }

    /// Limits one of `count` attempts to its share of the time.
    pub(super) fn share(self, count: usize) -> Self {
        let Some(deadline) = self.deadline else {
            return self;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        self.at_most(left / count)
    }

    /// Fails if the wait is over.
    ///
    /// # Errors
    /// As [`JobControl::check`]; with the errno `ETIMEDOUT` if the deadline has passed.
    pub fn check(&self) -> Result<()> {
        if let Some(control) = self.control {
            control.check()?;
        }
        match self.deadline {
            Some(at) if at <= Instant::now() => Err(Error::os(libc::ETIMEDOUT)),
            _ => Ok(()),
        }
    }

    /// Maximum time to block until the next [`Wait::check`].
    fn step(&self) -> Duration {
        let look = self.control.map_or(Duration::MAX, |_| LOOK);
        match self.deadline {
            None => look,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                // The kernel counts in milliseconds: rounded up, so that the remainder is not spent in a busy loop.
                look.min(left.saturating_add(Duration::from_micros(999)))
            }
        }
    }

    /// Waits until the descriptor is ready, or has failed.
    pub(crate) fn ready(&self, fd: BorrowedFd<'_>, ready: Ready) -> Result<()> {
        let begun = self.silence.map(|silence| (Instant::now(), silence));
        loop {
            self.check()?;
            if wait(fd, ready, self.step()).map_err(|error| Error::io(&error))? {
                return Ok(());
            }
            if let Some((since, silence)) = begun
                && since.elapsed() >= silence
            {
                let text = format!("There was no answer for {} seconds", silence.as_secs());
                return Err(Error::new(ErrorKind::Os, text).with_errno(libc::ETIMEDOUT));
            }
        }
    }

    /// Waits until one of them is ready, or has failed; returns its index.
    pub(crate) fn any_ready(&self, fds: &[BorrowedFd<'_>], ready: Ready) -> Result<usize> {
        loop {
            self.check()?;
            let first = wait_any(fds, ready, self.step()).map_err(|error| Error::io(&error))?;
            if let Some(index) = first {
                return Ok(index);
            }
        }
    }

    /// Waits for `time`, when no event tells when to continue.
    pub(super) fn nap(&self, time: Duration) -> Result<()> {
        self.check()?;
        std::thread::sleep(time.min(self.step()));
        self.check()
    }

    /// Waits for a message of another thread; None if that ended without one.
    pub(super) fn message<T>(&self, from: &std::sync::mpsc::Receiver<T>) -> Result<Option<T>> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        loop {
            self.check()?;
            // Not the maximum duration: std adds it to the clock.
            match from.recv_timeout(self.step().min(Duration::from_secs(3600))) {
                Ok(message) => return Ok(Some(message)),
                Err(Timeout) => {}
                Err(Disconnected) => return Ok(None),
            }
        }
    }
}
