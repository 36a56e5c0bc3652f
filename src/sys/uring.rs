//! Reads through io_uring: the kernel fills the buffers while the thread goes on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, types};

use super::buffer::Buffer;

/// The most requests that one ring has under way.
const MAX_ENTRIES: u32 = 4096;
/// The most pieces that one request may have (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// The most bytes that one request may have; the kernel's own limit is a little below 2 GiB.
const MAX_BYTES: u64 = 1 << 30;

/// What a request keeps alive until the kernel is done with it.
pub(crate) trait Keep {
    /// The file to read from. It stays open as long as the value lives.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    pub(crate) buffer: Buffer,
    pub(crate) keep: T,
    /// Bytes read, or a negative errno.
    pub(crate) result: i32,
}

/// A ring with the requests that it holds.
pub(crate) struct Ring<T: Keep> {
    ring: IoUring,
    slots: Vec<Option<(Buffer, T)>>,
    free: Vec<usize>,
    /// Requests that the kernel has not been told of.
    unsent: usize,
}

impl<T: Keep> Ring<T> {
    /// A ring for at least `depth` requests, or as many as one may have, that makes `event`
    /// readable when one ends.
    ///
    /// # Errors
    /// Where the kernel has no io_uring, does not let this process use it, or lacks a part.
    pub(crate) fn new(depth: u32, event: BorrowedFd<'_>) -> io::Result<Self> {
        let entries = depth.clamp(1, MAX_ENTRIES).next_power_of_two();
        let ring = IoUring::builder().dontfork().build(entries)?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !ring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let count = entries as usize;
        Ok(Self {
            ring,
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            unsent: 0,
        })
    }

    /// Requests that have not ended, or whose end was not looked at.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues a read into `buffer` from `offset` of the file that `keep` holds; [`Ring::send`]
    /// tells the kernel. Gives both back where the ring cannot take it.
    pub(crate) fn read(
        &mut self,
        buffer: Buffer,
        keep: T,
        offset: u64,
    ) -> Result<(), Box<(Buffer, T)>> {
        let fd = keep.fd().map(|fd| types::Fd(fd.as_raw_fd()));
        let fits = buffer.iovecs().len() <= MAX_PIECES && buffer.len() <= MAX_BYTES;
        let (Some(fd), true) = (fd, fits) else {
            return Err(Box::new((buffer, keep)));
        };
        let Some(slot) = self.free.pop() else {
            return Err(Box::new((buffer, keep)));
        };
        // The list of pieces is taken from where it stays.
        let (buffer, _) = self.slots[slot].insert((buffer, keep));
        let entry = match buffer.iovecs() {
            [one] => opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32)
                .offset(offset)
                .build(),
            many => opcode::Readv::new(fd, many.as_ptr(), many.len() as u32)
                .offset(offset)
                .build(),
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the slot keeps the memory, the list of pieces and the descriptor until the
        // completion was seen; the slots are never moved, and dropping the ring waits.
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

    /// Tells the kernel of what was queued.
    ///
    /// # Errors
    /// Of `io_uring_enter`; what was queued stays so, for another try.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.unsent == 0 {
            return Ok(());
        }
        let sent = super::retry(|| self.ring.submit())?;
        self.unsent = self.unsent.saturating_sub(sent);
        Ok(())
    }

    /// The next request that has ended.
    pub(crate) fn next(&mut self) -> Option<Ended<T>> {
        loop {
            let completion = self.ring.completion().next()?;
            let slot = completion.user_data() as usize;
            let ended = self.slots.get_mut(slot).and_then(Option::take);
            if let Some((buffer, keep)) = ended {
                self.free.push(slot);
                return Some(Ended {
                    buffer,
                    keep,
                    result: completion.result(),
                });
            }
        }
    }
}

impl<T: Keep> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            let waited = super::retry(|| self.ring.submit_and_wait(1));
            while self.next().is_some() {}
            if waited.is_err() && self.in_flight() > 0 {
                // The kernel may still write there: memory that nobody frees is the lesser evil.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
        }
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
