//! Writing a new image in which every guest byte has its place from the start.

use std::fmt::Debug;
use std::sync::Arc;

use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::job::JobControl;
use crate::memory::IoBuf;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow};

use super::main_slot;

/// A function that writes to the file.
pub(crate) type FinishFn = dyn Fn(&dyn Storage) -> Result<()> + Send + Sync;

/// A new image whose guest bytes are contiguous.
pub(crate) struct LinearBulk {
    storage: Arc<dyn Storage>,
    /// Offset of the first guest byte.
    base: u64,
    size: u64,
    fresh: bool,
    /// Writes what belongs to the image besides guest data and the header.
    end: Box<FinishFn>,
    /// Writes what makes the file an image.
    header: Box<FinishFn>,
}

impl Debug for LinearBulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearBulk")
            .field("storage", &self.storage)
            .field("base", &self.base)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl LinearBulk {
    /// Starts the image in an empty file, with space allocated according to `preallocation`; `room` is the length of
    /// the guest bytes plus what follows them up to the end of the last block. The last function writes the header, the
    /// one before it everything else that is not guest data.
    ///
    /// # Errors
    /// If I/O fails, or [`crate::ErrorKind::Cancelled`].
    pub(crate) fn new(
        storage: &Arc<dyn Storage>,
        (base, size, room): (u64, u64, u64),
        preallocation: Preallocation,
        control: &JobControl,
        (end, header): (Box<FinishFn>, Box<FinishFn>),
    ) -> Result<Self> {
        let limits = storage.limits();
        let fresh = limits.grown_is_zero && storage.is_empty()?;
        if !storage.is_empty()? {
            // A device: its old contents must not be taken for the header.
            storage.write_zeroes(0, base.max(512), ZeroFlags::empty())?;
        }
        let last = base.checked_add(room).ok_or_else(Error::image_too_large)?;
        if limits.fixed_len {
            if storage.len()? < last {
                return Err(Error::os(libc::ENOSPC));
            }
        } else {
            let early = base.max(storage.len()?);
            storage.set_len(early, Preallocation::Off)?;
            grow(&**storage, last, preallocation, control)?;
        }
        Ok(Self {
            storage: storage.clone(),
            base,
            size,
            fresh,
            end,
            header,
        })
    }
}

impl Bulk for LinearBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![&self.storage]
    }

    fn takes_raw_writes(&self) -> bool {
        true
    }

    fn encode_unit(&self) -> Option<u32> {
        None
    }

    fn zero_unit(&self) -> u32 {
        512
    }

    fn alignment(&self) -> u64 {
        1 << self.base.trailing_zeros().min(63)
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: self.fresh,
            unwritten_is_zero: self.fresh,
        }
    }

    fn encode(
        &self,
        _scratch: &mut Encoder,
        _guest_offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::no_compression())
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        match guest_offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(Reserved {
                slot: StorageSlot::MAIN,
                offset: self.base + guest_offset,
                len,
            }),
            _ => Err(Error::past_new_disk()),
        }
    }

    fn reserve_encoded(&self, _guest_offset: u64, _encoded_len: u32) -> Result<(StorageSlot, u64)> {
        Err(Error::no_compression())
    }

    fn reserve_zero(&self, _guest_offset: u64, _len: u64) -> Result<()> {
        // There is no parent, so what is not written reads as zeroes.
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        (self.end)(&*self.storage)?;
        if durability == Durability::Synced {
            // Once it has its header it counts as an image, so it must be complete.
            self.storage.sync(durability)?;
        }
        (self.header)(&*self.storage)?;
        self.storage.sync(durability)
    }
}
