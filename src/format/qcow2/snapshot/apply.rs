//! Making a snapshot's contents the current ones.

use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BStr;

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{L1Entry, MAX_L1_BYTES, SnapshotEntry};
use crate::format::qcow2::overlap::Area;
use crate::format::qcow2::state::{L1, Qcow2, units_of};
use crate::format::qcow2::table_place::TablePlace;
use crate::job::JobControl;
use crate::memory;
use crate::storage::Durability;

use super::table::position;

impl Qcow2 {
    /// See [`crate::format::Snapshots::apply`]; nothing else may be remapped in the meantime.
    pub(super) fn apply_snapshot(&self, id: &BStr, control: &JobControl) -> Result<()> {
        self.write_out_and_reclaim()?;
        let (entries, _) = self.snapshot_table()?;
        let at = position(&entries, id)?;
        let Some(entry) = entries.get(at) else {
            return Err(Self::no_snapshot(id));
        };
        let size = self.size_of(entry)?;
        if size != self.virtual_size() {
            self.complete_snapshots()?;
        }
        let mut tables = self.snapshot_l1(entry)?;
        // Everything that the current state refers to must be valid before anything changes.
        let old_tables = self.active_l1()?;
        self.visit_tree(&old_tables, control, |_, _| Ok(()))?;
        self.raise_tree(&tables, control)?;
        let prepared = self.prepare_tables(&mut tables, size, control);
        let place = match prepared {
            Ok(place) => place,
            Err(error) => {
                let _ = self.lower_tree(&tables, &JobControl::default());
                return Err(error);
            }
        };
        self.switch_tables(&tables, place, size)?;
        // Nothing on disk refers to the former tables, and soon nobody reads what they refer to.
        self.drain();
        let never = JobControl::default();
        let ended = self.lower_tree(&old_tables, self.ends_lowering(control, &never));
        let ended = ended.inspect_err(|_| {
            // The original error is the one to report.
            let _ = self.leave_uncounted();
        });
        ended
            .and_then(|()| self.flush_all(self.durability))
            .map_err(|error| {
                error.context("It is applied, but what the former contents held is not freed")
            })
    }

    /// The virtual size that a snapshot records.
    fn size_of(&self, entry: &SnapshotEntry) -> Result<u64> {
        let current = self.virtual_size();
        let size = entry.extra.disk_size.unwrap_or(current);
        if size == current {
            return Ok(size);
        }
        if self.version() < 3 {
            return Err(Error::unsupported(
                "Can't resize a v2 image which has snapshots",
            ));
        }
        if size > i64::MAX as u64
            || !size.is_multiple_of(512)
            || self.layout.l1_entries(size) * 8 > MAX_L1_BYTES
        {
            return Err(Error::corrupt("The snapshot records an impossible size"));
        }
        Ok(size)
    }

    /// Clears the COPIED flags of tables that are now shared, and writes the new L1 table.
    fn prepare_tables(
        &self,
        tables: &mut Vec<u64>,
        size: u64,
        control: &JobControl,
    ) -> Result<TablePlace> {
        for word in tables.iter_mut() {
            control.checkpoint()?;
            let entry = L1Entry(*word);
            if entry.offset() != 0 {
                self.mark_table(entry.offset(), true)?;
                *word = L1Entry::new(entry.offset(), false).0;
            }
        }
        let need = usize::try_from(self.layout.l1_entries(size).max(1)).unwrap_or(usize::MAX);
        if tables.len() < need {
            memory::resize(tables, need, 0)?;
        }
        let place = self.write_area(memory::bytes_of(tables.iter().copied())?)?;
        if let Err(error) = self.write_metadata(true, Durability::None) {
            self.forget(place);
            return Err(error);
        }
        Ok(place)
    }

    /// Switches the header to the new L1 table.
    fn switch_tables(&self, tables: &[u64], place: TablePlace, size: u64) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let _one = self.pass.lock();
        let mut l1 = self.l1.write();
        let entries = memory::collect(tables.iter().map(|word| AtomicU64::new(*word)))?;
        self.l1_dirty.lock().make_room(units_of(entries.len()))?;
        self.switch_header(|header| {
            header.l1_offset = place.offset;
            header.l1_entries = tables.len() as u32;
            header.size = size;
        })?;
        let old = TablePlace {
            offset: l1.offset,
            first: l1.offset >> bits,
            clusters: self.layout.clusters_for(l1.entries.len() as u64 * 8),
        };
        *l1 = L1 {
            offset: place.offset,
            entries: entries.into_boxed_slice(),
        };
        self.size.store(size, Ordering::Release);
        self.l1_dirty.lock().clear();
        self.meta
            .set_area(Area::L1, place.first..place.first + place.clusters);
        for word in tables {
            let table = L1Entry(*word).offset();
            if table != 0 {
                self.meta.add_table(table >> bits);
            }
        }
        drop(l1);
        self.release(old);
        Ok(())
    }
}
