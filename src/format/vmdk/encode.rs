//! Compressing a grain, with the marker before it and the padding behind.

use crate::codec::{Compression, Encoder};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::IoBuf;
use crate::size::SECTOR;

use super::disk::marker::{GRAIN_MARKER, grain_marker};

/// Compresses the grain at guest offset `guest` of its extent. What is smaller than a grain by the guest's end
/// is compressed as it is.
///
/// # Errors
/// Where there is no memory.
pub(super) fn encode_grain(
    scratch: &mut Encoder,
    compression: Compression,
    guest: u64,
    unit: &[u8],
    out: &mut IoBuf,
) -> Result<()> {
    // What does not shrink takes a few bytes more than it has.
    let limit = unit.len() + unit.len() / 64 + 1024;
    if !scratch.encode(compression, unit, limit, out)? {
        return Err(Error::new(
            ErrorKind::Internal,
            "A grain does not fit its buffer",
        ));
    }
    let len = out.len();
    let whole = (GRAIN_MARKER + len).next_multiple_of(SECTOR as usize);
    out.resize(whole)?;
    out.copy_within(..len, GRAIN_MARKER);
    let marker = grain_marker(guest / SECTOR, len as u32);
    for (to, from) in out.iter_mut().zip(marker) {
        *to = from;
    }
    if let Some(padding) = out.get_mut(GRAIN_MARKER + len..) {
        padding.fill(0);
    }
    Ok(())
}
