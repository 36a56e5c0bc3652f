//! Writing of a fresh image in which every guest byte has its place from the start.

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

/// Writes to the file.
pub(crate) type FinishFn = dyn Fn(&dyn Storage) -> Result<()> + Send + Sync;

/// A new image whose guest bytes stand in a line.
pub(crate) struct LinearBulk {
    storage: Arc<dyn Storage>,
    /// Where the first guest byte stands.
    base: u64,
    size: u64,
    fresh: bool,
    /// Writes what belongs to the image beside guest data and header.
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
    /// Starts the image in an empty file, which gets its room as `preallocation` says; `room` is the length
    /// of the guest bytes with what follows them up to the end of the last block. The last of the functions
    /// writes the header, the one before all else that is no guest data.
    ///
    /// # Errors
    /// Of I/O, and [`crate::ErrorKind::Cancelled`].
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
            // A device: what was there must not pass for the header.
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
        // Nothing lies below: what is not written reads as zeroes.
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        (self.end)(&*self.storage)?;
        if durability == Durability::Synced {
            // With the header it is an image, and a complete one.
            self.storage.sync(durability)?;
        }
        (self.header)(&*self.storage)?;
        self.storage.sync(durability)
    }
}
