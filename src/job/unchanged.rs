//! Work that is worth nothing once something else has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of changes, and its earlier value.
#[derive(Clone, Debug)]
pub(crate) struct Unchanged {
    count: Arc<AtomicU64>,
    before: u64,
}

impl Unchanged {
    /// Requires that there be no change from now on.
    pub(crate) fn of(count: &Arc<AtomicU64>) -> Self {
        Self {
            count: count.clone(),
            before: count.load(Ordering::SeqCst),
        }
    }

    /// Whether there has been no change.
    pub(crate) fn holds(&self) -> bool {
        self.count.load(Ordering::SeqCst) == self.before
    }
}
