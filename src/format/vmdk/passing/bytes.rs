//! A file that is read in order.

use crate::error::{Error, Result};
use crate::format::NextBytes;
use crate::size::SECTOR;

/// Number of bytes that are skipped at a time.
const STEP: usize = 32 << 10;

/// What remains to be read, and its offset in the file.
pub(super) struct Bytes<'a, 'b> {
    next: &'a mut NextBytes<'b>,
    at: &'a mut u64,
}

impl<'a, 'b> Bytes<'a, 'b> {
    pub(super) fn new(next: &'a mut NextBytes<'b>, at: &'a mut u64) -> Self {
        Self { next, at }
    }

    /// The current offset in the file.
    pub(super) fn at(&self) -> u64 {
        *self.at
    }

    /// Fills `buf` as far as the file goes, and returns the length.
    pub(super) fn some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let got = (self.next)(buf)?;
        *self.at = self.at.saturating_add(got as u64);
        Ok(got)
    }

    /// Fills `buf`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the file ends before.
    pub(super) fn all(&mut self, buf: &mut [u8]) -> Result<()> {
        match self.some(buf)? == buf.len() {
            true => Ok(()),
            false => Err(self.cut_off()),
        }
    }

    /// Skips everything before an offset; returns false if the file ends before.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if that offset has been passed already.
    pub(super) fn go_to(&mut self, offset: u64, what: &str) -> Result<bool> {
        if offset < *self.at {
            let text = format!("the {what} stands before what names it");
            return Err(out_of_order(&text).with_offset(offset));
        }
        let mut unused = [0; STEP];
        while *self.at < offset {
            let len = (offset - *self.at).min(STEP as u64) as usize;
            let part = unused.get_mut(..len).unwrap_or_default();
            if self.some(part)? < len {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Bytes::go_to`], but the file must continue at least up to there.
    ///
    /// # Errors
    /// As [`Bytes::go_to`] and [`Bytes::all`].
    pub(super) fn must_go_to(&mut self, offset: u64, what: &str) -> Result<()> {
        match self.go_to(offset, what)? {
            true => Ok(()),
            false => Err(self.cut_off()),
        }
    }

    /// Skips the rest of a sector, which may be missing at the end of the file.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn finish_sector(&mut self) -> Result<()> {
        self.go_to(self.at.next_multiple_of(SECTOR), "rest of a sector")
            .map(drop)
    }

    /// The error for a file that ends here although more must follow.
    pub(super) fn cut_off(&self) -> Error {
        Error::corrupt(format!(
            "The stream ends at byte {}, before its end: it was cut off, or is still being written",
            self.at
        ))
        .with_offset(*self.at)
    }
}

/// The error for a file that contains something only after the point where it is needed.
pub(super) fn out_of_order(what: &str) -> Error {
    Error::unsupported(format!(
        "The image cannot be read in order, as {what}; save it to a file first"
    ))
}
