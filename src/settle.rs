//! I/O that the kernel has ended counts as ended when somebody has looked. Whoever waits for such I/O
//! lets all rings of the process look, for the thread that would look may be the one that waits.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Something that takes note of I/O which has ended.
pub(crate) trait Settle: Send + Sync {
    /// Looks; waits for nothing, neither for I/O nor for a lock.
    fn settle(&self);
}

static ALL: Mutex<Vec<Weak<dyn Settle>>> = Mutex::new(Vec::new());

/// From now on `one` is asked by [`settle_all`], as long as it lives.
pub(crate) fn add(one: &Arc<impl Settle + 'static>) {
    let one: Weak<dyn Settle> = Arc::downgrade(one) as Weak<dyn Settle>;
    let mut all = ALL.lock();
    all.retain(|other| other.strong_count() > 0);
    all.push(one);
}

/// Lets all look.
pub(crate) fn settle_all() {
    // Asked without the lock: what they keep may be dropped meanwhile.
    let all: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for one in all {
        one.settle();
    }
}
