//! Requests ("Request message", "Compact request message", "Extended request message", "Request types").

use std::fmt;

use crate::error::Result;

use super::codes::codes;
use super::fields::{Fields, Taker};
use super::flags::CommandFlags;
use super::violation;

const MAGIC: u32 = 0x2560_9513;
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

codes! {
    /// Identifies a request.
    Command: u16;

    /// Reads data.
    READ = 0;
    /// Writes data, which follows the request.
    WRITE = 1;
    /// Ends the connection; has no reply.
    DISC = 2;
    /// Makes completed writes durable.
    FLUSH = 3;
    /// Hints that the range is no longer needed.
    TRIM = 4;
    /// Hints that the range is about to be read.
    CACHE = 5;
    /// Fills the range with zeroes.
    WRITE_ZEROES = 6;
    /// Queries metadata of the range.
    BLOCK_STATUS = 7;
    /// Changes the size; experimental.
    RESIZE = 8;
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A request, without the data of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How to carry it out.
    pub flags: CommandFlags,
    /// The kind of request.
    pub command: Command,
    /// Identifies its replies.
    pub cookie: u64,
    /// Offset in the export.
    pub offset: u64,
    /// Number of bytes of the export; of the payload with [`CommandFlags::PAYLOAD_LEN`].
    pub len: u64,
}

impl Request {
    /// The encoded length of a compact request.
    pub const COMPACT_LEN: usize = 28;
    /// The encoded length of an extended request.
    pub const EXTENDED_LEN: usize = 32;

    /// Encodes it without extended headers; None if the length does not fit in 32 bits.
    pub fn to_compact(&self) -> Option<[u8; Self::COMPACT_LEN]> {
        let len = u32::try_from(self.len).ok()?;
        Some(self.head(MAGIC).u32(len).end())
    }

    /// Encodes it with an extended header.
    pub fn to_extended(&self) -> [u8; Self::EXTENDED_LEN] {
        self.head(EXTENDED_MAGIC).u64(self.len).end()
    }

    fn head<const N: usize>(&self, magic: u32) -> Fields<N> {
        Fields::new()
            .u32(magic)
            .u16(self.flags.bits())
            .u16(self.command.0)
            .u64(self.cookie)
            .u64(self.offset)
    }

    /// Decodes it as received without extended headers.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_compact(bytes: &[u8; Self::COMPACT_LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        let request = Self::take(&mut taker, MAGIC);
        let request = request.zip(taker.u32());
        let (request, len) = request.ok_or_else(|| violation("Bad request magic received"))?;
        Ok(Self {
            len: u64::from(len),
            ..request
        })
    }

    /// Decodes it as received with extended headers.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_extended(bytes: &[u8; Self::EXTENDED_LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        let request = Self::take(&mut taker, EXTENDED_MAGIC);
        let request = request.zip(taker.u64());
        let (request, len) = request.ok_or_else(|| violation("Bad request magic received"))?;
        Ok(Self { len, ..request })
    }

    fn take(taker: &mut Taker<'_>, magic: u32) -> Option<Self> {
        if taker.u32()? != magic {
            return None;
        }
        Some(Self {
            flags: CommandFlags::from_bits_retain(taker.u16()?),
            command: Command(taker.u16()?),
            cookie: taker.u64()?,
            offset: taker.u64()?,
            len: 0,
        })
    }
}

/// The payload of a block status request that lists its contexts, which is used with [`CommandFlags::PAYLOAD_LEN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPayload {
    /// Number of bytes of the export.
    pub len: u64,
    /// The IDs of the contexts.
    pub contexts: Vec<u32>,
}

impl StatusPayload {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.len.to_be_bytes().to_vec();
        for id in &self.contexts {
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        bytes
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut taker = Taker(bytes);
        match taker.u64() {
            Some(len) if !taker.0.is_empty() && taker.0.len().is_multiple_of(4) => Ok(Self {
                len,
                contexts: std::iter::from_fn(|| taker.u32()).collect(),
            }),
            _ => Err(violation(
                "The length of the list of metadata contexts does not fit",
            )),
        }
    }
}
