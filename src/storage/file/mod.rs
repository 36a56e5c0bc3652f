//! Regular files (`file`), host devices (`host_device`) and drives of discs (`host_cdrom`).

mod copy;
mod create;
mod device;
mod direct;
mod driver;
mod entry;
mod extents;
mod host;
mod io;
mod named;
mod open;
mod opening;
mod ranges;
mod reserve;
mod resize;
mod spare;
mod successor;
mod syncs;
#[cfg(test)]
mod tests;
mod zero;

pub use create::{FileCreate, NewFile, claim, claim_device, make_like};
pub(crate) use device::is_disc_drive;
pub use driver::{FILE, HOST_CDROM, HOST_DEVICE};
pub(crate) use entry::sync_name;
pub use open::{FileOpen, Locking, duplicate, open, open_fd};

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::RwLock;

use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::storage::details::{StorageDetails, StorageReport};
use crate::storage::locks::Locks;
use crate::storage::{
    CacheMode, Durability, Ending, HostFile, Identity, Limits, LockRequest, Preallocation,
    Prefetch, Storage, SyncPlan, ZeroFlags,
};
use crate::sys;

use direct::Direct;
use entry::Entry;
use extents::ExtentCache;
use spare::Spare;
use syncs::Syncs;

/// What kind of file stands behind the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    Block,
    Character,
}

/// The driver of drives of discs.
const DISC_DRIVER: &str = "host_cdrom";

/// An open file or device.
#[derive(Debug)]
pub struct FileStorage {
    fd: OwnedFd,
    name: BString,
    /// The name is the path that it was opened by.
    is_named: bool,
    identity: Option<Identity>,
    kind: Kind,
    /// A drive whose disc is held in place.
    is_disc: bool,
    /// The longest length of a device that was reported: what lies before it is no end.
    told_len: AtomicU64,
    /// The kernel makes the contents up, and gives more than the length says.
    made_up: bool,
    read_only: bool,
    cache: CacheMode,
    /// The length that the process may not exceed; never of a device.
    size_limit: u64,
    /// Bounce buffers and alignment, when the file is open with O_DIRECT.
    direct: Option<Direct>,
    /// Shared by writers; exclusive while the length is computed and then set, so that a growing
    /// truncate never cuts off what another thread appended meanwhile.
    growth: RwLock<()>,
    spare: Spare,
    extents: ExtentCache,
    can: Abilities,
    locks: Locks,
    syncs: Arc<Syncs>,
    /// Its name, where it was made here.
    entry: Entry,
    /// Tells storages apart when failures of pairs are remembered.
    id: u64,
    /// The `id` of the last target that shares no blocks with this file.
    no_reflink_to: AtomicU64,
    /// The `id` of the last target that the kernel cannot copy to.
    no_copy_to: AtomicU64,
}

/// What the file system has not refused yet.
#[derive(Debug)]
struct Abilities {
    punch_hole: AtomicBool,
    zero_range: AtomicBool,
    allocate: AtomicBool,
    cached_reads: AtomicBool,
    /// Reserving the space of a write before it makes the write faster.
    reserve: OnceLock<bool>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl FileStorage {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::open_read_only(&self.name));
        }
        Ok(())
    }

    /// The length without waiting for writers that are about to correct it.
    fn raw_len(&self) -> std::io::Result<u64> {
        match self.kind {
            Kind::Regular => match self.spare.len() {
                Some(len) => Ok(len),
                None => Ok(sys::attr::stat(self.fd())?.len),
            },
            Kind::Block => sys::blkdev::size(self.fd()),
            Kind::Character => sys::seek::end(self.fd()).or(Ok(0)),
        }
    }

    /// `ftruncate`. A file that was cut to nothing is written out when any descriptor of it is closed the
    /// next time (ext4, XFS, btrfs), for the sake of programs that replace a file without a sync.
    /// Ours sync where they promise durability; so that is done with while there is nothing to write.
    fn truncate(&self, len: u64) -> std::io::Result<()> {
        sys::falloc::truncate(self.fd(), len)?;
        self.spare.has_length();
        if len == 0 {
            sys::reopen::open_and_close(self.fd());
        }
        Ok(())
    }

    /// What follows each change of the contents: cached holes are void, write-through is synced.
    fn wrote(&self) -> Result<()> {
        self.extents.invalidate();
        if self.cache.write_through() {
            self.datasync()?;
        }
        Ok(())
    }

    /// Whether nothing was changed since a sync that has succeeded.
    fn is_synced(&self) -> bool {
        self.syncs.covers(self.extents.generation())
    }

    fn datasync(&self) -> Result<()> {
        let Some(_turn) = self.syncs.enter(self.extents.generation())? else {
            return Ok(());
        };
        // Changes count when they are done: all of this number are in the kernel by now.
        let generation = self.extents.generation();
        match sys::falloc::datasync(self.fd()) {
            Ok(()) => {
                self.entry
                    .sync()
                    .map_err(|error| self.sync_failed(&error))?;
                self.syncs.succeeded(generation);
                Ok(())
            }
            // Character devices have nothing to sync.
            Err(error)
                if self.kind == Kind::Character && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Ok(())
            }
            Err(error) => Err(self.sync_failed(&error)),
        }
    }

    /// What was lost stays lost: later syncs fail too.
    fn sync_failed(&self, error: &std::io::Error) -> Error {
        self.syncs.fail(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Judges a read of `len` bytes that gave `done`: what is past the end reads as zeroes, but not what a device had
    /// before it became shorter, or was taken away.
    fn check_short(&self, offset: u64, len: u64, done: u64) -> Result<()> {
        let told = self.told_len.load(Ordering::Relaxed);
        let expected = told.saturating_sub(offset).min(len);
        if self.kind != Kind::Block || done >= expected {
            return Ok(());
        }
        Err(Error::os(libc::EIO).with_message(format!(
            "'{}' has become shorter than it was: {told} bytes",
            self.name
        )))
    }

    /// The end of a range; ranges that no file can hold are refused.
    fn end_of(offset: u64, len: u64) -> Result<u64> {
        offset
            .checked_add(len)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| Error::os(libc::EFBIG))
    }

    /// As [`Self::end_of`]; what does not fit a device, or what the process may not make so long, is
    /// refused before any of it is written. The kernel would send SIGXFSZ for the latter.
    fn writable_end(&self, offset: u64, len: u64) -> Result<u64> {
        let end = Self::end_of(offset, len)?;
        let unit = self.direct.as_ref().map_or(1, Direct::unit);
        if len > 0 && end.next_multiple_of(u64::from(unit)) > self.size_limit {
            return Err(Error::os(libc::EFBIG));
        }
        if self.kind == Kind::Block && end > self.raw_len().map_err(|error| Error::io(&error))? {
            return Err(Error::os(libc::ENOSPC));
        }
        Ok(end)
    }

    /// As [`Self::writable_end`], of what is written now.
    fn end_to_write(&self, offset: u64, len: u64) -> Result<u64> {
        let end = self.writable_end(offset, len)?;
        if len > 0 {
            self.spare.reach(end);
        }
        Ok(end)
    }
}

impl Storage for FileStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        match self.kind {
            Kind::Regular => "file",
            Kind::Block | Kind::Character if self.is_disc => DISC_DRIVER,
            Kind::Block | Kind::Character => "host_device",
        }
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_one(buf, offset).of_file(self.name())
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.read_many(bufs, offset).of_file(self.name())
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        self.read_cached(bufs, offset).of_file(self.name())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_one(buf, offset).of_file(self.name())
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.write_many(bufs, offset).of_file(self.name())
    }

    fn len(&self) -> Result<u64> {
        // A padded direct write makes the file longer for a moment.
        let _growth = self.direct.is_some().then(|| self.growth.read());
        let len = self
            .raw_len()
            .map_err(|error| Error::io(&error).of_file(self.name()))?;
        self.told_len.fetch_max(len, Ordering::Relaxed);
        Ok(len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.resize(len, preallocation).of_file(self.name())
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.zero(offset, len, flags).of_file(self.name())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.discard_range(offset, len).of_file(self.name())
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        let settled = self.settle_len().map_err(|error| Error::io(&error));
        settled.of_file(self.name())?;
        match self.sync_plan(durability) {
            SyncPlan::Nothing => Ok(()),
            SyncPlan::DataSync | SyncPlan::Call => self.datasync().of_file(self.name()),
        }
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.find_extent(offset, len).of_file(self.name())
    }

    fn limits(&self) -> Limits {
        let limits = match &self.direct {
            Some(direct) => direct.limits(),
            None => Limits::default(),
        };
        Limits {
            fixed_len: self.kind != Kind::Regular,
            grown_is_zero: self.kind == Kind::Regular,
            writes_to_memory: self.direct.is_none()
                && !self.cache.write_through()
                && self.kind != Kind::Character,
            ..limits
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        Some(sys::attr::stat(self.fd()).ok()?.allocated)
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        self.locks.change(self.fd(), self.name(), request)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // What the kernel makes up is read with care, so by the methods of this type alone.
        (!self.made_up).then_some(self)
    }

    fn report(&self) -> Option<&dyn StorageReport> {
        Some(self)
    }

    fn ending(&self) -> Option<&dyn Ending> {
        self.has_spare().then_some(self)
    }

    fn prefetcher(&self) -> Option<&dyn Prefetch> {
        (!self.made_up).then_some(self)
    }
}

impl Prefetch for FileStorage {
    fn prefetch(&self, offset: u64, len: u64) -> Result<()> {
        // Without a page cache there is nowhere to bring it.
        if self.direct.is_none() {
            sys::falloc::bring(self.fd(), offset, len);
        }
        Ok(())
    }
}

impl StorageReport for FileStorage {
    fn details(&self) -> Result<StorageDetails> {
        let hint = sys::attr::extent_size_hint(self.fd());
        let hint = hint.filter(|bytes| *bytes != 0 && self.kind == Kind::Regular);
        Ok(StorageDetails {
            specific: hint
                .map(|bytes| ("extent-size-hint", u64::from(bytes).into()))
                .into_iter()
                .collect(),
            ..StorageDetails::default()
        })
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Who wanted to know of a failure has ended the use before.
        let _ = self.settle_len();
        // Closing drops the locks only when the last descriptor goes, and a child process that is
        // just being started may hold a copy. Dropping a lock does not fail.
        let _ = self.lock(LockRequest::default());
    }
}
