//! The consistency check: refcounts against references, alignment, reserved bits, COPIED flags.
//!
//! It reads the file itself, not through the caches of an open image, which must be flushed.
//! Work is bounded by the length of the file, memory by the references found.

mod bitmaps;
mod compare;
mod file;
mod image;
mod rebuild;
mod reference_counts;
mod repair;
mod repairs;
mod report;
mod snapshots;
mod stored_refcounts;
mod walk;

pub use rebuild::rebuild_refcounts;

use crate::error::Result;
use crate::format::qcow2::disk::{Geometry, ImageHeader};
use crate::format::{CheckReport, RepairMode};
use crate::job::Job;
use crate::storage::{Durability, Storage};

use bitmaps::BitmapRepair;
use snapshots::Snapshots;
use walk::{CheckedFile, Role, Walker};

/// Checks the image; each finding becomes a note of `job`. Nothing is written.
///
/// `header` must have passed [`crate::format::qcow2::disk::Header::validate`] for a check.
///
/// # Errors
/// If the check cannot be carried out, with the errno of QEMU's message; or if I/O fails.
pub fn check(storage: &dyn Storage, header: &ImageHeader, job: &mut Job) -> Result<CheckReport> {
    let mut header = header.clone();
    let target = file::RepairedFile {
        storage,
        durability: Durability::None,
    };
    repair::check(target, &mut header, RepairMode::Report, job)
}

fn layout<'a>(
    storage: &'a dyn Storage,
    header: &ImageHeader,
    geometry: Geometry,
) -> Result<CheckedFile<'a>> {
    Ok(CheckedFile {
        storage,
        geometry,
        data_file: header.has_data_file(),
        file_len: storage.len()?,
    })
}

/// Counts everything that the header refers to except the refcount structures.
fn references(
    walker: &mut Walker<'_, '_>,
    header: &ImageHeader,
    snapshots: &Snapshots,
    bitmaps: &BitmapRepair,
) -> Result<()> {
    let geometry = walker.layout.geometry;
    walker.refer(0, geometry.cluster_size());
    let fixed = &header.header;
    walker.l1_table(fixed.l1_offset, fixed.l1_entries, Role::Active)?;
    for snapshot in &snapshots.entries {
        snapshots::count(walker, snapshot)?;
    }
    if fixed.snapshots > 0 {
        walker.refer(fixed.snapshots_offset, snapshots.table_len);
    }
    if let Some(crypto) = header.crypto() {
        walker.refer(crypto.offset, crypto.len);
    }
    bitmaps.count(walker, header)?;
    walker.check_complete()
}
