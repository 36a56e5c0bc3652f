//! Refcounts (specification: "Host cluster management").

/// An entry of the refcount table: the offset of a refcount block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct RefcountTableEntry(pub u64);

impl RefcountTableEntry {
    /// The offset of the block.
    pub const OFFSET_MASK: u64 = 0xffff_ffff_ffff_fe00;
    /// Bits that must be 0.
    pub const RESERVED_MASK: u64 = 0x1ff;

    /// From the bytes of the table.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes for the table.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The offset of the block; 0 if there is none: its refcounts are all 0.
    pub fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }

    /// Whether any bit is set that must be 0.
    pub fn has_reserved_bits(self) -> bool {
        self.0 & Self::RESERVED_MASK != 0
    }
}

/// The width of refcounts: 1, 2, 4, 8, 16, 32 or 64 bits.
///
/// Refcounts narrower than a byte fill it from its lowest bits up; wider ones are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefcountWidth(u32);

impl RefcountWidth {
    /// From the header's refcount order; None above 6.
    pub fn from_order(order: u32) -> Option<Self> {
        (order <= 6).then_some(Self(order))
    }

    /// From a number of bits; None unless it is a power of two up to 64.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits.is_power_of_two() && bits <= 64).then(|| Self(bits.trailing_zeros()))
    }

    /// log2 of the number of bits.
    pub fn order(self) -> u32 {
        self.0
    }

    /// Number of bits per refcount.
    pub fn bits(self) -> u32 {
        1 << self.0
    }

    /// The largest refcount.
    pub fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The refcount `index` of a block; None past its end.
    pub fn get(self, block: &[u8], index: usize) -> Option<u64> {
        if self.0 < 3 {
            let per_byte = 8 >> self.0;
            let byte = *block.get(index / per_byte)?;
            let shift = (index % per_byte) << self.0;
            return Some((u64::from(byte) >> shift) & self.max());
        }
        let bytes = 1usize << (self.0 - 3);
        let at = index.checked_mul(bytes)?;
        let field = block.get(at..at.checked_add(bytes)?)?;
        Some(
            field
                .iter()
                .fold(0, |value, &byte| (value << 8) | u64::from(byte)),
        )
    }

    /// Sets refcount `index` of a block; false past its end or above [`RefcountWidth::max`], in which case nothing
    /// changes.
    #[must_use]
    pub fn set(self, block: &mut [u8], index: usize, value: u64) -> bool {
        if value > self.max() {
            return false;
        }
        if self.0 < 3 {
            let per_byte = 8 >> self.0;
            let Some(byte) = block.get_mut(index / per_byte) else {
                return false;
            };
            let shift = (index % per_byte) << self.0;
            *byte = (*byte & !((self.max() as u8) << shift)) | ((value as u8) << shift);
            return true;
        }
        let bytes = 1usize << (self.0 - 3);
        let Some(at) = index.checked_mul(bytes) else {
            return false;
        };
        let Some(field) = at.checked_add(bytes).and_then(|end| block.get_mut(at..end)) else {
            return false;
        };
        field.copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
        true
    }

    /// Sets the refcounts `first..first + count` of a block, cut off at its end, to `value`, which must not exceed
    /// [`RefcountWidth::max`].
    pub fn fill(self, block: &mut [u8], first: usize, count: usize, value: u64) {
        let mut index = first;
        let end = first.saturating_add(count);
        let per_byte = (8usize >> self.0.min(3)).max(1);
        if self.0 <= 3 {
            // Whole bytes at once; the ends one at a time.
            while index < end && !index.is_multiple_of(per_byte) {
                let _ = self.set(block, index, value);
                index += 1;
            }
            let whole = (end - index) / per_byte;
            let mut byte = [0u8; 1];
            for i in 0..per_byte {
                let _ = self.set(&mut byte, i, value);
            }
            let from = (index / per_byte).min(block.len());
            let to = from.saturating_add(whole).min(block.len());
            if let Some(run) = block.get_mut(from..to) {
                run.fill(byte[0]);
            }
            index += whole * per_byte;
        }
        while index < end {
            if !self.set(block, index, value) {
                return;
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bit_order_within_a_byte_is_from_the_lowest_up() {
        let one = RefcountWidth::from_bits(1).unwrap();
        let mut block = [0u8; 2];
        assert!(one.set(&mut block, 0, 1) && one.set(&mut block, 9, 1));
        assert_eq!(block, [1, 2]);
        let four = RefcountWidth::from_bits(4).unwrap();
        assert!(four.set(&mut block, 1, 0xa));
        assert_eq!(block, [0xa1, 2]);
        let sixteen = RefcountWidth::from_bits(16).unwrap();
        assert!(sixteen.set(&mut block, 0, 1));
        assert_eq!(block, [0, 1]);
        assert!(!sixteen.set(&mut block, 1, 1));
        assert!(!one.set(&mut block, 0, 2));
    }

    #[test]
    fn widths() {
        assert_eq!(RefcountWidth::from_bits(3), None);
        assert_eq!(RefcountWidth::from_bits(128), None);
        assert_eq!(RefcountWidth::from_bits(0), None);
        assert_eq!(RefcountWidth::from_order(7), None);
        assert_eq!(RefcountWidth::from_bits(64).unwrap().max(), u64::MAX);
        assert_eq!(RefcountWidth::from_bits(1).unwrap().max(), 1);
    }

    proptest! {
        #[test]
        fn set_then_get_and_neighbours_stay(
            order in 0u32..=6,
            mut block in proptest::collection::vec(any::<u8>(), 64),
            index in 0usize..8,
            value: u64,
        ) {
            let width = RefcountWidth::from_order(order).unwrap();
            let value = value & width.max();
            let before: Vec<_> = (0..8).map(|i| width.get(&block, i)).collect();
            prop_assert!(width.set(&mut block, index, value));
            for (i, old) in before.into_iter().enumerate() {
                let now = width.get(&block, i);
                prop_assert_eq!(now, if i == index { Some(value) } else { old });
            }
        }

        #[test]
        fn fill_is_set_in_a_loop(order in 0u32..=6, first in 0usize..70, count in 0usize..600, value: u64) {
            let width = RefcountWidth::from_order(order).unwrap();
            let value = value & width.max();
            let (mut a, mut b) = ([0xa5u8; 64], [0xa5u8; 64]);
            width.fill(&mut a, first, count, value);
            for i in first..first + count {
                let _ = width.set(&mut b, i, value);
            }
            prop_assert_eq!(a, b);
        }

        #[test]
        fn never_panics(order in 0u32..=6, mut block in proptest::collection::vec(any::<u8>(), 0..32), index: usize, value: u64) {
            let width = RefcountWidth::from_order(order).unwrap();
            let _ = width.get(&block, index);
            let _ = width.set(&mut block, index, value);
        }
    }
}
