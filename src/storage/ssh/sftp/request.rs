//! Requests (section 6).

use super::Attributes;
use crate::error::Result;
use crate::memory;

const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const FSTAT: u8 = 8;
const FSETSTAT: u8 = 10;
const REMOVE: u8 = 13;
const EXTENDED: u8 = 200;

/// Extensions of OpenSSH.
pub(super) const FSYNC: &[u8] = b"fsync@openssh.com";
pub(super) const LIMITS: &[u8] = b"limits@openssh.com";
/// An extension not of OpenSSH's own (draft-ietf-secsh-filexfer-extensions-00, section 7).
pub(super) const COPY_DATA: &[u8] = b"copy-data";

/// Position of the id in the packet of a request, after the length and the type.
const ID_AT: std::ops::Range<usize> = 5..9;
/// Maximum length of a request, excluding its path and data.
const HEAD: usize = 512;

bitflags::bitflags! {
    /// How a file is opened (section 6.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) struct OpenFlags: u32 {
        const READ = 1;
        const WRITE = 2;
        /// Create it if it is missing.
        const CREATE = 8;
        /// It must be missing.
        const EXCLUSIVE = 0x20;
    }
}

/// A request to a server.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Request<'a> {
    Open {
        path: &'a [u8],
        flags: OpenFlags,
        /// Permissions of a new file.
        mode: Option<u32>,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        len: u32,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Stat {
        handle: &'a [u8],
    },
    SetLen {
        handle: &'a [u8],
        len: u64,
    },
    Remove {
        path: &'a [u8],
    },
    Sync {
        handle: &'a [u8],
    },
    /// Makes the server copy from the start of one file into another.
    Copy {
        from: &'a [u8],
        len: u64,
        to: &'a [u8],
        offset: u64,
    },
    Limits,
}

/// Appends a string.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    // No caller has strings of 4 GiB.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

impl Request<'_> {
    /// The packet, with its length field and an id of 0.
    ///
    /// # Errors
    /// Where memory is exhausted.
    pub(in super::super) fn to_packet(self) -> Result<Vec<u8>> {
        let long = match self {
            Self::Open { path, .. } | Self::Remove { path } => path.len(),
            Self::Write { data, .. } => data.len(),
            _ => 0,
        };
        let mut out = Vec::new();
        memory::reserve(&mut out, long.saturating_add(HEAD))?;
        let mut begin = |kind: u8| out.extend_from_slice(&[0, 0, 0, 0, kind, 0, 0, 0, 0]);
        match self {
            Self::Open { path, flags, mode } => {
                begin(OPEN);
                string(&mut out, path);
                out.extend_from_slice(&flags.bits().to_be_bytes());
                Attributes::write(&mut out, None, mode);
            }
            Self::Close { handle } => {
                begin(CLOSE);
                string(&mut out, handle);
            }
            Self::Read {
                handle,
                offset,
                len,
            } => {
                begin(READ);
                string(&mut out, handle);
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&len.to_be_bytes());
            }
            Self::Write {
                handle,
                offset,
                data,
            } => {
                begin(WRITE);
                string(&mut out, handle);
                out.extend_from_slice(&offset.to_be_bytes());
                string(&mut out, data);
            }
            Self::Stat { handle } => {
                begin(FSTAT);
                string(&mut out, handle);
            }
            Self::SetLen { handle, len } => {
                begin(FSETSTAT);
                string(&mut out, handle);
                Attributes::write(&mut out, Some(len), None);
            }
            Self::Remove { path } => {
                begin(REMOVE);
                string(&mut out, path);
            }
            Self::Sync { handle } => {
                begin(EXTENDED);
                string(&mut out, FSYNC);
                string(&mut out, handle);
            }
            Self::Copy {
                from,
                len,
                to,
                offset,
            } => {
                begin(EXTENDED);
                string(&mut out, COPY_DATA);
                string(&mut out, from);
                out.extend_from_slice(&0u64.to_be_bytes());
                out.extend_from_slice(&len.to_be_bytes());
                string(&mut out, to);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Limits => {
                begin(EXTENDED);
                string(&mut out, LIMITS);
            }
        }
        let len = u32::try_from(out.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = out.first_chunk_mut() {
            *head = len.to_be_bytes();
        }
        Ok(out)
    }

    /// Maximum length of the data in the reply.
    pub(in super::super) fn most(&self) -> usize {
        match self {
            Self::Read { len, .. } => *len as usize,
            _ => 0,
        }
    }
}

/// Sets the id of a packet from [`Request::to_packet`].
pub(in super::super) fn set_id(packet: &mut [u8], id: u32) {
    if let Some(place) = packet.get_mut(ID_AT) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_length_and_the_number_in_front() {
        let request = Request::Write {
            handle: b"h",
            offset: 0x0102,
            data: b"xyz",
        };
        let mut packet = request.to_packet().unwrap();
        set_id(&mut packet, 7);
        let expected = b"\0\0\0\x19\x06\0\0\0\x07\0\0\0\x01h\0\0\0\0\0\0\x01\x02\0\0\0\x03xyz";
        assert_eq!(packet, expected);
        let request = Request::Open {
            path: b"/p",
            flags: OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE,
            mode: Some(0o644),
        };
        let expected = b"\0\0\0\x17\x03\0\0\0\0\0\0\0\x02/p\0\0\0\x0b\0\0\0\x04\0\0\x01\xa4";
        assert_eq!(request.to_packet().unwrap(), expected);
        let packet = Request::Sync { handle: b"h" }.to_packet().unwrap();
        assert_eq!(packet.len(), 4 + 1 + 4 + 4 + FSYNC.len() + 4 + 1);
        assert_eq!(Request::Limits.most(), 0);
        let copy = Request::Copy {
            from: b"z",
            len: 0x0304,
            to: b"h",
            offset: 0x0102,
        };
        let expected = b"\0\0\0\x34\xc8\0\0\0\0\0\0\0\x09copy-data\0\0\0\x01z\
            \0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\x04\0\0\0\x01h\0\0\0\0\0\0\x01\x02";
        assert_eq!(copy.to_packet().unwrap(), expected);
    }
}
