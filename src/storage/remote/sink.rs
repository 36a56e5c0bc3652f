//! Destinations for data received from a server.

use crate::error::Result;

/// A destination for received data.
pub(in crate::storage) trait Sink {
    /// The buffer for the next bytes. Not empty while more are expected.
    fn room(&mut self) -> Result<&mut [u8]>;
    /// Records that `len` bytes were received into it.
    fn came(&mut self, len: usize) -> Result<()>;
}

/// A single buffer.
#[derive(Debug)]
pub(in crate::storage) struct Buffer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Buffer<'a> {
    pub(in crate::storage) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Sink for Buffer<'_> {
    fn room(&mut self) -> Result<&mut [u8]> {
        Ok(self.bytes.get_mut(self.at..).unwrap_or_default())
    }

    fn came(&mut self, len: usize) -> Result<()> {
        self.at += len;
        Ok(())
    }
}

/// Counts the bytes that pass through.
pub(in crate::storage) struct Counted<'a, 'b> {
    pub(in crate::storage) sink: &'a mut dyn Sink,
    pub(in crate::storage) at: &'b mut u64,
}

impl Sink for Counted<'_, '_> {
    fn room(&mut self) -> Result<&mut [u8]> {
        self.sink.room()
    }

    fn came(&mut self, len: usize) -> Result<()> {
        self.sink.came(len)?;
        *self.at += len as u64;
        Ok(())
    }
}
