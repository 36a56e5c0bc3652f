//! What every image format offers. Below the drivers; the registry stands above them.

use std::fmt::Debug;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::Result;
use crate::extent::{Extent, StorageSlot};
use crate::format::bulk::Compress;
use crate::format::capabilities::{Amend, BackingChange, Bitmaps, Snapshots};
use crate::format::files::{FileRole, FormatFile};
use crate::format::io_guard::{IoGuard, LongIoGuard};
use crate::format::parent::{ParentId, ParentRef};
use crate::job::{Job, JobControl};
use crate::policy::{ImplicitRole, OpenPolicy};
use crate::storage::{Durability, Preallocation, Storage, SyncPlan, ZeroFlags};
use crate::value::Value;

/// An image format over its storages: maps guest ranges to host ranges and keeps the metadata.
///
/// All methods may be called from many threads at once. No lock is held across data I/O.
pub trait Format: Send + Sync + Debug {
    /// The driver's name: `raw`, `qcow2`…
    fn driver(&self) -> &'static str;

    /// The virtual size in bytes.
    fn len(&self) -> u64;

    /// Whether the virtual size is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

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

    /// As [`Format::map`], for reading at once: a format that keeps the bytes as they are need not
    /// ask the host for holes, which costs time and may be out of date when the read comes.
    ///
    /// # Errors
    /// As [`Format::map`].
    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.map(offset, len)
    }

    /// As [`Format::locate`] where that needs not wait: None where metadata would have
    /// to be read from elsewhere than memory.
    ///
    /// # Errors
    /// As [`Format::map`].
    fn locate_now(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        let _ = (offset, len);
        Ok(None)
    }

    /// Whether a write to the range is known to overwrite bytes where they are, in memory: then
    /// [`Format::write`] hardly ever waits.
    fn overwrites_now(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }

    /// Where a write to the whole range overwrites bytes in place, one run in a storage, if that is known
    /// without waiting: the storage may then be written there instead of calling [`Format::write`]. Take
    /// [`Format::begin_long_io`] before asking and keep it until the write has ended; tell
    /// [`Format::overwritten`] before the write begins and again when it has ended.
    fn overwrites_at(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        let _ = (offset, len);
        None
    }

    /// The range is about to be, or was, written where [`Format::overwrites_at`] said, with whatever
    /// success.
    fn overwritten(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Where zeroing or discarding the whole range is nothing but the same call to a storage.
    fn passes_on(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        let _ = (offset, len);
        None
    }

    /// How [`Format::flush`] would be carried out now, if that is known without waiting.
    fn flush_by(&self, durability: Durability) -> FlushBy {
        let _ = durability;
        FlushBy::Call
    }

    /// The sync that [`Format::flush_by`] asked for has failed: what it covered may be lost.
    fn flush_failed(&self) {}

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

    /// As [`Format::read_encoded`] where that needs not wait; false leaves the buffer undefined.
    ///
    /// # Errors
    /// As [`Format::read_encoded`].
    fn read_encoded_now(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        let _ = (buf, offset);
        Ok(false)
    }

    /// Guards host clusters that a mapping names from being reused while I/O on them runs.
    /// Take it before [`Format::map`], keep it until the I/O is done.
    fn begin_io(&self) -> IoGuard<'_>;

    /// As [`Format::begin_io`], for I/O that outlives the call which began it.
    fn begin_long_io(&self) -> LongIoGuard;

    /// Writes guest bytes; `below` supplies what a partly written new cluster lacks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::NoSpace`], or of I/O; the guest bytes
    /// outside the range are unchanged then.
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()>;

    /// Makes the range read as zeroes.
    ///
    /// # Errors
    /// As [`Format::write`].
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()>;

    /// Gives the range back. Whole clusters read afterwards as zeroes, or as the format defines;
    /// the parts of clusters at the ends are left alone.
    ///
    /// # Errors
    /// As [`Format::write`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Writes out cached metadata and makes all completed writes durable.
    ///
    /// # Errors
    /// Of I/O.
    fn flush(&self, durability: Durability) -> Result<()>;

    /// Changes the virtual size. What is new reads as zeroes from the moment on at which the size
    /// is durable, whatever the layer below holds there. `control` ends the filling of new space, which
    /// leaves the size as it was, and counts it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where the format cannot, [`crate::ErrorKind::Cancelled`].
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()>;

    /// As [`Format::resize_above`], of an image with nothing below.
    ///
    /// # Errors
    /// As [`Format::resize_above`].
    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_above(len, preallocation, &ZeroBelow, &JobControl::default())
    }

    /// What `info` shows of the format.
    ///
    /// # Errors
    /// Of I/O.
    fn info(&self) -> Result<FormatInfo>;

    /// The backing file that the image names.
    fn parent(&self) -> Option<ParentRef>;

    /// What images that have this one as their parent record of it, in formats that do.
    fn parent_id(&self) -> Option<ParentId> {
        None
    }

    /// Marks the end of use: flushes, clears the dirty bit. Called once, before drop.
    ///
    /// # Errors
    /// Of I/O; data may be lost then.
    fn close(&self) -> Result<()>;

    /// Bytes of the image file that the metadata counts as in use, for formats that keep count
    /// (qcow2: clusters whose refcount is not 0); the count may end at `enough`. Block status looks
    /// for holes in the host file where that holds far less; None means that the format keeps no count.
    ///
    /// # Errors
    /// Of reading the counts.
    fn host_bytes_in_use(&self, enough: u64) -> Result<Option<u64>> {
        let _ = enough;
        Ok(None)
    }

    /// The consistency check, where the format has one.
    fn checker(&self) -> Option<&dyn Check>;

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

    /// Writing of compressed clusters, where the format has it.
    fn compressor(&self) -> Option<&dyn Compress>;
}

/// How [`Format::flush`] would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushBy {
    /// There is nothing to do.
    Nothing,
    /// By syncing the storage of that slot and nothing else, as [`HostFile::sync_plan`] says.
    Sync(StorageSlot),
    /// Only by the call.
    Call,
}

impl FlushBy {
    /// For a flush that is nothing but a sync of the storage in `slot`.
    pub fn of(slot: StorageSlot, sync: SyncPlan) -> Self {
        match sync {
            SyncPlan::Nothing => Self::Nothing,
            SyncPlan::DataSync => Self::Sync(slot),
            SyncPlan::Call => Self::Call,
        }
    }
}

/// The guest bytes below a layer: its backing chain, or zeroes.
pub trait Below: Sync {
    /// Fills `buf` with the guest bytes below; zeroes past the end of the layer below.
    ///
    /// # Errors
    /// Of reading the backing chain.
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Whether the range is known to read as zeroes below, without reading data.
    ///
    /// # Errors
    /// Of mapping the backing chain.
    fn is_zero_below(&self, offset: u64, len: u64) -> Result<bool>;

    /// The bytes from here on are zero below; the largest number where that is not known.
    fn len_below(&self) -> u64 {
        u64::MAX
    }
}

/// Nothing below: zeroes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroBelow;

impl Below for ZeroBelow {
    fn read_below(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn is_zero_below(&self, _offset: u64, _len: u64) -> Result<bool> {
        Ok(true)
    }

    fn len_below(&self) -> u64 {
        0
    }
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
    /// Internal snapshots, in table order.
    pub snapshots: Vec<SnapshotInfo>,
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

    /// Opens the child of that name as the user described it; None where nothing was said of it, or
    /// that there shall be none.
    ///
    /// # Errors
    /// Of the open.
    fn child(&self, name: &str, writable: bool) -> Result<Option<Arc<dyn Storage>>>;

    /// Whether the user described a child of that name.
    fn has_child(&self, name: &str) -> bool;

    /// The policy in force.
    fn policy(&self) -> &OpenPolicy;
}

/// What `check` is to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RepairMode {
    /// Nothing.
    #[default]
    Report,
    /// Leaked clusters alone.
    Leaks,
    /// All that can be mended.
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
    /// Corruptions mended.
    pub corruptions_fixed: u64,
    /// Leaks mended.
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
    pub repair_refused: bool,
}

/// The consistency check of a format.
pub trait Check: Send + Sync {
    /// Checks the metadata; each finding is a note of `job`, in QEMU's words.
    ///
    /// # Errors
    /// When the check cannot be carried out.
    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport>;
}
