//! Changes of header fields, in place, so that everything else in the header cluster stays as it is.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::memory;

use super::disk::{Header, ImageHeader, Incompatible};
use super::state::Qcow2;

/// The header's sector: extensions and names are padded to whole ones.
const SECTOR: usize = 512;

/// The fields that change during use stand together: from the virtual size on…
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
            // Part of it may have been written: the old fields belong together.
            let _ = self.storage.write_at(&fields(&image.header), FIRST as u64);
            return Err(error);
        }
        image.header = header;
        Ok(())
    }

    /// Changes all that the header cluster holds and rewrites it, so that after a crash the old
    /// or the new header stands there: as far as can be, one write of one sector decides. On
    /// failure the old one counts in memory. No barrier is implied at the end.
    pub(super) fn replace_header(&self, change: impl FnOnce(&mut ImageHeader)) -> Result<()> {
        let mut image = self.header.lock();
        let mut new = image.clone();
        change(&mut new);
        let mut bytes = new.to_bytes()?;
        let new_end = bytes.len();
        let old_end = image.len_in_file();
        let cluster = self.layout.cluster_size() as usize;
        let end = new_end.max(old_end).min(cluster).next_multiple_of(SECTOR);
        bytes.resize(end.min(cluster), 0);
        let (head, tail) = bytes.split_at(SECTOR.min(bytes.len()));
        let mut old = memory::zeroed(bytes.len())?;
        let there = self.storage.len()?.min(old.len() as u64) as usize;
        if let Some(there) = old.get_mut(..there) {
            self.storage.read_at(there, 0)?;
        }
        let written = if old_end <= SECTOR && !tail.is_empty() {
            // No one reads what stands behind the first sector until that says so.
            self.storage
                .write_at(tail, SECTOR as u64)
                .and_then(|()| self.barrier())
                .and_then(|()| self.storage.write_at(head, 0))
        } else if new_end <= SECTOR {
            // What is left of the old one behind the first sector is read no more.
            self.storage.write_at(head, 0)
        } else {
            self.storage.write_at(&bytes, 0)
        };
        if let Err(error) = written {
            // Part of it may have been written: the old parts belong together.
            let _ = self.storage.write_at(&old, 0);
            return Err(error);
        }
        *image = new;
        drop(image);
        if new_end <= SECTOR && !tail.is_empty() {
            self.barrier()?;
            self.storage.write_at(tail, SECTOR as u64)?;
        }
        Ok(())
    }

    /// After a failure to let the header name something else, it is unknown which of the two it names:
    /// no more writes then.
    pub(super) fn settled(&self, switched: Result<()>) -> Result<()> {
        if switched.is_err() {
            self.lost.store(true, Ordering::Release);
            self.broken.store(true, Ordering::Release);
        }
        switched
    }

    /// The error of damaged metadata. A writable image is marked corrupt and takes no more writes.
    pub(super) fn corruption(&self, text: String, offset: u64) -> Error {
        let line = if self.read_only {
            format!(
                "qcow2: Image is corrupt: {text}; further non-fatal corruption events will be suppressed"
            )
        } else {
            if !self.broken.swap(true, Ordering::AcqRel) && self.version() >= 3 {
                // The error itself is what counts; a header that cannot be written stays clean.
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
