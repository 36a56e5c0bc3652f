//! I/O that the kernel has completed counts as completed once its completion has been reaped. A thread that waits for
//! such I/O has all rings of the process reaped, because the thread that would do so may be the one that waits.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Something with completions to reap.
pub(crate) trait Reap: Send + Sync {
    /// Reaps what is available; does not block, neither for I/O nor for a lock.
    fn try_reap(&self);
}

static ALL: Mutex<Vec<Weak<dyn Reap>>> = Mutex::new(Vec::new());

/// Registers `one` for [`reap_all`], as long as it lives.
pub(crate) fn add(one: &Arc<impl Reap + 'static>) {
    let one: Weak<dyn Reap> = Arc::downgrade(one) as Weak<dyn Reap>;
    let mut all = ALL.lock();
    all.retain(|other| other.strong_count() > 0);
    all.push(one);
}

/// Reaps all registered ones.
pub(crate) fn reap_all() {
    // Called without the lock: what they hold may be dropped in the meantime.
    let all: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for one in all {
        one.try_reap();
    }
}
