//! Counted uses of host clusters.

use crate::sync::{Arc, AtomicUsize, Ordering, pause};

/// A registered use of host clusters; see [`crate::format::Format::begin_io`].
#[derive(Debug)]
pub struct IoGuard<'a>(Option<&'a AtomicUsize>);

impl<'a> IoGuard<'a> {
    /// For formats whose mappings never change.
    pub const UNGUARDED: IoGuard<'static> = IoGuard(None);

    /// Counts one user until dropped. The caller has already incremented `users`.
    pub fn counted(users: &'a AtomicUsize) -> Self {
        Self(Some(users))
    }
}

impl Drop for IoGuard<'_> {
    fn drop(&mut self) {
        if let Some(users) = self.0 {
            users.fetch_sub(1, Ordering::Release);
        }
    }
}

/// As [`IoGuard`], sharing ownership of the counter instead of borrowing it.
#[derive(Debug)]
pub struct LongIoGuard(Option<(Arc<[AtomicUsize; 2]>, usize)>);

impl LongIoGuard {
    /// For formats whose mappings never change.
    pub const UNGUARDED: Self = Self(None);

    /// Counts one user of one of the two counters until dropped. The caller has already incremented it.
    pub fn counted(users: Arc<[AtomicUsize; 2]>, which: usize) -> Self {
        Self(Some((users, which & 1)))
    }
}

impl Drop for LongIoGuard {
    fn drop(&mut self) {
        if let Some((users, which)) = &self.0 {
            users[*which].fetch_sub(1, Ordering::Release);
        }
    }
}

/// Counts the uses of host clusters, so that code that moves or frees clusters can wait for uses that began earlier.
/// There are two counters, one for each parity of the epoch.
#[derive(Debug, Default)]
pub(crate) struct IoUsers {
    epoch: AtomicUsize,
    /// Shared with I/O that outlives the call that began it.
    users: Arc<[AtomicUsize; 2]>,
}

impl IoUsers {
    /// Registers a use of any host clusters that a mapping names from now on.
    pub(crate) fn enter(&self) -> IoGuard<'_> {
        IoGuard::counted(&self.users[self.count_in()])
    }

    /// As [`IoUsers::enter`], for a use that outlives the borrow.
    pub(crate) fn enter_long(&self) -> LongIoGuard {
        LongIoGuard::counted(self.users.clone(), self.count_in())
    }

    /// Registers one user; returns the index of the counter.
    fn count_in(&self) -> usize {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let users = &self.users[epoch & 1];
            users.fetch_add(1, Ordering::SeqCst);
            // Counted in the current epoch; otherwise the epoch has advanced in the meantime and may have missed us.
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return epoch & 1;
            }
            users.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether no users of the previous epoch remain.
    pub(crate) fn is_drained(&self) -> bool {
        let before = self.epoch.load(Ordering::SeqCst).wrapping_sub(1);
        self.users[before & 1].load(Ordering::SeqCst) == 0
    }

    /// Begins another epoch; returns the one that ends. The other counter may still include users of an earlier epoch,
    /// which only cause delay.
    pub(crate) fn advance(&self) -> usize {
        self.epoch.fetch_add(1, Ordering::SeqCst)
    }

    /// Waits until every use that began before this call has ended. Only one thread may do so at a time, and no other
    /// thread may advance the epoch meanwhile.
    pub(crate) fn wait(&self) {
        // The users of the previous epoch, then those of the one that ends here.
        self.wait_for(self.epoch.load(Ordering::SeqCst).wrapping_sub(1));
        let ended = self.advance();
        self.wait_for(ended);
    }

    fn wait_for(&self, epoch: usize) {
        while self.users[epoch & 1].load(Ordering::SeqCst) != 0 {
            pause();
        }
    }
}
