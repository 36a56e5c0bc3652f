//! Internal snapshots: created, applied, deleted, and read.
//!
//! Each change is written beside the old structures, with refcounts that cover both, and takes effect by one write of
//! the header; only then are references dropped. As COPIED flags and refcounts of the active tables cannot change in
//! one write, version 3 has the dirty bit set in the meantime.

mod apply;
mod create;
mod delete;
mod table;
mod tree;
mod view;
pub(super) mod views;

pub(super) use tree::By;

use std::sync::atomic::Ordering;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Format, NewSnapshot, Snapshots};
use crate::job::JobControl;

use crate::storage::Durability;

use super::disk::Incompatible;
use super::state::Qcow2;

/// All guest clusters: nothing else remaps any while a snapshot changes.
const ALL: std::ops::Range<u64> = 0..u64::MAX;

impl Snapshots for Qcow2 {
    fn create(&self, snapshot: &NewSnapshot, control: &JobControl) -> Result<BString> {
        self.check_snapshots()?;
        let _one = self.reshaping.lock();
        let _all = self.inflight.reserve(ALL);
        self.create_snapshot(snapshot, control)
    }

    fn apply(&self, id: &BStr, control: &JobControl) -> Result<()> {
        self.check_snapshots()?;
        let _one = self.reshaping.lock();
        if self.has_bitmaps()? {
            // They would not reflect the change of contents.
            return Err(Error::unsupported("Device has active dirty bitmaps"));
        }
        self.prepare_write()?;
        let _all = self.inflight.reserve(ALL);
        self.apply_snapshot(id, control)
    }

    fn delete(&self, id: &BStr, control: &JobControl) -> Result<()> {
        self.check_snapshots()?;
        let _one = self.reshaping.lock();
        let _all = self.inflight.reserve(ALL);
        self.delete_snapshot(id, control)
    }

    fn view(&self, id: &BStr) -> Result<Box<dyn Format>> {
        let _one = self.reshaping.lock();
        Ok(Box::new(self.view_snapshot(id)?))
    }
}

impl Qcow2 {
    /// Refuses to change snapshots if that is not possible.
    fn check_snapshots(&self) -> Result<()> {
        self.check_writable()?;
        if self.has_data_file {
            return Err(Error::unsupported("Operation not supported").with_errno(libc::ENOTSUP));
        }
        Ok(())
    }

    /// Writes out the state in memory, and leaves no cluster waiting to be freed. No barrier is implied at the end.
    pub(in crate::format::qcow2) fn write_out_and_reclaim(&self) -> Result<()> {
        if self.lazy() {
            // The dirty bit stays set until the image is closed.
            self.prepare_write()?;
        }
        self.check_lost()?;
        self.write_metadata(true, Durability::None)?;
        self.reclaim_all()?;
        self.write_metadata(true, Durability::None)
    }

    /// Sets the dirty bit for a change of flags and refcounts; returns whether it was not set before.
    pub(in crate::format::qcow2) fn begin_flags(&self) -> Result<bool> {
        let image = self.header.lock();
        let set = image.header.incompatible.contains(Incompatible::DIRTY);
        drop(image);
        if self.version() < 3 || set {
            return Ok(false);
        }
        self.set_dirty()?;
        Ok(true)
    }

    /// Writes the changes of flags and refcounts and, if `begun`, clears the dirty bit.
    pub(in crate::format::qcow2) fn end_flags(&self, begun: bool) -> Result<()> {
        self.write_flags()?;
        self.barrier()?;
        if begun {
            self.update_header(|header| header.incompatible -= Incompatible::DIRTY)?;
        }
        Ok(())
    }

    /// The control for dropping references that nothing holds any more. If cancelled without a dirty bit, they would be
    /// leaked, so in version 2 it cannot be cancelled.
    fn ends_lowering<'a>(&self, control: &'a JobControl, never: &'a JobControl) -> &'a JobControl {
        match self.version() {
            ..3 => never,
            _ => control,
        }
    }

    /// Ends a change after which refcounts are too high and COPIED flags are missing: the dirty bit stays set, so that
    /// the next open for writing rebuilds both.
    fn leave_uncounted(&self) -> Result<()> {
        self.uncounted.store(true, Ordering::Release);
        self.begin_flags().map(drop)
    }

    /// Switches the header to something new, with a barrier on both sides. After a failure it is unknown which of the
    /// two it refers to: no more writes are allowed then.
    fn switch_header(&self, change: impl FnOnce(&mut super::disk::Header)) -> Result<()> {
        self.barrier()?;
        self.note_header_change(self.update_header(change).and_then(|()| self.barrier()))
    }

    /// Waits for the completion of all I/O that looked up its host clusters before now.
    fn drain(&self) {
        let _one = self.reclaiming.lock();
        self.limbo.wait_for_users();
    }

    /// The error for a snapshot that does not exist.
    fn no_snapshot(id: &BStr) -> Error {
        Error::new(ErrorKind::NotFound, format!("There is no snapshot '{id}'"))
            .with_errno(libc::ENOENT)
    }
}
