//! Geometry as used by the metadata cache: slices of tables, and refcounts within cached words.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use super::cache::Words;
use super::disk::Geometry;

/// Maximum size of a slice, the part of a table that is cached as one piece.
const MAX_SLICE: u64 = 4096;

/// An image's [`Geometry`], cut into slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout(pub(super) Geometry);

impl Deref for Layout {
    type Target = Geometry;

    fn deref(&self) -> &Geometry {
        &self.0
    }
}

impl Layout {
    /// Words per L2 entry.
    pub(super) fn entry_words(self) -> usize {
        self.l2_entry_size() / 8
    }

    /// Bytes per cached slice of a table.
    pub(super) fn slice_bytes(self) -> u64 {
        self.cluster_size().min(MAX_SLICE)
    }

    /// L2 entries per slice.
    pub(super) fn slice_entries(self) -> u64 {
        self.slice_bytes() / self.l2_entry_size() as u64
    }

    /// Refcounts per slice of a refcount block.
    pub(super) fn slice_refcounts(self) -> u64 {
        (self.slice_bytes() * 8) >> self.refcount_width().order()
    }

    /// The largest refcount.
    pub(super) fn max_refcount(self) -> u64 {
        self.refcount_width().max()
    }

    /// The word and the shift within it of refcount `index` of a slice. Widths below a byte fill
    /// each byte from its least significant bit.
    fn refcount_place(self, index: u64) -> (usize, u32) {
        let width = self.refcount_width();
        let bit = index << width.order();
        let in_word = (bit % 64) as u32;
        let shift = if width.bits() >= 8 {
            64 - width.bits() - in_word
        } else {
            (7 - in_word / 8) * 8 + in_word % 8
        };
        ((bit / 64) as usize, shift)
    }

    /// Refcount `index` of a slice; 0 past the end.
    pub(super) fn refcount(self, words: &Words, index: u64) -> u64 {
        let (word, shift) = self.refcount_place(index);
        let word = words.get(word).map_or(0, |w| w.load(Ordering::Relaxed));
        (word >> shift) & self.max_refcount()
    }

    /// Replaces refcount `index` of a slice.
    pub(super) fn set_refcount(self, words: &Words, index: u64, value: u64) {
        let (word, shift) = self.refcount_place(index);
        if let Some(word) = words.get(word) {
            let cleared = word.load(Ordering::Relaxed) & !(self.max_refcount() << shift);
            word.store(cleared | (value << shift), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn layout(refcount_order: u32) -> Layout {
        Layout(Geometry::new(9, false, refcount_order).unwrap())
    }

    #[test]
    fn refcounts_in_words_agree_with_those_in_bytes() {
        for order in 0..=6 {
            let layout = layout(order);
            let width = layout.refcount_width();
            let words: Vec<_> = (0..64).map(|_| AtomicU64::new(0)).collect();
            let mut bytes = vec![0; 512];
            for index in 0..layout.slice_refcounts() {
                let value = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) & width.max();
                layout.set_refcount(&words, index, value);
                assert!(width.set(&mut bytes, index as usize, value));
                assert_eq!(layout.refcount(&words, index), value);
            }
            let stored: Vec<u8> = words
                .iter()
                .flat_map(|w| w.load(Ordering::Relaxed).to_be_bytes())
                .collect();
            assert_eq!(stored, bytes, "width {}", 1 << order);
        }
    }

    #[test]
    fn neighbours_keep_their_refcounts() {
        for order in 0..=6 {
            let layout = layout(order);
            let words: Vec<_> = (0..64).map(|_| AtomicU64::new(u64::MAX)).collect();
            layout.set_refcount(&words, 3, 0);
            assert_eq!(layout.refcount(&words, 2), layout.max_refcount());
            assert_eq!(layout.refcount(&words, 3), 0);
            assert_eq!(layout.refcount(&words, 4), layout.max_refcount());
        }
    }
}
