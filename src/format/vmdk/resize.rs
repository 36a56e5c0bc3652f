//! Another size: the last extent gets longer or shorter; tables that it lacks follow the grains.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ExtentKind;
use crate::format::{Below, Format, FormatWrite, Resize};
use crate::job::JobControl;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow, zero};

use super::disk::SparseHeader;
use super::disk::sparse_header::HEADER_LEN;
use super::parts::{Part, PartKind};
use super::sparse::{Grain, Places, Sparse};
use super::state::Vmdk;

/// Where disks in parts begin another part.
const PART: u64 = 2 << 30;

/// The most bytes of both directories that whoever opens an image takes.
const MAX_DIRECTORIES: u64 = 32 << 20;

impl Resize for Vmdk {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        let old = self.len();
        if len == old {
            return Ok(());
        }
        let Some(part) = self.parts.last().filter(|_| len.is_multiple_of(SECTOR)) else {
            return Err(Error::unsupported(
                "A disk without an extent keeps its size",
            ));
        };
        if len < old {
            return self.shrink(part, len);
        }
        let new = len - part.start;
        self.check_parts(new)?;
        self.check_record(part, new)?;
        self.prepare_write()?;
        match &part.kind {
            PartKind::Zero { .. } => {
                return Err(Error::unsupported(
                    "A disk that ends in an extent of zeroes cannot be grown",
                ));
            }
            PartKind::Flat {
                storage,
                offset,
                len: part_len,
                ..
            } => {
                // What is new has to read as zeroes.
                let end = offset + part.len();
                let has = storage.len()?;
                if has > end && !storage.limits().fixed_len {
                    storage.set_len(end, Preallocation::Off)?;
                }
                grow(&**storage, offset + new, preallocation, control)?;
                storage.sync(self.durability)?;
                self.record_len(part, new)?;
                part_len.store(new, Ordering::Release);
            }
            PartKind::Sparse(sparse) => {
                if preallocation == Preallocation::Metadata {
                    return Err(Error::unsupported(
                        "Unsupported preallocation mode: metadata",
                    ));
                }
                self.flush_all(self.durability)?;
                let change = {
                    // What is cut off again must not be a grain of somebody else.
                    let _all = self.inflight.reserve(0..u64::MAX);
                    sparse.lengthen(new, preallocation, control)?
                };
                self.len.store(len, Ordering::Release);
                let done = self
                    .give_places(sparse, &change)
                    .and_then(|()| self.hide_below(old..len, below))
                    .and_then(|()| self.flush_all(self.durability))
                    .and_then(|()| sparse.publish(&change, self.durability));
                if let Err(error) = done {
                    sparse.shorten(&change);
                    self.len.store(old, Ordering::Release);
                    return Err(error);
                }
                self.record_len(part, new)?;
            }
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}

impl Vmdk {
    /// Cuts off what lies behind `len`; only within the last extent.
    fn shrink(&self, part: &Part, len: u64) -> Result<()> {
        let Some(new) = len.checked_sub(part.start).filter(|new| *new > 0) else {
            return Err(Error::unsupported(
                "A disk cannot be made shorter than its last extent allows: extents are not removed",
            ));
        };
        self.check_record(part, new)?;
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        match &part.kind {
            PartKind::Zero { .. } => {
                return Err(Error::unsupported(
                    "A disk that ends in an extent of zeroes keeps its size",
                ));
            }
            PartKind::Flat {
                storage,
                offset,
                len: part_len,
                ..
            } => {
                self.record_len(part, new)?;
                part_len.store(new, Ordering::Release);
                self.len.store(len, Ordering::Release);
                if !storage.limits().fixed_len {
                    storage.set_len(offset + new, Preallocation::Off)?;
                }
            }
            PartKind::Sparse(sparse) => {
                // An extent may be longer than its line in the descriptor says, and not shorter.
                self.record_len(part, new)?;
                let old_len = sparse.len();
                sparse.len.store(new, Ordering::Release);
                self.len.store(len, Ordering::Release);
                let change = Longer {
                    old_len,
                    old_count: sparse.directory.read().entries.len(),
                    moved: None,
                    room: None,
                };
                sparse.publish(&change, self.durability)?;
                sparse.give_up(new, old_len)?;
            }
        }
        self.flush_all(self.durability)
    }

    /// A disk in parts would need further files.
    fn check_parts(&self, new: u64) -> Result<()> {
        let kind = self
            .stored
            .lock()
            .descriptor
            .create_type
            .to_ascii_lowercase();
        let in_parts = kind.windows(11).any(|word| word == b"gbmaxextent");
        match in_parts && new > PART {
            true => Err(Error::unsupported(
                "The last part of the disk cannot have more than 2 GiB, and parts are not added",
            )),
            false => Ok(()),
        }
    }

    /// Refuses a length that the descriptor cannot say, or not safely.
    fn check_record(&self, part: &Part, len: u64) -> Result<()> {
        let stored = self.stored.lock();
        stored.check(&stored.descriptor.with_sectors(part.line, len / SECTOR)?)
    }

    fn record_len(&self, part: &Part, len: u64) -> Result<()> {
        let mut stored = self.stored.lock();
        let new = stored.descriptor.with_sectors(part.line, len / SECTOR)?;
        stored.replace(new, self.durability)
    }

    /// Gives grains the room that was made for them, where it was.
    fn give_places(&self, sparse: &Sparse, change: &Longer) -> Result<()> {
        let Some(room) = &change.room else {
            return Ok(());
        };
        let mut sector = room.start / SECTOR;
        let mut guest = change.old_len.next_multiple_of(sparse.grain);
        while sector < room.end / SECTOR {
            self.relieve()?;
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

    /// Zeroes what a longer parent would show in the new range.
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
    /// Tables that the directory on disk names.
    old_count: usize,
    /// Where the directories are to be, if they had to move.
    moved: Option<Places>,
    /// Zeroes in the file for all new grains, if they are to have their places at once.
    room: Option<Range<u64>>,
}

impl Sparse {
    /// Makes the extent longer in memory, where nothing on disk points yet: the file gets room for the tables
    /// that it lacks, and with preallocation for the grains.
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
            let copies = 1 + u64::from(!directory.redundant.is_empty());
            (directory.entries.len() as u64, copies)
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
        // What an earlier shrink may have left behind the end.
        self.give_up(old_len, old_count * self.per_table * self.grain)?;
        let before = self.storage.len()?;
        let metadata = ((directory + tables) * copies).next_multiple_of(self.grain);
        let mut at = self.reserve(metadata + grains)?;
        let room = at + metadata..at + metadata + grains;
        let made = extend(&*self.storage, at..room.start, Preallocation::Off, control)
            .and_then(|()| extend(&*self.storage, room.clone(), preallocation, control));
        if let Err(error) = made {
            // Nothing names what was added; the error to report is the first one.
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
            // Neither gets longer where there is no memory for both.
            memory::reserve(&mut held.entries, count as usize - old)?;
            memory::reserve(&mut held.redundant, count as usize - old)?;
            let primary = take(directory);
            let first_table = take(tables);
            add_tables(&mut held.entries, count, first_table, table / SECTOR)?;
            let redundant = match copies {
                1 => held.places.redundant,
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

    /// Takes their places from the grains between two guest offsets, but for one that begins before.
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

    /// Forgets what was made longer. The room in the file stays: tables that were written may name it.
    fn shorten(&self, change: &Longer) {
        let longer = self.len();
        // Whatever fails here, the header still has the old size.
        let _ = self.give_up(change.old_len, longer);
        self.len.store(change.old_len, Ordering::Release);
        let directory = &mut *self.directory.write();
        directory.entries.truncate(change.old_count);
        directory.redundant.truncate(change.old_count);
    }

    /// Ends the file where it ended before.
    fn cut(&self, len: u64) -> Result<()> {
        if !self.storage.limits().fixed_len {
            self.storage.set_len(len, Preallocation::Off)?;
        }
        self.changes.lock().next = len.max(self.overhead);
        self.file_len.store(len, Ordering::Release);
        Ok(())
    }

    /// The rest of the last grain was beyond the end.
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

    /// Lets the header name the new size, and the directories where they are to be.
    fn publish(&self, change: &Longer, durability: Durability) -> Result<()> {
        if let Some(places) = change.moved {
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
        // Only what is known changes.
        for range in [12..20, 48..64] {
            if let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), new.get(range)) {
                to.copy_from_slice(from);
            }
        }
        self.storage.write_at(&bytes, 0)?;
        self.storage.sync(durability)
    }
}

/// Makes the range of a file read as zeroes, with the room asked for.
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

/// Adds tables that stand in a row, each of so many sectors, up to `count` of them.
fn add_tables(entries: &mut Vec<u32>, count: u64, first: u64, sectors: u64) -> Result<()> {
    let old = entries.len();
    memory::resize(entries, count as usize, 0)?;
    let mut sector = first;
    for entry in entries.iter_mut().skip(old) {
        // What is reserved ends where 32 bits do.
        *entry = sector as u32;
        sector += sectors;
    }
    Ok(())
}
