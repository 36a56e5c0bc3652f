//! Feature bits of the header (specification: "Header", bytes 72 to 95).

bitflags::bitflags! {
    /// A program that does not know one of these must not open the image.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Incompatible: u64 {
        /// Refcounts may be wrong: they must be rebuilt before the first write.
        const DIRTY = 1;
        /// Metadata is damaged: the image must not be written.
        const CORRUPT = 1 << 1;
        /// Guest data is in another file.
        const DATA_FILE = 1 << 2;
        /// The compression type is not zlib.
        const COMPRESSION = 1 << 3;
        /// L2 entries have 128 bits.
        const EXTENDED_L2 = 1 << 4;
        /// Every other bit is kept as it is.
        const _ = !0;
    }

    /// A program that does not know one of these may ignore it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Compatible: u64 {
        /// Refcounts may be written late, under the dirty bit.
        const LAZY_REFCOUNTS = 1;
        /// Every other bit is kept as it is.
        const _ = !0;
    }

    /// A program that does not know one of these clears it when it writes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Autoclear: u64 {
        /// The bitmaps extension is consistent.
        const BITMAPS = 1;
        /// The external data file is a raw image of the guest disk.
        const RAW_DATA_FILE = 1 << 1;
        /// Every other bit is kept as it is.
        const _ = !0;
    }
}

impl Incompatible {
    /// The bits known to this program.
    pub const KNOWN: Self = Self::DIRTY
        .union(Self::CORRUPT)
        .union(Self::DATA_FILE)
        .union(Self::COMPRESSION)
        .union(Self::EXTENDED_L2);
}

impl Autoclear {
    /// The bits that are known to this program and kept valid by it.
    pub const KNOWN: Self = Self::BITMAPS.union(Self::RAW_DATA_FILE);
}
