//! Keeps apart writes that share a block of direct I/O: a read-modify-write of part of a block must not
//! undo a neighbouring write.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::reap::reap_all;

/// How often a thread that waits for an operation of the kernel checks whether it has completed.
pub(super) const LOOK: Duration = Duration::from_micros(100);

/// The ranges being written.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    busy: Mutex<Vec<Busy>>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busy {
    start: u64,
    end: u64,
    exclusive: bool,
    /// May complete while no thread waits for it.
    by_kernel: bool,
}

impl Busy {
    fn excludes(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end && (self.exclusive || other.exclusive)
    }
}

/// A range being written, until dropped.
#[derive(Debug)]
pub(super) struct RangeGuard<'a> {
    ranges: &'a Ranges,
    mine: Busy,
}

/// As [`RangeGuard`], without a borrow.
#[derive(Debug)]
pub(super) struct OwnedRangeGuard {
    ranges: Arc<Ranges>,
    mine: Busy,
}

impl Ranges {
    /// Waits until no overlapping range is held exclusively or, if `exclusive`, held at all.
    pub(super) fn enter(&self, start: u64, end: u64, exclusive: bool) -> RangeGuard<'_> {
        let mine = Busy {
            start,
            end,
            exclusive,
            by_kernel: false,
        };
        let mut busy = self.busy.lock();
        loop {
            let mut others = busy.iter().filter(|other| other.excludes(&mine));
            match others.next() {
                None => break,
                Some(other) if other.by_kernel || others.any(|other| other.by_kernel) => {
                    MutexGuard::unlocked(&mut busy, reap_all);
                    if busy.iter().any(|other| other.excludes(&mine)) {
                        self.freed.wait_for(&mut busy, LOOK);
                    }
                }
                Some(_) => self.freed.wait(&mut busy),
            }
        }
        busy.push(mine);
        RangeGuard { ranges: self, mine }
    }

    /// As [`Ranges::enter`], not exclusive; None if that would block.
    pub(super) fn try_enter(ranges: &Arc<Self>, start: u64, end: u64) -> Option<OwnedRangeGuard> {
        let mine = Busy {
            start,
            end,
            exclusive: false,
            by_kernel: true,
        };
        let mut busy = ranges.busy.lock();
        if busy.iter().any(|other| other.excludes(&mine)) {
            return None;
        }
        busy.push(mine);
        Some(OwnedRangeGuard {
            ranges: ranges.clone(),
            mine,
        })
    }

    fn leave(&self, mine: Busy) {
        let mut busy = self.busy.lock();
        if let Some(at) = busy.iter().position(|other| *other == mine) {
            busy.swap_remove(at);
        }
        drop(busy);
        self.freed.notify_all();
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        self.ranges.leave(self.mine);
    }
}

impl Drop for OwnedRangeGuard {
    fn drop(&mut self) {
        self.ranges.leave(self.mine);
    }
}
