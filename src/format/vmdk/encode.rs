//! Compresses a grain, with the marker before it and the padding after it.

use crate::codec::{Compression, Encoder};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::IoBuf;
use crate::size::SECTOR;

use super::disk::marker::{GRAIN_MARKER, grain_marker};

/// Compresses the grain at guest offset `guest` of its extent; a shorter one at the end of the guest, as it is.
///
/// # Errors
/// If memory cannot be allocated.
pub(super) fn encode_grain(
    scratch: &mut Encoder,
    compression: Compression,
    guest: u64,
    unit: &[u8],
    out: &mut IoBuf,
) -> Result<()> {
    // Incompressible data becomes a few bytes longer.
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
