//! The interface of every image format. It is below the drivers; the registry is above them.

use std::fmt::Debug;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::Result;
use crate::extent::{Extent, StorageSlot};
use crate::format::capabilities::{Amend, BackingChange, Bitmaps, NewSnapshot};
use crate::format::features::Features;
use crate::format::files::{FileRole, FormatFile};
use crate::format::immediate::Immediate;
use crate::format::io_users::IoGuard;
use crate::format::parent::{Lineage, ParentId, ParentRef, ParentSearch, Sectors};
use crate::format::write::{FormatWrite, Resize};
use crate::job::{Job, JobControl};
use crate::policy::{ImplicitRole, OpenPolicy};
use crate::storage::{Storage, StorageSnapshot};
use crate::value::Value;

/// An image format over its storages: maps guest ranges to host ranges and maintains the metadata.
///
/// All methods may be called from many threads at once. No lock is held across data I/O.
#[allow(
    clippy::len_without_is_empty,
    reason = "it is the same for every format, so it stands beside the trait"
)]
pub trait Format: Send + Sync + Debug {
    /// The driver's name: `raw`, `qcow2`…
    fn driver(&self) -> &'static str;

    /// The virtual size in bytes.
    fn len(&self) -> u64;

    /// The allocation unit in bytes, if the format has one.
    fn cluster_size(&self) -> Option<u32>;

    /// The smallest range that a layer can contain by itself, in bytes: a subcluster if there are any, otherwise a
    /// cluster.
    fn layer_unit(&self) -> Option<u32> {
        self.cluster_size()
    }

    /// Guest I/O should be aligned to this many bytes (1 = any; 512 for an encrypted format).
    fn request_alignment(&self) -> u32;

    /// The longest run of one kind that starts at `offset`, limited to `len` bytes.
    ///
    /// `len` is not 0 and the range lies within the virtual size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] with the offset of the bad table entry, or if I/O fails.
    fn map(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Announces lookups of guest bytes from `offset` to `end`. A format that reads its tables one by one, on a storage
    /// where each request waits for a server or a device, reads the first ones together, unless the very first is in
    /// memory. Errors are left to the lookup that needs the table.
    fn map_ahead(&self, _offset: u64, _end: u64) {}

    /// As [`Format::map`], for an immediate read: a format that stores the bytes verbatim need not ask the host for
    /// holes, which costs time and may be out of date by the time of the read.
    ///
    /// # Errors
    /// As [`Format::map`].
    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.map(offset, len)
    }

    /// Every guest byte has a fixed place in the file from the start, so that holes of the file are bytes that were
    /// never written; [`Format::map`] returns their places, and block status reports them as allocated zeroes.
    fn has_fixed_places(&self) -> bool {
        false
    }

    /// How many guest bytes QEMU's tools cover with one table lookup, counted from a multiple of it; None if they
    /// follow a run to its end. It is visible in strict comparisons.
    fn status_span(&self) -> Option<u64> {
        None
    }

    /// The storage of a slot that is named by an extent.
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>>;

    /// Visits every open file of the image, its own first.
    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>));

    /// The names of the image's additional files that are not open because only metadata was requested.
    fn closed_files(&self) -> Vec<(FileRole, BString)>;

    /// Reads guest bytes of a run that [`Format::map`] reported as encoded.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the bytes do not decode, [`crate::ErrorKind::Busy`] if the run was remapped in
    /// the meantime and has to be mapped again.
    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Protects host clusters named by a mapping from being reused while I/O on them is in flight. Call it before
    /// [`Format::map`], and hold the guard until the I/O has completed.
    fn begin_io(&self) -> IoGuard<'_>;

    /// What `info` reports about the format.
    ///
    /// # Errors
    /// If I/O fails.
    fn info(&self) -> Result<FormatInfo>;

    /// Ends the use of the image: flushes, clears the dirty bit. Called once, before drop.
    ///
    /// # Errors
    /// If I/O fails; data may be lost then.
    fn close(&self) -> Result<()>;

    /// The image below, and what images above record of this one, if the format has either.
    fn lineage(&self) -> Option<&dyn Lineage> {
        None
    }

    /// Changing the guest contents; None if the format does not support it, or if this is a view of immutable contents.
    fn writer(&self) -> Option<&dyn FormatWrite> {
        None
    }

    /// Requests that do not block, if the format has them.
    fn immediate(&self) -> Option<&dyn Immediate> {
        None
    }

    /// Decoding ahead of reads, if the format caches decoded units.
    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        None
    }

    /// Counting the host space in use, if the format keeps track of it.
    fn space_count(&self) -> Option<&dyn SpaceCount> {
        None
    }

    /// The consistency check, if the format has one.
    fn checker(&self) -> Option<&dyn Check> {
        None
    }

    /// Internal snapshots, if the format has them.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Persistent dirty bitmaps, if the format has them.
    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        None
    }

    /// Changing options, if the format supports it.
    fn amender(&self) -> Option<&dyn Amend> {
        None
    }

    /// Changing the backing file, if the format supports it.
    fn backing_change(&self) -> Option<&dyn BackingChange> {
        None
    }
}

impl dyn Format + '_ {
    /// Whether the virtual size is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// See [`Lineage::parent`].
    pub fn parent(&self) -> Option<ParentRef> {
        self.lineage()?.parent()
    }

    /// See [`Lineage::parent_search`].
    pub fn parent_search(&self) -> Option<&'static ParentSearch> {
        self.lineage()?.parent_search()
    }

    /// See [`Lineage::id`].
    pub fn parent_id(&self) -> Option<ParentId> {
        self.lineage()?.id()
    }

    /// See [`Lineage::disk_id`].
    pub fn disk_id(&self) -> Option<uuid::Uuid> {
        self.lineage()?.disk_id()
    }

    /// See [`Lineage::sectors`].
    pub fn sectors(&self) -> Option<Sectors> {
        self.lineage()?.sectors()
    }

    /// What this image can do: the features that it has accessors for, whether or not it was opened for writing.
    pub fn features(&self) -> Features {
        let writer = self.writer();
        let mut features = Features::empty();
        features.set(Features::WRITE, writer.is_some());
        features.set(Features::RESIZE, self.resizer().is_some());
        features.set(
            Features::COMPRESS,
            writer.and_then(FormatWrite::compressor).is_some(),
        );
        features.set(Features::BACKING, self.backing_change().is_some());
        features.set(Features::SNAPSHOTS, self.snapshots().is_some());
        features.set(Features::BITMAPS, self.bitmaps().is_some());
        features.set(Features::AMEND, self.amender().is_some());
        let checker = self.checker();
        features.set(Features::CHECK, checker.is_some());
        let repairs = |checker: &dyn Check| checker.repairs() != RepairMode::Report;
        features.set(Features::REPAIR, checker.is_some_and(repairs));
        features
    }

    /// Changing the virtual size, if the format supports it.
    pub fn resizer(&self) -> Option<&dyn Resize> {
        self.writer()?.resizer()
    }
}

/// Decoding data that will be read soon, in formats that cache decoded units.
pub trait DecodeAhead: Send + Sync {
    /// Decodes and caches the unit that contains the guest byte at `offset`, if it is encoded and no longer than `most`
    /// bytes. Returns the guest offset of the next unit.
    ///
    /// # Errors
    /// As [`Format::read_encoded`].
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64>;

    /// Allows this many bytes of decoded units to be cached beyond the usual limit, until the next call.
    fn keep_more(&self, bytes: usize);
}

/// What `info` reports about a format, beyond what every image has.
#[derive(Clone, Debug, Default)]
pub struct FormatInfo {
    /// `cluster-size`.
    pub cluster_size: Option<u64>,
    /// `encrypted`.
    pub encrypted: bool,
    /// `dirty-flag`, if the format has one.
    pub dirty: Option<bool>,
    /// Reports omit `dirty-flag`, even that of the file, as QEMU's tools do.
    pub hides_dirty: bool,
    /// Internal snapshots, in table order.
    pub snapshots: Vec<SnapshotInfo>,
    /// Number of persistent bitmaps in the image, as far as it can be trusted.
    pub bitmaps: u64,
    /// The `data` object of `format-specific`, keys in QEMU's order; its type is the driver's name.
    pub specific: Option<Value>,
}

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotInfo {
    /// Its ID.
    pub id: BString,
    /// Its name.
    pub name: BString,
    /// Bytes of VM state.
    pub vm_state_size: u64,
    /// Seconds since the epoch.
    pub date_sec: u64,
    /// Additional nanoseconds.
    pub date_nsec: u32,
    /// The guest clock in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, if recorded.
    pub icount: Option<u64>,
    /// Virtual size at that time, if recorded.
    pub disk_size: Option<u64>,
}

impl SnapshotInfo {
    /// Describes a snapshot that is kept by a storage, which has only a name and a length.
    pub fn of_storage(snapshot: StorageSnapshot) -> Self {
        Self {
            id: snapshot.name.clone(),
            name: snapshot.name,
            vm_state_size: snapshot.len,
            date_sec: 0,
            date_nsec: 0,
            vm_clock_nsec: 0,
            icount: Some(0),
            disk_size: None,
        }
    }
}

/// Internal snapshots. They are listed in [`FormatInfo`].
pub trait Snapshots: Send + Sync {
    /// Records the current guest contents; returns the new ID, the highest existing one plus 1. `control` can cancel it
    /// until the snapshot exists.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`], or if I/O fails; in these cases nothing has
    /// changed, except that clusters may be leaked.
    fn create(&self, snapshot: &NewSnapshot, control: &JobControl) -> Result<BString>;

    /// Restores the guest contents and the virtual size of the snapshot with that ID. If `control` cancels it after
    /// that has taken effect, accounting for the released clusters is left to whoever next opens the image for writing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], otherwise as [`Snapshots::create`].
    fn apply(&self, id: &BStr, control: &JobControl) -> Result<()>;

    /// Deletes the snapshot with that ID, unless a view of it is open ([`crate::ErrorKind::Busy`]). Cancelled by
    /// `control` in the same way as [`Snapshots::apply`].
    ///
    /// # Errors
    /// As [`Snapshots::apply`].
    fn delete(&self, id: &BStr, control: &JobControl) -> Result<()>;

    /// A read-only view of the guest contents of the snapshot with that ID. While the view exists, the snapshot is not
    /// deleted through this image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], or if reading its tables fails.
    fn view(&self, id: &BStr) -> Result<Box<dyn Format>>;
}

/// The files of a directory beside an image, each named by the image. Implemented above the formats, where policy is
/// applied.
pub trait FilesBelow: Send + Sync + Debug {
    /// Opens the file with that name for reading; None if it does not exist.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] by policy, or if it cannot be opened.
    fn open(&self, name: &BStr) -> Result<Option<Arc<dyn Storage>>>;

    /// Passes the names of all entries of the directory to `show`, in no particular order, until it returns false.
    /// Returns false if they cannot be listed, or were not all passed.
    ///
    /// # Errors
    /// If reading the directory fails, and the errors of `show`.
    fn each_name(&self, show: &mut dyn FnMut(&BStr) -> Result<bool>) -> Result<bool>;
}

/// Opens the files that an image names. Implemented above the formats, where policy is applied.
pub trait Opener: Send + Sync {
    /// Opens a file named by an image; `name` is relative to that image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] by policy, or if it cannot be opened.
    fn open_named(
        &self,
        role: ImplicitRole,
        name: &BStr,
        writable: bool,
    ) -> Result<Arc<dyn Storage>>;

    /// The files of a directory whose name is relative to the image; they are opened on demand and not locked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if there is no such directory.
    fn files_below(&self, role: ImplicitRole, directory: &BStr) -> Result<Arc<dyn FilesBelow>>;

    /// Opens the child with that name as described by the user; None if it was not described, or described as absent.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn child(&self, name: &str, writable: bool) -> Result<Option<Arc<dyn Storage>>>;

    /// Whether the user described a child with that name.
    fn has_child(&self, name: &str) -> bool;

    /// The policy in force.
    fn policy(&self) -> &OpenPolicy;
}

/// What `check` should repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RepairMode {
    /// Nothing.
    #[default]
    Report,
    /// Only leaked clusters.
    Leaks,
    /// Everything that can be repaired.
    All,
}

/// The outcome of a consistency check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Errors of the check itself.
    pub check_errors: u64,
    /// Corruptions that remain.
    pub corruptions: u64,
    /// Leaked clusters that remain.
    pub leaks: u64,
    /// Corruptions repaired.
    pub corruptions_fixed: u64,
    /// Leaks repaired.
    pub leaks_fixed: u64,
    /// Offset of the end of the last used cluster.
    pub image_end_offset: Option<u64>,
    /// Guest clusters.
    pub total_clusters: Option<u64>,
    /// Guest clusters that are allocated.
    pub allocated_clusters: u64,
    /// Allocated clusters that do not follow their predecessor.
    pub fragmented_clusters: u64,
    /// Allocated clusters that are compressed.
    pub compressed_clusters: u64,
    /// Leaked clusters were to be released, but other damage makes that unsafe: nothing was changed.
    pub repair_refused: Option<RepairRefused>,
}

/// The damage that makes it unsafe to release leaked clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairRefused {
    /// Refcounts, which distinguish leaked clusters from used ones, are wrong.
    Refcounts,
    /// References to clusters are damaged, and may have been meant for the leaked ones.
    References,
}

/// The consistency check of a format.
pub trait Check: Send + Sync {
    /// The most comprehensive repair that [`Check::check`] supports.
    fn repairs(&self) -> RepairMode;

    /// Checks the metadata; each finding becomes a note of `job`, with QEMU's wording.
    ///
    /// # Errors
    /// If the check cannot be carried out.
    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport>;
}

/// Formats that keep track of the space in use in their file.
pub trait SpaceCount: Send + Sync {
    /// Bytes of the image file that are in use according to the metadata (qcow2: clusters with a nonzero refcount);
    /// counting may stop at `enough`. Block status looks for holes in the host file if it has far fewer bytes
    /// allocated.
    ///
    /// # Errors
    /// If reading the counts fails.
    fn host_bytes_in_use(&self, enough: u64) -> Result<u64>;
}
