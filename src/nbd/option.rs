//! Options and the replies to them ("Fixed newstyle negotiation", "Option types", "Option reply types").

use std::fmt;

use crate::error::Result;

use super::codes::codes;
use super::fields::{Fields, Taker};
use super::greeting::OPTION_MAGIC;
use super::violation;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

codes! {
    /// Which option it is.
    OptionCode: u32;

    /// Takes the export and ends the handshake; has no reply of its own.
    EXPORT_NAME = 1;
    /// Ends the connection.
    ABORT = 2;
    /// Lists the exports.
    LIST = 3;
    /// Begins TLS.
    STARTTLS = 5;
    /// Describes an export.
    INFO = 6;
    /// As [`OptionCode::INFO`], and takes the export.
    GO = 7;
    /// Replies come in chunks from then on.
    STRUCTURED_REPLY = 8;
    /// Lists metadata contexts.
    LIST_META_CONTEXT = 9;
    /// Chooses metadata contexts.
    SET_META_CONTEXT = 10;
    /// Requests and replies have lengths of 64 bits from then on.
    EXTENDED_HEADERS = 11;
}

/// A name of the specification as QEMU's tools show it.
fn words(name: &str) -> String {
    name.to_lowercase().replace('_', " ")
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({})", self.0, words(name)),
            None => write!(f, "{} (<unknown>)", self.0),
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

codes! {
    /// Which reply to an option it is.
    ReplyCode: u32;

    /// The option is done; the last reply.
    ACK = 1;
    /// An export, one of several replies.
    SERVER = 2;
    /// Something about an export, one of several replies.
    INFO = 3;
    /// A metadata context, one of several replies.
    META_CONTEXT = 4;
    /// The option is not known.
    ERR_UNSUP = Self::ERROR | 1;
    /// The server's policy forbids it.
    ERR_POLICY = Self::ERROR | 2;
    /// The option's data is wrong.
    ERR_INVALID = Self::ERROR | 3;
    /// The server's platform cannot do it.
    ERR_PLATFORM = Self::ERROR | 4;
    /// TLS must come first.
    ERR_TLS_REQD = Self::ERROR | 5;
    /// There is no such export.
    ERR_UNKNOWN = Self::ERROR | 6;
    /// The server ends.
    ERR_SHUTDOWN = Self::ERROR | 7;
    /// Block sizes must be asked for.
    ERR_BLOCK_SIZE_REQD = Self::ERROR | 8;
    /// The option's data is too long.
    ERR_TOO_BIG = Self::ERROR | 9;
    /// Extended headers must come first.
    ERR_EXT_HEADER_REQD = Self::ERROR | 10;
}

impl ReplyCode {
    const ERROR: u32 = 1 << 31;

    /// Whether it refuses the option. It is the last reply then, and its data is a message.
    pub fn is_error(self) -> bool {
        self.0 & Self::ERROR != 0
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({})", self.0, words(name)),
            None => write!(f, "{} (<unknown>)", self.0),
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
            _ => Err(violation("Unexpected option reply magic")),
        }
    }
}
