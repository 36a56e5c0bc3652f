//! Buffer for data received but not yet consumed.

use crate::error::{Error, ErrorKind, Result};
use crate::net::{Stream, Wait};

/// Small replies often arrive several at a time; reads of at least this length bypass the buffer.
const LEN: usize = 8 << 10;

/// Buffered input from a stream, read in chunks that are worth a system call.
#[derive(Debug)]
pub(super) struct Input {
    buf: Box<[u8; LEN]>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self {
            buf: Box::new([0; LEN]),
            start: 0,
            end: 0,
        }
    }

    /// Fills `out` completely.
    ///
    /// # Errors
    /// If the stream fails or ends early.
    pub(super) fn read_exact(
        &mut self,
        mut out: &mut [u8],
        stream: &Stream,
        wait: Wait<'_>,
    ) -> Result<()> {
        loop {
            let have = self.buf.get(self.start..self.end).unwrap_or_default();
            let count = have.len().min(out.len());
            let (now, rest) = out.split_at_mut(count);
            now.copy_from_slice(&have[..count]);
            self.start += count;
            if rest.is_empty() {
                return Ok(());
            }
            if rest.len() >= LEN {
                return stream.read_exact(rest, wait);
            }
            out = rest;
            (self.start, self.end) = (0, stream.read(&mut *self.buf, wait)?);
            if self.end == 0 {
                return Err(Error::new(
                    ErrorKind::Os,
                    "Unexpected end-of-file before all data were read",
                )
                .with_errno(libc::ECONNRESET));
            }
        }
    }
}
