//! Changes to the whole table, during which nothing else remaps blocks and blocks may move.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::format::inflight::Reservation;
use crate::job::JobControl;
use crate::memory;
use crate::storage::Storage;

use super::places::Places;
use super::{BAD, Blocks, Entry, FREE, Keeper, Layout, Table, no_place};

/// Number of blocks to copy before a barrier, after which the table names the copies.
const BATCH: usize = 64;

/// Maximum number of unused places to track at once.
const MOST_ROOMS: usize = 1 << 16;

/// Size of the pieces in which data is copied.
const PIECE: u64 = 1 << 20;

/// While it exists, nothing else changes where blocks are, and no write is in progress.
pub(crate) struct Exclusive<'a, K: Keeper> {
    blocks: &'a Blocks<K>,
    _mine: Reservation<'a>,
    _one: MutexGuard<'a, ()>,
}

impl<K: Keeper> Drop for Exclusive<'_, K> {
    fn drop(&mut self) {
        self.blocks.moving.store(false, Ordering::SeqCst);
    }
}

impl<K: Keeper> Blocks<K> {
    /// Waits until no other change is in progress, and blocks new ones.
    pub(crate) fn exclusive(&self) -> Exclusive<'_, K> {
        let one = self.reshaping.lock();
        self.moving.store(true, Ordering::SeqCst);
        let mine = self.inflight.reserve(0..u64::MAX);
        // Wait for writes in place that began before they could see that blocks are moving.
        self.users.wait();
        Exclusive {
            blocks: self,
            _mine: mine,
            _one: one,
        }
    }
}

/// A block that has been copied, with its new offset.
#[derive(Clone, Copy, Debug)]
struct Moved {
    host: u64,
    index: u64,
}

/// Where the blocks are, none of which overlaps another.
#[derive(Debug)]
struct Occupied {
    /// Including their leads.
    places: Places,
    blocks: u64,
    /// The end of the last one; 0 if there is none.
    end: u64,
}

/// What is found on the way from the first block to the last.
#[derive(Clone, Copy, Debug)]
enum Met {
    Block(u64),
    /// Unused space for a block whose data would be there.
    Room(u64),
}

impl<K: Keeper> Exclusive<'_, K> {
    /// Frees the entries from `first` on, durably, in the existing table; returns whether any of them was not free.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn free_from(&self, first: u64, control: &JobControl) -> Result<bool> {
        let any = self.rewrite(control, |index, word| match index < first {
            true => word,
            false => FREE,
        })?;
        self.blocks.flush(self.blocks.durability)?;
        Ok(any)
    }

    /// Frees what an interrupted shrink, or another program, left past the end of the disk, from entry `first` on,
    /// before the disk grows over it; the space is returned to the host.
    ///
    /// # Errors
    /// As [`Exclusive::pack`].
    pub(crate) fn clear_behind(&self, first: u64, control: &JobControl) -> Result<()> {
        match self.free_from(first, control)? {
            true => self.pack(control),
            false => Ok(()),
        }
    }

    /// Replaces entries that are not free by what `convert` returns: free or zero. Entries that are not in memory are
    /// changed on disk at once, so that memory use does not grow with the table; the others by the next flush. Returns
    /// whether anything changed.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn rewrite(
        &self,
        control: &JobControl,
        convert: impl Fn(u64, u32) -> u32,
    ) -> Result<bool> {
        let blocks = self.blocks;
        let (mut any, mut from) = (false, 0);
        loop {
            control.checkpoint()?;
            let (page, known, first) = {
                let table = &blocks.state.read().table;
                let Some(page) = table.next_page(from) else {
                    return Ok(any);
                };
                (page, table.words_of(page)?, table.first_of(page))
            };
            from = page + 1;
            let is_known = known.is_some();
            let mut words = match known {
                Some(words) => words,
                None => blocks.read_page(page)?.0,
            };
            let mut changed = Vec::new();
            for (index, word) in (first..).zip(&mut words) {
                let new = match *word {
                    FREE => FREE,
                    word => convert(index, word),
                };
                if new != *word {
                    *word = new;
                    memory::push(&mut changed, (index, new))?;
                }
            }
            any |= !changed.is_empty();
            if is_known {
                for (index, word) in changed {
                    self.set(index, word)?;
                }
            } else if !changed.is_empty() {
                self.write_page(page, &words, &changed)?;
            }
        }
    }

    /// Writes a page that is not in memory.
    fn write_page(&self, page: u64, words: &[u32], changed: &[(u64, u32)]) -> Result<()> {
        let blocks = self.blocks;
        let (place, coding) = {
            let table = &blocks.state.read().table;
            (table.place_of(page).ok_or_else(no_place)?, table.coding())
        };
        let mut bytes = memory::zeroed((place.end - place.start) as usize)?;
        let entries = bytes.chunks_exact_mut(coding.len() as usize);
        for (entry, word) in entries.zip(words) {
            coding.put(*word, entry);
        }
        blocks.storage.write_at(&bytes, place.start)?;
        // A reader may have been holding the page, or have loaded it in the meantime.
        let state = &mut *blocks.state.write();
        state.generation += 1;
        for (index, word) in changed {
            state.table.set(*index, *word);
        }
        Ok(())
    }

    /// Frees all entries, durably. If the table is in parts, none of them has a place any more.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn free_all(&self, control: &JobControl) -> Result<()> {
        let blocks = self.blocks;
        let parts = blocks.with_directory(|known| known.words().len() as u64);
        let Some(parts) = parts else {
            return self.free_from(0, control).map(drop);
        };
        blocks.flush(blocks.durability)?;
        let free = no_places(0..parts)?;
        self.write_parts(&free)?;
        blocks.dirty.lock().clear();
        let state = &mut *blocks.state.write();
        state.table.forget();
        state.generation += 1;
        Ok(())
    }

    /// Writes these numbers to the directory on disk, durably.
    fn write_parts(&self, numbers: &[(u64, u32)]) -> Result<()> {
        self.blocks.write_parts(numbers)?;
        self.blocks.barrier()
    }

    /// Detaches a part of the table from its place on disk: its entries stay, and get a new place with the next flush.
    ///
    /// # Errors
    /// If reading it fails.
    pub(crate) fn detach_part(&self, part: u64) -> Result<()> {
        let blocks = self.blocks;
        let per_table = blocks.with_directory(|known| known.per_table).unwrap_or(0);
        let entries = part * per_table..(part + 1) * per_table;
        blocks.make_settable(entries.start, per_table)?;
        // From here on, a flush allocates space for it.
        blocks.set_parts(&[(part, FREE)]);
        let mut is_empty = true;
        for index in entries {
            let word = blocks.state.read().table.get(index).unwrap_or(FREE);
            match word {
                FREE => {}
                BAD => blocks.set(index, FREE),
                word => {
                    is_empty = false;
                    blocks.set(index, word);
                }
            }
        }
        // No flush writes a part without blocks, so the directory would name the old place for ever.
        match is_empty {
            true => {
                self.drop_parts([part].into_iter())?;
                blocks.state.write().table.forget_part(part)
            }
            false => Ok(()),
        }
    }

    /// Accepts the place that the directory on disk gives for a part of the table, which could not be trusted before.
    ///
    /// # Errors
    /// If the directory cannot name the place.
    pub(crate) fn believe_part(&self, part: u64, host: u64) -> Result<()> {
        let number = self.blocks.with_directory(|known| known.number(host));
        let number = number.flatten().ok_or_else(no_place)?;
        self.blocks.set_parts(&[(part, number)]);
        Ok(())
    }

    /// Replaces parts of the table whose places are unknown by empty ones, durably.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn drop_parts(&self, parts: impl ExactSizeIterator<Item = u64>) -> Result<()> {
        let free = memory::collect(parts.map(|part| (part, FREE)))?;
        self.write_parts(&free)?;
        self.blocks.set_parts(&free);
        Ok(())
    }

    /// Places the parts of the table one after the other in front of the blocks, durably.
    ///
    /// # Errors
    /// If I/O fails; the image is intact then, but contains unused space.
    pub(crate) fn gather_parts(&self, control: &JobControl) -> Result<()> {
        let blocks = self.blocks;
        blocks.flush(blocks.durability)?;
        let known = blocks.with_directory(|known| {
            let parts = (0..known.words().len() as u64).filter(|part| known.host(*part).is_some());
            let mut held = Vec::new();
            for part in parts {
                memory::push(&mut held, part)?;
            }
            Ok((held, known.table_len(), known.own()))
        });
        let Some((parts, len, own)) = known.transpose()? else {
            return Ok(());
        };
        let start = blocks.layout().start();
        let mut places = Vec::new();
        let mut at = start;
        for _ in &parts {
            if at < own + len && own < at + len {
                at = own + len;
            }
            memory::push(&mut places, at)?;
            at += len;
        }
        let end = self.end()?.max(at);
        self.reserve_up_to(end)?;
        // First out of the way, then to the front, where nothing is left.
        for part in &parts {
            control.checkpoint()?;
            self.move_part(*part, None)?;
        }
        self.move_away(at, control)?;
        for (part, place) in parts.iter().zip(places) {
            control.checkpoint()?;
            self.move_part(*part, Some(place))?;
        }
        Ok(())
    }

    /// Moves a part of the table to an unused place, or to the end, durably.
    fn move_part(&self, part: u64, to: Option<u64>) -> Result<()> {
        let blocks = self.blocks;
        let from = blocks.with_directory(|known| (known.host(part), known.table_len()));
        let Some((Some(from), len)) = from else {
            return Ok(());
        };
        let to = match to {
            Some(to) => to,
            None => blocks.take_part()?,
        };
        copy(&*blocks.storage, from, to, len)?;
        blocks.link(&[(part, to)])?;
        blocks.barrier()
    }

    /// Grows the table to `count` entries; what the directory on disk holds for new parts is overwritten.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn grow_table(&self, count: u64) -> Result<()> {
        let blocks = self.blocks;
        let old = blocks.with_directory(|known| known.words().len() as u64);
        blocks.state.write().table.grow(count)?;
        let new = blocks.with_directory(|known| known.words().len() as u64);
        if let (Some(old), Some(new)) = (old, new) {
            let free = no_places(old..new)?;
            self.write_parts(&free)?;
        }
        Ok(())
    }

    /// Changes one entry.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(crate) fn set(&self, index: u64, word: u32) -> Result<()> {
        self.blocks.make_settable(index, 1)?;
        self.blocks.set(index, word);
        Ok(())
    }

    /// Moves blocks from the end of the file into unused space, and truncates the file after the last one. What the
    /// table names is durable at all times.
    ///
    /// # Errors
    /// If I/O fails; the image is intact then, but contains unused space.
    pub(crate) fn pack(&self, control: &JobControl) -> Result<()> {
        let blocks = self.blocks;
        blocks.flush(blocks.durability)?;
        let layout = blocks.layout();
        blocks.used()?;
        let occupied = self.occupied()?;
        if let Some(first) = self.first_to_move(&occupied)? {
            let (mut rooms, mut moved) = (VecDeque::new(), Vec::new());
            let mut looked_up_to = 0;
            blocks.each(|index, word| {
                control.checkpoint()?;
                let from = match layout.entry(word) {
                    Entry::At(host) if host >= first => host,
                    _ => return Ok(()),
                };
                if rooms.is_empty() {
                    looked_up_to = self.find_rooms(&occupied, looked_up_to, &mut rooms)?;
                }
                // There is one for each block to be moved.
                let Some(host) = rooms.pop_front() else {
                    return Ok(());
                };
                self.relocate(from, Moved { host, index }, &mut moved)
            })?;
            self.rename(&mut moved)?;
        }
        self.cut_behind(self.end_of_blocks()?, 0)
    }

    /// The data offset of the first block to move: unused space in front suffices for it and all blocks behind it.
    fn first_to_move(&self, occupied: &Occupied) -> Result<Option<u64>> {
        let (mut before, mut behind) = (0, occupied.blocks);
        self.survey(occupied, 0, |met| {
            if behind <= before {
                return ControlFlow::Break(());
            }
            match met {
                Met::Block(_) => before += 1,
                Met::Room(_) => behind -= 1,
            }
            ControlFlow::Continue(())
        })?;
        let (mut first, mut left) = (None, behind);
        let lead = self.blocks.layout().lead();
        let flow = occupied.places.each_from(0, |start| {
            if left == 0 {
                first = Some(start + lead);
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(())
        });
        flow.map(|_| first)
    }

    /// Finds unused space for the next blocks, continuing the search at `from`; returns how far it got.
    fn find_rooms(&self, occupied: &Occupied, from: u64, rooms: &mut VecDeque<u64>) -> Result<u64> {
        rooms.try_reserve(MOST_ROOMS).map_err(|_| memory::lack())?;
        let block = self.blocks.layout().block_size();
        let mut end = from;
        self.survey(occupied, from, |met| {
            match met {
                Met::Block(host) => end = host + block,
                Met::Room(host) => {
                    rooms.push_back(host);
                    end = host + block;
                }
            }
            match rooms.len() < MOST_ROOMS {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(end)
    }

    /// Visits blocks and unused space from `from` to the last block, in ascending order, until `visit` breaks.
    fn survey(
        &self,
        occupied: &Occupied,
        from: u64,
        mut visit: impl FnMut(Met) -> ControlFlow<()>,
    ) -> Result<()> {
        let layout = self.blocks.layout();
        let (lead, block) = (layout.lead(), layout.block_size());
        let reserved = self.reserved()?;
        let mut last = from.max(layout.new_from());
        let flow = occupied.places.each_from(from, |next| {
            loop {
                let mut host = layout.next(last);
                if host + block > next {
                    host = layout.next_tight(last);
                }
                let taken = host - lead..host + block;
                if taken.end > next {
                    break;
                }
                let in_way = reserved
                    .iter()
                    .find(|other| other.start < taken.end && taken.start < other.end);
                if let Some(other) = in_way {
                    last = other.end;
                    continue;
                }
                visit(Met::Room(host))?;
                last = taken.end;
            }
            last = last.max(next + lead + block);
            visit(Met::Block(next + lead))
        });
        flow.map(drop)
    }

    /// Truncates the file after the last block, but not below `least`; nothing moves.
    ///
    /// # Errors
    /// As [`Exclusive::pack`].
    pub(crate) fn cut(&self, least: u64) -> Result<()> {
        self.blocks.flush(self.blocks.durability)?;
        self.blocks.used()?;
        self.cut_behind(self.occupied()?.end, least)
    }

    fn cut_behind(&self, last: u64, least: u64) -> Result<()> {
        let blocks = self.blocks;
        let layout = blocks.layout();
        let reserved = self.reserved()?;
        let ends = reserved.iter().map(|other| other.end);
        let end = ends
            .fold(layout.new_from().max(least).max(last), u64::max)
            .min(blocks.used()?);
        // Reads of what has moved away must end before it is cut off.
        blocks.users.wait();
        blocks.keeper.cut(&*blocks.storage, &layout, end)?;
        self.set_end(end)
    }

    /// Accepts blocks that overlap something else: they are about to get places of their own.
    ///
    /// # Errors
    /// As [`Blocks::used`] otherwise.
    pub(crate) fn find_end_despite_overlaps(&self) -> Result<()> {
        self.blocks.find_end_despite_overlaps()
    }

    /// Refuses an image in which blocks overlap.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], or if the table cannot be read.
    pub(crate) fn check(&self) -> Result<()> {
        self.occupied().map(drop)
    }

    /// Ranges of the file that no block may occupy.
    fn reserved(&self) -> Result<Vec<Range<u64>>> {
        let state = self.blocks.state.read();
        let mut reserved = state.reserved.clone();
        let parts = state.table.directory().into_iter();
        for place in parts.flat_map(|known| known.places()) {
            memory::push(&mut reserved, place)?;
        }
        Ok(reserved)
    }

    /// Where the blocks are.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if two blocks overlap, or if the table cannot be read.
    fn occupied(&self) -> Result<Occupied> {
        let layout = self.blocks.layout();
        let (lead, block) = (layout.lead(), layout.block_size());
        let mut occupied = Occupied {
            places: Places::of(lead + block),
            blocks: 0,
            end: 0,
        };
        self.blocks.each(|_, word| {
            let Entry::At(host) = layout.entry(word) else {
                return Ok(());
            };
            if !occupied.places.take(host - lead)? {
                let text = format!(
                    "'{}': two blocks stand in the same place; check the image first",
                    self.blocks.storage.name()
                );
                return Err(Error::new(ErrorKind::Corrupt, text).with_offset(host));
            }
            occupied.blocks += 1;
            occupied.end = occupied.end.max(host + block);
            Ok(())
        })?;
        Ok(occupied)
    }

    /// The end of the last block; 0 if there is none.
    fn end_of_blocks(&self) -> Result<u64> {
        let layout = self.blocks.layout();
        let mut end = 0;
        self.blocks.each(|_, word| {
            if let Entry::At(host) = layout.entry(word) {
                end = end.max(host + layout.block_size());
            }
            Ok(())
        })?;
        Ok(end)
    }

    /// The first range of `len` bytes after the last block, at a multiple of `alignment`, that overlaps nothing except
    /// what is at `ignored`.
    ///
    /// # Errors
    /// As [`Exclusive::check`].
    pub(crate) fn place_behind(
        &self,
        len: u64,
        alignment: u64,
        ignored: Range<u64>,
    ) -> Result<Range<u64>> {
        let layout = self.blocks.layout();
        let last = self.occupied()?.end;
        let mut reserved = self.reserved()?;
        reserved.retain(|other| *other != ignored);
        let at = |place: u64| place.next_multiple_of(alignment);
        let mut place = at(last.max(layout.new_from()));
        let in_way = |place: u64| {
            let end = place.saturating_add(len);
            let mut others = reserved.iter();
            others.find(|other| other.start < end && place < other.end)
        };
        while let Some(other) = in_way(place) {
            place = at(other.end);
        }
        Ok(place..place.saturating_add(len))
    }

    /// Gives a block that overlaps something else a copy of its own, which the table names from the next flush on.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn part(&self, index: u64) -> Result<()> {
        let layout = self.blocks.layout();
        let Entry::At(host) = self.blocks.entry(index)? else {
            return Ok(());
        };
        let new = self.take_at_end()?;
        self.copy(host, new)?;
        self.set(index, layout.word(new).ok_or_else(no_place)?)
    }

    /// As [`Exclusive::part`], for each block of the disk for which `takes` returns false because an earlier entry
    /// occupies its place. Blocks past the end of the disk belong to nothing, and are not copied.
    ///
    /// # Errors
    /// If I/O fails, or `takes` returns an error.
    pub(crate) fn part_each(
        &self,
        control: &JobControl,
        mut takes: impl FnMut(u32, u64) -> Result<bool>,
    ) -> Result<()> {
        let layout = self.blocks.layout();
        let disk = self.blocks.len().div_ceil(layout.block_size());
        self.free_from(disk, control)?;
        self.blocks.each(|index, word| {
            control.checkpoint()?;
            match layout.entry(word) {
                Entry::At(host) if !takes(word, host)? => self.part(index),
                _ => Ok(()),
            }
        })
    }

    /// Copies a block including its lead.
    pub(crate) fn copy(&self, from: u64, to: u64) -> Result<()> {
        let blocks = self.blocks;
        let lead = blocks.layout().lead();
        let len = lead + blocks.layout().block_size();
        copy(&*blocks.storage, from - lead, to - lead, len)
    }

    /// Copies a block; the table names the copy by the end of the batch.
    fn relocate(&self, from: u64, block: Moved, moved: &mut Vec<Moved>) -> Result<()> {
        self.copy(from, block.host)?;
        memory::push(moved, block)?;
        match moved.len() == BATCH {
            true => self.rename(moved),
            false => Ok(()),
        }
    }

    /// Makes the table name the copies, durably.
    fn rename(&self, moved: &mut Vec<Moved>) -> Result<()> {
        let layout = self.blocks.layout();
        for block in moved.iter() {
            let word = layout.word(block.host);
            let word = word.ok_or_else(no_place)?;
            self.set(block.index, word)?;
        }
        moved.clear();
        self.blocks.flush(self.blocks.durability)
    }

    /// Allocates space for one block at the end, which nothing refers to yet.
    ///
    /// # Errors
    /// If the file cannot be extended.
    pub(crate) fn take_at_end(&self) -> Result<u64> {
        Ok(self.blocks.take(1)?.host)
    }

    /// Prevents new blocks from being placed before `end`.
    ///
    /// # Errors
    /// If the file cannot be extended.
    pub(crate) fn reserve_up_to(&self, end: u64) -> Result<()> {
        let end = self.end()?.max(end);
        self.blocks.keeper.extend(&*self.blocks.storage, end)?;
        self.set_end(end)
    }

    /// Sets where the space in use ends.
    ///
    /// # Errors
    /// If the length of the file cannot be determined.
    pub(crate) fn set_end(&self, end: u64) -> Result<()> {
        let len = self.blocks.storage.len()?;
        self.blocks.space.lock().set(end, len.max(end));
        Ok(())
    }

    /// Moves the blocks before `host` to the end, durably.
    ///
    /// # Errors
    /// If I/O fails; the image remains intact.
    pub(crate) fn move_away(&self, host: u64, control: &JobControl) -> Result<()> {
        self.check()?;
        let layout = self.blocks.layout();
        let mut moved = Vec::new();
        self.blocks.each(|index, word| {
            control.checkpoint()?;
            let from = match layout.entry(word) {
                Entry::At(from) if from < host => from,
                _ => return Ok(()),
            };
            let host = self.take_at_end()?;
            self.relocate(from, Moved { host, index }, &mut moved)
        })?;
        self.rename(&mut moved)?;
        // Reads of what has moved away must end before something else is put there.
        self.blocks.users.wait();
        Ok(())
    }

    /// The end of the space in use.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(crate) fn end(&self) -> Result<u64> {
        self.blocks.used()
    }

    /// A table of `count` entries at `offset`, each converted by `convert`; it is not in force yet.
    ///
    /// # Errors
    /// If there is not enough memory, or the table cannot be read.
    pub(crate) fn other_table(
        &self,
        count: u64,
        offset: u64,
        convert: impl Fn(u64, u32) -> Result<u32>,
    ) -> Result<Table> {
        let coding = self.blocks.state.read().table.coding();
        let mut table = Table::empty(count, offset, coding)?;
        self.blocks.each(|index, word| match index < count {
            true => table.put(index, convert(index, word)?),
            false => Ok(()),
        })?;
        Ok(table)
    }

    /// Writes a whole table to its place.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn write_table(&self, table: &Table) -> Result<()> {
        table.write(|bytes, at| self.blocks.storage.write_at(bytes, at))
    }

    /// Changes where the format's own structures are; the blocks and the table stay where they are.
    pub(crate) fn replace_layout(&self, layout: K::Layout) {
        let reserved = self.blocks.keeper.reserved(&layout);
        let state = &mut *self.blocks.state.write();
        state.layout = layout;
        state.reserved = reserved;
    }

    /// Replaces the table by another one, which is on disk.
    pub(crate) fn replace(&self, layout: K::Layout, table: Table) {
        self.blocks.dirty.lock().clear();
        let reserved = self.blocks.keeper.reserved(&layout);
        let state = &mut *self.blocks.state.write();
        state.layout = layout;
        state.reserved = reserved;
        state.table = table;
        state.generation += 1;
    }
}

/// Free entries for these parts of the table, which have no place.
fn no_places(parts: Range<u64>) -> Result<Vec<(u64, u32)>> {
    let mut entries = Vec::new();
    for part in parts {
        memory::push(&mut entries, (part, FREE))?;
    }
    Ok(entries)
}

fn copy(storage: &dyn Storage, from: u64, to: u64, len: u64) -> Result<()> {
    let mut bytes = memory::zeroed(len.min(PIECE) as usize)?;
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(PIECE);
        let part = bytes.get_mut(..piece as usize).unwrap_or_default();
        storage.read_at(part, from + done)?;
        storage.write_at(part, to + done)?;
        done += piece;
    }
    Ok(())
}
