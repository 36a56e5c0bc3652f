//! Requests on an image that complete later, in any order: the asynchronous side of [`Image`](crate::image::Image).
//!
//! A request whose bytes are in memory completes within the call that submits it: reads through cached metadata from
//! the page cache, reads of zeroes, and writes to the page cache over bytes that are already allocated. Requests that
//! are a single call on a host file go to io_uring if the kernel supports it: other reads and overwrites of one run,
//! syncs, and zeroes and discards that the format only passes on. Everything else is done by a few threads, started
//! when first needed.

mod pool;
mod request;
mod ring;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, ResultExt};
use crate::image::{HostCall, HostFlush, TryRead};
use crate::memory;
use crate::sys::event::Event;

pub use crate::sys::buffer::Buffer;
pub use request::{Completion, QueueTarget, Request};

use pool::{Job, Pool};
use ring::{LazyRing, Outcome};

/// Maximum depth of a queue.
pub const MAX_DEPTH: u32 = 1 << 16;

/// How soon to retry a kernel that could not take a request.
const RETRY: Duration = Duration::from_millis(10);

/// Bytes that are decoded or decrypted for one request on the thread that submits it; this takes about as long as
/// handing the request to another thread and back.
const LITTLE_WORK: u64 = 16 << 10;
/// The same if the request is the only one: threads would have nothing else to do in the meantime.
const LONE_WORK: u64 = 128 << 10;

/// How a queue works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Number of requests that run at once and for which space is reserved, 1 to [`MAX_DEPTH`]. Further ones wait.
    pub depth: u32,
    /// Offer a descriptor that is readable while completions are waiting; see [`Queue::event`].
    pub event: bool,
    /// Use io_uring if the kernel supports it.
    pub ring: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            depth: 64,
            event: true,
            ring: true,
        }
    }
}

/// A queue for use by one thread; an image may have many.
///
/// Dropping it drops requests that have not begun and waits for the others; those that wait for a server end with the
/// work of the thread that submitted them.
#[derive(Debug)]
pub struct Queue {
    kernel: LazyRing,
    pool: Option<Pool>,
    ready: VecDeque<Completion>,
    target: Arc<dyn QueueTarget>,
    options: QueueOptions,
    event: Arc<Event>,
    /// Whether the event may be readable.
    signalled: bool,
    /// Number of requests that threads or the kernel are processing.
    away: usize,
    /// Whether there have been any such requests.
    asynchronous: bool,
}

impl Queue {
    /// A queue for `target`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a depth out of range, or if creating the event fails.
    pub fn new(target: Arc<dyn QueueTarget>, options: QueueOptions) -> Result<Self> {
        if !(1..=MAX_DEPTH).contains(&options.depth) {
            return Err(Error::invalid(format!(
                "The depth of a queue must be between 1 and {MAX_DEPTH}, not {}",
                options.depth
            )));
        }
        let event = Event::new()
            .map_err(|error| Error::io(&error))
            .context(|| "Could not make an eventfd".into())?;
        let mut ready = VecDeque::new();
        ready
            .try_reserve(options.depth as usize)
            .map_err(|_| memory::lack())?;
        Ok(Self {
            kernel: LazyRing::new(options.ring),
            pool: None,
            ready,
            target,
            options,
            event: Arc::new(event),
            signalled: false,
            away: 0,
            asynchronous: false,
        })
    }

    /// A descriptor (an eventfd, non-blocking and close-on-exec) that is readable while completions are waiting to be
    /// taken; it must not be read or written. None if it was not requested in the options.
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.options.event.then(|| self.event.as_fd())
    }

    /// Begins a request; `token` is returned with its completion, which also reports any error. With `more`, other
    /// requests follow at once: the kernel receives them together, at the latest with [`Queue::wait`].
    pub fn submit(&mut self, token: u64, request: Request, more: bool) {
        match request {
            Request::Read { buffer, offset } => self.read(token, buffer, offset, more),
            Request::Write {
                buffer,
                offset,
                durable: false,
            } => self.write(token, buffer, offset),
            Request::WriteZeroes {
                offset,
                len,
                flags,
                durable: false,
            } => {
                let host = self.target.image().host_space(offset, len, Some(flags));
                self.by_kernel(token, request, host);
            }
            Request::Discard {
                offset,
                len,
                durable: false,
            } => {
                let host = self.target.image().host_space(offset, len, None);
                self.by_kernel(token, request, host);
            }
            Request::Flush => match self.target.image().host_flush() {
                HostFlush::Done => self.complete(Completion {
                    token,
                    result: Ok(0),
                    buffer: None,
                }),
                HostFlush::Host(host) => self.by_kernel(token, request, Some(host)),
                HostFlush::WouldBlock => self.hand_over(token, request),
            },
            // These consist of changes followed by a flush.
            Request::Write { .. } | Request::WriteZeroes { .. } | Request::Discard { .. } => {
                self.hand_over(token, request);
            }
        }
        if !more {
            self.send();
        }
    }

    /// Completes a request that could not even be submitted.
    pub fn fail(&mut self, token: u64, error: Error) {
        self.complete(Completion {
            token,
            result: Err(error),
            buffer: None,
        });
    }

    /// Number of requests that were submitted and whose completion has not been taken.
    pub fn outstanding(&self) -> usize {
        self.away + self.ready.len()
    }

    /// Waits until `min` completions can be taken, or all outstanding ones if there are fewer; gives up after
    /// `timeout`. Returns how many can be taken.
    ///
    /// # Errors
    /// If waiting for the event fails.
    pub fn wait(&mut self, min: usize, timeout: Option<Duration>) -> Result<usize> {
        self.collect();
        let min = min.min(self.outstanding());
        if self.ready.len() < min {
            // A time past the range of the clock means forever.
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            while self.ready.len() < min {
                // A kernel that is short of memory is retried soon.
                let again = (!self.send()).then(|| Instant::now() + RETRY);
                let until = [deadline, again].into_iter().flatten().min();
                let woken = self.event.wait(until).map_err(|error| Error::io(&error))?;
                self.collect();
                if !woken && until == deadline {
                    break;
                }
            }
        }
        // What is not taken now must be signalled again.
        self.show();
        Ok(self.ready.len())
    }

    /// Takes a completion that [`Queue::wait`] has counted, or that was available immediately.
    pub fn pop(&mut self) -> Option<Completion> {
        let next = self.ready.pop_front();
        if self.ready.is_empty() && self.signalled {
            if self.away == 0 {
                self.event.clear();
                self.signalled = false;
            } else {
                // Another signal must not be lost along with our own.
                self.collect();
                self.show();
            }
        }
        next
    }

    fn read(&mut self, token: u64, mut buffer: Buffer, offset: u64, more: bool) {
        let work = if more || self.away > 0 {
            LITTLE_WORK
        } else {
            LONE_WORK
        };
        let image = self.target.image();
        let result = match image.try_read(buffer.slices_mut(), offset, work) {
            Ok(TryRead::Done) => Ok(buffer.len()),
            Ok(TryRead::Host(host)) => {
                return self.by_kernel(token, Request::Read { buffer, offset }, Some(host));
            }
            Ok(TryRead::WouldBlock) => {
                return self.hand_over(token, Request::Read { buffer, offset });
            }
            Err(error) => Err(error),
        };
        self.complete(Completion {
            token,
            result,
            buffer: Some(buffer),
        });
    }

    fn write(&mut self, token: u64, buffer: Buffer, offset: u64) {
        let image = self.target.image();
        if image.overwrites_memory(buffer.slices(), offset) {
            let result = image.write_vectored_at(buffer.slices(), offset);
            return self.complete(Completion {
                token,
                result: result.map(|()| buffer.len()),
                buffer: Some(buffer),
            });
        }
        let host = image.host_write(buffer.slices(), offset);
        let request = Request::Write {
            buffer,
            offset,
            durable: false,
        };
        self.by_kernel(token, request, host);
    }

    /// Passes a request to the kernel, or to the threads if `host` contains no call for it or the kernel cannot take
    /// it.
    fn by_kernel(&mut self, token: u64, request: Request, host: Option<HostCall>) {
        let Some(host) = host else {
            return self.hand_over(token, request);
        };
        let (depth, event) = (self.options.depth, &self.event);
        match self.kernel.start(depth, event, token, request, host) {
            None => {
                self.away += 1;
                self.asynchronous = true;
            }
            Some(request) => self.hand_over(token, request),
        }
    }

    /// Passes a request to the threads.
    fn hand_over(&mut self, token: u64, request: Request) {
        let pool = self.pool.get_or_insert_with(|| {
            Pool::new(self.target.clone(), self.event.clone(), self.options.depth)
        });
        self.away += 1;
        self.asynchronous = true;
        pool.push(Job::new(token, request));
    }

    fn complete(&mut self, completion: Completion) {
        self.ready.push_back(completion);
        self.show();
    }

    /// Makes the event signal that completions are waiting.
    fn show(&mut self) {
        if self.options.event && !self.signalled && !self.ready.is_empty() {
            self.event.signal();
            self.signalled = true;
        }
    }

    /// Submits new requests to the kernel; false if it cannot take them now. They stay queued, and this is retried with
    /// the next request or wait.
    fn send(&mut self) -> bool {
        self.kernel.send()
    }

    /// Collects what threads and the kernel have completed.
    fn collect(&mut self) {
        if self.away == 0 {
            // The kernel signals after it has posted a completion, so the last signal can be late.
            if self.asynchronous && self.options.event && self.ready.is_empty() {
                self.event.clear();
                self.signalled = false;
            }
            return;
        }
        // Cleared first: anything signalled from now on is seen next time.
        self.event.clear();
        self.signalled = false;
        while let Some((token, outcome)) = self.kernel.next(self.target.image()) {
            self.away -= 1;
            match outcome {
                Outcome::Done { result, buffer } => self.ready.push_back(Completion {
                    token,
                    result,
                    buffer,
                }),
                Outcome::Again(request) => self.hand_over(token, request),
            }
        }
        if let Some(pool) = &self.pool {
            let before = self.ready.len();
            pool.take(&mut self.ready);
            self.away -= self.ready.len() - before;
        }
    }
}

impl Drop for Queue {
    /// Drops requests that have not begun and waits for the others.
    fn drop(&mut self) {
        self.kernel.finish(self.target.image());
    }
}

#[cfg(test)]
mod tests;
