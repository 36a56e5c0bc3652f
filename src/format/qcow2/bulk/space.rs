//! Host space from a cursor, with refcount blocks that are written once the cursor leaves them.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::{Geometry, MAX_REFTABLE_BYTES};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::storage::Storage;

use super::batch::Batch;

/// The first host offset that no table entry can hold.
const HOST_LIMIT: u64 = 1 << 56;

/// Clusters are allocated in ascending order and never freed, so that only one refcount block is open at any time.
#[derive(Debug)]
pub(super) struct HostSpace {
    geometry: Geometry,
    /// The next free cluster.
    next: u64,
    /// The open refcount block and its index in the refcount table.
    block: IoBuf,
    block_index: u64,
    /// Complete blocks before it that have no place yet: they get one where that breaks no run.
    closed: VecDeque<IoBuf>,
    /// Offsets of the blocks before those.
    written: Vec<u64>,
}

/// Where the tables of a finished image are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TablePlace {
    /// Offset of the refcount table.
    pub reftable_offset: u64,
    /// Clusters of the refcount table.
    pub reftable_clusters: u32,
    /// Offset of the L1 table.
    pub l1_offset: u64,
}

impl HostSpace {
    /// Starts with all space after the header cluster free.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn new(geometry: Geometry) -> Result<Self> {
        let mut space = Self {
            geometry,
            next: 1,
            block: memory::zeroed(geometry.cluster_size() as usize)?,
            block_index: 0,
            closed: VecDeque::new(),
            written: Vec::new(),
        };
        geometry.refcount_width().fill(&mut space.block, 0, 1, 1);
        Ok(space)
    }

    /// The next free cluster.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The refcount of `cluster`, if it can still be raised.
    pub fn count(&self, cluster: u64) -> Option<u64> {
        if !self.is_open(cluster) {
            return None;
        }
        let index = cluster % self.geometry.refcount_block_entries();
        let width = self.geometry.refcount_width();
        width.get(&self.block, index as usize)
    }

    fn is_open(&self, cluster: u64) -> bool {
        cluster / self.geometry.refcount_block_entries() == self.block_index
    }

    /// Allocates `clusters` contiguous clusters, each with refcount 1; returns the offset of the first.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`], or if a refcount block cannot be written.
    pub fn take(&mut self, clusters: u64, out: &dyn Storage) -> Result<u64> {
        while let Some(block) = self.closed.pop_front() {
            let offset = self.take_next(1)?;
            self.written.push(offset);
            out.write_at(&block, offset)?;
        }
        self.take_next(clusters)
    }

    /// As [`HostSpace::take`], but directly behind the clusters allocated last.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn take_next(&mut self, clusters: u64) -> Result<u64> {
        let first = self.next;
        self.next = self.checked_end(first, clusters)?;
        let (mut at, mut left) = (first, clusters);
        while left > 0 {
            let entries = self.geometry.refcount_block_entries();
            while self.block_index < at / entries {
                self.close_block()?;
            }
            let count = left.min(entries - at % entries);
            self.fill(at, count);
            at += count;
            left -= count;
        }
        Ok(first * self.geometry.cluster_size())
    }

    /// Raises the refcount of a cluster of the open block to `count`.
    pub fn set_count(&mut self, cluster: u64, count: u64) -> Result<()> {
        let index = cluster % self.geometry.refcount_block_entries();
        let width = self.geometry.refcount_width();
        if self.is_open(cluster) && width.set(&mut self.block, index as usize, count) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("Refcount {count} of cluster {cluster} cannot be recorded"),
        ))
    }

    /// Allocates the refcount table, the remaining refcount blocks and an L1 table of `l1_clusters`, in this order, and
    /// writes the first two.
    ///
    /// # Errors
    /// As [`HostSpace::take`].
    pub fn finish(
        &mut self,
        l1_clusters: u64,
        out: &dyn Storage,
        control: &JobControl,
    ) -> Result<TablePlace> {
        let layout = TableLayout::after(
            self.next,
            l1_clusters,
            self.written.len() as u64,
            self.geometry,
        )?;
        let cluster = self.geometry.cluster_size();
        let mut batch = Batch::new(cluster);
        let mut at = self.next;
        let mut place = self.next + layout.reftable_clusters;
        for _ in 0..layout.blocks {
            control.checkpoint()?;
            if self.closed.is_empty() {
                let entries = self.geometry.refcount_block_entries();
                let end = ((self.block_index + 1) * entries).min(layout.end);
                self.fill(at, end.saturating_sub(at));
                at = at.max(end);
                self.close_block()?;
            }
            if let Some(block) = self.closed.pop_front() {
                batch.push(place * cluster, &block, out)?;
                self.written.push(place * cluster);
            }
            place += 1;
        }
        let mut table = memory::bytes_of(self.written.iter().copied())?;
        table.resize((layout.reftable_clusters * cluster) as usize)?;
        batch.flush(out)?;
        let reftable_offset = self.next * cluster;
        out.write_at(&table, reftable_offset)?;
        self.next = layout.end;
        Ok(TablePlace {
            reftable_offset,
            reftable_clusters: layout.reftable_clusters as u32,
            l1_offset: place * cluster,
        })
    }

    fn fill(&mut self, at: u64, count: u64) {
        let index = at % self.geometry.refcount_block_entries();
        let width = self.geometry.refcount_width();
        width.fill(&mut self.block, index as usize, count as usize, 1);
    }

    fn close_block(&mut self) -> Result<()> {
        let blocks = (self.written.len() + self.closed.len()) as u64;
        if blocks >= MAX_REFTABLE_BYTES / 8 {
            return Err(too_large());
        }
        let next = memory::zeroed(self.block.len())?;
        self.closed
            .push_back(std::mem::replace(&mut self.block, next));
        self.block_index += 1;
        Ok(())
    }

    fn checked_end(&self, first: u64, clusters: u64) -> Result<u64> {
        first
            .checked_add(clusters)
            .filter(|&end| end <= HOST_LIMIT >> self.geometry.cluster_bits())
            .ok_or_else(too_large)
    }
}

/// The clusters of the tables behind the data, calculated so that the refcounts cover their own clusters.
#[derive(Debug)]
pub(in crate::format::qcow2) struct TableLayout {
    /// Clusters of the refcount table.
    pub reftable_clusters: u64,
    /// Refcount blocks beyond those already written.
    pub blocks: u64,
    /// The first cluster behind all of them.
    pub end: u64,
}

impl TableLayout {
    /// The tables that start at cluster `next`, for a file whose first `written` refcount blocks are already elsewhere;
    /// an L1 table of `l1_clusters` comes last.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn after(next: u64, l1_clusters: u64, written: u64, geometry: Geometry) -> Result<Self> {
        let (mut reftable_clusters, mut blocks) = (1, 0);
        loop {
            let end = next
                .checked_add(l1_clusters)
                .and_then(|n| n.checked_add(reftable_clusters)?.checked_add(blocks))
                .filter(|&end| end <= HOST_LIMIT >> geometry.cluster_bits())
                .ok_or_else(too_large)?;
            let all = end.div_ceil(geometry.refcount_block_entries());
            let table = all.div_ceil(geometry.table_entries_per_cluster());
            if all > MAX_REFTABLE_BYTES / 8 {
                return Err(too_large());
            }
            if all <= written + blocks && table <= reftable_clusters {
                return Ok(Self {
                    reftable_clusters,
                    blocks,
                    end,
                });
            }
            blocks = blocks.max(all.saturating_sub(written));
            reftable_clusters = reftable_clusters.max(table);
        }
    }
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::Limit,
        "The image would grow too large for its cluster size and refcount width",
    )
    .with_errno(libc::EFBIG)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tables_count_themselves(
            next in 1u64..200_000,
            l1 in 0u64..5000,
            bits in 9u32..=21,
            order in 0u32..=6,
        ) {
            let geometry = Geometry::new(bits, false, order).unwrap();
            let written = (next - 1) / geometry.refcount_block_entries();
            let layout = TableLayout::after(next, l1, written, geometry).unwrap();
            prop_assert_eq!(layout.end, next + l1 + layout.blocks + layout.reftable_clusters);
            let entries = geometry.refcount_block_entries();
            prop_assert!((written + layout.blocks) * entries >= layout.end);
            prop_assert!(layout.reftable_clusters * geometry.table_entries_per_cluster() >= written + layout.blocks);
        }
    }
}
