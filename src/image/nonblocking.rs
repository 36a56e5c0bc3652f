//! Reads and writes that do not block: from and to memory, through metadata that is cached.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::format::Immediate;
use crate::image::align;
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::ring::HostCall;
use crate::image::{Backing, Image};

/// How an attempt to read without blocking ended.
#[derive(Debug)]
pub(crate) enum TryRead {
    /// The buffers are full.
    Done,
    /// Not all in memory: the range is one run of a host file.
    Host(HostCall),
    /// It takes a read that may block.
    WouldBlock,
}

/// Where a range is, as far as that is known without blocking.
#[derive(Debug)]
pub(crate) enum TryPlace<'a> {
    /// Nowhere: it reads as zeroes.
    Zero,
    /// In a file of the host as it is, from that offset on.
    File(BorrowedFd<'a>, u64),
    /// In several places, in one that is encoded, or not known.
    Elsewhere,
}

impl Image {
    /// Reads into several buffers in turn where that does not block, nor decode or decrypt more than `work` bytes; else the
    /// buffers are undefined.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub(crate) fn try_read(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        mut work: u64,
    ) -> Result<TryRead> {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        self.check_range(offset, total)?;
        self.try_layer(bufs, offset, total, &mut work)
    }

    /// Tells `visit` where a range is, by what is in memory; the place keeps its meaning until it returns.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub(crate) fn try_place<R>(
        &self,
        offset: u64,
        len: u64,
        visit: impl FnOnce(TryPlace<'_>) -> R,
    ) -> Result<R> {
        self.check_range(offset, len)?;
        let Some(immediate) = self.format.immediate() else {
            return Ok(visit(TryPlace::Elsewhere));
        };
        let _held = self.format.begin_io();
        let located = immediate.try_locate(offset, len)?;
        let Some(extent) = located.filter(|extent| extent.len >= len) else {
            return Ok(visit(TryPlace::Elsewhere));
        };
        match extent.kind {
            ExtentKind::Zero { .. } => Ok(visit(TryPlace::Zero)),
            ExtentKind::Data { slot, host_offset } => {
                let storage = self.format.storage(slot)?;
                let is_direct = storage.limits().memory_alignment > 1;
                let file = storage.host().filter(|_| !is_direct);
                Ok(visit(file.map_or(TryPlace::Elsewhere, |file| {
                    TryPlace::File(file.fd(), host_offset)
                })))
            }
            ExtentKind::Unallocated { .. } => match &self.backing {
                Backing::None => Ok(visit(TryPlace::Zero)),
                Backing::Open(base) => match base.len().saturating_sub(offset) {
                    0 => Ok(visit(TryPlace::Zero)),
                    left if left >= len => base.try_place(offset, len, visit),
                    _ => Ok(visit(TryPlace::Elsewhere)),
                },
                Backing::Closed => Ok(visit(TryPlace::Elsewhere)),
            },
            ExtentKind::Encoded { .. } => Ok(visit(TryPlace::Elsewhere)),
        }
    }

    fn try_layer(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        total: u64,
        work: &mut u64,
    ) -> Result<TryRead> {
        let Some(immediate) = self.format.immediate() else {
            return Ok(TryRead::WouldBlock);
        };
        let _held = self.format.begin_io();
        let mut done = 0;
        while done < total {
            let at = offset + done;
            let Some(extent) = immediate.try_locate(at, total - done)? else {
                return Ok(TryRead::WouldBlock);
            };
            let len = extent.len.min(total - done);
            if len == total {
                return self.try_run(immediate, bufs, extent.kind, at, len, work);
            }
            let ended = with_part(bufs, done, len, |part| {
                self.try_run(immediate, part, extent.kind, at, len, work)
            })?;
            if !matches!(ended, TryRead::Done) || len == 0 {
                return Ok(TryRead::WouldBlock);
            }
            done += len;
        }
        Ok(TryRead::Done)
    }

    /// Reads one run that fills the buffers.
    fn try_run(
        &self,
        immediate: &dyn Immediate,
        bufs: &mut [IoSliceMut<'_>],
        kind: ExtentKind,
        offset: u64,
        len: u64,
        work: &mut u64,
    ) -> Result<TryRead> {
        match kind {
            ExtentKind::Data { slot, host_offset } => {
                if self.format.storage(slot)?.try_read(bufs, host_offset)? {
                    return Ok(TryRead::Done);
                }
                let read = self.host_read(immediate, bufs, offset, len)?;
                Ok(read.map_or(TryRead::WouldBlock, TryRead::Host))
            }
            ExtentKind::Zero { .. } => Ok(zeroed(bufs)),
            ExtentKind::Unallocated { .. } => self.try_below(bufs, offset, len, work),
            ExtentKind::Encoded { compressed } => {
                self.try_encoded(immediate, bufs, offset, compressed, work)
            }
        }
    }

    /// Reads a run that is decoded, or decodes it where that is little work.
    fn try_encoded(
        &self,
        immediate: &dyn Immediate,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        compressed: bool,
        work: &mut u64,
    ) -> Result<TryRead> {
        // Of a compressed cluster, all is decoded for any part.
        let unit = match self.format.cluster_size() {
            Some(cluster) if compressed => u64::from(cluster.max(1)),
            _ => 1,
        };
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let end = offset.saturating_add(len as u64);
        let whole = end.div_ceil(unit).saturating_mul(unit) - offset / unit * unit;
        let left = work.checked_sub(whole);
        let may_decode = left.is_some();
        *work = left.unwrap_or(*work);
        let read = if let [one] = bufs {
            align::try_read_encoded(&*self.format, immediate, one, offset, may_decode)?
        } else {
            // In one go, so that no cluster is decoded for each of the buffers.
            let mut bytes = crate::memory::zeroed(len)?;
            let read =
                align::try_read_encoded(&*self.format, immediate, &mut bytes, offset, may_decode)?;
            let mut rest: &[u8] = &bytes;
            for buf in bufs {
                let (part, tail) = rest.split_at(buf.len());
                buf.copy_from_slice(part);
                rest = tail;
            }
            read
        };
        Ok(if read {
            TryRead::Done
        } else {
            TryRead::WouldBlock
        })
    }

    fn try_below(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        total: u64,
        work: &mut u64,
    ) -> Result<TryRead> {
        let base = match &self.backing {
            Backing::None => return Ok(zeroed(bufs)),
            Backing::Closed => return Ok(TryRead::WouldBlock),
            Backing::Open(base) => base,
        };
        match base.len().saturating_sub(offset) {
            0 => Ok(zeroed(bufs)),
            left if left >= total => base.try_layer(bufs, offset, total, work),
            left => {
                with_part(bufs, left, total - left, |beyond| Ok(zeroed(beyond)))?;
                let held = with_part(bufs, 0, left, |held| {
                    base.try_layer(held, offset, left, work)
                })?;
                Ok(match held {
                    TryRead::Done => TryRead::Done,
                    TryRead::Host(_) | TryRead::WouldBlock => TryRead::WouldBlock,
                })
            }
        }
    }

    /// Whether a write to the range is a copy to memory: [`Image::write_vectored_at`] hardly ever
    /// blocks then.
    pub(crate) fn overwrites_memory(&self, bufs: &[IoSlice<'_>], offset: u64) -> bool {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        self.writable
            && !self.settings.cache.direct()
            && !self.settings.cache.write_through()
            && self.settings.detect_zeroes == DetectZeroes::Off
            && self.check_range(offset, total).is_ok()
            && self.format.request_alignment() <= 1
            && self
                .format
                .immediate()
                .is_some_and(|now| now.overwrites_memory(offset, total))
    }
}

/// Runs `read` with the `len` bytes of the buffers from `start` on.
fn with_part<R>(
    bufs: &mut [IoSliceMut<'_>],
    start: u64,
    len: u64,
    read: impl FnOnce(&mut [IoSliceMut<'_>]) -> R,
) -> R {
    let (mut skip, mut left) = (start, len);
    let mut part = |buf| {
        let buf: &mut [u8] = buf;
        let from = skip.min(buf.len() as u64);
        let to = (from + left).min(buf.len() as u64);
        skip -= from;
        left -= to - from;
        IoSliceMut::new(buf.get_mut(from as usize..to as usize).unwrap_or_default())
    };
    if let [one] = bufs {
        return read(&mut [part(one)]);
    }
    let mut parts: Vec<_> = bufs.iter_mut().map(|buf| part(buf)).collect();
    read(&mut parts)
}

fn zeroed(bufs: &mut [IoSliceMut<'_>]) -> TryRead {
    for buf in bufs {
        buf.fill(0);
    }
    TryRead::Done
}
