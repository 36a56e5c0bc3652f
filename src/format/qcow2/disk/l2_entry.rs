//! An entry of an L2 table (specification: "Cluster mapping", "L2 table entry",
//! "Standard Cluster Descriptor", "Compressed Clusters Descriptor").

use super::geometry::Geometry;

/// The first word of an entry. With extended L2 entries a [`super::SubclusterBitmap`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct L2Entry(pub u64);

/// What an entry says about its cluster. With extended L2 entries, `Zero…` does not occur: the subcluster bitmap
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Kind {
    /// Not allocated.
    Unallocated,
    /// Reads as zeroes, without a host cluster.
    Zero,
    /// Reads as zeroes; the host cluster at this offset is reserved for it.
    ZeroAllocated(u64),
    /// The host cluster at this offset (of the data file, if there is one).
    Data(u64),
    /// Compressed bytes.
    Compressed(CompressedRef),
}

/// Where the bytes of a compressed cluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedRef {
    /// Offset of the first byte; need not be aligned.
    pub offset: u64,
    /// Number of bytes up to the end of the last 512-byte sector; the stream may end earlier.
    pub len: u64,
}

impl CompressedRef {
    /// Indexes of the first and the last host cluster that the sectors touch.
    pub fn clusters(&self, geometry: &Geometry) -> (u64, u64) {
        let last = self.offset.saturating_add(self.len.max(1) - 1);
        (geometry.cluster_of(self.offset), geometry.cluster_of(last))
    }
}

impl L2Entry {
    /// Set if the refcount of the host cluster is exactly one; never for compressed clusters.
    pub const COPIED: u64 = 1 << 63;
    /// The cluster is compressed.
    pub const COMPRESSED: u64 = 1 << 62;
    /// The cluster reads as zeroes (version 3, not with extended L2 entries).
    pub const ZERO: u64 = 1;
    /// The host offset of a standard cluster.
    pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
    /// Bits of a standard cluster that must be 0 (bit 0 only with extended L2 entries).
    pub const RESERVED_MASK: u64 = 0x3f00_0000_0000_01fe;

    /// A standard cluster at `offset`, a multiple of 512 below 2^56.
    pub fn data(offset: u64, copied: bool) -> Self {
        Self((offset & Self::OFFSET_MASK) | if copied { Self::COPIED } else { 0 })
    }

    /// A cluster that reads as zeroes, with the host cluster reserved for it, if any.
    pub fn zero(kept: Option<u64>) -> Self {
        match kept {
            Some(offset) => Self(Self::data(offset, true).0 | Self::ZERO),
            None => Self(Self::ZERO),
        }
    }

    /// A compressed cluster of `len` bytes at `offset`; None if the entry cannot represent it.
    pub fn compressed(offset: u64, len: u64, geometry: &Geometry) -> Option<Self> {
        let shift = geometry.compressed_shift();
        if len == 0 || offset >= geometry.compressed_limit() {
            return None;
        }
        let last = offset.checked_add(len - 1)?;
        let extra = (last >> 9) - (offset >> 9);
        if extra >= 1 << (62 - shift) {
            return None;
        }
        Some(Self(Self::COMPRESSED | (extra << shift) | offset))
    }

    /// From the bytes of the table.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The bytes for the table.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The host offset as in a standard cluster descriptor; 0 if there is none.
    pub fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }

    /// Whether the entry claims that the host cluster's refcount is one.
    pub fn copied(self) -> bool {
        self.0 & Self::COPIED != 0
    }

    /// Whether the cluster is compressed.
    pub fn is_compressed(self) -> bool {
        self.0 & Self::COMPRESSED != 0
    }

    /// Whether any bit is set that must be 0.
    pub fn has_reserved_bits(self, geometry: &Geometry) -> bool {
        let mask = Self::RESERVED_MASK | u64::from(geometry.extended_l2());
        !self.is_compressed() && self.0 & mask != 0
    }

    /// Where the compressed bytes are, if this is a compressed entry.
    pub fn compressed_ref(self, geometry: &Geometry) -> CompressedRef {
        let shift = geometry.compressed_shift();
        // The field may be wider than a valid host offset: such offsets lie past the end of any file.
        let offset = self.0 & ((1 << shift) - 1);
        let sectors = ((self.0 >> shift) & ((1 << (62 - shift)) - 1)) + 1;
        CompressedRef {
            offset,
            len: sectors * 512 - (offset & 511),
        }
    }

    /// The kind of cluster that the entry describes. The alignment of an offset is not checked here.
    ///
    /// With an external data file, a standard entry with offset 0 may be allocated; pass `data_file` so that the COPIED
    /// bit decides, as the specification says.
    pub fn kind(self, geometry: &Geometry, data_file: bool) -> L2Kind {
        if self.is_compressed() {
            return L2Kind::Compressed(self.compressed_ref(geometry));
        }
        let offset = self.offset();
        let allocated = offset != 0 || (data_file && self.copied());
        if !geometry.extended_l2() && self.0 & Self::ZERO != 0 {
            return if allocated {
                L2Kind::ZeroAllocated(offset)
            } else {
                L2Kind::Zero
            };
        }
        if allocated {
            L2Kind::Data(offset)
        } else {
            L2Kind::Unallocated
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn geometry(bits: u32) -> Geometry {
        Geometry::new(bits, false, 4).unwrap()
    }

    #[test]
    fn standard_kinds() {
        let g = geometry(16);
        assert_eq!(L2Entry(0).kind(&g, false), L2Kind::Unallocated);
        assert_eq!(L2Entry(1).kind(&g, false), L2Kind::Zero);
        assert_eq!(
            L2Entry::data(0x50000, true).kind(&g, false),
            L2Kind::Data(0x50000)
        );
        assert_eq!(
            L2Entry::zero(Some(0x50000)).kind(&g, false),
            L2Kind::ZeroAllocated(0x50000)
        );
        assert_eq!(L2Entry::data(0, true).kind(&g, true), L2Kind::Data(0));
        assert_eq!(L2Entry::data(0, true).kind(&g, false), L2Kind::Unallocated);
    }

    #[test]
    fn bit_0_is_reserved_with_extended_entries() {
        let extended = Geometry::new(16, true, 4).unwrap();
        assert!(L2Entry(0x50001).has_reserved_bits(&extended));
        assert!(!L2Entry(0x50001).has_reserved_bits(&geometry(16)));
        assert_eq!(
            L2Entry(0x50001).kind(&extended, false),
            L2Kind::Data(0x50000)
        );
    }

    proptest! {
        #[test]
        fn compressed_round_trip(bits in 9u32..=21, offset in 0u64..1 << 49, part in 1u64..=1 << 21) {
            let g = geometry(bits);
            let len = part.min(g.cluster_size());
            let entry = L2Entry::compressed(offset, len, &g).unwrap();
            let back = entry.compressed_ref(&g);
            prop_assert_eq!(back.offset, offset);
            prop_assert!(back.len >= len && back.len < len + 512);
            prop_assert_eq!((back.offset + back.len) % 512, 0);
            prop_assert!(!entry.has_reserved_bits(&g));
        }

        #[test]
        fn any_word_decodes(word: u64, bits in 9u32..=21, data_file: bool) {
            let g = geometry(bits);
            let entry = L2Entry::from_bytes(word.to_be_bytes());
            prop_assert_eq!(entry.0, word);
            if let L2Kind::Compressed(bytes) = entry.kind(&g, data_file) {
                let (first, last) = bytes.clusters(&g);
                prop_assert!(first <= last && last - first <= 2);
            }
        }
    }
}
