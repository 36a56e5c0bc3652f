//! Ranges and the units that lie in them.

use crate::error::Result;
use crate::storage::Storage;

/// Zero bytes are written in pieces of this size.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Writes zero bytes, for what is less than a unit that can be zeroed otherwise.
///
/// # Errors
/// As [`Storage::write_at`].
pub(super) fn write_zero_bytes(storage: &dyn Storage, offset: u64, len: u64) -> Result<()> {
    let (mut at, mut left) = (offset, len);
    while left > 0 {
        let piece = left.min(ZEROES.len() as u64);
        storage.write_at(&ZEROES[..piece as usize], at)?;
        at += piece;
        left -= piece;
    }
    Ok(())
}

/// The part of a range that units lie in whole: what stands before it, the part itself, and what stands behind it.
/// The end of the range is a number of bytes.
pub(super) fn whole_units(offset: u64, len: u64, unit: u64) -> (u64, u64, u64) {
    if unit <= 1 {
        return (0, len, 0);
    }
    let end = offset + len;
    let start = offset
        .checked_next_multiple_of(unit)
        .unwrap_or(end)
        .min(end);
    let stop = (end - end % unit).max(start);
    (start - offset, stop - start, end - stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_units() {
        assert_eq!(whole_units(10, 100, 1), (0, 100, 0));
        assert_eq!(whole_units(10, 100, 32), (22, 64, 14));
        assert_eq!(whole_units(10, 10, 32), (10, 0, 0));
        assert_eq!(whole_units(64, 64, 32), (0, 64, 0));
        assert_eq!(whole_units(u64::MAX - 5, 5, 512), (5, 0, 0));
    }
}
