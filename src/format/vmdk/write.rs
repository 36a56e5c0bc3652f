//! Writing guest data: in place if the grain has a place, else to a new one, to which the tables refer afterwards.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ExtentKind;
use crate::format::{Below, Compress, Format, FormatWrite, Resize, ZeroBelow};
use crate::memory::{self, IoBuf};
use crate::storage::{Durability, Step, ZeroFlags, steps};

use super::disk::descriptor::random_cid;
use super::parts::{self, Part, PartKind};
use super::sparse::{Grain, Sparse};
use super::state::Vmdk;

/// Zeroes that have to be stored are written in pieces of this many bytes.
const ZERO_PIECE: u64 = 1 << 20;

/// A sparse extent, and where it begins in the guest.
pub(super) struct ExtentWriter<'a> {
    pub(super) image: &'a Vmdk,
    pub(super) sparse: &'a Sparse,
    pub(super) base: u64,
}

impl FormatWrite for Vmdk {
    fn prepare(&self) -> Result<()> {
        self.prepare_write()
    }

    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.prepare_write()?;
        let mut rest = buf;
        self.in_parts(offset, buf.len() as u64, |part, within, len| {
            let (piece, tail) = rest.split_at(len as usize);
            rest = tail;
            match &part.kind {
                PartKind::Zero { .. } => Err(of_zeroes()),
                PartKind::Flat {
                    storage, offset, ..
                } => {
                    steps::announce(&**storage, Step::WriteAio);
                    storage.write_at(piece, offset + within)
                }
                PartKind::Sparse(sparse) => self.target(sparse, part).write(piece, within, below),
            }
        })
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.prepare_write()?;
        self.in_parts(offset, len, |part, within, len| match &part.kind {
            PartKind::Zero { .. } => Ok(()),
            PartKind::Flat {
                storage, offset, ..
            } => storage.write_zeroes(offset + within, len, flags),
            PartKind::Sparse(sparse) => {
                let end = within + len;
                self.target(sparse, part).zero(within..end, flags, below)
            }
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.prepare_write()?;
        self.in_parts(offset, len, |part, within, len| match &part.kind {
            PartKind::Zero { .. } => Ok(()),
            PartKind::Flat {
                storage, offset, ..
            } => {
                // Unlike a discard, this defines what the range reads as.
                let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
                storage.write_zeroes(offset + within, len, flags)
            }
            PartKind::Sparse(sparse) => sparse.discard(within, len),
        })
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.flush_all(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        // Programs that read a stream from its beginning need its tables where they are.
        (!self.is_stream()).then_some(self)
    }

    fn compressor(&self) -> Option<&dyn Compress> {
        let sparse = |part: &Arc<Part>| matches!(part.kind, PartKind::Sparse(_));
        self.parts.iter().all(sparse).then_some(self)
    }
}

/// Grains of streams are always compressed, those of other images never: if that is requested, they are stored plain.
impl Compress for Vmdk {
    fn encode_unit(&self) -> u32 {
        self.cluster_size().unwrap_or(1)
    }

    fn is_required(&self) -> bool {
        self.is_stream()
    }

    fn is_ordered(&self) -> bool {
        self.is_stream()
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let unit = u64::from(self.encode_unit());
        let len = buf.len() as u64;
        let whole = len == unit || offset.checked_add(len) == Some(self.len());
        if !offset.is_multiple_of(unit) || !whole || len > unit {
            return Err(Error::partial_compressed_write());
        }
        // The data covers the grain up to the end of the image: nothing shows through from below.
        self.write(buf, offset, &ZeroBelow)
    }
}

/// The error for a write to where the descriptor has nothing but zeroes.
fn of_zeroes() -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        "The range lies in an extent of zeroes, which holds no data",
    )
}

impl Vmdk {
    fn target<'a>(&'a self, sparse: &'a Sparse, part: &Part) -> ExtentWriter<'a> {
        ExtentWriter {
            image: self,
            sparse,
            base: part.start,
        }
    }

    /// Calls `change` for each extent of a range.
    fn in_parts(
        &self,
        offset: u64,
        len: u64,
        mut change: impl FnMut(&Part, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let (part, within) = parts::at(&self.parts, at)?;
            if part.read_only {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    "The range lies in an extent that is read-only, as the descriptor says",
                ));
            }
            let len = (part.len() - within).min(end - at);
            change(part, within, len)?;
            at += len;
        }
        Ok(())
    }

    /// Fails if the image is open read-only.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.read_only {
            true => Err(Error::read_only_image()),
            false => Ok(()),
        }
    }

    /// Done once, before the first change: the disk gets another content ID.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`]; if I/O fails.
    pub(super) fn prepare_write(&self) -> Result<()> {
        if self.is_changed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.check_writable()?;
        let mut stored = self.stored.lock();
        if self.is_changed.load(Ordering::Acquire) {
            return Ok(());
        }
        let cid = random_cid(stored.descriptor.cid)?;
        let new = stored.descriptor.with_cid(cid)?;
        // It must be on disk before any data.
        stored.replace(new, self.durability)?;
        self.is_changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes everything that is pending, and makes it durable.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn flush_all(&self, durability: Durability) -> Result<()> {
        let _one = self.flushing.lock();
        for part in self.parts.iter() {
            match &part.kind {
                PartKind::Flat { storage, .. } => storage.sync(durability)?,
                PartKind::Sparse(sparse) => sparse.flush(durability)?,
                PartKind::Zero { .. } => {}
            }
        }
        self.storage.sync(durability)
    }

    /// Writes what is pending in one extent, and makes it durable.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn flush_extent(&self, sparse: &Sparse) -> Result<()> {
        let _one = self.flushing.lock();
        sparse.flush(self.durability)
    }

    /// Flushes the image, and marks its extents as closed.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn end_use(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.flush_all(self.durability)?;
        for part in self.parts.iter() {
            if let PartKind::Sparse(sparse) = &part.kind {
                sparse.mark_clean(self.durability)?;
            }
        }
        Ok(())
    }

    /// Writes tables if too many have changed.
    pub(super) fn write_back_if_full(&self) -> Result<()> {
        if self.cache.is_full() {
            self.flush_all(self.durability)?;
        }
        Ok(())
    }
}

impl ExtentWriter<'_> {
    /// Writes guest bytes.
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            if self.sparse.compressed {
                self.image.write_back_if_full()?;
                let done = self.append(rest, at, below)?;
                rest = rest.get(done as usize..).unwrap_or_default();
                at += done;
                continue;
            }
            let done = match self.write_in_place(rest, at)? {
                0 => {
                    self.image.write_back_if_full()?;
                    self.write_new(rest, at, below)?
                }
                done => done,
            };
            rest = rest.get(done as usize..).unwrap_or_default();
            at += done;
        }
        Ok(())
    }

    /// Overwrites grains that have a place; returns the number of bytes, from the start of `buf`.
    fn write_in_place(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let run = self.sparse.map(offset, buf.len() as u64)?;
        let ExtentKind::Data { host_offset, .. } = run.kind else {
            return Ok(0);
        };
        let part = buf.get(..run.len as usize).unwrap_or(buf);
        steps::announce(&*self.sparse.storage, Step::WriteAio);
        self.sparse.storage.write_at(part, host_offset)?;
        Ok(run.len)
    }

    /// The grains of a range that belong to the table of its beginning.
    fn grains(&self, range: &Range<u64>) -> Range<u64> {
        let grain = self.sparse.grain;
        let first = range.start / grain;
        let table_end = (first / self.sparse.per_table + 1) * self.sparse.per_table;
        first..range.end.div_ceil(grain).min(table_end)
    }

    /// Reserves grains against other changes.
    pub(super) fn hold(&self, grains: &Range<u64>) -> crate::format::inflight::Reservation<'_> {
        let guest = |grain: u64| self.base + grain * self.sparse.grain;
        self.image
            .inflight
            .reserve(guest(grains.start)..guest(grains.end))
    }

    /// Writes the beginning of `buf` to grains without a place; returns 0 if another write has placed them meanwhile.
    fn write_new(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<u64> {
        let sparse = self.sparse;
        let grains = self.grains(&(offset..offset + buf.len() as u64));
        let _mine = self.hold(&grains);
        let (index, entry) = sparse.indices(offset);
        let table = sparse.table_to_change(index)?;
        let held = sparse.without_place(&table, entry, grains.clone())?;
        let (Some(first), Some(last)) = (held.first(), held.last()) else {
            return Ok(0);
        };
        let count = held.len() as u64;
        let start = grains.start * sparse.grain;
        let whole = (start + count * sparse.grain).min(sparse.len());
        let end = whole.min(offset + buf.len() as u64);
        let data = buf.get(..(end - offset) as usize).unwrap_or(buf);
        let head = self.around(*first, start..offset, below)?;
        let tail = self.around(*last, end..whole, below)?;
        let host = sparse.reserve(count * sparse.grain)?;
        // New space in the file reads as zeroes.
        let fresh = sparse.storage.limits().grown_is_zero;
        let needed = |around: &Around| !(fresh && around.is_zero);
        let (head, tail) = (head.filter(needed), tail.filter(needed));
        let mut bufs = Vec::with_capacity(3);
        let mut from = host + (offset - start);
        if let Some(head) = &head {
            bufs.push(IoSlice::new(&head.bytes));
            from = host;
        }
        bufs.push(IoSlice::new(data));
        bufs.extend(tail.as_ref().map(|tail| IoSlice::new(&tail.bytes)));
        steps::announce(&*sparse.storage, Step::WriteAio);
        sparse.storage.write_vectored_at(&bufs, from)?;
        for n in 0..count {
            let sector = (host + n * sparse.grain) / crate::size::SECTOR;
            table.set(entry + n, sector);
        }
        Ok(end - offset)
    }

    /// The bytes next to written data in a new grain that was `old` before.
    fn around(&self, old: Grain, range: Range<u64>, below: &dyn Below) -> Result<Option<Around>> {
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = memory::zeroed(len as usize)?;
        let guest = self.base + range.start;
        let is_zero = old == Grain::Zero || below.is_zero_below(guest, len)?;
        if !is_zero {
            steps::announce(&*self.sparse.storage, Step::CowRead);
            below.read_below(&mut bytes, guest)?;
        }
        Ok(Some(Around { bytes, is_zero }))
    }

    /// Makes a range read as zeroes.
    fn zero(&self, range: Range<u64>, flags: ZeroFlags, below: &dyn Below) -> Result<()> {
        let sparse = self.sparse;
        let mut at = range.start;
        while at < range.end {
            let run = sparse.map(at, range.end - at)?;
            let mut len = run.len;
            match run.kind {
                ExtentKind::Data { host_offset, .. } => {
                    sparse.storage.write_zeroes(host_offset, len, flags)?;
                }
                ExtentKind::Unallocated { .. } => len = self.hide(at..at + len, flags, below)?,
                ExtentKind::Encoded { .. } => {
                    len = self.store_zeroes(at..at + len, flags, below)?
                }
                ExtentKind::Zero { .. } => {}
            }
            at += len;
        }
        Ok(())
    }

    /// Hides what lies below the beginning of an unallocated range; returns the number of bytes.
    fn hide(&self, range: Range<u64>, flags: ZeroFlags, below: &dyn Below) -> Result<u64> {
        let sparse = self.sparse;
        let guest = self.base + range.start;
        let len = range.end - range.start;
        if below.is_zero_below(guest, len)? {
            return Ok(len);
        }
        let whole = range.start.is_multiple_of(sparse.grain)
            && (len >= sparse.grain || range.end == sparse.len());
        if whole && sparse.zeroed {
            self.image.write_back_if_full()?;
            let grains = self.grains(&range);
            let _mine = self.hold(&grains);
            let (index, entry) = sparse.indices(range.start);
            let table = sparse.table_to_change(index)?;
            let held = sparse.without_place(&table, entry, grains)?;
            // The last grain may be covered only in part.
            let covered = |n: u64| {
                let end = range.start + (n + 1) * sparse.grain;
                end <= range.end || range.end == sparse.len()
            };
            let count = (0..held.len() as u64).take_while(|n| covered(*n)).count() as u64;
            for n in 0..count {
                table.set(entry + n, 1);
            }
            return Ok((count * sparse.grain).min(len));
        }
        // Up to the next grain that may be hidden.
        let next = match sparse.zeroed {
            true => (range.start / sparse.grain + 1) * sparse.grain - range.start,
            false => ZERO_PIECE,
        };
        self.store_zeroes(range.start..range.start + len.min(next), flags, below)
    }

    /// Writes zeroes to the beginning of a range as data; returns the number of bytes.
    fn store_zeroes(&self, range: Range<u64>, flags: ZeroFlags, below: &dyn Below) -> Result<u64> {
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported(
                "The image cannot have zeroes here without storing them",
            ));
        }
        let len = (range.end - range.start).min(ZERO_PIECE);
        self.write(&memory::zeroed(len as usize)?, range.start, below)?;
        Ok(len)
    }
}

/// The bytes next to written data.
struct Around {
    bytes: IoBuf,
    is_zero: bool,
}

impl Sparse {
    /// Returns the space of whole grains to the host: they keep their places and read as zeroes.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        let end = match end == self.len() {
            true => end,
            false => end - end % self.grain,
        };
        let mut at = offset.next_multiple_of(self.grain);
        while at < end {
            let run = self.map(at, end - at)?;
            if let ExtentKind::Data { host_offset, .. } = run.kind {
                let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
                self.storage.write_zeroes(host_offset, run.len, flags)?;
            }
            at += run.len;
        }
        Ok(())
    }
}
