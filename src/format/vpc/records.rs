//! The footers of an open dynamic disk: one at the beginning of the file, one at its end.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::blocks::{Keeper, Layout};
use crate::memory;
use crate::storage::{Durability, Storage, shorten};

use super::disk::{DiskType, FOOTER_LEN, Footer, VpcLayout};
use super::fixed::last_footer;
use super::open::Damage;
use super::sectors::FullBitmaps;

/// The bytes of the bitmap of a block that has all its sectors.
pub(super) const ALL_SECTORS: u8 = 0xff;

/// The footer in memory.
#[derive(Debug)]
pub(super) struct Records {
    footer: Mutex<Footer>,
    lead: u64,
    /// New blocks have none of their sectors; otherwise they have all.
    is_differencing: AtomicBool,
    /// Where the names of the parent are.
    names: Mutex<Vec<Range<u64>>>,
    /// What is wrong with the footers on disk.
    damage: Mutex<Damage>,
    durability: Durability,
    full: FullBitmaps,
}

impl Records {
    pub(super) fn new(
        footer: Footer,
        layout: &VpcLayout,
        names: Vec<Range<u64>>,
        damage: Damage,
        durability: Durability,
    ) -> Self {
        Self {
            is_differencing: AtomicBool::new(footer.disk_type == DiskType::Differencing),
            footer: Mutex::new(footer),
            lead: layout.lead(),
            names: Mutex::new(names),
            damage: Mutex::new(damage),
            durability,
            full: FullBitmaps::default(),
        }
    }

    pub(super) fn footer(&self) -> Footer {
        self.footer.lock().clone()
    }

    /// Sets where the names of the parent are.
    pub(super) fn set_names(&self, names: Vec<Range<u64>>) {
        *self.names.lock() = names;
    }

    /// Whether sectors of new blocks are the parent's until they are written.
    pub(super) fn set_differencing(&self, is_differencing: bool) {
        self.full.forget();
        self.is_differencing
            .store(is_differencing, Ordering::Release);
    }

    pub(super) fn damage(&self) -> Damage {
        *self.damage.lock()
    }

    /// Repairs the footer in front before the file length changes, as the one at the end may be the only good one.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn repair_front(&self, storage: &dyn Storage) -> Result<()> {
        if self.damage() != Damage::Front {
            return Ok(());
        }
        storage.write_at(&self.footer.lock().to_bytes(), 0)?;
        self.sync(storage)
    }

    /// Repairs both: the one at the end is written after `end`, with nothing behind it.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn repair(&self, storage: &dyn Storage, end: u64) -> Result<()> {
        let bytes = self.footer.lock().to_bytes();
        let len = storage.len()?.next_multiple_of(FOOTER_LEN as u64);
        let last = len.saturating_sub(FOOTER_LEN as u64).max(end);
        storage.write_at(&bytes, last)?;
        self.sync(storage)?;
        storage.write_at(&bytes, 0)?;
        // The one at the end will give way to blocks, and may be the only one on disk until this completes.
        self.sync(storage)?;
        *self.damage.lock() = Damage::None;
        Ok(())
    }

    /// Changes the footers, first the one in front, which is read first. If writing that fails, memory is unchanged.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn change(
        &self,
        storage: &dyn Storage,
        end: u64,
        change: impl FnOnce(&mut Footer),
    ) -> Result<()> {
        let footer = &mut *self.footer.lock();
        let mut new = footer.clone();
        change(&mut new);
        let bytes = new.to_bytes();
        storage.write_at(&bytes, 0)?;
        *footer = new;
        self.sync(storage)?;
        storage.write_at(&bytes, end)
    }

    fn sync(&self, storage: &dyn Storage) -> Result<()> {
        match self.durability {
            Durability::Synced => storage.sync(Durability::Synced),
            _ => Ok(()),
        }
    }
}

impl Keeper for Records {
    type Layout = VpcLayout;

    fn end_on_record(&self, layout: &VpcLayout) -> u64 {
        let reserved = self.reserved(layout).into_iter();
        reserved.map(|place| place.end).max().unwrap_or(0)
    }

    fn reserved(&self, layout: &VpcLayout) -> Vec<Range<u64>> {
        let mut places = vec![layout.header(), layout.table()];
        places.extend(self.names.lock().iter().cloned());
        places
    }

    fn extend(&self, storage: &dyn Storage, end: u64) -> Result<()> {
        // New blocks go where the footer is, so the next one is written after them first.
        storage.write_at(&self.footer.lock().to_bytes(), end)
    }

    fn begin_block(&self, storage: &dyn Storage, host: u64) -> Result<()> {
        let fill = match self.is_differencing.load(Ordering::Acquire) {
            true => 0,
            false => ALL_SECTORS,
        };
        write_bitmap(storage, (self.lead, fill), host)
    }

    /// This library ignores the bitmaps of a dynamic disk, but other programs do not, and they may mark sectors as
    /// never written: some products leave them that way, as does a crash right after a disk has lost its parent.
    fn touch_block(&self, storage: &dyn Storage, index: u64, host: u64) -> Result<()> {
        let mut bytes = memory::zeroed(self.lead as usize)?;
        let at = host.saturating_sub(self.lead);
        storage.read_at(&mut bytes, at)?;
        if bytes.iter().any(|byte| *byte != ALL_SECTORS) {
            write_bitmap(storage, (self.lead, ALL_SECTORS), host)?;
        }
        self.full.note(index)
    }

    fn is_touched(&self, index: u64) -> bool {
        self.full.has(index)
    }

    fn record(&self, _: &dyn Storage, _: &VpcLayout, _: u64) -> Result<()> {
        Ok(())
    }

    fn cut(&self, storage: &dyn Storage, _: &VpcLayout, end: u64) -> Result<()> {
        storage.write_at(&self.footer.lock().to_bytes(), end)?;
        self.sync(storage)?;
        shorten::cut(storage, end + FOOTER_LEN as u64)?;
        // Readers look at the end of the file, wherever that remains.
        let last = last_footer(storage.len()?);
        match last > end {
            true => storage.write_at(&self.footer.lock().to_bytes(), last),
            false => Ok(()),
        }
    }
}

/// Marks all or none of the sectors of the block whose data is at `host` as its own.
pub(super) fn write_bitmap(
    storage: &dyn Storage,
    (lead, fill): (u64, u8),
    host: u64,
) -> Result<()> {
    let mut bytes = memory::zeroed(lead as usize)?;
    bytes.fill(fill);
    storage.write_at(&bytes, host - lead)
}
