//! The initial exchange (section 4), and the limits of a server.

use super::request::{COPY_DATA, FSYNC, LIMITS};
use super::{Cursor, MAX_PACKET, PORTABLE_DATA, violation};
use crate::error::Result;

const VERSION: u8 = 2;
/// The version implemented here.
const OURS: u32 = 3;

/// Generous allowance for the rest of a packet besides its data.
const AROUND_DATA: u64 = 1024;

/// The initial packet of the client.
pub(in super::super) fn hello() -> [u8; 9] {
    [0, 0, 0, 5, 1, 0, 0, 0, 3]
}

/// Protocol extensions that a server supports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Extensions {
    /// It can make a file durable.
    pub(in super::super) fsync: bool,
    /// It reports how long requests may be.
    pub(in super::super) limits: bool,
    /// It can copy from one file to another.
    pub(in super::super) copy_data: bool,
}

impl Extensions {
    /// Parses the server's first packet.
    ///
    /// # Errors
    /// [`violation`]; also where it speaks another version.
    pub(in super::super) fn from_packet(packet: &[u8]) -> Result<Self> {
        let strange = || violation("The server does not answer as an SFTP server does");
        let (kind, rest) = packet.split_first().ok_or_else(strange)?;
        let mut at = Cursor(rest);
        let version = at.u32().filter(|_| *kind == VERSION).ok_or_else(strange)?;
        if version != OURS {
            return Err(violation(format!(
                "The server speaks version {version} of SFTP, not 3"
            )));
        }
        let mut found = Self::default();
        while !at.is_empty() {
            let name = at.string().ok_or_else(strange)?;
            let value = at.string().ok_or_else(strange)?;
            match name {
                FSYNC => found.fsync = value == b"1",
                LIMITS => found.limits = value == b"1",
                COPY_DATA => found.copy_data = value == b"1",
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Maximum payload of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct ServerLimits {
    pub(in super::super) read: u32,
    pub(in super::super) write: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            read: PORTABLE_DATA,
            write: PORTABLE_DATA,
        }
    }
}

impl ServerLimits {
    /// Parses the reply to [`super::Request::Limits`]; a server may leave its limits unspecified.
    pub(in super::super) fn from_reply(bytes: &[u8]) -> Option<Self> {
        let mut at = Cursor(bytes);
        let packet = at.u64()?;
        let (read, write) = (at.u64()?, at.u64()?);
        let own = MAX_PACKET as u64 - AROUND_DATA;
        let packet = match packet {
            0 => own,
            packet => packet.saturating_sub(AROUND_DATA).min(own),
        };
        let limit = |limit: u64| match limit {
            0 => PORTABLE_DATA,
            limit => u32::try_from(limit.min(packet)).unwrap_or(PORTABLE_DATA),
        };
        let found = Self {
            read: limit(read),
            write: limit(write),
        };
        (found.read >= 512 && found.write >= 512).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_count_in_the_version_that_is_known() {
        let of = |packet: &[u8]| Extensions::from_packet(packet);
        assert_eq!(of(b"\x02\0\0\0\x03").unwrap(), Extensions::default());
        let known = b"\x02\0\0\0\x03\0\0\0\x11fsync@openssh.com\0\0\0\x011\0\0\0\x01x\0\0\0\0";
        let expected = Extensions {
            fsync: true,
            ..Extensions::default()
        };
        assert_eq!(of(known).unwrap(), expected);
        for packet in [
            b"".as_slice(),
            b"\x02\0\0\0",
            b"\x02\0\0\0\x06",
            b"\x65\0\0\0\x03",
            b"\x02\0\0\0\x03\0\0\0\x01x",
        ] {
            assert!(of(packet).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn limits_of_a_server_keep_to_ours() {
        let of = |numbers: [u64; 4]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
            ServerLimits::from_reply(&bytes)
        };
        let openssh = of([262_144, 261_120, 261_120, 1019]).unwrap();
        assert_eq!((openssh.read, openssh.write), (261_120, 261_120));
        let open = of([0, 0, u64::MAX, 0]).unwrap();
        assert_eq!((open.read, open.write), (PORTABLE_DATA, 261_120));
        assert_eq!(of([262_144, 1, 1, 0]), None);
        assert_eq!(of([1, 1 << 20, 1 << 20, 0]), None);
        assert_eq!(ServerLimits::from_reply(&[0; 20]), None);
    }
}
