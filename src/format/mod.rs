//! The guest side: image formats over storages.

pub mod asif;
pub(crate) mod behind;
pub(crate) mod bit_table;
pub(crate) mod bits;
pub(crate) mod blocks;
pub mod bochs;
pub mod bulk;
pub mod capabilities;
pub mod cloop;
pub(crate) mod crypt;
pub(crate) mod decoded;
pub mod dmg;
pub mod driver;
pub(crate) mod encrcdsa;
pub mod ewf;
pub(crate) mod extents;
pub mod features;
pub mod files;
pub(crate) mod footer;
pub mod immediate;
pub mod in_order;
pub(crate) mod inflight;
pub mod inspect;
mod io_users;
pub(crate) mod kept;
pub(crate) mod limbo;
pub mod luks;
pub mod magic;
pub(crate) mod marks;
pub(crate) mod nonzero;
pub(crate) mod notes;
pub mod objection;
pub mod package;
pub mod parallels;
pub mod parent;
pub mod probe;
pub mod profile;
pub mod profiles;
pub(crate) mod property_list;
pub mod qcow;
pub mod qcow2;
pub mod qed;
pub mod raw;
pub(crate) mod read_ahead;
pub mod read_in_order;
pub(crate) mod read_only;
pub mod registry;
pub mod sparsebundle;
pub mod sparseimage;
pub(crate) mod table_cache;
pub mod traits;
pub(crate) mod units;
pub mod unstated;
pub(crate) mod uses;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;
pub mod vpc;
pub mod write;

pub use bulk::{Bulk, InitialContent, OpenNewContext, Reserved};
pub use capabilities::{
    Amend, AmendContext, BackingChange, BitmapInfo, Bitmaps, DirtyRanges, NewSnapshot,
};
pub use driver::{
    Contents, CreateParams, FormatDriver, MeasureFn, Measured, NewImage, OpenContext, Outline,
    PlanFn, PlannedFile, PrepareContext, Probe, RecogniseFn, Signature,
};
pub use features::Features;
pub use files::{ChildSpec, FileRole, FormatFile};
pub use immediate::{FlushPlan, Immediate};
pub use in_order::{InOrder, TakeBytes};
pub use inspect::{InspectContext, Inspection};
pub(crate) use io_users::IoUsers;
pub use io_users::{IoGuard, LongIoGuard};
pub use objection::Objection;
pub use package::{Package, PackageContext};
pub use parent::{
    BackingRef, ExpectedParent, Lineage, Mismatch, NameStyle, NewParent, ParentId, ParentName,
    ParentRef, ParentSearch, Sectors,
};
pub use profile::Profile;
pub use read_in_order::{NextBytes, ReadInOrder, ReadInOrderFn};
pub use traits::{
    Check, CheckReport, DecodeAhead, FilesBelow, Format, FormatInfo, Opener, RepairMode,
    RepairRefused, SnapshotInfo, Snapshots, SpaceCount,
};
pub use write::{AddedFiles, Below, FormatWrite, Resize, ResizeFiles, ZeroBelow};

pub use crate::storage::Compress;
