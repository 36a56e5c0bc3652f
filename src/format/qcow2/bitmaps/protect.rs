//! Where bitmaps are stored, so that nothing else is written there.

use crate::error::Result;
use crate::format::qcow2::disk::{BitmapEntry, BitmapTableEntry, read_bitmap_directory};
use crate::format::qcow2::open::read_table;
use crate::format::qcow2::state::Qcow2;

impl Qcow2 {
    /// Registers the tables and the bits of all bitmaps. Damaged ones are reported where they are used; if they claim
    /// more clusters than the file has, this only ends the registration.
    pub(in crate::format::qcow2) fn protect_bitmaps(&self) -> Result<()> {
        let Some(extension) = self.header.lock().consistent_bitmaps() else {
            return Ok(());
        };
        let size = self.virtual_size();
        let cluster = self.layout.cluster_size();
        let file = self.storage.len()?;
        let Ok(bitmaps) = read_bitmap_directory(&*self.storage, &extension, size, cluster) else {
            return Ok(());
        };
        // No more than the file has: overlapping tables could refer to the same bytes over and over.
        let mut budget = file.div_ceil(cluster);
        for bitmap in &bitmaps {
            let len = u64::from(bitmap.table_entries) * 8;
            let clusters = self.layout.clusters_for(len);
            if bitmap.table_offset.saturating_add(len) > file.next_multiple_of(cluster) {
                continue;
            }
            let Some(left) = budget.checked_sub(clusters) else {
                break;
            };
            budget = left;
            self.protect_bitmap(bitmap, clusters, file)?;
        }
        Ok(())
    }

    fn protect_bitmap(&self, bitmap: &BitmapEntry, clusters: u64, file: u64) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let first = bitmap.table_offset >> bits;
        self.meta.add_bitmap(first..first + clusters);
        let len = u64::from(bitmap.table_entries) * 8;
        read_table(&*self.storage, bitmap.table_offset, len, |entry| {
            let offset = BitmapTableEntry(entry).offset();
            if offset != 0 && offset < file && self.layout.in_cluster(offset) == 0 {
                let cluster = offset >> bits;
                self.meta.add_bitmap(cluster..cluster + 1);
            }
        })
    }
}
