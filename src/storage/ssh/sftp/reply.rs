//! Replies (section 7).

use bstr::ByteSlice;

use super::{Attributes, Cursor, MAX_HANDLE, MAX_TEXT, violation};
use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// Maximum length of a reply to an extended request.
const MAX_EXTENDED: usize = 1024;

/// Status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Code {
    Ok,
    /// A read at the end of the file.
    End,
    NoSuchFile,
    PermissionDenied,
    Unsupported,
    Other(u32),
}

impl From<u32> for Code {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::End,
            2 => Self::NoSuchFile,
            3 => Self::PermissionDenied,
            8 => Self::Unsupported,
            other => Self::Other(other),
        }
    }
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Status {
    pub(in super::super) code: Code,
    /// The server's message.
    text: String,
}

impl Status {
    /// Converts the status to an error.
    pub(in super::super) fn error(&self) -> Error {
        let (errno, words) = match self.code {
            Code::Ok => (libc::EPROTO, "Success"),
            Code::End => (libc::EIO, "End of file"),
            Code::NoSuchFile => (libc::ENOENT, "No such file"),
            Code::PermissionDenied => (libc::EACCES, "Permission denied"),
            Code::Unsupported => (libc::ENOTSUP, "Operation unsupported"),
            Code::Other(_) => (libc::EIO, "Failure"),
        };
        let words = match self.text.is_empty() {
            true => words,
            false => self.text.as_str(),
        };
        Error::os(errno).with_message(format!("SFTP server: {words}"))
    }
}

/// A server's reply.
#[derive(Debug)]
pub(in super::super) enum Reply {
    Status(Status),
    Handle(Vec<u8>),
    Data(IoBuf),
    Attributes(Attributes),
    Extended(Vec<u8>),
}

impl Reply {
    /// The id of the request that a packet replies to.
    ///
    /// # Errors
    /// [`violation`] where there is none.
    pub(in super::super) fn id(packet: &[u8]) -> Result<u32> {
        let id = packet.get(1..5).and_then(|id| id.try_into().ok());
        id.map(u32::from_be_bytes).ok_or_else(cut_off)
    }

    /// Parses a packet; `most` is the length of the data that was requested.
    ///
    /// # Errors
    /// [`violation`]; where memory is exhausted.
    pub(in super::super) fn from_packet(packet: &[u8], most: usize) -> Result<Self> {
        let (kind, rest) = packet.split_first().ok_or_else(cut_off)?;
        let mut at = Cursor(rest.get(4..).ok_or_else(cut_off)?);
        Ok(match *kind {
            STATUS => {
                let code = at.u32().ok_or_else(cut_off)?;
                // Old servers send no message.
                let text = at.string().unwrap_or_default();
                let text = text.get(..MAX_TEXT).unwrap_or(text);
                Self::Status(Status {
                    code: code.into(),
                    text: text.to_str_lossy().into_owned(),
                })
            }
            HANDLE => {
                let handle = at.string().ok_or_else(cut_off)?;
                if handle.len() > MAX_HANDLE {
                    return Err(violation("The server sent a handle that is too long"));
                }
                Self::Handle(handle.to_vec())
            }
            DATA => {
                let data = at.string().ok_or_else(cut_off)?;
                if data.len() > most || data.is_empty() || !at.is_empty() {
                    return Err(violation(format!(
                        "The server sent {} bytes of data where {most} were asked for",
                        data.len()
                    )));
                }
                Self::Data(memory::copied(data)?)
            }
            ATTRS => Self::Attributes(Attributes::from_bytes(at.0).ok_or_else(cut_off)?),
            EXTENDED_REPLY if at.0.len() <= MAX_EXTENDED => Self::Extended(at.0.to_vec()),
            other => {
                return Err(violation(format!(
                    "The server sent a packet of the type {other}"
                )));
            }
        })
    }
}

fn cut_off() -> Error {
    violation("The server sent a packet that is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(packet: &[u8]) -> Result<Reply> {
        Reply::from_packet(packet, 3)
    }

    #[test]
    fn replies_are_read_and_bounded() {
        let status = reply(b"\x65\0\0\0\x01\0\0\0\x02\0\0\0\x04gone\0\0\0\0").unwrap();
        let Reply::Status(status) = status else {
            panic!("{status:?}");
        };
        assert_eq!(status.code, Code::NoSuchFile);
        assert_eq!(status.error().to_string(), "SFTP server: gone");
        assert_eq!(status.error().errno(), libc::ENOENT);
        let Ok(Reply::Status(status)) = reply(b"\x65\0\0\0\x01\0\0\0\x04") else {
            panic!();
        };
        assert_eq!(status.error().to_string(), "SFTP server: Failure");
        let Ok(Reply::Data(data)) = reply(b"\x67\0\0\0\x01\0\0\0\x02ab") else {
            panic!();
        };
        assert_eq!(&data[..], b"ab");
        assert!(matches!(
            reply(b"\x66\0\0\0\x01\0\0\0\x01h"),
            Ok(Reply::Handle(handle)) if handle == b"h"
        ));
        assert!(matches!(
            reply(b"\xc9\0\0\0\x01xyz"),
            Ok(Reply::Extended(rest)) if rest == b"xyz"
        ));
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_a_violation() {
        let long = [b"\x66\0\0\0\x01\0\0\x02\0".as_slice(), &[0; 512]].concat();
        for packet in [
            b"".as_slice(),
            b"\x65",
            b"\x65\0\0\0\x01\0\0",
            b"\x66\0\0\0\x01\0\0\0\x02h",
            b"\x66\0\0\0\x01\xff\xff\xff\xffh",
            b"\x67\0\0\0\x01\0\0\0\x00",
            b"\x67\0\0\0\x01\0\0\0\x04abcd",
            b"\x67\0\0\0\x01\0\0\0\x02abc",
            b"\x67\0\0\0\x01\xff\xff\xff\xffab",
            b"\x69\0\0\0\x01\0\0\0\x01\0",
            b"\x02\0\0\0\x03",
            &long,
        ] {
            let error = reply(packet).unwrap_err();
            assert_eq!(error.errno(), libc::EPROTO, "{packet:?}");
        }
        assert!(Reply::id(b"\x65\0\0\0").is_err());
        assert_eq!(Reply::id(b"\x65\0\0\0\x09").unwrap(), 9);
    }
}
