//! The free space of a file, between blocks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::disk::MIB;

/// The space of an image that is open for writing.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Lengths of free ranges by their start; no two are adjacent.
    pub(super) free: BTreeMap<u64, u64>,
    /// Where the file grows.
    pub(super) end: u64,
}

/// Memory that a free range takes, in bytes.
pub(super) const FREE_RUN: u64 = 48;

impl Space {
    /// From the unused ranges, the length of the file, and the end of the last block, within which the file may end.
    pub(super) fn new(free: &[Range<u64>], file_len: u64, last: u64) -> Self {
        let end = file_len.max(last).next_multiple_of(MIB);
        // Nothing is allocated in a MiB that the file has only in part.
        let whole = file_len - file_len % MIB;
        let free = free
            .iter()
            .map(|run| (run.start, run.end.min(whole).saturating_sub(run.start)));
        Self {
            free: free.filter(|(_, len)| *len > 0).collect(),
            end,
        }
    }

    /// Allocates a range of this length.
    pub(super) fn take(&mut self, len: u64) -> Option<u64> {
        let (at, room) = self.free.iter().find(|(_, room)| **room >= len)?;
        let (at, room) = (*at, *room);
        self.free.remove(&at);
        if room > len {
            self.free.insert(at + len, room - len);
        }
        Some(at)
    }

    /// Frees a range.
    pub(super) fn give(&mut self, at: u64, len: u64) {
        let (mut at, mut len) = (at, len);
        if let Some(room) = self.free.remove(&(at + len)) {
            len += room;
        }
        if let Some((before, room)) = self.free.range(..at).next_back()
            && before + room == at
        {
            at = *before;
            len += room;
        }
        self.free.insert(at, len);
    }

    /// Start of the free range at the end of the file.
    pub(super) fn tail(&self) -> Option<u64> {
        let (at, len) = self.free.last_key_value()?;
        (at + len == self.end).then_some(*at)
    }

    /// Drops the free range at the end of the file, and returns the new end.
    pub(super) fn cut(&mut self) -> Option<u64> {
        let at = self.tail()?;
        self.free.remove(&at);
        self.end = at;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mib(range: Range<u64>) -> Range<u64> {
        range.start * MIB..range.end * MIB
    }

    fn space() -> Space {
        Space::new(&[mib(3..5), mib(6..10), mib(12..14)], 14 * MIB + 5, 0)
    }

    #[test]
    fn gaps_are_taken_first_and_grow_together_again() {
        let mut space = space();
        assert_eq!(space.end, 15 * MIB);
        assert_eq!(space.take(4 * MIB), Some(6 * MIB));
        assert_eq!(space.take(MIB), Some(3 * MIB));
        assert_eq!(space.take(2 * MIB), Some(12 * MIB));
        assert_eq!(space.take(2 * MIB), None);
        space.give(12 * MIB, 2 * MIB);
        space.give(8 * MIB, 2 * MIB);
        space.give(6 * MIB, 2 * MIB);
        space.give(10 * MIB, 2 * MIB);
        assert_eq!(space.take(8 * MIB), Some(6 * MIB));
    }

    #[test]
    fn what_is_free_at_the_end_can_be_cut_off() {
        let mut space = space();
        assert_eq!(space.cut(), None);
        let mut space = Space::new(&[mib(3..5)], 5 * MIB, 0);
        assert_eq!(space.cut(), Some(3 * MIB));
        assert_eq!(space.cut(), None);
        assert_eq!(space.end, 3 * MIB);
    }
}
