//! What a file holds behind the end of a disk: a size may be said too small, and then it is the user's.

use std::ops::Range;

use crate::error::Result;
use crate::memory;
use crate::storage::Storage;
use crate::zero::is_zero;

/// Bytes that are looked at together: whole sectors.
const PIECE: u64 = 64 << 10;

/// Whether a range of a file holds anything but zeroes and what `is_left_over` knows as something that nobody
/// needs; it is asked of pieces of at most 64 KiB. Asks `go_on` now and then.
///
/// # Errors
/// Of reading, or of `go_on`.
pub(crate) fn holds_data(
    storage: &dyn Storage,
    range: Range<u64>,
    is_left_over: impl Fn(&[u8]) -> bool,
    mut go_on: impl FnMut() -> Result<()>,
) -> Result<bool> {
    let mut bytes = memory::zeroed(PIECE as usize)?;
    let mut at = range.start;
    while at < range.end {
        go_on()?;
        let run = storage.extent(at, range.end - at)?;
        let len = match run.zero {
            true => run.len,
            false => run.len.min(PIECE),
        };
        let len = len.min(range.end - at);
        if !run.zero {
            let piece = bytes.get_mut(..len as usize).unwrap_or_default();
            storage.read_at(piece, at)?;
            if !is_zero(piece) && !is_left_over(piece) {
                return Ok(true);
            }
        }
        at += len;
    }
    Ok(false)
}
