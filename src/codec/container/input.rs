//! The bytes of a compressed file, for decoders that read from the standard traits.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

/// Number of bytes to read at once.
const BUFFER: usize = 256 << 10;

/// Reads the next bytes of the file: as many as fit, and fewer only at its end.
pub type Source = Box<dyn FnMut(&mut [u8]) -> Result<usize> + Send>;

/// What is known about the input while a decoder owns it.
#[derive(Debug, Default)]
pub(super) struct Told {
    used: AtomicU64,
    past_end: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Told {
    /// Number of bytes consumed.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether a decoder that reads no further than its member has tried to read past the end.
    pub(super) fn past_end(&self) -> bool {
        self.past_end.load(Ordering::Relaxed)
    }

    /// The error of the source, if it failed.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }
}

/// The input of a decoder.
pub(super) struct Input {
    source: Source,
    buf: IoBuf,
    /// Range of the buffer that has not been consumed yet.
    at: usize,
    end: usize,
    ended: bool,
    told: Arc<Told>,
}

impl Input {
    pub(super) fn new(source: Source) -> Result<Self> {
        Ok(Self {
            source,
            buf: memory::zeroed(BUFFER)?,
            at: 0,
            end: 0,
            ended: false,
            told: Arc::default(),
        })
    }

    pub(super) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// The next bytes: at least `wanted` of them, or all that are left. Grows the buffer as needed.
    pub(super) fn peek(&mut self, wanted: usize) -> Result<&[u8]> {
        while self.end - self.at < wanted && !self.ended {
            self.buf.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
            if self.buf.len() < wanted {
                self.buf.resize(wanted.next_multiple_of(BUFFER))?;
            }
            let to = wanted.max(self.end + BUFFER).min(self.buf.len());
            let room = self.buf.get_mut(self.end..to).unwrap_or_default();
            let len = room.len();
            let got = (self.source)(room)?.min(len);
            self.ended = got < len;
            self.end += got;
        }
        Ok(self.buf.get(self.at..self.end).unwrap_or_default())
    }

    /// Skips all zeroes that come next; returns their number.
    pub(super) fn skip_zeroes(&mut self) -> Result<u64> {
        let mut done = 0;
        loop {
            let here = self.peek(1)?;
            let zeroes = here.iter().take_while(|byte| **byte == 0).count();
            let all = zeroes == here.len();
            self.consume(zeroes);
            done += zeroes as u64;
            if zeroes == 0 || !all {
                return Ok(done);
            }
        }
    }

    /// Skips bytes; fewer only at the end.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<u64> {
        let mut done = 0;
        while len > 0 {
            let here = self.peek(1)?.len() as u64;
            if here == 0 {
                break;
            }
            let part = here.min(len);
            self.consume(part as usize);
            len -= part;
            done += part;
        }
        Ok(done)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = self.peek(1) {
            *self.told.failure.lock() = Some(error);
            return Err(io::Error::other("the source failed"));
        }
        Ok(self.buf.get(self.at..self.end).unwrap_or_default())
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.end - self.at);
        self.at += len;
        self.told.used.fetch_add(len as u64, Ordering::Relaxed);
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut here = self.fill_buf()?;
        let len = here.read(buf)?;
        if len == 0 && !buf.is_empty() {
            self.told.past_end.store(true, Ordering::Relaxed);
        }
        self.consume(len);
        Ok(len)
    }
}
