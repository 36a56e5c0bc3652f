//! Safe wrappers for system calls that std does not offer, and for system libraries that are loaded when needed. One
//! small file per subject.

pub(crate) mod aligned;
pub(crate) mod attr;
pub(crate) mod blkdev;
pub(crate) mod buffer;
pub(crate) mod cdrom;
pub(crate) mod copy;
pub(crate) mod dio;
pub(crate) mod directory;
pub(crate) mod event;
pub(crate) mod falloc;
pub(crate) mod fd;
pub(crate) mod futex;
mod io_buf;
pub(crate) mod libgfapi;
pub(crate) mod libiscsi;
pub(crate) mod libnfs;
pub(crate) mod librados;
mod library;
pub(crate) mod librbd;
pub(crate) mod libssh;
pub(crate) mod limit;
pub(crate) mod lock;
pub(crate) mod loop_device;
pub(crate) mod mount;
pub(crate) mod open;
pub(crate) mod openssl;
pub(crate) mod page_cache;
mod payload;
pub(crate) mod pending;
mod pool;
pub(crate) mod reopen;
pub(crate) mod resolve;
pub(crate) mod rw;
pub(crate) mod seek;
#[cfg(feature = "nvme")]
mod shared_memory;
pub mod signal;
pub(crate) mod stream;
pub(crate) mod time;
pub(crate) mod uring;
pub(crate) mod user;
#[cfg(feature = "nvme")]
pub(crate) mod vfio;

pub(crate) use aligned::AlignedBuf;
pub use io_buf::IoBuf;
pub(crate) use payload::{Payload, lend};
#[cfg(feature = "nvme")]
pub(crate) use shared_memory::SharedMemory;

use std::io;

/// Converts the `-1` of a system call to the errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`check`], for calls that return a length or an offset.
fn check_len(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Repeats a call that was interrupted by a signal.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// An offset in the form that the kernel takes; `EFBIG` if it is out of range.
fn offset(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}
