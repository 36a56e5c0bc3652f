//! Space for new grains: after everything else in the file. A grain that has a place keeps it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, shorten};

use super::disk::marker::{Special, special};
use super::disk::sparse_header::UNCLEAN_AT;
use super::sparse::{Changes, Grain, Kind, Sparse, TablePlace};
use crate::format::table_cache::Table;

/// No table can refer to a sector past this one.
const MAX_SECTOR: u64 = u32::MAX as u64;

impl Sparse {
    /// Whether it can be written to: it is hosted, and nothing in it has to stay at the end of the file.
    pub(super) fn takes_writes(&self) -> bool {
        let front = || self.directory.read().places.primary.saturating_mul(SECTOR) < self.overhead;
        matches!(self.kind, Kind::Hosted) && !self.has_footer && (!self.compressed || front())
    }

    /// Reserves sectors for a compressed grain, in place of the end-of-stream marker.
    pub(super) fn reserve_row(&self, len: u64) -> Result<u64> {
        let mut changes = self.changes.lock();
        self.reserve_from(&mut changes, len, SECTOR)
    }

    /// Where the next byte goes: after everything else.
    fn end(&self) -> Result<u64> {
        let len = self.storage.len()?;
        let last = len.saturating_sub(SECTOR);
        if self.compressed && last >= self.overhead {
            let mut bytes = [0; SECTOR as usize];
            self.storage.read_at(&mut bytes, last)?;
            if bytes == special(Special::EndOfStream, 0) {
                return Ok(last);
            }
        }
        Ok(len.max(self.overhead))
    }

    /// Reserves bytes that are not in use, a multiple of a grain.
    pub(super) fn reserve(&self, len: u64) -> Result<u64> {
        let mut changes = self.changes.lock();
        self.reserve_in(&mut changes, len)
    }

    fn reserve_in(&self, changes: &mut Changes, len: u64) -> Result<u64> {
        self.reserve_from(changes, len, self.grain)
    }

    fn reserve_from(&self, changes: &mut Changes, len: u64, unit: u64) -> Result<u64> {
        if changes.next == 0 {
            changes.next = self.end()?;
        }
        let start = changes.next.checked_next_multiple_of(unit);
        let len = len.checked_next_multiple_of(unit);
        let place = start.zip(len).and_then(|(start, len)| {
            let end = start.checked_add(len)?;
            (end / SECTOR <= MAX_SECTOR).then_some((start, end))
        });
        let Some((start, end)) = place else {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "'{}' would grow past 2 TiB, beyond which no grain table points",
                    self.storage.name()
                ),
            ));
        };
        changes.next = end;
        self.note_len(end);
        Ok(start)
    }

    /// The table, which is created if there is none.
    pub(super) fn table_to_change(&self, index: u32) -> Result<Arc<Table>> {
        loop {
            if let Some(table) = self.table(index)? {
                return Ok(table);
            }
            let changes = &mut *self.changes.lock();
            let old = self.table_place(index)?;
            if matches!(old, TablePlace::At(_)) {
                continue;
            }
            let directory_len = self.directory.read().entries.len();
            if index as usize >= directory_len {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("The extent has no grain table {index}"),
                ));
            }
            let bytes = (self.per_table * self.word_len()).next_multiple_of(SECTOR);
            let copies = 1 + u64::from(!self.directory.read().redundant.is_empty());
            let start = match self.compressed {
                false => self.reserve_in(changes, bytes * copies)?,
                true => {
                    let marker = self.reserve_from(changes, SECTOR + bytes * copies, SECTOR)?;
                    let bytes = special(Special::Table, bytes * copies / SECTOR);
                    self.storage.write_at(&bytes, marker)?;
                    marker + SECTOR
                }
            };
            crate::memory::reserve(&mut changes.new_tables, 1)?;
            let word = u64::from(old == TablePlace::Zero);
            let words = crate::memory::filled(self.per_table as usize, word)?;
            let table = Table::new(words.into_iter())?;
            let Some(table) = self
                .cache
                .keep((self.id, index), table, self.cache.epoch())?
            else {
                continue;
            };
            table.mark_dirty();
            let directory = &mut *self.directory.write();
            let place = |sectors: u64| (start / SECTOR + sectors) as u32;
            if let Some(entry) = directory.entries.get_mut(index as usize) {
                *entry = place(0);
            }
            if let Some(entry) = directory.redundant.get_mut(index as usize) {
                *entry = place(bytes / SECTOR);
            }
            changes.new_tables.push(index);
            return Ok(table);
        }
    }

    /// Returns those at the beginning of `grains` that have no place yet: absent or zero.
    pub(super) fn without_place(
        &self,
        table: &Table,
        first: u64,
        grains: Range<u64>,
    ) -> Result<Vec<Grain>> {
        let mut found = Vec::new();
        for (n, grain) in grains.enumerate() {
            let held = self.grain_of(table.get(first + n as u64), grain * self.grain)?;
            if matches!(held, Grain::At(_)) {
                break;
            }
            crate::memory::push(&mut found, held)?;
        }
        Ok(found)
    }

    /// Writes the tables that have changed, after the data that they refer to.
    ///
    /// # Errors
    /// If I/O fails; what was not written is written by the next call.
    pub(super) fn flush(&self, durability: Durability) -> Result<()> {
        // Tables that are created from here on wait for the next call, as do changes in them.
        let new = self.changes.lock().new_tables.len();
        let dirty = self.cache.dirty(self.id)?;
        if dirty.is_empty() && new == 0 {
            return self.storage.sync(durability);
        }
        self.mark_unclean()?;
        // Copied before the data is made durable: what is added in the meantime waits for the next call.
        let mut copies = Vec::new();
        let copied = dirty.iter().try_for_each(|(index, table)| {
            table.take_dirty();
            let words = table.words();
            let mut bytes = Vec::new();
            crate::memory::reserve(&mut bytes, words.len() * 4)?;
            bytes.extend(words.flat_map(|word| (word as u32).to_le_bytes()));
            crate::memory::push(&mut copies, (*index, bytes))
        });
        let written = copied.and_then(|()| self.write_tables(&copies, new, durability));
        if written.is_err() {
            dirty.iter().for_each(|(_, table)| table.mark_dirty());
        }
        written
    }

    /// Extends the file to include everything that was reserved.
    fn extend_file(&self) -> Result<()> {
        // Under the lock: what others reserve and write in the meantime must not be cut off.
        let changes = self.changes.lock();
        if !self.storage.limits().fixed_len && self.storage.len()? < changes.next {
            self.storage.set_len(changes.next, Preallocation::Off)?;
        }
        Ok(())
    }

    fn write_tables(
        &self,
        tables: &[(u32, Vec<u8>)],
        new: usize,
        durability: Durability,
    ) -> Result<()> {
        self.extend_file()?;
        self.storage.sync(durability)?;
        for (index, bytes) in tables {
            for place in self.copies(*index) {
                self.storage.write_at(bytes, place)?;
            }
        }
        if new > 0 {
            self.storage.sync(durability)?;
            self.write_directory(new)?;
        }
        self.storage.sync(durability)
    }

    /// Offsets of a table, that of the redundant copy first; those where no table can be are left out.
    pub(super) fn copies(&self, index: u32) -> impl Iterator<Item = u64> {
        self.copy_places(index).into_iter().flatten()
    }

    /// Offsets of the redundant copy of a table and of the primary one; `None` where no table can be.
    pub(super) fn copy_places(&self, index: u32) -> [Option<u64>; 2] {
        self.named_places(index)
            .map(|place| place.filter(|place| self.check_table_place(*place).is_ok()))
    }

    /// Offsets of a table according to both directories, the redundant one first.
    pub(super) fn named_places(&self, index: u32) -> [Option<u64>; 2] {
        let primary = match self.table_place(index) {
            Ok(TablePlace::At(place)) => Some(place),
            _ => None,
        };
        let directory = self.directory.read();
        let redundant = directory.redundant.get(index as usize);
        let redundant = redundant.filter(|entry| **entry > 1);
        [redundant.map(|entry| u64::from(*entry) * SECTOR), primary]
    }

    /// Gives a table another place, in the redundant directory (0) or the primary one (1), and `words` as its content;
    /// the next flush writes it.
    pub(super) fn place_again(&self, index: u32, copy: usize, words: &[u32]) -> Result<()> {
        let bytes = (self.per_table * self.word_len()).next_multiple_of(SECTOR);
        let changes = &mut *self.changes.lock();
        crate::memory::reserve(&mut changes.new_tables, 1)?;
        let table = match self.cache.get((self.id, index)) {
            Some(table) => table,
            None => {
                let table = Table::new(words.iter().map(|word| u64::from(*word)))?;
                let kept = self
                    .cache
                    .keep((self.id, index), table, self.cache.epoch())?;
                kept.ok_or_else(|| Error::new(ErrorKind::Busy, "The grain tables are in use"))?
            }
        };
        let place = self.reserve_in(changes, bytes)?;
        let directory = &mut *self.directory.write();
        let entries = match copy {
            0 => &mut directory.redundant,
            _ => &mut directory.entries,
        };
        if let Some(entry) = entries.get_mut(index as usize) {
            *entry = (place / SECTOR) as u32;
        }
        changes.new_tables.push(index);
        table.mark_dirty();
        Ok(())
    }

    /// Removes the copy of a table from the redundant directory.
    pub(super) fn drop_copy(&self, index: u32) -> Result<()> {
        let changes = &mut *self.changes.lock();
        crate::memory::push(&mut changes.new_tables, index)?;
        let directory = &mut *self.directory.write();
        if let Some(entry) = directory.redundant.get_mut(index as usize) {
            *entry = 0;
        }
        Ok(())
    }

    /// Writes the directory entries of the first `new` tables that were created.
    fn write_directory(&self, new: usize) -> Result<()> {
        // They stay in the list until all are written; what is added in the meantime comes after them.
        let made = |n: usize| self.changes.lock().new_tables.get(n).copied();
        for index in (0..new).map_while(made) {
            let (entry, redundant, places) = {
                let directory = self.directory.read();
                let of = |entries: &[u32]| entries.get(index as usize).copied();
                (
                    of(&directory.entries),
                    of(&directory.redundant),
                    directory.places,
                )
            };
            let at = u64::from(index) * 4;
            for (entry, sector) in [(redundant, places.redundant), (entry, places.primary)] {
                if let Some(entry) = entry {
                    self.storage
                        .write_at(&entry.to_le_bytes(), sector * SECTOR + at)?;
                }
            }
        }
        self.changes.lock().new_tables.drain(..new);
        Ok(())
    }

    /// Marks the extent as open for writing in its header.
    fn mark_unclean(&self) -> Result<()> {
        {
            let changes = self.changes.lock();
            if changes.marked || changes.was_unclean {
                return Ok(());
            }
        }
        self.storage.write_at(&[1], UNCLEAN_AT)?;
        self.changes.lock().marked = true;
        Ok(())
    }

    /// Marks the extent as closed in its header, once everything has been written.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn mark_clean(&self, durability: Durability) -> Result<()> {
        if !self.changes.lock().marked {
            return Ok(());
        }
        let next = self.changes.lock().next;
        if self.compressed && next > 0 {
            self.storage
                .write_at(&special(Special::EndOfStream, 0), next)?;
            self.storage.sync(durability)?;
        }
        self.storage.write_at(&[0], UNCLEAN_AT)?;
        self.storage.sync(durability)?;
        self.changes.lock().marked = false;
        Ok(())
    }

    /// Discards all grains.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn make_empty(&self, durability: Durability) -> Result<()> {
        self.flush(durability)?;
        self.mark_unclean()?;
        self.storage.sync(durability)?;
        let zeroes = crate::memory::zeroed((self.per_table * self.word_len()) as usize)?;
        let count = self.directory.read().entries.len();
        let mut end = self.overhead.max(self.directory_end());
        end = end.max(self.head.end).max(self.descriptor.end);
        for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            for place in self.copies(index) {
                end = end.max(place + zeroes.len() as u64);
                self.storage.write_at(&zeroes, place)?;
            }
        }
        self.cache.clear();
        self.storage.sync(durability)?;
        let changes = &mut *self.changes.lock();
        // A header may claim that its metadata ends anywhere.
        let end = end.checked_next_multiple_of(self.grain).unwrap_or(end);
        if count > 0 && shorten::can_cut(&*self.storage, end) {
            shorten::cut(&*self.storage, end)?;
            changes.next = end;
            self.forget_len(end);
        }
        Ok(())
    }

    /// End of the directories, which may have been moved past the grains.
    fn directory_end(&self) -> u64 {
        let directory = self.directory.read();
        let sector = directory.places.primary.max(directory.places.redundant);
        let bytes = directory.entries.len() as u64 * 4;
        sector.saturating_mul(SECTOR).saturating_add(bytes)
    }

    fn note_len(&self, len: u64) {
        self.file_len.fetch_max(len, Ordering::AcqRel);
    }

    fn forget_len(&self, len: u64) {
        self.file_len.store(len, Ordering::Release);
    }
}
