//! Changing the virtual size.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::format::Below;
use crate::job::JobControl;
use crate::memory;
use crate::storage::{Preallocation, ZeroFlags, grow};

use super::disk::{BatEntry, DATA_SECTOR, Geometry, MIB, REGION_TABLES, Region, State};
use super::log::{LogArea, LogWriter, NewPage};
use super::state::Vhdx;

/// Number of blocks between two checks for cancellation.
const CHECKED: u64 = 1 << 14;
/// Maximum number of pages that are changed at once, because they are held in memory.
const MOST_PAGES: u64 = 4096;

impl Vhdx {
    /// See [`crate::format::Resize::resize_above`]. The caller holds `reshaping`.
    pub(super) fn change_size(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        let len = len.checked_next_multiple_of(self.geometry().sector());
        let len = len
            .filter(|len| *len <= Geometry::MAX_SIZE)
            .ok_or_else(|| Error::new(ErrorKind::Limit, "Image size too large; max of 64TB"))?;
        if preallocation == Preallocation::Metadata
            || !self.fixed && preallocation != Preallocation::Off
        {
            return Err(Error::unsupported(
                "Only the blocks of a fixed VHDX can be preallocated when it grows, and only with their data",
            ));
        }
        let old = self.virtual_size();
        let table = self.geometry().entries(len) * 8;
        if table > self.max_table_bytes {
            return Err(Error::new(
                ErrorKind::Limit,
                "Block allocation table too large for the open policy",
            ));
        }
        self.prepare_write()?;
        match len.cmp(&old) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.grow(old, len, preallocation, below, control),
            std::cmp::Ordering::Less => self.shrink(old, len, control),
        }
    }

    fn grow(
        &self,
        old: u64,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        let geometry = self.geometry();
        let blocks = geometry.blocks(old)..geometry.blocks(len);
        let entries = geometry.entries(len);
        if entries * 8 > u64::from(self.regions.lock().bat.len) {
            self.move_table(entries * 8)?;
        }
        {
            let mut bat = self.bat.write();
            *bat = bat.resized(entries)?;
        }
        // From now on the guest sees the end of the last block.
        let end = geometry.start(blocks.start).min(len);
        if old < end {
            let block = geometry.block(old);
            let _mine = self.inflight.reserve(block..block + 1);
            let _guard = self.limbo.enter();
            self.hold_block_to(end)?;
            self.zero_block(old..end, ZeroFlags::empty(), below)?;
        }
        if geometry.has_parent() {
            let chunks = blocks.start.div_ceil(geometry.chunk_blocks())
                ..blocks.end.div_ceil(geometry.chunk_blocks());
            for chunk in chunks {
                self.set_entry(geometry.bitmap_entry(chunk), BatEntry::NOT_PRESENT)?;
            }
        }
        let mut host = match self.fixed {
            true => Some(self.fixed_room(blocks.end - blocks.start, preallocation, control)?),
            false => None,
        };
        for block in blocks {
            if block % CHECKED == 0 {
                control.checkpoint()?;
                self.write_back_if_full()?;
            }
            let entry = match &mut host {
                None => BatEntry::ZERO,
                Some(host) => {
                    let here = *host;
                    *host += geometry.block_size();
                    BatEntry::present(here)
                }
            };
            self.set_entry(geometry.entry(block), entry)?;
        }
        self.write_metadata(self.durability)?;
        self.record_size(len)
    }

    /// Extends the file, if necessary, to hold the block of the last byte before `end` up to there: the file may end
    /// where the disk did.
    fn hold_block_to(&self, end: u64) -> Result<()> {
        let geometry = self.geometry();
        let block = geometry.block(end - 1);
        let (State::Present(host) | State::Partial(host)) =
            self.state_of(block, self.block_entry(block)?)?
        else {
            return Ok(());
        };
        let host_end = host + geometry.in_block(end - 1) + 1;
        // Under the lock: what others allocate and write in the meantime must not be cut off.
        let _space = self.space.lock();
        if host_end <= self.file_len.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.storage.limits().fixed_len {
            return Err(Error::os(libc::ENOSPC));
        }
        self.storage.set_len(host_end, Preallocation::Off)?;
        self.file_len.fetch_max(host_end, Ordering::AcqRel);
        Ok(())
    }

    /// Allocates space for new blocks of a fixed disk in one run, at the end of the file if it is preallocated.
    fn fixed_room(
        &self,
        blocks: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<u64> {
        let len = self.geometry().start(blocks);
        if preallocation == Preallocation::Off || blocks == 0 || self.storage.limits().fixed_len {
            return self.allocate(len);
        }
        // Under the lock, as above.
        let mut space = self.space.lock();
        let start = self.file_len.load(Ordering::Acquire).next_multiple_of(MIB);
        grow(&*self.storage, start + len, preallocation, control)?;
        self.file_len.store(start + len, Ordering::Release);
        space.end = start + len;
        Ok(start)
    }

    fn shrink(&self, old: u64, len: u64, control: &JobControl) -> Result<()> {
        let geometry = self.geometry();
        let blocks = geometry.blocks(len)..geometry.blocks(old);
        control.checkpoint()?;
        self.flush_all(self.durability)?;
        {
            let _all = self.inflight.reserve(blocks.start..u64::MAX);
            self.record_size(len)?;
            for block in blocks {
                let entry = self.block_entry(block)?;
                if entry != BatEntry::NOT_PRESENT {
                    self.set_entry(geometry.entry(block), BatEntry::NOT_PRESENT)?;
                    self.give_up(entry);
                }
            }
        }
        self.flush_all(self.durability)?;
        self.reclaim()?;
        self.cut_file()?;
        let mut bat = self.bat.write();
        *bat = bat.resized(geometry.entries(len))?;
        Ok(())
    }

    /// Records the size durably.
    fn record_size(&self, len: u64) -> Result<()> {
        let place = self.metadata.lock().size_place();
        let place = place.ok_or_else(|| Error::new(ErrorKind::Internal, "A VHDX has a size"))?;
        self.patch_metadata(&[(u64::from(place), &len.to_le_bytes())])?;
        self.metadata.lock().items.size = len;
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    /// Replaces bytes of the metadata region atomically.
    pub(super) fn patch_metadata(&self, patches: &[(u64, &[u8])]) -> Result<()> {
        self.patch_with(patches, Vec::new())
    }

    /// The same, together with whole pages of the file.
    pub(super) fn patch_with(
        &self,
        patches: &[(u64, &[u8])],
        mut pages: Vec<NewPage>,
    ) -> Result<()> {
        let mut log = self.log.lock();
        // What is read below must be the latest content.
        self.carry_out(&mut log)?;
        let base = self.regions.lock().metadata.offset;
        for (offset, bytes) in patches {
            for (at, byte) in (base + offset..).zip(*bytes) {
                let start = at - at % DATA_SECTOR as u64;
                let known = pages.iter().rposition(|(place, _)| *place == start);
                let known = match known {
                    Some(known) => known,
                    None => {
                        let mut page = Box::new([0; DATA_SECTOR]);
                        self.storage.read_at(&mut page[..], start)?;
                        memory::push(&mut pages, (start, page))?;
                        pages.len() - 1
                    }
                };
                let page = pages.get_mut(known);
                if let Some(place) = page.and_then(|(_, page)| page.get_mut((at - start) as usize))
                {
                    *place = *byte;
                }
            }
        }
        self.make_log_room(&mut log, pages.len() as u64)?;
        let written = self.write_pages(&mut log, pages, self.durability);
        if written.is_err() && !log.pending.is_empty() {
            // From now on the change is valid, but memory does not reflect it.
            self.lost.store(true, Ordering::Release);
        }
        written
    }

    /// Ensures that a log entry can hold this many pages: a log that is too short is moved to where there is space for
    /// a longer one.
    fn make_log_room(&self, log: &mut LogWriter, pages: u64) -> Result<()> {
        if pages <= log.room() {
            return Ok(());
        }
        let mut area = LogArea {
            offset: 0,
            len: MIB,
        };
        while area.room() < pages.min(MOST_PAGES) {
            area.len += MIB;
        }
        let len = u32::try_from(area.len).ok().filter(|_| pages <= MOST_PAGES);
        let len = len.ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                "The change is larger than an entry of the VHDX log may be; convert the image",
            )
        })?;
        area.offset = self.allocate(area.len)?;
        self.close_log(log)?;
        // The file must have that length before the header refers to it.
        self.sync(self.durability)?;
        let old = LogArea::of(&self.headers.lock().current);
        self.change_header(|header| {
            header.log_offset = area.offset;
            header.log_len = len;
        })?;
        self.sync(self.durability)?;
        *log = LogWriter::new(area);
        self.release(old.offset, old.len);
        Ok(())
    }

    /// Moves the block allocation table to where there is space for this many bytes.
    pub(super) fn move_table(&self, bytes: u64) -> Result<()> {
        let len = bytes.next_multiple_of(MIB);
        let offset = self.allocate(len)?;
        let region = Region {
            offset,
            len: len as u32,
        };
        // Log entries refer to the old place of the table.
        let mut log = self.log.lock();
        self.close_log(&mut log)?;
        let mut bat = self.bat.write();
        let moved = bat.moved(&*self.storage, region)?;
        moved.write(&*self.storage)?;
        // This includes the data that the table refers to.
        self.sync(self.durability)?;
        let mut regions = self.regions.lock();
        let old = std::mem::replace(&mut regions.bat, region);
        let bytes = match regions.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                regions.bat = old;
                return Err(error);
            }
        };
        for (round, at) in REGION_TABLES.into_iter().enumerate() {
            let written = self
                .storage
                .write_at(&bytes, at)
                .and_then(|()| self.sync(self.durability));
            if let Err(error) = written {
                if round == 0 {
                    regions.bat = old;
                }
                self.lost.store(true, Ordering::Release);
                return Err(error);
            }
        }
        *bat = moved;
        self.dirty.forget(old.offset..old.end());
        drop(regions);
        self.release(old.offset, u64::from(old.len));
        Ok(())
    }
}
