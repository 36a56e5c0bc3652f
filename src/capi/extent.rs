//! Runs of guest bytes, and how ranges are zeroed: shared by images and by storages that programs supply.

use crate::capi::boundary::OutValue;

/// Flag of `platter_image_write_zeroes()`: the space of the range may be returned to the host.
pub const PLATTER_ZERO_MAY_UNMAP: u32 = 2;
/// Flag of `platter_image_write_zeroes()`: fail with UNSUPPORTED rather than write zero bytes.
pub const PLATTER_ZERO_NO_FALLBACK: u32 = 4;

/// Flag of an extent: it has data in a host file.
pub const PLATTER_EXTENT_DATA: u32 = 1;
/// Flag of an extent: it reads as zeroes.
pub const PLATTER_EXTENT_ZERO: u32 = 2;
/// Flag of an extent: a layer of the chain holds it.
pub const PLATTER_EXTENT_PRESENT: u32 = 4;
/// Flag of an extent: its data is compressed.
pub const PLATTER_EXTENT_COMPRESSED: u32 = 8;
/// Flag of an extent: `host_offset` is known.
pub const PLATTER_EXTENT_HOST_OFFSET: u32 = 16;
/// Flag of a run in a report of dirty bytes: a bitmap marks it as dirty.
pub const PLATTER_EXTENT_DIRTY: u32 = 32;
/// Flag of an extent: its contents are unknown, and reading it is refused, because the backing file that may hold them
/// is not open (`PLATTER_OPEN_NO_BACKING`, `PLATTER_OPEN_METADATA_ONLY`). Such an extent has none of the flags `DATA`,
/// `ZERO` and `PRESENT`: do not skip it as if it were zero.
pub const PLATTER_EXTENT_UNKNOWN: u32 = 64;

/// A run of guest bytes. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_extent {
    /// Guest offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Offset of its first byte in the file of its layer, if `PLATTER_EXTENT_HOST_OFFSET` is set.
    pub host_offset: u64,
    /// The layer that determines the contents: 0 is the image itself, 1 its backing file, and so on.
    pub depth: u32,
    /// Bits of `PLATTER_EXTENT_*`.
    pub flags: u32,
    /// 0.
    pub reserved: [u64; 4],
}

impl OutValue for platter_extent {
    fn empty() -> Self {
        Self::default()
    }
}
