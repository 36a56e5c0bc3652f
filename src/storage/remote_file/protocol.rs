//! The protocol-specific part of a file on a server.

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::storage::ReadRange;
use crate::storage::modes::Preallocation;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum How {
    Read,
    Write,
    /// Creates it; it must not exist yet.
    Create,
}

/// The attributes of a file when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Found {
    pub(in crate::storage) len: u64,
    /// Space allocated for it on the server, where the server reports it.
    pub(in crate::storage) used: Option<u64>,
    /// When it was last modified.
    pub(in crate::storage) modified: Option<(u64, u64)>,
    /// Identifies the file on its server.
    pub(in crate::storage) inode: Option<(u64, u64)>,
}

/// Maximum payload of a read and of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Room {
    pub(in crate::storage) read: usize,
    pub(in crate::storage) write: usize,
}

/// A protocol, together with the server and file that it is used for.
pub(in crate::storage) trait Protocol: Debug + Send + Sync + 'static {
    /// Name of the driver.
    const NAME: &'static str;
    /// How long to keep trying to reconnect.
    const PATIENCE: Duration = Duration::from_secs(15);
    /// Data that the server has acknowledged survives this process. Otherwise only flushed data does.
    const REPLIES_LAST: bool = true;
    /// An open file.
    type Opened: Send + Sync + 'static;

    /// Opens the file. A new file that cannot be opened is removed again: see [`make`].
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn open(&self, how: How, control: &Arc<JobControl>) -> Result<Self::Opened>;

    /// Creates the file and returns true, or opens an existing one.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn make_or_open(&self, control: &Arc<JobControl>) -> Result<(bool, Self::Opened)> {
        match self.open(How::Create, control) {
            Ok(opened) => Ok((true, opened)),
            // It exists, or it cannot be created: opening it shows which.
            Err(first) => match self.open(How::Write, control) {
                Ok(opened) => Ok((false, opened)),
                Err(error) if error.os_errno() == Some(libc::ENOENT) => Err(first),
                Err(error) => Err(error),
            },
        }
    }

    /// Identifies the file among all others, whichever user opens it.
    fn place(&self, opened: &Self::Opened) -> BString;

    /// The attributes of the file when it was opened.
    fn found(&self, opened: &Self::Opened) -> Found;

    /// Whether its connection has been lost.
    fn is_lost(&self, opened: &Self::Opened) -> bool;

    /// Whether a lost connection may be replaced even when the file is open for writing, provided that no written data
    /// can have been lost.
    fn tells_what_is_flushed(&self, opened: &Self::Opened) -> bool {
        let _ = opened;
        true
    }

    /// Warnings to show to the user.
    fn warnings(&self, opened: &Self::Opened, writable: bool) -> Vec<String> {
        let _ = (opened, writable);
        Vec::new()
    }

    /// Maximum payload of one request.
    fn room(&self, opened: &Self::Opened) -> Room;

    /// Reads pieces inside the file together, and returns the number of bytes read of each; short reads are allowed.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn read(
        &self,
        opened: &Self::Opened,
        pieces: &mut [ReadRange<'_>],
        control: &JobControl,
    ) -> Result<Vec<usize>>;

    /// As [`Protocol::read`], for writing.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn write(
        &self,
        opened: &Self::Opened,
        pieces: &[(u64, &[u8])],
        control: &JobControl,
    ) -> Result<Vec<usize>>;

    /// Sets the length of the file; an extension reads as zeroes.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn set_len(&self, opened: &Self::Opened, len: u64, control: &JobControl) -> Result<()>;

    /// Makes written data durable.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn flush(&self, opened: &Self::Opened, control: &JobControl) -> Result<()>;

    /// Removes the file, over a new connection if that one is lost.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn remove(&self, opened: &Self::Opened, control: &Arc<JobControl>) -> Result<()>;

    /// Zeroes a range inside the file with a dedicated request; false if the server has none.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn zero(&self, opened: &Self::Opened, range: (u64, u64), control: &JobControl) -> Result<bool> {
        let _ = (opened, range, control);
        Ok(false)
    }

    /// Deallocates a range inside the file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if the server cannot do it.
    fn discard(
        &self,
        opened: &Self::Opened,
        range: (u64, u64),
        control: &JobControl,
    ) -> Result<()> {
        let _ = (opened, range, control);
        Err(Error::no_discard())
    }

    /// The first extent at an offset, at most `len` bytes and inside the file; `None` if the server does not
    /// distinguish data from holes.
    ///
    /// # Errors
    /// Errors of the connection or the server.
    fn extent(
        &self,
        opened: &Self::Opened,
        offset: u64,
        len: u64,
        control: &JobControl,
    ) -> Result<Option<StorageExtent>> {
        let _ = (opened, offset, len, control);
        Ok(None)
    }

    /// Grows the file from the first length to the second, with its space allocated.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if the server cannot do it.
    fn preallocate(
        &self,
        opened: &Self::Opened,
        range: (u64, u64),
        mode: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        let _ = (opened, range, control);
        Err(no_preallocation(mode))
    }
}

/// The error for a mode that a server does not support.
pub(in crate::storage) fn no_preallocation(mode: Preallocation) -> Error {
    Error::no_preallocation(mode.name())
}

/// How long to wait for the reply to a request that creates a file after the job has ended: until then, it is not known
/// whether there is a file to remove.
const SETTLING: Duration = Duration::from_secs(1);

/// Creates the file `name` with the request that `request` sends.
///
/// # Errors
/// Errors of the request; if the wait for its reply was given up, the control is told that the file may exist.
pub(in crate::storage) fn make<T>(
    name: impl Display,
    control: &Arc<JobControl>,
    request: impl FnOnce(&Arc<JobControl>) -> Result<T>,
) -> Result<T> {
    control.check()?;
    let made = control.settling(SETTLING, request);
    made.inspect_err(|error| {
        if error.kind() == ErrorKind::Cancelled || error.errno() == libc::ETIMEDOUT {
            control.leaves(format!("'{name}' may have been made"));
        }
    })
}

/// Removes the new file `name`, which is of no use, with the request that `request` sends. A failure does not replace
/// the error that led here.
pub(in crate::storage) fn unmake(
    name: impl Display,
    control: &Arc<JobControl>,
    request: impl FnOnce(&Arc<JobControl>) -> Result<()>,
) {
    if let Err(error) = JobControl::apart(SETTLING, request) {
        control.leaves(format!("'{name}' is left behind: {error}"));
    }
}
