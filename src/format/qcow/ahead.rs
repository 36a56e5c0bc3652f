//! Lower tables that will be needed soon, read in batches where each request waits for a server or a device.

use std::ops::Range;

use crate::error::Result;
use crate::format::read_ahead::MOST_BYTES;
use crate::memory;

use super::Qcow;

/// Maximum number of entries of the upper table to examine for one batch.
const LOOKS: usize = 1 << 12;

impl Qcow {
    /// See [`crate::format::Format::map_ahead`].
    pub(super) fn look_ahead(&self, offset: u64, end: u64) {
        let index_of = |offset| self.geometry.indices(offset).0;
        let (first, last) = (index_of(offset), index_of(end.saturating_sub(1)));
        self.tables_ahead(first..last.saturating_add(1), |_| false);
    }

    /// Reads the first of those tables into memory, except where `is_skipped`, unless the first two are there.
    pub(super) fn tables_ahead(&self, indices: Range<u32>, is_skipped: impl Fn(u32) -> bool) {
        if !self.read_ahead.is_on() || indices.len() < 2 {
            return;
        }
        let first = indices.start;
        let len = self.geometry.table_len();
        let most = (MOST_BYTES / len.max(1)) as usize;
        let most = most.min(self.cache.most_ahead(self.geometry.per_table()));
        let is_missing = |index| self.table_host(index) != 0 && !self.cache.has((0, index));
        // A run continues into the next table.
        let is_needed = || is_missing(first) || is_missing(first.saturating_add(1));
        self.read_ahead.run(most, is_needed, |count| {
            let file_len = self.file_len_at_least(u64::MAX);
            let mut places = Vec::new();
            let wanted = indices
                .take(LOOKS)
                .filter(|index| is_missing(*index) && !is_skipped(*index))
                .map(|index| ((0, index), self.table_host(index)))
                .filter(|(_, host)| self.is_table_place_within(*host, file_len));
            for place in wanted.take(count) {
                memory::push(&mut places, place)?;
            }
            self.load(&places, len)
        });
    }

    fn load(&self, places: &[((u32, u32), u64)], len: u64) -> Result<()> {
        self.cache.load(&*self.storage, places, len, Self::table_of)
    }
}
