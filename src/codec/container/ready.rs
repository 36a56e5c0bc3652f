//! What members and blocks that were unpacked ahead hold.

use std::collections::VecDeque;

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Bytes that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pieces: VecDeque<IoBuf>,
    /// So much of the first was taken.
    at: usize,
}

impl Ready {
    /// Appends bytes.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(super) fn push(&mut self, piece: IoBuf) -> Result<()> {
        self.pieces.try_reserve(1).map_err(|_| memory::lack())?;
        self.pieces.push_back(piece);
        Ok(())
    }

    /// Takes bytes; 0 where there are none.
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
