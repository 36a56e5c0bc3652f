//! A session over a socket.

use std::fmt;
use std::io::IoSlice;

use parking_lot::Mutex;

use super::error::cut;
use super::session::{Plain, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::net::socket::Socket;
use crate::net::wait::Wait;

/// Number of bytes to read from the peer at once: several records.
const INPUT: usize = 64 << 10;

/// Maximum number of bytes accepted from the peer during the handshake. Certificate chains have a few thousand.
const MOST_HANDSHAKE: usize = 256 << 10;

/// A cancellation needs no context.
fn in_handshake(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Cancelled => error,
        _ => error.context("TLS handshake failed"),
    }
}

/// Bytes of the peer that the session has not consumed yet.
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads more when there are none left; returns how many.
    fn fill(&mut self, socket: &Socket, wait: Wait<'_>) -> Result<usize> {
        self.end = socket.read(&mut self.bytes, wait)?;
        self.start = 0;
        Ok(self.end)
    }
}

/// Bytes for the peer that have not been sent yet.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    fn send(&mut self, socket: &Socket, wait: Wait<'_>) -> Result<()> {
        if self.sent < self.bytes.len() {
            let mut rest = [IoSlice::new(&self.bytes[self.sent..])];
            socket.write_all(&mut rest, wait)?;
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends what the kernel accepts without blocking; the rest is sent along with the next output.
    fn try_send(&mut self, socket: &Socket) {
        self.sent += socket.try_write(&self.bytes[self.sent..]);
    }
}

/// A session over a socket. Locks are taken in the order output, session; only the reader uses input.
pub(in crate::net) struct Channel {
    session: Mutex<Box<dyn Session>>,
    input: Mutex<Input>,
    output: Mutex<Output>,
    identity: Option<String>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// Performs the handshake with the peer.
    pub(super) fn new(
        socket: &Socket,
        mut session: Box<dyn Session>,
        wait: Wait<'_>,
    ) -> Result<Self> {
        let mut input = Input {
            bytes: memory::filled(INPUT, 0)?,
            start: 0,
            end: 0,
        };
        let mut output = Output::default();
        let mut received = 0;
        loop {
            session.take(&mut output.bytes)?;
            output.send(socket, wait).map_err(in_handshake)?;
            if !session.is_handshaking() {
                break;
            }
            if input.is_empty() {
                match input.fill(socket, wait).map_err(in_handshake)? {
                    0 => return Err(in_handshake(cut())),
                    n => received += n,
                }
                if received > MOST_HANDSHAKE {
                    let message = "TLS handshake failed: the peer sends too much";
                    return Err(Error::new(ErrorKind::Limit, message));
                }
            }
            match session.feed(input.waiting()) {
                Ok(n) => input.start += n,
                Err(error) => {
                    // Tells the peer why, if it is listening.
                    if session.take(&mut output.bytes).is_ok() {
                        output.try_send(socket);
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self {
            identity: session.identity(),
            session: Mutex::new(session),
            input: Mutex::new(input),
            output: Mutex::new(output),
        })
    }

    /// The identity that the peer has proved.
    pub(in crate::net) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Reads some decrypted bytes; 0 at the end, which the peer must have announced.
    pub(in crate::net) fn read(
        &self,
        socket: &Socket,
        buf: &mut [u8],
        wait: Wait<'_>,
    ) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut input = self.input.lock();
        loop {
            {
                let mut session = self.session.lock();
                loop {
                    match session.read(buf)? {
                        Plain::Bytes(n) => return Ok(n),
                        Plain::End => return Ok(0),
                        Plain::Nothing if input.is_empty() => break,
                        Plain::Nothing => {}
                    }
                    match session.feed(input.waiting()) {
                        Ok(0) => return Err(cut()),
                        Ok(n) => input.start += n,
                        Err(error) => {
                            self.answer(&mut **session, socket);
                            return Err(error);
                        }
                    }
                    if session.has_output() {
                        self.answer(&mut **session, socket);
                    }
                }
            }
            if input.fill(socket, wait)? == 0 {
                return Err(cut());
            }
        }
    }

    /// Sends what the session has to send on its own account, without waiting for a writer, which would send it too, or
    /// for space in the socket.
    fn answer(&self, session: &mut dyn Session, socket: &Socket) {
        if let Some(mut output) = self.output.try_lock() {
            // What cannot be sent now is sent with the next bytes.
            let _ = session.take(&mut output.bytes);
            output.try_send(socket);
        }
    }

    /// Writes all of the buffers, in order.
    pub(in crate::net) fn write_all(
        &self,
        socket: &Socket,
        mut bufs: &mut [IoSlice<'_>],
        wait: Wait<'_>,
    ) -> Result<()> {
        let mut output = self.output.lock();
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let n = {
                let mut session = self.session.lock();
                let n = session.write(bufs)?;
                session.take(&mut output.bytes)?;
                n
            };
            if n == 0 && output.bytes.is_empty() {
                return Err(cut());
            }
            output.send(socket, wait)?;
            IoSlice::advance_slices(&mut bufs, n);
        }
        Ok(())
    }

    /// Announces the end to the peer, without blocking.
    pub(in crate::net) fn close(&self, socket: &Socket) {
        if let Some(mut output) = self.output.try_lock() {
            let mut session = self.session.lock();
            session.close();
            // A peer that accepts nothing any more gets no alert.
            let _ = session.take(&mut output.bytes);
            output.try_send(socket);
        }
    }
}
