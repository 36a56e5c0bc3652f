//! The consistency check: refcounts against references, alignment, reserved bits, COPIED flags.
//!
//! It reads the file itself, not through the caches of an open image, which must be flushed.
//! Work is bounded by the length of the file, memory by the references found.

mod compare;
mod counts;
mod image;
mod rebuild;
mod repair;
mod report;
mod stored;
mod walk;

pub use rebuild::rebuild_refcounts;

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{
    BitmapTableEntry, Geometry, ImageHeader, MAX_L1_BYTES, SnapshotEntry, read_bitmap_directory,
    read_damaged_snapshot_table,
};
use crate::format::{CheckReport, RepairMode};
use crate::job::Job;
use crate::storage::{Durability, Storage};

use compare::Plan;
use report::Findings;
use stored::StoredRefcounts;
use walk::{Layout, Role, Walker};

/// Bitmap tables are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;

/// Checks the image; each finding is a note of `job`. Nothing is written.
///
/// `header` must have passed [`crate::format::qcow2::disk::Header::validate`] for a check.
///
/// # Errors
/// When the check cannot be carried out, with the errno of QEMU's message; or of I/O.
pub fn check(storage: &dyn Storage, header: &ImageHeader, job: &mut Job) -> Result<CheckReport> {
    repair::check(storage, header, Plan::default(), Durability::None, job)
}

/// As [`check`]; writes what the plan says.
fn check_with(
    storage: &dyn Storage,
    header: &ImageHeader,
    plan: &mut Plan,
    words: &mut Vec<(u64, u64)>,
    job: &mut Job,
) -> Result<CheckReport> {
    let geometry = header.header.geometry()?;
    let layout = layout(storage, header, geometry)?;
    let mut findings = Findings::new(Some(job));
    findings.report.total_clusters = Some(geometry.guest_clusters(header.header.size));
    let tables = u64::from(header.header.l1_entries) * geometry.cluster_size();
    findings.set_total(tables.min(layout.file_len).saturating_mul(2));
    let snapshots = read_snapshots(storage, header, &mut findings)?;
    let mut walker = Walker::new(layout, findings);
    references(&mut walker, header, &snapshots)?;
    let mut stored = StoredRefcounts::read(storage, &header.header, geometry)?;
    compare::refcount_structures(
        &mut walker,
        &stored,
        header.header.reftable_offset,
        header.header.reftable_clusters,
    );
    let given_up = walker.given_up();
    let report = walker.findings.report;
    plan.doubtful = given_up || report.corruptions > 0 || report.check_errors > 0;
    plan.guard_blocks(&walker.counts, &stored, geometry);
    let clean = compare::refcounts(&mut walker, &mut stored, plan)?;
    let Walker {
        counts,
        mut findings,
        ..
    } = walker;
    if !given_up {
        let l1 = (header.header.l1_offset, header.header.l1_entries);
        let report = findings.report;
        let sound = report.corruptions == 0 && report.check_errors == 0;
        if plan.repair != RepairMode::Report && sound && report.leaks == 0 {
            // What is counted is what the file will hold.
            compare::copied_flags(layout, &mut findings, counts.reader(), l1, Some(words))?;
        } else if clean && findings.report.corruptions == 0 && findings.report.check_errors == 0 {
            // What the file holds is what was counted, which is at hand.
            compare::copied_flags(layout, &mut findings, counts.reader(), l1, None)?;
        } else {
            compare::copied_flags(layout, &mut findings, &mut stored, l1, None)?;
        }
    }
    Ok(findings.report)
}

fn layout<'a>(
    storage: &'a dyn Storage,
    header: &ImageHeader,
    geometry: Geometry,
) -> Result<Layout<'a>> {
    Ok(Layout {
        storage,
        geometry,
        data_file: header.has_data_file(),
        file_len: storage.len()?,
    })
}

/// The snapshot table, with a finding for each entry that lacks what version 3 demands.
fn read_snapshots(
    storage: &dyn Storage,
    header: &ImageHeader,
    findings: &mut Findings<'_>,
) -> Result<(Vec<SnapshotEntry>, u64)> {
    let limit = crate::format::qcow2::disk::MAX_SNAPSHOTS;
    if let Err(error) = header.header.validate_snapshot_table() {
        let message = error.message().to_owned();
        findings.note(|| {
            let mut words = message.chars();
            let first = words.next().unwrap_or_default().to_ascii_lowercase();
            format!("ERROR {first}{}", words.as_str())
        });
        if header.header.snapshots > limit {
            let over = header.header.snapshots - limit;
            findings.note(|| {
                format!(
                    "You can force-remove all {over} overhanging snapshots with qemu-img check -r \
                     all"
                )
            });
        }
        return Err(Error::os(error.errno()));
    }
    let table = read_damaged_snapshot_table(storage, &header.header).map_err(|error| {
        findings.note(|| format!("ERROR failed to read the snapshot table: {error}"));
        if error.kind() == crate::ErrorKind::Corrupt {
            Error::os(libc::EFBIG)
        } else {
            error
        }
    })?;
    for (snapshot, index) in table.0.iter().zip(0u32..) {
        let complete = snapshot.extra.vm_state_size.is_some() && snapshot.extra.disk_size.is_some();
        if header.header.version >= 3 && !complete {
            findings.corruption(|| format!("ERROR snapshot table entry {index} is incomplete"));
        }
    }
    Ok(table)
}

/// Counts everything that the header refers to but the refcount structures.
fn references(
    walker: &mut Walker<'_, '_>,
    header: &ImageHeader,
    (snapshots, table_len): &(Vec<SnapshotEntry>, u64),
) -> Result<()> {
    let geometry = walker.layout.geometry;
    walker.refer(0, geometry.cluster_size());
    let fixed = &header.header;
    walker.l1_table(fixed.l1_offset, fixed.l1_entries, Role::Active)?;
    for snapshot in snapshots {
        snapshot_table(walker, snapshot)?;
    }
    if fixed.snapshots > 0 {
        walker.refer(fixed.snapshots_offset, *table_len);
    }
    if let Some(crypto) = header.crypto() {
        walker.refer(crypto.offset, crypto.len);
    }
    bitmaps(walker, header)
}

fn snapshot_table(walker: &mut Walker<'_, '_>, snapshot: &SnapshotEntry) -> Result<()> {
    let name = || {
        format!(
            "ERROR snapshot {} ({})",
            String::from_utf8_lossy(&snapshot.id),
            String::from_utf8_lossy(&snapshot.name)
        )
    };
    if walker.layout.geometry.in_cluster(snapshot.l1_offset) != 0 {
        walker.findings.corruption(|| {
            format!(
                "{} l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry \
                 corrupted",
                name(),
                snapshot.l1_offset
            )
        });
        return Ok(());
    }
    if u64::from(snapshot.l1_entries) > MAX_L1_BYTES / 8 {
        walker.findings.corruption(|| {
            format!(
                "{} l1_size={:#x}: L1 table is too large; snapshot table entry corrupted",
                name(),
                snapshot.l1_entries
            )
        });
        return Ok(());
    }
    walker.l1_table(snapshot.l1_offset, snapshot.l1_entries, Role::Snapshot)
}

/// Counts the bitmap directory, the tables and their clusters.
fn bitmaps(walker: &mut Walker<'_, '_>, header: &ImageHeader) -> Result<()> {
    let Some(extension) = header.consistent_bitmaps() else {
        return Ok(());
    };
    let layout = walker.layout;
    let cluster = layout.geometry.cluster_size();
    walker.refer(extension.directory_offset, extension.directory_size);
    let size = header.header.size;
    let entries = read_bitmap_directory(layout.storage, &extension, size, cluster)
        .map_err(|_| Error::os(libc::EINVAL))?;
    for bitmap in entries {
        let bytes = u64::from(bitmap.table_entries) * 8;
        walker.refer(bitmap.table_offset, bytes);
        let there = layout.file_len.saturating_sub(bitmap.table_offset);
        let bytes = bytes.min(there.next_multiple_of(8));
        let mut piece = Vec::new();
        let mut at = 0;
        while at < bytes && !walker.given_up() {
            let len = (bytes - at).min(PIECE);
            piece.resize(len as usize, 0);
            layout
                .storage
                .read_at(&mut piece, bitmap.table_offset + at)?;
            for word in piece.chunks_exact(8) {
                let Ok(word) = word.try_into() else { continue };
                let entry = BitmapTableEntry::from_bytes(word);
                if entry.has_reserved_bits() || layout.geometry.in_cluster(entry.offset()) != 0 {
                    return Err(Error::os(libc::EINVAL));
                }
                if entry.offset() != 0 {
                    walker.refer(entry.offset(), cluster);
                }
            }
            walker.findings.advance(len)?;
            at += len;
        }
    }
    Ok(())
}
