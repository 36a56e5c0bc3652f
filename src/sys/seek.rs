//! Finding data and holes of a file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check_len, offset, retry};

fn seek(fd: BorrowedFd<'_>, at: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let at = offset(at)?;
    // SAFETY: takes no pointers. It changes the file position, which nothing here uses.
    let result = retry(|| check_len(unsafe { libc::lseek(fd.as_raw_fd(), at, whence) }));
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first data at or after `at`; None if there is none before the end.
pub(crate) fn next_data(fd: BorrowedFd<'_>, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_DATA)
}

/// The first hole at or after `at` (the end of the file counts as one); None past the end.
pub(crate) fn next_hole(fd: BorrowedFd<'_>, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_HOLE)
}

/// The end according to `SEEK_END`: the length of devices for which `stat` does not report it.
pub(crate) fn end(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(seek(fd, 0, libc::SEEK_END)?.unwrap_or(0))
}

/// Fails if the file system does not support the offset `at`, that is, files of that length.
pub(crate) fn to(fd: BorrowedFd<'_>, at: u64) -> io::Result<()> {
    seek(fd, at, libc::SEEK_SET).map(drop)
}
