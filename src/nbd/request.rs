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
    /// Which request it is.
    Command: u16;

    /// Bytes of the export.
    READ = 0;
    /// Bytes for the export, which follow the request.
    WRITE = 1;
    /// The end of the connection; has no reply.
    DISC = 2;
    /// What was written becomes durable.
    FLUSH = 3;
    /// The range is no longer needed.
    TRIM = 4;
    /// The range is about to be read.
    CACHE = 5;
    /// The range becomes zero.
    WRITE_ZEROES = 6;
    /// Metadata of the range.
    BLOCK_STATUS = 7;
    /// A new size; experimental.
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
    /// How it is to be carried out.
    pub flags: CommandFlags,
    /// Which it is.
    pub command: Command,
    /// What its replies are known by.
    pub cookie: u64,
    /// Where in the export.
    pub offset: u64,
    /// How many bytes of the export; of the payload with [`CommandFlags::PAYLOAD_LEN`].
    pub len: u64,
}

impl Request {
    /// The length of a compact one.
    pub const COMPACT_LEN: usize = 28;
    /// The length of an extended one.
    pub const EXTENDED_LEN: usize = 32;

    /// As it is sent without extended headers; None where the length needs more than 32 bits.
    pub fn to_compact(&self) -> Option<[u8; Self::COMPACT_LEN]> {
        let len = u32::try_from(self.len).ok()?;
        Some(self.head(MAGIC).u32(len).end())
    }

    /// As it is sent with extended headers.
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

    /// As it was received without extended headers.
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

    /// As it was received with extended headers.
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

/// The payload of a request for block status that names its contexts, which goes with
/// [`CommandFlags::PAYLOAD_LEN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPayload {
    /// How many bytes of the export.
    pub len: u64,
    /// The numbers of the contexts.
    pub contexts: Vec<u32>,
}

impl StatusPayload {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.len.to_be_bytes().to_vec();
        for id in &self.contexts {
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        bytes
    }

    /// As it was received.
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
