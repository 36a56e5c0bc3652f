//! The payloads of chunks ("Structured reply types").

use bstr::{BString, ByteSlice};

use crate::error::Result;

use super::fields::{Fields, Taker};
use super::{checked_string, violation};

/// What stands before the bytes of `OFFSET_DATA`: where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetData {
    /// Where in the export.
    pub offset: u64,
}

impl OffsetData {
    /// The length of it.
    pub const LEN: usize = 8;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.offset.to_be_bytes()
    }

    /// As it was received.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self {
            offset: u64::from_be_bytes(bytes),
        }
    }
}

/// The payload of `OFFSET_HOLE`: zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// Where in the export.
    pub offset: u64,
    /// How many; not 0.
    pub len: u32,
}

impl OffsetHole {
    /// The length of it.
    pub const LEN: usize = 12;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.offset).u32(self.len).end()
    }

    /// As it was received.
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
    /// How many bytes; not 0.
    pub len: u64,
    /// What the context says of them.
    pub flags: u64,
}

impl StatusExtent {
    /// The length of it in `BLOCK_STATUS`.
    pub const COMPACT_LEN: usize = 8;
    /// The length of it in `BLOCK_STATUS_EXT`.
    pub const EXTENDED_LEN: usize = 16;

    /// As it is sent in `BLOCK_STATUS`; None where a number needs more than 32 bits.
    pub fn to_compact(self) -> Option<[u8; Self::COMPACT_LEN]> {
        let len = u32::try_from(self.len).ok()?;
        let flags = u32::try_from(self.flags).ok()?;
        Some(Fields::new().u32(len).u32(flags).end())
    }

    /// As it is sent in `BLOCK_STATUS_EXT`.
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        Fields::new().u64(self.len).u64(self.flags).end()
    }
}

/// What stands before the extents of `BLOCK_STATUS`: the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusHead {
    /// The number of the context.
    pub context: u32,
    /// How many extents follow.
    pub count: u32,
}

impl StatusHead {
    /// The length of it in `BLOCK_STATUS`, where the count follows from the length of the chunk.
    pub const COMPACT_LEN: usize = 4;
    /// The length of it in `BLOCK_STATUS_EXT`.
    pub const EXTENDED_LEN: usize = 8;

    /// As it is sent in `BLOCK_STATUS`.
    pub fn to_compact(self) -> [u8; Self::COMPACT_LEN] {
        self.context.to_be_bytes()
    }

    /// As it is sent in `BLOCK_STATUS_EXT`.
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        Fields::new().u32(self.context).u32(self.count).end()
    }
}

/// The payload of `BLOCK_STATUS`, or with `extended` of `BLOCK_STATUS_EXT`: the number of the context,
/// and its extents in turn.
///
/// # Errors
/// [`violation`]: lengths that do not fit, no extent, or one of no length.
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
    // A count of 0 says that the length alone tells.
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
    /// The error of the protocol; not 0. See [`super::errno`].
    pub error: u32,
    /// What the server says for people; may be empty.
    pub message: BString,
    /// Where in the export; of `ERROR_OFFSET` alone.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// As it is sent; a message that is too long is cut.
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

    /// As it was received; `at_offset` of `ERROR_OFFSET`. What other chunks of errors have behind the
    /// message is ignored.
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
