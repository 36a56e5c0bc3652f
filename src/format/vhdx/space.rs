//! The space of the file: what is free between blocks, and growth at the end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::format::limbo::Freed;
use crate::memory;
use crate::storage::{Preallocation, ZeroFlags};

use super::disk::{BatEntry, BitmapState, MIB};
use super::log::LogArea;
use super::state::Vhdx;

/// The space of an image that is open for writing.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Free ranges by their beginning; none touches another.
    free: BTreeMap<u64, u64>,
    /// Behind it the file grows.
    end: u64,
}

/// A range of the file that something uses: beginning, end, and what it is.
type Used = (u64, u64, &'static str);

impl Space {
    /// What lies between the ranges in use, which are sorted and do not overlap, up to the end of the file.
    fn between(used: &[Used], file_len: u64) -> Self {
        let mut free = BTreeMap::new();
        let mut at = 0;
        for (start, end, _) in used {
            if *start > at {
                free.insert(at, start - at);
            }
            at = at.max(*end);
        }
        let whole = file_len - file_len % MIB;
        if whole > at {
            free.insert(at, whole - at);
        }
        Self {
            free,
            end: at.max(file_len.next_multiple_of(MIB)),
        }
    }

    /// Takes a free range of that length.
    fn take(&mut self, len: u64) -> Option<u64> {
        let (at, room) = self.free.iter().find(|(_, room)| **room >= len)?;
        let (at, room) = (*at, *room);
        self.free.remove(&at);
        if room > len {
            self.free.insert(at + len, room - len);
        }
        Some(at)
    }

    /// Gives a range back.
    fn give(&mut self, at: u64, len: u64) {
        let (mut at, mut len) = (at, len);
        if let Some(room) = self.free.remove(&(at + len)) {
            len += room;
        }
        if let Some((before, room)) = self.free.range(..at).next_back()
            && before + room == at
        {
            at = *before;
            len += room;
        }
        self.free.insert(at, len);
    }

    /// Gives the free range at the end of the file up; where that ends then.
    fn cut(&mut self) -> Option<u64> {
        let (at, len) = self.free.last_key_value()?;
        let at = (at + len == self.end).then_some(*at)?;
        self.free.remove(&at);
        self.end = at;
        Some(at)
    }
}

impl Vhdx {
    /// What the file is used for, sorted. All entries of the table are looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for blocks that overlap or pass the end of the file, or of I/O.
    pub(super) fn used(&self) -> Result<Vec<Used>> {
        let geometry = self.geometry;
        let mut used: Vec<Used> = vec![(0, MIB, "the headers")];
        let log = LogArea::of(&self.headers.lock().current);
        used.push((log.offset, log.offset + log.len, "the log"));
        let regions = self.regions.lock().clone();
        used.extend(
            regions
                .regions()
                .map(|(name, region)| (region.offset, region.end(), name)),
        );
        used.retain(|(start, end, _)| start < end);
        let bat = self.bat.read();
        let blocks = geometry.blocks(self.virtual_size());
        for block in 0..blocks {
            let entry = bat.entry(&*self.storage, geometry.entry(block))?;
            self.state_of(block, entry)?;
            if let Some(host) = entry.host() {
                let len = geometry.block_size();
                let used_len = len.min(self.virtual_size() - geometry.start(block));
                self.check_place(block, host, used_len)?;
                memory::push(&mut used, (host, host.saturating_add(len), "a block"))?;
            }
        }
        if geometry.has_parent() {
            for chunk in 0..blocks.div_ceil(geometry.chunk_blocks()) {
                let place = geometry.bitmap_entry(chunk);
                let entry = bat.entry(&*self.storage, place)?;
                match entry.bitmap().map_err(|error| self.damaged(place, error))? {
                    BitmapState::NotPresent => {}
                    BitmapState::Present(host) => {
                        self.check_place(place, host, MIB)?;
                        memory::push(
                            &mut used,
                            (host, host.saturating_add(MIB), "a sector bitmap"),
                        )?;
                    }
                }
            }
        }
        drop(bat);
        used.sort_unstable();
        for pair in used.windows(2) {
            if let [(_, end, first), (start, _, second)] = pair
                && end > start
            {
                return Err(Error::corrupt(format!(
                    "'{}': {second} at offset {start} overlaps with {first}",
                    self.storage.name()
                ))
                .with_offset(*start));
            }
        }
        Ok(used)
    }

    /// Finds out what is free, before anything is written.
    pub(super) fn load_space(&self) -> Result<()> {
        let used = self.used()?;
        let file_len = self.file_len.load(Ordering::Acquire);
        *self.space.lock() = Space::between(&used, file_len);
        Ok(())
    }

    /// A range of the file that reads as zeroes, at a multiple of a MiB.
    pub(super) fn allocate(&self, len: u64) -> Result<u64> {
        let limits = self.storage.limits();
        let taken = {
            let mut space = self.space.lock();
            match space.take(len) {
                Some(at) => at,
                None if limits.fixed_len => return Err(Error::os(libc::ENOSPC)),
                None => {
                    let at = space.end;
                    let end = at.checked_add(len).filter(|end| *end <= i64::MAX as u64);
                    let end = end.ok_or_else(|| {
                        Error::new(ErrorKind::Limit, "The VHDX would grow too large")
                    })?;
                    // Under the lock: a shorter length must not come after a longer one.
                    self.storage.set_len(end, Preallocation::Off)?;
                    self.file_len.store(end, Ordering::Release);
                    space.end = end;
                    if limits.grown_is_zero {
                        return Ok(at);
                    }
                    at
                }
            }
        };
        let zeroed = self.storage.write_zeroes(taken, len, ZeroFlags::MAY_UNMAP);
        zeroed
            .map(|()| taken)
            .inspect_err(|_| self.release(taken, len))
    }

    /// The file grew by what is in use already.
    pub(super) fn load_space_behind(&self, end: u64) {
        self.space.lock().end = end;
    }

    /// Gives back what nothing on disk or in memory names.
    pub(super) fn release(&self, at: u64, len: u64) {
        self.space.lock().give(at, len);
    }

    /// Queues the block that an entry named, which memory no longer does.
    pub(super) fn give_up(&self, old: BatEntry) {
        if let Some(host) = old.host() {
            self.limbo.queue([Freed {
                cluster: host / MIB,
                punch: true,
            }]);
        }
    }

    /// Gives freed blocks back that nobody can use any more.
    pub(super) fn reclaim(&self) -> Result<()> {
        if self.limbo.waiting() == 0 {
            return Ok(());
        }
        let Some(_one) = self.reclaiming.try_lock() else {
            return Ok(());
        };
        let len = self.geometry.block_size();
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

    /// Cuts off what is free at the end of the file.
    pub(super) fn cut_file(&self) -> Result<()> {
        if self.storage.limits().fixed_len || self.fixed {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let used = [
            (0, 3 * MIB, "a"),
            (5 * MIB, 6 * MIB, "b"),
            (10 * MIB, 12 * MIB, "c"),
        ];
        Space::between(&used, 14 * MIB + 5)
    }

    #[test]
    fn gaps_are_taken_first_and_grow_together_again() {
        let mut space = space();
        assert_eq!(space.end, 15 * MIB);
        assert_eq!(space.take(4 * MIB), Some(6 * MIB));
        assert_eq!(space.take(MIB), Some(3 * MIB));
        assert_eq!(space.take(2 * MIB), Some(12 * MIB));
        assert_eq!(space.take(2 * MIB), None);
        space.give(12 * MIB, 2 * MIB);
        space.give(8 * MIB, 2 * MIB);
        space.give(6 * MIB, 2 * MIB);
        space.give(10 * MIB, 2 * MIB);
        assert_eq!(space.take(8 * MIB), Some(6 * MIB));
    }

    #[test]
    fn what_is_free_at_the_end_can_be_cut_off() {
        let mut space = space();
        assert_eq!(space.cut(), None);
        let mut space = Space::between(&[(0, 3 * MIB, "a")], 5 * MIB);
        assert_eq!(space.cut(), Some(3 * MIB));
        assert_eq!(space.cut(), None);
        assert_eq!(space.end, 3 * MIB);
    }
}
