//! The state of a file in the page cache.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The number of `cachestat(2)`; an invalid one where calls are numbered differently.
const CACHESTAT: libc::c_long = match cfg!(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "mips32r6",
    target_arch = "mips64r6"
)) {
    true => -1,
    false => 451,
};

#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    in_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How much of the file has not been written to disk yet (Linux 6.5), in whole pages.
///
/// # Errors
/// `ENOSYS` if the kernel does not support it.
pub(crate) fn unwritten_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // Up to the end of the file.
    let range = Range { offset: 0, len: 0 };
    let mut pages = Pages::default();
    // SAFETY: the call reads one cachestat_range and writes one cachestat; both live through it.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            fd.as_raw_fd(),
            &raw const range,
            &raw mut pages,
            0,
        )
    };
    super::check_len(result)?;
    // SAFETY: takes no pointers.
    let page = super::check_len(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
    let pages = pages.dirty.saturating_add(pages.in_writeback);
    Ok(pages.saturating_mul(page))
}
