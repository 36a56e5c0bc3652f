//! The locks and atomics of the parts that `tests/loom` models: there, another module replaces this one.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, OnceLock};
pub(crate) use std::thread::yield_now;

pub(crate) use parking_lot::{Condvar, Mutex};

/// Pauses for a time that is short compared to any I/O, after reaping I/O that has completed.
pub(crate) fn pause() {
    crate::reap::reap_all();
    std::thread::sleep(std::time::Duration::from_micros(50));
}
