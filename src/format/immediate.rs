//! Operations of a format for callers that must not block: the asynchronous queue.

use crate::error::Result;
use crate::extent::{Extent, StorageSlot};
use crate::format::io_users::LongIoGuard;
use crate::storage::{Durability, SyncPlan};

/// Requests that do not block, and what the kernel can carry out on its own; reached through
/// [`crate::format::Format::immediate`].
pub trait Immediate: Send + Sync {
    /// As [`crate::format::Format::locate`]; None if metadata would have to be read that is not in memory.
    ///
    /// # Errors
    /// As [`crate::format::Format::map`].
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>>;

    /// As [`crate::format::Format::read_encoded`]; returns false if that would block, with the contents of the buffer
    /// undefined. Unless `may_decode` permits decoding (or decryption), only cached decoded data is returned.
    ///
    /// # Errors
    /// As [`crate::format::Format::read_encoded`].
    fn try_read_encoded(&self, buf: &mut [u8], offset: u64, may_decode: bool) -> Result<bool>;

    /// As [`crate::format::Format::begin_io`], for I/O that outlives the call that began it.
    fn begin_long_io(&self) -> LongIoGuard;

    /// Whether a write to the range is known to overwrite existing bytes in memory: then
    /// [`crate::format::FormatWrite::write`] hardly ever blocks.
    fn overwrites_memory(&self, offset: u64, len: u64) -> bool;

    /// Where a write to the whole range overwrites bytes in place, in one run of a storage, if that is known without
    /// blocking: the storage may then be written there instead of calling [`crate::format::FormatWrite::write`]. Call
    /// [`Immediate::begin_long_io`] before this and hold the guard until the write has completed; call
    /// [`Immediate::note_in_place_write`] before the write begins and again when it has completed.
    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)>;

    /// The range is about to be, or has been, written at the place returned by [`Immediate::in_place_range`],
    /// successfully or not.
    fn note_in_place_write(&self, offset: u64, len: u64);

    /// Where zeroing or discarding the whole range amounts to the same call on a storage.
    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)>;

    /// How [`crate::format::FormatWrite::flush`] would be carried out now, if that is known without blocking.
    fn flush_plan(&self, durability: Durability) -> FlushPlan;

    /// Notes that the sync required by [`Immediate::flush_plan`] has failed: the data it covered may be lost.
    fn note_failed_flush(&self);
}

/// How a flush would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPlan {
    /// There is nothing to do.
    Nothing,
    /// Only the storage of that slot must be synced, as [`crate::storage::HostFile::sync_plan`] says.
    Sync(StorageSlot),
    /// The method must be called.
    Call,
}

impl FlushPlan {
    /// For a flush that consists only of a sync of the storage in `slot`.
    pub fn of(slot: StorageSlot, sync: SyncPlan) -> Self {
        match sync {
            SyncPlan::Nothing => Self::Nothing,
            SyncPlan::DataSync => Self::Sync(slot),
            SyncPlan::Call => Self::Call,
        }
    }
}
