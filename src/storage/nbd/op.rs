//! A request, and where its reply goes.

use std::io::{IoSlice, IoSliceMut};

use bstr::ByteSlice;

use crate::error::{Error, Result};
use crate::nbd::chunk::StatusExtent;
use crate::nbd::errno::from_wire;
use crate::nbd::flags::CommandFlags;
use crate::nbd::request::{Command, Request};
use crate::nbd::violation;

/// Maximum number of disjoint ranges received for one read: servers normally send the data in order.
const MAX_PIECES: usize = 1024;

/// The payload that follows a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    /// Nothing.
    None,
    /// One buffer.
    One(&'a [u8]),
    /// Several buffers, in order.
    Many(&'a [IoSlice<'a>]),
}

impl Payload<'_> {
    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(data) => data.len(),
            Self::Many(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Copies it to the beginning of `out`.
    pub(super) fn copy_to(&self, out: &mut [u8]) {
        let mut rest = out;
        let mut put = |data: &[u8]| {
            let (now, then) = std::mem::take(&mut rest).split_at_mut(data.len());
            now.copy_from_slice(data);
            rest = then;
        };
        match self {
            Self::None => {}
            Self::One(data) => put(data),
            Self::Many(parts) => parts.iter().for_each(|part| put(part)),
        }
    }
}

/// Where the payload of a reply is stored.
#[derive(Debug)]
pub(super) enum Sink<'a, 'b> {
    /// No payload is expected.
    None,
    /// The data of a read.
    One(&'a mut [u8]),
    /// The data of a read, scattered over several buffers.
    Many(&'a mut [IoSliceMut<'b>]),
    /// Block status extents.
    Status(&'a mut Vec<StatusExtent>),
}

/// A request and its reply.
#[derive(Debug)]
pub(super) struct Op<'a, 'b> {
    pub(super) command: Command,
    pub(super) flags: CommandFlags,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) payload: Payload<'a>,
    pub(super) sink: Sink<'a, 'b>,
    /// The reply is complete.
    pub(super) done: bool,
    /// The error that the server reported.
    pub(super) error: Option<Error>,
    /// Parts of the range received so far, relative to `offset` and in ascending order.
    got: Vec<(u64, u64)>,
}

impl<'a, 'b> Op<'a, 'b> {
    pub(super) fn new(command: Command, offset: u64, len: u64) -> Self {
        Self {
            command,
            flags: CommandFlags::empty(),
            offset,
            len,
            payload: Payload::None,
            sink: Sink::None,
            done: false,
            error: None,
            got: Vec::new(),
        }
    }

    pub(super) fn flags(self, flags: CommandFlags) -> Self {
        Self { flags, ..self }
    }

    pub(super) fn payload(self, payload: Payload<'a>) -> Self {
        Self { payload, ..self }
    }

    pub(super) fn sink(self, sink: Sink<'a, 'b>) -> Self {
        Self { sink, ..self }
    }

    /// The request to send, with the given cookie.
    pub(super) fn request(&self, cookie: u64) -> Request {
        Request {
            flags: self.flags,
            command: self.command,
            cookie,
            offset: self.offset,
            len: self.len,
        }
    }

    /// Restores the state from before it was sent, so that it can be retried.
    pub(super) fn reset(&mut self) {
        self.done = false;
        self.error = None;
        self.got.clear();
        if let Sink::Status(extents) = &mut self.sink {
            extents.clear();
        }
    }

    /// Records the error that the server reported; the first one counts.
    pub(super) fn refuse(&mut self, error: u32, message: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let refused = Error::os(from_wire(error));
        self.error = Some(match message.is_empty() {
            true => refused,
            false => refused.with_hint(format!(
                "server reported: {}",
                crate::printable::printable(&message.to_str_lossy())
            )),
        });
    }

    /// Records that a range is arriving; returns its position in the buffers.
    ///
    /// # Errors
    /// [`violation`] if it was not requested, arrives twice, or in too many pieces.
    pub(super) fn arrives(&mut self, offset: u64, len: u64) -> Result<usize> {
        let outside = || violation("The server sent bytes that were not asked for");
        let start = offset.checked_sub(self.offset).ok_or_else(outside)?;
        let end = start.checked_add(len).ok_or_else(outside)?;
        if end > self.len || len == 0 {
            return Err(outside());
        }
        let at = self.got.partition_point(|(_, before)| *before <= start);
        let next = self.got.get(at).map(|(start, _)| *start);
        if next.is_some_and(|next| next < end) {
            return Err(violation("The server sent the same bytes twice"));
        }
        let joins_next = next == Some(end);
        let joins_last = at > 0 && self.got.get(at - 1).is_some_and(|last| last.1 == start);
        match (joins_last, joins_next) {
            (true, true) => {
                let (_, end) = self.got.remove(at);
                self.got[at - 1].1 = end;
            }
            (true, false) => self.got[at - 1].1 = end,
            (false, true) => self.got[at].0 = start,
            (false, false) if self.got.len() < MAX_PIECES => self.got.insert(at, (start, end)),
            (false, false) => {
                return Err(violation("The server sent a read in too many pieces"));
            }
        }
        usize::try_from(start).map_err(|_| outside())
    }

    /// Marks the reply as complete.
    ///
    /// # Errors
    /// [`violation`] if something is missing.
    pub(super) fn end(&mut self) -> Result<()> {
        self.done = true;
        if self.error.is_some() {
            return Ok(());
        }
        let whole = match &self.sink {
            Sink::None => true,
            Sink::One(_) | Sink::Many(_) => self.got == [(0, self.len)],
            Sink::Status(extents) => !extents.is_empty(),
        };
        match whole {
            true => Ok(()),
            false => Err(violation("The server's reply ended before it was complete")),
        }
    }
}

impl Sink<'_, '_> {
    /// Calls `fill` on the buffers, for `len` bytes from `at` on.
    ///
    /// # Errors
    /// If `fill` fails, or the range exceeds the buffers.
    pub(super) fn fill(
        &mut self,
        mut at: usize,
        mut len: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let outside = || violation("The server sent bytes that were not asked for");
        match self {
            Self::One(buf) => fill(
                at.checked_add(len)
                    .and_then(|end| buf.get_mut(at..end))
                    .ok_or_else(outside)?,
            ),
            Self::Many(bufs) => {
                for buf in bufs.iter_mut() {
                    if at >= buf.len() {
                        at -= buf.len();
                        continue;
                    }
                    let count = len.min(buf.len() - at);
                    if count > 0 {
                        fill(&mut buf[at..at + count])?;
                    }
                    (at, len) = (0, len - count);
                }
                match len {
                    0 => Ok(()),
                    _ => Err(outside()),
                }
            }
            Self::None | Self::Status(_) => Err(outside()),
        }
    }
}
