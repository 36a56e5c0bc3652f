//! Files on a server that is reached without SSH, for tests: SFTP directly over a socket.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::file::{Dial, Ssh};
use super::link::{Connect, Link, Pipe};
use super::options::{OPTIONS, Settings};
use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::storage::remote_file::{How, Protocol, RemoteFile};
use crate::storage::{CacheMode, Storage};

/// A socket in place of the library.
pub(super) struct Socket(pub(super) UnixStream);

impl Pipe for Socket {
    fn read(&mut self, buf: &mut [u8]) -> Result<Option<usize>> {
        match self.0.read(buf) {
            Ok(0) => Ok(None),
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Some(0)),
            Err(error) => Err(Error::io(&error)),
        }
    }

    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        match self.0.write(buf) {
            Ok(len) => Ok(len),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(Error::io(&error)),
        }
    }

    fn wants_write(&self) -> bool {
        true
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A file with a unique path, not opened yet.
///
/// # Errors
/// Errors of its options, which are valid.
pub(super) fn file(dial: &Dial) -> Result<Ssh> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let list = format!("host=h,user=u,path=/{number}");
    let options = Values::check(&Options::parse(&list)?, OPTIONS)?;
    let settings = Settings::of(&options, &Objects::new())?;
    Ok(Ssh::new(&settings, dial.clone()))
}

/// Opens a file with a unique path.
///
/// # Errors
/// Errors of the server.
pub(super) fn open(
    dial: &Dial,
    writable: bool,
    control: &Arc<JobControl>,
) -> Result<RemoteFile<Ssh>> {
    let file = file(dial)?;
    let how = match writable {
        true => How::Write,
        false => How::Read,
    };
    let opened = file.open(how, control)?;
    let how = (writable, CacheMode::Writeback);
    Ok(RemoteFile::new(
        "ssh://h/p".into(),
        file,
        opened,
        how,
        control,
    ))
}

/// Opens a file on the server at the other end of `socket` for writing. If the connection is lost, it cannot reconnect.
///
/// # Errors
/// Errors of the server.
pub fn sftp_over(socket: UnixStream, control: &Arc<JobControl>) -> Result<Arc<dyn Storage>> {
    socket
        .set_nonblocking(true)
        .map_err(|error| Error::io(&error))?;
    let socket = Mutex::new(Some(socket));
    let dial: Dial = Arc::new(move |control: &JobControl| {
        let socket = socket.lock().take();
        let socket = socket.ok_or_else(|| Error::os(libc::ECONNREFUSED))?;
        let make: Connect = Box::new(move |_| Ok(Box::new(Socket(socket))));
        Link::open(make, None, control)
    });
    Ok(Arc::new(open(&dial, true, control)?))
}
