//! The contents of members and blocks that were unpacked ahead.

use std::collections::VecDeque;

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Bytes that are waiting to be read.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pieces: VecDeque<IoBuf>,
    /// Number of bytes of the first piece already read.
    at: usize,
}

impl Ready {
    /// Appends bytes.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn push(&mut self, piece: IoBuf) -> Result<()> {
        self.pieces.try_reserve(1).map_err(|_| memory::lack())?;
        self.pieces.push_back(piece);
        Ok(())
    }

    /// Reads bytes; 0 if there are none.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        loop {
            let Some(first) = self.pieces.front() else {
                return 0;
            };
            let rest = first.get(self.at..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            if len > 0 || buf.is_empty() {
                let (buf, _) = buf.split_at_mut(len);
                buf.copy_from_slice(rest.get(..len).unwrap_or_default());
                self.at += len;
                return len;
            }
            self.pieces.pop_front();
            self.at = 0;
        }
    }
}
