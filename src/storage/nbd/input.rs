//! What was received and not taken yet.

use crate::error::{Error, ErrorKind, Result};
use crate::net::{Stream, Wait};

/// Small replies come many at once; what is longer than this goes past the buffer.
const LEN: usize = 8 << 10;

/// The bytes of a stream, read in pieces that are worth a system call.
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

    /// As many bytes as `out` has.
    ///
    /// # Errors
    /// Of the stream; where it ends before.
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
