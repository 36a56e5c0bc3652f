//! Open-file-description locks on single bytes. They belong to the open file, so two opens by one process exclude each
//! other like two processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{check, offset, retry};

fn fcntl(fd: RawFd, command: libc::c_int, kind: libc::c_int, byte: u64) -> io::Result<libc::c_int> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset(byte)?,
        l_len: 1,
        l_pid: 0,
    };
    retry(|| {
        // SAFETY: the command reads and writes one flock, which lives through the call.
        check(unsafe { libc::fcntl(fd, command, &raw mut lock) })
    })?;
    Ok(libc::c_int::from(lock.l_type))
}

/// Takes a shared lock on `byte`. `EAGAIN` (or `EACCES`) if another opener holds it exclusively.
pub(crate) fn hold(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, libc::F_RDLCK, byte).map(drop)
}

/// Releases the lock on `byte`.
pub(crate) fn release(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
}

/// Whether another opener holds any lock on `byte`.
pub(crate) fn held_by_other(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, libc::F_WRLCK, byte).map(|kind| kind != libc::F_UNLCK)
}

/// Whether two descriptors of one file, of which `other` must be readable, share their open file description, and with
/// it their locks: only then does a lock of one not conflict with the other. If that cannot be determined, they are
/// assumed to.
pub(crate) fn same_description(fd: BorrowedFd<'_>, other: RawFd) -> bool {
    // A byte that nothing else has a reason to lock, and a different one each time.
    let mut random = [0; 8];
    if getrandom::fill(&mut random).is_err() {
        return true;
    }
    let byte = 1 << 62 | u64::from_ne_bytes(random) >> 2;
    if fcntl(other, libc::F_OFD_SETLK, libc::F_RDLCK, byte).is_err() {
        return true;
    }
    let separate = held_by_other(fd, byte).unwrap_or(false);
    let _ = fcntl(other, libc::F_OFD_SETLK, libc::F_UNLCK, byte);
    !separate
}
