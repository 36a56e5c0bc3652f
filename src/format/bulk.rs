//! Writing of fresh images.

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

/// The most bytes that an encoded unit of so many takes: what does not shrink gets longer by a frame and the
/// padding of a sector.
pub const fn most_encoded(unit: u64) -> u64 {
    unit + unit / 32 + 2048
}

/// What a new image reads as before it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialContent {
    /// Guest bytes that are never reserved read as zeroes (or show the backing file).
    pub unreserved_is_zero: bool,
    /// Bytes that are reserved but never written read as zeroes: a new regular file, but neither
    /// a device nor an encrypted image.
    pub unwritten_is_zero: bool,
}

/// Host bytes for guest data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The storage that holds them.
    pub slot: StorageSlot,
    /// Where they begin there.
    pub offset: u64,
    /// How many guest bytes have their place in a line from there: at least one, and perhaps fewer
    /// than were asked for.
    pub len: u64,
}

/// Writing of a fresh, empty image: host space from a cursor, tables built in memory.
///
/// Reservations must come in ascending guest order (one at a time); writing the data that they
/// name may happen from any thread and in any order. [`Bulk::finish`] writes the tables and, last,
/// the header: until then the file is no valid image.
pub trait Bulk: Send + Sync + Debug {
    /// The storage behind a slot, as it is on the host.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] for a slot that the image has not.
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>>;

    /// The storages that guest data goes to.
    fn data_storages(&self) -> Vec<&Arc<dyn Storage>>;

    /// Whether the storages hold guest bytes as they are, so that they may be written and copied there
    /// directly; else [`Bulk::write_data`] and [`Bulk::write_zero_data`] are the only way.
    fn takes_raw_writes(&self) -> bool;

    /// Writes the guest bytes at `guest_offset`, in `bufs` one after the other, to where they were
    /// reserved; as they are, unless the format says otherwise. Any thread, any order.
    ///
    /// # Errors
    /// Of I/O.
    fn write_data(
        &self,
        (slot, host): (StorageSlot, u64),
        _guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        write_fresh(&**self.storage(slot)?, bufs, host)
    }

    /// As [`Bulk::write_data`], `len` zeroes.
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

    /// Guest bytes per encoded unit; None where the format does not compress.
    fn encode_unit(&self) -> Option<u32>;

    /// The smallest run of zeroes worth leaving out. Reservations are multiples of it, except at
    /// the end: a subcluster, else a cluster. It is good for copying, 2 MiB at most: what is allocated
    /// in larger units is reserved in parts, and the writer sees to it that the parts of such a unit
    /// which are never reserved read as [`InitialContent::unreserved_is_zero`] says.
    fn zero_unit(&self) -> u32;

    /// Reserved host offsets are the same as guest offsets modulo this, a power of two: blocks of the
    /// host can only be shared where theirs divide it.
    fn alignment(&self) -> u64;

    /// What the new image reads as where nothing is reserved or written.
    fn initial_content(&self) -> InitialContent;

    /// Encodes the unit at `guest_offset` on the caller's thread into `out`; false where it does not
    /// shrink. A format that keeps such units encoded too takes [`most_encoded`] bytes at most.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where the format does not compress.
    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool>;

    /// Reserves host bytes for guest data, from `guest_offset` on: as many as the format can have in
    /// one run. The rest is reserved by further calls. The range starts and ends at multiples of
    /// [`Bulk::zero_unit`] (or at the image's end), and so do the runs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] where the image would grow too large, or of spilling tables.
    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved>;

    /// Reserves host bytes for one encoded unit, which stay together.
    ///
    /// # Errors
    /// As [`Bulk::reserve`].
    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)>;

    /// Records that the range reads as zeroes although a backing file may hold data.
    ///
    /// # Errors
    /// As [`Bulk::reserve`].
    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()>;

    /// Writes the remaining tables and, last, the header. Nothing may be reserved afterwards.
    ///
    /// # Errors
    /// Of I/O.
    fn finish(&self, durability: Durability) -> Result<()>;

    /// The finished image, open for writing, with what its writer knows of it: secrets are not asked for again.
    /// Called once, after [`Bulk::finish`], where more than guest data goes into the image, such as bitmaps.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] where a new image of the format holds nothing else; of I/O.
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
    /// How much it may take.
    pub policy: &'a OpenPolicy,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a Arc<JobControl>,
}
