//! A connection to a peer.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::address::Address;
use super::socket::{Socket, is_socket};
use super::tls::{Authorization, Channel, TlsCredentials};
use super::wait::Wait;
use crate::error::{Error, Result};

/// A connection. One thread may read while another one writes; the caller keeps it at one of each. After an
/// error of a write nothing may be written any more, for the peer may have got a part.
#[derive(Debug)]
pub struct Stream {
    tls: Option<Channel>,
    socket: Socket,
    peer: Address,
}

impl Stream {
    /// Over a socket that is connected to `peer`.
    ///
    /// # Errors
    /// Of the system.
    pub fn new(socket: OwnedFd, peer: Address) -> Result<Self> {
        Ok(Self {
            tls: None,
            socket: Socket::new(socket)?,
            peer,
        })
    }

    /// Over a connected socket that someone else opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where it is no socket; of the system.
    pub fn from_socket(socket: OwnedFd) -> Result<Self> {
        if !is_socket(socket.as_fd())? {
            return Err(Error::invalid("The descriptor is not a socket"));
        }
        let peer = SockRef::from(&socket).peer_addr();
        let peer = Address::of(&peer.map_err(|error| Error::io(&error))?);
        Self::new(socket, peer)
    }

    /// Over two descriptors of any kind, such as the standard streams; `name` stands for the peer.
    ///
    /// # Errors
    /// Of the system.
    pub fn from_two(input: OwnedFd, output: OwnedFd, name: &str) -> Result<Self> {
        Ok(Self {
            tls: None,
            socket: Socket::from_two(input, output)?,
            peer: Address::unix(name),
        })
    }

    /// Two ends that are connected to each other.
    ///
    /// # Errors
    /// Of the system.
    pub fn pair() -> Result<(Self, Self)> {
        let io = |error: std::io::Error| Error::io(&error);
        let (one, other) = std::os::unix::net::UnixStream::pair().map_err(io)?;
        let end =
            |socket: std::os::unix::net::UnixStream| Self::new(socket.into(), Address::unix(""));
        Ok((end(one)?, end(other)?))
    }

    /// The same stream with TLS from its next byte on, as the client of a server that must be `host`: a name or
    /// a number. None is one without a name, such as a local socket: only keys that both ends know, and credentials
    /// that check nobody, do without.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] where one end does not accept the other; of the peer, of the wait, or of
    /// the system.
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

    /// As [`Stream::with_tls_client`], as the server; `authorization` says which of the clients that proved who
    /// they are may come in.
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

    /// Whether the stream has TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Who the peer proved to be, with TLS: the distinguished name of its certificate, or the name of its
    /// key.
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref().and_then(Channel::identity)
    }

    /// Some bytes; 0 is the end.
    ///
    /// # Errors
    /// Of the wait, or of the system; with TLS also where the end was not announced.
    pub fn read(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<usize> {
        match &self.tls {
            None => self.socket.read(buf, wait),
            Some(tls) => tls.read(&self.socket, buf, wait),
        }
    }

    /// As many bytes as `buf` has.
    ///
    /// # Errors
    /// As [`Stream::read`]; also where the stream ends before.
    pub fn read_exact(&self, buf: &mut [u8], wait: Wait<'_>) -> Result<()> {
        if self.read_exact_or_end(buf, wait)? {
            return Ok(());
        }
        Err(ended())
    }

    /// As many bytes as `buf` has, or none: false where the stream ends before the first.
    ///
    /// # Errors
    /// As [`Stream::read`]; also where the stream ends after the first.
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

    /// All bytes.
    ///
    /// # Errors
    /// Of the wait, or of the system.
    pub fn write_all(&self, buf: &[u8], wait: Wait<'_>) -> Result<()> {
        self.write_all_vectored(&mut [IoSlice::new(buf)], wait)
    }

    /// All bytes of all buffers, in order; leaves the list of them in no particular state.
    ///
    /// # Errors
    /// Of the wait, or of the system.
    pub fn write_all_vectored(&self, bufs: &mut [IoSlice<'_>], wait: Wait<'_>) -> Result<()> {
        match &self.tls {
            None => self.socket.write_all(bufs, wait),
            Some(tls) => tls.write_all(&self.socket, bufs, wait),
        }
    }

    /// What the kernel takes of all buffers, in order, without a wait; gives how many bytes. None are taken
    /// where that cannot be known before: with TLS, and of what is not a socket.
    ///
    /// # Errors
    /// Of the system.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        match &self.tls {
            None => self.socket.try_write_vectored(bufs),
            // What is encrypted cannot be sent by halves.
            Some(_) => Ok(0),
        }
    }

    /// When bytes were last taken, by the kernel or from it; at first, when the stream was made.
    pub fn last_taken(&self) -> Instant {
        self.socket.last_taken()
    }

    /// Sends `len` bytes of a file from `offset` on, without a copy in this process; gives how many, fewer
    /// where the file ends. Only for streams that have a [`Stream::descriptor`].
    ///
    /// # Errors
    /// Of the wait, or of the system: with the errno `EINVAL` where the file cannot be sent that way.
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

    /// Where bytes go to as they are; None where they are changed on the way.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.tls {
            None => Some(self.socket.output()),
            Some(_) => None,
        }
    }

    /// Ends the connection from any thread: one that waits on it sees its end at once.
    pub fn shutdown(&self) {
        self.say_goodbye();
        self.socket.shutdown();
    }

    fn say_goodbye(&self) {
        if let Some(tls) = &self.tls {
            tls.close(&self.socket);
        }
    }

    /// Lets the kernel hold `bytes` in each direction, as far as its limits allow.
    pub fn set_buffers(&self, bytes: usize) {
        self.socket.set_buffers(bytes);
    }

    /// Has the kernel ask the peer's machine whether it is still there when it was silent for that long.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_keepalive(&self, silence: Duration) -> Result<()> {
        self.socket.set_keepalive(silence)
    }

    /// Where the connection leads, by number where [`Stream::peer`] has a name.
    ///
    /// # Errors
    /// Of the system.
    pub fn reached(&self) -> Result<Address> {
        let socket = self.socket.input();
        let peer = SockRef::from(&socket).peer_addr();
        peer.map(|peer| Address::of(&peer))
            .map_err(|error| Error::io(&error))
    }

    /// Who is at the other end.
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
        // No signal ends the process.
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
