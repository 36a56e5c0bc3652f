//! Options and the replies to them ("Fixed newstyle negotiation", "Option types", "Option reply types").

use std::fmt;

use crate::error::Result;

use super::codes::codes;
use super::fields::{Fields, Taker};
use super::greeting::OPTION_MAGIC;
use super::violation;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

codes! {
    /// Identifies an option.
    OptionCode: u32;

    /// Selects the export and ends the handshake; has no reply of its own.
    EXPORT_NAME = 1;
    /// Ends the connection.
    ABORT = 2;
    /// Lists the exports.
    LIST = 3;
    /// Starts TLS.
    STARTTLS = 5;
    /// Describes an export.
    INFO = 6;
    /// As [`OptionCode::INFO`], and selects the export.
    GO = 7;
    /// From then on replies may be sent in chunks.
    STRUCTURED_REPLY = 8;
    /// Lists metadata contexts.
    LIST_META_CONTEXT = 9;
    /// Selects metadata contexts.
    SET_META_CONTEXT = 10;
    /// From then on requests and replies have 64-bit lengths.
    EXTENDED_HEADERS = 11;
}

/// A name of the specification in the form that QEMU's tools display.
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

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// The option.
    pub option: OptionCode,
    /// Number of bytes of data that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Its encoded length in bytes.
    pub const LEN: usize = 16;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(OPTION_MAGIC)
            .u32(self.option.0)
            .u32(self.len)
            .end()
    }

    /// Decodes it as received; whether the data is too long is for the caller to decide.
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
    /// Identifies a reply to an option.
    ReplyCode: u32;

    /// The option has succeeded; the last reply.
    ACK = 1;
    /// An export; one of several replies.
    SERVER = 2;
    /// Information about an export; one of several replies.
    INFO = 3;
    /// A metadata context; one of several replies.
    META_CONTEXT = 4;
    /// The option is unknown.
    ERR_UNSUP = Self::ERROR | 1;
    /// The server's policy forbids it.
    ERR_POLICY = Self::ERROR | 2;
    /// The option's data is invalid.
    ERR_INVALID = Self::ERROR | 3;
    /// The server's platform does not support it.
    ERR_PLATFORM = Self::ERROR | 4;
    /// TLS must be started first.
    ERR_TLS_REQD = Self::ERROR | 5;
    /// There is no such export.
    ERR_UNKNOWN = Self::ERROR | 6;
    /// The server is shutting down.
    ERR_SHUTDOWN = Self::ERROR | 7;
    /// The client must request block sizes.
    ERR_BLOCK_SIZE_REQD = Self::ERROR | 8;
    /// The option's data is too long.
    ERR_TOO_BIG = Self::ERROR | 9;
    /// Extended headers must be negotiated first.
    ERR_EXT_HEADER_REQD = Self::ERROR | 10;
}

impl ReplyCode {
    const ERROR: u32 = 1 << 31;

    /// Whether it is an error. If so, it is the last reply, and its data is a message.
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

/// The header of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option that it replies to.
    pub option: OptionCode,
    /// The kind of reply.
    pub code: ReplyCode,
    /// Number of bytes of data that follow.
    pub len: u32,
}

impl OptionReply {
    /// Its encoded length in bytes.
    pub const LEN: usize = 20;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(REPLY_MAGIC)
            .u32(self.option.0)
            .u32(self.code.0)
            .u32(self.len)
            .end()
    }

    /// Decodes it as received; whether the data is too long is for the caller to decide.
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
