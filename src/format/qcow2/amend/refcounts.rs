//! Changing the refcount width: a new table and new blocks are written beside the old ones, and the header switches to
//! them in one step; only then are the old ones freed.
//!
//! They go behind everything that is in use, so that a crash before the switch leaves a longer file, and one after it
//! leaks the clusters of the old structures.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::allocator::Alloc;
use crate::format::qcow2::bulk::space::TableLayout;
use crate::format::qcow2::disk::{Geometry, RefcountTableEntry, RefcountWidth};
use crate::format::qcow2::overlap::Area;
use crate::format::qcow2::state::{Qcow2, units_of};
use crate::job::Job;
use crate::memory::{self, IoBuf};
use crate::storage::Preallocation;

use super::ALL;

/// The new structures.
struct New {
    geometry: Geometry,
    /// First cluster of the table; the blocks follow it.
    start: u64,
    place: TableLayout,
}

impl New {
    /// The clusters of the table.
    fn table(&self) -> Range<u64> {
        self.start..self.start + self.place.reftable_clusters
    }

    /// The clusters of the blocks.
    fn blocks(&self) -> Range<u64> {
        let first = self.start + self.place.reftable_clusters;
        first..first + self.place.blocks
    }
}

impl Qcow2 {
    /// Changes the width of all refcounts.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a refcount does not fit, [`ErrorKind::Limit`], or if I/O fails: the image is unchanged
    /// then, unless the header could not be written.
    pub(super) fn change_refcount_width(&self, width: RefcountWidth, job: &mut Job) -> Result<()> {
        let _all = self.inflight.reserve(ALL);
        self.write_out_and_reclaim()?;
        self.barrier()?;
        let _one = self.pass.lock();
        let alloc = &mut *self.alloc.lock();
        let old_len = self.storage.len()?;
        job.control().set_total(alloc.table.len() as u64 * 2);
        let end = self.check_counts(alloc, width, job)?;
        let geometry = self.layout.with_refcount_width(width);
        let start = if self.storage.limits().fixed_len {
            end
        } else {
            end.max(geometry.clusters_for(old_len))
        };
        let new = New {
            geometry,
            start,
            place: TableLayout::after(start, 0, 0, geometry)?,
        };
        let written = self
            .write_structures(alloc, &new, job)
            .and_then(|table| self.barrier().map(|()| table));
        let table = match written {
            Ok(table) => table,
            Err(error) => {
                // What cannot be cut off is unreferenced space, but it no longer reads as zeroes.
                alloc.high_water = alloc
                    .high_water
                    .max(new.place.end << self.layout.cluster_bits());
                if !self.storage.limits().fixed_len {
                    // Writes in place may have extended the file up to the end of the last cluster.
                    let kept = self
                        .storage
                        .len()?
                        .min(new.start << self.layout.cluster_bits());
                    let _ = self.storage.set_len(kept, Preallocation::Off);
                }
                return Err(error);
            }
        };
        self.switch_structures(alloc, &new, table)
    }

    /// Checks that all refcounts fit into the width; returns the first cluster behind all those in use.
    fn check_counts(&self, alloc: &Alloc, width: RefcountWidth, job: &mut Job) -> Result<u64> {
        let old = self.counts().refcount_width();
        let per_block = self.counts().refcount_block_entries();
        let mut end = 1;
        for index in 0..alloc.table.len() as u64 {
            job.tick()?;
            job.control().advance(1);
            let Some(block) = self.old_block(alloc, index)? else {
                continue;
            };
            for within in 0..per_block {
                let count = old.get(&block, within as usize).unwrap_or(0);
                let cluster = index * per_block + within;
                if count > width.max() {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!(
                            "Cannot decrease refcount entry width to {} bits: Cluster at offset \
                             {:#x} has a refcount of {count}",
                            width.bits(),
                            cluster << self.layout.cluster_bits()
                        ),
                    )
                    .with_errno(libc::EINVAL));
                }
                if count > 0 {
                    end = cluster + 1;
                }
            }
        }
        Ok(end)
    }

    /// A refcount block as stored on disk; None if there is none.
    fn old_block(&self, alloc: &Alloc, index: u64) -> Result<Option<IoBuf>> {
        let offset = alloc.block(index);
        if offset == 0 {
            return Ok(None);
        }
        if self.layout.in_cluster(offset) != 0 {
            return Err(self.damaged(&format!(
                "the refcount block offset {offset:#x} is unaligned"
            )));
        }
        let mut block = memory::zeroed(self.layout.cluster_size() as usize)?;
        self.storage.read_at(&mut block, offset)?;
        Ok(Some(block))
    }

    /// Writes the new blocks, which count themselves and the new table in addition to all that was counted before, then
    /// the table; returns its entries.
    fn write_structures(&self, alloc: &Alloc, new: &New, job: &mut Job) -> Result<Vec<u64>> {
        let cluster = self.layout.cluster_size();
        let (old, width) = (self.counts(), new.geometry.refcount_width());
        let (old_per_block, per_block) = (
            old.refcount_block_entries(),
            new.geometry.refcount_block_entries(),
        );
        let mut held: Option<(u64, Option<IoBuf>)> = None;
        let mut block = memory::zeroed(cluster as usize)?;
        let mut table = Vec::new();
        for (index, place) in new.blocks().enumerate() {
            job.tick()?;
            block.fill(0);
            let first = index as u64 * per_block;
            for counted in first..(first + per_block).min(new.place.end) {
                let count = if counted >= new.start {
                    1
                } else {
                    let wanted = counted / old_per_block;
                    if held.as_ref().is_none_or(|(index, _)| *index != wanted) {
                        held = Some((wanted, self.old_block(alloc, wanted)?));
                        job.control().advance(1);
                    }
                    let block = held.as_ref().and_then(|(_, block)| block.as_deref());
                    let within = (counted % old_per_block) as usize;
                    block
                        .and_then(|block| old.refcount_width().get(block, within))
                        .unwrap_or(0)
                };
                if count > 0 && !width.set(&mut block, (counted - first) as usize, count) {
                    return Err(self.damaged("a refcount changed while it was read"));
                }
            }
            self.storage.write_at(&block, place * cluster)?;
            memory::push(&mut table, place * cluster)?;
        }
        let clusters = new.place.reftable_clusters;
        let entries = clusters * new.geometry.table_entries_per_cluster();
        memory::resize(&mut table, entries as usize, 0)?;
        let bytes = memory::bytes_of(table.iter().copied())?;
        self.storage.write_at(&bytes, new.start * cluster)?;
        Ok(table)
    }

    /// Switches the header to the new structures, then releases the old ones.
    fn switch_structures(&self, alloc: &mut Alloc, new: &New, table: Vec<u64>) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let order = new.geometry.refcount_width().order();
        alloc.table_dirty.make_room(units_of(table.len()))?;
        let switched = self
            .update_header(|header| {
                header.reftable_offset = new.start << bits;
                header.reftable_clusters = new.place.reftable_clusters as u32;
                header.refcount_order = order;
            })
            .and_then(|()| self.barrier());
        if let Err(error) = switched {
            self.give_up_writing();
            return Err(error);
        }
        let old_table = alloc.table_offset >> bits;
        let blocks = alloc.table.iter();
        let blocks = blocks.map(|entry| RefcountTableEntry(*entry).offset() >> bits);
        let blocks = blocks.filter(|cluster| *cluster != 0);
        let freed = old_table..old_table + alloc.table_clusters;
        for cluster in freed.clone().chain(blocks) {
            // Slices of the old width must not be found again.
            let len = self.layout.cluster_size();
            self.cache.invalidate(cluster << bits, len);
            self.meta.remove_table(cluster);
        }
        let clusters = new.place.end - new.start;
        self.cache.invalidate(new.start << bits, clusters << bits);
        self.refcount_order.store(order, Ordering::Release);
        let old = std::mem::replace(&mut alloc.table, table);
        alloc.table_dirty.clear();
        alloc.table_offset = new.start << bits;
        alloc.table_clusters = new.place.reftable_clusters;
        alloc.high_water = alloc.high_water.max(new.place.end << bits);
        for block in new.blocks() {
            self.meta.add_table(block);
        }
        self.meta.set_area(Area::RefcountTable, new.table());
        let blocks = old.iter();
        let blocks = blocks.map(|entry| RefcountTableEntry(*entry).offset() >> bits);
        let freed = freed.chain(blocks.filter(|cluster| *cluster != 0));
        self.after_change(self.drop_references(alloc, freed))
    }
}
