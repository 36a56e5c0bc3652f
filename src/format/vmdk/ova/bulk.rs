//! Fills a new archive: the disk is written first, after space for what precedes it.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::Encoder;
use crate::error::Result;
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags};

use super::front::{Front, HASH, Written, back_len};

/// Number of bytes read at a time to compute the digest.
const READ: usize = 1 << 20;

/// An archive that is being filled.
#[derive(Debug)]
pub(super) struct OvaBulk {
    // Declared before the storages, so that nothing writes to them once they are dropped.
    image: Box<dyn Bulk>,
    own: Arc<dyn Storage>,
    /// The part of it that is the disk's file.
    disk: Arc<dyn Storage>,
    front: Front,
    capacity: u64,
    populated: AtomicU64,
    control: Arc<JobControl>,
}

impl OvaBulk {
    pub(super) fn new(
        image: Box<dyn Bulk>,
        (own, disk): (Arc<dyn Storage>, Arc<dyn Storage>),
        front: Front,
        capacity: u64,
        control: &Arc<JobControl>,
    ) -> Self {
        Self {
            image,
            own,
            disk,
            front,
            capacity,
            populated: AtomicU64::new(0),
            control: control.clone(),
        }
    }

    fn count(&self, guest_offset: u64, len: u64) {
        let len = len.min(self.capacity.saturating_sub(guest_offset));
        self.populated.fetch_add(len, Ordering::Relaxed);
    }

    /// What is known about the disk now that its file is complete.
    fn written(&self) -> Result<Written> {
        let len = self.disk.len()?;
        let mut hasher = HASH.hasher();
        let mut buf = memory::zeroed(READ)?;
        let mut at = 0;
        while at < len {
            self.control.checkpoint()?;
            let there = usize::try_from(len - at).map_or(READ, |left| left.min(READ));
            let part = &mut buf[..there];
            self.disk.read_at(part, at)?;
            hasher.update(part);
            at += there as u64;
        }
        Ok(Written {
            len,
            populated: self.populated.load(Ordering::Relaxed),
            digest: hasher.finish(),
        })
    }
}

impl Bulk for OvaBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        self.image.storage(slot)
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        self.image.data_storages()
    }

    fn takes_raw_writes(&self) -> bool {
        self.image.takes_raw_writes()
    }

    fn write_data(
        &self,
        place: (StorageSlot, u64),
        guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        self.image.write_data(place, guest_offset, bufs)
    }

    fn write_zero_data(
        &self,
        place: (StorageSlot, u64),
        guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        self.image.write_zero_data(place, guest_offset, len)
    }

    fn encode_unit(&self) -> Option<u32> {
        self.image.encode_unit()
    }

    fn zero_unit(&self) -> u32 {
        self.image.zero_unit()
    }

    fn alignment(&self) -> u64 {
        // The position of the disk's file depends on the length of the description.
        1
    }

    fn initial_content(&self) -> InitialContent {
        self.image.initial_content()
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        self.image.encode(scratch, guest_offset, unit, out)
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        let reserved = self.image.reserve(guest_offset, len)?;
        self.count(guest_offset, reserved.len);
        Ok(reserved)
    }

    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)> {
        let place = self.image.reserve_encoded(guest_offset, encoded_len)?;
        self.count(guest_offset, self.encode_unit().map_or(0, u64::from));
        Ok(place)
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        self.image.reserve_zero(guest_offset, len)
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        self.image.finish(durability)?;
        let written = self.written()?;
        let (at, back) = (self.front.len() + written.len, back_len(written.len)?);
        match self.own.limits().grown_is_zero {
            true => self.own.set_len(at + back, Preallocation::Off)?,
            false => self.own.write_zeroes(at, back, ZeroFlags::empty())?,
        }
        // From here on, it is an archive.
        self.own.write_at(&self.front.bytes(&written)?, 0)?;
        self.own.sync(durability)
    }
}
