//! Positional reads and writes of whole buffers.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

use super::{check_len, offset, retry};

/// Maximum number of buffers in one vectored call (`UIO_MAXIOV`).
const MAX_IOV: usize = 1024;

/// One `pread`; may be short.
pub(crate) fn pread(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    retry(|| {
        // SAFETY: `buf` is valid for writes of its length during the call.
        let n = unsafe { libc::pread(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), at) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `pwrite`; may be short.
pub(crate) fn pwrite(fd: BorrowedFd<'_>, buf: &[u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    retry(|| {
        // SAFETY: `buf` is valid for reads of its length during the call.
        let n = unsafe { libc::pwrite(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), at) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `preadv`; may be short.
pub(crate) fn preadv(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    at: u64,
) -> io::Result<usize> {
    let at = offset(at)?;
    let count = bufs.len().min(MAX_IOV) as libc::c_int;
    retry(|| {
        // SAFETY: IoSliceMut is ABI-compatible with iovec and each refers to memory valid for writes.
        let n = unsafe { libc::preadv(fd.as_raw_fd(), bufs.as_ptr().cast(), count, at) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `pwritev`; may be short.
pub(crate) fn pwritev(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    let count = bufs.len().min(MAX_IOV) as libc::c_int;
    retry(|| {
        // SAFETY: IoSlice is ABI-compatible with iovec and each refers to memory valid for reads.
        let n = unsafe { libc::pwritev(fd.as_raw_fd(), bufs.as_ptr().cast(), count, at) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `preadv2` that reads only from the page cache and does not block; fails with `EAGAIN` if the first byte is not
/// cached, and may be short.
pub(crate) fn try_preadv(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    at: u64,
) -> io::Result<usize> {
    let at = offset(at)?;
    let count = bufs.len().min(MAX_IOV) as libc::c_int;
    retry(|| {
        // SAFETY: IoSliceMut is ABI-compatible with iovec and each refers to memory valid for writes.
        let n = unsafe {
            libc::preadv2(
                fd.as_raw_fd(),
                bufs.as_ptr().cast(),
                count,
                at,
                libc::RWF_NOWAIT,
            )
        };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// As [`try_preadv`], into memory that another process may access at the same time.
pub(crate) fn try_preadv_shared(
    fd: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    at: u64,
) -> io::Result<usize> {
    let at = offset(at)?;
    let guards: Vec<_> = slices
        .iter()
        .take(MAX_IOV)
        .map(VolatileSlice::ptr_guard_mut)
        .collect();
    let bufs: Vec<_> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let count = bufs.len() as libc::c_int;
    retry(|| {
        // SAFETY: each refers to memory that is mapped as long as its slice is; only the kernel writes to it here, and
        // no reference to it exists.
        let n =
            unsafe { libc::preadv2(fd.as_raw_fd(), bufs.as_ptr(), count, at, libc::RWF_NOWAIT) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// Zeroes memory that another process may access at the same time.
pub(crate) fn zero_shared(slices: &[VolatileSlice<'_>]) {
    for slice in slices {
        let guard = slice.ptr_guard_mut();
        // SAFETY: the memory is mapped as long as the slice is, and no reference to it exists.
        unsafe { guard.as_ptr().write_bytes(0, guard.len()) };
    }
}

/// Fills `buf` from `at`; returns the number of bytes read, fewer only at the end of the file.
pub(crate) fn read_full(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match pread(fd, &mut buf[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Writes all of `buf` at `at`.
pub(crate) fn write_full(fd: BorrowedFd<'_>, buf: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match pwrite(fd, &buf[done..], at + done as u64)? {
            0 => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            n => done += n,
        }
    }
    Ok(())
}

/// Fills the buffers from `at`; returns the number of bytes read, fewer only at the end of the file.
pub(crate) fn readv_full(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    at: u64,
) -> io::Result<usize> {
    let mut done = 0;
    let mut index = 0;
    while index < bufs.len() {
        let end = (index + MAX_IOV).min(bufs.len());
        let want: usize = bufs[index..end].iter().map(|b| b.len()).sum();
        let got = preadv(fd, &mut bufs[index..end], at + done as u64)?;
        done += got;
        if got < want {
            return finish_read(fd, &mut bufs[index..], got, at, done);
        }
        index = end;
    }
    Ok(done)
}

/// After a short `preadv`: reads the rest buffer by buffer. The first `skip` bytes of `bufs` are filled already.
fn finish_read(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    mut skip: usize,
    at: u64,
    mut done: usize,
) -> io::Result<usize> {
    for buf in bufs {
        if skip >= buf.len() {
            skip -= buf.len();
            continue;
        }
        let rest = &mut buf[skip..];
        skip = 0;
        let got = read_full(fd, rest, at + done as u64)?;
        done += got;
        if got < rest.len() {
            break;
        }
    }
    Ok(done)
}

/// Writes all buffers at `at`.
pub(crate) fn writev_full(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
    let mut done = 0;
    let mut index = 0;
    while index < bufs.len() {
        let end = (index + MAX_IOV).min(bufs.len());
        let want: usize = bufs[index..end].iter().map(|b| b.len()).sum();
        let mut got = pwritev(fd, &bufs[index..end], at + done as u64)?;
        done += got;
        if got < want {
            for buf in &bufs[index..end] {
                if got >= buf.len() {
                    got -= buf.len();
                    continue;
                }
                write_full(fd, &buf[got..], at + done as u64)?;
                done += buf.len() - got;
                got = 0;
            }
        }
        index = end;
    }
    Ok(())
}
