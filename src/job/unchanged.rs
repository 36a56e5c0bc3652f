//! Work that is worth nothing once something else has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of changes, and what it was.
#[derive(Clone, Debug)]
pub(crate) struct Unchanged {
    count: Arc<AtomicU64>,
    before: u64,
}

impl Unchanged {
    /// There must be no change from now on.
    pub(crate) fn of(count: &Arc<AtomicU64>) -> Self {
        Self {
            count: count.clone(),
            before: count.load(Ordering::SeqCst),
        }
    }

    /// Whether there was none.
    pub(crate) fn holds(&self) -> bool {
        self.count.load(Ordering::SeqCst) == self.before
    }
}
