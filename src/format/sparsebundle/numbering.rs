//! How the blocks of encrypted bands are numbered, which determines their IVs.
//!
//! The format is not documented in this respect, but it can be derived from the data: a wrong IV only corrupts the
//! first 16 bytes of a block, so a block that repeats one unit, as zeroes do, repeats it from its beginning only under
//! the right number.

use crate::error::Result;
use crate::format::encrcdsa::BlockCipher;
use crate::memory;

/// Bytes per unit of encryption.
const UNIT: usize = 16;

/// The origin from which blocks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    Disk,
    Band,
}

impl Numbering {
    /// The number of the block at an offset of the disk; all numbers have been checked to fit in 32 bits.
    pub(super) fn number(self, offset: u64, band_len: u64, block_len: u64) -> u32 {
        let from = match self {
            Self::Disk => offset,
            Self::Band => offset % band_len,
        };
        (from / block_len) as u32
    }
}

/// The numbering that can be derived from encrypted blocks, which begin at an offset of the disk after the first band;
/// None if none of them repeats a unit.
///
/// # Errors
/// If memory is exhausted.
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
