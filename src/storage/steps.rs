//! Announcing of steps to the storage that they are taken on.

use crate::storage::{Step, Storage};

/// Tells the storage's watcher, if it has one.
#[inline]
pub fn announce(storage: &dyn Storage, step: Step) {
    if let Some(watcher) = storage.step_watcher() {
        watcher.before(step);
    }
}
