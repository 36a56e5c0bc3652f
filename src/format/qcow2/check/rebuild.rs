//! New refcounts for an image that was not closed: counted, written beside the old ones, and
//! switched to by the header.

use crate::error::{Error, Result};
use crate::format::qcow2::bulk::space::Layout as Place;
use crate::format::qcow2::disk::ImageHeader;
use crate::storage::{Durability, Storage, ZeroFlags};

use super::counts::Counts;
use super::report::Findings;
use super::walk::Walker;
use super::{compare, layout, read_snapshots, references};

/// Where the refcount table's place stands in the header.
const REFTABLE_AT: u64 = 48;

/// Counts all references of a dirty image and writes refcounts that agree with them; `header` then
/// names them. The dirty bit stays set: COPIED flags that are missing come next. The image must be
/// open for writing by no one else.
///
/// The new table and blocks go behind the last used cluster; the old ones are free once the header
/// names the new, so that a crash at any time leaves the old state or the new one.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] where more than refcounts is wrong: nothing has changed then.
/// Else of I/O, or [`crate::ErrorKind::Limit`].
pub fn rebuild_refcounts(
    storage: &dyn Storage,
    header: &mut ImageHeader,
    durability: Durability,
) -> Result<()> {
    let geometry = header.header.validate(false)?;
    let layout = layout(storage, header, geometry)?;
    let mut findings = Findings::new(None);
    let snapshots = read_snapshots(storage, header, &mut findings)?;
    // Entries that lack later fields do not make references wrong.
    findings.report.corruptions = 0;
    let mut walker = Walker::new(layout, findings);
    references(&mut walker, header, &snapshots)?;
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
    let cluster = geometry.cluster_size();
    let start = counts.highest().map_or(1, |last| last + 1);
    let start = start.max(geometry.clusters_for(layout.file_len));
    let place = Place::after(start, 0, 0, geometry)?;
    write_blocks(storage, &counts, start, &place, geometry)?;
    storage.sync(durability)?;

    header.header.reftable_offset = start * cluster;
    header.header.reftable_clusters = place.reftable_clusters as u32;
    let mut fields = Vec::with_capacity(12);
    fields.extend_from_slice(&header.header.reftable_offset.to_be_bytes());
    fields.extend_from_slice(&header.header.reftable_clusters.to_be_bytes());
    storage.write_at(&fields, REFTABLE_AT)?;
    storage.sync(durability)
}

/// Writes the blocks behind the table's place, then the table.
fn write_blocks(
    storage: &dyn Storage,
    counts: &Counts,
    start: u64,
    place: &Place,
    geometry: crate::format::qcow2::disk::Geometry,
) -> Result<()> {
    let cluster = geometry.cluster_size();
    let width = geometry.refcount_width();
    let per_block = geometry.refcount_block_entries();
    let mut counted = counts.reader();
    let mut table = Vec::new();
    let mut block = vec![0; cluster as usize];
    for index in 0..place.blocks {
        block.fill(0);
        let first = index * per_block;
        for within in 0..per_block.min(place.end.saturating_sub(first)) {
            let count = match first + within {
                own if own >= start => 1,
                other => counted.get(other),
            };
            if count > 0 && !width.set(&mut block, within as usize, count) {
                return Err(Error::corrupt("A refcount does not fit into its width"));
            }
        }
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

/// A cluster with one reference may lack its COPIED flag: that costs a copy, not data.
struct Lenient<'a>(super::counts::Reader<'a>);

impl compare::Refcount for Lenient<'_> {
    fn of(&mut self, cluster: u64, copied: bool) -> Result<u64> {
        Ok(if copied { self.0.get(cluster) } else { 0 })
    }
}
