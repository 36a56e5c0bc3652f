//! What a file contains past the end of a disk: if the given size is too small, that may be the user's data.

use std::ops::Range;

use crate::error::Result;
use crate::memory;
use crate::storage::Storage;
use crate::zero::is_zero;

/// Bytes that are examined at a time: whole sectors.
const PIECE: u64 = 64 << 10;

/// Whether a range of a file contains anything other than zeroes and what `is_left_over` recognises as disposable; it
/// is called for pieces of at most 64 KiB. Calls `go_on` regularly.
///
/// # Errors
/// If reading or `go_on` fails.
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
