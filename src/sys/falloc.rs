//! Space of a file: allocation, holes, zeroed ranges, length, durability.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, offset, retry};

/// What `fallocate` should do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Falloc {
    /// Reserves space; grows the file to the end of the range, never shrinks it.
    Allocate,
    /// As Allocate, but keeps the length.
    AllocateKeepSize,
    /// Zeroes the range and keeps its space reserved; grows the file.
    Zero,
    /// As Zero, but keeps the length.
    ZeroKeepSize,
    /// Punches a hole; keeps the length.
    PunchHole,
}

impl Falloc {
    /// The kernel's flags for it.
    pub(super) fn mode(self) -> libc::c_int {
        match self {
            Self::Allocate => 0,
            Self::AllocateKeepSize => libc::FALLOC_FL_KEEP_SIZE,
            Self::Zero => libc::FALLOC_FL_ZERO_RANGE,
            Self::ZeroKeepSize => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            Self::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        }
    }
}

/// `fallocate(2)`.
pub(crate) fn fallocate(fd: BorrowedFd<'_>, how: Falloc, at: u64, len: u64) -> io::Result<()> {
    let mode = how.mode();
    let (at, len) = (offset(at)?, offset(len)?);
    retry(|| {
        // SAFETY: takes no pointers.
        check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, at, len) }).map(drop)
    })
}

/// `ftruncate(2)`.
pub(crate) fn truncate(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    retry(|| {
        // SAFETY: takes no pointers.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), len) }).map(drop)
    })
}

/// `sync_file_range(2)`: starts to write out dirty pages of the range, and waits for none. Write errors are left for
/// the next sync to report.
pub(crate) fn start_writeback(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: takes no pointers.
    check(unsafe { libc::sync_file_range(fd.as_raw_fd(), at, len, flags) }).map(drop)
}

/// `sync_file_range(2)`: waits until writeback of the range, which has been started, is complete. As [`datasync`].
pub(crate) fn wait_for_writeback(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE;
    // SAFETY: takes no pointers.
    retry(|| check(unsafe { libc::sync_file_range(fd.as_raw_fd(), at, len, flags) }).map(drop))
}

/// `posix_fadvise(2)`: the kernel need not keep the range in memory. A hint, so failures are ignored.
pub(crate) fn forget(fd: BorrowedFd<'_>, at: u64, len: u64) {
    if let (Ok(at), Ok(len)) = (offset(at), offset(len)) {
        // SAFETY: takes no pointers.
        unsafe { libc::posix_fadvise(fd.as_raw_fd(), at, len, libc::POSIX_FADV_DONTNEED) };
    }
}

/// How much the kernel reads at most for one hint, unless the device is configured otherwise.
const READ_AHEAD: u64 = 128 << 10;

/// `posix_fadvise(2)`: the range will be read soon. A hint, so failures are ignored.
pub(crate) fn bring(fd: BorrowedFd<'_>, at: u64, len: u64) {
    let end = at.saturating_add(len).min(i64::MAX.unsigned_abs());
    for at in (at..end).step_by(READ_AHEAD as usize) {
        let len = (end - at).min(READ_AHEAD);
        let (Ok(at), Ok(len)) = (offset(at), offset(len)) else {
            return;
        };
        // SAFETY: takes no pointers.
        unsafe { libc::posix_fadvise(fd.as_raw_fd(), at, len, libc::POSIX_FADV_WILLNEED) };
    }
}

/// `fsync(2)`. As [`datasync`].
pub(crate) fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    retry(|| check(unsafe { libc::fsync(fd.as_raw_fd()) }).map(drop))
}

/// `fdatasync(2)`. Not repeated after an error: the kernel reports a lost write once.
pub(crate) fn datasync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    retry(|| check(unsafe { libc::fdatasync(fd.as_raw_fd()) }).map(drop))
}
