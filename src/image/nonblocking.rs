//! Reads and writes that do not block: from and to memory, using cached metadata.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::format::Immediate;
use crate::image::align;
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::ring::HostCall;
use crate::image::{Backing, Image};

/// The outcome of an attempt to read without blocking.
#[derive(Debug)]
pub(crate) enum TryRead {
    /// The buffers are full.
    Done,
    /// Not everything is in memory: the range is one run of a host file.
    Host(HostCall),
    /// A read that may block is required.
    WouldBlock,
}

/// The location of a range, as far as it is known without blocking.
#[derive(Debug)]
pub(crate) enum TryPlace<'a> {
    /// Nowhere: it reads as zeroes.
    Zero,
    /// Verbatim in a host file, starting at this offset.
    File(BorrowedFd<'a>, u64),
    /// In several places, encoded, or unknown.
    Elsewhere,
}

/// What lies below a range that a layer does not contain.
enum BelowRange<'a> {
    /// Zeroes.
    Zero,
    /// The next layer contains the whole range.
    Whole(&'a Image),
    /// The next layer contains the given number of bytes; the rest reads as zeroes.
    Part(&'a Image, u64),
    /// The backing file is not open.
    Unknown,
}

/// The remaining budget of one attempt.
struct Effort {
    /// Maximum number of bytes to decode or decrypt.
    work: u64,
    /// Maximum depth of recursion into lower layers for parts of the range: each level takes stack space.
    splits: u32,
}

/// See [`Effort::splits`].
const MOST_SPLITS: u32 = 8;

impl Image {
    /// Reads into several buffers in turn if that neither blocks nor decodes or decrypts more than `work` bytes;
    /// otherwise the contents of the buffers are undefined.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub(crate) fn try_read(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        work: u64,
    ) -> Result<TryRead> {
        let total = bufs
            .iter()
            .fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        self.check_range(offset, total)?;
        let mut effort = Effort {
            work,
            splits: MOST_SPLITS,
        };
        self.try_layers(bufs, offset, total, &mut effort)
    }

    /// Passes the location of a range, according to cached metadata, to `visit`; it stays valid until that returns.
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
        let mut layer = self;
        loop {
            let Some(immediate) = layer.format.immediate() else {
                return Ok(visit(TryPlace::Elsewhere));
            };
            let _held = layer.format.begin_io();
            let located = immediate.try_locate(offset, len)?;
            let Some(extent) = located.filter(|extent| extent.len >= len) else {
                return Ok(visit(TryPlace::Elsewhere));
            };
            match extent.kind {
                ExtentKind::Zero { .. } => return Ok(visit(TryPlace::Zero)),
                ExtentKind::Data { slot, host_offset } => {
                    let storage = layer.format.storage(slot)?;
                    let is_direct = storage.limits().memory_alignment > 1;
                    let file = storage.host().filter(|_| !is_direct);
                    return Ok(visit(file.map_or(TryPlace::Elsewhere, |file| {
                        TryPlace::File(file.fd(), host_offset)
                    })));
                }
                ExtentKind::Unallocated { .. } => match layer.below(offset, len) {
                    BelowRange::Zero => return Ok(visit(TryPlace::Zero)),
                    BelowRange::Whole(base) => layer = base,
                    BelowRange::Part(..) | BelowRange::Unknown => {
                        return Ok(visit(TryPlace::Elsewhere));
                    }
                },
                ExtentKind::Encoded { .. } => return Ok(visit(TryPlace::Elsewhere)),
            }
        }
    }

    /// What lies below a range that this layer does not contain.
    fn below(&self, offset: u64, len: u64) -> BelowRange<'_> {
        let base = match &self.backing {
            Backing::None => return BelowRange::Zero,
            Backing::Closed => return BelowRange::Unknown,
            Backing::Open(base) => base,
        };
        match base.len().saturating_sub(offset) {
            0 => BelowRange::Zero,
            left if left >= len => BelowRange::Whole(base),
            left => BelowRange::Part(base, left),
        }
    }

    /// Iterates as long as the whole range is in one layer: the length of the chain must not affect the use of stack.
    fn try_layers(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        total: u64,
        effort: &mut Effort,
    ) -> Result<TryRead> {
        let mut layer = self;
        loop {
            let Some(immediate) = layer.format.immediate() else {
                return Ok(TryRead::WouldBlock);
            };
            let _held = layer.format.begin_io();
            let Some(extent) = immediate.try_locate(offset, total)? else {
                return Ok(TryRead::WouldBlock);
            };
            if extent.len < total {
                return layer.try_parts(immediate, bufs, offset, total, effort);
            }
            if let ExtentKind::Unallocated { .. } = extent.kind
                && let BelowRange::Whole(base) = layer.below(offset, total)
            {
                layer = base;
                continue;
            }
            return layer.try_run(immediate, bufs, extent.kind, offset, total, effort);
        }
    }

    /// Reads a range that consists of several runs in this layer.
    fn try_parts(
        &self,
        immediate: &dyn Immediate,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        total: u64,
        effort: &mut Effort,
    ) -> Result<TryRead> {
        let mut done = 0;
        while done < total {
            let at = offset + done;
            let Some(extent) = immediate.try_locate(at, total - done)? else {
                return Ok(TryRead::WouldBlock);
            };
            let len = extent.len.min(total - done);
            let ended = with_part(bufs, done, len, |part| {
                self.try_run(immediate, part, extent.kind, at, len, effort)
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
        effort: &mut Effort,
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
            ExtentKind::Unallocated { .. } => self.try_below(bufs, offset, len, effort),
            ExtentKind::Encoded { compressed } => {
                self.try_encoded(immediate, bufs, offset, compressed, effort)
            }
        }
    }

    /// Reads a run that has been decoded, or decodes it if that is little work.
    fn try_encoded(
        &self,
        immediate: &dyn Immediate,
        bufs: &mut [IoSliceMut<'_>],
        offset: u64,
        compressed: bool,
        effort: &mut Effort,
    ) -> Result<TryRead> {
        // Reading any part of a compressed cluster decodes all of it.
        let unit = match self.format.cluster_size() {
            Some(cluster) if compressed => u64::from(cluster.max(1)),
            _ => 1,
        };
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let end = offset.saturating_add(len as u64);
        let whole = end.div_ceil(unit).saturating_mul(unit) - offset / unit * unit;
        let left = effort.work.checked_sub(whole);
        let may_decode = left.is_some();
        effort.work = left.unwrap_or(effort.work);
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
        effort: &mut Effort,
    ) -> Result<TryRead> {
        let (base, left) = match self.below(offset, total) {
            BelowRange::Zero => return Ok(zeroed(bufs)),
            BelowRange::Unknown => return Ok(TryRead::WouldBlock),
            BelowRange::Whole(base) => (base, total),
            BelowRange::Part(base, left) => (base, left),
        };
        let Some(splits) = effort.splits.checked_sub(1) else {
            return Ok(TryRead::WouldBlock);
        };
        effort.splits = splits;
        let read = if left == total {
            base.try_layers(bufs, offset, total, effort)
        } else {
            with_part(bufs, left, total - left, zeroed);
            let held = with_part(bufs, 0, left, |held| {
                base.try_layers(held, offset, left, effort)
            });
            held.map(|held| match held {
                TryRead::Host(_) => TryRead::WouldBlock,
                held => held,
            })
        };
        effort.splits += 1;
        read
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

/// Calls `read` with the `len` bytes of the buffers starting at `start`.
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
