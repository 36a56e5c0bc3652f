//! What every byte store offers. Below the drivers; the registry stands above them.

use std::any::Any;
use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::storage::lend::{Lease, SpaceCall, SyncBy};
use crate::storage::steps::StepWatcher;

/// How far a write must have come when [`Storage::sync`] returns, and how barriers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// The target is new and disposable: no order is kept, nothing is synced.
    None,
    /// Writes reach the kernel in order: survives the end of the process, not of the machine.
    Ordered,
    /// A data sync at each barrier: survives a power cut.
    #[default]
    Synced,
}

/// How the host's page cache is used; the names are those of `-t` and `-T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// O_DIRECT; a flush syncs. Also called `off`.
    None,
    /// Page cache; a flush syncs.
    #[default]
    Writeback,
    /// Page cache; every write is synced before it returns.
    Writethrough,
    /// O_DIRECT; every write is synced before it returns.
    Directsync,
    /// Page cache; a flush does nothing.
    Unsafe,
}

impl CacheMode {
    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" | "off" => Self::None,
            "writeback" => Self::Writeback,
            "writethrough" => Self::Writethrough,
            "directsync" => Self::Directsync,
            "unsafe" => Self::Unsafe,
            _ => return None,
        })
    }

    /// Bypasses the page cache.
    pub fn direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Every write is synced before it returns.
    pub fn write_through(self) -> bool {
        matches!(self, Self::Writethrough | Self::Directsync)
    }

    /// The guarantee of a flush and of metadata barriers in this mode.
    pub fn durability(self) -> Durability {
        if self == Self::Unsafe {
            Durability::Ordered
        } else {
            Durability::Synced
        }
    }
}

/// How space for a new or grown range is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Sparse.
    #[default]
    Off,
    /// The format's tables only.
    Metadata,
    /// Space is reserved, contents are not written.
    Falloc,
    /// Zeroes are written.
    Full,
}

bitflags::bitflags! {
    /// Modifies [`Storage::write_zeroes`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ZeroFlags: u32 {
        /// The range may become a hole.
        const MAY_UNMAP = 1;
        /// Fail with [`ErrorKind::Unsupported`] instead of writing zero bytes slowly.
        const NO_FALLBACK = 2;
    }
}

/// Request limits of a storage, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Offsets and lengths should be multiples of this, or the storage bounces (1 = any).
    pub request_alignment: u32,
    /// Buffers should be aligned to this, or the storage bounces.
    pub memory_alignment: u32,
    /// Zeroing and discarding work in units of this (1 = any).
    pub zero_granularity: u32,
    /// The largest single request.
    pub max_transfer: u32,
    /// A device: the length cannot change, so that "empty" does not exist either, and what was
    /// never written is not known to read as zeroes.
    pub fixed_len: bool,
    /// Requests that it likes to have in flight: more than one where each waits for a device.
    pub in_flight: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_alignment: 1,
            memory_alignment: 1,
            zero_granularity: 1,
            max_transfer: 1 << 30,
            fixed_len: false,
            in_flight: 1,
        }
    }
}

/// How a [`Storage::copy_range`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The whole range was copied, blocks possibly shared.
    Done,
    /// Nothing was copied: this pair of storages cannot; the caller reads and writes instead.
    NotPossible,
}

/// A byte store. All methods may be called from many threads at once; I/O is positional.
///
/// No method has a default that weakens a guarantee. Offsets and lengths need no alignment:
/// a storage with [`Limits`] bounces what does not fit.
/// (`Any` lets two storages of one kind recognise each other for copies inside the host.)
pub trait Storage: Any + Send + Sync + Debug {
    /// The name for messages: the path as the user gave it, or a URI.
    fn name(&self) -> &BStr;

    /// The protocol driver's name: `file`, `host_device`, `null-co`, `nbd`…
    fn driver(&self) -> &'static str;

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
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()>;

    /// Writes all of `buf` at `offset`, growing the storage where that is possible.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::NoSpace`], or the operating system's.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// As [`Storage::write_at`], from several buffers in turn.
    ///
    /// # Errors
    /// As [`Storage::write_at`].
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()>;

    /// The current length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> Result<u64>;

    /// Whether the length is 0.
    ///
    /// # Errors
    /// As [`Storage::len`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Grows (reserving the new range as `preallocation` says) or shrinks the storage.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the size is fixed or the mode is not offered.
    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()>;

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
    /// The operating system's; data may be lost then.
    fn sync(&self, durability: Durability) -> Result<()>;

    /// The first run at `offset`, at most `len` bytes. `len` is not 0.
    ///
    /// # Errors
    /// The operating system's.
    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent>;

    /// Copies `len` bytes to `target` inside the host, sharing blocks where it can.
    ///
    /// # Errors
    /// Of the copy itself; "cannot" is [`CopyOutcome::NotPossible`], not an error.
    fn copy_range(
        &self,
        offset: u64,
        target: &dyn Storage,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome>;

    /// Copies the range by sharing its blocks (reflink) or not at all: no data is moved.
    ///
    /// # Errors
    /// As [`Storage::copy_range`].
    fn reflink_range(
        &self,
        offset: u64,
        target: &dyn Storage,
        target_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome>;

    /// Tells the host that the range will not be needed soon, so that its cache can be dropped.
    fn drop_cache(&self, offset: u64, len: u64);

    /// Tells the host that the whole range, which holds nothing yet, is about to be written. A hint:
    /// it may be ignored, and the range reads as before.
    fn expect_write(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Tells the host that everything up to `end` is about to be written, one piece after the other. A
    /// hint, which may make the file so long: whoever gives it sets the length afterwards.
    fn expect_growth(&self, end: u64) {
        let _ = end;
    }

    /// As [`Storage::read_vectored_at`] where that needs not wait: true when the buffers are full.
    /// False leaves them undefined, and says nothing of the range.
    ///
    /// # Errors
    /// As [`Storage::read_at`].
    fn read_now(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        let _ = (bufs, offset);
        Ok(false)
    }

    /// Whether a write is a copy to memory of this machine, such as the page cache, that hardly
    /// ever waits.
    fn writes_to_memory(&self) -> bool {
        false
    }

    /// The file descriptor, where the storage is one.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Leave to change a range through [`Storage::as_fd`] without a method of this trait, as long as the
    /// lease is held: a write that [`Storage::limits`] allows, or a [`SpaceCall`]. None where only the
    /// methods may, or where one of them is at the range.
    fn lease(&self, offset: u64, len: u64) -> Option<Box<dyn Lease>> {
        let _ = (offset, len);
        None
    }

    /// The call on a leased range that does what [`Storage::write_zeroes`] would; should it fail, the
    /// method may still know another way.
    fn zeroing_call(&self, flags: ZeroFlags) -> Option<SpaceCall> {
        let _ = flags;
        None
    }

    /// As [`Storage::zeroing_call`], for [`Storage::discard`].
    fn discarding_call(&self) -> Option<SpaceCall> {
        None
    }

    /// How [`Storage::sync`] would be carried out now.
    fn sync_by(&self, durability: Durability) -> SyncBy {
        let _ = durability;
        SyncBy::Call
    }

    /// Takes note of the errno (0: success) with which a data sync has ended that [`Storage::sync_by`]
    /// asked for, and gives the result that [`Storage::sync`] would have. A storage that asks for such
    /// syncs remembers their failures.
    ///
    /// # Errors
    /// As [`Storage::sync`].
    fn synced(&self, errno: i32) -> Result<()> {
        Err(Error::os(if errno == 0 { libc::EIO } else { errno }))
    }

    /// Who wants to know the steps that are taken on the storage; only what injects faults does, and
    /// that has no way past its methods: neither [`Storage::as_fd`] nor [`Storage::read_now`].
    fn step_watcher(&self) -> Option<&dyn StepWatcher> {
        None
    }

    /// Request limits.
    fn limits(&self) -> Limits;

    /// Bytes that the storage occupies on the host (`st_blocks × 512`), if known.
    fn allocated_size(&self) -> Option<u64>;

    /// The driver-specific information of `info`: (key, value) pairs in qemu's order, for `file`
    /// empty or the extent size hint.
    fn specific_info(&self) -> Vec<(&'static str, u64)>;

    /// Takes or changes the locks of an image opened on this storage; see [`LockRequest`].
    ///
    /// # Errors
    /// [`ErrorKind::Locked`].
    fn lock(&self, request: LockRequest) -> Result<()>;
}

/// The permissions that an open image uses and those that it shares with other openers, as QEMU's
/// tools record them in advisory locks on bytes 100–103 and 200–203 of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LockRequest {
    /// Permissions used (held as byte 100 + n).
    pub uses: Permissions,
    /// Permissions that others must not use (held as byte 200 + n).
    pub denies: Permissions,
}

bitflags::bitflags! {
    /// A permission on a storage, by QEMU's numbering of lock bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Permissions: u8 {
        /// Reads that must see consistent data (bytes 100, 200).
        const CONSISTENT_READ = 1;
        /// Writes (bytes 101, 201).
        const WRITE = 2;
        /// Resizes (bytes 103, 203).
        const RESIZE = 8;
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
    if storage.limits().fixed_len && storage.len()? >= len {
        // With its own length, a device changes nothing but still refuses to preallocate.
        return storage.set_len(storage.len()?, preallocation);
    }
    storage.set_len(len, preallocation)
}

/// Writes to a range that holds nothing yet.
///
/// # Errors
/// As [`Storage::write_at`].
pub fn write_fresh(storage: &dyn Storage, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
    let len: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
    storage.expect_write(offset, len);
    match bufs {
        [one] => storage.write_at(one, offset),
        many => storage.write_vectored_at(many, offset),
    }
}
