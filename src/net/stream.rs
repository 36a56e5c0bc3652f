//! A connection to a peer.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::address::Address;
use super::socket::{Socket, is_socket};
use super::tls::{Authorization, Channel, TlsCredentials};
use super::wait::Wait;
use crate::error::{Error, Result};

/// A connection. One thread may read while another one writes; the caller must not use more than one of each. After a
/// failed write nothing more may be written, because the peer may have received a part.
#[derive(Debug)]
pub struct Stream {
    tls: Option<Channel>,
    socket: Socket,
    peer: Address,
    is_shut: AtomicBool,
}

impl Stream {
    /// Wraps a socket that is connected to `peer`.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn new(socket: OwnedFd, peer: Address) -> Result<Self> {
        Ok(Self {
            tls: None,
            socket: Socket::new(socket)?,
            peer,
            is_shut: AtomicBool::new(false),
        })
    }

    /// Wraps a connected socket that somebody else opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if it is not a socket; if a system call fails.
    pub fn from_socket(socket: OwnedFd) -> Result<Self> {
        if !is_socket(socket.as_fd())? {
            return Err(Error::invalid("The descriptor is not a socket"));
        }
        let peer = SockRef::from(&socket).peer_addr();
        let peer = Address::of(&peer.map_err(|error| Error::io(&error))?);
        Self::new(socket, peer)
    }

    /// Wraps two descriptors of any kind, such as the standard streams; `name` stands for the peer.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn from_two(input: OwnedFd, output: OwnedFd, name: &str) -> Result<Self> {
        Ok(Self {
            tls: None,
            socket: Socket::from_two(input, output)?,
            peer: Address::unix(name),
            is_shut: AtomicBool::new(false),
        })
    }

    /// Two streams that are connected to each other.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn pair() -> Result<(Self, Self)> {
        let io = |error: std::io::Error| Error::io(&error);
        let (one, other) = std::os::unix::net::UnixStream::pair().map_err(io)?;
        let end =
            |socket: std::os::unix::net::UnixStream| Self::new(socket.into(), Address::unix(""));
        Ok((end(one)?, end(other)?))
    }

    /// Starts TLS from the next byte on, as the client of a server that must be `host`: a name or an IP address. None
    /// is for servers without a name, such as a local socket: that works only with pre-shared keys, and with
    /// credentials that do not verify the peer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] if one end does not accept the other; if the peer, the wait or a system call fails.
    pub fn with_tls_client(
        mut self,
        credentials: &TlsCredentials,
        host: Option<&str>,
        wait: Wait<'_>,
    ) -> Result<Self> {
        self.refuse_second_tls()?;
        self.tls = Some(credentials.connect(&self.socket, host, wait)?);
        Ok(self)
    }

    /// As [`Stream::with_tls_client`], for the server; `authorization` selects which authenticated clients are
    /// admitted.
    ///
    /// # Errors
    /// As [`Stream::with_tls_client`].
    pub fn with_tls_server(
        mut self,
        credentials: &TlsCredentials,
        authorization: Option<&Authorization>,
        wait: Wait<'_>,
    ) -> Result<Self> {
        self.refuse_second_tls()?;
        self.tls = Some(credentials.accept(&self.socket, authorization, wait)?);
        Ok(self)
    }

    fn refuse_second_tls(&self) -> Result<()> {
        match self.tls {
            Some(_) => Err(Error::invalid("The stream has TLS already")),
            None => Ok(()),
        }
    }

    /// Whether the stream uses TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The identity that the peer has proved, with TLS: the distinguished name of its certificate, or the name of its
    /// key.
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref().and_then(Channel::identity)
    }

    /// Reads some bytes; 0 at the end.
    ///
    /// # Errors
    /// If the wait or a system call fails; with TLS, also if the end was not announced.
    pub fn read(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<usize> {
        match &self.tls {
            None => self.socket.read(buf, wait),
            Some(tls) => tls.read(&self.socket, buf, wait),
        }
    }

    /// Fills `buf` completely.
    ///
    /// # Errors
    /// As [`Stream::read`]; also if the stream ends early.
    pub fn read_exact(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<()> {
        if self.read_exact_or_end(buf, wait)? {
            return Ok(());
        }
        Err(ended())
    }

    /// Fills `buf` completely, or not at all: false if the stream ends before the first byte.
    ///
    /// # Errors
    /// As [`Stream::read`]; also if the stream ends after the first byte.
    pub fn read_exact_or_end(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<bool> {
        let mut len = 0;
        while len < buf.len() {
            match self.read(&mut buf[len..], wait)? {
                0 if len == 0 => return Ok(false),
                0 => return Err(ended()),
                n => len += n,
            }
        }
        Ok(true)
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// If the wait or a system call fails.
    pub fn write_all(&self, buf: &[u8], wait: Wait<'_>) -> Result<()> {
        self.write_all_vectored(&mut [IoSlice::new(buf)], wait)
    }

    /// Writes all of the buffers, in order; the slices are left in an unspecified state.
    ///
    /// # Errors
    /// If the wait or a system call fails.
    pub fn write_all_vectored(&self, bufs: &mut [IoSlice<'_>], wait: Wait<'_>) -> Result<()> {
        match &self.tls {
            None => self.socket.write_all(bufs, wait),
            Some(tls) => tls.write_all(&self.socket, bufs, wait),
        }
    }

    /// Writes what the kernel accepts of the buffers, in order and without blocking; returns how many bytes. Writes
    /// nothing if that cannot be known in advance: with TLS, and if it is not a socket.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        match &self.tls {
            None => self.socket.try_write_vectored(bufs),
            // Encrypted data cannot be sent in part.
            Some(_) => Ok(0),
        }
    }

    /// When bytes were last accepted by the kernel or the peer; initially, when the stream was created.
    pub fn last_taken(&self) -> Instant {
        self.socket.last_taken()
    }

    /// Sends `len` bytes of a file from `offset` on, without copying them to this process; returns how many, fewer if
    /// the file ends. Only for streams that have a [`Stream::descriptor`].
    ///
    /// # Errors
    /// If the wait or a system call fails: with the errno `EINVAL` if the file cannot be sent that way.
    pub fn send_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        wait: Wait<'_>,
    ) -> Result<u64> {
        if self.tls.is_some() {
            return Err(Error::os(libc::EINVAL));
        }
        self.socket.send_file(file, offset, len, wait)
    }

    /// The descriptor that bytes are written to unchanged; None if they are encrypted first.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.tls {
            None => Some(self.socket.output()),
            Some(_) => None,
        }
    }

    /// Shuts down the connection, from any thread: one that is waiting on it notices at once.
    pub fn shutdown(&self) {
        self.is_shut.store(true, Ordering::Release);
        self.say_goodbye();
        self.socket.shutdown();
    }

    /// Whether [`Stream::shutdown`] has been called, for a thread that is waiting for something else.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    fn say_goodbye(&self) {
        if let Some(tls) = &self.tls {
            tls.close(&self.socket);
        }
    }

    /// Sets the size of the kernel's buffer in each direction, as far as its limits allow.
    pub fn set_buffers(&self, bytes: usize) {
        self.socket.set_buffers(bytes);
    }

    /// Makes the kernel probe whether the peer's machine is still there when it has been silent for that long.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn set_keepalive(&self, silence: Duration) -> Result<()> {
        self.socket.set_keepalive(silence)
    }

    /// The address that is connected to, numeric even if [`Stream::peer`] has a name.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn reached(&self) -> Result<Address> {
        let socket = self.socket.input();
        let peer = SockRef::from(&socket).peer_addr();
        peer.map(|peer| Address::of(&peer))
            .map_err(|error| Error::io(&error))
    }

    /// The peer's address.
    pub fn peer(&self) -> &Address {
        &self.peer
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

fn ended() -> Error {
    let message = "Unexpected end-of-file before all data were read";
    Error::new(crate::ErrorKind::Os, message).with_errno(libc::ECONNRESET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::error::ErrorKind;
    use crate::job::JobControl;

    const FOREVER: Wait<'_> = Wait::forever();

    #[test]
    fn bytes_arrive_in_order_and_the_end_is_told_from_a_cut() {
        let (one, other) = Stream::pair().unwrap();
        let mut parts = [&b"he"[..], b"", b"llo"].map(IoSlice::new);
        one.write_all_vectored(&mut parts, FOREVER).unwrap();
        let mut buf = [0; 5];
        other.read_exact(&mut buf, FOREVER).unwrap();
        assert_eq!(&buf, b"hello");
        one.write_all(b"abc", FOREVER).unwrap();
        drop(one);
        let cut = other.read_exact(&mut buf, FOREVER).unwrap_err();
        assert_eq!(cut.errno(), libc::ECONNRESET);
        assert!(!other.read_exact_or_end(&mut buf, FOREVER).unwrap());
    }

    #[test]
    fn more_than_the_kernel_holds_is_written_while_the_other_end_reads() {
        let (one, other) = Stream::pair().unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut parts: Vec<_> = data.chunks(1000).map(IoSlice::new).collect();
                one.write_all_vectored(&mut parts, FOREVER).unwrap();
            });
            let mut got = vec![0; data.len()];
            other.read_exact(&mut got, FOREVER).unwrap();
            assert!(got == data);
        });
    }

    #[test]
    fn a_deadline_and_a_cancel_end_reads_and_writes() {
        let (one, _other) = Stream::pair().unwrap();
        let control = Arc::new(JobControl::default());
        let mut byte = [0];
        let wait = Wait::new(&control).at_most(Duration::from_millis(5));
        let late = one.read(&mut byte, wait).unwrap_err();
        assert_eq!(
            (late.kind(), late.errno()),
            (ErrorKind::Os, libc::ETIMEDOUT)
        );
        let much = vec![0; 8 << 20];
        let wait = Wait::new(&control).at_most(Duration::from_millis(5));
        let late = one.write_all(&much, wait).unwrap_err();
        assert_eq!(late.errno(), libc::ETIMEDOUT);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| one.read(&mut [0], Wait::new(&control)));
            control.cancel();
            let cancelled = reader.join().unwrap().unwrap_err();
            assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
        });
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_shutdown_ends_those_that_wait_for_ever() {
        let (one, other) = Stream::pair().unwrap();
        std::thread::scope(|scope| {
            let here = scope.spawn(|| one.read(&mut [0], FOREVER));
            let there = scope.spawn(|| other.read(&mut [0], FOREVER));
            one.shutdown();
            assert_eq!(here.join().unwrap().unwrap(), 0);
            assert_eq!(there.join().unwrap().unwrap(), 0);
        });
        // No signal kills the process.
        assert_eq!(
            one.write_all(b"x", FOREVER).unwrap_err().errno(),
            libc::EPIPE
        );
    }

    #[test]
    fn a_file_is_sent_up_to_its_end() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let (one, other) = Stream::pair().unwrap();
        assert!(one.descriptor().is_some());
        assert_eq!(one.send_file(file.as_fd(), 2, 3, FOREVER).unwrap(), 3);
        assert_eq!(one.send_file(file.as_fd(), 8, 30, FOREVER).unwrap(), 2);
        let mut buf = [0; 5];
        other.read_exact(&mut buf, FOREVER).unwrap();
        assert_eq!(&buf, b"23489");
        drop(other);
        let gone = one.send_file(file.as_fd(), 0, 10, FOREVER).unwrap_err();
        assert_eq!(gone.errno(), libc::EPIPE);
    }

    #[test]
    fn pipes_are_a_stream_too() {
        let (input, far_output) = std::io::pipe().unwrap();
        let (far_input, output) = std::io::pipe().unwrap();
        let near = Stream::from_two(input.into(), output.into(), "pipes").unwrap();
        let far = Stream::from_two(far_input.into(), far_output.into(), "pipes").unwrap();
        let data = vec![7; 300_000];
        std::thread::scope(|scope| {
            scope.spawn(|| near.write_all(&data, FOREVER).unwrap());
            let mut got = vec![0; data.len()];
            far.read_exact(&mut got, FOREVER).unwrap();
            assert!(got == data);
        });
        let control = JobControl::default();
        let wait = Wait::new(&control).at_most(Duration::from_millis(5));
        let late = near.write_all(&data, wait).unwrap_err();
        assert_eq!(late.errno(), libc::ETIMEDOUT);
    }
}
