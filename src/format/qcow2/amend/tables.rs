//! The L2 tables of the active state and of all snapshots.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::L1Entry;
use crate::format::qcow2::state::Qcow2;
use crate::memory;

/// Limit for the total size of L1 tables to read, per byte of the file, and a fixed allowance in bytes.
const MAX_VISITS: u64 = 16;
const FREE_VISITS: u64 = 64 << 20;
/// Maximum memory for one more table in the map of tables.
const TABLE: u64 = 1 << 10;

/// An L2 table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// The index of the L1 entries that refer to it.
    pub(super) l1_index: u64,
    /// Number of L1 tables that refer to it.
    pub(super) users: u64,
    /// The active L1 table is among them.
    pub(super) active: bool,
}

impl Qcow2 {
    /// All L2 tables by offset. Changes in memory must have been written to disk.
    pub(super) fn all_tables(&self) -> Result<BTreeMap<u64, Table>> {
        let mut tables = BTreeMap::new();
        let limit = self.storage.len()?.saturating_mul(MAX_VISITS) + FREE_VISITS;
        let l1 = self.active_l1()?;
        let mut read = l1.len() as u64 * 8;
        self.add_tables(&l1, true, &mut tables)?;
        let (snapshots, _) = self.snapshot_table()?;
        for snapshot in &snapshots {
            read += u64::from(snapshot.l1_entries) * 8;
            if read > limit {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "'{}': the L1 tables of the snapshots are larger than this file can need",
                        self.storage.name()
                    ),
                ));
            }
            self.add_tables(&self.snapshot_l1(snapshot)?, false, &mut tables)?;
        }
        Ok(tables)
    }

    fn add_tables(
        &self,
        l1: &[u64],
        active: bool,
        tables: &mut BTreeMap<u64, Table>,
    ) -> Result<()> {
        for (l1_index, word) in (0u64..).zip(l1) {
            let offset = L1Entry(*word).offset();
            if offset == 0 {
                continue;
            }
            if self.layout.in_cluster(offset) != 0 {
                return Err(self.damaged(&format!("the L2 table offset {offset:#x} is unaligned")));
            }
            if !tables.contains_key(&offset) {
                memory::headroom(TABLE)?;
            }
            let table = tables.entry(offset).or_insert(Table {
                l1_index,
                users: 0,
                active: false,
            });
            if table.l1_index != l1_index || active && table.users > 0 {
                return Err(self.damaged(&format!(
                    "the L2 table at offset {offset:#x} is named by different L1 entries"
                )));
            }
            table.users += 1;
            table.active |= active;
        }
        Ok(())
    }
}
