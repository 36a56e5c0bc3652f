//! Requirements of direct I/O on a file.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Alignments that direct I/O requires, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DioAlign {
    /// Alignment of buffers in memory.
    pub(crate) memory: u32,
    /// Alignment of offsets and lengths.
    pub(crate) offset: u32,
}

/// The alignments reported by `statx`; None if kernel or file system do not report them, or do not support direct I/O.
pub(crate) fn stated(fd: BorrowedFd<'_>) -> Option<DioAlign> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let empty: &CStr = c"";
    // SAFETY: the path is an empty C string (AT_EMPTY_PATH); the kernel writes one statx.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    check(result).ok()?;
    // SAFETY: zeroed is a valid statx, and the call filled it.
    let stat = unsafe { stat.assume_init() };
    let known = stat.stx_mask & libc::STATX_DIOALIGN != 0;
    let align = DioAlign {
        memory: stat.stx_dio_mem_align,
        offset: stat.stx_dio_offset_align,
    };
    (known && align.memory.is_power_of_two() && align.offset.is_power_of_two()).then_some(align)
}

/// Sets `O_DIRECT` on an open file.
pub(crate) fn set_direct(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_flags(fd, status_flags(fd)? | libc::O_DIRECT)
}

/// Clears `O_NONBLOCK` on an open file.
pub(crate) fn set_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = status_flags(fd)?;
    if flags & libc::O_NONBLOCK == 0 {
        return Ok(());
    }
    set_flags(fd, flags & !libc::O_NONBLOCK)
}

/// Sets the descriptor to be closed on exec.
pub(crate) fn set_cloexec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

fn set_flags(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// The access mode and status flags of an open file.
pub(crate) fn status_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}
