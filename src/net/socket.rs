//! A stream at the level of system calls.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::wait::Wait;
use crate::error::{Error, Result};
use crate::sys::stream::{Ready, read, receive, send, send_file, send_vectored, write};
use crate::sys::{attr, fd};

/// How much a pipe accepts without blocking once it has any space.
const PIPE_BUF: usize = 4096;

/// Maximum length of one call that sends a file, so that a cancellation is noticed in time.
const MOST_OF_FILE: u64 = 16 << 20;

/// One or two descriptors that bytes are read from and written to.
#[derive(Debug)]
pub(super) struct Socket {
    ends: Ends,
    made: Instant,
    /// When bytes were last accepted, in milliseconds since then.
    taken: AtomicU64,
}

#[derive(Debug)]
enum Ends {
    /// A non-blocking socket, for both directions.
    One(OwnedFd),
    /// Pipes and the like, which may block: they are used only when ready.
    Two {
        /// Where bytes are read from.
        input: OwnedFd,
        /// Where bytes are written to.
        output: OwnedFd,
    },
}

/// Whether it is a socket.
pub(super) fn is_socket(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = attr::stat(fd).map_err(|error| Error::io(&error))?;
    Ok(stat.mode & libc::S_IFMT == libc::S_IFSOCK)
}

impl Socket {
    /// Wraps a connected socket.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(&error);
        let socket = fd::keep(socket).map_err(io)?;
        SockRef::from(&socket).set_nonblocking(true).map_err(io)?;
        Ok(Self::of(Ends::One(socket)))
    }

    /// Wraps descriptors of any kind.
    pub(super) fn from_two(input: OwnedFd, output: OwnedFd) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(&error);
        let input = fd::keep(input).map_err(io)?;
        let output = fd::keep(output).map_err(io)?;
        Ok(Self::of(Ends::Two { input, output }))
    }

    fn of(ends: Ends) -> Self {
        Self {
            ends,
            made: Instant::now(),
            taken: AtomicU64::new(0),
        }
    }

    fn note_taken(&self) {
        let millis = u64::try_from(self.made.elapsed().as_millis());
        self.taken
            .store(millis.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When bytes were last accepted; initially, when it was created.
    pub(super) fn last_taken(&self) -> Instant {
        self.made + Duration::from_millis(self.taken.load(Ordering::Relaxed))
    }

    /// The descriptor to wait on for data.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        match &self.ends {
            Ends::One(socket) => socket.as_fd(),
            Ends::Two { input, .. } => input.as_fd(),
        }
    }

    /// The descriptor to wait on for space.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        match &self.ends {
            Ends::One(socket) => socket.as_fd(),
            Ends::Two { output, .. } => output.as_fd(),
        }
    }

    /// Reads some bytes; 0 at the end.
    pub(super) fn read(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            wait.check()?;
            let outcome = match &self.ends {
                Ends::One(socket) => receive(socket.as_fd(), buf),
                Ends::Two { input, .. } => {
                    wait.ready(input.as_fd(), Ready::Read)?;
                    read(input.as_fd(), buf)
                }
            };
            match outcome {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait.ready(self.input(), Ready::Read)?;
                }
                Err(error) => return Err(Error::io(&error)),
            }
        }
    }

    /// Writes all of the buffers, in order.
    pub(super) fn write_all(&self, mut bufs: &mut [IoSlice<'_>], wait: Wait<'_>) -> Result<()> {
        // Also skips empty ones, which would look like a stream without space.
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            wait.check()?;
            let outcome = match &self.ends {
                Ends::One(socket) => send_vectored(socket.as_fd(), bufs),
                Ends::Two { output, .. } => {
                    wait.ready(output.as_fd(), Ready::Write)?;
                    let first = &bufs[0];
                    write(output.as_fd(), &first[..first.len().min(PIPE_BUF)])
                }
            };
            match outcome {
                Ok(n) => {
                    self.note_taken();
                    IoSlice::advance_slices(&mut bufs, n);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait.ready(self.output(), Ready::Write)?;
                }
                Err(error) => return Err(Error::io(&error)),
            }
        }
        Ok(())
    }

    /// Writes what is accepted without blocking; returns how many bytes.
    pub(super) fn try_write(&self, buf: &[u8]) -> usize {
        match &self.ends {
            Ends::One(socket) => send(socket.as_fd(), buf).unwrap_or(0),
            // They might block.
            Ends::Two { .. } => 0,
        }
    }

    /// As [`Socket::try_write`], for several buffers in order.
    pub(super) fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        let Ends::One(socket) = &self.ends else {
            return Ok(0);
        };
        match send_vectored(socket.as_fd(), bufs) {
            Ok(n) => {
                self.note_taken();
                Ok(n)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(Error::io(&error)),
        }
    }

    /// Sends bytes of a file without copying them to this process; returns how many, fewer if the file ends.
    pub(super) fn send_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        wait: Wait<'_>,
    ) -> Result<u64> {
        let mut done = 0;
        while done < len {
            wait.check()?;
            // A descriptor that blocks is written in bounded steps, so that a cancellation is noticed.
            let most = match &self.ends {
                Ends::One(_) => MOST_OF_FILE,
                Ends::Two { output, .. } => {
                    wait.ready(output.as_fd(), Ready::Write)?;
                    PIPE_BUF as u64
                }
            };
            let step = (len - done).min(most) as usize;
            match send_file(self.output(), file, offset + done, step) {
                Ok(0) => break,
                Ok(n) => {
                    self.note_taken();
                    done += n as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait.ready(self.output(), Ready::Write)?;
                }
                Err(error) => return Err(Error::io(&error)),
            }
        }
        Ok(done)
    }

    /// Shuts down both directions: threads that wait here and the peer notice it at once. What was written before is
    /// still delivered.
    pub(super) fn shutdown(&self) {
        for fd in [self.input(), self.output()] {
            // Fails if the peer has already gone, and for pipes, which end when they are closed.
            let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
        }
    }

    /// Sets the size of the kernel's buffer in each direction, as far as the system allows.
    pub(super) fn set_buffers(&self, bytes: usize) {
        if let Ends::One(socket) = &self.ends {
            let socket = SockRef::from(socket);
            // A hint; the limits of the system apply.
            let _ = socket.set_send_buffer_size(bytes);
            let _ = socket.set_recv_buffer_size(bytes);
        }
    }

    /// How long the peer's machine may be silent before the kernel sends keepalive probes.
    pub(super) fn set_keepalive(&self, silence: Duration) -> Result<()> {
        if let Ends::One(socket) = &self.ends {
            let how = socket2::TcpKeepalive::new().with_time(silence);
            let set = SockRef::from(socket).set_tcp_keepalive(&how);
            set.map_err(|error| Error::io(&error))?;
        }
        Ok(())
    }
}
