//! I/O that the kernel has completed counts as completed once its completion is reaped. A thread that waits for
//! such I/O lets all rings of the process reap, for the thread that would do so may be the one that waits.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Something with completions to reap.
pub(crate) trait Reap: Send + Sync {
    /// Reaps what is there; waits for nothing, neither for I/O nor for a lock.
    fn try_reap(&self);
}

static ALL: Mutex<Vec<Weak<dyn Reap>>> = Mutex::new(Vec::new());

/// From now on `one` is asked by [`reap_all`], as long as it lives.
pub(crate) fn add(one: &Arc<impl Reap + 'static>) {
    let one: Weak<dyn Reap> = Arc::downgrade(one) as Weak<dyn Reap>;
    let mut all = ALL.lock();
    all.retain(|other| other.strong_count() > 0);
    all.push(one);
}

/// Lets all reap.
pub(crate) fn reap_all() {
    // Asked without the lock: what they keep may be dropped meanwhile.
    let all: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for one in all {
        one.try_reap();
    }
}
