//! An entry of the L1 table (specification: "Cluster mapping", "L1 table entry").

/// One entry: the offset of an L2 table and whether its refcount is exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// Set if the refcount of the L2 table is exactly one (active L1 table only).
    pub const COPIED: u64 = 1 << 63;
    /// The offset of the L2 table.
    pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
    /// Bits that must be 0.
    pub const RESERVED_MASK: u64 = 0x7f00_0000_0000_01ff;

    /// An entry for the table at `offset`, a multiple of 512 below 2^56.
    pub fn new(offset: u64, copied: bool) -> Self {
        Self((offset & Self::OFFSET_MASK) | if copied { Self::COPIED } else { 0 })
    }

    /// From the bytes of the table.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes for the table.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The offset of the L2 table; 0 if there is none.
    pub fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }

    /// Whether the entry claims that the L2 table's refcount is one.
    pub fn copied(self) -> bool {
        self.0 & Self::COPIED != 0
    }

    /// Whether any bit is set that must be 0.
    pub fn has_reserved_bits(self) -> bool {
        self.0 & Self::RESERVED_MASK != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cover_the_word() {
        assert_eq!(
            L1Entry::COPIED | L1Entry::OFFSET_MASK | L1Entry::RESERVED_MASK,
            u64::MAX
        );
        let entry = L1Entry::new(0x30000, true);
        assert_eq!(L1Entry::from_bytes(entry.to_bytes()), entry);
        assert_eq!(
            (entry.offset(), entry.copied(), entry.has_reserved_bits()),
            (0x30000, true, false)
        );
        assert!(L1Entry(1).has_reserved_bits());
    }
}
