//! The second word of an extended L2 entry (specification: "Extended L2 Entries").

use super::geometry::Geometry;

/// Two bits per subcluster: allocated (bits 0 to 31) and reads-as-zeroes (bits 32 to 63).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct SubclusterBitmap(pub u64);

impl SubclusterBitmap {
    /// All subclusters allocated.
    pub const ALL_ALLOCATED: Self = Self(0xffff_ffff);
    /// All subclusters read as zeroes.
    pub const ALL_ZERO: Self = Self(0xffff_ffff << 32);

    /// The bits of the first word for subclusters `first..first + count`; those past 31 are ignored.
    fn mask(first: u32, count: u32) -> u64 {
        let end = first.saturating_add(count).min(Geometry::SUBCLUSTERS);
        if first >= end {
            return 0;
        }
        ((1u64 << end) - 1) & !((1u64 << first) - 1)
    }

    /// From the bytes of the table.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes for the table.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Whether subcluster `index` is allocated.
    pub fn allocated(self, index: u32) -> bool {
        self.0 & Self::mask(index, 1) != 0
    }

    /// Whether subcluster `index` reads as zeroes.
    pub fn zero(self, index: u32) -> bool {
        (self.0 >> 32) & Self::mask(index, 1) != 0
    }

    /// Marks subclusters as allocated data.
    #[must_use]
    pub fn with_allocated(self, first: u32, count: u32) -> Self {
        let mask = Self::mask(first, count);
        Self((self.0 | mask) & !(mask << 32))
    }

    /// Marks subclusters as reading as zeroes.
    #[must_use]
    pub fn with_zero(self, first: u32, count: u32) -> Self {
        let mask = Self::mask(first, count);
        Self((self.0 | (mask << 32)) & !mask)
    }

    /// Marks subclusters as unallocated.
    #[must_use]
    pub fn with_unallocated(self, first: u32, count: u32) -> Self {
        let mask = Self::mask(first, count);
        Self(self.0 & !(mask | (mask << 32)))
    }

    /// Whether any subcluster is allocated.
    pub fn any_allocated(self) -> bool {
        self.0 & 0xffff_ffff != 0
    }

    /// Whether a subcluster has both bits set, which is a corruption.
    pub fn contradicts(self) -> bool {
        self.0 & (self.0 >> 32) & 0xffff_ffff != 0
    }

    /// How many subclusters from `index` on have the same two bits as that one; at least 1 for an index below 32.
    pub fn run(self, index: u32) -> u32 {
        let same =
            |i: u32| self.allocated(i) == self.allocated(index) && self.zero(i) == self.zero(index);
        (index..Geometry::SUBCLUSTERS)
            .take_while(|&i| same(i))
            .count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_replace_each_other() {
        let bits = SubclusterBitmap::default()
            .with_allocated(0, 32)
            .with_zero(4, 2)
            .with_unallocated(30, 2);
        assert!(bits.allocated(3) && !bits.zero(3));
        assert!(!bits.allocated(4) && bits.zero(5));
        assert!(!bits.allocated(31) && !bits.zero(31));
        assert_eq!((bits.run(0), bits.run(4), bits.run(6)), (4, 2, 24));
        assert!(!bits.contradicts());
        assert!(SubclusterBitmap(1 | 1 << 32).contradicts());
        assert_eq!(SubclusterBitmap::from_bytes(bits.to_bytes()), bits);
    }

    #[test]
    fn indexes_past_the_end_are_harmless() {
        let bits = SubclusterBitmap(u64::MAX);
        assert!(!bits.allocated(32) && !bits.zero(u32::MAX));
        assert_eq!(bits.with_zero(32, u32::MAX), bits);
        assert_eq!(bits.run(40), 0);
    }
}
