//! Changes to the chain: emptying this layer, and recording another parent.

use std::sync::atomic::Ordering;

use bstr::ByteSlice;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind};
use crate::format::{BackingChange, BackingRef, Format, NewParent, ParentId};
use crate::memory;
use crate::storage::ZeroFlags;

use super::disk::{BatEntry, BitmapState, Locator, MIB, State};
use super::log::NewPage;
use super::pages::PAGE_WORDS;
use super::parent;
use super::state::Vhdx;

impl Vhdx {
    /// The locator to record for another parent.
    fn locator_of(&self, backing: &BackingRef, parent: Option<&NewParent>) -> Result<Locator> {
        let format = backing.format.as_ref();
        if format.is_some_and(|format| *format != super::DRIVER.name) {
            return Err(parent::is_no_vhdx());
        }
        let name = parent::to_record(backing.name.as_bstr())?;
        let logical = self.geometry().sector() as u32;
        if let Some(Err(reason)) = parent
            .and_then(|parent| parent.sectors)
            .map(|sectors| sectors.check_child(logical))
        {
            return Err(Error::invalid(format!("'{}' {reason}", backing.name)));
        }
        let id = parent.and_then(|parent| parent.id);
        match (id, &self.metadata.lock().items.locator) {
            (Some(ParentId::DataWriteGuid(guid)), _) => Ok(parent::locator(&name, Some(guid))),
            (Some(_), _) => Err(parent::is_no_vhdx()),
            // The file was not opened: it may be the recorded parent under another name.
            (None, Some(old)) => Ok(parent::with_name(old, &name)),
            (None, None) => Err(Error::parent_not_known(parent::IDENTITY, &backing.name)),
        }
    }

    /// Fails if the image cannot become a differencing one. Returns the number of entries of its table.
    fn check_first_parent(&self) -> Result<u64> {
        if self.fixed {
            return Err(Error::unsupported(
                "A fixed VHDX has no backing file; convert it to a dynamic one",
            ));
        }
        let geometry = self.geometry().with_parent(true);
        let entries = geometry.entries(self.virtual_size());
        match entries * 8 > self.max_table_bytes {
            true => Err(Error::new(
                ErrorKind::Limit,
                "Block allocation table too large for the open policy",
            )),
            false => Ok(entries),
        }
    }
}

impl BackingChange for Vhdx {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<()> {
        self.check_writable()?;
        let Some(backing) = backing else {
            return Ok(());
        };
        let locator = self.locator_of(backing, parent)?;
        if !self.geometry().has_parent() {
            self.check_first_parent()?;
        }
        let region = self.regions.lock().metadata;
        let metadata = self.metadata.lock();
        metadata.with_parent(region.len, Some(locator)).map(drop)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()> {
        self.check_backing(backing, parent)?;
        let _one = self.reshaping.lock();
        let Some(backing) = backing else {
            return match self.geometry().has_parent() {
                true => self.lose_parent(),
                false => Ok(()),
            };
        };
        let locator = self.locator_of(backing, parent)?;
        match self.geometry().has_parent() {
            true => self.set_locator(locator),
            false => self.get_parent(locator),
        }
    }

    fn note_parent(&self, parent: &NewParent) -> Result<()> {
        self.check_writable()?;
        let _one = self.reshaping.lock();
        let old = self.metadata.lock().items.locator.clone();
        match (parent.id, old) {
            (Some(ParentId::DataWriteGuid(guid)), Some(old)) => {
                self.set_locator(parent::with_linkage(&old, guid))
            }
            _ => Ok(()),
        }
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        Format::map(self, offset, len)
    }

    fn make_empty(&self) -> Result<()> {
        if !self.geometry().has_parent() {
            return Err(Error::unsupported("A dynamic VHDX has no backing file"));
        }
        let _one = self.reshaping.lock();
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        {
            let _all = self.inflight.reserve(0..u64::MAX);
            for block in 0..self.geometry().blocks(self.virtual_size()) {
                let entry = self.block_entry(block)?;
                if entry != BatEntry::NOT_PRESENT {
                    self.set_entry(self.geometry().entry(block), BatEntry::NOT_PRESENT)?;
                    self.give_up(entry);
                }
            }
            // No write may allocate a bitmap while part of the table on disk still refers to the old blocks.
            self.write_metadata(self.durability)?;
        }
        self.flush_all(self.durability)?;
        self.reclaim()
    }
}

/// A partially present block that becomes fully present.
struct Part {
    /// Index of its entry in the table.
    place: u64,
    host: u64,
}

impl Vhdx {
    /// Records another locator, after making durable what the guest sees above the new parent.
    fn set_locator(&self, locator: Locator) -> Result<()> {
        self.begin_change()?;
        self.record_parent(Some(locator), Vec::new())
    }

    /// Announces a change that the guest cannot see: layers above this one still accept it.
    fn begin_change(&self) -> Result<()> {
        let file = Uuid::new_v4();
        self.change_header(|header| header.file_write = file)?;
        self.flush_all(self.durability)
    }

    /// Durably records another parent or none, together with pages of the file.
    fn record_parent(&self, locator: Option<Locator>, pages: Vec<NewPage>) -> Result<()> {
        let (patches, metadata) = {
            let region = self.regions.lock().metadata;
            self.metadata.lock().with_parent(region.len, locator)?
        };
        let patches: Vec<(u64, &[u8])> = patches
            .iter()
            .map(|(at, bytes)| (*at, &bytes[..]))
            .collect();
        self.patch_with(&patches, pages)?;
        *self.metadata.lock() = metadata;
        self.sync(self.durability)
    }

    /// Turns a dynamic disk into a differencing one. The table first gets its entries for bitmaps, which mean nothing
    /// without a parent.
    fn get_parent(&self, locator: Locator) -> Result<()> {
        let entries = self.check_first_parent()?;
        let size = self.virtual_size();
        let old = self.geometry().entries(size);
        let geometry = self.geometry().with_parent(true);
        self.begin_change()?;
        let _all = self.inflight.reserve(0..u64::MAX);
        if entries * 8 > u64::from(self.regions.lock().bat.len) {
            self.move_table(entries * 8)?;
        }
        {
            let mut bat = self.bat.write();
            *bat = bat.resized(entries)?;
        }
        let chunks = geometry.blocks(size).div_ceil(geometry.chunk_blocks());
        let bitmaps = (0..chunks).map(|chunk| geometry.bitmap_entry(chunk));
        for place in bitmaps.chain(old..entries) {
            self.set_entry(place, BatEntry::NOT_PRESENT)?;
        }
        self.write_metadata(self.durability)?;
        self.record_parent(Some(locator), Vec::new())?;
        self.has_parent.store(true, Ordering::Release);
        Ok(())
    }

    /// Turns a differencing disk into a dynamic one. The parent's sectors become zeroes in the file, where nothing
    /// reads them yet; one log entry then makes the partial blocks fully present and removes the parent.
    fn lose_parent(&self) -> Result<()> {
        self.begin_change()?;
        let _all = self.inflight.reserve(0..u64::MAX);
        let parts = self.empty_sectors_of_parent()?;
        let mut pages: Vec<NewPage> = Vec::new();
        let bat = self.bat.read();
        for part in &parts {
            let page = bat.page(&*self.storage, part.place)?;
            let page = page.ok_or_else(|| self.damaged(part.place, "there is no entry"))?;
            if pages
                .last()
                .is_none_or(|(offset, _)| *offset != page.offset)
            {
                memory::push(&mut pages, (page.offset, page.to_bytes()))?;
            }
            let at = (part.place % PAGE_WORDS * 8) as usize;
            let bytes = pages
                .last_mut()
                .and_then(|(_, page)| page.get_mut(at..at + 8));
            if let Some(bytes) = bytes {
                bytes.copy_from_slice(&BatEntry::present(part.host).0.to_le_bytes());
            }
        }
        drop(bat);
        self.record_parent(None, pages)?;
        self.has_parent.store(false, Ordering::Release);
        // The table on disk already says so.
        for part in parts {
            self.set_entry(part.place, BatEntry::present(part.host))?;
        }
        self.give_bitmaps_back()
    }

    /// Writes zeroes in place of the parent's sectors of partially present blocks; returns these blocks.
    fn empty_sectors_of_parent(&self) -> Result<Vec<Part>> {
        let geometry = self.geometry();
        let size = self.virtual_size();
        let mut parts = Vec::new();
        for block in 0..geometry.blocks(size) {
            let entry = self.block_entry(block)?;
            let State::Partial(host) = self.state_of(block, entry)? else {
                continue;
            };
            let start = geometry.start(block);
            let end = size.min(start + geometry.block_size());
            let mut at = start;
            while at < end {
                let extent = self.map_run(at, end - at)?;
                if let ExtentKind::Unallocated { .. } = extent.kind {
                    let place = host + (at - start);
                    let flags = ZeroFlags::MAY_UNMAP;
                    self.storage.write_zeroes(place, extent.len, flags)?;
                }
                at += extent.len;
            }
            let place = geometry.entry(block);
            memory::push(&mut parts, Part { place, host })?;
        }
        Ok(parts)
    }

    /// Frees the bitmaps, which no longer mean anything.
    fn give_bitmaps_back(&self) -> Result<()> {
        let geometry = self.geometry();
        let blocks = geometry.blocks(self.virtual_size());
        let mut freed = Vec::new();
        for chunk in 0..blocks.div_ceil(geometry.chunk_blocks()) {
            let place = geometry.bitmap_entry(chunk);
            let entry = self.bat.read().entry(&*self.storage, place)?;
            if let Ok(BitmapState::Present(host)) = entry.bitmap() {
                memory::push(&mut freed, host)?;
            }
            self.set_entry(place, BatEntry::NOT_PRESENT)?;
        }
        self.write_metadata(self.durability)?;
        for host in freed {
            self.release(host, MIB);
        }
        Ok(())
    }
}
