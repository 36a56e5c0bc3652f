//! Requests that the kernel can carry out on its own: one call on a host file, with everything that must be kept alive
//! until it has completed.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::format::{FlushPlan, Immediate, LongIoGuard};
use crate::image::Image;
use crate::image::detect_zeroes::DetectZeroes;
use crate::storage::{Lease, SpaceCall, Storage, ZeroFlags};
use crate::sys::falloc::Falloc;
use crate::sys::uring::Call;

/// A call on the file of a storage that carries out a request.
#[derive(Debug)]
pub(crate) struct HostCall {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) call: Call,
    /// The guest range, offset and length, that the call changes.
    change: Option<(u64, u64)>,
    lease: Option<Box<dyn Lease>>,
    held: Option<LongIoGuard>,
}

impl HostCall {
    /// Notes that the kernel has completed the call, with the errno of a failed sync in `failed`: others no longer have
    /// to wait.
    pub(crate) fn ended(&mut self, failed: Option<i32>) {
        if let (Some(errno), Some(file)) = (failed, self.storage.host()) {
            // Recorded for the next sync. The error itself is reported with the completion.
            let _ = file.note_sync(errno);
        }
        self.lease = None;
        self.held = None;
    }
}

impl Image {
    /// Prepares a read of a range that is one run in a host file.
    ///
    /// # Errors
    /// As [`crate::format::Format::map`].
    pub(super) fn host_read(
        &self,
        immediate: &dyn Immediate,
        bufs: &[IoSliceMut<'_>],
        offset: u64,
        total: u64,
    ) -> Result<Option<HostCall>> {
        // Taken before looking up the mapping: from then on the host clusters that it names keep their contents.
        let held = immediate.begin_long_io();
        let Some(extent) = immediate.try_locate(offset, total)? else {
            return Ok(None);
        };
        let ExtentKind::Data { slot, host_offset } = extent.kind else {
            return Ok(None);
        };
        let storage = self.format.storage(slot)?;
        let fits = extent.len >= total
            && storage.host().is_some()
            && suits(&**storage, bufs.iter().map(|buf| &**buf), host_offset);
        Ok(fits.then(|| HostCall {
            storage: storage.clone(),
            call: Call::Read(host_offset),
            change: None,
            lease: None,
            held: Some(held),
        }))
    }

    /// Prepares a write that overwrites one run of a host file.
    pub(crate) fn host_write(&self, bufs: &[IoSlice<'_>], offset: u64) -> Option<HostCall> {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        let plain = self.settings.detect_zeroes == DetectZeroes::Off
            && self.format.request_alignment() <= 1;
        if !plain || !self.changes_later(offset, total) {
            return None;
        }
        let immediate = self.format.immediate()?;
        let held = immediate.begin_long_io();
        let (slot, host_offset) = immediate.in_place_range(offset, total)?;
        let storage = self.format.storage(slot).ok()?;
        if !suits(&**storage, bufs.iter().map(|buf| &**buf), host_offset) {
            return None;
        }
        let lease = storage.host()?.lease(host_offset, total)?;
        immediate.note_in_place_write(offset, total);
        Some(HostCall {
            storage: storage.clone(),
            call: Call::Write(host_offset),
            change: Some((offset, total)),
            lease: Some(lease),
            held: Some(held),
        })
    }

    /// Prepares zeroing, or discarding (no flags), of a range that takes one call on a host file.
    pub(crate) fn host_space(
        &self,
        offset: u64,
        len: u64,
        zero: Option<ZeroFlags>,
    ) -> Option<HostCall> {
        let ignored = self.settings.ignore_discard;
        if !self.changes_later(offset, len) || zero.is_none() && ignored {
            return None;
        }
        let immediate = self.format.immediate()?;
        let held = immediate.begin_long_io();
        let (slot, host_offset) = immediate.direct_range(offset, len)?;
        let storage = self.format.storage(slot).ok()?;
        let host = storage.host()?;
        let call = match zero {
            None => host.discarding_call(),
            Some(flags) if ignored => host.zeroing_call(flags - ZeroFlags::MAY_UNMAP),
            Some(flags) => host.zeroing_call(flags),
        };
        let how = match call? {
            SpaceCall::ZeroRange => Falloc::ZeroKeepSize,
            SpaceCall::PunchHole => Falloc::PunchHole,
        };
        let lease = host.lease(host_offset, len)?;
        Some(HostCall {
            storage: storage.clone(),
            call: Call::Space(how, host_offset, len),
            change: None,
            lease: Some(lease),
            held: Some(held),
        })
    }

    /// Prepares a flush: a sync of a file, or nothing at all.
    pub(crate) fn host_flush(&self) -> HostFlush {
        if !self.writable {
            return HostFlush::Done;
        }
        let durability = self.settings.cache.durability();
        let plan = self
            .format
            .immediate()
            .map(|now| now.flush_plan(durability));
        let slot = match plan {
            Some(FlushPlan::Nothing) => return HostFlush::Done,
            Some(FlushPlan::Sync(slot)) => slot,
            Some(FlushPlan::Call) | None => return HostFlush::WouldBlock,
        };
        let sync = || {
            let storage = self.format.storage(slot).ok()?;
            let lease = storage.host()?.lease_sync()?;
            Some(HostCall {
                storage: storage.clone(),
                call: Call::DataSync,
                change: None,
                lease: Some(lease),
                held: None,
            })
        };
        sync().map_or(HostFlush::WouldBlock, HostFlush::Host)
    }

    /// Notes that a change has completed, successfully or not.
    pub(crate) fn host_changed(&self, host: &HostCall) {
        if let Some((offset, len)) = host.change
            && let Some(immediate) = self.format.immediate()
        {
            immediate.note_in_place_write(offset, len);
        }
    }

    /// Notes that a sync has completed with this errno, or 0.
    ///
    /// # Errors
    /// As [`Image::flush`].
    pub(crate) fn host_synced(&self, host: &HostCall, errno: i32) -> Result<()> {
        let synced = host
            .storage
            .host()
            .map_or(Err(Error::os(libc::EIO)), |file| file.note_sync(errno));
        if synced.is_err()
            && let Some(immediate) = self.format.immediate()
        {
            immediate.note_failed_flush();
        }
        synced
    }

    /// Whether a change of the range may complete while no thread waits for it.
    fn changes_later(&self, offset: u64, len: u64) -> bool {
        self.writable
            && !self.settings.cache.write_through()
            && len > 0
            && self.check_range(offset, len).is_ok()
    }
}

/// How a flush can be carried out.
#[derive(Debug)]
pub(crate) enum HostFlush {
    /// There is nothing to flush.
    Done,
    /// By this call.
    Host(HostCall),
    /// A flush that may block is required.
    WouldBlock,
}

/// Whether the storage accepts a request with these buffers as it is.
fn suits<'a>(
    storage: &dyn Storage,
    bufs: impl IntoIterator<Item = &'a [u8]>,
    host_offset: u64,
) -> bool {
    let limits = storage.limits();
    let unit = u64::from(limits.request_alignment.max(1));
    let memory = limits.memory_alignment.max(1) as usize;
    host_offset.is_multiple_of(unit)
        && bufs.into_iter().all(|buf| {
            (buf.len() as u64).is_multiple_of(unit)
                && (buf.as_ptr() as usize).is_multiple_of(memory)
        })
}
