//! Which damaged table entries may be repaired: those whose table is surely a table.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::format::qcow2::disk::Geometry;
use crate::memory::{self, IoBuf};

use super::reference_counts::ReferenceCounts;

/// Bytes that an entry to be written takes, at most.
const WORD: u64 = 64;

/// What one walk may repair, or what a walk that only looks would like to.
///
/// Nothing else may stand in the clusters of a table that is changed, and none of its entries may
/// point nowhere: else it may be guest data that a damaged entry takes for a table.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// L2 tables, by offset, and L1 tables that have something to repair.
    wanted: BTreeSet<u64>,
    wanted_l1: BTreeSet<u64>,
    /// Those that may be changed.
    allowed: BTreeSet<u64>,
    allowed_l1: BTreeSet<u64>,
    /// What is to be written: entries by offset.
    pub words: BTreeMap<u64, u64>,
    /// An entry of the table at hand points nowhere.
    pub insane: bool,
    table: u64,
    wish: bool,
    may: bool,
}

impl Repairs {
    /// So many entries of an L2 table follow.
    ///
    /// # Errors
    /// Where there is no memory to repair all of them.
    pub fn begin_table(&mut self, table: u64, entries: usize) -> Result<()> {
        (self.table, self.wish, self.insane) = (table, false, false);
        self.may = self.allowed.contains(&table);
        match self.may {
            true => memory::headroom(entries as u64 * WORD),
            false => Ok(()),
        }
    }

    /// The table is complete.
    pub fn end_table(&mut self) {
        if self.wish && !self.insane {
            self.wanted.insert(self.table);
        }
        self.may = false;
    }

    /// An L2 table as it will be, where it was visited before and something in it is repaired.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn overlaid(&self, at: u64, table: &[u8]) -> Result<Option<IoBuf>> {
        let mut words = self
            .words
            .range(at..at.saturating_add(table.len() as u64))
            .peekable();
        if words.peek().is_none() {
            return Ok(None);
        }
        let mut copy = memory::copied(table)?;
        for (place, word) in words {
            let start = (place - at) as usize;
            if let Some(slot) = copy.get_mut(start..start + 8) {
                slot.copy_from_slice(&word.to_be_bytes());
            }
        }
        Ok(Some(copy))
    }

    /// Whether the entry at hand, which is damaged in a way that has one cure, is repaired.
    pub fn l2(&mut self) -> bool {
        self.wish = true;
        self.may
    }

    /// The same for an entry of the L1 table at that offset.
    pub fn l1(&mut self, table: u64) -> bool {
        self.wanted_l1.insert(table);
        self.allowed_l1.contains(&table)
    }

    /// After a walk: what the next may repair, if anything.
    pub fn next(
        self,
        counts: &ReferenceCounts,
        tables: &ReferenceCounts,
        geometry: Geometry,
    ) -> Option<Self> {
        let cluster = |table: &u64| geometry.cluster_of(*table);
        let allowed: BTreeSet<u64> = self
            .wanted
            .into_iter()
            .filter(|table| geometry.in_cluster(*table) == 0)
            .filter(|table| *table != 0)
            .filter(|table| counts.get(cluster(table)) == tables.get(cluster(table)))
            .collect();
        let allowed_l1: BTreeSet<u64> = self
            .wanted_l1
            .into_iter()
            .filter(|table| counts.get(cluster(table)) == 1)
            .collect();
        if allowed.is_empty() && allowed_l1.is_empty() {
            return None;
        }
        Some(Self {
            allowed,
            allowed_l1,
            ..Self::default()
        })
    }
}
