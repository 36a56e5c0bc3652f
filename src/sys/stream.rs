//! Descriptors that are read and written sequentially: pipes, sockets, terminals.

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::{check, check_len, retry};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Data, or the end of the stream.
    Read,
    /// Space.
    Write,
}

/// Waits until the descriptor is ready or has failed; false on timeout or if a signal arrived.
pub(crate) fn wait(fd: BorrowedFd<'_>, ready: Ready, at_most: Duration) -> io::Result<bool> {
    let mut one = [poller(fd, ready)];
    poll(&mut one, at_most)
}

/// As [`wait`], for several; returns the index of the first one that is ready or has failed.
pub(crate) fn wait_any(
    fds: &[BorrowedFd<'_>],
    ready: Ready,
    at_most: Duration,
) -> io::Result<Option<usize>> {
    let mut all: Vec<_> = fds.iter().map(|fd| poller(*fd, ready)).collect();
    poll(&mut all, at_most)?;
    Ok(all.iter().position(|one| one.revents != 0))
}

/// Waits until the first descriptor has data, or space if that is wanted too, or the second one has data; also returns
/// if either has failed, on timeout, or if a signal arrived.
pub(crate) fn wait_or_wake(
    fd: BorrowedFd<'_>,
    room: bool,
    wake: BorrowedFd<'_>,
    at_most: Duration,
) -> io::Result<()> {
    let mut both = [poller(fd, Ready::Read), poller(wake, Ready::Read)];
    if room {
        both[0].events |= libc::POLLOUT;
    }
    poll(&mut both, at_most).map(|_| ())
}

/// As [`wait_or_wake`], for `events` of a descriptor given by number, as C libraries do, or for no descriptor if that
/// is negative. Returns the events that are ready.
pub(crate) fn poll_or_wake(
    number: RawFd,
    events: c_int,
    wake: BorrowedFd<'_>,
    at_most: Duration,
) -> io::Result<c_int> {
    let own = libc::pollfd {
        fd: number,
        // The bits defined for `poll` fit.
        events: events as libc::c_short,
        revents: 0,
    };
    let mut both = [own, poller(wake, Ready::Read)];
    poll(&mut both, at_most)?;
    Ok(c_int::from(both[0].revents))
}

fn poller(fd: BorrowedFd<'_>, ready: Ready) -> libc::pollfd {
    libc::pollfd {
        fd: fd.as_raw_fd(),
        events: match ready {
            Ready::Read => libc::POLLIN,
            Ready::Write => libc::POLLOUT,
        },
        revents: 0,
    }
}

fn poll(pollers: &mut [libc::pollfd], at_most: Duration) -> io::Result<bool> {
    let millis = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
    let count = pollers.len() as libc::nfds_t;
    // SAFETY: `count` structures, valid during the call.
    match check(unsafe { libc::poll(pollers.as_mut_ptr(), count, millis) }) {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// One `read`; may be short, 0 at the end.
pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: `buf` is valid for writes of its length during the call.
        let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// Runs code that writes to sockets in its own way, suppressing the signal for a broken pipe.
pub(crate) fn quietly<T>(call: impl FnOnce() -> T) -> T {
    let _quiet = Quiet::new();
    call()
}

/// One `write`; may be short. A broken pipe and a file that grows too long are errors, never signals.
pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let _quiet = Quiet::new();
    retry(|| {
        // SAFETY: `buf` is valid for reads of its length during the call.
        let n = unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `send` to a socket, without waiting for space; may be short. A broken pipe is an error, never a signal.
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    retry(|| {
        // SAFETY: `buf` is valid for reads of its length during the call.
        let n = unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// As [`read`] from a socket, without waiting for data.
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: `buf` is valid for writes of its length during the call.
        let n = unsafe {
            let data = buf.as_mut_ptr().cast();
            libc::recv(fd.as_raw_fd(), data, buf.len(), libc::MSG_DONTWAIT)
        };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// One `sendmsg` of up to 1024 buffers to a socket, without waiting for space; may be short.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let count = bufs.len().min(libc::UIO_MAXIOV as usize);
    // SAFETY: a zeroed message is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = count as _;
    retry(|| {
        // SAFETY: `IoSlice` has the layout of an iovec; the call only reads them and their bytes.
        let n = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// Sends bytes of a file to a socket inside the kernel; may be short, 0 at the end of the file. Waits for space if the
/// socket is blocking.
pub(crate) fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    len: usize,
) -> io::Result<usize> {
    let _quiet = Quiet::new();
    let mut offset = super::offset(offset)?;
    retry(|| {
        // SAFETY: `offset` is valid during the call.
        let n = unsafe {
            let (socket, file) = (socket.as_raw_fd(), file.as_raw_fd());
            libc::sendfile(socket, file, &raw mut offset, len)
        };
        check_len(n as i64).map(|n| n as usize)
    })
}

/// The position in a file.
pub(crate) fn position(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: takes no pointers and does not move the position.
    check_len(unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) })
}

/// Blocks the signals that accompany an error of `write` on this thread; one that arrives in the meantime is discarded.
struct Quiet {
    /// Those of them that were not already pending.
    own: libc::sigset_t,
    before: libc::sigset_t,
}

impl Quiet {
    fn new() -> Self {
        // SAFETY: all sets are initialised by the calls before they are read; the calls cannot
        // fail with these arguments.
        unsafe {
            let mut own = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            let mut pending = std::mem::zeroed();
            libc::sigemptyset(&raw mut own);
            libc::sigpending(&raw mut pending);
            for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
                if libc::sigismember(&raw const pending, signal) != 1 {
                    libc::sigaddset(&raw mut own, signal);
                }
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const own, &raw mut before);
            Self { own, before }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the sets are those of `new`; a signal that is pending is consumed, none is waited for.
        unsafe {
            libc::sigtimedwait(&raw const self.own, std::ptr::null_mut(), &raw const none);
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}
