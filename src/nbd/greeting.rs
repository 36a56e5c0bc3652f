//! The first messages of both sides, and the replies that end the handshake without options ("Oldstyle negotiation",
//! "Newstyle negotiation").

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use super::violation;

/// The first magic number of every server: "NBDMAGIC".
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// What follows it in the newstyle negotiation, and begins every option: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What follows it in the oldstyle negotiation.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// Number of reserved bytes after the description of an export, unless negotiated away.
pub const PADDING: usize = 124;

/// The kind of negotiation that the server's first 16 bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// [`Handshake`] flags follow.
    New,
    /// An [`OldstyleExport`] follows.
    Old,
}

impl Style {
    /// Its encoded length in bytes.
    pub const LEN: usize = 16;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let magic = match self {
            Self::New => OPTION_MAGIC,
            Self::Old => OLDSTYLE_MAGIC,
        };
        Fields::new().u64(INIT_MAGIC).u64(magic).end()
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`] if it is not an NBD server.
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

/// The server's flags after [`Style::New`].
pub type Handshake = HandshakeFlags;

impl HandshakeFlags {
    /// Encodes them for sending.
    pub fn to_bytes(self) -> [u8; 2] {
        self.bits().to_be_bytes()
    }

    /// Decodes them as received.
    pub fn from_bytes(bytes: [u8; 2]) -> Self {
        Self::from_bits_retain(u16::from_be_bytes(bytes))
    }
}

impl ClientFlags {
    /// Encodes them for sending.
    pub fn to_bytes(self) -> [u8; 4] {
        self.bits().to_be_bytes()
    }

    /// Decodes them as received.
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_bits_retain(u32::from_be_bytes(bytes))
    }
}

/// The server's description of an export after [`Style::Old`], before [`PADDING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldstyleExport {
    /// Its size in bytes.
    pub size: u64,
    /// Its capabilities; newer servers put handshake flags in the upper half of the 32 bits.
    pub flags: TransmissionFlags,
}

impl OldstyleExport {
    /// Its encoded length in bytes, without the padding.
    pub const LEN: usize = 12;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(self.size)
            .u32(u32::from(self.flags.bits()))
            .end()
    }

    /// Decodes it as received.
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
    /// Its capabilities.
    pub flags: TransmissionFlags,
}

impl NewstyleExport {
    /// Its encoded length in bytes, without the padding.
    pub const LEN: usize = 10;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.size).u16(self.flags.bits()).end()
    }

    /// Decodes it as received.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut taker = Taker(bytes);
        Self {
            size: taker.u64().unwrap_or_default(),
            flags: TransmissionFlags::from_bits_retain(taker.u16().unwrap_or_default()),
        }
    }
}
