//! Prefetching of tables: those needed soon are read together where each request waits for a server or a device.

use crate::error::Result;
use crate::format::read_ahead::MOST_BYTES;
use crate::memory;
use crate::storage::ReadRange;

use super::cache::Class;
use super::disk::RefcountTableEntry;
use super::state::{Qcow2, trace_load};

/// Maximum number of slices to consider for one prefetch.
const LOOKS: usize = 1024;

impl Qcow2 {
    /// See [`crate::format::Format::map_ahead`].
    pub(super) fn look_ahead(&self, offset: u64, end: u64) {
        if !self.read_ahead.is_on() {
            return;
        }
        let span = self.layout.slice_entries() * self.layout.cluster_size();
        let first = offset - offset % span;
        if end.saturating_sub(first) > span {
            self.bring(Class::L2, self.slices_of(first, end, span));
        }
    }

    /// The slices that map a guest range, up to an invalid table; `first` is where the range of a slice begins.
    fn slices_of(&self, first: u64, end: u64, span: u64) -> impl Iterator<Item = u64> {
        let mut next = first;
        std::iter::from_fn(move || {
            while next < end {
                let at = next;
                let table = self.l1.read().get(self.layout.l1_index(at)).offset();
                if table == 0 {
                    next = self.next_table(at, end);
                    continue;
                }
                next = next.saturating_add(span);
                let is_aligned = self.layout.in_cluster(table) == 0;
                return is_aligned.then(|| self.l2_place(table, at).0);
            }
            None
        })
    }

    /// As [`Self::look_ahead`], for refcount blocks: those in a part of the refcount table.
    pub(super) fn count_ahead(&self, entries: &[u64]) {
        if !self.read_ahead.is_on() {
            return;
        }
        let blocks = entries
            .iter()
            .take(LOOKS)
            .map(|entry| RefcountTableEntry(*entry).offset());
        let blocks = blocks.filter(|block| *block != 0 && self.layout.in_cluster(*block) == 0);
        let step = self.layout.slice_bytes() as usize;
        let slices = blocks.flat_map(|block| {
            let parts = (0..self.layout.cluster_size()).step_by(step);
            parts.map(move |at| block.saturating_add(at))
        });
        self.bring(Class::Refcount, slices);
    }

    fn bring(&self, class: Class, slices: impl Iterator<Item = u64>) {
        let mut slices = slices.take(LOOKS);
        // A sequential run continues in the next slice.
        let first: [Option<u64>; 2] = std::array::from_fn(|_| slices.next());
        let most = (MOST_BYTES / self.layout.slice_bytes()) as usize;
        let most = most.min(self.cache.most_ahead());
        let is_missing = |slice: &u64| !self.cache.is_loaded(*slice);
        let is_needed = || first.iter().flatten().any(is_missing);
        self.read_ahead.run(most, is_needed, |count| {
            let slices = first.into_iter().flatten().chain(slices);
            self.try_bring(class, slices, count)
        });
    }

    fn try_bring(
        &self,
        class: Class,
        slices: impl Iterator<Item = u64>,
        count: usize,
    ) -> Result<()> {
        let file_len = self.storage.len()?;
        let step = self.layout.slice_bytes();
        let mut wanted = Vec::new();
        let is_inside = |offset: u64| offset.checked_add(step).is_some_and(|end| end <= file_len);
        let missing = slices.filter(|offset| is_inside(*offset) && !self.cache.is_loaded(*offset));
        for offset in missing.take(count) {
            memory::push(&mut wanted, offset)?;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let load = |ranges: &mut [ReadRange<'_>]| {
            self.storage.read_many_at(ranges)?;
            for (offset, bytes) in ranges {
                trace_load(class, bytes, *offset);
            }
            Ok(())
        };
        self.cache.load_many(class, &wanted, load)
    }
}
