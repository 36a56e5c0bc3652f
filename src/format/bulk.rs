//! Writing new images.

use std::fmt::Debug;
use std::io::IoSlice;
use std::sync::Arc;

use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::traits::Format;
use crate::job::JobControl;
use crate::memory::IoBuf;
use crate::policy::OpenPolicy;
use crate::storage::{Durability, Storage, ZeroFlags, write_fresh};

/// Maximum number of bytes occupied by an encoded unit of `unit` bytes: incompressible data grows by the framing and by
/// padding to a sector.
pub const fn most_encoded(unit: u64) -> u64 {
    unit + unit / 32 + 2048
}

/// What a new image reads as before it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialContent {
    /// Guest bytes that are never reserved read as zeroes (or expose the backing file).
    pub unreserved_is_zero: bool,
    /// Bytes that are reserved but never written read as zeroes: true of a new regular file, but not of a device or an
    /// encrypted image.
    pub unwritten_is_zero: bool,
}

/// Host bytes for guest data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The storage that contains them.
    pub slot: StorageSlot,
    /// Their offset in that storage.
    pub offset: u64,
    /// How many guest bytes are contiguous from there: at least one, and perhaps fewer than were requested.
    pub len: u64,
}

/// Writes a new, empty image: allocates host space with a cursor and builds the tables in memory.
///
/// Reservations must be made in ascending guest order (one at a time); the data may be written to them by any thread
/// and in any order. [`Bulk::finish`] writes the tables and, last, the header: until then the file is not a valid
/// image.
pub trait Bulk: Send + Sync + Debug {
    /// The host storage of a slot.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] for a slot that the image does not have.
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>>;

    /// The storages that receive guest data.
    fn data_storages(&self) -> Vec<&Arc<dyn Storage>>;

    /// Whether the storages contain guest bytes verbatim, so that they may be written and copied there directly;
    /// otherwise [`Bulk::write_data`] and [`Bulk::write_zero_data`] must be used.
    fn takes_raw_writes(&self) -> bool;

    /// Writes the guest bytes at `guest_offset`, the concatenation of `bufs`, to the place that was reserved for them;
    /// verbatim, unless the format overrides this. May be called by any thread, in any order.
    ///
    /// # Errors
    /// If I/O fails.
    fn write_data(
        &self,
        (slot, host): (StorageSlot, u64),
        _guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        write_fresh(&**self.storage(slot)?, bufs, host)
    }

    /// As [`Bulk::write_data`], for `len` zeroes.
    ///
    /// # Errors
    /// As [`Bulk::write_data`].
    fn write_zero_data(
        &self,
        (slot, host): (StorageSlot, u64),
        _guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        self.storage(slot)?
            .write_zeroes(host, len, ZeroFlags::empty())
    }

    /// Guest bytes per encoded unit; None if the format does not compress.
    fn encode_unit(&self) -> Option<u32>;

    /// The smallest run of zeroes worth leaving out: a subcluster if there are any, otherwise a cluster. Reservations
    /// are multiples of it, except at the end. It is suitable for copying, at most 2 MiB: larger allocation units are
    /// reserved in parts, and the writer ensures that those parts of such a unit that are never reserved read as
    /// [`InitialContent::unreserved_is_zero`] says.
    fn zero_unit(&self) -> u32;

    /// Reserved host offsets equal guest offsets modulo this power of two: blocks of the host can only be shared if
    /// their size divides it.
    fn alignment(&self) -> u64;

    /// What the new image reads as where nothing has been reserved or written.
    fn initial_content(&self) -> InitialContent;

    /// Encodes the unit at `guest_offset` into `out` on the calling thread; false if it does not shrink. A format that
    /// stores such units encoded nevertheless uses at most [`most_encoded`] bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if the format does not compress.
    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool>;

    /// Reserves host bytes for guest data, starting at `guest_offset`: as many as the format can provide in one run.
    /// Further calls reserve the rest. The range starts and ends at multiples of [`Bulk::zero_unit`] (or at the end of
    /// the image), and so do the runs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] if the image would become too large, or if spilling tables fails.
    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved>;

    /// Reserves contiguous host bytes for one encoded unit.
    ///
    /// # Errors
    /// As [`Bulk::reserve`].
    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)>;

    /// Records that the range reads as zeroes even if a backing file contains data there.
    ///
    /// # Errors
    /// As [`Bulk::reserve`].
    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()>;

    /// Writes the remaining tables and, last, the header. Nothing may be reserved afterwards.
    ///
    /// # Errors
    /// If I/O fails.
    fn finish(&self, durability: Durability) -> Result<()>;

    /// Opens the finished image for writing, with what its writer knows of it, so that secrets need not be supplied
    /// again. Called once, after [`Bulk::finish`], if the image is to receive more than guest data, such as bitmaps.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if new images of the format contain nothing else, or if I/O fails.
    fn open_finished(&self, context: &OpenNewContext<'_>) -> Result<Box<dyn Format>> {
        let _ = context;
        Err(Error::unsupported(
            "A new image takes nothing but guest data",
        ))
    }
}

/// How a finished image is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenNewContext<'a> {
    /// What barriers guarantee.
    pub durability: Durability,
    /// Its resource limits.
    pub policy: &'a OpenPolicy,
    /// Stops lengthy operations on cancellation or at the deadline.
    pub control: &'a Arc<JobControl>,
}
