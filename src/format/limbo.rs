//! Host clusters that have been released but may not be reused yet.
//!
//! A freed cluster waits for two conditions: that the table entry that named it is gone from the disk, as far as the
//! durability requires, and that all I/O that began earlier has ended. The latter is determined with two counters of
//! users, one for each parity of the epoch.

use crate::format::{IoGuard, IoUsers, LongIoGuard};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// A reference to a host cluster that is to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    /// Index of the host cluster.
    pub(crate) cluster: u64,
    /// Return the space to the host when the cluster becomes free.
    pub(crate) punch: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Unlinked in memory.
    fresh: Vec<Freed>,
    /// Unlinked on disk too; no epoch has begun since then.
    unlinked: Vec<Freed>,
    /// Waiting for the users of the previous epoch.
    draining: Vec<Freed>,
}

/// The clusters of one image that cannot be reused yet.
#[derive(Debug, Default)]
pub(crate) struct Limbo {
    users: IoUsers,
    state: Mutex<State>,
    waiting: AtomicUsize,
}

impl Limbo {
    /// Registers a use of any host clusters that a mapping names from now on.
    pub(crate) fn enter(&self) -> IoGuard<'_> {
        self.users.enter()
    }

    /// As [`Limbo::enter`], for a use that outlives the borrow.
    pub(crate) fn enter_long(&self) -> LongIoGuard {
        self.users.enter_long()
    }

    /// Adds references that have been removed in memory; call it after the entry was replaced. If memory is exhausted,
    /// the rest of their clusters are leaked, because the replacement cannot be undone.
    pub(crate) fn queue(&self, freed: impl IntoIterator<Item = Freed>) {
        let mut state = self.state.lock();
        let mut added = 0;
        for freed in freed {
            if state.fresh.try_reserve(1).is_err() {
                break;
            }
            state.fresh.push(freed);
            added += 1;
        }
        self.waiting.fetch_add(added, Ordering::Relaxed);
    }

    /// Adds references to others that wait; leaks them if memory is exhausted, as [`Limbo::queue`] does.
    fn add(&self, to: &mut Vec<Freed>, mut more: Vec<Freed>) {
        if to.is_empty() {
            *to = more;
        } else if to.try_reserve(more.len()).is_ok() {
            to.append(&mut more);
        } else {
            self.waiting.fetch_sub(more.len(), Ordering::Relaxed);
        }
    }

    /// Takes the references queued so far; call it before the tables are copied for writing.
    pub(crate) fn take_fresh(&self) -> Vec<Freed> {
        std::mem::take(&mut self.state.lock().fresh)
    }

    /// Returns references whose unlinking did not reach the disk.
    pub(crate) fn put_back(&self, freed: Vec<Freed>) {
        self.add(&mut self.state.lock().fresh, freed);
    }

    /// Notes that the entries that named these are gone from the disk.
    pub(crate) fn unlinked(&self, freed: Vec<Freed>) {
        self.add(&mut self.state.lock().unlinked, freed);
    }

    /// References that nothing can use any more; only one thread may call this at a time.
    pub(crate) fn drained(&self) -> Vec<Freed> {
        let mut ready = Vec::new();
        let mut state = self.state.lock();
        for _ in 0..2 {
            if !state.draining.is_empty() {
                if !self.users.is_drained() {
                    break;
                }
                self.add(&mut ready, std::mem::take(&mut state.draining));
            }
            if state.unlinked.is_empty() {
                break;
            }
            state.draining = std::mem::take(&mut state.unlinked);
            self.users.advance();
        }
        self.waiting.fetch_sub(ready.len(), Ordering::Relaxed);
        ready
    }

    /// Waits until every use that began before this call has ended. Only one thread may do so at a time, and none may
    /// call [`Limbo::drained`] meanwhile.
    pub(crate) fn wait_for_users(&self) {
        self.users.wait();
    }

    /// How many references wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freed(cluster: u64) -> Freed {
        Freed {
            cluster,
            punch: false,
        }
    }

    #[test]
    fn a_cluster_is_ready_only_when_unlinked_and_drained() {
        let limbo = Limbo::default();
        let reader = limbo.enter();
        limbo.queue([freed(1)]);
        assert!(limbo.drained().is_empty());
        limbo.unlinked(limbo.take_fresh());
        assert!(limbo.drained().is_empty());
        let late = limbo.enter();
        assert!(limbo.drained().is_empty());
        drop(reader);
        assert_eq!(limbo.drained(), [freed(1)]);
        assert_eq!(limbo.waiting(), 0);
        drop(late);
    }

    #[test]
    fn two_rounds_of_waiting_free_all_although_readers_come() {
        let limbo = Limbo::default();
        limbo.queue([freed(1)]);
        limbo.unlinked(limbo.take_fresh());
        limbo.wait_for_users();
        let late = limbo.enter();
        assert!(limbo.drained().is_empty());
        drop(late);
        limbo.wait_for_users();
        let later = limbo.enter();
        assert_eq!(limbo.drained(), [freed(1)]);
        drop(later);
    }

    #[test]
    fn a_later_batch_waits_for_users_of_its_own_time() {
        let limbo = Limbo::default();
        limbo.unlinked({
            limbo.queue([freed(1)]);
            limbo.take_fresh()
        });
        assert_eq!(limbo.drained(), [freed(1)]);
        let reader = limbo.enter();
        limbo.queue([freed(2)]);
        limbo.unlinked(limbo.take_fresh());
        assert!(limbo.drained().is_empty());
        limbo.queue([freed(3)]);
        limbo.unlinked(limbo.take_fresh());
        assert!(limbo.drained().is_empty());
        drop(reader);
        assert_eq!(limbo.drained(), [freed(2), freed(3)]);
    }
}
