//! What clients of servers share from which images are read in long requests: on what terms a server is asked, the
//! right to make a request, what was read lately and what is read ahead, and the storage over all that.
//!
//! Requests are synchronous and are made by the threads that read. A thread that waits for what another one reads reads
//! ahead meanwhile, where the reading is sequential. There are no threads of a driver's own, but those that wait for
//! ranges that are asked for together.

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
    /// Who may make requests.
    fn lanes(&self) -> &Lanes;

    /// Reads a range of the image, which must be inside; the caller has a lane.
    ///
    /// # Errors
    /// Of the server, when trying again does not help.
    fn read(&self, range: (u64, u64), sink: &mut dyn Sink, control: &JobControl) -> Result<()>;
}

/// An answer that breaks the protocol.
pub(super) fn violation(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, message).with_errno(libc::EPROTO)
}

/// The connection has ended where more was to come.
pub(super) fn cut() -> Error {
    Error::os(libc::ECONNRESET).with_message("The server ended the connection too early")
}

/// Whether the peer has ended a connection.
pub(super) fn ended(error: &Error) -> bool {
    matches!(
        error.errno(),
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED
    )
}
