//! Operations of the kernel on the descriptor that others request: leases, syncs, copies, hints.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::extents::Changing;
use super::ranges::OwnedRangeGuard;
use super::syncs::{OwnedTurn, Syncs};
use super::{FileStorage, Kind};
use crate::error::Result;
use crate::storage::{
    CacheMode, CopyOutcome, Durability, HostFile, Lease, SpaceCall, Storage, SyncPlan, ZeroFlags,
};
use crate::sys;

/// A range that is being changed by the kernel.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "kept for what happens when they are dropped, in this order"
)]
struct FileLease {
    changing: Changing,
    range: Option<OwnedRangeGuard>,
}

impl Lease for FileLease {}
impl Lease for OwnedTurn {}

impl HostFile for FileStorage {
    fn fd(&self) -> BorrowedFd<'_> {
        Self::fd(self)
    }

    fn can_be_succeeded(&self) -> bool {
        self.only_path().is_some()
    }

    fn succeed(&self, bytes: &[u8]) -> Result<Arc<dyn Storage>> {
        self.make_successor(bytes)
    }

    fn remove(&self) -> Result<bool> {
        self.remove_name()
    }

    fn claim(&self, part: Range<u64>) -> Result<()> {
        self.locks.claim(part)
    }

    // Only within the file: growing it requires the lock on its length, which only a method call can hold.
    fn lease(&self, offset: u64, len: u64) -> Option<Box<dyn Lease>> {
        let end = self.writable_end(offset, len).ok()?;
        let plain = !self.read_only && !self.cache.write_through() && self.kind != Kind::Character;
        if !plain || len == 0 || end > self.raw_len().ok()? {
            return None;
        }
        let range = match &self.direct {
            Some(direct) => Some(direct.try_enter(offset, end)?),
            None => None,
        };
        Some(Box::new(FileLease {
            changing: self.extents.changing(),
            range,
        }))
    }

    fn zeroing_call(&self, flags: ZeroFlags) -> Option<SpaceCall> {
        if self.kind != Kind::Regular {
            return None;
        }
        if flags.contains(ZeroFlags::MAY_UNMAP) && self.can.punch_hole.load(Ordering::Relaxed) {
            return Some(SpaceCall::PunchHole);
        }
        let can = self.can.zero_range.load(Ordering::Relaxed);
        can.then_some(SpaceCall::ZeroRange)
    }

    fn discarding_call(&self) -> Option<SpaceCall> {
        (self.kind == Kind::Regular).then_some(SpaceCall::PunchHole)
    }

    fn sync_plan(&self, durability: Durability) -> SyncPlan {
        if durability != Durability::Synced || self.cache == CacheMode::Unsafe || self.read_only {
            SyncPlan::Nothing
        } else if self.kind == Kind::Character
            || self.syncs.is_in_doubt()
            || self.entry.is_unsynced()
            || self.spare.len().is_some()
        {
            SyncPlan::Call
        } else if self.is_synced() {
            SyncPlan::Nothing
        } else {
            SyncPlan::DataSync
        }
    }

    fn lease_sync(&self) -> Option<Box<dyn Lease>> {
        Syncs::try_enter(&self.syncs).map(|turn| Box::new(turn) as _)
    }

    fn note_sync(&self, errno: i32) -> Result<()> {
        match errno {
            0 => self.syncs.check(),
            errno => Err(self.syncs.fail(errno)),
        }
    }

    fn copy_range(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome> {
        self.copy_to(offset, target, target_offset, len)
    }

    fn reflink_range(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome> {
        self.reflink_to(offset, target, target_offset, len)
    }

    fn hint_write(&self, offset: u64, len: u64) {
        self.reserve_for_write(offset, len);
    }

    fn hint_growth(&self, end: u64) {
        self.reserve_for_growth(end);
    }

    fn hint_written(&self, offset: u64, len: u64) {
        if self.writes_out() {
            // Errors are reported by the sync.
            let _ = sys::falloc::start_writeback(self.fd(), offset, len);
        }
    }

    fn finish_writeback(&self, offset: u64, len: u64) -> Result<()> {
        if !self.writes_out() {
            return Ok(());
        }
        let Some(_turn) = self.syncs.enter(self.extents.generation())? else {
            return Ok(());
        };
        match sys::falloc::wait_for_writeback(self.fd(), offset, len) {
            Ok(()) => sys::falloc::forget(self.fd(), offset, len),
            // A file system without this call writes out when it is synced.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESPIPE)) => {}
            Err(error) => return Err(self.sync_failed(&error)),
        }
        Ok(())
    }
}

impl FileStorage {
    /// Whether writing out early helps a later sync.
    fn writes_out(&self) -> bool {
        let syncs =
            self.sync_plan(Durability::Synced) == SyncPlan::DataSync || self.entry.is_unsynced();
        syncs && self.kind == Kind::Regular && self.direct.is_none()
    }
}
