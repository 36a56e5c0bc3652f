//! Outages of servers: once a request was retried in vain, each further one is tried once, until one succeeds.
//! Requests that fail one after the other would otherwise each wait as long as the first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether a server is known to be out of service.
#[derive(Debug, Default)]
pub(super) struct Outage {
    known: AtomicBool,
}

impl Outage {
    /// How long to retry a request that is otherwise retried for `usual`.
    pub(super) fn limit(&self, usual: Duration) -> Duration {
        match self.known.load(Ordering::Acquire) {
            true => Duration::ZERO,
            false => usual,
        }
    }

    /// Records that a request was retried in vain.
    pub(super) fn begin(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// Records that the server has responded.
    pub(super) fn end(&self) {
        // Most of the time there is nothing to write.
        if self.known.load(Ordering::Acquire) {
            self.known.store(false, Ordering::Release);
        }
    }
}
