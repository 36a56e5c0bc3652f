//! Reads and writes that do not wait: from and to memory, through metadata that is cached.

use std::io::{IoSlice, IoSliceMut};

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::image::kernel::HostCall;
use crate::image::plan::DetectZeroes;
use crate::image::{Backing, Image};

/// How an attempt to read without waiting ended.
#[derive(Debug)]
pub(crate) enum ReadNow {
    /// The buffers are full.
    Done,
    /// Not all in memory: the range is one run of a host file.
    Host(HostCall),
    /// It takes a read that may wait.
    Waits,
}

impl Image {
    /// As [`Image::read_vectored_at`] where that needs not wait; else the buffers are undefined.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub(crate) fn read_now(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<ReadNow> {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        self.check_range(offset, total)?;
        self.layer_now(bufs, offset, total)
    }

    fn layer_now(&self, bufs: &mut [IoSliceMut<'_>], offset: u64, total: u64) -> Result<ReadNow> {
        let _held = self.format.begin_io();
        let mut done = 0;
        while done < total {
            let at = offset + done;
            let Some(extent) = self.format.locate_now(at, total - done)? else {
                return Ok(ReadNow::Waits);
            };
            let len = extent.len.min(total - done);
            let ended = if len == total {
                return self.run_now(bufs, extent.kind, at, len);
            } else if let ([buf], Ok(from), Ok(size)) =
                (&mut *bufs, usize::try_from(done), usize::try_from(len))
                && let Some(part) = buf.get_mut(from..from + size)
                && size > 0
            {
                self.run_now(&mut [IoSliceMut::new(part)], extent.kind, at, len)?
            } else {
                // Several buffers over several runs.
                ReadNow::Waits
            };
            if !matches!(ended, ReadNow::Done) {
                return Ok(ReadNow::Waits);
            }
            done += len;
        }
        Ok(ReadNow::Done)
    }

    /// Reads one run that fills the buffers.
    fn run_now(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        kind: ExtentKind,
        offset: u64,
        len: u64,
    ) -> Result<ReadNow> {
        match kind {
            ExtentKind::Data { slot, host_offset } => {
                if self.format.storage(slot)?.read_now(bufs, host_offset)? {
                    return Ok(ReadNow::Done);
                }
                let read = self.host_read(bufs, offset, len)?;
                Ok(read.map_or(ReadNow::Waits, ReadNow::Host))
            }
            ExtentKind::Zero { .. } => Ok(zeroed(bufs)),
            ExtentKind::Unallocated { .. } => self.below_now(bufs, offset, len),
            ExtentKind::Encoded { .. } => Ok(ReadNow::Waits),
        }
    }

    fn below_now(&self, bufs: &mut [IoSliceMut<'_>], offset: u64, total: u64) -> Result<ReadNow> {
        match &self.backing {
            Backing::None => Ok(zeroed(bufs)),
            Backing::Closed => Ok(ReadNow::Waits),
            Backing::Open(base) => match base.len().saturating_sub(offset) {
                0 => Ok(zeroed(bufs)),
                left if left >= total => base.layer_now(bufs, offset, total),
                _ => Ok(ReadNow::Waits),
            },
        }
    }

    /// Whether a write to the range is a copy to memory: [`Image::write_vectored_at`] hardly ever
    /// waits then.
    pub(crate) fn overwrites_now(&self, bufs: &[IoSlice<'_>], offset: u64) -> bool {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        self.writable
            && !self.settings.cache.direct()
            && !self.settings.cache.write_through()
            && self.settings.detect_zeroes == DetectZeroes::Off
            && self.check_range(offset, total).is_ok()
            && self.format.request_alignment() <= 1
            && self.format.overwrites_now(offset, total)
    }
}

fn zeroed(bufs: &mut [IoSliceMut<'_>]) -> ReadNow {
    for buf in bufs {
        buf.fill(0);
    }
    ReadNow::Done
}
