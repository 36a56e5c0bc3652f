//! Input from a client, with many messages read per system call.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::net::{Stream, Wait};

/// Size of the buffer: small, because each client has one, and the payload of a request bypasses it.
const AHEAD: usize = 4 << 10;

/// How long a client may pause within a message.
const MESSAGE: Duration = Duration::from_secs(60);

/// Buffered input from a client.
#[derive(Debug)]
pub(super) struct Input {
    stream: Arc<Stream>,
    ahead: Box<[u8; AHEAD]>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            ahead: Box::new([0; AHEAD]),
            start: 0,
            end: 0,
        }
    }

    /// Number of bytes available without reading from the connection.
    pub(super) fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Fills `buf` with a message; false if the client closes the connection before its first byte, which is awaited as
    /// `wait` says.
    ///
    /// # Errors
    /// If the connection or the wait fails, or the client pauses too long or closes the connection within the message.
    pub(super) fn message(&mut self, buf: &mut [u8], wait: Wait<'_>) -> Result<bool> {
        if self.buffered() == 0 && !buf.is_empty() && self.more(wait)? == 0 {
            return Ok(false);
        }
        self.rest(buf, wait)?;
        Ok(true)
    }

    /// Fills `buf` with the rest of a message.
    ///
    /// # Errors
    /// As [`Input::message`].
    pub(super) fn rest(&mut self, buf: &mut [u8], wait: Wait<'_>) -> Result<()> {
        let mut done = 0;
        while let Some(left) = buf.get_mut(done..).filter(|left| !left.is_empty()) {
            if self.buffered() == 0 {
                if left.len() >= AHEAD {
                    // Large payloads go directly to their destination.
                    match self.stream.read(left, wait.at_most(MESSAGE))? {
                        0 => return Err(cut()),
                        len => done += len,
                    }
                    continue;
                }
                if self.more(wait.at_most(MESSAGE))? == 0 {
                    return Err(cut());
                }
            }
            let ahead = self.ahead.get(self.start..self.end).unwrap_or_default();
            let len = ahead.len().min(left.len());
            let (into, _) = left.split_at_mut(len);
            into.copy_from_slice(ahead.get(..len).unwrap_or_default());
            self.start += len;
            done += len;
        }
        Ok(())
    }

    /// Skips this many bytes.
    ///
    /// # Errors
    /// As [`Input::message`].
    pub(super) fn skip(&mut self, mut len: u64, wait: Wait<'_>) -> Result<()> {
        while len > 0 {
            if self.buffered() == 0 && self.more(wait.at_most(MESSAGE))? == 0 {
                return Err(cut());
            }
            let part = (self.buffered() as u64).min(len);
            self.start += part as usize;
            len -= part;
        }
        Ok(())
    }

    fn more(&mut self, wait: Wait<'_>) -> Result<usize> {
        let len = self.stream.read(&mut *self.ahead, wait)?;
        (self.start, self.end) = (0, len);
        Ok(len)
    }
}

fn cut() -> Error {
    Error::os(libc::ECONNRESET).context("The client ended within a message")
}
