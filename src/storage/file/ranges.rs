//! Keeps writes apart that share a block of direct I/O: a read-modify-write of part of a block
//! must not undo a neighbour's write.

use parking_lot::{Condvar, Mutex};

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
}

/// A range being written, until dropped.
#[derive(Debug)]
pub(super) struct RangeGuard<'a> {
    ranges: &'a Ranges,
    mine: Busy,
}

impl Ranges {
    /// Waits until no writer of an overlapping range is exclusive, nor any when `exclusive`.
    pub(super) fn enter(&self, start: u64, end: u64, exclusive: bool) -> RangeGuard<'_> {
        let mine = Busy {
            start,
            end,
            exclusive,
        };
        let mut busy = self.busy.lock();
        while busy
            .iter()
            .any(|other| other.start < end && start < other.end && (exclusive || other.exclusive))
        {
            self.freed.wait(&mut busy);
        }
        busy.push(mine);
        RangeGuard { ranges: self, mine }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut busy = self.ranges.busy.lock();
        if let Some(at) = busy.iter().position(|other| *other == self.mine) {
            busy.swap_remove(at);
        }
        drop(busy);
        self.ranges.freed.notify_all();
    }
}
