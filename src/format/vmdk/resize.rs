//! Changing the size: the last extent becomes longer or shorter, and parts are added or removed after it; missing
//! tables are placed after the grains.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{ExtentKind, StorageSlot};
use crate::format::behind::holds_data;
use crate::format::blocks::blocks_behind;
use crate::format::{AddedFiles, Below, Format, FormatWrite, Resize, ResizeFiles};
use crate::job::JobControl;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow, shorten, zero};

use super::create::make_part;
use super::disk::SparseHeader;
use super::disk::sparse_header::HEADER_LEN;
use super::division::Division;
use super::open::MAX_EXTENTS;
use super::parts::{Part, PartKind};
use super::source::hosted;
use super::sparse::{Grain, Places, Sparse, SparseInput};
use super::state::Vmdk;

/// Number of guest bytes per grain table of a part that is added.
const TABLE: u64 = 32 << 20;

/// Maximum size of both directories in bytes that is accepted when an image is opened.
const MAX_DIRECTORIES: u64 = 32 << 20;

impl Resize for Vmdk {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.resize_with(&AddedFiles::new(&[]), len, preallocation, below, control)
    }

    fn files(&self) -> Option<&dyn ResizeFiles> {
        Some(self)
    }
}

impl ResizeFiles for Vmdk {
    fn to_add(&self, len: u64) -> Result<Vec<BString>> {
        let more = self.division(len)?.more.into_iter();
        memory::collect(more.map(|(_, name)| name))
    }

    fn to_drop(&self, len: u64) -> Result<Vec<(BString, Arc<dyn Storage>)>> {
        let kept = self.division(len)?.kept;
        let stored = self.stored.lock();
        let mut files = Vec::new();
        for part in self.parts.iter().skip(kept) {
            let line = stored.descriptor.extents.get(part.line);
            if let (Some(line), Some(storage)) = (line, part.storage())
                && part.is_whole_file()
            {
                memory::push(&mut files, (line.name.clone(), storage.clone()))?;
            }
        }
        Ok(files)
    }

    fn resize_with(
        &self,
        added: &AddedFiles<'_>,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        let old = self.len();
        if len == old {
            return Ok(());
        }
        let division = self.division(len)?;
        if len < old {
            return self.shrink(&division, len);
        }
        if division.more.len() != added.files().len() {
            return Err(Error::unsupported(
                "The disk needs further files for that size",
            ));
        }
        let Some(part) = self.parts.last() else {
            return Ok(());
        };
        check_growth(part, division.last, preallocation, control)?;
        self.check_tables(part, &division)?;
        self.check_record(&division)?;
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        let grow = Growth {
            preallocation,
            below,
            control,
        };
        let earlier = match added.files().is_empty() {
            true => None,
            false => {
                let parts = self.with_parts(part, &division, added.files(), &grow)?;
                Some(self.parts.replace(parts)?)
            }
        };
        let grown = self.grow_last(part, &division, old..len, &grow, added);
        if grown.is_err() {
            self.len.store(old, Ordering::Release);
            if let Some(earlier) = earlier {
                self.parts.restore(earlier);
            }
        }
        grown
    }
}

/// How a disk grows.
struct Growth<'a> {
    preallocation: Preallocation,
    below: &'a dyn Below,
    control: &'a JobControl,
}

/// What the last part was before it was extended.
enum Before {
    /// It still has its size.
    Same,
    Flat(u64),
    Sparse(Longer),
}

/// Rejects what is not possible for the last part.
fn check_growth(
    part: &Part,
    new: u64,
    preallocation: Preallocation,
    control: &JobControl,
) -> Result<()> {
    match &part.kind {
        PartKind::Zero { .. } => Err(Error::unsupported(
            "A disk that ends in an extent of zeroes cannot be grown",
        )),
        PartKind::Sparse(_) | PartKind::Flat { .. } if preallocation == Preallocation::Metadata => {
            Err(Error::no_metadata_preallocation())
        }
        PartKind::Sparse(_) => Ok(()),
        PartKind::Flat {
            storage, offset, ..
        } => {
            let behind = offset + part.len()..storage.len()?;
            let is_lost = new > part.len()
                && !storage.limits().fixed_len
                && holds_data(&**storage, behind, |_| false, || control.checkpoint())?;
            match is_lost {
                true => Err(blocks_behind()),
                false => Ok(()),
            }
        }
    }
}

impl Vmdk {
    /// Cuts off what lies past the parts that stay.
    fn shrink(&self, division: &Division, len: u64) -> Result<()> {
        let Some(part) = division
            .kept
            .checked_sub(1)
            .and_then(|at| self.parts.get(at))
        else {
            return Ok(());
        };
        let (old, new) = (part.len(), division.last);
        if new < old && matches!(part.kind, PartKind::Zero { .. }) {
            return Err(Error::unsupported(
                "A disk that ends in an extent of zeroes keeps its size",
            ));
        }
        self.check_record(division)?;
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        let earlier = match division.is_cut {
            true => {
                let stay = self.parts.iter().take(division.kept);
                let stay = memory::collect(stay.cloned())?;
                Some(self.parts.replace(stay)?)
            }
            false => None,
        };
        // An extent may be longer than its line in the descriptor says, but not shorter.
        if let Err(error) = self.record(division) {
            if let Some(earlier) = earlier {
                self.parts.restore(earlier);
            }
            return Err(error);
        }
        self.len.store(len, Ordering::Release);
        match &part.kind {
            PartKind::Flat {
                storage,
                offset,
                len: part_len,
                ..
            } if new < old => {
                part_len.store(new, Ordering::Release);
                shorten::end_at(&**storage, offset + new)?;
            }
            PartKind::Sparse(sparse) if new < old => {
                sparse.len.store(new, Ordering::Release);
                sparse.publish(None, self.durability)?;
                sparse.give_up(new, old)?;
            }
            PartKind::Flat { .. } | PartKind::Sparse(_) | PartKind::Zero { .. } => {}
        }
        self.flush_all(self.durability)
    }

    /// Checks that the directories of all parts together are not larger than what is accepted when an image is opened.
    fn check_tables(&self, last: &Part, division: &Division) -> Result<()> {
        let PartKind::Sparse(sparse) = &last.kind else {
            return Ok(());
        };
        let held = |part: &Arc<Part>| match &part.kind {
            PartKind::Sparse(sparse) => sparse.directory.read().entries.len() as u64,
            PartKind::Flat { .. } | PartKind::Zero { .. } => 0,
        };
        let held: u64 = self.parts.iter().map(held).sum();
        let longer = division.last.div_ceil(sparse.grain * sparse.per_table);
        let longer = longer.saturating_sub(sparse.directory.read().entries.len() as u64);
        let more = division.more.iter();
        let more: u64 = more.map(|(bytes, _)| bytes.div_ceil(TABLE)).sum();
        match (held + longer + more).saturating_mul(8) > MAX_DIRECTORIES {
            true => Err(Error::new(
                ErrorKind::Limit,
                "The grain directory would become too large",
            )),
            false => Ok(()),
        }
    }

    /// The parts including those that are added, which are created in their files.
    fn with_parts(
        &self,
        last: &Part,
        division: &Division,
        added: &[Arc<dyn Storage>],
        grow: &Growth<'_>,
    ) -> Result<Vec<Arc<Part>>> {
        let mut parts = Vec::new();
        memory::reserve(&mut parts, self.parts.len() + added.len())?;
        parts.extend(self.parts.iter().cloned());
        let zeroed = match &last.kind {
            PartKind::Sparse(sparse) => Some(sparse.zeroed),
            PartKind::Flat { .. } | PartKind::Zero { .. } => None,
        };
        let mut start = last.start + division.last;
        for (n, ((bytes, _), storage)) in division.more.iter().zip(added).enumerate() {
            grow.control.checkpoint()?;
            let (mode, control) = (grow.preallocation, grow.control);
            let sectors = bytes / SECTOR;
            make_part(storage, sectors, zeroed, mode, control, self.durability)?;
            let slot = self.next_slot()?;
            let kind = match zeroed {
                None => PartKind::Flat {
                    slot,
                    storage: storage.clone(),
                    offset: 0,
                    len: AtomicU64::new(*bytes),
                },
                Some(_) => {
                    let place = SparseInput {
                        id: u32::from(slot.0),
                        slot,
                        storage,
                        cache: &self.cache,
                        file_len: storage.len()?,
                    };
                    let sparse = Sparse::hosted(&place, &hosted(&**storage)?)?;
                    PartKind::Sparse(Box::new(sparse))
                }
            };
            parts.push(memory::shared(Part {
                start,
                word: last.word,
                line: last.line + 1 + n,
                read_only: false,
                kind,
            })?);
            start += bytes;
        }
        Ok(parts)
    }

    /// A slot for another file. None is used twice, because requests may still refer to the previous file.
    fn next_slot(&self) -> Result<StorageSlot> {
        let slots = &mut *self.slots.lock();
        let next = slots
            .checked_add(1)
            .filter(|next| usize::from(*next) <= MAX_EXTENTS);
        *slots = next.ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                "The image had too many extents since it was opened; open it again",
            )
        })?;
        Ok(StorageSlot(*slots))
    }

    /// Extends the last part, fills the new range, and records everything in the descriptor.
    fn grow_last(
        &self,
        part: &Part,
        division: &Division,
        range: Range<u64>,
        grow: &Growth<'_>,
        added: &AddedFiles<'_>,
    ) -> Result<()> {
        let before = self.lengthen(part, division.last, grow)?;
        self.len.store(range.end, Ordering::Release);
        let placed = match (&part.kind, &before) {
            (PartKind::Sparse(sparse), Before::Sparse(change)) => self.give_places(sparse, change),
            _ => Ok(()),
        };
        let done = placed
            .and_then(|()| self.hide_below(range, grow.below))
            .and_then(|()| self.flush_all(self.durability))
            .and_then(|()| match (&part.kind, &before) {
                (PartKind::Sparse(sparse), Before::Sparse(change)) => {
                    sparse.publish(change.moved, self.durability)
                }
                _ => Ok(()),
            });
        let (done, is_old) = match done {
            Ok(()) => self.record_with(division, added),
            Err(error) => (Err(error), true),
        };
        if done.is_err() {
            self.take_back(part, &before, is_old);
        }
        done
    }

    /// Restores the size of the last part; on disk as well, if the old descriptor is in its place.
    fn take_back(&self, part: &Part, before: &Before, is_old: bool) {
        match (&part.kind, before) {
            (PartKind::Sparse(sparse), Before::Sparse(change)) => {
                sparse.shorten(change);
                if is_old {
                    // For programs that go by the size in the header. The error to report is the first one.
                    let _ = sparse.publish(None, self.durability);
                }
            }
            (PartKind::Flat { len, .. }, Before::Flat(old)) => len.store(*old, Ordering::Release),
            _ => {}
        }
    }

    fn lengthen(&self, part: &Part, new: u64, grow_as: &Growth<'_>) -> Result<Before> {
        let Growth {
            preallocation,
            control,
            ..
        } = *grow_as;
        let old = part.len();
        if new == old {
            return Ok(Before::Same);
        }
        match &part.kind {
            PartKind::Zero { .. } => Ok(Before::Same),
            PartKind::Flat {
                storage,
                offset,
                len,
                ..
            } => {
                // The new range has to read as zeroes.
                let end = offset + old;
                shorten::cut(&**storage, end)?;
                match storage.limits().fixed_len {
                    true => grow(&**storage, offset + new, preallocation, control)?,
                    false => extend(&**storage, end..offset + new, preallocation, control)?,
                }
                storage.sync(self.durability)?;
                len.store(new, Ordering::Release);
                Ok(Before::Flat(old))
            }
            PartKind::Sparse(sparse) => {
                // What may be cut off again must not contain the grain of another request.
                let _all = self.inflight.reserve(0..u64::MAX);
                let change = sparse.lengthen(new, preallocation, control)?;
                Ok(Before::Sparse(change))
            }
        }
    }

    /// Rejects a division that the descriptor cannot record, or not safely.
    fn check_record(&self, division: &Division) -> Result<()> {
        let stored = self.stored.lock();
        stored.check(&division.described(&stored.descriptor)?)
    }

    /// As [`Vmdk::record`]. The flag says whether the old descriptor is certainly in its place after a failure: then
    /// nothing refers to what was added.
    fn record_with(&self, division: &Division, added: &AddedFiles<'_>) -> (Result<()>, bool) {
        added.set_named(true);
        let recorded = self.record(division);
        if recorded.is_ok() {
            return (recorded, false);
        }
        let stored = &mut *self.stored.lock();
        let new = division.described(&stored.descriptor);
        let is_old = new.is_ok_and(|new| stored.take_back(&new, self.durability));
        added.set_named(!is_old);
        (recorded, is_old)
    }

    fn record(&self, division: &Division) -> Result<()> {
        let stored = &mut *self.stored.lock();
        let new = division.described(&stored.descriptor)?;
        stored.replace(new, self.durability)
    }

    /// Gives grains the space that was allocated for them, if there is any.
    fn give_places(&self, sparse: &Sparse, change: &Longer) -> Result<()> {
        let Some(room) = &change.room else {
            return Ok(());
        };
        let mut sector = room.start / SECTOR;
        let mut guest = change.old_len.next_multiple_of(sparse.grain);
        while sector < room.end / SECTOR {
            self.write_back_if_full()?;
            let (index, first) = sparse.indices(guest);
            let table = sparse.table_to_change(index)?;
            let left = (room.end / SECTOR - sector) * SECTOR / sparse.grain;
            for entry in first..sparse.per_table.min(first + left) {
                table.set(entry, sector);
                sector += sparse.grain / SECTOR;
                guest += sparse.grain;
            }
        }
        Ok(())
    }

    /// Zeroes what would become visible of a longer parent in the new range.
    fn hide_below(&self, range: Range<u64>, below: &dyn Below) -> Result<()> {
        let end = range.end.min(below.len_below());
        let mut at = range.start;
        while at < end {
            let run = self.map(at, end - at)?;
            if matches!(run.kind, ExtentKind::Unallocated { .. }) {
                self.write_zeroes(at, run.len, ZeroFlags::empty(), below)?;
            }
            at += run.len;
        }
        Ok(())
    }
}

/// What a longer extent has that is not on disk yet.
struct Longer {
    old_len: u64,
    /// Number of tables in the directory on disk.
    old_count: usize,
    /// Where the directories will be, if they have to move.
    moved: Option<Places>,
    /// Zeroed space in the file for all new grains, if they are to have their places at once.
    room: Option<Range<u64>>,
}

impl Sparse {
    /// Extends the extent in memory, while nothing on disk refers to the new part: the file gets space for the missing
    /// tables and, with preallocation, for the grains.
    fn lengthen(
        &self,
        new: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<Longer> {
        let old_len = self.len();
        let count = new.div_ceil(self.grain * self.per_table);
        if count * 8 > MAX_DIRECTORIES {
            return Err(Error::new(
                ErrorKind::Limit,
                "The grain directory would become too large",
            ));
        }
        let (old_count, copies) = {
            let directory = self.directory.read();
            // An empty directory is redundant if the header says so.
            let is_redundant = match directory.entries.is_empty() {
                true => directory.places.redundant != 0,
                false => !directory.redundant.is_empty(),
            };
            (directory.entries.len() as u64, 1 + u64::from(is_redundant))
        };
        let more = count.saturating_sub(old_count);
        let table = (self.per_table * self.word_len()).next_multiple_of(SECTOR);
        let tables = more * table;
        let directory = match more {
            0 => 0,
            _ => (count * 4).next_multiple_of(SECTOR),
        };
        let first = old_len.next_multiple_of(self.grain);
        let grains = match preallocation {
            Preallocation::Off => 0,
            _ => new.saturating_sub(first).next_multiple_of(self.grain),
        };
        self.zero_tail(old_len)?;
        // What an earlier shrink may have left past the end.
        let tables_end = old_count * self.per_table * self.grain;
        self.give_up(old_len, tables_end)?;
        self.write_copies(old_len, tables_end)?;
        let before = self.storage.len()?;
        let metadata = ((directory + tables) * copies).next_multiple_of(self.grain);
        let mut at = self.reserve(metadata + grains)?;
        let room = at + metadata..at + metadata + grains;
        let made = extend(&*self.storage, at..room.start, Preallocation::Off, control)
            .and_then(|()| extend(&*self.storage, room.clone(), preallocation, control));
        if let Err(error) = made {
            // Nothing refers to what was added; the error to report is the first one.
            let _ = self.cut(before);
            return Err(error);
        }
        let mut moved = None;
        if more > 0 {
            let mut take = |bytes: u64| {
                at += bytes;
                (at - bytes) / SECTOR
            };
            let held = &mut *self.directory.write();
            let old = old_count as usize;
            // Neither is extended unless there is memory for both.
            memory::reserve(&mut held.entries, count as usize - old)?;
            memory::reserve(&mut held.redundant, count as usize - old)?;
            let primary = take(directory);
            let first_table = take(tables);
            add_tables(&mut held.entries, count, first_table, table / SECTOR)?;
            let redundant = match copies {
                // Programs that look for the redundant one find this.
                1 if held.places.redundant != 0 => primary,
                1 => 0,
                _ => {
                    let redundant = take(directory);
                    let first_table = take(tables);
                    add_tables(&mut held.redundant, count, first_table, table / SECTOR)?;
                    redundant
                }
            };
            moved = Some(Places {
                primary,
                redundant,
                count: count as usize,
            });
        }
        self.len.store(new, Ordering::Release);
        Ok(Longer {
            old_len,
            old_count: old_count as usize,
            moved,
            room: (grains > 0).then_some(room),
        })
    }

    /// Removes the places of the grains between two guest offsets, except for one that begins before.
    fn give_up(&self, from: u64, to: u64) -> Result<()> {
        let mut at = from.next_multiple_of(self.grain);
        while at < to {
            let (index, first) = self.indices(at);
            let span = self.per_table * self.grain;
            let end = (at - at % span).saturating_add(span).min(to);
            if let Some(table) = self.table(index)? {
                for entry in first..first + (end - at).div_ceil(self.grain) {
                    if table.get(entry) != 0 {
                        table.set(entry, 0);
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Has the redundant copies of the tables between two guest offsets written by the next flush: past the end of the
    /// disk they are not compared.
    fn write_copies(&self, from: u64, to: u64) -> Result<()> {
        if self.directory.read().redundant.is_empty() {
            return Ok(());
        }
        let mut at = from.next_multiple_of(self.grain);
        while at < to {
            let (index, first) = self.indices(at);
            if let Some(table) = self.table(index)? {
                table.mark_dirty();
            }
            at += (self.per_table - first) * self.grain;
        }
        Ok(())
    }

    /// Undoes an extension. The space in the file stays: tables that were written may refer to it.
    fn shorten(&self, change: &Longer) {
        let longer = self.len();
        // If anything fails here, the header still has the old size.
        let _ = self.give_up(change.old_len, longer);
        self.len.store(change.old_len, Ordering::Release);
        let directory = &mut *self.directory.write();
        directory.entries.truncate(change.old_count);
        directory.redundant.truncate(change.old_count);
    }

    /// Restores the previous length of the file.
    fn cut(&self, len: u64) -> Result<()> {
        if !self.storage.limits().fixed_len {
            self.storage.set_len(len, Preallocation::Off)?;
        }
        self.changes.lock().next = len.max(self.overhead);
        self.file_len.store(len, Ordering::Release);
        Ok(())
    }

    /// Zeroes the rest of the last grain, which was past the end.
    fn zero_tail(&self, old_len: u64) -> Result<()> {
        let tail = old_len.next_multiple_of(self.grain) - old_len;
        if tail == 0 {
            return Ok(());
        }
        if let Grain::At(place) = self.lookup(old_len - 1)? {
            let offset = place + old_len % self.grain;
            self.storage
                .write_zeroes(offset, tail, ZeroFlags::empty())?;
        }
        Ok(())
    }

    /// Records the new size, and the new places of the directories, in the header.
    fn publish(&self, moved: Option<Places>, durability: Durability) -> Result<()> {
        if let Some(places) = moved {
            let directory = &mut *self.directory.write();
            for (entries, sector) in [
                (&directory.redundant, places.redundant),
                (&directory.entries, places.primary),
            ] {
                let mut bytes = memory::zeroed(entries.len() * 4)?;
                for (place, entry) in bytes.chunks_exact_mut(4).zip(entries) {
                    place.copy_from_slice(&entry.to_le_bytes());
                }
                if !bytes.is_empty() {
                    self.storage.write_at(&bytes, sector * SECTOR)?;
                }
            }
            self.storage.sync(durability)?;
            directory.places = places;
        }
        let mut bytes = [0; HEADER_LEN];
        self.storage.read_at(&mut bytes, 0)?;
        let places = self.directory.read().places;
        let new = SparseHeader {
            capacity: self.len() / SECTOR,
            redundant: places.redundant,
            directory: places.primary,
            ..SparseHeader::from_bytes(&bytes)?
        }
        .to_bytes();
        // Only known fields change.
        for range in [12..20, 48..64] {
            if let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), new.get(range)) {
                to.copy_from_slice(from);
            }
        }
        self.storage.write_at(&bytes, 0)?;
        self.storage.sync(durability)
    }
}

/// Makes a range of a file read as zeroes, with the requested preallocation.
fn extend(
    storage: &dyn Storage,
    range: Range<u64>,
    preallocation: Preallocation,
    control: &JobControl,
) -> Result<()> {
    let len = storage.len()?;
    if range.is_empty() {
        return Ok(());
    }
    if storage.limits().fixed_len || !storage.limits().grown_is_zero || len > range.start {
        if !storage.limits().fixed_len && len < range.end {
            grow(storage, range.end, preallocation, control)?;
        }
        return zero(storage, range.start, range.end, ZeroFlags::empty(), control);
    }
    if len < range.start {
        storage.set_len(range.start, Preallocation::Off)?;
    }
    grow(storage, range.end, preallocation, control)
}

/// Adds consecutive tables of `sectors` sectors each, up to a total of `count`.
fn add_tables(entries: &mut Vec<u32>, count: u64, first: u64, sectors: u64) -> Result<()> {
    let old = entries.len();
    memory::resize(entries, count as usize, 0)?;
    let mut sector = first;
    for entry in entries.iter_mut().skip(old) {
        // Reserved space never extends past 32 bits.
        *entry = sector as u32;
        sector += sectors;
    }
    Ok(())
}
