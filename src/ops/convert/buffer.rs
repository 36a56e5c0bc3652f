//! The buffer of a range being processed. Page-aligned: the kernel copies to such memory twice as fast as to an odd
//! address, and direct I/O needs no bounce buffer.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::sys::AlignedBuf;

/// The alignment of every buffer.
const PAGE: usize = 4096;

/// A buffer of fixed size that is allocated on first use.
pub(super) struct Buffer {
    bytes: Option<Arc<AlignedBuf>>,
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
        // A write that is no longer waited for may still need the memory.
        if self.bytes.as_mut().and_then(Arc::get_mut).is_none() {
            let bytes = AlignedBuf::zeroed(self.capacity, PAGE);
            self.bytes = Some(Arc::new(bytes.map_err(|error| Error::io(&error))?));
        }
        let bytes = self.bytes.as_mut().and_then(Arc::get_mut);
        let range = at..at.saturating_add(len);
        bytes.and_then(|bytes| bytes.get_mut(range)).ok_or_else(|| {
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

    /// Lends the memory to the writes that `call` makes.
    pub fn lend<T>(&self, call: impl FnOnce() -> T) -> T {
        match &self.bytes {
            Some(bytes) => memory::lend(bytes, call),
            None => call(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Payload;

    #[test]
    fn what_a_write_still_needs_is_left_to_it() {
        let mut buffer = Buffer::new(8192);
        buffer.room(0, 8192).unwrap().fill(1);
        let written = buffer.lend(|| Payload::of(buffer.get(4096, 4096)).unwrap());
        assert_eq!(written.as_ptr(), buffer.get(4096, 1).as_ptr());
        buffer.room(0, 8192).unwrap().fill(2);
        assert_eq!(*written, [1; 4096]);
        assert_eq!(buffer.get(0, 8192), [2; 8192]);
        // Once nothing needs it, the memory is used again.
        let at = buffer.get(0, 1).as_ptr();
        drop(buffer.lend(|| Payload::of(buffer.get(0, 8192)).unwrap()));
        assert_eq!(buffer.room(0, 8192).unwrap().as_ptr(), at);
    }
}
