//! Where a run of guest bytes lives. Reading, converting, comparing and mapping are loops over it.

/// Which of a format's storages holds the bytes of an extent.
#[derive(PartialOrd, Ord, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StorageSlot(pub u16);

impl StorageSlot {
    /// The image file itself.
    pub const MAIN: Self = Self(0);
}

/// A run of guest bytes of one kind in one layer.
///
/// A run whose host bytes are contiguous is one extent, across table and slice borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes; never 0.
    pub len: u64,
    /// What the run is.
    pub kind: ExtentKind,
}

/// The kind of an [`Extent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// The guest bytes are stored verbatim at `host_offset` of the storage in `slot`.
    Data {
        /// The storage that holds them.
        slot: StorageSlot,
        /// Offset of the first byte in that storage.
        host_offset: u64,
    },
    /// Reads as zeroes, whatever a backing file holds.
    Zero {
        /// The storage of the host bytes preallocated for it; [`StorageSlot::MAIN`] if there are none.
        slot: StorageSlot,
        /// Offset of these host bytes, if any.
        host_offset: Option<u64>,
    },
    /// Not in this layer: the backing file shows through; without one it reads as zeroes.
    Unallocated {
        /// The host bytes already reserved for it (a subcluster of an allocated cluster), if any.
        host_offset: Option<u64>,
    },
    /// Must be read through [`crate::format::Format::read_encoded`].
    Encoded {
        /// Compressed; otherwise encrypted or transformed in some other way.
        compressed: bool,
    },
}

impl ExtentKind {
    /// Zeroes without host bytes.
    pub const ZEROES: Self = Self::Zero {
        slot: StorageSlot::MAIN,
        host_offset: None,
    };

    /// The kind of the rest of the run after its first `skip` bytes.
    #[must_use]
    pub fn advanced(self, skip: u64) -> Self {
        match self {
            Self::Data { slot, host_offset } => Self::Data {
                slot,
                host_offset: host_offset + skip,
            },
            Self::Zero { slot, host_offset } => Self::Zero {
                slot,
                host_offset: host_offset.map(|o| o + skip),
            },
            Self::Unallocated { host_offset } => Self::Unallocated {
                host_offset: host_offset.map(|o| o + skip),
            },
            Self::Encoded { .. } => self,
        }
    }
}

/// A run of bytes of a storage: data, or a hole that reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageExtent {
    /// Length in bytes; never 0.
    pub len: u64,
    /// The run is known to read as zeroes (a hole, or past the end).
    pub zero: bool,
    /// The run occupies space in the storage.
    pub allocated: bool,
}
