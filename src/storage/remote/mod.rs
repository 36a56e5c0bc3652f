//! Shared by clients that read images from servers in long requests: timeouts and other settings, the limit on
//! concurrent requests, the cache with its read-ahead, and the storage on top.
//!
//! Requests are synchronous and made by the threads that read. A thread that is waiting for another one's read reads
//! ahead in the meantime, if the access is sequential. A driver has no threads of its own, except those that wait for
//! ranges requested together.

mod cache;
mod lanes;
pub(super) mod options;
mod sink;
mod storage;
mod together;
mod tries;

pub(super) use lanes::Lanes;
pub(super) use options::Terms;
pub(super) use sink::{Buffer, Counted, Sink};
pub(super) use storage::{Bytes, Place, RemoteStorage, given_options, refuse_writes};
pub(super) use tries::{Failure, Next, Tries, absent_at_first, opening};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

/// Where an image is read from.
pub(super) trait Source: std::fmt::Debug + Send + Sync {
    /// The lanes that requests have to take.
    fn lanes(&self) -> &Lanes;

    /// Reads a range, which must lie inside the image; the caller must hold a lane.
    ///
    /// # Errors
    /// Errors of the server that retrying does not cure.
    fn read(&self, range: (u64, u64), sink: &mut dyn Sink, control: &JobControl) -> Result<()>;
}

/// A response that violates the protocol.
pub(super) fn violation(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, message).with_errno(libc::EPROTO)
}

/// The connection was closed before everything had arrived.
pub(super) fn cut() -> Error {
    Error::os(libc::ECONNRESET).with_message("The server ended the connection too early")
}

/// Whether the error means that the peer has closed the connection.
pub(super) fn ended(error: &Error) -> bool {
    matches!(
        error.errno(),
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED
    )
}
