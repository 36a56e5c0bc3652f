//! What every session offers, however keys are agreed on.

use std::io::IoSlice;

use crate::error::Result;

/// What comes out of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// That many bytes.
    Bytes(usize),
    /// Nothing yet: it wants bytes of the peer.
    Nothing,
    /// Nothing any more: the peer said so.
    End,
}

/// One end of a connection, without the connection. What it holds is bounded.
pub(super) trait Session: Send {
    /// Whether the ends still agree on keys.
    fn is_handshaking(&self) -> bool;

    /// Takes bytes of the peer; gives how many, fewer where plain ones must be read before, and none for a
    /// session that is over.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Appends what is to be sent to the peer.
    fn take(&mut self, to: &mut Vec<u8>) -> Result<()>;

    /// Whether there is something to be sent.
    fn has_output(&self) -> bool;

    /// Reads plain bytes.
    fn read(&mut self, buf: &mut [u8]) -> Result<Plain>;

    /// Writes plain bytes; gives how many, fewer where what is to be sent must be taken before.
    fn write(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize>;

    /// Tells the peer that nothing more comes.
    fn close(&mut self);

    /// Who the peer proved to be: the distinguished name of its certificate, or the name of its key.
    fn identity(&self) -> Option<String>;
}
