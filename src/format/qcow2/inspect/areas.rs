//! The tables that header, snapshots and bitmaps point to: they must be inside the file and must not overlap.

use crate::error::{Error, Result};
use crate::format::inspect::InspectContext;

use super::super::disk::{Geometry, ImageHeader, SnapshotEntry, read_bitmap_directory};

/// A named range of the file.
struct Area {
    start: u64,
    end: u64,
    name: String,
}

/// Areas in file order.
pub(super) struct Areas(Vec<Area>);

impl Areas {
    /// Collects and checks them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Limit`], or if reading fails.
    pub(super) fn of(
        ctx: &InspectContext<'_>,
        image: &ImageHeader,
        geometry: Geometry,
        (snapshots, table_len): &(Vec<SnapshotEntry>, u64),
    ) -> Result<Self> {
        let header = &image.header;
        let cluster = geometry.cluster_size();
        let mut areas = Self(Vec::new());
        areas.add(0, cluster, "header")?;
        areas.add(
            header.l1_offset,
            u64::from(header.l1_entries) * 8,
            "active L1 table",
        )?;
        areas.add(
            header.reftable_offset,
            u64::from(header.reftable_clusters) * cluster,
            "refcount table",
        )?;
        areas.add(header.snapshots_offset, *table_len, "snapshot table")?;
        for (index, snapshot) in snapshots.iter().enumerate() {
            let len = u64::from(snapshot.l1_entries) * 8;
            limit(ctx, len)?;
            areas.add(
                snapshot.l1_offset,
                len,
                &format!("L1 table of snapshot {index}"),
            )?;
        }
        if let Some(crypto) = image.crypto() {
            areas.add(crypto.offset, crypto.len, "encryption header")?;
        }
        if let Some(bitmaps) = image.bitmaps() {
            limit(ctx, bitmaps.directory_size)?;
            areas.add(
                bitmaps.directory_offset,
                bitmaps.directory_size,
                "bitmap directory",
            )?;
            let entries = read_bitmap_directory(&*ctx.storage, &bitmaps, header.size, cluster)?;
            for (index, entry) in entries.iter().enumerate() {
                let len = u64::from(entry.table_entries) * 8;
                limit(ctx, len)?;
                areas.add(entry.table_offset, len, &format!("table of bitmap {index}"))?;
            }
        }
        areas.check(ctx.file_len, cluster)?;
        Ok(areas)
    }

    fn add(&mut self, start: u64, len: u64, name: &str) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = start
            .checked_add(len)
            .ok_or_else(|| Error::corrupt(format!("the {name} passes every end")))?;
        self.0.push(Area {
            start,
            end,
            name: name.to_owned(),
        });
        Ok(())
    }

    fn check(&mut self, file_len: u64, cluster: u64) -> Result<()> {
        let file_end = file_len
            .checked_next_multiple_of(cluster)
            .unwrap_or(file_len);
        self.0.sort_by_key(|area| area.start);
        for area in &self.0 {
            let Area { start, end, name } = area;
            if !start.is_multiple_of(cluster) {
                return Err(Error::corrupt(format!(
                    "the {name} at {start:#x} does not begin at a cluster"
                )));
            }
            if *end > file_end {
                return Err(Error::corrupt(format!(
                    "the {name} at {start:#x} passes the end of the file"
                )));
            }
        }
        for pair in self.0.windows(2) {
            let [first, second] = pair else { continue };
            if second.start < first.end {
                return Err(Error::corrupt(format!(
                    "the {} at {:#x} overlaps with the {}",
                    second.name, second.start, first.name
                )));
            }
        }
        Ok(())
    }

    /// The name of the area that overlaps a cluster at `start`.
    pub(super) fn overlap(&self, start: u64, cluster: u64) -> Option<&str> {
        let end = start.saturating_add(cluster);
        // The last area that begins before the end: areas do not overlap, so if any of them matches, this one does.
        let after = self.0.partition_point(|area| area.start < end);
        let area = self.0.get(after.checked_sub(1)?)?;
        (area.end > start).then_some(area.name.as_str())
    }
}

fn limit(ctx: &InspectContext<'_>, bytes: u64) -> Result<()> {
    let name = format!("A table of {bytes} bytes");
    ctx.policy.check_table(&name, bytes)
}
