//! Where bytes of a server go to.

use crate::error::Result;

/// Where bytes go to.
pub(in crate::storage) trait Sink {
    /// The place for the next ones. Not empty while any are to come.
    fn room(&mut self) -> Result<&mut [u8]>;
    /// Takes note that so many of them came.
    fn came(&mut self, len: usize) -> Result<()>;
}

/// One buffer.
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

/// Counts what goes by.
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
