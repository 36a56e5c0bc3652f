//! Headers of replies ("Simple reply message", "Structured reply chunk message", "Extended reply chunk message").

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::flags::ChunkFlags;
use super::violation;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

/// A simple reply. The data of a read follows unless there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// The protocol's error number, or 0; see [`super::errno`].
    pub error: u32,
    /// The request that it replies to.
    pub cookie: u64,
}

impl SimpleReply {
    /// Its encoded length in bytes.
    pub const LEN: usize = 16;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u32(SIMPLE_MAGIC)
            .u32(self.error)
            .u64(self.cookie)
            .end()
    }
}

/// Identifies the kind of a chunk in a structured reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkType(pub u16);

impl ChunkType {
    const ERRORS: u16 = 1 << 15;

    /// Empty; ends a reply.
    pub const NONE: Self = Self(0);
    /// Data of the export.
    pub const OFFSET_DATA: Self = Self(1);
    /// A range of the export that reads as zeroes.
    pub const OFFSET_HOLE: Self = Self(2);
    /// Extents of one context.
    pub const BLOCK_STATUS: Self = Self(5);
    /// Extents of one context, with 64-bit lengths.
    pub const BLOCK_STATUS_EXT: Self = Self(6);
    /// The request has failed.
    pub const ERROR: Self = Self(Self::ERRORS | 1);
    /// The request has failed at an offset.
    pub const ERROR_OFFSET: Self = Self(Self::ERRORS | 2);

    /// Whether it reports an error; all that do begin with the same fields.
    pub fn is_error(self) -> bool {
        self.0 & Self::ERRORS != 0
    }
}

/// The header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whether it is the last one.
    pub flags: ChunkFlags,
    /// The kind of chunk.
    pub kind: ChunkType,
    /// The request that it replies to.
    pub cookie: u64,
    /// Number of bytes of payload that follow.
    pub len: u64,
}

impl Chunk {
    /// Its encoded length without extended headers.
    pub const COMPACT_LEN: usize = 20;
    /// Its encoded length with extended headers.
    pub const EXTENDED_LEN: usize = 32;

    /// Whether it is the last of its reply.
    pub fn is_last(&self) -> bool {
        self.flags.contains(ChunkFlags::DONE)
    }

    /// Encodes it without extended headers; None if the length does not fit in 32 bits.
    pub fn to_compact(&self) -> Option<[u8; Self::COMPACT_LEN]> {
        let len = u32::try_from(self.len).ok()?;
        Some(self.head(STRUCTURED_MAGIC).u32(len).end())
    }

    /// Encodes it with extended headers, where `offset` is that of the request.
    pub fn to_extended(&self, offset: u64) -> [u8; Self::EXTENDED_LEN] {
        self.head(EXTENDED_MAGIC).u64(offset).u64(self.len).end()
    }

    fn head<const N: usize>(&self, magic: u32) -> Fields<N> {
        Fields::new()
            .u32(magic)
            .u16(self.flags.bits())
            .u16(self.kind.0)
            .u64(self.cookie)
    }
}

/// The kind of headers that replies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Headers {
    /// Only simple replies.
    Simple,
    /// Simple replies, and structured ones in chunks.
    Structured,
    /// Only chunks with 64-bit lengths.
    Extended,
}

impl Headers {
    /// How many bytes to read before the kind of reply is known: as many as the shortest header has.
    pub fn first_len(self) -> usize {
        match self {
            Self::Simple | Self::Structured => SimpleReply::LEN,
            Self::Extended => Chunk::EXTENDED_LEN,
        }
    }
}

/// The header of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple one.
    Simple(SimpleReply),
    /// A chunk.
    Chunk(Chunk),
}

impl Reply {
    /// The request that it replies to.
    pub fn cookie(&self) -> u64 {
        match self {
            Self::Simple(reply) => reply.cookie,
            Self::Chunk(chunk) => chunk.cookie,
        }
    }

    /// How many bytes of the header follow the first [`Headers::first_len`] ones, which are in `bytes`: a structured
    /// reply has four more than a simple one.
    ///
    /// # Errors
    /// [`violation`] if they are not the beginning of a reply of the negotiated kind.
    pub fn rest_len(headers: Headers, bytes: &[u8]) -> Result<usize> {
        match (Taker(bytes).u32(), headers) {
            (Some(SIMPLE_MAGIC), Headers::Simple | Headers::Structured) => Ok(0),
            (Some(STRUCTURED_MAGIC), Headers::Structured) => {
                Ok(Chunk::COMPACT_LEN - SimpleReply::LEN)
            }
            (Some(EXTENDED_MAGIC), Headers::Extended) => Ok(0),
            (Some(SIMPLE_MAGIC | STRUCTURED_MAGIC | EXTENDED_MAGIC), _) => Err(violation(
                "The server sent a reply of a kind that was not agreed on",
            )),
            (magic, _) => Err(violation(format!(
                "The server sent no reply: it begins with {:#x}",
                magic.unwrap_or_default()
            ))),
        }
    }

    /// Decodes a complete header as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut taker = Taker(bytes);
        let reply = taker.u32().and_then(|magic| match magic {
            SIMPLE_MAGIC => Some(Self::Simple(SimpleReply {
                error: taker.u32()?,
                cookie: taker.u64()?,
            })),
            STRUCTURED_MAGIC | EXTENDED_MAGIC => {
                let flags = ChunkFlags::from_bits_retain(taker.u16()?);
                let kind = ChunkType(taker.u16()?);
                let cookie = taker.u64()?;
                let len = match magic {
                    EXTENDED_MAGIC => {
                        // Clients have no use for the repeated offset of the request, correct or not.
                        taker.u64()?;
                        taker.u64()?
                    }
                    _ => u64::from(taker.u32()?),
                };
                Some(Self::Chunk(Chunk {
                    flags,
                    kind,
                    cookie,
                    len,
                }))
            }
            _ => None,
        });
        reply.ok_or_else(|| violation("The header of a reply is damaged"))
    }
}
