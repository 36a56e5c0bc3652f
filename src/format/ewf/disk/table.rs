//! The tables of chunks: `table`, and its copy `table2`.

use crate::bytes::{le32, le64};
use crate::error::{Error, Result};

use super::checksum::is_whole;

/// Bytes before the entries.
pub(in super::super) const TABLE_HEADER_LEN: usize = 24;

/// Length of an entry in bytes.
pub(in super::super) const ENTRY_LEN: u64 = 4;

/// The bit that marks the entry of a compressed chunk.
const COMPRESSED: u32 = 1 << 31;

/// What precedes the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct TableHeader {
    /// The number of entries.
    pub(in super::super) count: u32,
    /// The base of their offsets, in the segment.
    pub(in super::super) base: u64,
}

impl TableHeader {
    /// Decodes the first bytes of the section's data.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(in super::super) fn from_bytes(bytes: &[u8; TABLE_HEADER_LEN]) -> Result<Self> {
        if !is_whole(bytes) {
            return Err(Error::corrupt(
                "A table of chunks does not have its checksum",
            ));
        }
        Ok(Self {
            count: le32(bytes, 0).unwrap_or_default(),
            base: le64(bytes, 8).unwrap_or_default(),
        })
    }
}

/// Whether entries match the checksum that follows them.
pub(in super::super) fn entries_fit(bytes: &[u8]) -> bool {
    is_whole(bytes)
}

/// The offset of a chunk, relative to the base, and whether it is compressed.
pub(in super::super) fn entry(bytes: &[u8], index: u64) -> Option<(u64, bool)> {
    let at = usize::try_from(index.checked_mul(ENTRY_LEN)?).ok()?;
    let word = le32(bytes, at)?;
    Some((u64::from(word & !COMPRESSED), word & COMPRESSED != 0))
}
