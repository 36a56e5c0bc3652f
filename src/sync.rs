//! The locks and atomics of those parts that `tests/loom` models: there, this module is another one.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, OnceLock};
pub(crate) use std::thread::yield_now;

pub(crate) use parking_lot::{Condvar, Mutex};

/// Lets a while pass that is short beside any I/O, in which I/O that has ended is taken note of.
pub(crate) fn pause() {
    crate::reap::reap_all();
    std::thread::sleep(std::time::Duration::from_micros(50));
}
