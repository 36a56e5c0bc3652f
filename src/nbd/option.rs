//! Options and the replies to them ("Fixed newstyle negotiation", "Option types", "Option reply types").

use std::fmt;

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::greeting::OPTION_MAGIC;
use super::violation;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Which option it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// Takes the export and ends the handshake; has no reply of its own.
    pub const EXPORT_NAME: Self = Self(1);
    /// Ends the connection.
    pub const ABORT: Self = Self(2);
    /// Lists the exports.
    pub const LIST: Self = Self(3);
    /// Begins TLS.
    pub const STARTTLS: Self = Self(5);
    /// Describes an export.
    pub const INFO: Self = Self(6);
    /// As [`OptionCode::INFO`], and takes the export.
    pub const GO: Self = Self(7);
    /// Replies come in chunks from then on.
    pub const STRUCTURED_REPLY: Self = Self(8);
    /// Lists metadata contexts.
    pub const LIST_META_CONTEXT: Self = Self(9);
    /// Chooses metadata contexts.
    pub const SET_META_CONTEXT: Self = Self(10);
    /// Requests and replies have lengths of 64 bits from then on.
    pub const EXTENDED_HEADERS: Self = Self(11);

    /// The name that the specification gives it, without the prefix.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::EXPORT_NAME => "EXPORT_NAME",
            Self::ABORT => "ABORT",
            Self::LIST => "LIST",
            Self::STARTTLS => "STARTTLS",
            Self::INFO => "INFO",
            Self::GO => "GO",
            Self::STRUCTURED_REPLY => "STRUCTURED_REPLY",
            Self::LIST_META_CONTEXT => "LIST_META_CONTEXT",
            Self::SET_META_CONTEXT => "SET_META_CONTEXT",
            Self::EXTENDED_HEADERS => "EXTENDED_HEADERS",
            _ => return None,
        })
    }
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What stands before the data of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option it is.
    pub option: OptionCode,
    /// How many bytes of data follow.
    pub len: u32,
}

impl OptionHeader {
    /// The length of it.
    pub const LEN: usize = 16;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(OPTION_MAGIC)
            .u32(self.option.0)
            .u32(self.len)
            .end()
    }

    /// As it was received; how long the data may be is for the caller to judge.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        match (taker.u64(), taker.u32(), taker.u32()) {
            (Some(OPTION_MAGIC), Some(option), Some(len)) => Ok(Self {
                option: OptionCode(option),
                len,
            }),
            _ => Err(violation("Bad option magic received")),
        }
    }
}

/// Which reply to an option it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyCode(pub u32);

impl ReplyCode {
    const ERROR: u32 = 1 << 31;

    /// The option is done; the last reply.
    pub const ACK: Self = Self(1);
    /// An export, one of several replies.
    pub const SERVER: Self = Self(2);
    /// Something about an export, one of several replies.
    pub const INFO: Self = Self(3);
    /// A metadata context, one of several replies.
    pub const META_CONTEXT: Self = Self(4);
    /// The option is not known.
    pub const ERR_UNSUP: Self = Self(Self::ERROR | 1);
    /// The server's policy forbids it.
    pub const ERR_POLICY: Self = Self(Self::ERROR | 2);
    /// The option's data is wrong.
    pub const ERR_INVALID: Self = Self(Self::ERROR | 3);
    /// The server's platform cannot do it.
    pub const ERR_PLATFORM: Self = Self(Self::ERROR | 4);
    /// TLS must come first.
    pub const ERR_TLS_REQD: Self = Self(Self::ERROR | 5);
    /// There is no such export.
    pub const ERR_UNKNOWN: Self = Self(Self::ERROR | 6);
    /// The server ends.
    pub const ERR_SHUTDOWN: Self = Self(Self::ERROR | 7);
    /// Block sizes must be asked for.
    pub const ERR_BLOCK_SIZE_REQD: Self = Self(Self::ERROR | 8);
    /// The option's data is too long.
    pub const ERR_TOO_BIG: Self = Self(Self::ERROR | 9);
    /// Extended headers must come first.
    pub const ERR_EXT_HEADER_REQD: Self = Self(Self::ERROR | 10);

    /// Whether it refuses the option. It is the last reply then, and its data is a message.
    pub fn is_error(self) -> bool {
        self.0 & Self::ERROR != 0
    }

    /// The name that the specification gives it, without the prefix.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ACK => "ACK",
            Self::SERVER => "SERVER",
            Self::INFO => "INFO",
            Self::META_CONTEXT => "META_CONTEXT",
            Self::ERR_UNSUP => "ERR_UNSUP",
            Self::ERR_POLICY => "ERR_POLICY",
            Self::ERR_INVALID => "ERR_INVALID",
            Self::ERR_PLATFORM => "ERR_PLATFORM",
            Self::ERR_TLS_REQD => "ERR_TLS_REQD",
            Self::ERR_UNKNOWN => "ERR_UNKNOWN",
            Self::ERR_SHUTDOWN => "ERR_SHUTDOWN",
            Self::ERR_BLOCK_SIZE_REQD => "ERR_BLOCK_SIZE_REQD",
            Self::ERR_TOO_BIG => "ERR_TOO_BIG",
            Self::ERR_EXT_HEADER_REQD => "ERR_EXT_HEADER_REQD",
            _ => return None,
        })
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{:#x} ({name})", self.0),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// What stands before the data of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option that it replies to.
    pub option: OptionCode,
    /// What it says.
    pub code: ReplyCode,
    /// How many bytes of data follow.
    pub len: u32,
}

impl OptionReply {
    /// The length of it.
    pub const LEN: usize = 20;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(REPLY_MAGIC)
            .u32(self.option.0)
            .u32(self.code.0)
            .u32(self.len)
            .end()
    }

    /// As it was received; how long the data may be is for the caller to judge.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        match (taker.u64(), taker.u32(), taker.u32(), taker.u32()) {
            (Some(REPLY_MAGIC), Some(option), Some(code), Some(len)) => Ok(Self {
                option: OptionCode(option),
                code: ReplyCode(code),
                len,
            }),
            _ => Err(violation("Unexpected option reply magic received")),
        }
    }
}
