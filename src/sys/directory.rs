//! What stands in an open directory: names are taken one at a time, relative to it, and no link is followed.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use super::{check, fd, retry};

/// What is known of a file by its name or descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Type and permission bits.
    pub(crate) mode: libc::mode_t,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
    /// Last change of the contents: seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
}

impl Status {
    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub(crate) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

fn status(stat: &libc::stat) -> Status {
    Status {
        mode: stat.st_mode,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        identity: (stat.st_dev, stat.st_ino),
        modified: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
    }
}

/// `fstat(2)`.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> io::Result<Status> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call fills one stat, which lives through it.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed is a valid stat, and the call filled it.
    Ok(status(&unsafe { stat.assume_init() }))
}

/// What has that name in the directory; a link is itself.
pub(crate) fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Status> {
    let name = CString::new(name)?;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call reads the name and fills one stat; both live through it.
    check(unsafe {
        libc::fstatat(
            directory.as_raw_fd(),
            name.as_ptr(),
            stat.as_mut_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })?;
    // SAFETY: zeroed is a valid stat, and the call filled it.
    Ok(status(&unsafe { stat.assume_init() }))
}

/// Opens what has that name in the directory; a link is refused (`ELOOP`), a FIFO does not block.
pub(crate) fn open_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    flags: libc::c_int,
    mode: libc::mode_t,
) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let always = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = retry(|| {
        // SAFETY: the call reads the name, which lives through it.
        check(unsafe {
            libc::openat(
                directory.as_raw_fd(),
                name.as_ptr(),
                flags | always,
                libc::c_uint::from(mode),
            )
        })
    })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    fd::keep(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Opens a directory in the directory.
pub(crate) fn open_directory_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    open_at(directory, name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// Calls `visit` with each name in a directory, except for `.` and `..`; in no order.
pub(crate) fn names<E: From<io::Error>>(
    directory: OwnedFd,
    mut visit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    /// Closes the stream.
    struct Stream(*mut libc::DIR);
    impl Drop for Stream {
        fn drop(&mut self) {
            // SAFETY: the stream is open and used by nothing else.
            unsafe { libc::closedir(self.0) };
        }
    }
    let number = directory.into_raw_fd();
    // SAFETY: the descriptor is open and owned by nothing else; the stream takes it.
    let stream = unsafe { libc::fdopendir(number) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: the stream did not take it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        return Err(error.into());
    }
    let stream = Stream(stream);
    loop {
        // SAFETY: errno is the thread's own.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open; the entry is used before the next call.
        let entry = unsafe { libc::readdir64(stream.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(0) | None => Ok(()),
                Some(_) => Err(error.into()),
            };
        }
        // SAFETY: the name ends in a NUL within the entry, which is valid until the next call.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if name != b"." && name != b".." {
            visit(name)?;
        }
    }
}

/// How a directory is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Not.
    Free,
    /// Others may hold it so, too.
    Shared,
    /// By one alone.
    Alone,
}

/// `flock(2)`; `EWOULDBLOCK` where another opener is in the way.
pub(crate) fn hold(fd: BorrowedFd<'_>, how: Hold) -> io::Result<()> {
    let operation = match how {
        Hold::Free => libc::LOCK_UN,
        Hold::Shared => libc::LOCK_SH,
        Hold::Alone => libc::LOCK_EX,
    };
    // SAFETY: a plain system call.
    retry(|| check(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) })).map(drop)
}
