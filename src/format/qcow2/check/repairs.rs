//! Which damaged table entries may be repaired: those in what is certainly a table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::error::Result;
use crate::format::marks::Marks;
use crate::format::qcow2::disk::Geometry;
use crate::memory::{self, IoBuf};

use super::reference_counts::ReferenceCounts;

/// Maximum memory for an entry to be written.
const WORD: u64 = 64;

/// What one walk may repair, or what a walk that only examines would repair.
///
/// The clusters of a table that is changed may hold nothing else, and none of its entries may point nowhere: otherwise
/// it may be guest data to which a damaged entry refers as a table.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// The clusters of L2 tables, and of L1 tables, with something to repair.
    wanted: Marks,
    wanted_l1: Marks,
    /// Those that may be changed.
    allowed: Marks,
    allowed_l1: Marks,
    /// Entries to write, by offset.
    pub words: BTreeMap<u64, u64>,
    /// An entry of the current table points nowhere.
    pub insane: bool,
    /// The cluster of the current table; None if it is not aligned.
    table: Option<u64>,
    wish: bool,
    may: bool,
}

impl Repairs {
    /// Begins an L2 table with this many entries.
    ///
    /// # Errors
    /// If there is not enough memory to repair all of them.
    pub fn begin_table(&mut self, table: u64, entries: usize, geometry: Geometry) -> Result<()> {
        self.table = cluster(table, geometry);
        (self.wish, self.insane) = (false, false);
        self.may = self.table.is_some_and(|table| self.allowed.has(table));
        match self.may {
            true => memory::headroom(entries as u64 * WORD),
            false => Ok(()),
        }
    }

    /// Ends the table.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn end_table(&mut self) -> Result<()> {
        self.may = false;
        match self.table {
            Some(table) if self.wish && !self.insane => self.wanted.mark(table).map(drop),
            _ => Ok(()),
        }
    }

    /// An L2 table as it will be, if it was visited before and something in it is repaired.
    ///
    /// # Errors
    /// If memory cannot be allocated for it.
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

    /// Whether the current entry, whose damage has only one remedy, is repaired.
    pub fn l2(&mut self) -> bool {
        self.wish = true;
        self.may
    }

    /// The same for an entry of the L1 table at this offset.
    ///
    /// # Errors
    /// If memory cannot be allocated.
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

    /// After a walk: what the next one may repair, if anything.
    ///
    /// # Errors
    /// If memory cannot be allocated.
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

/// The cluster of a table at a valid offset.
fn cluster(table: u64, geometry: Geometry) -> Option<u64> {
    let is_aligned = geometry.in_cluster(table) == 0;
    (is_aligned && table != 0).then(|| geometry.cluster_of(table))
}

/// Those tables for which `may` returns true, if there are any.
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
