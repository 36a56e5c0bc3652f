//! The buffer of a range being processed. Page-aligned: the kernel copies to such memory twice as fast as to an odd
//! address, and direct I/O needs no bounce buffer.

use crate::error::{Error, ErrorKind, Result};
use crate::sys::AlignedBuf;

/// The alignment of every buffer.
const PAGE: usize = 4096;

/// A buffer of fixed size that is allocated on first use.
pub(super) struct Buffer {
    bytes: Option<AlignedBuf>,
    capacity: usize,
}

impl Buffer {
    /// A buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: None,
            capacity,
        }
    }

    /// `len` bytes at `at`, with arbitrary contents.
    ///
    /// # Errors
    /// If there is no memory for the buffer, or the range is not within it.
    pub fn room(&mut self, at: usize, len: usize) -> Result<&mut [u8]> {
        let bytes = match &mut self.bytes {
            Some(bytes) => bytes,
            empty => {
                let bytes = AlignedBuf::zeroed(self.capacity, PAGE);
                empty.insert(bytes.map_err(|error| Error::io(&error))?)
            }
        };
        let range = at..at.saturating_add(len);
        bytes.get_mut(range).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("{len} bytes at {at} of a buffer of {}", self.capacity),
            )
        })
    }

    /// The `len` bytes at `at`.
    pub fn get(&self, at: usize, len: usize) -> &[u8] {
        match &self.bytes {
            Some(bytes) => &bytes[at..at + len],
            None => &[],
        }
    }
}
