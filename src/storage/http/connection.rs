//! One connection: a request is sent, and its response received.

use crate::error::Result;
use crate::memory;
use crate::net::{Stream, Wait};
use crate::storage::remote::{cut, violation};

use super::body::Body;
use super::head::{Head, MAX_HEAD};

/// Bytes to read at a time when a head or the length of a chunk is expected.
const INPUT: usize = 16 << 10;
/// Maximum number of heads to read until the final one.
const MAX_PRELIMINARY: usize = 16;

/// A connection without an outstanding response.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// It has carried a response before: if it has been closed since, that says nothing about the server.
    pub(super) used: bool,
}

/// The result of reading from a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// This many bytes.
    Bytes(usize),
    /// No more bytes.
    End,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Result<Self> {
        Ok(Self {
            stream,
            input: memory::filled(INPUT, 0)?,
            start: 0,
            end: 0,
            used: false,
        })
    }

    /// The stream, provided that all received bytes have been consumed.
    ///
    /// # Errors
    /// [`violation`].
    pub(super) fn into_stream(self) -> Result<Stream> {
        match self.start == self.end {
            true => Ok(self.stream),
            false => Err(violation("The proxy sent more than it was asked for")),
        }
    }

    /// Sends a request and receives the head of the response.
    ///
    /// # Errors
    /// Errors of the connection, or [`violation`].
    pub(super) fn exchange(&mut self, request: &[u8], wait: Wait<'_>) -> Result<Head> {
        if self.start != self.end {
            return Err(violation("The server sent what was not asked for"));
        }
        // A server may respond and close the connection before it has read everything.
        let sent = self.stream.write_all(request, wait);
        for _ in 0..MAX_PRELIMINARY {
            let head = match (self.head(wait), &sent) {
                (Err(error), Ok(())) => return Err(error),
                (Err(_), Err(_)) => break,
                (Ok(head), _) => head,
            };
            if !(100..=199).contains(&head.status) || head.status == 101 {
                self.used = true;
                return Ok(head);
            }
        }
        sent?;
        Err(violation("The server's answer never begins"))
    }

    fn head(&mut self, wait: Wait<'_>) -> Result<Head> {
        loop {
            let waiting = self.input.get(self.start..self.end).unwrap_or_default();
            if let Some((head, len)) = Head::parse(waiting)? {
                self.start += len;
                return Ok(head);
            }
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == self.input.len() {
                let more = (self.input.len() * 2).min(MAX_HEAD);
                memory::resize(&mut self.input, more, 0)?;
            }
            let room = self.input.get_mut(self.end..).unwrap_or_default();
            match self.stream.read(room, wait)? {
                0 => return Err(cut()),
                n => self.end += n,
            }
        }
    }

    /// Reads some bytes of a body.
    ///
    /// # Errors
    /// Errors of the connection, or [`violation`].
    pub(super) fn read(
        &mut self,
        body: &mut Body,
        buf: &mut [u8],
        wait: Wait<'_>,
    ) -> Result<Piece> {
        loop {
            if body.has_ended() {
                return Ok(Piece::End);
            }
            if buf.is_empty() {
                return Ok(Piece::Bytes(0));
            }
            let waiting = self.input.get(self.start..self.end).unwrap_or_default();
            let direct = usize::try_from(body.direct()).unwrap_or(usize::MAX);
            if direct > 0 {
                let most = direct.min(buf.len());
                let n = match waiting.is_empty() {
                    true => {
                        let room = buf.get_mut(..most).unwrap_or_default();
                        self.stream.read(room, wait)?
                    }
                    false => {
                        let n = most.min(waiting.len());
                        buf[..n].copy_from_slice(&waiting[..n]);
                        self.start += n;
                        n
                    }
                };
                if n > 0 {
                    body.took(n as u64);
                    return Ok(Piece::Bytes(n));
                }
                return match body {
                    Body::Close => {
                        *body = Body::Ended;
                        Ok(Piece::End)
                    }
                    _ => Err(cut()),
                };
            }
            if waiting.is_empty() {
                self.start = 0;
                self.end = self.stream.read(&mut self.input, wait)?;
                if self.end == 0 {
                    return Err(cut());
                }
                continue;
            }
            self.start += body.skip(waiting)?;
        }
    }

    /// Reads what remains of a body, if that is little; returns whether the connection can be reused.
    pub(super) fn drain(&mut self, body: &mut Body, wait: Wait<'_>) -> bool {
        let mut scrap = [0; 4096];
        for _ in 0..16 {
            match self.read(body, &mut scrap, wait) {
                Ok(Piece::End) => return true,
                Ok(Piece::Bytes(_)) => {}
                Err(_) => return false,
            }
        }
        false
    }
}
