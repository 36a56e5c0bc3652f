//! The page cache and the kind of file system.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, offset};

/// Starts writing dirty pages of the range out and does not wait.
pub(crate) fn start_writeback(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: takes no pointers.
    check(unsafe { libc::sync_file_range(fd.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) })
        .map(drop)
}

/// Drops clean pages of the range; `len` 0 is up to the end.
pub(crate) fn drop_pages(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: takes no pointers.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), at, len, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
