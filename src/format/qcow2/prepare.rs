//! What must happen once, before the first change of an image.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::storage::read_exact_at;

use super::disk::{BitmapEntry, BitmapFlags};
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
            if self.lazy {
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
        let broken = |what: &str| Error::corrupt(what).with_offset(extension.directory_offset);
        if extension.directory_size > self.max_table_bytes {
            return Err(broken("Bitmap directory is too large"));
        }
        let len = self.storage.len()?;
        if extension.directory_offset > len || extension.directory_size > len {
            return Err(broken("Bitmap directory passes the end of the file"));
        }
        let mut bytes = vec![0; extension.directory_size as usize];
        read_exact_at(&*self.storage, &mut bytes, extension.directory_offset)?;
        let mut at = extension.directory_offset;
        let mut entries = Vec::new();
        for entry in BitmapEntry::parse_directory(&bytes, extension.count)? {
            let mut own = Vec::new();
            entry.write_to(&mut own);
            entries.push((at, entry));
            at += own.len() as u64;
        }
        Ok(entries)
    }
}
