//! The space of the file: free ranges between blocks, and growth at the end.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::format::limbo::Freed;
use crate::format::nonzero::each_nonzero;
use crate::memory;
use crate::storage::{Preallocation, ZeroFlags, shorten};

use super::disk::{BatEntry, BitmapState, MIB};
use super::free::{FREE_RUN, Space};
use super::log::LogArea;
use super::occupied::Occupied;
use super::pages::Walker;
use super::state::Vhdx;

/// Size of an entry of the table.
const ENTRY: u64 = 8;

impl Vhdx {
    /// The areas of the file other than blocks.
    pub(super) fn areas(&self) -> Vec<(u64, u64)> {
        let log = LogArea::of(&self.headers.lock().current);
        let regions = self.regions.lock();
        let regions = regions
            .regions()
            .map(|(_, region)| (region.offset, u64::from(region.len)));
        [(0, MIB), (log.offset, log.len)]
            .into_iter()
            .chain(regions)
            .collect()
    }

    /// Determines what is free, before anything is written. All entries of the table are examined.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for blocks that overlap or extend past the end of the file; if I/O fails.
    pub(super) fn load_space(&self) -> Result<()> {
        let geometry = self.geometry();
        let file_len = self.file_len.load(Ordering::Acquire);
        let mut occupied = Occupied::new(file_len)?;
        for (offset, len) in self.areas() {
            occupied.occupy(offset, len);
        }
        let mut occupy = |place: u64, host: u64, len: u64| match occupied.occupy(host, len) {
            true => Ok(()),
            false => Err(self
                .damaged(
                    place,
                    format!("the block at offset {host} overlaps with something else"),
                )
                .with_offset(host)),
        };
        let bat = self.bat.read();
        let mut walker = Walker::default();
        let mut last = 0;
        let blocks = geometry.blocks(self.virtual_size());
        for block in 0..blocks {
            let entry = walker.entry(&bat, &*self.storage, geometry.entry(block))?;
            self.state_of(block, entry)?;
            if let Some(host) = entry.host() {
                let used = geometry
                    .block_size()
                    .min(self.virtual_size() - geometry.start(block));
                self.check_place(block, host, used)?;
                occupy(block, host, geometry.block_size())?;
                last = last.max(host + geometry.block_size());
            }
        }
        let chunks = match geometry.has_parent() {
            true => blocks.div_ceil(geometry.chunk_blocks()),
            false => 0,
        };
        for chunk in 0..chunks {
            let place = geometry.bitmap_entry(chunk);
            let entry = walker.entry(&bat, &*self.storage, place)?;
            if let BitmapState::Present(host) =
                entry.bitmap().map_err(|error| self.damaged(place, error))?
            {
                self.check_place(place, host, MIB)?;
                occupy(place, host, MIB)?;
            }
        }
        let behind = self.occupy_behind(&mut occupied)?;
        last = last.max(behind);
        let free = occupied.free()?;
        memory::headroom(free.len() as u64 * FREE_RUN)?;
        *self.space.lock() = Space::new(&free, file_len, last);
        Ok(())
    }

    /// Marks what entries past those of the disk refer to as used, if it is free: the recorded size may be too small.
    /// Returns the end of the last such block.
    fn occupy_behind(&self, occupied: &mut Occupied) -> Result<u64> {
        let geometry = self.geometry();
        let region = self.regions.lock().bat;
        let file_len = self.file_len.load(Ordering::Acquire);
        let known = geometry.entry(geometry.blocks(self.virtual_size())) * ENTRY;
        let end = u64::from(region.len).min(self.max_table_bytes);
        let mut last = 0;
        each_nonzero(
            &*self.storage,
            region.offset + known..region.offset + end,
            |_, words| {
                for (place, word) in words {
                    let Some(host) = BatEntry(*word).host().filter(|host| *host < file_len) else {
                        continue;
                    };
                    let len = match geometry.is_bitmap_entry((place - region.offset) / ENTRY) {
                        true => MIB,
                        false => geometry.block_size(),
                    };
                    if occupied.occupy(host, len) {
                        last = last.max(host.saturating_add(len));
                    }
                }
                Ok(())
            },
        )?;
        Ok(last)
    }

    /// Allocates a range of the file that reads as zeroes, at a multiple of a MiB.
    pub(super) fn allocate(&self, len: u64) -> Result<u64> {
        let mut space = self.space.lock();
        match space.take(len) {
            Some(at) => {
                drop(space);
                self.emptied(at, len)
            }
            None => self.append(space, len),
        }
    }

    /// As [`Vhdx::allocate`], but past the end of the file, for when it is not known what is free.
    pub(super) fn allocate_behind(&self, len: u64) -> Result<u64> {
        let mut space = self.space.lock();
        let file_len = self.file_len.load(Ordering::Acquire);
        space.end = space.end.max(file_len.next_multiple_of(MIB));
        self.append(space, len)
    }

    fn append(&self, mut space: MutexGuard<'_, Space>, len: u64) -> Result<u64> {
        let limits = self.storage.limits();
        if limits.fixed_len {
            return Err(Error::os(libc::ENOSPC));
        }
        let at = space.end;
        let end = at.checked_add(len).filter(|end| *end <= i64::MAX as u64);
        let end =
            end.ok_or_else(|| Error::new(ErrorKind::Limit, "The VHDX would grow too large"))?;
        // Under the lock: a shorter length must not come after a longer one.
        self.storage.set_len(end, Preallocation::Off)?;
        self.file_len.store(end, Ordering::Release);
        space.end = end;
        drop(space);
        match limits.grown_is_zero {
            true => Ok(at),
            false => self.emptied(at, len),
        }
    }

    /// Zeroes a range that has been allocated.
    fn emptied(&self, at: u64, len: u64) -> Result<u64> {
        let zeroed = self.storage.write_zeroes(at, len, ZeroFlags::MAY_UNMAP);
        zeroed.map(|()| at).inspect_err(|_| self.release(at, len))
    }

    /// Frees a range that nothing on disk or in memory refers to.
    pub(super) fn release(&self, at: u64, len: u64) {
        self.space.lock().give(at, len);
    }

    /// Queues the block of an entry, to which memory no longer refers, to be freed.
    pub(super) fn give_up(&self, old: BatEntry) {
        if let Some(host) = old.host() {
            self.limbo.queue([Freed {
                cluster: host / MIB,
                punch: true,
            }]);
        }
    }

    /// Frees queued blocks that no request can use any more.
    pub(super) fn reclaim(&self) -> Result<()> {
        if self.limbo.waiting() == 0 {
            return Ok(());
        }
        let Some(_one) = self.reclaiming.try_lock() else {
            return Ok(());
        };
        let len = self.geometry().block_size();
        for freed in self.limbo.drained() {
            let at = freed.cluster * MIB;
            let discarded = self.storage.discard(at, len);
            self.release(at, len);
            match discarded {
                Err(error) if error.kind() != ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Cuts off the free space at the end of the file.
    pub(super) fn cut_file(&self) -> Result<()> {
        if self.fixed {
            return Ok(());
        }
        // No log entry may record a length that the file no longer has.
        let mut log = self.log.lock();
        let tail = self.space.lock().tail();
        if !tail.is_some_and(|end| shorten::can_cut(&*self.storage, end)) {
            return Ok(());
        }
        self.close_log(&mut log)?;
        let mut space = self.space.lock();
        match space.cut() {
            None => Ok(()),
            Some(end) => {
                self.file_len.store(end, Ordering::Release);
                self.storage.set_len(end, Preallocation::Off)
            }
        }
    }
}
