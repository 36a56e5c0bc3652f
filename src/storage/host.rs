//! What only files and devices of this host can do: calls of the kernel on their descriptor.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::error::Result;
use crate::storage::modes::{Durability, ZeroFlags};
use crate::storage::traits::Storage;

/// An open file or device whose descriptor holds the bytes of a storage as they are, at the same
/// offsets; see [`crate::storage::Storage::host`].
/// (`Any` lets two files of one kind recognise each other for copies inside the host.)
pub trait HostFile: Any + Send + Sync + Debug {
    /// The file descriptor.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Permission to change a range through the descriptor without a method of the storage, for as
    /// long as the lease is held: by a write that [`crate::storage::Storage::limits`] allows, or by a
    /// [`SpaceCall`]. None where only the methods may, or where one of them is at the range.
    fn lease(&self, offset: u64, len: u64) -> Option<Box<dyn Lease>>;

    /// The call on a leased range that does what [`crate::storage::Storage::write_zeroes`] would;
    /// should it fail, the method may still know another way.
    fn zeroing_call(&self, flags: ZeroFlags) -> Option<SpaceCall>;

    /// As [`HostFile::zeroing_call`], for [`crate::storage::Storage::discard`].
    fn discarding_call(&self) -> Option<SpaceCall>;

    /// How [`crate::storage::Storage::sync`] would be carried out now.
    fn sync_plan(&self, durability: Durability) -> SyncPlan;

    /// Permission to carry out [`SyncPlan::DataSync`], for as long as the lease is held: until the
    /// outcome was noted. None where another sync is under way or has failed.
    fn lease_sync(&self) -> Option<Box<dyn Lease>>;

    /// Takes note of the errno (0: success) with which a leased data sync has ended, and gives the
    /// result that the storage's `sync` would have.
    ///
    /// # Errors
    /// Of the sync, or of an earlier one: what was lost stays lost.
    fn note_sync(&self, errno: i32) -> Result<()>;

    /// Copies `len` bytes to `target` by the kernel, which may share blocks.
    ///
    /// # Errors
    /// Of the copy itself; "cannot" is [`CopyOutcome::NotPossible`], not an error.
    fn copy_range(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome>;

    /// Copies the range by sharing its blocks (reflink) or not at all: no data is moved.
    ///
    /// # Errors
    /// As [`HostFile::copy_range`].
    fn reflink_range(
        &self,
        offset: u64,
        target: &dyn HostFile,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome>;

    /// Whether [`HostFile::succeed`] can be tried: the file was opened by its name, which is its only one.
    fn can_be_succeeded(&self) -> bool;

    /// Lets another file with these bytes take the place of this one under its name, durably where this one is
    /// made so: the name leads to the old bytes or to the new ones at every instant. It has the same owner
    /// and permissions and holds the same locks. Whoever has the old file open keeps that.
    ///
    /// # Errors
    /// Of making the file; the name leads to the old one then.
    fn succeed(&self, bytes: &[u8]) -> Result<Arc<dyn Storage>>;

    /// Removes the file of an image that does without it. It stays where it was not opened by its name, has
    /// others, or another file has taken its place; false then.
    ///
    /// # Errors
    /// Of the host; the file is there then.
    fn remove(&self) -> Result<bool>;

    /// A hint: the whole range, which holds nothing yet, is about to be written. It reads as before.
    fn hint_write(&self, offset: u64, len: u64);

    /// A hint: everything up to `end` is about to be written, one piece after the other. It may make the
    /// file that long; the caller sets the length afterwards.
    fn hint_growth(&self, end: u64);

    /// A hint: no more is written to the range for now, and a sync will cover it. The kernel may begin
    /// with that at once, so that the sync has less to wait for.
    fn hint_written(&self, offset: u64, len: u64);

    /// Waits until a range that [`HostFile::hint_written`] named has been written, and lets the kernel
    /// forget it: a caller that writes much and reads none of it leaves little for a sync, or for the
    /// removal of a file that is given up.
    ///
    /// # Errors
    /// Of the writing, which the kernel reports once: the file counts as one whose sync has failed.
    fn settle_written(&self, offset: u64, len: u64) -> Result<()>;
}

/// What a file keeps up while the kernel is at its descriptor; dropped once the kernel is done, whatever
/// came of it. Dropping it does not block.
pub trait Lease: Send + Sync + Debug {}

/// A call on a range of a descriptor that does what one of the storage's methods would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceCall {
    /// `FALLOC_FL_ZERO_RANGE`.
    ZeroRange,
    /// `FALLOC_FL_PUNCH_HOLE`.
    PunchHole,
}

/// How a sync would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPlan {
    /// There is nothing to do.
    Nothing,
    /// By one `fdatasync` of the descriptor under [`HostFile::lease_sync`], of whose outcome the file
    /// must learn: [`HostFile::note_sync`].
    DataSync,
    /// Only by the storage's method.
    Call,
}

/// How a copy inside the host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The whole range was copied, blocks possibly shared.
    Done,
    /// Nothing was copied: this pair of files cannot; the caller reads and writes instead.
    NotPossible,
}
