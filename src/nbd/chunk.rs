//! The payloads of chunks ("Structured reply types").

use bstr::{BString, ByteSlice};

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::{checked_string, violation};

/// The header of the data in `OFFSET_DATA`: its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetData {
    /// Offset in the export.
    pub offset: u64,
}

impl OffsetData {
    /// Its encoded length in bytes.
    pub const LEN: usize = 8;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.offset.to_be_bytes()
    }

    /// Decodes it as received.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self {
            offset: u64::from_be_bytes(bytes),
        }
    }
}

/// The payload of `OFFSET_HOLE`: zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// Offset in the export.
    pub offset: u64,
    /// Length in bytes; not 0.
    pub len: u32,
}

impl OffsetHole {
    /// Its encoded length in bytes.
    pub const LEN: usize = 12;

    /// Encodes it for sending.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.offset).u32(self.len).end()
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut taker = Taker(bytes);
        match (taker.u64(), taker.u32()) {
            (Some(offset), Some(len)) if len > 0 => Ok(Self { offset, len }),
            _ => Err(violation("The server sent a hole of no length")),
        }
    }
}

/// One extent of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusExtent {
    /// Length in bytes; not 0.
    pub len: u64,
    /// Its status flags in the context.
    pub flags: u64,
}

impl StatusExtent {
    /// Its encoded length in `BLOCK_STATUS`.
    pub const COMPACT_LEN: usize = 8;
    /// Its encoded length in `BLOCK_STATUS_EXT`.
    pub const EXTENDED_LEN: usize = 16;

    /// Encodes it for `BLOCK_STATUS`; None if a field does not fit in 32 bits.
    pub fn to_compact(self) -> Option<[u8; Self::COMPACT_LEN]> {
        let len = u32::try_from(self.len).ok()?;
        let flags = u32::try_from(self.flags).ok()?;
        Some(Fields::new().u32(len).u32(flags).end())
    }

    /// Encodes it for `BLOCK_STATUS_EXT`.
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        Fields::new().u64(self.len).u64(self.flags).end()
    }
}

/// The header of the extents in `BLOCK_STATUS`: the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusHead {
    /// The ID of the context.
    pub context: u32,
    /// Number of extents that follow.
    pub count: u32,
}

impl StatusHead {
    /// Its encoded length in `BLOCK_STATUS`, where the length of the chunk implies the count.
    pub const COMPACT_LEN: usize = 4;
    /// Its encoded length in `BLOCK_STATUS_EXT`.
    pub const EXTENDED_LEN: usize = 8;

    /// Encodes it for `BLOCK_STATUS`.
    pub fn to_compact(self) -> [u8; Self::COMPACT_LEN] {
        self.context.to_be_bytes()
    }

    /// Encodes it for `BLOCK_STATUS_EXT`.
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        Fields::new().u32(self.context).u32(self.count).end()
    }
}

/// Decodes the payload of `BLOCK_STATUS` or, if `extended`, of `BLOCK_STATUS_EXT`: the ID of the context, and its
/// extents in order.
///
/// # Errors
/// [`violation`]: inconsistent lengths, no extent, or an empty one.
pub fn status_from_bytes(
    bytes: &[u8],
    extended: bool,
) -> Result<(u32, impl Iterator<Item = StatusExtent> + Clone)> {
    let bad = || violation("The length of the block status does not fit");
    let mut taker = Taker(bytes);
    let context = taker.u32().ok_or_else(bad)?;
    let each = match extended {
        true => StatusExtent::EXTENDED_LEN,
        false => StatusExtent::COMPACT_LEN,
    };
    let promised = match extended {
        true => taker.u32().ok_or_else(bad)?,
        false => 0,
    };
    let count = taker.0.len() / each;
    if count == 0 || !taker.0.len().is_multiple_of(each) {
        return Err(bad());
    }
    // A count of 0 means that only the length counts.
    if promised != 0 && usize::try_from(promised) != Ok(count) {
        return Err(bad());
    }
    let extents = taker.0.chunks_exact(each).map(move |bytes| {
        let mut taker = Taker(bytes);
        let (len, flags) = match extended {
            true => (taker.u64(), taker.u64()),
            false => (taker.u32().map(u64::from), taker.u32().map(u64::from)),
        };
        StatusExtent {
            len: len.unwrap_or_default(),
            flags: flags.unwrap_or_default(),
        }
    });
    if extents.clone().any(|extent| extent.len == 0) {
        return Err(violation(
            "The server sent a block status of an extent of no length",
        ));
    }
    Ok((context, extents))
}

/// The payload of `ERROR` and `ERROR_OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// The protocol's error number; not 0. See [`super::errno`].
    pub error: u32,
    /// A message for humans; may be empty.
    pub message: BString,
    /// Offset in the export; only in `ERROR_OFFSET`.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// Encodes it for sending; a message that is too long is truncated.
    pub fn to_bytes(&self) -> Vec<u8> {
        let end = self.message.len().min(super::limits::MAX_STRING);
        let message = self.message.get(..end).unwrap_or_default();
        let len = u16::try_from(message.len()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(14 + message.len());
        bytes.extend_from_slice(&self.error.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(message);
        if let Some(offset) = self.offset {
            bytes.extend_from_slice(&offset.to_be_bytes());
        }
        bytes
    }

    /// Decodes it as received, with an offset if it is an `ERROR_OFFSET`. Whatever follows the message in other error
    /// chunks is ignored.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8], at_offset: bool) -> Result<Self> {
        let bad = || violation("The length of an error does not fit");
        let mut taker = Taker(bytes);
        let error = taker.u32().ok_or_else(bad)?;
        let len = taker.u16().ok_or_else(bad)?;
        let message = taker.take(usize::from(len)).ok_or_else(bad)?;
        let message = checked_string(message, "message of an error")?;
        if error == 0 {
            return Err(violation("The server sent an error without a number"));
        }
        let offset = match at_offset {
            true => Some(taker.u64().ok_or_else(bad)?),
            false => None,
        };
        Ok(Self {
            error,
            message: message.as_bytes().into(),
            offset,
        })
    }
}
