//! What must happen once, before the first change of an image.

use std::sync::atomic::Ordering;

use crate::error::Result;

use super::disk::{BitmapEntry, BitmapFlags, read_bitmap_directory};
use super::state::Qcow2;

/// Where the flags stand in an entry of the bitmap directory.
const FLAGS_AT: u64 = 12;

impl Qcow2 {
    /// Called by every operation that changes the image.
    pub(super) fn prepare_write(&self) -> Result<()> {
        self.check_writable()?;
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut done = self.prepared.lock();
        if !*done {
            if self.lazy() {
                self.set_dirty()?;
            }
            self.distrust_bitmaps()?;
            *done = true;
            self.is_prepared.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Bitmaps that record writes do not see this driver's: marks them in use, which says that
    /// they are not to be trusted. Those that record none stay valid.
    fn distrust_bitmaps(&self) -> Result<()> {
        let mut changed = false;
        for (offset, bitmap) in self.bitmap_entries()? {
            let flags = bitmap.flags;
            if flags.contains(BitmapFlags::AUTO) && !flags.contains(BitmapFlags::IN_USE) {
                let flags = flags | BitmapFlags::IN_USE;
                self.storage
                    .write_at(&flags.bits().to_be_bytes(), offset + FLAGS_AT)?;
                changed = true;
            }
        }
        if changed {
            self.barrier()?;
        }
        Ok(())
    }

    /// The bitmaps that the image's header vouches for, each with the offset of its entry in the
    /// directory.
    pub(super) fn bitmap_entries(&self) -> Result<Vec<(u64, BitmapEntry)>> {
        let Some(extension) = self.header.lock().consistent_bitmaps() else {
            return Ok(Vec::new());
        };
        let mut at = extension.directory_offset;
        let mut entries = Vec::new();
        let size = self.virtual_size();
        let cluster = self.layout.cluster_size();
        for entry in read_bitmap_directory(&*self.storage, &extension, size, cluster)? {
            let mut own = Vec::new();
            entry.write_to(&mut own);
            entries.push((at, entry));
            at += own.len() as u64;
        }
        Ok(entries)
    }
}
