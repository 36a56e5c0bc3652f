//! Places for new data, after everything that exists, and writing the tables that name it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::FlushPlan;
use crate::format::table_cache::Table;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Step, shorten, steps};

use super::Qcow;
use super::disk::{ClusterPlace, word_of};

/// Where to place new data.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// The end of everything; None until it has been determined.
    next: Option<u64>,
    /// Tables whose place is not in the upper table on disk yet.
    new_tables: Vec<u32>,
}

impl Space {
    /// Sets the end of everything.
    pub(super) fn set(&mut self, next: u64) {
        self.next = Some(next);
    }
}

impl Qcow {
    /// Refuses changes to an image that is open read-only.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.read_only {
            true => Err(Error::os(libc::EROFS)),
            false => Ok(()),
        }
    }

    /// Must be called before each change.
    pub(super) fn begin_change(&self) -> Result<()> {
        self.check_writable()?;
        let known = self.tables.read().is_some();
        match known {
            true => Ok(()),
            false => self.find_tables(),
        }
    }

    /// Determines where the lower tables are, so that no guest data is written over one.
    fn find_tables(&self) -> Result<()> {
        let mut places = Vec::new();
        for entry in &self.l1 {
            let host = entry.load(Ordering::Acquire);
            if host != 0 {
                memory::push(&mut places, host)?;
            }
        }
        places.sort_unstable();
        let tables = &mut *self.tables.write();
        tables.get_or_insert(places);
        Ok(())
    }

    /// Whether a range of the file contains metadata.
    pub(super) fn is_metadata(&self, place: &Range<u64>) -> bool {
        if place.start < self.l1_end {
            return true;
        }
        let tables = self.tables.read();
        let Some(tables) = &*tables else {
            return true;
        };
        let least = place.start.saturating_sub(self.geometry.table_len() - 1);
        let first = tables.partition_point(|host| *host < least);
        let in_table = tables.get(first).is_some_and(|host| *host < place.end);

        let in_name = || {
            let name = self.header.lock().name_place();
            name.is_some_and(|name| name.start < place.end && place.start < name.end)
        };
        in_table || in_name()
    }

    /// Refuses to write guest data over metadata.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub(super) fn check_place(&self, host: u64, len: u64) -> Result<()> {
        if !self.is_metadata(&(host..host.saturating_add(len))) {
            return Ok(());
        }
        let text = format!(
            "'{}': a cluster stands where the metadata does; check the image first",
            self.storage.name()
        );
        Err(Error::corrupt(text).with_offset(host))
    }

    pub(super) fn no_room(&self) -> Error {
        Error::new(
            ErrorKind::Limit,
            format!("'{}' has no room for more clusters", self.storage.name()),
        )
        .with_errno(libc::EFBIG)
    }

    /// Allocates bytes for uncompressed clusters.
    pub(super) fn reserve(&self, len: u64) -> Result<u64> {
        let host = self.reserve_in(&mut self.space.lock(), len, self.geometry.cluster())?;
        word_of(host).ok_or_else(|| self.no_room())
    }

    /// Allocates bytes for something that need only be aligned to a sector.
    pub(super) fn reserve_packed(&self, len: u64) -> Result<u64> {
        self.reserve_in(&mut self.space.lock(), len, SECTOR)
    }

    fn reserve_in(&self, space: &mut Space, len: u64, unit: u64) -> Result<u64> {
        steps::announce(&*self.storage, Step::ClusterAlloc);
        let next = match space.next {
            Some(next) => next,
            None => self.end_of_use()?,
        };
        let start = next.checked_next_multiple_of(unit);
        let place = start.and_then(|start| {
            let end = start.checked_add(len)?;
            (end <= i64::MAX as u64).then_some((start, end))
        });
        let (start, end) = place.ok_or_else(|| self.no_room())?;
        if self.storage.limits().fixed_len && end > self.storage.len()? {
            return Err(Error::os(libc::ENOSPC));
        }
        space.next = Some(end);
        self.file_len.fetch_max(end, Ordering::AcqRel);
        Ok(start)
    }

    /// The end of everything: of the file or, if its length is fixed, of what is named. All tables are scanned once,
    /// because an entry that names a place past the end must not find other data there later.
    fn end_of_use(&self) -> Result<u64> {
        let len = self.storage.len()?;
        let mut end = self.l1_end;
        if let Some(name) = self.header.lock().name_place() {
            end = end.max(name.end);
        }
        for index in 0..self.l1.len() as u32 {
            match self.table_host(index) {
                0 => {}
                host if self.is_table_place(host) => {
                    end = end.max(host + self.geometry.table_len());
                }
                host => return Err(self.bad_table(index, host)),
            }
        }
        self.each_entry(|number, _, word| {
            let place = self.place(word, number.saturating_mul(self.geometry.cluster()))?;
            end = end.max(match place {
                ClusterPlace::Absent => 0,
                ClusterPlace::Plain(host) => host + self.geometry.cluster(),
                ClusterPlace::Packed { host, len } => host + len,
            });
            Ok(())
        })?;
        match self.storage.limits().fixed_len {
            true => Ok(end),
            false => Ok(len.max(end)),
        }
    }

    /// Truncates the file to `end`. If the file only grows, new data goes after everything there was, because what
    /// remains does not read as zeroes.
    pub(super) fn cut_behind(&self, end: u64) -> Result<()> {
        shorten::cut(&*self.storage, end)?;
        let end = match self.storage.limits().fixed_len {
            true => end,
            false => end.max(self.storage.len()?),
        };
        self.space.lock().set(end);
        self.file_len.store(end, Ordering::Release);
        Ok(())
    }

    /// Whether new space reads as zeroes.
    pub(super) fn is_fresh(&self) -> bool {
        let limits = self.storage.limits();
        limits.grown_is_zero && !limits.fixed_len && !self.encrypted
    }

    /// The table, which is created if there is none.
    pub(super) fn table_to_change(&self, index: u32) -> Result<Arc<Table>> {
        loop {
            if let Some(table) = self.table(index)? {
                return Ok(table);
            }
            let space = &mut *self.space.lock();
            let Some(entry) = self.l1.get(index as usize) else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("The image has no L2 table {index}"),
                ));
            };
            if entry.load(Ordering::Acquire) != 0 {
                continue;
            }
            let table = self.empty_table()?;
            memory::reserve(&mut space.new_tables, 1)?;
            let places = &mut *self.tables.write();
            if let Some(places) = places {
                memory::reserve(places, 1)?;
            }
            let len = self.geometry.table_len();
            let host = self.reserve_in(space, len, self.geometry.cluster())?;
            let epoch = self.cache.epoch();
            let Some(table) = self.cache.keep((0, index), table, epoch)? else {
                continue;
            };
            table.mark_dirty();
            if let Some(places) = places {
                // A new table is after all others, unless a damaged entry names something further back.
                let at = places.partition_point(|other| *other < host);
                places.insert(at, host);
            }
            entry.store(host, Ordering::Release);
            space.new_tables.push(index);
            self.is_dirty.store(true, Ordering::Release);
            return Ok(table);
        }
    }

    /// Changes an entry of a table.
    pub(super) fn set(&self, table: &Table, entry: u64, word: u64) {
        table.set(entry, word);
        self.is_dirty.store(true, Ordering::Release);
    }

    fn empty_table(&self) -> Result<Table> {
        let words = memory::filled(self.geometry.per_table() as usize, 0)?;
        Table::new(words.into_iter())
    }

    /// Writes tables if too many are waiting.
    pub(super) fn write_back_if_full(&self) -> Result<()> {
        match self.cache.is_full() {
            true => self.flush_all(self.durability),
            false => Ok(()),
        }
    }

    /// Makes everything written durable.
    fn sync(&self, durability: Durability) -> Result<()> {
        let result = self.storage.sync(durability);
        if result.is_err() {
            // The kernel may have dropped what it could not write; no later sync can make up for that.
            self.lost.store(true, Ordering::Release);
        }
        result
    }

    /// Everything written before reaches the disk before anything written after.
    pub(super) fn barrier(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.sync(Durability::Synced),
            _ => Ok(()),
        }
    }

    /// See [`crate::format::FormatWrite::flush`].
    pub(super) fn flush_all(&self, durability: Durability) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        if self.lost.load(Ordering::Acquire) {
            return Err(Error::writes_lost(self.storage.name()));
        }
        let _one = self.flushing.lock();
        // What changes from here on waits for the next flush.
        let was_dirty = self.is_dirty.swap(false, Ordering::AcqRel);
        let written = self.write_tables().and_then(|()| self.sync(durability));
        if written.is_err() && was_dirty {
            self.is_dirty.store(true, Ordering::Release);
        }
        written
    }

    /// How a flush would proceed.
    pub(super) fn try_flush_plan(&self, durability: Durability) -> FlushPlan {
        if self.read_only {
            return FlushPlan::Nothing;
        }
        // Held during the checks: a flush clears the mark before it writes anything.
        let idle = self.flushing.try_lock();
        if idle.is_none()
            || self.lost.load(Ordering::Acquire)
            || self.is_dirty.load(Ordering::Acquire)
        {
            return FlushPlan::Call;
        }
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    /// Extends the file to the end of what has been reserved.
    fn extend_file(&self) -> Result<()> {
        // Under the lock: what others reserve and write in the meantime must not be cut off.
        let space = self.space.lock();
        let next = space.next.unwrap_or(0);
        if !self.storage.limits().fixed_len && self.storage.len()? < next {
            self.storage.set_len(next, Preallocation::Off)?;
        }
        Ok(())
    }

    /// Writes the tables that were changed, once the data that they name is on disk.
    fn write_tables(&self) -> Result<()> {
        let new = self.space.lock().new_tables.len();
        let dirty = self.cache.dirty(0)?;
        if dirty.is_empty() && new == 0 {
            return Ok(());
        }
        // Copied before the data is made durable: what is added in the meantime waits for the next flush.
        let mut copies = Vec::new();
        let copied = dirty.iter().try_for_each(|(index, table)| {
            table.take_dirty();
            let bytes = memory::bytes_of(table.words())?;
            memory::push(&mut copies, (*index, bytes))
        });
        let written = copied.and_then(|()| {
            self.extend_file()?;
            self.barrier()?;
            for (index, bytes) in &copies {
                steps::announce(&*self.storage, Step::L2Update);
                self.storage.write_at(bytes, self.table_host(*index))?;
            }
            self.write_l1(new)
        });
        if written.is_err() {
            dirty.iter().for_each(|(_, table)| table.mark_dirty());
        }
        written
    }

    /// Makes the upper table name the first `new` of the new tables, which have been written.
    fn write_l1(&self, new: usize) -> Result<()> {
        if new == 0 {
            return Ok(());
        }
        self.barrier()?;
        let made = {
            let space = self.space.lock();
            let made = space.new_tables.get(..new).unwrap_or_default();
            memory::collect(made.iter().copied())?
        };
        for index in made {
            let entry = self.table_host(index).to_be_bytes();
            steps::announce(&*self.storage, Step::L1Update);
            self.storage
                .write_at(&entry, self.l1_offset + u64::from(index) * 8)?;
        }
        self.space.lock().new_tables.drain(..new);
        Ok(())
    }
}
