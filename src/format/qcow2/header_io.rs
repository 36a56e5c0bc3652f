//! In-place changes of header fields, which leave everything else in the header cluster as it is.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};

use super::disk::{Header, ImageHeader, Incompatible};
use super::header_change;
use super::state::Qcow2;

/// The fields that change during use are adjacent: from the virtual size…
const FIRST: usize = 24;
/// …to the refcount order.
const END: usize = 100;

impl Qcow2 {
    /// Changes fields between the virtual size and the refcount order, and writes them at once.
    /// On failure the fields keep their old values in memory. No barrier is implied.
    pub(super) fn update_header(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let mut image = self.header.lock();
        let mut header = image.header.clone();
        change(&mut header);
        if header == image.header {
            return Ok(());
        }
        let fields = |header: &Header| {
            let bytes = header.clone().to_bytes();
            let end = END.min(bytes.len());
            bytes.get(FIRST..end).unwrap_or_default().to_vec()
        };
        if let Err(error) = self.storage.write_at(&fields(&header), FIRST as u64) {
            // Part of it may have been written: the old fields belong together, so they are restored.
            let _ = self.storage.write_at(&fields(&image.header), FIRST as u64);
            return Err(error);
        }
        image.header = header;
        Ok(())
    }

    /// Changes anything in the header cluster and rewrites it; see [`header_change::replace`]. No barrier is implied at
    /// the end.
    pub(super) fn replace_header(&self, change: impl FnOnce(&mut ImageHeader)) -> Result<()> {
        let mut image = self.header.lock();
        let mut new = image.clone();
        change(&mut new);
        header_change::replace(&*self.storage, &mut image, new, &|| self.barrier())
    }

    /// Refuses a change of the header cluster that [`Qcow2::replace_header`] would refuse.
    pub(super) fn check_replacement(&self, change: impl FnOnce(&mut ImageHeader)) -> Result<()> {
        let image = self.header.lock();
        let mut new = image.clone();
        change(&mut new);
        header_change::check(&*self.storage, &image, new)
    }

    /// If switching the header to another structure fails, it is unknown which of the two it refers to: no more writes
    /// are allowed then.
    pub(super) fn note_header_change(&self, switched: Result<()>) -> Result<()> {
        if switched.is_err() {
            self.lost.store(true, Ordering::Release);
            self.broken.store(true, Ordering::Release);
        }
        switched
    }

    /// The error for damaged metadata. A writable image is marked corrupt and accepts no more writes.
    pub(super) fn corruption(&self, text: String, offset: u64) -> Error {
        let line = if self.read_only {
            format!(
                "qcow2: Image is corrupt: {text}; further non-fatal corruption events will be suppressed"
            )
        } else {
            if !self.broken.swap(true, Ordering::AcqRel) && self.version() >= 3 {
                // The error itself is what matters; if the header cannot be written, the image stays unmarked.
                let _ = self.update_header(|h| h.incompatible |= Incompatible::CORRUPT);
            }
            format!(
                "qcow2: Marking image as corrupt: {text}; further corruption events will be suppressed"
            )
        };
        Error::corrupt(line)
            .with_offset(offset)
            .with_errno(libc::EIO)
    }
}
