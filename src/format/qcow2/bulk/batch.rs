//! Contiguous table writes combined into large ones.

use crate::error::Result;
use crate::memory::IoBuf;
use crate::storage::Storage;

/// How much is combined, in bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// Bytes waiting to be written at one offset.
#[derive(Debug)]
pub(super) struct Batch {
    offset: u64,
    bytes: IoBuf,
    limit: usize,
}

impl Batch {
    /// Combines pieces of `unit` bytes.
    pub fn new(unit: u64) -> Self {
        Self {
            offset: 0,
            bytes: IoBuf::new(),
            limit: BATCH_BYTES.max(unit) as usize,
        }
    }

    /// Adds a piece; what is waiting is written first if it is full or does not end at `offset`.
    ///
    /// # Errors
    /// If the write fails.
    pub fn push(&mut self, offset: u64, piece: &[u8], out: &dyn Storage) -> Result<()> {
        let continues = self.offset.checked_add(self.bytes.len() as u64) == Some(offset);
        if !continues || self.bytes.len() + piece.len() > self.limit {
            self.flush(out)?;
            self.offset = offset;
        }
        self.bytes.extend_from_slice(piece)
    }

    /// Writes what is waiting.
    ///
    /// # Errors
    /// If the write fails.
    pub fn flush(&mut self, out: &dyn Storage) -> Result<()> {
        if !self.bytes.is_empty() {
            out.write_at(&self.bytes, self.offset)?;
            self.offset += self.bytes.len() as u64;
            self.bytes.clear();
        }
        Ok(())
    }
}
