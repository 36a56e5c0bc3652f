//! Requests through io_uring: the kernel carries them out while the thread continues.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

use super::buffer::Buffer;
use super::falloc::Falloc;

/// Maximum number of requests that one ring has in flight.
const MAX_ENTRIES: u32 = 4096;
/// Maximum number of pieces in one request (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// Maximum number of bytes in one request; the kernel's own limit is a little below 2 GiB.
const MAX_BYTES: u64 = 1 << 30;

/// An operation on a file. Offsets are those in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Fill the buffer from that offset.
    Read(u64),
    /// Write the buffer at that offset.
    Write(u64),
    /// `fallocate` with an offset and a length.
    Space(Falloc, u64, u64),
    /// `fdatasync`.
    DataSync,
}

/// What a request keeps alive until the kernel is done with it.
pub(crate) trait Keep: Send {
    /// The file. It stays open as long as the value lives.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// The kernel is done, with that [`Ended::result`]: releases what only it needed. Must not block.
    fn ended(&mut self, result: i32);
}

/// A completed request.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    /// The buffer of a read or write.
    pub(crate) buffer: Option<Buffer>,
    pub(crate) keep: T,
    /// Number of bytes read or written, 0 for other calls, or a negative errno.
    pub(crate) result: i32,
}

/// The buffer and `keep` of a request that the ring could not accept.
pub(crate) type Refused<T> = Box<(Option<Buffer>, T)>;

/// A ring and the requests that it holds.
pub(crate) struct Ring<T: Keep> {
    ring: IoUring,
    slots: Vec<Option<(Option<Buffer>, T)>>,
    free: Vec<usize>,
    /// Number of requests that have not been submitted to the kernel yet.
    unsent: usize,
    /// Requests that have completed but have not been taken.
    done: VecDeque<Ended<T>>,
}

impl<T: Keep> Ring<T> {
    /// A ring for at least `depth` requests, or the maximum, that makes `event` readable when one completes.
    ///
    /// # Errors
    /// If the kernel has no io_uring, does not let this process use it, or lacks a needed operation.
    pub(crate) fn new(depth: u32, event: BorrowedFd<'_>) -> io::Result<Self> {
        let entries = depth.clamp(1, MAX_ENTRIES).next_power_of_two();
        let ring = super::fd::make(|| IoUring::builder().dontfork().build(entries))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Read::CODE,
            opcode::Readv::CODE,
            opcode::Write::CODE,
            opcode::Writev::CODE,
            opcode::Fallocate::CODE,
            opcode::Fsync::CODE,
        ];
        let all = needed.into_iter().all(|code| probe.is_supported(code));
        if !all || !ring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let count = entries as usize;
        Ok(Self {
            ring,
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            unsent: 0,
            done: VecDeque::with_capacity(count),
        })
    }

    /// Number of requests that the kernel may still be working on.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues a call on the file that `keep` holds; reads and writes need a buffer, other calls none. [`Ring::send`]
    /// submits it to the kernel. Returns both if the ring cannot accept it.
    pub(crate) fn start(
        &mut self,
        call: Call,
        buffer: Option<Buffer>,
        keep: T,
    ) -> Result<(), Refused<T>> {
        let fd = keep.fd().map(|fd| types::Fd(fd.as_raw_fd()));
        let fits = |buffer: &Buffer| {
            buffer.iovecs().len() <= MAX_PIECES && (1..=MAX_BYTES).contains(&buffer.len())
        };
        let entry = fd
            .filter(|_| !self.free.is_empty() && buffer.as_ref().is_none_or(fits))
            .and_then(|fd| entry(fd, call, buffer.as_ref()));
        let (Some(entry), Some(slot)) = (entry, self.free.pop()) else {
            return Err(Box::new((buffer, keep)));
        };
        self.slots[slot] = Some((buffer, keep));
        let entry = entry.user_data(slot as u64);
        // SAFETY: the slot keeps the memory, the list of pieces (which stays in place while its buffer moves) and the
        // descriptor until the completion was seen; dropping the ring waits.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.free.push(slot);
            return match self.slots[slot].take() {
                Some(back) => Err(Box::new(back)),
                None => Ok(()),
            };
        }
        self.unsent += 1;
        Ok(())
    }

    /// Submits the queued requests to the kernel.
    ///
    /// # Errors
    /// If `io_uring_enter` fails; the requests stay queued, for another attempt.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.unsent == 0 {
            return Ok(());
        }
        let sent = super::retry(|| self.ring.submit())?;
        self.unsent = self.unsent.saturating_sub(sent);
        Ok(())
    }

    /// Collects the requests that have completed.
    pub(crate) fn collect(&mut self) {
        while let Some(completion) = self.ring.completion().next() {
            let slot = completion.user_data() as usize;
            let ended = self.slots.get_mut(slot).and_then(Option::take);
            if let Some((buffer, mut keep)) = ended {
                self.free.push(slot);
                let result = completion.result();
                keep.ended(result);
                self.done.push_back(Ended {
                    buffer,
                    keep,
                    result,
                });
            }
        }
    }

    /// The next completed request.
    pub(crate) fn next(&mut self) -> Option<Ended<T>> {
        if self.done.is_empty() {
            self.collect();
        }
        self.done.pop_front()
    }

    /// Waits until the kernel is done with all requests.
    pub(crate) fn finish(&mut self) {
        while self.in_flight() > 0 {
            let waited = super::retry(|| self.ring.submit_and_wait(1));
            self.collect();
            if waited.is_err() && self.in_flight() > 0 {
                // The kernel may still write to the memory: a leak is the lesser evil.
                std::mem::forget(std::mem::take(&mut self.slots));
                self.free.clear();
                return;
            }
        }
    }
}

/// The call in the form that the kernel takes; None if it needs a buffer and has none.
fn entry(fd: types::Fd, call: Call, buffer: Option<&Buffer>) -> Option<squeue::Entry> {
    Some(match (call, buffer.map(Buffer::iovecs)) {
        (Call::Read(at), Some([one])) => {
            opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32)
                .offset(at)
                .build()
        }
        (Call::Read(at), Some(many)) => opcode::Readv::new(fd, many.as_ptr(), many.len() as u32)
            .offset(at)
            .build(),
        (Call::Write(at), Some([one])) => {
            opcode::Write::new(fd, one.iov_base.cast_const().cast(), one.iov_len as u32)
                .offset(at)
                .build()
        }
        (Call::Write(at), Some(many)) => opcode::Writev::new(fd, many.as_ptr(), many.len() as u32)
            .offset(at)
            .build(),
        (Call::Space(how, at, len), _) => opcode::Fallocate::new(fd, len)
            .offset(at)
            .mode(how.mode())
            .build(),
        (Call::DataSync, _) => opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        (Call::Read(_) | Call::Write(_), None) => return None,
    })
}

impl<T: Keep> Drop for Ring<T> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<T: Keep> std::fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("entries", &self.slots.len())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
