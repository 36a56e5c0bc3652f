//! Writes since a bitmap was stored: bits in memory, set without a lock.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::memory;

/// Words per page.
const PAGE_WORDS: usize = 512;
/// Bits per page.
const PAGE_BITS: u64 = PAGE_WORDS as u64 * 64;

type Page = [AtomicU64; PAGE_WORDS];

/// Bits for a guest disk. Memory grows with what is set and not with the disk: pages are allocated when they are
/// touched, and one that is set completely takes a single bit.
#[derive(Debug)]
pub(super) struct Record {
    granularity_bits: u32,
    bits: u64,
    pages: Box<[OnceLock<Box<Page>>]>,
    /// One bit per page whose bits are all set.
    full: Box<[AtomicU64]>,
}

impl Record {
    /// An empty record for a disk of `size` bytes.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn new(size: u64, granularity_bits: u32) -> Result<Self> {
        let bits = size.div_ceil(1 << granularity_bits);
        let pages = bits.div_ceil(PAGE_BITS);
        let (mut empty, mut full) = (Vec::new(), Vec::new());
        memory::reserve(&mut empty, usize::try_from(pages).unwrap_or(usize::MAX))?;
        empty.extend((0..pages).map(|_| OnceLock::new()));
        memory::reserve(&mut full, empty.len().div_ceil(64))?;
        full.extend((0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)));
        Ok(Self {
            granularity_bits,
            bits,
            pages: empty.into_boxed_slice(),
            full: full.into_boxed_slice(),
        })
    }

    /// Sets all bits that a range of guest bytes touches.
    pub(super) fn set(&self, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let mut bit = bytes.start >> self.granularity_bits;
        let end = (((bytes.end - 1) >> self.granularity_bits) + 1).min(self.bits);
        while bit < end {
            let page = bit / PAGE_BITS;
            let page_end = ((page + 1) * PAGE_BITS).min(self.bits);
            let stop = end.min(page_end);
            if self.is_full(page) {
                bit = stop;
            } else if bit.is_multiple_of(PAGE_BITS) && stop == page_end {
                if let Some(word) = self.full.get((page / 64) as usize) {
                    word.fetch_or(1 << (page % 64), Ordering::Release);
                }
                bit = stop;
            } else {
                self.set_in_page(page, bit, stop);
                bit = stop;
            }
        }
    }

    fn set_in_page(&self, page: u64, mut bit: u64, end: u64) {
        let Some(slot) = self.pages.get(page as usize) else {
            return;
        };
        let words = slot.get_or_init(|| Box::new([const { AtomicU64::new(0) }; PAGE_WORDS]));
        while bit < end {
            let stop = end.min((bit / 64 + 1) * 64);
            let mask = u64::MAX << (bit % 64) & u64::MAX >> ((64 - stop % 64) % 64);
            if let Some(word) = words.get((bit % PAGE_BITS / 64) as usize)
                && word.load(Ordering::Relaxed) & mask != mask
            {
                word.fetch_or(mask, Ordering::Release);
            }
            bit = stop;
        }
    }

    fn is_full(&self, page: u64) -> bool {
        self.full
            .get((page / 64) as usize)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (page % 64) & 1 != 0)
    }

    /// The value of all bits of a page, if they are known to be equal without reading them.
    fn uniform(&self, page: u64) -> Option<bool> {
        if self.is_full(page) {
            return Some(true);
        }
        let there = self.pages.get(page as usize).and_then(OnceLock::get);
        there.is_none().then_some(false)
    }

    fn word(&self, bit: u64) -> u64 {
        let page = self.pages.get((bit / PAGE_BITS) as usize);
        page.and_then(OnceLock::get)
            .and_then(|words| words.get((bit % PAGE_BITS / 64) as usize))
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// The first bit from `bit` on, below `end`, that equals `set`; `end` if there is none.
    fn find(&self, mut bit: u64, end: u64, set: bool) -> u64 {
        while bit < end {
            let page = bit / PAGE_BITS;
            match self.uniform(page) {
                Some(value) if value == set => return bit,
                Some(_) => bit = (page + 1) * PAGE_BITS,
                None => {
                    let word = self.word(bit);
                    let wanted = if set { word } else { !word } >> (bit % 64);
                    if wanted != 0 {
                        return (bit + u64::from(wanted.trailing_zeros())).min(end);
                    }
                    bit = (bit / 64 + 1) * 64;
                }
            }
        }
        end
    }

    /// Calls `visit` with the runs of guest bytes whose bits are set, as far as they lie in `bytes`.
    pub(super) fn visit(&self, bytes: Range<u64>, mut visit: impl FnMut(Range<u64>)) {
        let mut bit = bytes.start >> self.granularity_bits;
        let end = bytes
            .end
            .div_ceil(1 << self.granularity_bits)
            .min(self.bits);
        loop {
            let start = self.find(bit, end, true);
            if start >= end {
                return;
            }
            bit = self.find(start, end, false);
            let run = start << self.granularity_bits..bit << self.granularity_bits;
            visit(run.start.max(bytes.start)..run.end.min(bytes.end));
        }
    }

    /// Whether no bit of a range of guest bytes is set.
    pub(super) fn is_clear(&self, bytes: Range<u64>) -> bool {
        let end = bytes
            .end
            .div_ceil(1 << self.granularity_bits)
            .min(self.bits);
        self.find(bytes.start >> self.granularity_bits, end, true) >= end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_pages_take_no_memory() {
        let record = Record::new(1 << 40, 9).unwrap();
        record.set(0..1 << 40);
        assert!(record.pages.iter().all(|page| page.get().is_none()));
        let mut runs = Vec::new();
        record.visit(5..1 << 40, |run| runs.push((run.start, run.end)));
        assert_eq!(runs, [(5, 1 << 40)]);
        record.set(10..20);
        assert!(record.pages.iter().all(|page| page.get().is_none()));
    }

    #[test]
    fn past_the_end_nothing_is_set() {
        let record = Record::new(1000, 9).unwrap();
        record.set(900..u64::MAX);
        let mut runs = Vec::new();
        record.visit(0..1000, |run| runs.push((run.start, run.end)));
        assert_eq!(runs, [(512, 1000)]);
    }

    proptest! {
        #[test]
        fn like_a_list_of_truths(
            ranges in proptest::collection::vec((0u64..80_000, 0u64..80_000), 0..6),
            from in 0u64..80_000,
        ) {
            // Bits of 512 bytes; offsets in units of 256 bytes, so that some bits are only partly covered.
            let size = 80_000 * 256;
            let record = Record::new(size, 9).unwrap();
            let mut model = vec![false; 40_000];
            for (a, b) in ranges {
                let (start, end) = (a.min(b), a.max(b));
                record.set(start * 256..end * 256);
                if start < end {
                    model[start as usize / 2..=(end as usize - 1) / 2].fill(true);
                }
            }
            let mut seen = vec![false; 40_000];
            record.visit(0..size, |run| {
                seen[run.start as usize / 512..run.end as usize / 512].fill(true);
            });
            prop_assert!(seen == model);
            let clear = model.iter().skip(from as usize / 2).all(|bit| !bit);
            prop_assert_eq!(record.is_clear(from * 256..size), clear);
        }
    }
}
