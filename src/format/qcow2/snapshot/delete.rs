//! Deleting a snapshot.

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::SnapshotEntry;
use crate::format::qcow2::state::Qcow2;
use crate::format::qcow2::table_place::TablePlace;
use crate::job::JobControl;
use crate::storage::Durability;

use super::table::position;
use super::tree::By;

impl Qcow2 {
    /// See [`crate::format::Snapshots::delete`]; nothing else may be remapped in the meantime.
    pub(super) fn delete_snapshot(&self, id: &BStr, control: &JobControl) -> Result<()> {
        self.write_out_and_reclaim()?;
        let (mut entries, old) = self.snapshot_table()?;
        let at = position(&entries, id)?;
        self.views.check_unused(id)?;
        let entry = entries.remove(at);
        let tables = self.snapshot_l1(&entry)?;
        // What is released must be valid before anything changes.
        self.visit_tree(&tables, control, |_, clusters| {
            self.check_lowering(clusters)
        })?;
        let place = self.write_snapshot_table(&mut entries)?;
        let written = self
            .write_metadata(true, Durability::None)
            .and_then(|()| self.begin_flags());
        let begun = match written {
            Ok(begun) => begun,
            Err(error) => {
                self.forget(place);
                return Err(error);
            }
        };
        self.switch_header(|header| Self::point(header, &entries, place))?;
        self.protect_snapshots(&entries, place);
        let never = JobControl::default();
        let ended = self
            .lower_tree(&tables, self.ends_lowering(control, &never))
            .and_then(|()| self.end_delete(&entry, old, begun, control));
        ended.map_err(|error| {
            if self.version() < 3 {
                // No dirty bit will indicate that flags are missing: a retry may succeed.
                let _ = self.settle(begun, &never);
            }
            // The original error is the one to report.
            let _ = self.leave_uncounted();
            error.context("It is deleted, but what it held alone is not freed")
        })
    }

    /// Releases the tables that led to the snapshot, and sets the flags of what it shared.
    fn end_delete(
        &self,
        entry: &SnapshotEntry,
        old: TablePlace,
        begun: bool,
        control: &JobControl,
    ) -> Result<()> {
        let never = JobControl::default();
        self.release_at_once(old)?;
        self.release_at_once(TablePlace {
            offset: entry.l1_offset,
            first: entry.l1_offset >> self.layout.cluster_bits(),
            clusters: self.layout.clusters_for(u64::from(entry.l1_entries) * 8),
        })?;
        self.settle(begun, self.ends_lowering(control, &never))
    }

    /// Sets the flags of what the snapshot shared, after the refcounts.
    fn settle(&self, begun: bool, control: &JobControl) -> Result<()> {
        if self.version() < 3 {
            // No dirty bit indicates that flags are ahead of the refcounts.
            self.write_metadata(true, Durability::None)?;
            self.barrier()?;
        }
        self.mark_active(false, control)?;
        self.end_flags(begun)?;
        self.flush_all(self.durability)
    }

    /// Refuses a table whose clusters have fewer references than it holds.
    fn check_lowering(&self, clusters: &mut [u64]) -> Result<()> {
        clusters.sort_unstable();
        self.check_references(clusters, By::Lower)
            .map_err(|error: Error| match error.kind() {
                ErrorKind::Corrupt => error.context("The snapshot's tables are damaged"),
                _ => error,
            })
    }
}
