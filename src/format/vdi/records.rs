//! The header of an open image, which counts the allocated blocks.

use parking_lot::Mutex;
use uuid::Uuid;

use crate::error::Result;
use crate::format::blocks::{Keeper, Layout};
use crate::storage::{Durability, Preallocation, Storage, shorten};

use super::disk::{Header, VdiLayout};

/// The header in memory, identical to the one on disk.
#[derive(Debug)]
pub(super) struct Records {
    header: Mutex<Header>,
    durability: Durability,
}

impl Records {
    pub(super) fn new(header: Header, durability: Durability) -> Self {
        Self {
            header: Mutex::new(header),
            durability,
        }
    }

    /// A copy of the current header.
    pub(super) fn header(&self) -> Header {
        self.header.lock().clone()
    }

    /// Changes the header, in memory and on disk: one sector, which no crash tears. A failure leaves memory unchanged.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn change(
        &self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let header = &mut *self.header.lock();
        let mut new = header.clone();
        change(&mut new);
        if new != *header {
            storage.write_at(&new.to_bytes(), 0)?;
            *header = new;
        }
        Ok(())
    }

    /// Records that the contents are about to change.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn note_change(&self, storage: &dyn Storage) -> Result<()> {
        self.change(storage, |header| header.modification = Uuid::new_v4())
    }

    fn sync(&self, storage: &dyn Storage) -> Result<()> {
        match self.durability {
            Durability::Synced => storage.sync(Durability::Synced),
            _ => Ok(()),
        }
    }
}

impl Keeper for Records {
    type Layout = VdiLayout;

    fn end_on_record(&self, layout: &VdiLayout) -> u64 {
        layout.end_of(u64::from(self.header.lock().allocated))
    }

    fn extend(&self, storage: &dyn Storage, end: u64) -> Result<()> {
        if storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }

    fn begin_block(&self, _storage: &dyn Storage, _host: u64) -> Result<()> {
        Ok(())
    }

    fn record(&self, storage: &dyn Storage, layout: &VdiLayout, end: u64) -> Result<()> {
        let allocated = layout.blocks_up_to(end) as u32;
        self.change(storage, |header| header.allocated = allocated)
    }

    fn cut(&self, storage: &dyn Storage, layout: &VdiLayout, end: u64) -> Result<()> {
        self.record(storage, layout, end)?;
        self.sync(storage)?;
        let end = end.max(layout.start());
        shorten::cut(storage, end)
    }
}
