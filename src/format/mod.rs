//! The guest side: image formats over storages.

pub mod capabilities;
pub mod driver;
pub mod files;
pub mod inspect;
mod io_guard;
pub mod luks;
pub mod magic;
pub mod names;
pub mod probe;
pub mod qcow2;
pub mod raw;
pub mod registry;
pub mod traits;

pub use capabilities::{
    Amend, AmendContext, BitmapInfo, Bitmaps, DirtyRanges, NewSnapshot, Overlay, Snapshots,
};
pub use driver::{
    Contents, CreateParams, Features, FormatDriver, MeasureFn, Measured, NewImage, OpenContext,
    PlanFn, PlannedFile, Probe,
};
pub use files::{FileRole, FormatFile};
pub use inspect::{InspectContext, Inspection};
pub use io_guard::{IoGuard, LongIoGuard};
pub use traits::{
    BackingRef, Below, Blank, Bulk, Check, CheckReport, Compress, FlushBy, Format, FormatInfo,
    Opener, RepairMode, SnapshotInfo, ZeroBelow,
};
