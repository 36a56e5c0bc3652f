//! The one place that writes L2 tables, L1 entries, refcount blocks and refcount table entries,
//! in an order that leaves a valid image at every instant:
//!
//! 1. guest data (written before any entry refers to it) and refcounts, which at that time hold every
//!    increment that the entries of the next steps need and no decrement that is not due;
//! 2. refcount table entries for new blocks;
//! 3. L2 entries; 4. L1 entries;
//! 5. only then are the references that those steps removed released.
//!
//! There is a barrier between the steps. What is written is copied in the opposite order, so that concurrent changes
//! can only make the earlier steps cover more than needed.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::FlushPlan;
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Step};

use super::allocator::L1_UNIT;
use super::cache::{Class, Taken};
use super::disk::Incompatible;
use super::events;
use super::state::Qcow2;

/// Number of references in limbo above which a writer has to write metadata out.
const LIMBO_LIMIT: usize = 8192;

impl Qcow2 {
    /// Makes everything written so far reach the disk before anything that is written later, as far as the image's
    /// durability requires.
    pub(super) fn barrier(&self) -> Result<()> {
        events::BARRIER.emit(|| {
            format!(
                "file={:?} durability={:?}",
                self.storage.name(),
                self.durability
            )
        });
        if self.durability == Durability::Synced {
            self.sync_all(Durability::Synced)?;
        }
        Ok(())
    }

    fn sync_all(&self, durability: Durability) -> Result<()> {
        let mut result = self.storage.sync(durability);
        if let Some(data) = &self.data_file {
            result = data.sync(durability).and(result);
        }
        if result.is_err() {
            // The kernel may have dropped what it could not write: no later sync makes up for it.
            self.lost.store(true, Ordering::Release);
        }
        result
    }

    pub(super) fn check_lost(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Error::writes_lost(self.storage.name()));
        }
        Ok(())
    }

    /// Filters the result of releasing what a change no longer needs, once the change is durable. A failure is not one
    /// of the change: what is not released leaks, and what is not written yet is retried when the image is flushed or
    /// closed, which reports it. Only a sync cannot be retried.
    pub(super) fn after_change(&self, given_back: Result<()>) -> Result<()> {
        match given_back {
            Err(error) if self.lost.load(Ordering::Acquire) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes out all metadata, then makes everything durable as far as requested.
    pub(super) fn flush_all(&self, durability: Durability) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.trace_flush(durability);
        self.check_lost()?;
        self.write_with_second_try(!self.lazy(), durability)?;
        self.reclaim()
    }

    /// As [`Self::write_metadata`], with one retry if it fails and only refcounts are pending. Then only the release of
    /// clusters failed, not the changes themselves, and a retry may succeed.
    fn write_with_second_try(&self, refcounts: bool, last: Durability) -> Result<()> {
        let links = self.cache.is_dirty(Class::L2) || !self.l1_dirty.lock().is_empty();
        let written = self.write_metadata(refcounts, last);
        match links || self.lost.load(Ordering::Acquire) {
            true => written,
            false => written.or_else(|_| self.write_metadata(refcounts, last)),
        }
    }

    /// Writes out all metadata, including refcounts that may otherwise wait, and those of freed clusters.
    pub(super) fn flush_counted(&self, last: Durability) -> Result<()> {
        self.check_lost()?;
        self.write_with_second_try(true, Durability::None)?;
        // Two rounds: releasing clusters may need the epoch to advance once.
        for _ in 0..2 {
            self.reclaim()?;
        }
        self.write_with_second_try(true, last)
    }

    fn trace_flush(&self, durability: Durability) {
        events::FLUSH.emit(|| format!("file={:?} durability={durability:?}", self.storage.name()));
    }

    /// What [`Self::flush_all`] would do: only a sync if no metadata is dirty and none is being written.
    pub(super) fn way_to_flush(&self, durability: Durability) -> FlushPlan {
        if self.read_only {
            return FlushPlan::Nothing;
        }
        let lost = self.lost.load(Ordering::Acquire);
        let (Some(_pass), false, false) = (self.pass.try_lock(), lost, self.has_data_file) else {
            return FlushPlan::Call;
        };
        let counted = self.lazy()
            || !self.cache.is_dirty(Class::Refcount)
                && self
                    .alloc
                    .try_lock()
                    .is_some_and(|alloc| alloc.table_dirty.is_empty());
        let clean = counted
            && self.limbo.waiting() == 0
            && !self.cache.is_dirty(Class::L2)
            && self.l1_dirty.lock().is_empty();
        if !clean {
            return FlushPlan::Call;
        }
        self.trace_flush(durability);
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    /// Writes metadata out if too much of it is dirty. Must be called with no lock held.
    pub(super) fn write_back_if_full(&self) -> Result<()> {
        if self.cache.dirty_bytes() > self.cache.dirty_limit() || self.limbo.waiting() > LIMBO_LIMIT
        {
            self.check_lost()?;
            self.write_metadata(true, Durability::None)?;
            self.reclaim()?;
        }
        Ok(())
    }

    /// One pass, as described at the top of this file; at its end everything is durable as far as `last` requires.
    /// `refcounts` may be false under the dirty bit.
    pub(super) fn write_metadata(&self, refcounts: bool, last: Durability) -> Result<()> {
        self.pass(refcounts, true, last)
    }

    /// Writes changes of refcounts and of COPIED flags. Under the dirty bit they are not ordered, because both are
    /// rebuilt after a crash; nothing else may change the tables in the meantime.
    pub(super) fn write_flags(&self) -> Result<()> {
        let dirty = self.header.lock().header.incompatible & Incompatible::DIRTY;
        self.pass(true, dirty.is_empty(), Durability::None)
    }

    /// `ordered`: with barriers between the steps.
    fn pass(&self, refcounts: bool, ordered: bool, last: Durability) -> Result<()> {
        let _one = self.pass.lock();
        // An amendment may have turned lazy refcounts off in the meantime.
        let refcounts = refcounts || !self.lazy();
        let freed = self.limbo.take_fresh();
        let (l1, l2) = match self.take_links() {
            Ok(links) => links,
            Err(error) => {
                self.limbo.put_back(freed);
                return Err(error);
            }
        };
        let result = self
            .write_steps(refcounts, ordered, &l1, &l2)
            .and_then(|()| {
                let barrier = !freed.is_empty() && self.durability == Durability::Synced;
                match last {
                    Durability::Synced => self.sync_all(Durability::Synced),
                    _ if barrier => self.sync_all(Durability::Synced),
                    Durability::Ordered => self.sync_all(Durability::Ordered),
                    Durability::None => Ok(()),
                }
            });
        match result {
            Ok(()) => {
                self.limbo.unlinked(freed);
                Ok(())
            }
            Err(error) => {
                self.l1_dirty.lock().put_back(&l1.units);
                self.cache.put_back(l2);
                self.limbo.put_back(freed);
                Err(error)
            }
        }
    }

    fn write_steps(&self, refcounts: bool, ordered: bool, l1: &L1Copy, l2: &[Taken]) -> Result<()> {
        let links = ordered && !(l1.units.is_empty() && l2.is_empty());
        let table = if refcounts {
            let table = self.take_refcount_table()?;
            if let Err(error) = self.write_refcounts() {
                self.alloc.lock().table_dirty.put_back(&table.units);
                return Err(error);
            }
            table
        } else {
            TableCopy::default()
        };
        if links || !table.units.is_empty() {
            self.barrier()?;
        }
        if !table.units.is_empty() {
            self.write_refcount_table(table)?;
            if links {
                self.barrier()?;
            }
        }
        self.write_slices(Step::L2Update, l2)?;
        if !l1.units.is_empty() {
            if ordered && !l2.is_empty() {
                self.barrier()?;
            }
            self.write_l1(l1)?;
        }
        Ok(())
    }

    fn write_refcounts(&self) -> Result<()> {
        let taken = self.cache.take_dirty(Class::Refcount)?;
        if let Err(error) = self.write_slices(Step::RefblockUpdatePart, &taken) {
            self.cache.put_back(taken);
            return Err(error);
        }
        Ok(())
    }

    /// Writes slices, adjacent ones in one request.
    fn write_slices(&self, step: Step, slices: &[Taken]) -> Result<()> {
        let slice_bytes = self.layout.slice_bytes();
        for run in slices.chunk_by(|a, b| a.slice.offset() + slice_bytes == b.slice.offset()) {
            let Some(first) = run.first() else { continue };
            let offset = first.slice.offset();
            let len = run.len() as u64 * slice_bytes;
            self.check_table_place(offset, len)?;
            self.announce(step);
            match run {
                [one] => self.storage.write_at(&one.bytes, offset)?,
                many => {
                    for part in many.chunks(256) {
                        let parts = part.iter().map(|taken| &taken.bytes[..]);
                        let at = part.first().map_or(offset, |t| t.slice.offset());
                        self.storage.write_at(&memory::joined(parts)?, at)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Refuses to write a table over the header, another kind of table, or the snapshot table.
    pub(super) fn check_table_place(&self, offset: u64, len: u64) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let last = offset.saturating_add(len.saturating_sub(1)) >> bits;
        match self.meta.overlap_areas(offset >> bits..last + 1) {
            None => Ok(()),
            Some(what) => Err(self.corruption(
                format!("Preventing invalid write on metadata (overlaps with {what})"),
                offset,
            )),
        }
    }

    fn take_refcount_table(&self) -> Result<TableCopy> {
        let alloc = &mut *self.alloc.lock();
        let units = alloc.table_dirty.take()?;
        let copy = |unit: &u64| {
            let first = (unit * L1_UNIT) as usize;
            let end = (first + L1_UNIT as usize).min(alloc.table.len());
            let entries = alloc.table.get(first..end).unwrap_or_default();
            Ok((
                unit * L1_UNIT * 8,
                memory::bytes_of(entries.iter().copied())?,
            ))
        };
        let mut parts = Vec::new();
        let copied = memory::reserve(&mut parts, units.len()).and_then(|()| {
            units.iter().try_for_each(|unit| {
                parts.push(copy(unit)?);
                Ok(())
            })
        });
        if let Err(error) = copied {
            alloc.table_dirty.put_back(&units);
            return Err(error);
        }
        Ok(TableCopy {
            offset: alloc.table_offset,
            units,
            parts,
        })
    }

    /// Writes entries of the refcount table, under the allocator's lock, because the table may move: if it has moved in
    /// the meantime, they are already in the new one.
    fn write_refcount_table(&self, table: TableCopy) -> Result<()> {
        let alloc = &mut *self.alloc.lock();
        if alloc.table_offset != table.offset {
            return Ok(());
        }
        for (at, bytes) in &table.parts {
            self.announce(Step::RefblockAllocHookup);
            if let Err(error) = self.storage.write_at(bytes, table.offset + at) {
                alloc.table_dirty.put_back(&table.units);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The dirty entries that refer to clusters, as of one instant.
    fn take_links(&self) -> Result<(L1Copy, Vec<Taken>)> {
        let l1 = self.take_l1()?;
        match self.cache.take_dirty(Class::L2) {
            Ok(l2) => Ok((l1, l2)),
            Err(error) => {
                self.l1_dirty.lock().put_back(&l1.units);
                Err(error)
            }
        }
    }

    fn take_l1(&self) -> Result<L1Copy> {
        let units = self.l1_dirty.lock().take()?;
        match self.copy_l1(&units) {
            Ok(parts) => Ok(L1Copy { units, parts }),
            Err(error) => {
                self.l1_dirty.lock().put_back(&units);
                Err(error)
            }
        }
    }

    fn copy_l1(&self, units: &[u64]) -> Result<Vec<(u64, IoBuf)>> {
        let l1 = self.l1.read();
        let mut parts = Vec::new();
        memory::reserve(&mut parts, units.len())?;
        for unit in units {
            let first = (unit * L1_UNIT) as usize;
            let end = (first + L1_UNIT as usize).min(l1.entries.len());
            let words = (first..end).map(|index| l1.get(index as u64).0);
            parts.push((l1.offset + first as u64 * 8, memory::bytes_of(words)?));
        }
        Ok(parts)
    }

    fn write_l1(&self, l1: &L1Copy) -> Result<()> {
        for (offset, bytes) in &l1.parts {
            self.announce(Step::L1Update);
            self.storage.write_at(bytes, *offset)?;
        }
        Ok(())
    }

    /// Sets the dirty bit, before the first change whose refcounts are written late.
    pub(super) fn set_dirty(&self) -> Result<()> {
        self.update_header(|header| header.incompatible |= Incompatible::DIRTY)?;
        self.barrier()
    }

    /// Closes the image: writes all metadata, releases all freed clusters, then clears the dirty bit.
    pub(super) fn close_all(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.check_lost()?;
        // If they cannot be stored, they stay marked as in use on disk, and everything else is closed in order.
        let bitmaps = self.finish_bitmaps(&JobControl::default());
        let metadata = self.end_metadata();
        // The first failure is the likely cause of a second one.
        bitmaps.and(metadata)
    }

    /// Stores what the bitmaps recorded.
    pub(super) fn finish_bitmaps(&self, control: &JobControl) -> Result<()> {
        if self.read_only || self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        self.check_lost()?;
        self.end_recording(control)
    }

    fn end_metadata(&self) -> Result<()> {
        self.flush_counted(Durability::None)?;
        let dirty = self.header.lock().header.incompatible & Incompatible::DIRTY;
        let ours =
            self.is_prepared.load(Ordering::Acquire) && !self.uncounted.load(Ordering::Acquire);
        if !dirty.is_empty() && ours && !self.broken.load(Ordering::Acquire) {
            self.barrier()?;
            self.update_header(|header| header.incompatible -= Incompatible::DIRTY)?;
        }
        self.end_file_at_cluster()?;
        if self.durability == Durability::Synced {
            self.sync_all(Durability::Synced)?;
        }
        Ok(())
    }
}

impl Qcow2 {
    /// Extends a file that was written at its end to a whole cluster, or to a whole sector after compressed data: some
    /// users accept only multiples of sectors or blocks.
    fn end_file_at_cluster(&self) -> Result<()> {
        if self.storage.limits().fixed_len {
            return Ok(());
        }
        // Under the lock: what others allocate and write in the meantime must not be cut off.
        let alloc = self.alloc.lock();
        let len = self.storage.len()?;
        let end = len.next_multiple_of(self.layout.cluster_size());
        if len < end && end <= alloc.high_water {
            let last = (end - 1) >> self.layout.cluster_bits();
            let end = match alloc.partial.room_in(last) {
                Some(room) => len.max(room).next_multiple_of(SECTOR),
                None => end,
            };
            self.storage.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }
}

/// L1 entries to write, as of one instant.
struct L1Copy {
    units: Vec<u64>,
    parts: Vec<(u64, IoBuf)>,
}

/// Entries of the refcount table to write, as of one instant.
#[derive(Default)]
struct TableCopy {
    offset: u64,
    units: Vec<u64>,
    /// Offsets within the table, and bytes.
    parts: Vec<(u64, IoBuf)>,
}
