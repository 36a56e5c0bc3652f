//! Changes that the kernel makes through the descriptor while nobody waits for them.

use std::sync::atomic::Ordering;

use super::extents::Changing;
use super::ranges::LentRange;
use super::{FileStorage, Kind};
use crate::error::{Error, Result};
use crate::storage::lend::{Lease, SpaceCall, SyncBy};
use crate::storage::traits::{CacheMode, Durability, ZeroFlags};

/// A range that the kernel changes.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "kept for what happens when they are dropped, in this order"
)]
struct FileLease {
    changing: Changing,
    range: Option<LentRange>,
}

impl Lease for FileLease {}

impl FileStorage {
    /// Leave to change a range within the file. What makes the file longer needs the lock on its
    /// length, which only a call can hold.
    pub(super) fn lend(&self, offset: u64, len: u64) -> Option<Box<dyn Lease>> {
        let end = self.writable_end(offset, len).ok()?;
        let plain = !self.read_only && !self.cache.write_through() && self.kind != Kind::Character;
        if !plain || len == 0 || end > self.raw_len().ok()? {
            return None;
        }
        let range = match &self.direct {
            Some(direct) => Some(direct.lend(offset, end)?),
            None => None,
        };
        Some(Box::new(FileLease {
            changing: self.extents.changing(),
            range,
        }))
    }

    /// The call that zeroes a range within the file.
    pub(super) fn call_to_zero(&self, flags: ZeroFlags) -> Option<SpaceCall> {
        if self.kind != Kind::Regular {
            return None;
        }
        if flags.contains(ZeroFlags::MAY_UNMAP) && self.can.punch_hole.load(Ordering::Relaxed) {
            return Some(SpaceCall::PunchHole);
        }
        let can = self.can.zero_range.load(Ordering::Relaxed);
        can.then_some(SpaceCall::ZeroRange)
    }

    /// The call that gives a range within the file back.
    pub(super) fn call_to_discard(&self) -> Option<SpaceCall> {
        (self.kind == Kind::Regular).then_some(SpaceCall::PunchHole)
    }

    pub(super) fn way_to_sync(&self, durability: Durability) -> SyncBy {
        if durability != Durability::Synced || self.cache == CacheMode::Unsafe || self.read_only {
            SyncBy::Nothing
        } else if self.kind == Kind::Character
            || self.sync_failed.load(Ordering::Acquire) != 0
            || self.entry.is_unsynced()
        {
            SyncBy::Call
        } else if self.is_synced() {
            SyncBy::Nothing
        } else {
            SyncBy::DataSync
        }
    }

    /// Takes note of how a data sync has ended.
    pub(super) fn note_sync(&self, errno: i32) -> Result<()> {
        if errno != 0 {
            self.sync_failed.store(errno, Ordering::Release);
            return Err(Error::os(errno));
        }
        match self.sync_failed.load(Ordering::Acquire) {
            0 => Ok(()),
            before => Err(Error::os(before)),
        }
    }
}
