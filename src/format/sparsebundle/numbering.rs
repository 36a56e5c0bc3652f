//! How the blocks of encrypted bands are numbered for their IVs.
//!
//! No description of the format says so, but the data shows it: a wrong IV damages the first 16 bytes of a
//! block alone, so that a block which repeats one unit, as zeroes do, does so from its beginning under the
//! right number only.

use crate::error::Result;
use crate::format::encrcdsa::BlockCipher;
use crate::memory;

/// Bytes that are encrypted at a time.
const UNIT: usize = 16;

/// What blocks are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    Disk,
    Band,
}

impl Numbering {
    /// The number of the block at an offset of the disk; all of them were checked to have 32 bits.
    pub(super) fn number(self, offset: u64, band_len: u64, block_len: u64) -> u32 {
        let from = match self {
            Self::Disk => offset,
            Self::Band => offset % band_len,
        };
        (from / block_len) as u32
    }
}

/// What encrypted blocks say of their numbering, which begin at an offset of the disk behind the first band;
/// None where none of them repeats a unit.
///
/// # Errors
/// Lack of memory.
pub(super) fn shown_by(
    cipher: &BlockCipher,
    blocks: &[u8],
    offset: u64,
    band_len: u64,
) -> Result<Option<Numbering>> {
    let block_len = cipher.block_len();
    let mut plain = memory::zeroed(block_len as usize)?;
    let offsets = (offset..).step_by(block_len as usize);
    for (block, at) in blocks.chunks_exact(block_len as usize).zip(offsets) {
        for numbering in [Numbering::Disk, Numbering::Band] {
            plain.copy_from_slice(block);
            cipher.decrypt(&mut plain, numbering.number(at, band_len, block_len));
            let (first, rest) = plain.split_at(UNIT);
            let Some(unit) = rest.get(..UNIT) else {
                return Ok(None);
            };
            if rest.chunks_exact(UNIT).any(|other| other != unit) {
                break;
            }
            if first == unit {
                return Ok(Some(numbering));
            }
        }
    }
    Ok(None)
}
