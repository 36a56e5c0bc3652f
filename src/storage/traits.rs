//! What every byte store offers. Below the drivers; the registry stands above them.

use std::any::Any;
use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::size::SECTOR;
use crate::storage::compress::Compress;
use crate::storage::details::{StorageReport, StorageSnapshots};
use crate::storage::ending::Ending;
use crate::storage::host::{CopyOutcome, Lease, SpaceCall, SyncPlan};
use crate::storage::identity::Identity;
use crate::storage::modes::{Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::prefetch::Prefetch;
use crate::storage::step::StepWatcher;

/// Request limits of a storage, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Offsets and lengths should be multiples of this, or the storage bounces (1 = any).
    pub request_alignment: u32,
    /// Buffers should be aligned to this, or the storage bounces.
    pub memory_alignment: u32,
    /// A device: the length cannot change, so that "empty" does not exist either, and what was
    /// never written is not known to read as zeroes.
    pub fixed_len: bool,
    /// What such storages are called in messages, in the plural.
    pub fixed_kind: &'static str,
    /// What [`Storage::set_len`] adds at the end reads as zeroes.
    pub grown_is_zero: bool,
    /// A write is a copy to memory of this machine, such as the page cache, that hardly ever blocks.
    pub writes_to_memory: bool,
    /// Requests that it likes to have in flight: more than one where each waits for a device.
    pub in_flight: u32,
    /// What it keeps as a whole, a power of two, at multiples of it: writes of all of one are the best, and one that
    /// crosses from one to the next is two. 1 where it keeps no such thing.
    pub write_unit: u64,
    /// What [`Storage::extent`] says may be what a server said a while ago, before somebody else wrote there: a
    /// caller that wants the bytes reads them.
    pub remembers_extents: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_alignment: 1,
            memory_alignment: 1,
            fixed_len: false,
            fixed_kind: "device files",
            grown_is_zero: false,
            writes_to_memory: false,
            in_flight: 1,
            write_unit: 1,
            remembers_extents: false,
        }
    }
}

impl Limits {
    /// The limits of a storage that passes its requests to two others.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self {
            request_alignment: self.request_alignment.max(other.request_alignment),
            memory_alignment: self.memory_alignment.max(other.memory_alignment),
            fixed_len: self.fixed_len || other.fixed_len,
            fixed_kind: match self.fixed_len {
                true => self.fixed_kind,
                false => other.fixed_kind,
            },
            grown_is_zero: self.grown_is_zero && other.grown_is_zero,
            writes_to_memory: self.writes_to_memory && other.writes_to_memory,
            in_flight: self.in_flight.max(other.in_flight),
            write_unit: self.write_unit.max(other.write_unit),
            remembers_extents: self.remembers_extents || other.remembers_extents,
        }
    }
}

/// An offset, and the buffer to fill from there.
pub type ReadRange<'a> = (u64, &'a mut [u8]);

/// A byte store. All methods may be called from many threads at once; I/O is positional.
///
/// No method has a default that weakens a guarantee. Offsets and lengths need no alignment, and
/// requests may be of any length: a storage bounces or splits what does not fit.
#[allow(
    clippy::len_without_is_empty,
    reason = "it is the same for every storage, so it stands beside the trait"
)]
pub trait Storage: Send + Sync + Debug {
    /// The name for messages: the path as the user gave it, or a URI.
    fn name(&self) -> &BStr;

    /// The protocol driver's name: `file`, `host_device`, `null-co`, `nbd`…
    fn driver(&self) -> &'static str;

    /// What tells its bytes from those of other storages; None where nothing is kept, or where that
    /// cannot be known.
    fn identity(&self) -> Option<Identity>;

    /// Calls `visit` with what tells each file that it stands on from others: its own identity, and those
    /// of files that it shows as one.
    fn visit_identities(&self, visit: &mut dyn FnMut(Identity)) {
        if let Some(own) = self.identity() {
            visit(own);
        }
    }

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Fills `buf` from `offset`; bytes past the end read as zeroes.
    ///
    /// # Errors
    /// The operating system's, with the errno.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// As [`Storage::read_at`], into several buffers in turn.
    ///
    /// # Errors
    /// As [`Storage::read_at`].
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let mut at = offset;
        for buf in bufs {
            self.read_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
    }

    /// Fills each buffer from its offset, as [`Storage::read_at`] does one after the other. A storage that waits for
    /// each request sends several at once.
    ///
    /// # Errors
    /// As [`Storage::read_at`]; the other buffers are undefined then.
    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        for (offset, buf) in ranges {
            self.read_at(buf, *offset)?;
        }
        Ok(())
    }

    /// Fills several buffers from `offset` where that does not block: true when they are full. False leaves them
    /// undefined, and says nothing of the range.
    ///
    /// # Errors
    /// As [`Storage::read_at`].
    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool>;

    /// Writes all of `buf` at `offset`, growing the storage where that is possible.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], or the operating system's.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// As [`Storage::write_at`], from several buffers in turn.
    ///
    /// # Errors
    /// As [`Storage::write_at`]; some of the buffers may be written then.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let mut at = offset;
        for buf in bufs {
            self.write_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
    }

    /// The current length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> Result<u64>;

    /// Grows (reserving the new range as `preallocation` says) or shrinks the storage.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the size is fixed or the mode is not offered.
    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()>;

    /// Refuses a smaller length that [`Storage::set_len`] would refuse, as far as that is known before anything is cut
    /// off.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    fn check_shrink(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Makes the range read as zeroes, growing the storage where it ends past the end.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with [`ZeroFlags::NO_FALLBACK`], else as [`Storage::write_at`].
    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()>;

    /// Gives the range back to the host. What it reads as afterwards is not defined.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the host cannot; nothing has changed then.
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Makes all completed writes durable as far as `durability` says.
    ///
    /// # Errors
    /// The operating system's; data may be lost then. Once a sync has failed all later ones do, for
    /// none of them brings back what was lost.
    fn sync(&self, durability: Durability) -> Result<()>;

    /// The first run at `offset`, at most `len` bytes. `len` is not 0.
    ///
    /// # Errors
    /// The operating system's.
    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent>;

    /// What watches the steps that are taken on the storage. Only storages that inject faults have one, and they leave
    /// no way past their methods: neither [`Storage::host`] nor [`Storage::try_read`].
    fn step_watcher(&self) -> Option<&dyn StepWatcher> {
        None
    }

    /// Writing compressed units, where the bytes are those of an image that can hold them: only a storage over an
    /// image has this.
    fn compressor(&self) -> Option<&dyn Compress> {
        None
    }

    /// Bringing bytes near before they are read, where that differs from reading them.
    fn prefetcher(&self) -> Option<&dyn Prefetch> {
        None
    }

    /// Request limits.
    fn limits(&self) -> Limits;

    /// Bytes that the storage occupies on the host (`st_blocks × 512`), if known.
    fn allocated_size(&self) -> Option<u64>;

    /// What reports say of it beyond what every storage has, where there is anything.
    fn report(&self) -> Option<&dyn StorageReport> {
        None
    }

    /// Snapshots that it keeps of itself, where it does.
    fn snapshots(&self) -> Option<&dyn StorageSnapshots> {
        None
    }

    /// What it does at the end of use, where that is more than closing what it has open. A filter does not pass this
    /// on: ending a node also asks the storage of each node below.
    fn ending(&self) -> Option<&dyn Ending> {
        None
    }

    /// Takes or changes the locks of an image opened on this storage; see [`LockRequest`].
    ///
    /// # Errors
    /// [`ErrorKind::Locked`].
    fn lock(&self, request: LockRequest) -> Result<()>;

    /// The file or device of this host whose descriptor holds these bytes as they are, at the same
    /// offsets. None also where calls on a descriptor would bypass what the storage does itself.
    fn host(&self) -> Option<&dyn HostFile>;
}

impl dyn Storage + '_ {
    /// Whether the length is 0.
    ///
    /// # Errors
    /// As [`Storage::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Ends use; see [`Ending::finish`].
    ///
    /// # Errors
    /// As [`Ending::finish`].
    pub fn finish(&self) -> Result<()> {
        self.ending().map_or(Ok(()), Ending::finish)
    }

    /// How [`Storage::sync`] would be carried out now.
    pub fn sync_plan(&self, durability: Durability) -> SyncPlan {
        self.host()
            .map_or(SyncPlan::Call, |host| host.sync_plan(durability))
    }
}

/// Reads `buf` and fails when the range passes the end: for metadata, which must be there.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with the offset when the range passes the end.
pub fn read_exact_at(storage: &dyn Storage, buf: &mut [u8], offset: u64) -> Result<()> {
    let end = offset.checked_add(buf.len() as u64);
    if end.is_none_or(|end| storage.len().is_ok_and(|len| end > len)) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "'{}' ends before offset {offset} + {}",
                storage.name(),
                buf.len()
            ),
        )
        .with_offset(offset));
    }
    storage.read_at(buf, offset)
}

/// Gives a new image's storage the length `len`, or, where the length is fixed, checks that it
/// suffices.
///
/// # Errors
/// As [`Storage::set_len`].
pub fn set_len_or_fit(storage: &dyn Storage, len: u64, preallocation: Preallocation) -> Result<()> {
    let limits = storage.limits();
    if limits.fixed_len {
        let own = storage.len()?;
        // With its own length, a device changes nothing but still refuses to preallocate.
        storage.set_len(own, preallocation)?;
        return match own < len {
            true => Err(Error::unsupported(format!(
                "Cannot grow {}",
                limits.fixed_kind
            ))),
            false => Ok(()),
        };
    }
    storage.set_len(len, preallocation)
}

/// Cuts what is to stand at the beginning of a file behind its first sector. A disk writes one sector whole or not
/// at all: what lies behind it is to be there before it says so.
pub fn first_sector(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(SECTOR as usize))
}

/// Writes to a range that holds nothing yet.
///
/// # Errors
/// As [`Storage::write_at`].
pub fn write_fresh(storage: &dyn Storage, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
    if let Some(host) = storage.host() {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        host.hint_write(offset, len);
    }
    match bufs {
        [one] => storage.write_at(one, offset),
        many => storage.write_vectored_at(many, offset),
    }
}

/// An open file or device whose descriptor holds the bytes of a storage as they are, at the same
/// offsets; see [`crate::storage::Storage::host`].
/// (`Any` lets two files of one kind recognise each other for copies inside the host.)
pub trait HostFile: Any + Send + Sync + Debug {
    /// The file descriptor.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Says that from now on, until it is dropped, this storage is the only one of the process that writes to a part
    /// of the file. A file that takes no locks is not kept from others.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`] where another one writes to any of it.
    fn claim(&self, part: Range<u64>) -> Result<()>;

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
    /// kept durable: the name leads to the old bytes or to the new ones at every instant. It has the same owner
    /// and permissions and holds the same locks. Others that have the old file open keep that.
    ///
    /// # Errors
    /// Of making the file; the name then leads to the old one.
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
    fn finish_writeback(&self, offset: u64, len: u64) -> Result<()>;
}
