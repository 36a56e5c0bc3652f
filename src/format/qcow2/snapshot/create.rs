//! Recording the current state as a snapshot.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::format::NewSnapshot;
use crate::format::qcow2::disk::{
    Incompatible, L1Entry, MAX_SNAPSHOTS, SnapshotEntry, SnapshotExtra,
};
use crate::format::qcow2::state::Qcow2;
use crate::format::qcow2::table_place::TablePlace;
use crate::job::JobControl;
use crate::memory;
use crate::storage::Durability;

impl Qcow2 {
    /// See [`crate::format::Snapshots::create`]; nothing else may be remapped in the meantime.
    pub(super) fn create_snapshot(
        &self,
        new: &NewSnapshot,
        control: &JobControl,
    ) -> Result<BString> {
        self.write_out_and_reclaim()?;
        let (mut entries, old) = self.snapshot_table()?;
        if entries.len() as u64 >= u64::from(MAX_SNAPSHOTS) {
            return Err(Error::new(ErrorKind::Limit, "File too large").with_errno(libc::EFBIG));
        }
        if new.name.len() > usize::from(u16::MAX) {
            return Err(Error::invalid("The name of the snapshot is too long"));
        }
        let id = next_id(&entries);
        let mut tables = self.active_l1()?;
        for word in &mut tables {
            *word &= !L1Entry::COPIED;
        }
        let l1 = self.write_area(memory::bytes_of(tables.iter().copied())?)?;
        entries.push(self.new_entry(new, id.as_bstr(), l1, tables.len() as u32));
        let place = self
            .write_snapshot_table(&mut entries)
            .inspect_err(|_| self.forget(l1))?;
        let begun = match self.raise_all(&tables, control) {
            Ok(begun) => begun,
            Err(error) => {
                self.forget(place);
                self.forget(l1);
                return Err(error);
            }
        };
        // From here on a failure leaks references, which the dirty bit indicates.
        self.write_flags()?;
        self.switch_header(|header| {
            Self::point(header, &entries, place);
            if begun {
                header.incompatible -= Incompatible::DIRTY;
            }
        })?;
        self.protect_snapshots(&entries, place);
        let freed = self.release_at_once(old);
        self.after_change(freed.and_then(|()| self.flush_all(self.durability)))?;
        Ok(id)
    }

    /// Adds a reference to everything that the active tables reach, under the dirty bit; returns whether that was not
    /// set before.
    fn raise_all(&self, tables: &[u64], control: &JobControl) -> Result<bool> {
        // The refcounts of what was allocated are covered by the same barrier as the dirty bit.
        self.write_metadata(true, Durability::None)?;
        let begun = self.begin_flags()?;
        let raised = self
            .unmark(control)
            .and_then(|()| self.raise_tree(tables, control));
        if let Err(error) = raised {
            // All references have been dropped again: the image is as it was once the flags are restored.
            self.mark_active(false, &JobControl::default())?;
            self.end_flags(begun)?;
            return Err(error);
        }
        Ok(begun)
    }

    /// Clears all COPIED flags of the active tables.
    ///
    /// They are cleared no later than the references are added: a missing flag costs a copy, a leftover flag costs the
    /// snapshot. Version 2 has no dirty bit that would indicate it, so there they are cleared first in the file too.
    fn unmark(&self, control: &JobControl) -> Result<()> {
        self.mark_active(true, control)?;
        if self.version() < 3 {
            self.write_metadata(true, Durability::None)?;
            self.barrier()?;
        }
        // Writes in place that saw a COPIED flag must have completed.
        self.drain();
        Ok(())
    }

    fn new_entry(
        &self,
        new: &NewSnapshot,
        id: &BStr,
        l1: TablePlace,
        entries: u32,
    ) -> SnapshotEntry {
        SnapshotEntry {
            l1_offset: l1.offset,
            l1_entries: entries,
            id: id.to_vec(),
            name: new.name.to_vec(),
            date_sec: new.date_sec,
            date_nsec: new.date_nsec,
            vm_clock_nsec: 0,
            vm_state_size_32: 0,
            extra: SnapshotExtra {
                vm_state_size: Some(0),
                disk_size: Some(self.virtual_size()),
                icount: Some(0),
                rest: Vec::new(),
            },
        }
    }
}

/// The highest ID plus 1.
fn next_id(entries: &[SnapshotEntry]) -> BString {
    let highest = entries
        .iter()
        .map(|entry| leading_number(&entry.id))
        .max()
        .unwrap_or(0);
    highest.saturating_add(1).to_string().into()
}

/// The number at the start of an ID; 0 if there is none.
fn leading_number(id: &[u8]) -> u64 {
    id.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0u64, |value, byte| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
}
