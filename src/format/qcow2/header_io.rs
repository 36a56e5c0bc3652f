//! Changes of header fields, in place, so that everything else in the header cluster stays as it is.

use std::fmt;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};

use super::disk::{Header, Incompatible};
use super::state::Qcow2;

/// The fields that change during use stand together: from the virtual size on…
const FIRST: usize = 24;
/// …to the autoclear features.
const END: usize = 96;

/// A number in the hexadecimal form of C: 0 has no prefix.
pub(super) struct Hex(pub(super) u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            value => write!(f, "{value:#x}"),
        }
    }
}

impl Qcow2 {
    /// Changes fields between the virtual size and the autoclear bits, and writes them at once.
    /// On failure the fields keep their old values in memory. No barrier is implied.
    pub(super) fn update_header(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let mut image = self.header.lock();
        let mut header = image.header.clone();
        change(&mut header);
        if header == image.header {
            return Ok(());
        }
        let bytes = header.clone().to_bytes();
        let end = END.min(bytes.len());
        if let Some(fields) = bytes.get(FIRST..end) {
            self.storage.write_at(fields, FIRST as u64)?;
        }
        image.header = header;
        Ok(())
    }

    /// The error of damaged metadata. A writable image is marked corrupt and takes no more writes.
    pub(super) fn corruption(&self, text: String, offset: u64) -> Error {
        let line = if self.read_only {
            format!(
                "qcow2: Image is corrupt: {text}; further non-fatal corruption events will be suppressed"
            )
        } else {
            if !self.broken.swap(true, Ordering::AcqRel) && self.version >= 3 {
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
