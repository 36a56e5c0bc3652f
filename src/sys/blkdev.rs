//! Block devices.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, retry};

// From linux/fs.h.
const BLKROGET: libc::Ioctl = libc::_IO(0x12, 94);
const BLKSSZGET: libc::Ioctl = libc::_IO(0x12, 104);
const BLKGETSIZE64: libc::Ioctl = libc::_IOR::<usize>(0x12, 114);
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);
const BLKZEROOUT: libc::Ioctl = libc::_IO(0x12, 127);

fn int_of(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: these requests write one int, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) })?;
    Ok(value.unsigned_abs())
}

fn on_range(fd: BorrowedFd<'_>, request: libc::Ioctl, at: u64, len: u64) -> io::Result<()> {
    let range = [at, len];
    retry(|| {
        // SAFETY: these requests read two u64, which live through the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), request, range.as_ptr()) }).map(drop)
    })
}

/// The size in bytes.
pub(crate) fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: the request writes one u64 (or the kernel's size_t, which is no longer), which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// The logical sector size in bytes: the unit of direct I/O.
pub(crate) fn logical_sector(fd: BorrowedFd<'_>) -> io::Result<u32> {
    int_of(fd, BLKSSZGET)
}

/// Whether the device refuses writes.
pub(crate) fn read_only(fd: BorrowedFd<'_>) -> io::Result<bool> {
    int_of(fd, BLKROGET).map(|value| value != 0)
}

/// Discards the range, which must be sector-aligned.
pub(crate) fn discard(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    on_range(fd, BLKDISCARD, at, len)
}

/// Zeroes the range, which must be 512-aligned, by offload if the device supports it, otherwise by writing.
pub(crate) fn zero_out(fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    on_range(fd, BLKZEROOUT, at, len)
}
