//! Changing the virtual size.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::Below;
use crate::job::JobControl;
use crate::memory;
use crate::storage::{Durability, Preallocation, Step, ZeroFlags, fill};

use super::disk::{L1Entry, L2Entry, MAX_L1_BYTES, SubclusterBitmap};
use super::map::Entry;
use super::overlap::Area;
use super::state::{L1, Qcow2, units_of};
use crate::format::limbo::Freed;

/// All guest clusters: nothing else remaps any while the size changes.
const ALL: std::ops::Range<u64> = 0..u64::MAX;

impl Qcow2 {
    /// Changes the virtual size; see [`crate::format::Resize::resize_above`]. The caller holds `reshaping`.
    pub(super) fn change_size(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.check_writable()?;
        self.check_resizable(len, self.version())?;
        self.prepare_write()?;
        let old = self.virtual_size();
        if len != old {
            self.complete_snapshots()?;
        }
        if len < old {
            if preallocation != Preallocation::Off {
                return Err(Error::no_preallocated_shrink());
            }
            let _all = self.inflight.reserve(ALL);
            return self.shrink(len, control);
        }
        {
            let _all = self.inflight.reserve(ALL);
            self.grow_l1(self.layout.l1_entries(len))?;
        }
        // The new part must read as zeroes before the new size makes it readable: neither what a shrink cut off may
        // show, between the old end and the end of its cluster or beyond, nor what lies below.
        let cluster = self.layout.cluster_size();
        let cluster_end = old.next_multiple_of(cluster).min(len);
        self.unlink_left_over(cluster_end, len, control)?;
        let shown = below.len_below().min(len);
        let hidden = shown.next_multiple_of(cluster).min(len).max(cluster_end);
        let mode = self.mode_of_growth(preallocation);
        // All space is allocated before the size changes: if it runs out, the size stays.
        let data_len = self.lengthen_data_file(old, len, mode, control)?;
        let prepared = self
            .preallocate(cluster_end, len, mode, control)
            .and_then(|()| self.zero_past_end(old, cluster_end, hidden, below))
            .and_then(|()| self.flush_all(self.durability))
            .and_then(|()| {
                let _all = self.inflight.reserve(ALL);
                self.store_size(len, control)
            });
        if let Err(error) = prepared {
            self.size.store(old, Ordering::Release);
            // If a sync failed, the disk may hold either size: nothing that belongs to either may be released.
            if self.check_lost().is_ok() {
                // The first error is the one to report; what this leaves behind lies past the end.
                let _ = self.unlink_left_over(cluster_end, len, &JobControl::default());
                let _ = self.cut_data_file(data_len);
                let _all = self.inflight.reserve(ALL);
                let _ = self.trim();
            }
            return Err(error);
        }
        if shown > old {
            // For the guest, what lies below was cut off at the old end: this range has changed.
            self.record(old, shown - old);
        }
        Ok(())
    }

    /// The minimum preallocation for the new part.
    fn mode_of_growth(&self, asked: Preallocation) -> Preallocation {
        match asked {
            // Each guest byte of a raw data file has a fixed place.
            Preallocation::Off if self.raw_data_file => Preallocation::Metadata,
            asked => asked,
        }
    }

    /// Zeroes the bytes between the present end and `end`, whatever lies below.
    fn zero_past_end(&self, old: u64, cluster_end: u64, end: u64, below: &dyn Below) -> Result<()> {
        if old == end {
            return Ok(());
        }
        // The image is larger only in memory so far, so that the bytes can be written.
        self.size.store(end, Ordering::Release);
        let flags = ZeroFlags::empty();
        self.zero_bytes(old, cluster_end, flags, below)?;
        self.zero_guest(cluster_end, end - cluster_end, flags, below)
    }

    /// Durably unlinks what an interrupted shrink left past the end.
    fn unlink_left_over(&self, start: u64, end: u64, control: &JobControl) -> Result<()> {
        let cluster = self.layout.cluster_size();
        // An image that grows within its last cluster has nothing to unlink.
        let (start, end) = (
            start.next_multiple_of(cluster),
            end.next_multiple_of(cluster),
        );
        let unlinked = {
            let _all = self.inflight.reserve(ALL);
            self.unlink_range(start, end, control)?
        };
        if unlinked {
            self.flush_all(self.durability)?;
        }
        Ok(())
    }

    /// Refuses a size that the image cannot have at this version.
    pub(super) fn check_resizable(&self, len: u64, version: u32) -> Result<()> {
        if !len.is_multiple_of(512) {
            return Err(Error::odd_new_size());
        }
        let image = self.header.lock();
        if image.header.snapshots > 0 && version < 3 {
            return Err(Error::unsupported(
                "Can't resize a v2 image which has snapshots",
            ));
        }
        if len > i64::MAX as u64 || self.layout.l1_entries(len) * 8 > MAX_L1_BYTES {
            return Err(Error::new(
                ErrorKind::Limit,
                "Failed to grow the L1 table: File too large",
            )
            .with_errno(libc::EFBIG));
        }
        drop(image);
        self.check_data_file(len)?;
        self.check_bitmap_sizes(len)
    }

    fn store_size(&self, len: u64, control: &JobControl) -> Result<()> {
        if !self.resize_bitmaps(len, control)? {
            self.update_header(|header| header.size = len)?;
            self.barrier()?;
        }
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    /// Moves the L1 table to where it has space for `count` entries. Nothing may be remapped in the meantime.
    fn grow_l1(&self, count: u64) -> Result<()> {
        let old_count = self.l1.read().entries.len() as u64;
        if count <= old_count {
            return Ok(());
        }
        let bits = self.layout.cluster_bits();
        let clusters = self.layout.clusters_for(count * 8);
        self.announce(Step::L1GrowAllocTable);
        let first = self
            .alloc_contiguous(clusters)
            .context(|| "Failed to grow the L1 table".to_owned())?;
        let offset = first << bits;
        self.cache
            .invalidate(offset, clusters * self.layout.cluster_size());
        // Everything that the present table refers to, and the refcounts of the new one.
        self.write_metadata(true, Durability::None)
            .inspect_err(|_| self.free_unused(first, clusters))?;
        let _one = self.pass.lock();
        let mut l1 = self.l1.write();
        let written = (|| {
            let len = (clusters * self.layout.cluster_size()) as usize;
            let mut bytes = memory::zeroed(len)?;
            for (index, word) in (0..old_count).zip(bytes.chunks_exact_mut(8)) {
                word.copy_from_slice(&l1.get(index).to_bytes());
            }
            self.announce(Step::L1GrowWriteTable);
            self.storage.write_at(&bytes, offset)?;
            self.barrier()?;
            let mut entries = Vec::new();
            memory::reserve(&mut entries, count as usize)?;
            let units = units_of(count as usize);
            self.l1_dirty.lock().make_room(units)?;
            entries.extend((0..count).map(|index| AtomicU64::new(l1.get(index).0)));
            Ok(entries.into_boxed_slice())
        })();
        let entries = written.inspect_err(|_| self.free_unused(first, clusters))?;
        self.announce(Step::L1GrowActivateTable);
        let moved = self
            .update_header(|header| {
                header.l1_offset = offset;
                header.l1_entries = count as u32;
            })
            .and_then(|()| self.barrier());
        if let Err(error) = moved {
            // Either table may be the active one now: updating only one would be wrong.
            self.lost.store(true, Ordering::Release);
            self.broken.store(true, Ordering::Release);
            return Err(error);
        }
        let old = l1.offset >> bits..(l1.offset >> bits) + self.layout.clusters_for(old_count * 8);
        *l1 = L1 { offset, entries };
        self.meta.set_area(Area::L1, first..first + clusters);
        self.limbo.queue(old.map(|cluster| Freed {
            cluster,
            punch: false,
        }));
        Ok(())
    }

    fn shrink(&self, len: u64, control: &JobControl) -> Result<()> {
        control.checkpoint()?;
        let cluster = self.layout.cluster_size();
        self.store_size(len, control)?;
        // What another shrink left past the former end is released too.
        let unlinked = self.unlink_range(len.next_multiple_of(cluster), self.mapped_end(), control);
        // What is cut off is lost, so this is done only once the header has the new size.
        let cut = self.cut_data_file(len);
        unlinked.and(cut).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error.with_hint(
                "The image has its new size; the next change of its size frees what lay behind.",
            ),
            _ => error.context(format!(
                "Could not free what lies behind the new end of '{}'",
                self.storage.name()
            )),
        })?;
        self.after_change(self.trim())
    }

    /// Where the range that the L1 table maps ends, in guest bytes.
    fn mapped_end(&self) -> u64 {
        let entries = self.l1.read().entries.len() as u64;
        let coverage = 1u64 << self.layout.l1_shift();
        entries.saturating_mul(coverage).min(i64::MAX as u64)
    }

    /// Unlinks everything that whole clusters past the end of the image refer to; returns whether there was anything.
    /// Nothing may be remapped in the meantime.
    fn unlink_range(&self, start: u64, end: u64, control: &JobControl) -> Result<bool> {
        let coverage = 1u64 << self.layout.l1_shift();
        let mut unlinked = false;
        let mut at = start;
        while at < end {
            control.checkpoint()?;
            let Some(table) = self.l2_table(at)? else {
                at = self.next_table(at, end);
                continue;
            };
            let next = at - at % coverage + coverage;
            if at.is_multiple_of(coverage) {
                self.announce(Step::L1ShrinkWriteTable);
                self.announce(Step::L1ShrinkFreeL2Clusters);
                self.drop_table(at, table)?;
                unlinked = true;
            } else {
                unlinked |= self.drop_entries(at, next.min(end))?;
            }
            at = next;
            self.write_back_if_full()?;
        }
        Ok(unlinked)
    }

    /// Unlinks a whole L2 table and everything that it refers to.
    pub(super) fn drop_table(&self, guest: u64, table: L1Entry) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let mut freed = Vec::new();
        for n in 0..self.layout.l2_entries() {
            let at = guest + (n << bits);
            let (slice, index) = self.l2_slice(table.offset(), at)?;
            let entry = slice.read(|words| Entry::load(words, &self.layout, index));
            self.checked_kind(entry, at)?;
            self.collect_references(entry, true, &mut freed)?;
        }
        let table_itself = Freed {
            cluster: table.offset() >> bits,
            punch: true,
        };
        memory::push(&mut freed, table_itself)?;
        // A pass has either written the table's changes, or will write that the table is gone.
        let _one = self.pass.lock();
        self.set_l1(self.layout.l1_index(guest), L1Entry::default());
        if table.copied() {
            self.cache
                .invalidate(table.offset(), self.layout.cluster_size());
        }
        self.give_up(freed);
        Ok(())
    }

    /// Empties the entries of `start..end`, which one table maps; returns whether any was not empty.
    fn drop_entries(&self, start: u64, end: u64) -> Result<bool> {
        let mut freed = Vec::new();
        let mut dropped = false;
        for at in (start..end).step_by(self.layout.cluster_size() as usize) {
            // A table that a snapshot shares is copied only if there is something to drop.
            let entry = self.entry(at)?;
            self.checked_kind(entry, at)?;
            if entry == Entry::default() {
                continue;
            }
            dropped = true;
            let (slice, index) = self.l2_slice_for_write(at)?;
            if let Err(error) = self.collect_references(entry, true, &mut freed) {
                self.give_up(freed);
                return Err(error);
            }
            self.cache.modify(&slice, |words| {
                Entry::default().store(words, &self.layout, index);
            });
        }
        self.give_up(freed);
        Ok(dropped)
    }

    /// Allocates host clusters that read as zeroes for the guest range.
    fn preallocate(
        &self,
        start: u64,
        end: u64,
        mode: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        if mode == Preallocation::Off || start >= end {
            return Ok(());
        }
        let cluster = self.layout.cluster_size();
        let span = self.layout.slice_entries() * cluster;
        if self.fills(mode) {
            control.expect(end - start);
        }
        let mut at = start;
        while at < end {
            control.checkpoint()?;
            self.write_back_if_full()?;
            let part = end.next_multiple_of(cluster).min(at - at % span + span);
            let _mine = self.inflight.reserve(at / cluster..part / cluster);
            let (slice, index) = self.l2_slice_for_write(at)?;
            let entry = slice.read(|words| Entry::load(words, &self.layout, index));
            if entry != Entry::default() {
                at += cluster;
                continue;
            }
            let empty = slice.read(|words| {
                (0..(part - at) / cluster)
                    .take_while(|n| Entry::load(words, &self.layout, index + n) == Entry::default())
                    .count() as u64
            });
            let target = self.reserve_data(at, empty)?;
            if let Err(error) = self.fill_target(&target, end, mode, control) {
                if !self.has_data_file {
                    self.free_unused(target.host >> self.layout.cluster_bits(), target.count);
                }
                return Err(error);
            }
            self.cache.modify(&slice, |words| {
                for n in 0..target.count {
                    let bitmap = if self.layout.extended_l2() {
                        SubclusterBitmap::ALL_ALLOCATED
                    } else {
                        SubclusterBitmap::default()
                    };
                    let word = L2Entry::data(target.host + n * cluster, true);
                    Entry { word, bitmap }.store(words, &self.layout, index + n);
                }
            });
            at += target.count * cluster;
        }
        Ok(())
    }

    /// Whether new clusters are filled by writing data.
    fn fills(&self, mode: Preallocation) -> bool {
        self.encrypted || (mode == Preallocation::Full && !self.data_file_grows())
    }

    /// `limit` is the new end of the image.
    fn fill_target(
        &self,
        target: &super::write::ReservedRun,
        limit: u64,
        mode: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        if self.data_file_grows() && !self.encrypted {
            // The whole new part of the file was allocated at once.
            return Ok(());
        }
        let storage = self.data_storage();
        let len = match target.count << self.layout.cluster_bits() {
            len if self.has_data_file => len.min(limit - target.guest),
            len => len,
        };
        let end = target.host + len;
        self.check_data_place(target.host, len)?;
        if self.encrypted {
            self.write_zero_data(len, target.host, target.guest)?;
            control.advance(len);
            return Ok(());
        }
        match mode {
            Preallocation::Off | Preallocation::Metadata if target.zeroed => {
                if storage.len()? < end {
                    // Not by setting the length: others may have written past this point in the meantime.
                    storage.write_at(&[0], end - 1)?;
                }
                Ok(())
            }
            Preallocation::Full => fill(&**storage, target.host, end, control),
            _ => storage.write_zeroes(target.host, len, ZeroFlags::empty()),
        }
    }
}
