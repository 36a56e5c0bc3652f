//! What a queue is asked to do, and what it says of it.

use std::fmt::Debug;

use crate::error::Result;
use crate::image::Image;
use crate::storage::ZeroFlags;
use crate::sys::buffer::Buffer;

/// What a queue works on: an image, perhaps behind a handle that a panic marks as unusable.
pub trait QueueTarget: Send + Sync + Debug {
    /// The image.
    fn image(&self) -> &Image;

    /// A panic ran through a request on a thread of the queue: the image's state is unknown.
    fn panicked(&self);
}

impl QueueTarget for Image {
    fn image(&self) -> &Image {
        self
    }

    /// The completion says so.
    fn panicked(&self) {}
}

/// What is to be done. A `durable` change is on the disk, as far as the image's cache mode asks
/// for, when it completes.
#[derive(Debug)]
pub enum Request {
    /// Fill the buffer with the guest bytes at the offset.
    Read {
        /// Where they go.
        buffer: Buffer,
        /// Guest offset.
        offset: u64,
    },
    /// Write the buffer to the guest bytes at the offset.
    Write {
        /// What to write.
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
        /// Bytes.
        len: u64,
        /// How.
        flags: ZeroFlags,
        /// As above.
        durable: bool,
    },
    /// As [`Image::discard`].
    Discard {
        /// Guest offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// As above.
        durable: bool,
    },
    /// Make the writes durable that had completed when this was submitted.
    Flush,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// What [`Queue::submit`](crate::queue::Queue::submit) was given.
    pub token: u64,
    /// Bytes read, written, zeroed or discarded: all of them, never fewer. 0 for a flush.
    pub result: Result<u64>,
    /// The buffer of the request.
    pub buffer: Option<Buffer>,
}
