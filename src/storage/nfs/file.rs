//! A file on a server.

use std::ffi::CString;
use std::sync::Arc;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::{self, Payload};
use crate::storage::ReadRange;
use crate::storage::remote_file::{Found, How, Protocol, Room};
use crate::sys::libnfs::{Answer, Reply, Request};

use super::client::{Opened, open, refused};
use super::options::Settings;

/// Maximum payload of a read: long requests are cheaper for the server, and most servers accept no more.
const READ: usize = 1 << 20;
/// Maximum payload of a write, which is copied several times on its way: what fits into the cache of a processor costs
/// less than the requests that it takes.
const WRITE: usize = 512 << 10;

/// Identifies the file.
#[derive(Debug)]
pub(super) struct Nfs(pub(super) Settings);

fn strange() -> Error {
    Error::new(
        ErrorKind::Internal,
        "A reply is of another kind than the request",
    )
}

/// Sends one request, and waits for its reply.
fn ask(opened: &Opened, request: Request, control: &JobControl) -> Result<()> {
    match opened.link.run(vec![request], control)?.pop() {
        Some(Ok(_)) => Ok(()),
        Some(Err(failure)) => Err(refused(&failure)),
        None => Err(strange()),
    }
}

fn answer(reply: Reply) -> Result<Answer> {
    reply.map_err(|failure| refused(&failure))
}

impl Protocol for Nfs {
    const NAME: &'static str = super::DRIVER.name;
    type Opened = Opened;

    fn open(&self, how: How, control: &Arc<JobControl>) -> Result<Opened> {
        open(&self.0, how, control)
    }

    fn place(&self, _opened: &Opened) -> BString {
        self.0.place()
    }

    fn found(&self, opened: &Opened) -> Found {
        let stat = opened.stat;
        Found {
            len: stat.size,
            used: Some(stat.used),
            modified: Some(stat.modified),
            inode: Some(stat.inode),
        }
    }

    fn warnings(&self, _opened: &Opened, _writable: bool) -> Vec<String> {
        self.0.warnings.clone()
    }

    fn is_lost(&self, opened: &Opened) -> bool {
        opened.link.is_lost()
    }

    fn room(&self, opened: &Opened) -> Room {
        let (read, write) = opened.limits;
        Room {
            read: read.min(READ),
            write: write.min(WRITE),
        }
    }

    fn read(
        &self,
        opened: &Opened,
        pieces: &mut [ReadRange<'_>],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let mut requests = Vec::with_capacity(pieces.len());
        for (offset, piece) in pieces.iter() {
            requests.push(Request::Read(*offset, memory::zeroed(piece.len())?));
        }
        let replies = opened.link.run(requests, control)?;
        let mut counts = Vec::with_capacity(pieces.len());
        for ((_, piece), reply) in pieces.iter_mut().zip(replies) {
            let Answer::Read(data, count) = answer(reply)? else {
                return Err(strange());
            };
            let (Some(to), Some(from)) = (piece.get_mut(..count), data.get(..count)) else {
                return Err(strange());
            };
            to.copy_from_slice(from);
            counts.push(count);
        }
        Ok(counts)
    }

    fn write(
        &self,
        opened: &Opened,
        pieces: &[(u64, &[u8])],
        control: &JobControl,
    ) -> Result<Vec<usize>> {
        let mut requests = Vec::with_capacity(pieces.len());
        for (offset, piece) in pieces {
            requests.push(Request::Write(*offset, Payload::of(piece)?));
        }
        let replies = opened.link.run(requests, control)?.into_iter();
        let written = |reply| match answer(reply)? {
            Answer::Written(count) => Ok(count),
            _ => Err(strange()),
        };
        let counts: Vec<usize> = replies.map(written).collect::<Result<_>>()?;
        let sent = counts.iter().map(|count| *count as u64).sum();
        let ask = || opened.link.start(vec![Request::Sync]);
        opened.write_back.sent(sent, control, ask)?;
        Ok(counts)
    }

    fn set_len(&self, opened: &Opened, len: u64, control: &JobControl) -> Result<()> {
        ask(opened, Request::SetLen(len), control)
    }

    fn flush(&self, opened: &Opened, control: &JobControl) -> Result<()> {
        let flush = || ask(opened, Request::Sync, control);
        opened.write_back.flush(control, flush)
    }

    fn remove(&self, opened: &Opened, control: &Arc<JobControl>) -> Result<()> {
        let path = [b"/", self.0.file.as_slice()].concat();
        let path = CString::new(path).map_err(|_| strange())?;
        let removed = match opened.link.is_lost() {
            false => ask(opened, Request::Unlink(path), control),
            true => {
                let again = open(&self.0, How::Read, control)?;
                ask(&again, Request::Unlink(path), control)
            }
        };
        removed.map_err(|error| match self.0.whom(&error) {
            whom if whom.is_empty() => error,
            whom => error.context(format!("Failed to remove the file{whom}")),
        })
    }
}
