//! A stream as the kernel has it.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::wait::Wait;
use crate::error::{Error, Result};
use crate::sys::stream::{Ready, read, receive, send, send_file, send_vectored, write};
use crate::sys::{attr, fd};

/// What a pipe takes without waiting once it has room for anything.
const PIPE_BUF: usize = 4096;

/// The most bytes of one call that sends a file, so that a cancel is seen in time.
const MOST_OF_FILE: u64 = 16 << 20;

/// One or two descriptors that bytes come from and go to.
#[derive(Debug)]
pub(super) struct Socket {
    ends: Ends,
    made: Instant,
    /// When bytes were last taken, in milliseconds since then.
    taken: AtomicU64,
}

#[derive(Debug)]
enum Ends {
    /// Both ways, without blocking.
    One(OwnedFd),
    /// Pipes and the like, which may block: they are used when they are ready.
    Two {
        /// Where bytes come from.
        input: OwnedFd,
        /// Where they go to.
        output: OwnedFd,
    },
}

/// Whether it is a socket.
pub(super) fn is_socket(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = attr::stat(fd).map_err(|error| Error::io(&error))?;
    Ok(stat.mode & libc::S_IFMT == libc::S_IFSOCK)
}

impl Socket {
    /// Over a connected socket.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(&error);
        let socket = fd::keep(socket).map_err(io)?;
        SockRef::from(&socket).set_nonblocking(true).map_err(io)?;
        Ok(Self::of(Ends::One(socket)))
    }

    /// Over descriptors of any kind.
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

    /// When bytes were last taken; at first, when it was made.
    pub(super) fn last_taken(&self) -> Instant {
        self.made + Duration::from_millis(self.taken.load(Ordering::Relaxed))
    }

    /// What is waited on for data.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        match &self.ends {
            Ends::One(socket) => socket.as_fd(),
            Ends::Two { input, .. } => input.as_fd(),
        }
    }

    /// What is waited on for room.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        match &self.ends {
            Ends::One(socket) => socket.as_fd(),
            Ends::Two { output, .. } => output.as_fd(),
        }
    }

    /// Some bytes; 0 is the end.
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

    /// All bytes of all of them, in order.
    pub(super) fn write_all(&self, mut bufs: &mut [IoSlice<'_>], wait: Wait<'_>) -> Result<()> {
        // Also steps over empty ones, which would look like a stream without room.
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

    /// What is taken at once; gives how many bytes.
    pub(super) fn try_write(&self, buf: &[u8]) -> usize {
        match &self.ends {
            Ends::One(socket) => send(socket.as_fd(), buf).unwrap_or(0),
            // They would block.
            Ends::Two { .. } => 0,
        }
    }

    /// As [`Socket::try_write`], of several buffers in order.
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

    /// Bytes of a file, without a copy in this process; gives how many, fewer where the file ends.
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
            // A descriptor that blocks has a bounded step, so that a cancel is seen.
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

    /// Ends both directions: a thread that waits here, and the other end, see it at once. What was written before
    /// still arrives.
    pub(super) fn shutdown(&self) {
        for fd in [self.input(), self.output()] {
            // Fails where the peer has gone already, and for pipes, which end when they are closed.
            let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
        }
    }

    /// Lets the kernel hold `bytes` in each direction, as far as it allows.
    pub(super) fn set_buffers(&self, bytes: usize) {
        if let Ends::One(socket) = &self.ends {
            let socket = SockRef::from(socket);
            // A wish; the limits of the system hold.
            let _ = socket.set_send_buffer_size(bytes);
            let _ = socket.set_recv_buffer_size(bytes);
        }
    }

    /// How long the peer's machine may be silent before the kernel asks whether it is there.
    pub(super) fn set_keepalive(&self, silence: Duration) -> Result<()> {
        if let Ends::One(socket) = &self.ends {
            let how = socket2::TcpKeepalive::new().with_time(silence);
            let set = SockRef::from(socket).set_tcp_keepalive(&how);
            set.map_err(|error| Error::io(&error))?;
        }
        Ok(())
    }
}
