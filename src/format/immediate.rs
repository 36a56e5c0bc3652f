//! What a format offers to callers that must not block: the asynchronous queue.

use crate::error::Result;
use crate::extent::{Extent, StorageSlot};
use crate::format::io_users::LongIoGuard;
use crate::storage::{Durability, SyncPlan};

/// Requests that do not block, and what the kernel can do of a request by itself; reached through
/// [`crate::format::Format::immediate`].
pub trait Immediate: Send + Sync {
    /// As [`crate::format::Format::locate`]; None where metadata would have to be read from elsewhere
    /// than memory.
    ///
    /// # Errors
    /// As [`crate::format::Format::map`].
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>>;

    /// As [`crate::format::Format::read_encoded`]; false, where that would block, leaves the buffer
    /// undefined. Unless it may decode (or decrypt), only what is kept decoded is had.
    ///
    /// # Errors
    /// As [`crate::format::Format::read_encoded`].
    fn try_read_encoded(&self, buf: &mut [u8], offset: u64, may_decode: bool) -> Result<bool>;

    /// As [`crate::format::Format::begin_io`], for I/O that outlives the call which began it.
    fn begin_long_io(&self) -> LongIoGuard;

    /// Whether a write to the range is known to overwrite bytes where they are, in memory: then
    /// [`crate::format::FormatWrite::write`] hardly ever blocks.
    fn overwrites_memory(&self, offset: u64, len: u64) -> bool;

    /// Where a write to the whole range overwrites bytes in place, one run in a storage, if that is
    /// known without blocking: the storage may then be written there instead of calling
    /// [`crate::format::FormatWrite::write`]. Take [`Immediate::begin_long_io`] before asking and keep it
    /// until the write has ended; call [`Immediate::note_in_place_write`] before the write begins and
    /// again when it has ended.
    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)>;

    /// The range is about to be, or was, written where [`Immediate::in_place_range`] said, with whatever
    /// success.
    fn note_in_place_write(&self, offset: u64, len: u64);

    /// Where zeroing or discarding the whole range is nothing but the same call to a storage.
    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)>;

    /// How [`crate::format::FormatWrite::flush`] would be carried out now, if that is known without
    /// blocking.
    fn flush_plan(&self, durability: Durability) -> FlushPlan;

    /// The sync that [`Immediate::flush_plan`] asked for has failed: what it covered may be lost.
    fn note_failed_flush(&self);
}

/// How a flush would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPlan {
    /// There is nothing to do.
    Nothing,
    /// By syncing the storage of that slot and nothing else, as
    /// [`crate::storage::HostFile::sync_plan`] says.
    Sync(StorageSlot),
    /// Only by the call.
    Call,
}

impl FlushPlan {
    /// For a flush that is nothing but a sync of the storage in `slot`.
    pub fn of(slot: StorageSlot, sync: SyncPlan) -> Self {
        match sync {
            SyncPlan::Nothing => Self::Nothing,
            SyncPlan::DataSync => Self::Sync(slot),
            SyncPlan::Call => Self::Call,
        }
    }
}
