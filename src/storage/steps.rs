//! Announcing steps to the storage that they are taken on.

use crate::storage::{Step, Storage};

/// Tells the storage's watcher, if it has one.
#[inline]
pub fn announce(storage: &dyn Storage, step: Step) {
    if let Some(watcher) = storage.step_watcher() {
        watcher.before(step);
    }
}

/// Whether requests that are needed are better sent together: each of them waits for a server or a device, and nobody
/// watches the steps, for whom each would have to be taken alone.
pub fn are_sent_together(storage: &dyn Storage) -> bool {
    storage.limits().in_flight > 1 && storage.step_watcher().is_none()
}
