//! What can only be read or written in order: pipes, sockets, terminals, and descriptors that the
//! caller wants to be used from their position on. They are not a [`super::Storage`], which is positional.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::storage::locks::{Locks, Reach};
use crate::storage::modes::LockRequest;
use crate::sys::fd::{self, duplicate_number};
use crate::sys::stream::{Ready, position, read, send, wait, write};
use crate::sys::{attr, dio, falloc, lock};

/// How long a blocked call waits before it asks whether to go on.
const NAP: Duration = Duration::from_millis(50);

/// What a pipe takes without waiting once it has room for anything.
const PIPE_BUF: usize = 4096;

/// Asked from time to time while a stream is waited for; an error ends the waiting.
pub type GoOn<'a> = &'a dyn Fn() -> Result<()>;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Socket,
    Other,
}

/// An open stream. One thread at a time reads or writes it.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    name: BString,
    kind: Kind,
    /// The most bytes of one write that does not wait.
    step: usize,
    locks: Locks,
}

/// Refuses a descriptor that is not open in that direction.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`]; of the system.
pub(crate) fn check_direction(fd: BorrowedFd<'_>, direction: Direction) -> Result<()> {
    let flags = dio::status_flags(fd).map_err(|error| Error::io(&error))?;
    let (wrong, what) = match direction {
        Direction::Read => (libc::O_WRONLY, "reading"),
        Direction::Write => (libc::O_RDONLY, "writing"),
    };
    match flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == wrong {
        true => Err(Error::invalid(format!(
            "the descriptor is not open for {what}"
        ))),
        false => Ok(()),
    }
}

impl Stream {
    /// Over a descriptor, from its position on; `name` stands for it in messages.
    ///
    /// # Errors
    /// The descriptor is not open in that direction, or is a directory.
    pub fn from_fd(fd: OwnedFd, name: impl Into<BString>, direction: Direction) -> Result<Self> {
        let name = name.into();
        let failed = |error: std::io::Error| could_not_open(name.as_bstr(), Error::io(&error));
        let fd = fd::keep(fd).map_err(failed)?;
        check_direction(fd.as_fd(), direction)
            .map_err(|error| could_not_open(name.as_bstr(), error))?;
        let flags = dio::status_flags(fd.as_fd()).map_err(failed)?;
        let stat = attr::stat(fd.as_fd()).map_err(failed)?;
        let mode = stat.mode & libc::S_IFMT;
        let kind = match mode {
            libc::S_IFREG | libc::S_IFBLK => Kind::File,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFDIR => return Err(could_not_open(name.as_bstr(), Error::os(libc::EISDIR))),
            _ => Kind::Other,
        };
        let mut stream = Self {
            name,
            kind,
            step: match kind {
                Kind::Other => PIPE_BUF,
                Kind::File | Kind::Socket => 1 << 20,
            },
            locks: Locks::new(&stat, reach(fd.as_fd(), kind, flags)),
            fd,
        };
        if mode == libc::S_IFIFO && direction == Direction::Write {
            stream.take_own_description();
        }
        Ok(stream)
    }

    /// A pipe opened again does not wait, without a change to the description that others share.
    fn take_own_description(&mut self) {
        let mut how = OpenOptions::new();
        how.write(true).custom_flags(libc::O_NONBLOCK);
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        if let Ok(own) = fd::open(Path::new(&path), &how) {
            self.fd = own;
            self.step = 1 << 20;
        }
    }

    /// Opens a path that [`is_stream`] knows. A named pipe waits for its other end.
    ///
    /// # Errors
    /// `Could not open 'X': …`, or that of `go_on`.
    pub fn open(path: &Path, direction: Direction, go_on: GoOn<'_>) -> Result<Self> {
        let name = BString::from(path.as_os_str().as_bytes());
        let failed = |error: std::io::Error| could_not_open(name.as_bstr(), Error::io(&error));
        if let Some(number) = own_descriptor(path) {
            let fd = duplicate_number(number).map_err(failed)?;
            return Self::from_fd(fd, name, direction);
        }
        let mut how = OpenOptions::new();
        match direction {
            Direction::Read => how.read(true),
            Direction::Write => how.write(true),
        };
        how.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = loop {
            match fd::open(path, &how) {
                // The pipe has no reader yet.
                Err(error)
                    if direction == Direction::Write
                        && error.raw_os_error() == Some(libc::ENXIO)
                        && is_fifo(path) =>
                {
                    go_on()?;
                    std::thread::sleep(NAP / 5);
                }
                other => break other.map_err(failed)?,
            }
        };
        Self::from_fd(file, name, direction)
    }

    /// The name for messages.
    pub fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes locks against other users of a file, and drops those that are no longer asked for; a pipe
    /// has none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`]; the locks are as before then.
    pub fn lock(&self, request: LockRequest) -> Result<()> {
        self.locks
            .change(self.fd.as_fd(), self.name(), request)
            .map_err(|error| could_not_open(self.name(), error))
    }

    /// The bytes from the position on, where the descriptor is a file's; None until the end is seen.
    pub fn remaining(&self) -> Option<u64> {
        if self.kind != Kind::File {
            return None;
        }
        let len = attr::stat(self.fd()).ok()?.len;
        let at = position(self.fd()).ok()?;
        // A device has no length here: its end is found by reading.
        (len > 0).then(|| len.saturating_sub(at))
    }

    /// Fills `buf`; fewer bytes only at the end of the stream.
    ///
    /// # Errors
    /// `Could not read 'X': …`, or that of `go_on`.
    pub fn read(&self, buf: &mut [u8], go_on: GoOn<'_>) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            self.ready(Ready::Read, go_on)?;
            match read(self.fd(), rest) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.failed("read", &error)),
            }
        }
        Ok(done)
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// `Could not write to 'X': …`, or that of `go_on`.
    pub fn write(&self, mut buf: &[u8], go_on: GoOn<'_>) -> Result<()> {
        while !buf.is_empty() {
            self.ready(Ready::Write, go_on)?;
            let part = &buf[..buf.len().min(self.step)];
            let written = match self.kind {
                Kind::Socket => send(self.fd(), part),
                Kind::File | Kind::Other => write(self.fd(), part),
            };
            match written {
                Ok(n) => buf = &buf[n..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.failed("write to", &error)),
            }
        }
        Ok(())
    }

    /// Makes what was written to a file durable; a pipe has no such thing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&self) -> Result<()> {
        match self.kind {
            Kind::File => {
                falloc::datasync(self.fd()).map_err(|error| self.failed("write to", &error))
            }
            Kind::Socket | Kind::Other => Ok(()),
        }
    }

    fn ready(&self, ready: Ready, go_on: GoOn<'_>) -> Result<()> {
        loop {
            go_on()?;
            match wait(self.fd(), ready, NAP) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Error::io(&error)),
            }
        }
    }

    fn failed(&self, doing: &str, error: &std::io::Error) -> Error {
        Error::io(error).context(format!("Could not {doing} '{}'", self.name))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The caller may keep a duplicate, which would keep the locks.
        let _ = self.lock(LockRequest::default());
    }
}

/// What can be locked through the descriptor of a stream.
fn reach(fd: BorrowedFd<'_>, kind: Kind, flags: libc::c_int) -> Reach {
    match kind {
        Kind::Socket | Kind::Other => Reach::Nothing,
        // Our locks are those of readers, also for writing.
        Kind::File if flags & libc::O_ACCMODE == libc::O_WRONLY => Reach::Process,
        Kind::File => match lock::held_by_other(fd, 0) {
            Ok(_) => Reach::Host,
            Err(_) => Reach::Process,
        },
    }
}

fn could_not_open(name: &BStr, reason: Error) -> Error {
    reason.could_not_open(name)
}

/// Whether a path names what can only be used in order: a pipe, a socket, with `devices` also a
/// character device.
pub fn is_stream(path: &Path, devices: bool) -> bool {
    path.metadata().is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo()
            || (kind.is_socket() && own_descriptor(path).is_some())
            || (devices && kind.is_char_device())
    })
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.file_type().is_fifo())
}

/// The number of the process's own descriptor that a path stands for.
fn own_descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        text => text
            .strip_prefix("/dev/fd/")
            .or_else(|| text.strip_prefix("/proc/self/fd/"))?
            .parse()
            .ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const ON: GoOn<'static> = &|| Ok(());

    #[test]
    fn a_socket_is_read_and_written_in_order_and_its_end_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let to = Stream::from_fd(a.into(), "a", Direction::Write).unwrap();
        let from = Stream::from_fd(b.into(), "b", Direction::Read).unwrap();
        assert_eq!(from.remaining(), None);
        let sent: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| to.write(&sent, ON).unwrap());
            assert_eq!(from.read(&mut got, ON).unwrap(), got.len());
        });
        assert!(got == sent);
        drop(from);
        let error = to.write(&sent, ON).unwrap_err();
        assert_eq!(error.to_string(), "Could not write to 'a': Broken pipe");
    }

    #[test]
    fn waiting_ends_when_asked_to() {
        let (a, _b) = UnixStream::pair().unwrap();
        let from = Stream::from_fd(a.into(), "a", Direction::Read).unwrap();
        let error = from
            .read(&mut [0; 8], &|| Err(Error::cancelled()))
            .unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
    }

    #[test]
    fn a_file_is_used_from_its_position_on() {
        use std::io::{Read as _, Seek as _, Write as _};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(std::io::SeekFrom::Start(4)).unwrap();
        let from = Stream::from_fd(file.try_clone().unwrap().into(), "f", Direction::Read).unwrap();
        assert_eq!(from.remaining(), Some(6));
        let mut buf = [0; 8];
        assert_eq!(from.read(&mut buf, ON).unwrap(), 6);
        assert_eq!(&buf[..6], b"456789");
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let readable = std::fs::File::open("/dev/null").unwrap();
        let error = Stream::from_fd(readable.into(), "n", Direction::Write).unwrap_err();
        assert!(error.to_string().contains("not open for writing"));
    }
}
