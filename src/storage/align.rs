//! Requests in whole blocks, for servers that take no others.

use crate::error::Result;

/// A range, cut at the borders of blocks: the part of a block that it begins with, whole blocks, and the part
/// of a block that it ends with. Each may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) head: (u64, u64),
    pub(super) middle: (u64, u64),
    pub(super) tail: (u64, u64),
}

impl Parts {
    /// Of `offset..end`, in blocks of `block` bytes; a block that ends early, with the export at `size`, is a whole one.
    pub(super) fn of(offset: u64, end: u64, block: u64, size: u64) -> Self {
        let up = |at: u64| at.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        let start = up(offset).min(end);
        let stop = match end == size {
            true => end,
            false => (end - end % block).max(start),
        };
        Self {
            head: (offset, start),
            middle: (start, stop),
            tail: (stop, end),
        }
    }

    /// The parts that are not whole.
    pub(super) fn edges(&self) -> impl Iterator<Item = (u64, u64)> {
        [self.head, self.tail]
            .into_iter()
            .filter(|(start, end)| start < end)
    }
}

/// The blocks that `offset..end` touches.
pub(super) fn around(offset: u64, end: u64, block: u64, size: u64) -> (u64, u64) {
    let stop = end.checked_next_multiple_of(block).unwrap_or(u64::MAX);
    (offset - offset % block, stop.min(size).max(end))
}

/// Calls `each` with pieces of at most `most` bytes.
///
/// # Errors
/// Of `each`.
pub(super) fn in_pieces(
    (start, end): (u64, u64),
    most: u64,
    mut each: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut at = start;
    while at < end {
        let len = (end - at).min(most);
        each(at, len)?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_blocks_and_nothing_is_left_out() {
        let size = 10_000;
        for offset in (0..size).step_by(331) {
            for end in (offset + 1..=size).step_by(197).chain([size]) {
                let parts = Parts::of(offset, end, 4096, size);
                assert_eq!((parts.head.0, parts.tail.1), (offset, end));
                assert_eq!(parts.head.1, parts.middle.0);
                assert_eq!(parts.middle.1, parts.tail.0);
                let (start, stop) = parts.middle;
                if start < stop {
                    assert!(start % 4096 == 0 && (stop % 4096 == 0 || stop == size));
                }
                for (start, stop) in parts.edges() {
                    let (from, to) = around(start, stop, 4096, size);
                    assert!(from <= start && stop <= to && to - from <= 4096);
                    assert!(from % 4096 == 0 && (to % 4096 == 0 || to == size));
                }
            }
        }
    }
}
