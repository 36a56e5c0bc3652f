//! Writes metadata out: data first, then a log entry, then the pages themselves.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::FlushPlan;
use crate::memory;
use crate::storage::Durability;

use super::disk::DATA_SECTOR;
use super::log::{LogWriter, NewPage};
use super::pages::Page;
use super::state::Vhdx;

/// Number of dirty pages at which a writer has to write them out.
const MOST_DIRTY: usize = 1024;
/// Size of a page.
const PAGE: u64 = DATA_SECTOR as u64;
/// Number of blocks waiting to be freed at which they are reclaimed.
const MOST_FREED: usize = 4096;

/// Pages that are being written out.
#[derive(Debug, Default)]
struct Pages {
    /// Of the block allocation table.
    entries: Vec<Arc<Page>>,
    /// Of sector bitmaps.
    bitmaps: Vec<Arc<Page>>,
}

/// Copies the first `count` of the pages as they are now.
fn copied(pages: &[Arc<Page>], count: usize) -> Result<Vec<NewPage>> {
    let pages = pages.get(..count).unwrap_or(pages);
    memory::collect(pages.iter().map(|page| (page.offset, page.to_bytes())))
}

impl Vhdx {
    /// See [`crate::format::FormatWrite::flush`].
    pub(super) fn flush_all(&self, durability: Durability) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.check_lost()?;
        if self.is_clean() {
            // Pages that another flush has taken are being written, and may be put back.
            let log = self.log.lock();
            if self.is_clean() {
                drop(log);
                return self.sync(durability);
            }
        }
        if !self.write_metadata(durability)? {
            // Freed blocks wait only for readers, and data written in place only for this.
            self.sync(durability)?;
        }
        self.reclaim()
    }

    fn is_clean(&self) -> bool {
        self.dirty.len() == 0 && self.limbo.waiting() == 0
    }

    /// Whether so many pages are dirty that they should be written out.
    pub(super) fn is_much_dirty(&self) -> bool {
        self.dirty.len() >= MOST_DIRTY
    }

    /// Whether every page on disk is as it is in memory. No thread may change pages or write them out in the meantime.
    pub(super) fn is_on_disk(&self) -> bool {
        let log = self.log.try_lock();
        log.is_some_and(|log| log.pending.is_empty()) && self.dirty.len() == 0
    }

    /// How [`Vhdx::flush_all`] would be carried out.
    pub(super) fn way_to_flush(&self, durability: Durability) -> FlushPlan {
        if self.read_only {
            return FlushPlan::Nothing;
        }
        let log = self.log.try_lock();
        if log.is_none() || !self.is_clean() || self.lost.load(Ordering::Acquire) {
            return FlushPlan::Call;
        }
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    pub(super) fn sync(&self, durability: Durability) -> Result<()> {
        let synced = self.storage.sync(durability);
        synced.inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    pub(super) fn check_lost(&self) -> Result<()> {
        match self.lost.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::os(libc::EIO).context(format!(
                "'{}': an earlier flush failed, and data may be lost",
                self.storage.name()
            ))),
        }
    }

    /// Writes metadata out if too much of it is dirty. The caller must not hold a reservation.
    pub(super) fn write_back_if_full(&self) -> Result<()> {
        if !self.is_much_dirty() && self.limbo.waiting() < MOST_FREED {
            return Ok(());
        }
        self.check_lost()?;
        self.write_metadata(self.durability)?;
        self.reclaim()
    }

    /// Writes all dirty pages; returns false if there are none. On return, the log and the data before it are as
    /// durable as requested.
    pub(super) fn write_metadata(&self, durability: Durability) -> Result<bool> {
        let mut log = self.log.lock();
        // The copies that are written, and the lists of all pages, which may have to be put back.
        let most = log.most_pages().max(1);
        let waiting = self.dirty.len();
        let copies = (waiting.min(most) as u64).saturating_mul(PAGE + 64);
        memory::headroom(copies.saturating_add(waiting as u64 * 64))?;
        let table = {
            let bat = self.regions.lock().bat;
            bat.offset..bat.end()
        };
        // The blocks taken here were unlinked in pages that are written below.
        let freed = self.limbo.take_fresh();
        let mut pages = Pages::default();
        match self.write_dirty(&mut log, &mut pages, &table, durability) {
            Ok(written) => {
                self.limbo.unlinked(freed);
                Ok(written)
            }
            Err(error) => {
                self.dirty.put_back(pages.entries);
                self.dirty.put_back(pages.bitmaps);
                self.limbo.put_back(freed);
                Err(error)
            }
        }
    }

    /// Writes all dirty pages, in log entries that hold as many as fit; returns false if there are none. On failure,
    /// `pages` holds what was not written.
    fn write_dirty(
        &self,
        log: &mut LogWriter,
        pages: &mut Pages,
        table: &Range<u64>,
        durability: Durability,
    ) -> Result<bool> {
        let most = log.most_pages().max(1);
        let mut written = false;
        pages.entries = self.dirty.take_in(table)?;
        loop {
            let now = pages.entries.len().min(most);
            let mut copies = copied(&pages.entries, now)?;
            // A bitmap means nothing until its block's entry refers to it, so it must not be written later. Therefore
            // those are taken that were changed before the entries were copied.
            let mut more = self.dirty.take_beside(table)?;
            pages.bitmaps.append(&mut more);
            while pages.bitmaps.len() + now > most && !pages.bitmaps.is_empty() {
                let part = pages.bitmaps.len().min(most);
                self.write_pages(log, copied(&pages.bitmaps, part)?, durability)?;
                written = true;
                pages.bitmaps.drain(..part);
            }
            copies.append(&mut copied(&pages.bitmaps, pages.bitmaps.len())?);
            if !copies.is_empty() {
                self.write_pages(log, copies, durability)?;
                written = true;
            }
            pages.bitmaps.clear();
            pages.entries.drain(..now);
            if pages.entries.is_empty() {
                return Ok(written);
            }
        }
    }

    /// Writes pages through the log.
    pub(super) fn write_pages(
        &self,
        log: &mut LogWriter,
        pages: Vec<NewPage>,
        durability: Durability,
    ) -> Result<()> {
        self.carry_out(log)?;
        // Blocks that are added from here on may be lost in a power failure that the entry survives.
        let file_len = self.file_len.load(Ordering::Acquire);
        // The data that the pages refer to, and the pages of the previous entry.
        self.sync(durability)?;
        log.write(&*self.storage, &pages, file_len)?;
        self.sync(durability)?;
        if !log.active {
            let guid = log.guid();
            self.change_header(|header| header.log = guid)?;
            self.sync(durability)?;
            log.active = true;
        }
        log.pending = pages;
        self.carry_out(log)
    }

    /// Writes the pages of the last entry to their final places. Until that succeeds, the entry has to stay.
    pub(super) fn carry_out(&self, log: &mut LogWriter) -> Result<()> {
        for run in log
            .pending
            .chunk_by(|(first, _), (second, _)| first + PAGE == *second)
        {
            let parts = run.iter().map(|(_, page)| &page[..]);
            if let Some((offset, _)) = run.first() {
                self.storage.write_at(&memory::joined(parts)?, *offset)?;
            }
        }
        log.pending.clear();
        Ok(())
    }

    /// See [`crate::format::Format::close`].
    pub(super) fn close_all(&self) -> Result<()> {
        if self.check_writable().is_err() {
            return Ok(());
        }
        self.flush_all(self.durability)?;
        // Two rounds: reclaiming may require the epoch to advance once.
        self.reclaim()?;
        self.reclaim()?;
        self.cut_file()?;
        self.end_log()
    }

    /// Carries out what is left in the log, and declares it empty.
    pub(super) fn end_log(&self) -> Result<()> {
        self.close_log(&mut self.log.lock())
    }

    /// As [`Vhdx::end_log`], for a caller that has locked the log.
    pub(super) fn close_log(&self, log: &mut LogWriter) -> Result<()> {
        if !log.active {
            return Ok(());
        }
        self.carry_out(log)?;
        self.sync(self.durability)?;
        self.change_header(|header| header.log = Uuid::nil())?;
        self.sync(self.durability)?;
        log.end();
        Ok(())
    }
}
