//! The interface of all sessions, whatever their key exchange.

use std::io::IoSlice;

use crate::error::Result;

/// The result of reading from a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// That many bytes.
    Bytes(usize),
    /// Nothing yet: more bytes of the peer are needed.
    Nothing,
    /// The end: the peer has announced it.
    End,
}

/// One end of a connection, without its transport. The memory it uses is bounded.
pub(super) trait Session: Send {
    /// Whether the handshake is still in progress.
    fn is_handshaking(&self) -> bool;

    /// Consumes bytes of the peer; returns how many: fewer if decrypted ones must be read first, and none if the
    /// session is over.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Appends the bytes to send to the peer.
    fn take(&mut self, to: &mut Vec<u8>) -> Result<()>;

    /// Whether there are bytes to send.
    fn has_output(&self) -> bool;

    /// Reads decrypted bytes.
    fn read(&mut self, buf: &mut [u8]) -> Result<Plain>;

    /// Writes bytes to encrypt; returns how many: fewer if output must be taken first.
    fn write(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize>;

    /// Announces the end to the peer.
    fn close(&mut self);

    /// The identity that the peer has proved: the distinguished name of its certificate, or the name of its key.
    fn identity(&self) -> Option<String>;
}
