//! Which damaged table entries may be repaired: those whose table is surely a table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::error::Result;
use crate::format::marks::Marks;
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
    /// The clusters of L2 tables, and of L1 tables, that have something to repair.
    wanted: Marks,
    wanted_l1: Marks,
    /// Those that may be changed.
    allowed: Marks,
    allowed_l1: Marks,
    /// What is to be written: entries by offset.
    pub words: BTreeMap<u64, u64>,
    /// An entry of the table at hand points nowhere.
    pub insane: bool,
    /// The cluster of the table at hand; None where it is not aligned to one.
    table: Option<u64>,
    wish: bool,
    may: bool,
}

impl Repairs {
    /// So many entries of an L2 table follow.
    ///
    /// # Errors
    /// Where there is no memory to repair all of them.
    pub fn begin_table(&mut self, table: u64, entries: usize, geometry: Geometry) -> Result<()> {
        self.table = cluster(table, geometry);
        (self.wish, self.insane) = (false, false);
        self.may = self.table.is_some_and(|table| self.allowed.has(table));
        match self.may {
            true => memory::headroom(entries as u64 * WORD),
            false => Ok(()),
        }
    }

    /// The table is complete.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn end_table(&mut self) -> Result<()> {
        self.may = false;
        match self.table {
            Some(table) if self.wish && !self.insane => self.wanted.mark(table).map(drop),
            _ => Ok(()),
        }
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
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn l1(&mut self, table: u64, geometry: Geometry) -> Result<bool> {
        let Some(table) = cluster(table, geometry) else {
            return Ok(false);
        };
        self.wanted_l1.mark(table)?;
        let may = self.allowed_l1.has(table);
        if may {
            memory::headroom(WORD)?;
        }
        Ok(may)
    }

    /// After a walk: what the next may repair, if anything.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn next(self, counts: &ReferenceCounts, tables: &ReferenceCounts) -> Result<Option<Self>> {
        let is_table = |table| counts.get(table) == tables.get(table);
        let allowed = those(&self.wanted, is_table)?;
        let allowed_l1 = those(&self.wanted_l1, |table| counts.get(table) == 1)?;
        Ok(match (allowed, allowed_l1) {
            (None, None) => None,
            (allowed, allowed_l1) => Some(Self {
                allowed: allowed.unwrap_or_default(),
                allowed_l1: allowed_l1.unwrap_or_default(),
                ..Self::default()
            }),
        })
    }
}

/// The cluster of a table that stands where one may.
fn cluster(table: u64, geometry: Geometry) -> Option<u64> {
    let is_aligned = geometry.in_cluster(table) == 0;
    (is_aligned && table != 0).then(|| geometry.cluster_of(table))
}

/// The tables of which `may` says so, if there are any.
fn those(tables: &Marks, may: impl Fn(u64) -> bool) -> Result<Option<Marks>> {
    let (mut found, mut failed) = (None, Ok(()));
    let _ = tables.each_from(0, |table| {
        if may(table) {
            let marked = found.get_or_insert_with(Marks::default).mark(table);
            failed = marked.map(drop);
        }
        match failed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    failed.map(|()| found)
}
