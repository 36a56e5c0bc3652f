//! Allocation of host clusters: a cursor over the refcounts, and growing the file at its end.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::storage::{Step, ZeroFlags};

use super::allocator::{Alloc, HostRun};
use super::cache::Class;
use super::events;
use super::overlap::Area;
use super::state::{Qcow2, units_of};

/// Limit for host offsets: tables cannot hold larger ones.
const MAX_HOST: u64 = 1 << 56;

impl Qcow2 {
    /// Allocates up to `want` contiguous host clusters, at least one, with refcount 1.
    pub(super) fn alloc_run(&self, want: u64) -> Result<HostRun> {
        self.announce(Step::ClusterAlloc);
        self.alloc_run_in(&mut self.alloc.lock(), want)
    }

    /// As [`Qcow2::alloc_run`], with the allocator's lock held by the caller.
    pub(super) fn alloc_run_in(&self, alloc: &mut Alloc, want: u64) -> Result<HostRun> {
        let bits = self.layout.cluster_bits();
        let per_block = self.counts().refcount_block_entries();
        let per_slice = self.counts().slice_refcounts();
        let mut cluster = alloc.cursor;
        self.announce(Step::RefblockAlloc);
        loop {
            self.check_host_limit(cluster + 1)?;
            let table_index = cluster / per_block;
            if alloc.block(table_index) == 0 {
                self.add_block(alloc, table_index)?;
                continue;
            }
            let Some(offset) = self.refcount_slice(alloc, cluster)? else {
                continue;
            };
            let slice = self.slice(Class::Refcount, offset)?;
            let first = cluster - cluster % per_slice;
            let free = slice.read(|words| {
                let is_free = |index: &u64| self.counts().refcount(words, *index) == 0;
                let start = (cluster - first..per_slice).find(is_free)?;
                let count = (start..per_slice).take(want as usize).take_while(is_free);
                Some((start, count.count() as u64))
            });
            let Some((start, count)) = free else {
                cluster = first + per_slice;
                alloc.cursor = cluster;
                continue;
            };
            cluster = first + start;
            self.check_allocation(cluster..cluster + count)?;
            self.set_refcounts(alloc, cluster, count, 1)?;
            alloc.cursor = cluster + count;
            events::ALLOCATE.emit(|| format!("offset={:#x} clusters={count}", cluster << bits));
            return Ok(HostRun {
                cluster,
                count,
                zeroed: alloc.note_written(cluster << bits..(cluster + count) << bits),
            });
        }
    }

    fn check_host_limit(&self, clusters: u64) -> Result<()> {
        if clusters > MAX_HOST >> self.layout.cluster_bits() {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("'{}': the image file is too large", self.storage.name()),
            ));
        }
        Ok(())
    }

    /// Refuses to hand out clusters that hold metadata, whatever their refcounts are.
    fn check_allocation(&self, clusters: Range<u64>) -> Result<()> {
        let offset = clusters.start << self.layout.cluster_bits();
        match self.meta.overlap(clusters) {
            None => Ok(()),
            Some(what) => Err(self.corruption(
                format!(
                    "Preventing invalid allocation at offset {offset:#x} (overlaps with {what})"
                ),
                offset,
            )),
        }
    }

    /// Creates a refcount block for an entry of the table that has none. The block is the first cluster of the range
    /// that it describes, so that it counts itself.
    fn add_block(&self, alloc: &mut Alloc, table_index: u64) -> Result<()> {
        if table_index >= alloc.table.len() as u64 {
            self.append_area(alloc, 0)?;
            return Ok(());
        }
        let cluster = table_index * self.counts().refcount_block_entries();
        self.check_allocation(cluster..cluster + 1)?;
        let offset = cluster << self.layout.cluster_bits();
        self.cache.invalidate(offset, self.layout.cluster_size());
        self.announce(Step::RefblockAllocWrite);
        self.storage
            .write_zeroes(offset, self.layout.cluster_size(), ZeroFlags::empty())?;
        // It counts itself on disk before any table refers to it.
        let mut own = memory::zeroed(self.layout.slice_bytes() as usize)?;
        self.counts().refcount_width().fill(&mut own, 0, 1, 1);
        self.storage.write_at(&own, offset)?;
        alloc.note_written(offset..offset + self.layout.cluster_size());
        alloc.set_block(table_index, offset);
        self.meta.add_table(cluster);
        Ok(())
    }

    /// Allocates `count` contiguous host clusters with refcount 1; returns the first.
    pub(super) fn alloc_contiguous(&self, count: u64) -> Result<u64> {
        let run = self.alloc_run(count)?;
        if run.count == count {
            return Ok(run.cluster);
        }
        self.free_unused(run.cluster, run.count);
        self.append_area(&mut self.alloc.lock(), count)
    }

    /// Appends an area where there is no refcount block yet: refcount blocks that count themselves, a larger refcount
    /// table if the present one is too short, and `count` clusters; returns the first of these.
    fn append_area(&self, alloc: &mut Alloc, count: u64) -> Result<u64> {
        let bits = self.layout.cluster_bits();
        let cluster_size = self.layout.cluster_size();
        let per_block = self.counts().refcount_block_entries();
        let used = alloc.table.iter().rposition(|entry| *entry != 0);
        let first_block = used.map_or(0, |index| index as u64 + 1);
        let per_table_cluster = self.layout.table_entries_per_cluster();
        let mut blocks = 1;
        let mut table_clusters = 0;
        let total = loop {
            let total = blocks + table_clusters + count;
            let need_blocks = total.div_ceil(per_block);
            let need_entries = first_block + need_blocks.max(blocks);
            let need_clusters = if need_entries > alloc.table.len() as u64 {
                let grown = need_entries.max(alloc.table.len() as u64 * 3 / 2);
                grown.div_ceil(per_table_cluster)
            } else {
                0
            };
            if need_blocks <= blocks && need_clusters <= table_clusters {
                break total;
            }
            blocks = blocks.max(need_blocks);
            table_clusters = table_clusters.max(need_clusters);
        };
        let start = first_block * per_block;
        self.check_host_limit(start.saturating_add(total))?;
        self.check_allocation(start..start + total)?;
        if table_clusters * cluster_size > super::disk::MAX_REFTABLE_BYTES {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "'{}': the refcount table would grow too large",
                    self.storage.name()
                ),
            ));
        }
        self.cache.invalidate(start << bits, total << bits);
        // Even a failed write may leave data there.
        alloc.note_written(start << bits..(start + total) << bits);
        self.write_blocks(start, blocks, total)?;
        for block in 0..blocks {
            self.meta.add_table(start + block);
        }
        if table_clusters > 0 {
            let table_at = start + blocks;
            self.move_table(alloc, table_at, table_clusters, first_block, blocks)?;
        } else {
            for block in 0..blocks {
                alloc.set_block(first_block + block, (start + block) << bits);
            }
        }
        Ok(start + blocks + table_clusters)
    }

    /// Writes refcount blocks at the start of an area of `total` clusters, all with refcount 1.
    fn write_blocks(&self, start: u64, blocks: u64, total: u64) -> Result<()> {
        let cluster_size = self.layout.cluster_size();
        let per_block = self.counts().refcount_block_entries();
        let width = self.counts().refcount_width();
        let mut bytes = memory::zeroed(cluster_size as usize)?;
        for block in 0..blocks {
            bytes.fill(0);
            let ones = total.saturating_sub(block * per_block).min(per_block);
            width.fill(&mut bytes, 0, ones as usize, 1);
            let offset = (start + block) << self.layout.cluster_bits();
            self.announce(Step::RefblockAllocWriteBlocks);
            self.storage.write_at(&bytes, offset)?;
        }
        Ok(())
    }

    /// Writes the refcount table, including new blocks, to its new location and switches the header to it, with a
    /// barrier on both sides.
    fn move_table(
        &self,
        alloc: &mut Alloc,
        cluster: u64,
        clusters: u64,
        first_block: u64,
        blocks: u64,
    ) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let entries = clusters * self.layout.table_entries_per_cluster();
        let mut table = Vec::new();
        memory::reserve(&mut table, alloc.table.len().max(entries as usize))?;
        table.extend_from_slice(&alloc.table);
        memory::resize(&mut table, entries as usize, 0)?;
        alloc.table_dirty.make_room(units_of(table.len()))?;
        let start = first_block * self.counts().refcount_block_entries();
        for block in 0..blocks {
            if let Some(entry) = table.get_mut((first_block + block) as usize) {
                *entry = (start + block) << bits;
            }
        }
        let bytes = memory::bytes_of(table.iter().copied())?;
        self.announce(Step::RefblockAllocWriteTable);
        self.storage.write_at(&bytes, cluster << bits)?;
        self.barrier()?;
        self.announce(Step::RefblockAllocSwitchTable);
        let moved = self
            .update_header(|header| {
                header.reftable_offset = cluster << bits;
                header.reftable_clusters = clusters as u32;
            })
            .and_then(|()| self.barrier());
        if let Err(error) = moved {
            // Either table may be the active one now: updating only one would be wrong.
            self.lost.store(true, std::sync::atomic::Ordering::Release);
            return Err(error);
        }
        let old = alloc.table_offset >> bits;
        let old_clusters = alloc.table_clusters;
        alloc.table = table;
        alloc.table_dirty.clear();
        alloc.table_offset = cluster << bits;
        alloc.table_clusters = clusters;
        self.meta
            .set_area(Area::RefcountTable, cluster..cluster + clusters);
        // Nothing on disk refers to the old table any more, and nobody reads it.
        self.drop_references(alloc, old..old + old_clusters)
    }
}
