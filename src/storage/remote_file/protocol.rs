//! What a protocol knows of its files.

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
    /// It is not there yet.
    Create,
}

/// What a file was when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Found {
    pub(in crate::storage) len: u64,
    /// Bytes that it takes on the server, where the server says so.
    pub(in crate::storage) used: Option<u64>,
    /// When it was changed last.
    pub(in crate::storage) modified: Option<(u64, u64)>,
    /// What tells it from others on its server.
    pub(in crate::storage) inode: Option<(u64, u64)>,
}

/// The most data of a read and of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Room {
    pub(in crate::storage) read: usize,
    pub(in crate::storage) write: usize,
}

/// A protocol, and which file of which server is meant.
pub(in crate::storage) trait Protocol: Debug + Send + Sync + 'static {
    /// The driver.
    const NAME: &'static str;
    /// How long attempts to connect again go on.
    const PATIENCE: Duration = Duration::from_secs(15);
    /// What the server has replied to survives this process. Otherwise only what was flushed does.
    const REPLIES_LAST: bool = true;
    /// A file that is open.
    type Opened: Send + Sync + 'static;

    /// Opens the file. What was made, and cannot be opened, is removed again: see [`make`].
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn open(&self, how: How, control: &Arc<JobControl>) -> Result<Self::Opened>;

    /// Makes the file, true, or opens the one that is there.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn make_or_open(&self, control: &Arc<JobControl>) -> Result<(bool, Self::Opened)> {
        match self.open(How::Create, control) {
            Ok(opened) => Ok((true, opened)),
            // It is there, or it cannot be made: opening it as it is tells.
            Err(first) => match self.open(How::Write, control) {
                Ok(opened) => Ok((false, opened)),
                Err(error) if error.os_errno() == Some(libc::ENOENT) => Err(first),
                Err(error) => Err(error),
            },
        }
    }

    /// What tells it from others, whichever user opens it.
    fn place(&self, opened: &Self::Opened) -> BString;

    /// What it was then.
    fn found(&self, opened: &Self::Opened) -> Found;

    /// Whether its connection has ended by itself.
    fn is_lost(&self, opened: &Self::Opened) -> bool;

    /// Whether a connection may take the place of a lost one also while the file is written, where nothing that
    /// was written can be lost.
    fn tells_what_is_flushed(&self, opened: &Self::Opened) -> bool {
        let _ = opened;
        true
    }

    /// What the user should know of it.
    fn warnings(&self, opened: &Self::Opened, writable: bool) -> Vec<String> {
        let _ = (opened, writable);
        Vec::new()
    }

    /// The most data of one request.
    fn room(&self, opened: &Self::Opened) -> Room;

    /// Reads pieces inside of the file at once, each as far as the server likes: how many bytes have come of each.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn read(
        &self,
        opened: &Self::Opened,
        pieces: &mut [ReadRange<'_>],
        control: &JobControl,
    ) -> Result<Vec<usize>>;

    /// As [`Protocol::read`] for writing.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn write(
        &self,
        opened: &Self::Opened,
        pieces: &[(u64, &[u8])],
        control: &JobControl,
    ) -> Result<Vec<usize>>;

    /// Makes the file that long; what is added reads as zeroes.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn set_len(&self, opened: &Self::Opened, len: u64, control: &JobControl) -> Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn flush(&self, opened: &Self::Opened, control: &JobControl) -> Result<()>;

    /// Removes the file; over another connection where that one is lost.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn remove(&self, opened: &Self::Opened, control: &Arc<JobControl>) -> Result<()>;

    /// Makes a range inside of the file zero by a request for that; false where the server has none.
    ///
    /// # Errors
    /// Of the connection, or of the server.
    fn zero(&self, opened: &Self::Opened, range: (u64, u64), control: &JobControl) -> Result<bool> {
        let _ = (opened, range, control);
        Ok(false)
    }

    /// Gives a range inside of the file back.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where the server cannot.
    fn discard(
        &self,
        opened: &Self::Opened,
        range: (u64, u64),
        control: &JobControl,
    ) -> Result<()> {
        let _ = (opened, range, control);
        Err(Error::no_discard())
    }

    /// The first run at an offset inside of the file of `len` bytes; None where the server does not tell data from
    /// holes.
    ///
    /// # Errors
    /// Of the connection, or of the server.
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

    /// Makes the file longer, from and to these lengths, with its room taken.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where the server does not do that.
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

/// A mode that a server does not have.
pub(in crate::storage) fn no_preallocation(mode: Preallocation) -> Error {
    Error::no_preallocation(mode.name())
}

/// How long a request that makes a file is waited for when the work has ended: until its reply it is not known whether
/// there is something to be removed.
const SETTLING: Duration = Duration::from_secs(1);

/// Has the file `name` made by the request that `request` sends.
///
/// # Errors
/// Of the request; where nobody waits for its reply any longer, the control is told that the file may be there.
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

/// Has the file `name` removed, which was made and is of no use, by the request that `request` sends. The error of the
/// file is the one to report.
pub(in crate::storage) fn unmake(
    name: impl Display,
    control: &Arc<JobControl>,
    request: impl FnOnce(&Arc<JobControl>) -> Result<()>,
) {
    if let Err(error) = JobControl::apart(SETTLING, request) {
        control.leaves(format!("'{name}' is left behind: {error}"));
    }
}
