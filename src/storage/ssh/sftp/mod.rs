//! The wire format of SFTP version 3 (draft-ietf-secsh-filexfer-02), with the extensions of OpenSSH (its file
//! `PROTOCOL`). No I/O.

mod attributes;
mod packet;
mod reply;
mod request;
mod version;

pub(super) use attributes::Attributes;
pub(super) use packet::Packets;
pub(super) use reply::{Code, Reply};
pub(super) use request::{OpenFlags, Request, set_id};
pub(super) use version::{Extensions, ServerLimits, hello};

use crate::error::{Error, ErrorKind};

/// Maximum length of a packet, excluding its length field. Servers send no more data than was requested.
pub(super) const MAX_PACKET: usize = 256 << 10;
/// Maximum data length that every server supports.
pub(super) const PORTABLE_DATA: u32 = 32 << 10;
/// Maximum length of a handle (section 6.3).
const MAX_HANDLE: usize = 256;
/// Maximum length of a path to send.
pub(super) const MAX_PATH: usize = 4096;
/// Maximum length of a server's message to retain.
const MAX_TEXT: usize = 256;

/// The error for a server that violates the protocol; `what` says how.
pub(super) fn violation(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, what).with_errno(libc::EPROTO)
}

/// Parses a packet from its start.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (now, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(now)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
