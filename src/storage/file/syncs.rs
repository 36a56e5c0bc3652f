//! The syncs of one descriptor, one at a time: the kernel reports a lost write only once, so of two
//! concurrent syncs, one could succeed although it covers what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ranges::LOOK;
use crate::error::{Error, Result};
use crate::reap::reap_all;

/// The state of the syncs of a descriptor.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    under_way: Mutex<UnderWay>,
    ended: Condvar,
    /// The errno of the first sync that failed, because lost data stays lost.
    failed: AtomicI32,
    /// The generation of the contents that the last sync covers, plus 1; 0 before the first sync, which
    /// also covers what other processes have written.
    covered: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnderWay {
    #[default]
    Nothing,
    /// A thread waits for it.
    Call,
    /// Possibly no thread waits for it.
    Kernel,
}

/// The right to sync, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Syncs);

/// As [`Turn`], without a borrow.
#[derive(Debug)]
pub(super) struct OwnedTurn(Arc<Syncs>);

impl Syncs {
    /// Waits for the right to sync the changes up to `generation`; None if another sync has covered
    /// them in the meantime.
    ///
    /// # Errors
    /// If an earlier sync failed.
    pub(super) fn enter(&self, generation: u64) -> Result<Option<Turn<'_>>> {
        let mut under_way = self.under_way.lock();
        let mut waited = false;
        loop {
            match *under_way {
                UnderWay::Nothing => break,
                UnderWay::Call => self.ended.wait(&mut under_way),
                UnderWay::Kernel => {
                    MutexGuard::unlocked(&mut under_way, reap_all);
                    if *under_way == UnderWay::Kernel {
                        self.ended.wait_for(&mut under_way, LOOK);
                    }
                }
            }
            waited = true;
        }
        self.check()?;
        if waited && self.covers(generation) {
            return Ok(None);
        }
        *under_way = UnderWay::Call;
        Ok(Some(Turn(self)))
    }

    /// As [`Syncs::enter`], if that neither blocks nor fails; otherwise None.
    pub(super) fn try_enter(syncs: &Arc<Self>) -> Option<OwnedTurn> {
        let mut under_way = syncs.under_way.lock();
        let free = *under_way == UnderWay::Nothing && syncs.check().is_ok();
        free.then(|| {
            *under_way = UnderWay::Kernel;
            OwnedTurn(syncs.clone())
        })
    }

    /// Whether a sync is in progress or has failed, so that only [`Syncs::enter`] knows the outcome of another.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.check().is_err()
            || self
                .under_way
                .try_lock()
                .is_none_or(|under_way| *under_way != UnderWay::Nothing)
    }

    /// Fails after a failed sync, when nothing may be called durable any more.
    pub(super) fn check(&self) -> Result<()> {
        match self.failed.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(Error::os(errno)),
        }
    }

    /// Whether a sync that covers the changes up to `generation` has succeeded.
    pub(super) fn covers(&self, generation: u64) -> bool {
        self.covered.load(Ordering::Acquire) > generation
    }

    /// Records the success of a sync that began when all changes up to `generation` were complete.
    pub(super) fn succeeded(&self, generation: u64) {
        self.covered.fetch_max(generation + 1, Ordering::AcqRel);
    }

    /// Records the failure of a sync.
    pub(super) fn fail(&self, errno: i32) -> Error {
        let _ = self
            .failed
            .compare_exchange(0, errno, Ordering::AcqRel, Ordering::Acquire);
        Error::os(errno)
    }

    fn leave(&self) {
        *self.under_way.lock() = UnderWay::Nothing;
        self.ended.notify_all();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for OwnedTurn {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_a_sync_learns_of_its_failure() {
        let syncs = Arc::new(Syncs::default());
        let turn = syncs.enter(3).unwrap();
        assert!(syncs.is_in_doubt() && Syncs::try_enter(&syncs).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| syncs.enter(3).map(|turn| turn.is_some()));
            syncs.fail(libc::EIO);
            drop(turn);
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.os_errno(), Some(libc::EIO));
        });
        assert!(syncs.is_in_doubt() && Syncs::try_enter(&syncs).is_none());
        syncs.fail(libc::ENOSPC);
        assert_eq!(syncs.check().unwrap_err().os_errno(), Some(libc::EIO));
    }

    #[test]
    fn a_sync_that_began_after_a_change_covers_it_for_those_who_wait() {
        let syncs = Arc::new(Syncs::default());
        let turn = Syncs::try_enter(&syncs).unwrap();
        std::thread::scope(|scope| {
            let covered = scope.spawn(|| syncs.enter(3).map(|turn| turn.is_none()));
            let later = scope.spawn(|| syncs.enter(4).map(|turn| turn.is_none()));
            syncs.succeeded(3);
            drop(turn);
            // A caller that arrives after the end syncs once more, which is correct too.
            covered.join().unwrap().unwrap();
            assert!(!later.join().unwrap().unwrap());
        });
        assert!(syncs.covers(3) && !syncs.covers(4));
        assert!(!syncs.is_in_doubt());
    }
}
