//! What every image format offers. Below the drivers; the registry stands above them.

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

/// An image format over its storages: maps guest ranges to host ranges and keeps the metadata.
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

    /// The allocation unit in bytes, for formats that have one.
    fn cluster_size(&self) -> Option<u32>;

    /// The smallest range that a layer can hold by itself, in bytes: a subcluster, else a cluster.
    fn layer_unit(&self) -> Option<u32> {
        self.cluster_size()
    }

    /// Guest I/O should be aligned to this many bytes (1 = any; an encrypted format says 512).
    fn request_alignment(&self) -> u32;

    /// The longest run of one kind that starts at `offset`, at most `len` bytes.
    ///
    /// `len` is not 0 and the range lies within the virtual size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] with the offset of the bad table entry, or of I/O.
    fn map(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Look-ups of guest bytes from `offset` to `end` follow. A format whose tables are read one by one, where each
    /// request waits for a server or a device, reads those together that come first, unless the first one is in
    /// memory. What cannot be read is met by the look-up that needs it.
    fn map_ahead(&self, _offset: u64, _end: u64) {}

    /// As [`Format::map`], for reading at once: a format that keeps the bytes as they are need not
    /// ask the host for holes, which costs time and may be out of date when the read comes.
    ///
    /// # Errors
    /// As [`Format::map`].
    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.map(offset, len)
    }

    /// Every guest byte has its place in the file from the start, so that holes of the file are bytes that
    /// were never written; [`Format::map`] says where they are, and block status shows them as zeroes
    /// that are there.
    fn has_fixed_places(&self) -> bool {
        false
    }

    /// How many guest bytes one look at the tables answers for in QEMU's tools, counted from a multiple
    /// of it; None where a run is followed to its end. A strict comparison shows it.
    fn status_span(&self) -> Option<u64> {
        None
    }

    /// The storage behind a slot of an extent.
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>>;

    /// Shows every open file of the image, its own first.
    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>));

    /// The names of files that the image has beside its own and that are not open, because metadata
    /// alone was wanted.
    fn closed_files(&self) -> Vec<(FileRole, BString)>;

    /// Reads guest bytes of a run that [`Format::map`] called encoded.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] where the bytes do not decode, [`crate::ErrorKind::Busy`] where
    /// the run was remapped meanwhile and has to be mapped again.
    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Guards host clusters that a mapping names from being reused while I/O on them runs.
    /// Take it before [`Format::map`], keep it until the I/O is done.
    fn begin_io(&self) -> IoGuard<'_>;

    /// What `info` shows of the format.
    ///
    /// # Errors
    /// Of I/O.
    fn info(&self) -> Result<FormatInfo>;

    /// Marks the end of use: flushes, clears the dirty bit. Called once, before drop.
    ///
    /// # Errors
    /// Of I/O; data may be lost then.
    fn close(&self) -> Result<()>;

    /// The image below and what images above record of this one, where the format has either.
    fn lineage(&self) -> Option<&dyn Lineage> {
        None
    }

    /// Changing of the guest contents; None where the format has none, or this is a view of contents
    /// that stay.
    fn writer(&self) -> Option<&dyn FormatWrite> {
        None
    }

    /// Requests that do not block, where the format has them.
    fn immediate(&self) -> Option<&dyn Immediate> {
        None
    }

    /// Decoding before anyone reads, where the format keeps what it decodes.
    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        None
    }

    /// Counting of the host space in use, where the format keeps count.
    fn space_count(&self) -> Option<&dyn SpaceCount> {
        None
    }

    /// The consistency check, where the format has one.
    fn checker(&self) -> Option<&dyn Check> {
        None
    }

    /// Internal snapshots, where the format has them.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Persistent dirty bitmaps, where the format has them.
    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        None
    }

    /// Changing of options, where the format has it.
    fn amender(&self) -> Option<&dyn Amend> {
        None
    }

    /// Changing of the backing file, where the format has it.
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

    /// What this image can do: what it has accessors for, whether or not it was opened for writing.
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

    /// Changing of the virtual size, where the format has it.
    pub fn resizer(&self) -> Option<&dyn Resize> {
        self.writer()?.resizer()
    }
}

/// Decoding of what will be read soon, in formats that keep decoded units.
pub trait DecodeAhead: Send + Sync {
    /// Decodes the unit with the guest byte at `offset`, if it is encoded and has no more than `most` bytes, and
    /// keeps it. Returns where the next unit begins in the guest.
    ///
    /// # Errors
    /// As [`Format::read_encoded`].
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64>;

    /// Has so many bytes of decoded units kept beyond the usual, until this is said again.
    fn keep_more(&self, bytes: usize);
}

/// What `info` shows of a format, beyond what every image has.
#[derive(Clone, Debug, Default)]
pub struct FormatInfo {
    /// `cluster-size`.
    pub cluster_size: Option<u64>,
    /// `encrypted`.
    pub encrypted: bool,
    /// `dirty-flag`, where the format has one.
    pub dirty: Option<bool>,
    /// Reports show no `dirty-flag`, not even that of the file, as those of QEMU's tools.
    pub hides_dirty: bool,
    /// Internal snapshots, in table order.
    pub snapshots: Vec<SnapshotInfo>,
    /// How many persistent bitmaps the image holds, as far as that can be trusted.
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
    /// Nanoseconds beyond them.
    pub date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instruction count, if recorded.
    pub icount: Option<u64>,
    /// Virtual size at that time, if recorded.
    pub disk_size: Option<u64>,
}

impl SnapshotInfo {
    /// That of a snapshot which a storage keeps, and which has nothing but a name and a length.
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

/// Internal snapshots. The list stands in [`FormatInfo`].
pub trait Snapshots: Send + Sync {
    /// Records the current guest contents; returns the new ID, the highest one plus 1. `control` ends it
    /// up to the moment from which the snapshot is there.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`], or of I/O; nothing has
    /// changed then but that clusters may be leaked.
    fn create(&self, snapshot: &NewSnapshot, control: &JobControl) -> Result<BString>;

    /// Makes the guest contents, and the virtual size, those of the snapshot of that ID. Ended by
    /// `control` once they are, it leaves the counting of what was given up to the one that opens the image
    /// for writing next.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], else as [`Snapshots::create`].
    fn apply(&self, id: &BStr, control: &JobControl) -> Result<()>;

    /// Drops the snapshot of that ID, unless a view of it is open ([`crate::ErrorKind::Busy`]). Ended by
    /// `control` as [`Snapshots::apply`].
    ///
    /// # Errors
    /// As [`Snapshots::apply`].
    fn delete(&self, id: &BStr, control: &JobControl) -> Result<()>;

    /// The guest contents of the snapshot of that ID, read-only. While the view lives, the snapshot is
    /// not dropped through this image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], or of reading its tables.
    fn view(&self, id: &BStr) -> Result<Box<dyn Format>>;
}

/// The files of a directory beside an image, which it names one by one. Implemented above the formats, where
/// policy is applied.
pub trait FilesBelow: Send + Sync + Debug {
    /// The file of that name, open for reading; None where there is none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] by policy, or of the open.
    fn open(&self, name: &BStr) -> Result<Option<Arc<dyn Storage>>>;

    /// Shows the names of all that is in the directory, in no order, until `show` gives false. False where they cannot
    /// be listed, or were not all shown.
    ///
    /// # Errors
    /// Of reading the directory, and of `show`.
    fn each_name(&self, show: &mut dyn FnMut(&BStr) -> Result<bool>) -> Result<bool>;
}

/// Opens the files that an image names. Implemented above the formats, where policy is applied.
pub trait Opener: Send + Sync {
    /// Opens a file that an image names; `name` is relative to the image that names it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] by policy, or of the open.
    fn open_named(
        &self,
        role: ImplicitRole,
        name: &BStr,
        writable: bool,
    ) -> Result<Arc<dyn Storage>>;

    /// The files of a directory, whose name is relative to the image; they are opened when they are wanted,
    /// and are not locked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] where there is no such directory.
    fn files_below(&self, role: ImplicitRole, directory: &BStr) -> Result<Arc<dyn FilesBelow>>;

    /// Opens the child of that name as the user described it; None where nothing was said of it, or
    /// that there is to be none.
    ///
    /// # Errors
    /// Of the open.
    fn child(&self, name: &str, writable: bool) -> Result<Option<Arc<dyn Storage>>>;

    /// Whether the user described a child of that name.
    fn has_child(&self, name: &str) -> bool;

    /// The policy in force.
    fn policy(&self) -> &OpenPolicy;
}

/// What `check` is to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RepairMode {
    /// Nothing.
    #[default]
    Report,
    /// Leaked clusters alone.
    Leaks,
    /// All that can be repaired.
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
    /// Leaked clusters were to be given up, but other damage forbids that: nothing was changed.
    pub repair_refused: Option<RepairRefused>,
}

/// Which damage forbids that leaked clusters are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairRefused {
    /// Refcounts are wrong, by which leaked clusters are told from used ones.
    Refcounts,
    /// What names the clusters is damaged, and may have meant the leaked ones.
    References,
}

/// The consistency check of a format.
pub trait Check: Send + Sync {
    /// The most that [`Check::check`] repairs.
    fn repairs(&self) -> RepairMode;

    /// Checks the metadata; each finding is a note of `job`, in QEMU's words.
    ///
    /// # Errors
    /// When the check cannot be carried out.
    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport>;
}

/// Formats that count the space they use in their file.
pub trait SpaceCount: Send + Sync {
    /// Bytes of the image file that the metadata counts as in use (qcow2: clusters whose refcount is
    /// not 0); the count may end at `enough`. Block status looks for holes in the host file where that
    /// holds far less.
    ///
    /// # Errors
    /// Of reading the counts.
    fn host_bytes_in_use(&self, enough: u64) -> Result<u64>;
}
