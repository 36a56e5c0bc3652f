//! Data and holes of a file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check_len, offset, retry};

fn seek(fd: BorrowedFd<'_>, at: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let at = offset(at)?;
    // SAFETY: takes no pointers. It moves the file position, which nothing here uses.
    let result = retry(|| check_len(unsafe { libc::lseek(fd.as_raw_fd(), at, whence) }));
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first data at or after `at`; None where there is none up to the end.
pub(crate) fn next_data(fd: BorrowedFd<'_>, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_DATA)
}

/// The first hole at or after `at` (the end of the file is one); None past the end.
pub(crate) fn next_hole(fd: BorrowedFd<'_>, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_HOLE)
}

/// The end by `SEEK_END`: the length of devices that `stat` does not know.
pub(crate) fn end(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(seek(fd, 0, libc::SEEK_END)?.unwrap_or(0))
}

/// Whether the file system knows the offset `at`: its files can become that long.
pub(crate) fn to(fd: BorrowedFd<'_>, at: u64) -> io::Result<()> {
    seek(fd, at, libc::SEEK_SET).map(drop)
}
