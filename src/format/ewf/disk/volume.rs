//! The section that describes the disk: `volume`, or `disk`.

use crate::bytes::{le32, le64};
use crate::error::{Error, Result};
use crate::size::SECTOR;

use super::checksum::is_whole;

/// Length of the section's data as written by EnCase and FTK Imager.
const LEN: usize = 1052;

/// Length as in the first specification, and as written by SMART.
const SHORT_LEN: usize = 94;

/// The contents of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Volume {
    /// Guest bytes per chunk.
    pub(in super::super) chunk: u64,
    /// The virtual size in bytes.
    pub(in super::super) len: u64,
    /// Chunks are within the sections of tables, whose entries have no checksum.
    pub(in super::super) is_short: bool,
}

impl Volume {
    /// Decodes the data of the section.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] or [`crate::ErrorKind::Unsupported`].
    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Err(Error::corrupt(why));
        let is_short = bytes.len() < LEN;
        let len = if is_short { SHORT_LEN } else { LEN };
        if !bytes.get(..len).is_some_and(is_whole) {
            return refuse("The description of the disk does not have its checksum");
        }
        let word = |at| u64::from(le32(bytes, at).unwrap_or_default());
        let (per_chunk, sector) = (word(8), word(12));
        let sectors = match is_short {
            true => word(16),
            false => le64(bytes, 16).unwrap_or_default(),
        };
        if per_chunk == 0 || sector == 0 {
            return refuse("The description of the disk has chunks or sectors of no bytes");
        }
        if sector % SECTOR != 0 {
            return Err(Error::unsupported(format!(
                "A disk with sectors of {sector} bytes is not read"
            )));
        }
        let disk = sectors.checked_mul(sector);
        match disk.filter(|len| *len <= i64::MAX as u64) {
            Some(len) => Ok(Self {
                chunk: per_chunk * sector,
                len,
                is_short,
            }),
            None => refuse("The disk is too large"),
        }
    }

    /// The number of chunks of the disk.
    pub(in super::super) fn chunks(&self) -> u64 {
        self.len.div_ceil(self.chunk)
    }
}
