//! The requests of a queue, and their completions.

use std::fmt::Debug;

use crate::error::Result;
use crate::image::Image;
use crate::storage::ZeroFlags;
use crate::sys::buffer::Buffer;

/// What a queue works on: an image, perhaps behind a handle that a panic marks as unusable.
pub trait QueueTarget: Send + Sync + Debug {
    /// The image.
    fn image(&self) -> &Image;

    /// Called when a panic ran through a request on a thread of the queue: the image's state is unknown.
    fn panicked(&self);
}

impl QueueTarget for Image {
    fn image(&self) -> &Image {
        self
    }

    /// The completion reports it.
    fn panicked(&self) {}
}

/// A request. A `durable` change is on disk when it completes, as far as the image's cache mode requires.
#[derive(Debug)]
pub enum Request {
    /// Fill the buffer with the guest bytes at the offset.
    Read {
        /// Where the bytes are stored.
        buffer: Buffer,
        /// Guest offset.
        offset: u64,
    },
    /// Write the buffer to the guest bytes at the offset.
    Write {
        /// The bytes to write.
        buffer: Buffer,
        /// Guest offset.
        offset: u64,
        /// As above.
        durable: bool,
    },
    /// As [`Image::write_zeroes`].
    WriteZeroes {
        /// Guest offset.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// How to write zeroes.
        flags: ZeroFlags,
        /// As above.
        durable: bool,
    },
    /// As [`Image::discard`].
    Discard {
        /// Guest offset.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// As above.
        durable: bool,
    },
    /// Make those writes durable that had completed when this was submitted.
    Flush,
}

/// A completed request.
#[derive(Debug)]
pub struct Completion {
    /// The token passed to [`Queue::submit`](crate::queue::Queue::submit).
    pub token: u64,
    /// Bytes read, written, zeroed or discarded: always all of them. 0 for a flush.
    pub result: Result<u64>,
    /// The buffer of the request.
    pub buffer: Option<Buffer>,
}
