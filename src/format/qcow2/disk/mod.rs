//! The structures of a qcow2 file, one module each: from plain bytes to typed values and back.
//!
//! The only I/O here is reading the header, the snapshot table and the bitmap directory; nothing that is read is
//! trusted.

mod bitmap;
mod compression;
mod extension;
mod features;
mod geometry;
mod header;
mod image_header;
mod l1_entry;
mod l2_entry;
mod placement;
mod refcount;
mod snapshot;
mod subcluster;

pub use bitmap::{
    BitmapEntry, BitmapFlags, BitmapTableEntry, DIRTY_BITMAP, MAX_BITMAP_NAME,
    MAX_BITMAP_TABLE_ENTRIES, read_bitmap_directory,
};
pub use compression::CompressionType;
pub(super) use extension::{BACKING_FORMAT, DATA_FILE, END};
pub use extension::{
    BitmapsExtension, CryptoExtension, Extension, FeatureKind, FeatureName, MAX_BITMAP_DIRECTORY,
    MAX_BITMAPS,
};
pub use features::{Autoclear, Compatible, Incompatible};
pub use geometry::{Geometry, MAX_L1_BYTES, MAX_REFTABLE_BYTES};
pub use header::{CryptMethod, Header, MAGIC, MAX_SNAPSHOTS, V2_LEN, V3_LEN, V3_MIN_LEN};
pub use image_header::ImageHeader;
pub use l1_entry::L1Entry;
pub use l2_entry::{CompressedRef, L2Entry, L2Kind};
pub use placement::Placement;
pub use refcount::{RefcountTableEntry, RefcountWidth};
pub use snapshot::{
    MAX_SNAPSHOT_TABLE, SalvagedSnapshots, SnapshotEntry, SnapshotExtra, overhanging_snapshots,
    read_damaged_snapshot_table, read_snapshot_table, salvage_snapshot_table,
};
pub use subcluster::SubclusterBitmap;
