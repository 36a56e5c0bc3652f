//! A counter that a thread can wait for along with other descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::check;

/// An eventfd, non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    /// Creates one that is not readable yet.
    pub(crate) fn new() -> io::Result<Self> {
        super::fd::event().map(Self)
    }

    /// Makes it readable.
    pub(crate) fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open and the buffer has eight bytes. If the counter is full the call fails, but
        // then it is readable anyway.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // SAFETY: the descriptor is open and the buffer has eight bytes. If nothing was signalled the call fails at
        // once.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Waits until it is readable, or `deadline` has passed; false in the latter case.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // Rounded up, so that a short remainder is not spent in a busy loop.
            let millis = left.map_or(-1, |left| {
                let millis = (left + Duration::from_micros(999)).as_millis();
                libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
            });
            let mut poller = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd.
            match check(unsafe { libc::poll(&mut poller, 1, millis) }) {
                Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
                Ok(ready) => return Ok(ready > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_from_signal_to_clear() {
        let event = Event::new().unwrap();
        let now = || Some(Instant::now());
        assert!(!event.wait(now()).unwrap());
        event.signal();
        event.signal();
        assert!(event.wait(None).unwrap());
        event.clear();
        event.clear();
        assert!(!event.wait(now()).unwrap());
    }
}
