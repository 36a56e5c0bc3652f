//! Copies inside the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, check_len, offset, retry};

/// One `copy_file_range(2)`; may be short, 0 at the end of the source.
pub(crate) fn copy_file_range(
    source: BorrowedFd<'_>,
    source_at: u64,
    target: BorrowedFd<'_>,
    target_at: u64,
    len: usize,
) -> io::Result<usize> {
    let mut from = offset(source_at)?;
    let mut to = offset(target_at)?;
    retry(|| {
        // SAFETY: both offsets are valid for reads and writes during the call.
        let n = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &raw mut from,
                target.as_raw_fd(),
                &raw mut to,
                len,
                0,
            )
        };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// `FICLONERANGE`: shares the blocks of the range, or fails without changing anything.
pub(crate) fn clone_range(
    source: BorrowedFd<'_>,
    source_at: u64,
    target: BorrowedFd<'_>,
    target_at: u64,
    len: u64,
) -> io::Result<()> {
    let range = libc::file_clone_range {
        src_fd: i64::from(source.as_raw_fd()),
        src_offset: source_at,
        src_length: len,
        dest_offset: target_at,
    };
    retry(|| {
        // SAFETY: the ioctl reads one file_clone_range, which lives through the call.
        check(unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONERANGE, &raw const range) })
            .map(drop)
    })
}
