//! The requests that the kernel processes.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::image::{HostCall, Image};
use crate::queue::request::Request;
use crate::reap::{self, Reap};
use crate::storage::HostFile;
use crate::sys::buffer::Buffer;
use crate::sys::event::Event;
use crate::sys::uring::{Call, Ended, Keep, Ring};

/// A request, without its buffer, and the kernel's call for it.
#[derive(Debug)]
struct Kept {
    token: u64,
    request: Request,
    host: HostCall,
}

impl Keep for Kept {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.host.storage.host().map(HostFile::fd)
    }

    fn ended(&mut self, result: i32) {
        let lost = self.host.call == Call::DataSync && result < 0 && !has_not_begun(-result);
        self.host.ended(lost.then_some(-result));
    }
}

/// The ring of one queue. It is used by the queue's thread, and by threads that wait for what the kernel is doing.
#[derive(Debug)]
pub(super) struct Shared(Mutex<Ring<Kept>>);

impl Reap for Shared {
    fn try_reap(&self) {
        // Whoever holds the lock is reaping.
        if let Some(mut ring) = self.0.try_lock() {
            let _ = ring.send();
            ring.collect();
        }
    }
}

/// The kernel's side of a queue.
#[derive(Debug)]
pub(super) enum LazyRing {
    /// Not created yet.
    Unknown,
    /// It takes requests.
    Ring(Arc<Shared>),
    /// Not wanted, or not supported by the kernel.
    None,
}

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Completed with this result.
    Done {
        result: Result<u64>,
        buffer: Option<Buffer>,
    },
    /// Not completed as required: the regular path fills in zeroes past the end of a file, tries again or in another
    /// way, and can report what is wrong.
    Again(Request),
}

impl LazyRing {
    /// A ring is created when the first request could use it.
    pub(super) fn new(wanted: bool) -> Self {
        if wanted { Self::Unknown } else { Self::None }
    }

    /// Queues a request; returns it if the kernel cannot take it.
    pub(super) fn start(
        &mut self,
        depth: u32,
        event: &Event,
        token: u64,
        mut request: Request,
        host: HostCall,
    ) -> Option<Request> {
        if matches!(self, Self::Unknown) {
            *self = match Ring::new(depth, event.as_fd()) {
                Ok(ring) => {
                    let shared = Arc::new(Shared(Mutex::new(ring)));
                    reap::add(&shared);
                    Self::Ring(shared)
                }
                Err(_) => Self::None,
            };
        }
        let Self::Ring(shared) = self else {
            return Some(request);
        };
        let buffer = request.take_buffer();
        let call = host.call;
        let kept = Kept {
            token,
            request,
            host,
        };
        match shared.0.lock().start(call, buffer, kept) {
            Ok(()) => None,
            Err(refused) => {
                let (buffer, mut kept) = *refused;
                kept.request.give_back(buffer);
                Some(kept.request)
            }
        }
    }

    /// Submits new requests to the kernel; false if it cannot take them now.
    pub(super) fn send(&self) -> bool {
        match self {
            Self::Ring(shared) => shared.0.lock().send().is_ok(),
            Self::Unknown | Self::None => true,
        }
    }

    /// The next completed request, by its token.
    pub(super) fn next(&self, image: &Image) -> Option<(u64, Outcome)> {
        let Self::Ring(shared) = self else {
            return None;
        };
        let ended = shared.0.lock().next()?;
        let token = ended.keep.token;
        Some((token, outcome(image, ended)))
    }

    /// Waits until the kernel has completed all requests.
    pub(super) fn finish(&self, image: &Image) {
        if let Self::Ring(shared) = self {
            let mut ring = shared.0.lock();
            ring.finish();
            while let Some(ended) = ring.next() {
                // Later syncs must learn that this one failed.
                let _ = outcome(image, ended);
            }
        }
    }
}

fn outcome(image: &Image, ended: Ended<Kept>) -> Outcome {
    let Ended {
        buffer,
        keep,
        result,
    } = ended;
    let Kept {
        mut request, host, ..
    } = keep;
    image.host_changed(&host);
    let expected = match host.call {
        Call::Read(_) | Call::Write(_) => buffer.as_ref().map_or(0, Buffer::len),
        Call::Space(..) | Call::DataSync => 0,
    };
    let failed = match u64::try_from(result) {
        Ok(done) if done == expected => None,
        _ => Some(-result),
    };
    match (host.call, failed) {
        (_, None) => Outcome::Done {
            result: match host.call {
                Call::DataSync => image.host_synced(&host, 0).map(|()| 0),
                Call::Space(_, _, len) => Ok(len),
                Call::Read(_) | Call::Write(_) => Ok(expected),
            },
            buffer,
        },
        // Not again if the kernel attempted it: it reports a lost write only once.
        (Call::DataSync, Some(errno)) if !has_not_begun(errno) => Outcome::Done {
            result: image.host_synced(&host, errno).map(|()| 0),
            buffer,
        },
        (_, Some(_)) => {
            request.give_back(buffer);
            Outcome::Again(request)
        }
    }
}

/// Whether a call that ended with this error was not carried out.
fn has_not_begun(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ECANCELED | libc::EINTR)
}

impl Request {
    /// Takes the buffer, leaving an empty one in its place.
    fn take_buffer(&mut self) -> Option<Buffer> {
        self.buffer_mut()
            .map(|buffer| std::mem::replace(buffer, Vec::<u8>::new().into()))
    }

    fn give_back(&mut self, buffer: Option<Buffer>) {
        if let (Some(place), Some(buffer)) = (self.buffer_mut(), buffer) {
            *place = buffer;
        }
    }

    fn buffer_mut(&mut self) -> Option<&mut Buffer> {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } => Some(buffer),
            Self::WriteZeroes { .. } | Self::Discard { .. } | Self::Flush => None,
        }
    }
}
