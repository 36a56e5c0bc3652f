//! Wakes the waiting workers of a job.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::futex;

/// Wakes waiting threads when something has changed. No lock is taken, so that a signal handler may ring, even one that
/// interrupts a waiting thread.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// How often it has rung; wraps.
    rung: AtomicU32,
}

impl Bell {
    /// Notifies waiting threads that something has changed: to be called after the change.
    pub(super) fn ring(&self) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        futex::wake_all(&self.rung);
    }

    /// The number of rings so far: to be read before checking what may change.
    pub(super) fn seen(&self) -> u32 {
        self.rung.load(Ordering::SeqCst)
    }

    /// Waits until it rings again after `seen`, at most for `longest`; may return early.
    pub(super) fn wait(&self, seen: u32, longest: Duration) {
        futex::wait(&self.rung, seen, longest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_ring_before_the_wait_or_in_it_ends_it() {
        let bell = Bell::default();
        let long = Duration::from_secs(60);
        let begin = Instant::now();
        let seen = bell.seen();
        bell.ring();
        bell.wait(seen, long);
        let seen = bell.seen();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while bell.seen() == seen {
                    bell.wait(seen, long);
                }
            });
            std::thread::sleep(Duration::from_millis(5));
            bell.ring();
        });
        assert!(begin.elapsed() < long);
    }

    #[test]
    fn a_wait_without_a_ring_ends() {
        let bell = Bell::default();
        bell.wait(bell.seen(), Duration::from_millis(1));
    }
}
