//! Rebuilds refcounts: counted, written beside the old ones, and switched to by the header; a snapshot table to be
//! rewritten is switched along with them.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::qcow2::bulk::space::TableLayout;
use crate::format::qcow2::disk::{Geometry, ImageHeader, MAX_SNAPSHOT_TABLE};
use crate::job::{Job, JobControl};
use crate::memory;
use crate::storage::{Durability, Storage, ZeroFlags};

use super::bitmaps::BitmapRepair;
use super::file::RepairedFile;
use super::reference_counts::ReferenceCounts;
use super::report::Findings;
use super::snapshots::Snapshots;
use super::stored_refcounts::StoredRefcounts;
use super::walk::Walker;
use super::{compare, layout, references};

/// Offset of the refcount table's fields in the header; the snapshot table's follow.
const REFTABLE_AT: u64 = 48;

/// Counts all references of a dirty image and writes refcounts that match them; `header` then refers to these. The
/// dirty bit stays set: missing COPIED flags are set next. Nobody else may have the image open for writing.
///
/// The new table and blocks go behind the last used cluster; the old ones are free once the header refers to the new
/// ones, so that a crash at any time leaves either the old state or the new one.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if more than refcounts is wrong, or [`crate::ErrorKind::Cancelled`] by `control`:
/// nothing has changed then. Otherwise if I/O fails, or [`crate::ErrorKind::Limit`].
pub fn rebuild_refcounts(
    storage: &dyn Storage,
    header: &mut ImageHeader,
    durability: Durability,
    control: &Arc<JobControl>,
) -> Result<()> {
    let geometry = header.header.validate(false)?;
    let layout = layout(storage, header, geometry)?;
    // Its findings are not reported, but it can be cancelled.
    let mut job = Job::heeding(control);
    let mut findings = Findings::new(Some(&mut job));
    let snapshots = Snapshots::read(storage, header, false, &mut findings)?;
    // Entries that lack later fields do not make references wrong.
    findings.report.corruptions = 0;
    let mut walker = Walker::new(layout, findings);
    references(&mut walker, header, &snapshots, &BitmapRepair::AsTheyAre)?;
    let given_up = walker.given_up();
    let Walker {
        counts,
        mut findings,
        ..
    } = walker;
    let l1 = (header.header.l1_offset, header.header.l1_entries);
    compare::copied_flags(layout, &mut findings, Lenient(counts.reader()), l1, None)?;
    let report = findings.report;
    if report.corruptions > 0 || report.check_errors > 0 || given_up {
        return Err(Error::corrupt(format!(
            "The image was not closed properly and {} of its table entries are damaged; it must \
             be repaired before it can be written",
            report.corruptions.max(report.check_errors)
        )));
    }
    let target = RepairedFile {
        storage,
        durability,
    };
    write(target, header, &counts, &[], None, None)
}

/// As [`rebuild_refcounts`], for a repair: whatever else is wrong stays as it is. `keep`: clusters that seem
/// unreferenced are not released. If the table of `snapshots` has to be rewritten, the header refers to the new one
/// from the same moment on.
///
/// # Errors
/// If I/O fails, or [`crate::ErrorKind::Limit`]; the header then refers to the old structures.
pub(super) fn replace_structures(
    target: RepairedFile<'_>,
    header: &mut ImageHeader,
    snapshots: &Snapshots,
    keep: bool,
) -> Result<()> {
    let geometry = header.header.geometry()?;
    let layout = layout(target.storage, header, geometry)?;
    let mut walker = Walker::new(layout, Findings::new(None));
    let old = snapshots.copied()?;
    references(&mut walker, header, &old, &BitmapRepair::AsTheyAre)?;
    let keep = keep || walker.given_up();
    let stored = StoredRefcounts::read(target.storage, &header.header, geometry)?;
    let snapshots = snapshots.rewrite.then_some(snapshots);
    write(
        target,
        header,
        &walker.counts,
        &walker.wild,
        keep.then_some(stored),
        snapshots,
    )
}

/// Writes the structures for `counts` and switches to them. Nothing may be placed where `wild` entries refer to
/// clusters past the end of the file: they would take it for guest data or tables.
fn write(
    target: RepairedFile<'_>,
    header: &mut ImageHeader,
    counts: &ReferenceCounts,
    wild: &[(u64, u64)],
    keep: Option<StoredRefcounts<'_>>,
    snapshots: Option<&Snapshots>,
) -> Result<()> {
    let RepairedFile {
        storage,
        durability,
    } = target;
    let geometry = header.header.geometry()?;
    let cluster = geometry.cluster_size();
    let in_file = geometry.clusters_for(storage.len()?);
    let snapshot_table = snapshots.map(Snapshots::to_bytes).transpose()?;
    let snapshot_table = snapshot_table.unwrap_or_default();
    let table_clusters = geometry.clusters_for(snapshot_table.len() as u64);
    let mut first = counts.highest().map_or(1, |last| last + 1).max(in_file);
    let mut place = TableLayout::after(first + table_clusters, 0, 0, geometry)?;
    if let Some(snapshots) = snapshots {
        // Stay clear of where the damaged table is read, even past the end of the file: if this is interrupted, its
        // salvage must find the same again.
        let at = header.header.snapshots_offset;
        let len = snapshots.table_len.min(MAX_SNAPSHOT_TABLE);
        let end = geometry.clusters_for(at.saturating_add(len));
        if geometry.cluster_of(at) < place.end && end > first {
            first = end;
            place = TableLayout::after(first + table_clusters, 0, 0, geometry)?;
        }
    }
    let start = first + table_clusters;
    if wild.iter().any(|(a, b)| *a < place.end && *b >= first) {
        return Err(Error::corrupt(
            "entries name clusters past the end of the file, which would be those of new tables",
        ));
    }
    if !snapshot_table.is_empty() {
        storage.write_at(&snapshot_table, first * cluster)?;
    }
    let mut wanted = Wanted {
        counts,
        geometry,
        own: first,
        in_file,
        keep,
    };
    write_blocks(storage, &mut wanted, start, &place, geometry)?;
    storage.sync(durability)?;

    let mut new = header.header.clone();
    new.reftable_offset = start * cluster;
    new.reftable_clusters = place.reftable_clusters as u32;
    if let Some(snapshots) = snapshots {
        new.snapshots = snapshots.entries.len() as u32;
        new.snapshots_offset = if snapshots.entries.is_empty() {
            0
        } else {
            first * cluster
        };
    }
    let mut fields = Vec::with_capacity(24);
    fields.extend_from_slice(&new.reftable_offset.to_be_bytes());
    fields.extend_from_slice(&new.reftable_clusters.to_be_bytes());
    if snapshots.is_some() {
        fields.extend_from_slice(&new.snapshots.to_be_bytes());
        fields.extend_from_slice(&new.snapshots_offset.to_be_bytes());
    }
    storage.write_at(&fields, REFTABLE_AT)?;
    header.header = new;
    storage.sync(durability)
}

/// The refcounts to write.
struct Wanted<'a> {
    counts: &'a ReferenceCounts,
    geometry: Geometry,
    /// The new structures begin at this cluster.
    own: u64,
    /// Number of clusters in the file before the rebuild.
    in_file: u64,
    /// The previous refcounts, if nothing is to be released.
    keep: Option<StoredRefcounts<'a>>,
}

impl Wanted<'_> {
    /// Fills the block with this index, which must be all zeroes.
    fn fill(&mut self, block: &mut [u8], index: u64, end: u64) -> Result<()> {
        let width = self.geometry.refcount_width();
        let first = index * self.geometry.refcount_block_entries();
        let mut counted = self.counts.reader();
        // A block that cannot be read may hold anything.
        let held = self.keep.as_mut().map(|stored| {
            let block = stored.block(index).ok();
            block.map(|block| block.map(<[u8]>::to_vec))
        });
        let last = self
            .geometry
            .refcount_block_entries()
            .min(end.saturating_sub(first));
        for within in 0..last {
            let cluster = first + within;
            let least = match &held {
                Some(Some(Some(block))) => width.get(block, within as usize).unwrap_or(0),
                Some(_) if cluster < self.in_file => 1,
                _ => 0,
            };
            let count = if cluster >= self.own {
                1
            } else {
                counted.get(cluster).max(least)
            };
            if count > 0 && !width.set(block, within as usize, count) {
                return Err(Error::corrupt("A refcount does not fit into its width"));
            }
        }
        Ok(())
    }
}

/// Writes the blocks behind the table, then the table.
fn write_blocks(
    storage: &dyn Storage,
    wanted: &mut Wanted<'_>,
    start: u64,
    place: &TableLayout,
    geometry: Geometry,
) -> Result<()> {
    let cluster = geometry.cluster_size();
    let mut table = Vec::new();
    let mut block = memory::zeroed(cluster as usize)?;
    for index in 0..place.blocks {
        block.fill(0);
        wanted.fill(&mut block, index, place.end)?;
        let offset = (start + place.reftable_clusters + index) * cluster;
        storage.write_at(&block, offset)?;
        table.extend_from_slice(&offset.to_be_bytes());
    }
    let offset = start * cluster;
    storage.write_zeroes(
        offset,
        place.reftable_clusters * cluster,
        ZeroFlags::empty(),
    )?;
    storage.write_at(&table, offset)
}

/// A cluster with one reference may lack its COPIED flag: that costs a copy, but no data.
struct Lenient<'a>(super::reference_counts::Reader<'a>);

impl compare::Refcount for Lenient<'_> {
    fn of(&mut self, cluster: u64, copied: bool) -> Result<u64> {
        Ok(if copied { self.0.get(cluster) } else { 0 })
    }
}
