//! The state of the allocator: what is known about the host clusters of an open image.

use std::ops::Range;

use crate::format::units::Units;

use super::partial::PartialClusters;

/// Table entries per unit of writing: one 512-byte sector.
pub(super) const L1_UNIT: u64 = 64;

/// The allocator's state, protected by one lock that is held briefly.
#[derive(Debug, Default)]
pub(super) struct Alloc {
    /// The refcount table: offsets of refcount blocks.
    pub(super) table: Vec<u64>,
    pub(super) table_offset: u64,
    pub(super) table_clusters: u64,
    /// Units of 64 entries of the refcount table that differ from the disk.
    pub(super) table_dirty: Units,
    /// No cluster below this one is free.
    pub(super) cursor: u64,
    /// Host bytes from here on have never been written: they read as zeroes.
    pub(super) high_water: u64,
    /// Where the next compressed data may go.
    pub(super) partial: PartialClusters,
}

/// A run of host clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostRun {
    /// Index of the first cluster.
    pub(super) cluster: u64,
    /// Number of clusters.
    pub(super) count: u64,
    /// They read as zeroes, because nothing has ever been written there.
    pub(super) zeroed: bool,
}

impl Alloc {
    /// The offset of a refcount block; 0 if there is none.
    pub(super) fn block(&self, index: u64) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get(index))
            .map_or(0, |entry| entry & !0x1ff)
    }

    /// Sets the offset of a refcount block; the next pass writes the entry.
    pub(super) fn set_block(&mut self, index: u64, offset: u64) {
        if let Some(entry) = usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get_mut(index))
        {
            *entry = offset;
            self.table_dirty.add(index / L1_UNIT);
        }
    }

    /// Records that the refcount of a cluster fell to 0.
    pub(super) fn became_free(&mut self, cluster: u64) {
        self.cursor = self.cursor.min(cluster);
        self.partial.forget(cluster);
    }

    /// Counts host bytes as written from now on; returns whether they had never been written before.
    pub(super) fn note_written(&mut self, bytes: Range<u64>) -> bool {
        let zeroed = bytes.start >= self.high_water;
        self.high_water = self.high_water.max(bytes.end);
        zeroed
    }
}
