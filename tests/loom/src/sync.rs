//! Loom's locks and atomics under the names of the crate's `sync` module.

pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub(crate) use loom::thread::yield_now;

use std::ops::{Deref, DerefMut};

/// A counter. Loom takes `SeqCst` for `AcqRel`, so that the total order comes from fences.
#[derive(Debug)]
pub struct AtomicUsize(loom::sync::atomic::AtomicUsize);

impl Default for AtomicUsize {
    fn default() -> Self {
        Self(loom::sync::atomic::AtomicUsize::new(0))
    }
}

impl AtomicUsize {
    fn ordered<R>(order: Ordering, f: impl FnOnce() -> R) -> R {
        if order != Ordering::SeqCst {
            return f();
        }
        fence(Ordering::SeqCst);
        let result = f();
        fence(Ordering::SeqCst);
        result
    }

    pub(crate) fn load(&self, order: Ordering) -> usize {
        Self::ordered(order, || self.0.load(relaxed_load(order)))
    }

    pub(crate) fn fetch_add(&self, n: usize, order: Ordering) -> usize {
        Self::ordered(order, || self.0.fetch_add(n, order))
    }

    pub(crate) fn fetch_sub(&self, n: usize, order: Ordering) -> usize {
        Self::ordered(order, || self.0.fetch_sub(n, order))
    }
}

fn relaxed_load(order: Ordering) -> Ordering {
    match order {
        Ordering::SeqCst => Ordering::Acquire,
        other => other,
    }
}

/// A lock without poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// What a lock gives. The Option is empty only while a condition is waited for.
pub struct Guard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        Guard(Some(self.0.lock().expect("no poison")))
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held")
    }
}

/// A condition.
#[derive(Debug, Default)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        let held = guard.0.take().expect("held");
        guard.0 = Some(self.0.wait(held).expect("no poison"));
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A cell that is set once; who sees it set sees what was set.
#[derive(Debug)]
pub struct OnceLock<T> {
    set: AtomicBool,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            set: AtomicBool::new(false),
            value: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.set.load(Ordering::Acquire) {
            self.value.get()
        } else {
            None
        }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let done = self.value.set(value);
        self.set.store(true, Ordering::Release);
        done
    }
}

/// Lets another thread run.
pub(crate) fn pause() {
    yield_now();
}
