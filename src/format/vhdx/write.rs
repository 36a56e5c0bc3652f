//! Writing guest data: in place if it is in the file, else into a new block or into the unused sectors of a partially
//! present one.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{ExtentKind, StorageSlot};
use crate::storage::{Step, steps};

use super::disk::{BatEntry, BitmapState, DATA_SECTOR, MIB, State};
use super::pages::{PAGE_WORDS, Page};
use super::state::Vhdx;

/// New content of a range of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Zeroes.
    Zeroes,
}

impl Vhdx {
    /// See [`crate::format::FormatWrite::write`].
    pub(super) fn write_guest(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.prepare_write()?;
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let mut done = self.write_in_place(rest, at)?;
            if done == 0 {
                self.write_back_if_full()?;
                let len = self.in_one_block(at, rest.len() as u64);
                let part = rest.get(..len as usize).unwrap_or(rest);
                let block = self.geometry().block(at);
                let _mine = self.inflight.reserve(block..block + 1);
                // The image may have shrunk in the meantime.
                self.check_range(at, len)?;
                let _guard = self.limbo.enter();
                self.write_block(at..at + len, Content::Bytes(part))?;
                done = len;
            }
            rest = rest.get(done as usize..).unwrap_or_default();
            at += done;
        }
        Ok(())
    }

    /// How much of a range lies in its first block.
    pub(super) fn in_one_block(&self, offset: u64, len: u64) -> u64 {
        len.min(self.geometry().block_size() - self.geometry().in_block(offset))
    }

    /// Overwrites data in the file; returns the length written, from the start of `buf`.
    fn write_in_place(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let _guard = self.limbo.enter();
        let extent = self.map_run(offset, buf.len() as u64)?;
        let ExtentKind::Data { host_offset, .. } = extent.kind else {
            return Ok(0);
        };
        let part = buf.get(..extent.len as usize).unwrap_or(buf);
        steps::announce(&*self.storage, Step::WriteAio);
        self.storage.write_at(part, host_offset)?;
        Ok(part.len() as u64)
    }

    /// Where a write to the whole range overwrites data in the file, as far as the tables in memory show.
    pub(super) fn try_place(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        let ready = self.is_prepared.load(std::sync::atomic::Ordering::Acquire)
            && self.check_writable().is_ok();
        let extent = self.try_map(offset, len).ok().flatten().filter(|_| ready)?;
        match extent.kind {
            ExtentKind::Data { slot, host_offset } if extent.len >= len => {
                Some((slot, host_offset))
            }
            _ => None,
        }
    }

    /// The entry of a block.
    pub(super) fn block_entry(&self, block: u64) -> Result<BatEntry> {
        self.bat
            .read()
            .entry(&*self.storage, self.geometry().entry(block))
    }

    /// Replaces an entry of the table in memory.
    pub(super) fn set_entry(&self, place: u64, entry: BatEntry) -> Result<()> {
        let bat = self.bat.read();
        let page = bat.page(&*self.storage, place)?;
        let page = page
            .ok_or_else(|| Error::new(ErrorKind::Internal, "A block past the end of the VHDX"))?;
        let change = |page: &Page| page.set(place % PAGE_WORDS, entry.0);
        self.dirty.change(page, change)
    }

    /// Writes a range within one block, whose reservation the caller holds.
    pub(super) fn write_block(&self, range: Range<u64>, content: Content<'_>) -> Result<()> {
        let geometry = self.geometry();
        let block = geometry.block(range.start);
        let place = geometry.entry(block);
        let within = geometry.in_block(range.start);
        let entry = self.block_entry(block)?;
        match self.state_of(block, entry)? {
            State::Present(host) => self.put(host + within, &range, content, false),
            State::Partial(host) => {
                self.put(host + within, &range, content, false)?;
                self.mark(block, &range, true)
            }
            State::NotPresent if geometry.has_parent() && !self.is_whole(&range) => {
                self.in_new_block(&range, content, |host| {
                    self.need_bitmap(block)?;
                    // Bits from an earlier allocation of the block mean nothing.
                    let start = geometry.start(block);
                    self.mark(block, &(start..start + geometry.block_size()), false)?;
                    self.mark(block, &range, true)?;
                    self.set_entry(place, BatEntry::partial(host))
                })
            }
            _ => self.in_new_block(&range, content, |host| {
                self.set_entry(place, BatEntry::present(host))
            }),
        }
    }

    /// Whether a range within a block covers all of it that belongs to the disk.
    pub(super) fn is_whole(&self, range: &Range<u64>) -> bool {
        let geometry = self.geometry();
        let end = geometry
            .start(geometry.block(range.start) + 1)
            .min(self.virtual_size());
        geometry.in_block(range.start) == 0 && range.end >= end
    }

    /// Writes into a new block, which `publish` enters into the table.
    fn in_new_block(
        &self,
        range: &Range<u64>,
        content: Content<'_>,
        publish: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        let len = self.geometry().block_size();
        let host = self.allocate(len)?;
        let within = self.geometry().in_block(range.start);
        let written = self.put(host + within, range, content, true);
        written
            .and_then(|()| publish(host))
            .inspect_err(|_| self.release(host, len))
    }

    /// Writes the content of a guest range to its place in the file; a new block is already zero.
    fn put(&self, host: u64, range: &Range<u64>, content: Content<'_>, zeroed: bool) -> Result<()> {
        match content {
            Content::Bytes(bytes) => {
                steps::announce(&*self.storage, Step::WriteAio);
                self.storage.write_at(bytes, host)
            }
            Content::Zeroes if zeroed => Ok(()),
            Content::Zeroes => {
                let len = range.end - range.start;
                self.storage
                    .write_zeroes(host, len, crate::storage::ZeroFlags::empty())
            }
        }
    }

    /// Ensures that the chunk of a block has a bitmap.
    fn need_bitmap(&self, block: u64) -> Result<()> {
        let place = self.geometry().bitmap_entry(self.geometry().chunk(block));
        let entry = self.bat.read().entry(&*self.storage, place)?;
        match entry.bitmap().map_err(|error| self.damaged(place, error))? {
            BitmapState::Present(_) => Ok(()),
            BitmapState::NotPresent => {
                // Requests for several blocks of a chunk may get here at the same time.
                let _one = self.bitmap_alloc.lock();
                let entry = self.bat.read().entry(&*self.storage, place)?;
                if entry != BatEntry::NOT_PRESENT {
                    return Ok(());
                }
                let host = self.allocate(MIB)?;
                let set = self.set_entry(place, BatEntry::present(host));
                set.inspect_err(|_| self.release(host, MIB))
            }
        }
    }

    /// Records in the bitmap whether the sectors of a guest range within a block are in the file.
    pub(super) fn mark(&self, block: u64, range: &Range<u64>, here: bool) -> Result<()> {
        let geometry = self.geometry();
        let place = geometry.bitmap_entry(geometry.chunk(block));
        let entry = self.bat.read().entry(&*self.storage, place)?;
        let BitmapState::Present(bitmap) =
            entry.bitmap().map_err(|error| self.damaged(place, error))?
        else {
            return Err(self.damaged(
                block,
                "a block is partially present without a sector bitmap",
            ));
        };
        let sector = geometry.sector();
        if !range.start.is_multiple_of(sector) || !range.end.is_multiple_of(sector) {
            return Err(Error::new(
                ErrorKind::Internal,
                "A write of parts of sectors",
            ));
        }
        let mut at = geometry.bit(range.start);
        let end = at + (range.end - range.start) / sector;
        let mut current: Option<Arc<Page>> = None;
        while at < end {
            let offset = bitmap + at / (PAGE_WORDS * 64) * DATA_SECTOR as u64;
            let page = match current.take().filter(|page| page.offset == offset) {
                Some(page) => page,
                None => self.bitmaps.page(&*self.storage, offset)?,
            };
            let bit = at % 64;
            let count = (64 - bit).min(end - at);
            let ones = if count == 64 {
                u64::MAX
            } else {
                (1 << count) - 1
            };
            let change = |page: &Page| page.set_bits(at / 64 % PAGE_WORDS, ones << bit, here);
            self.dirty.change(&page, change)?;
            current = Some(page);
            at += count;
        }
        Ok(())
    }
}
