//! What the two say first, and the replies that end the handshake without options ("Oldstyle
//! negotiation", "Newstyle negotiation").

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use super::violation;

/// What every server sends first: "NBDMAGIC".
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// What follows it in the newstyle, and begins every option: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What follows it in the oldstyle.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// Reserved bytes behind the description of an export, where they were not agreed away.
pub const PADDING: usize = 124;

/// Which negotiation the server's first 16 bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// [`Handshake`] flags follow.
    New,
    /// An [`OldstyleExport`] follows.
    Old,
}

impl Style {
    /// The length of it.
    pub const LEN: usize = 16;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let magic = match self {
            Self::New => OPTION_MAGIC,
            Self::Old => OLDSTYLE_MAGIC,
        };
        Fields::new().u64(INIT_MAGIC).u64(magic).end()
    }

    /// As it was received.
    ///
    /// # Errors
    /// [`violation`] where it is no NBD server.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        match (taker.u64(), taker.u64()) {
            (Some(INIT_MAGIC), Some(OPTION_MAGIC)) => Ok(Self::New),
            (Some(INIT_MAGIC), Some(OLDSTYLE_MAGIC)) => Ok(Self::Old),
            (Some(INIT_MAGIC), Some(magic)) => Err(violation(format!(
                "Bad server magic received: {magic:#018x}"
            ))),
            (magic, _) => Err(violation(format!(
                "Bad initial magic received: {:#018x}",
                magic.unwrap_or_default()
            ))),
        }
    }
}

/// The server's flags behind [`Style::New`].
pub type Handshake = HandshakeFlags;

impl HandshakeFlags {
    /// As they are sent.
    pub fn to_bytes(self) -> [u8; 2] {
        self.bits().to_be_bytes()
    }

    /// As they were received.
    pub fn from_bytes(bytes: [u8; 2]) -> Self {
        Self::from_bits_retain(u16::from_be_bytes(bytes))
    }
}

impl ClientFlags {
    /// As they are sent.
    pub fn to_bytes(self) -> [u8; 4] {
        self.bits().to_be_bytes()
    }

    /// As they were received.
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_bits_retain(u32::from_be_bytes(bytes))
    }
}

/// What the server says of an export behind [`Style::Old`], before [`PADDING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldstyleExport {
    /// Its size in bytes.
    pub size: u64,
    /// What it can do; the upper half of 32 bits is where newer servers put handshake flags.
    pub flags: TransmissionFlags,
}

impl OldstyleExport {
    /// The length of it, without the padding.
    pub const LEN: usize = 12;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(self.size)
            .u32(u32::from(self.flags.bits()))
            .end()
    }

    /// As it was received.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut taker = Taker(bytes);
        let size = taker.u64().unwrap_or_default();
        let _handshake = taker.u16();
        Self {
            size,
            flags: TransmissionFlags::from_bits_retain(taker.u16().unwrap_or_default()),
        }
    }
}

/// The reply to the option `EXPORT_NAME`, before [`PADDING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewstyleExport {
    /// Its size in bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
}

impl NewstyleExport {
    /// The length of it, without the padding.
    pub const LEN: usize = 10;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.size).u16(self.flags.bits()).end()
    }

    /// As it was received.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut taker = Taker(bytes);
        Self {
            size: taker.u64().unwrap_or_default(),
            flags: TransmissionFlags::from_bits_retain(taker.u16().unwrap_or_default()),
        }
    }
}
