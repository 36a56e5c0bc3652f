//! The header of an open image, which says whether changes are in progress.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::blocks::{Keeper, Layout};
use crate::job::JobControl;
use crate::storage::{Durability, Preallocation, Storage, shorten};

use super::behind::look_behind;
use super::disk::{FeatureBits, Header, QedLayout};

/// The header in memory, identical to the one on disk.
#[derive(Debug)]
pub(super) struct Records {
    header: Mutex<Header>,
    durability: Durability,
    /// The image is known to be intact, so that it can be marked as such.
    is_whole: AtomicBool,
}

impl Records {
    pub(super) fn new(header: Header, durability: Durability) -> Self {
        Self {
            is_whole: AtomicBool::new(!header.features.contains(FeatureBits::NEED_CHECK)),
            header: Mutex::new(header),
            durability,
        }
    }

    /// A copy of the current header.
    pub(super) fn header(&self) -> Header {
        self.header.lock().clone()
    }

    /// Notes that a check has found no damage.
    pub(super) fn note_whole(&self) {
        self.is_whole.store(true, Ordering::Release);
    }

    /// Notes that damage was found: the image stays marked until there is none left.
    pub(super) fn note_damage(&self) {
        self.is_whole.store(false, Ordering::Release);
    }

    /// Changes the header, in memory and on disk: it lies in one sector, which no crash tears. A failure leaves memory
    /// unchanged. Returns whether there was anything to change.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn change(
        &self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut Header),
    ) -> Result<bool> {
        let header = &mut *self.header.lock();
        let mut new = header.clone();
        change(&mut new);
        let differs = new != *header;
        if differs {
            storage.write_at(&new.to_bytes(), 0)?;
            *header = new;
        }
        Ok(differs)
    }

    /// Notes that space is about to be allocated or moved: a crash may leave some that nothing refers to.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn begin(&self, storage: &dyn Storage) -> Result<()> {
        let marked = self.change(storage, |header| {
            header.features |= FeatureBits::NEED_CHECK;
        })?;
        match marked && self.durability == Durability::Synced {
            true => storage.sync(Durability::Synced),
            false => Ok(()),
        }
    }
}

impl Keeper for Records {
    type Layout = QedLayout;

    fn end_on_record(&self, _layout: &QedLayout) -> u64 {
        0
    }

    fn end_behind(&self, storage: &dyn Storage) -> Result<u64> {
        Ok(look_behind(storage, &self.header(), &JobControl::default())?.end)
    }

    fn extend(&self, storage: &dyn Storage, end: u64) -> Result<()> {
        self.begin(storage)?;
        if storage.len()? < end {
            storage.set_len(end, Preallocation::Off)?;
        }
        Ok(())
    }

    fn begin_block(&self, _storage: &dyn Storage, _host: u64) -> Result<()> {
        Ok(())
    }

    fn record(&self, _storage: &dyn Storage, _layout: &QedLayout, _end: u64) -> Result<()> {
        Ok(())
    }

    fn note_quiescent(&self, storage: &dyn Storage) -> Result<()> {
        if self.is_whole.load(Ordering::Acquire) {
            self.change(storage, |header| {
                header.features.remove(FeatureBits::NEED_CHECK);
            })?;
        }
        Ok(())
    }

    fn cut(&self, storage: &dyn Storage, layout: &QedLayout, end: u64) -> Result<()> {
        let end = end.max(layout.start());
        shorten::cut(storage, end)
    }
}
