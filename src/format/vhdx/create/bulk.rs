//! Fills a new image: blocks are allocated in order, and the block allocation table is written as offsets advance.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::memory::{self, IoBuf};
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, set_len_or_fit};

use super::super::disk::{BatEntry, MIB};
use super::front::Front;
use super::spec::Spec;

/// Unit in which zeroes are omitted, so that a block is as sparse as its content.
const ZERO_UNIT: u64 = 64 << 10;

/// Number of table entries in memory at a time.
const WINDOW: u64 = 8192;

/// A new image that is being filled.
#[derive(Debug)]
pub(super) struct VhdxBulk {
    storage: Arc<dyn Storage>,
    /// Parts of the file that were never written read as zeroes.
    fresh: bool,
    spec: Spec,
    front: Front,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The next free byte of the file.
    cursor: u64,
    /// Guest bytes before this offset are finished.
    next_guest: u64,
    /// The block that was allocated last.
    block: Option<Block>,
    table: Window,
    /// For a differencing image: which sectors of the last block's chunk are in the file.
    bits: Bits,
    finished: bool,
}

/// A block in the file.
#[derive(Clone, Copy, Debug)]
struct Block {
    number: u64,
    host: u64,
}

/// A part of the block allocation table.
#[derive(Debug)]
struct Window {
    /// Index of the first entry.
    first: u64,
    entries: Vec<u64>,
}

/// The sector bitmap of a chunk.
#[derive(Debug, Default)]
struct Bits {
    chunk: u64,
    bytes: IoBuf,
    /// A block of the chunk is partially present.
    needed: bool,
}

impl VhdxBulk {
    /// `fresh`: parts of the file that were never written read as zeroes.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        fresh: bool,
        spec: Spec,
        front: Front,
    ) -> Result<Self> {
        let state = State {
            cursor: spec.data_start(),
            next_guest: 0,
            block: None,
            table: Window {
                first: 0,
                entries: memory::filled(WINDOW as usize, 0)?,
            },
            bits: Bits::default(),
            finished: false,
        };
        let bulk = Self {
            storage,
            fresh,
            spec,
            front,
            state: Mutex::new(state),
        };
        bulk.blank_window(&mut bulk.state.lock().table);
        Ok(bulk)
    }

    /// Fills a window with the entries of blocks that have not been written.
    fn blank_window(&self, table: &mut Window) {
        let geometry = &self.spec.geometry;
        let per_chunk = geometry.chunk_blocks() + 1;
        let all = geometry.entries(self.spec.size);
        let blocks = geometry.blocks(self.spec.size);
        for (place, entry) in (table.first..).zip(&mut table.entries) {
            let is_bitmap = place % per_chunk == geometry.chunk_blocks();
            let block = place / per_chunk * geometry.chunk_blocks() + place % per_chunk;
            let blank = if place >= all || is_bitmap || block >= blocks {
                BatEntry::NOT_PRESENT
            } else if self.spec.fixed {
                BatEntry::present(self.fixed_host(geometry.start(block)))
            } else {
                self.spec.blank
            };
            *entry = blank.0;
        }
    }

    /// File offset of a guest byte of a fixed disk.
    fn fixed_host(&self, guest: u64) -> u64 {
        self.spec.data_start() + guest
    }

    fn write_window(&self, table: &Window) -> Result<()> {
        let mut bytes = memory::zeroed(table.entries.len() * 8)?;
        for (place, entry) in bytes.chunks_exact_mut(8).zip(&table.entries) {
            place.copy_from_slice(&entry.to_le_bytes());
        }
        let region = self.spec.bat();
        let at = table.first * 8;
        let len = u64::from(region.len)
            .saturating_sub(at)
            .min(bytes.len() as u64) as usize;
        let holds = bytes.iter().any(|byte| *byte != 0);
        match bytes.get(..len).filter(|_| holds || !self.fresh) {
            Some(bytes) => self.storage.write_at(bytes, region.offset + at),
            None => Ok(()),
        }
    }

    /// Sets an entry. Earlier windows have been written by then.
    fn set_entry(&self, table: &mut Window, place: u64, entry: BatEntry) -> Result<()> {
        self.move_window(table, place)?;
        let slot = table.entries.get_mut((place - table.first) as usize);
        *slot.ok_or_else(out_of_order)? = entry.0;
        Ok(())
    }

    /// Writes the windows before the one that contains `place`.
    fn move_window(&self, table: &mut Window, place: u64) -> Result<()> {
        if place < table.first {
            return Err(out_of_order());
        }
        while place - table.first >= WINDOW {
            self.write_window(table)?;
            table.first += WINDOW;
            self.blank_window(table);
        }
        Ok(())
    }

    /// Checks a range that is to be reserved, and returns its end.
    fn check_order(&self, state: &State, guest: u64, len: u64) -> Result<u64> {
        if state.finished || guest < state.next_guest {
            return Err(out_of_order());
        }
        let end = guest
            .checked_add(len)
            .filter(|end| *end <= self.spec.size.next_multiple_of(512));
        end.filter(|_| len > 0).ok_or_else(Error::past_new_disk)
    }

    /// Returns the file offset of a block, which is allocated if necessary.
    fn block(&self, state: &mut State, number: u64) -> Result<u64> {
        if let Some(block) = state.block.filter(|block| block.number == number) {
            return Ok(block.host);
        }
        self.leave_block(state)?;
        let geometry = &self.spec.geometry;
        self.enter_chunk(state, geometry.chunk(number))?;
        let host = state.cursor;
        state.cursor = host
            .checked_add(geometry.block_size())
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(Error::image_too_large)?;
        if !self.fresh {
            self.storage
                .write_zeroes(host, geometry.block_size(), ZeroFlags::MAY_UNMAP)?;
        }
        self.set_entry(
            &mut state.table,
            geometry.entry(number),
            BatEntry::present(host),
        )?;
        state.block = Some(Block { number, host });
        Ok(host)
    }

    /// Finishes the block that was allocated last, marking it as partially present unless it was filled entirely.
    fn leave_block(&self, state: &mut State) -> Result<()> {
        let geometry = &self.spec.geometry;
        let Some(block) = state.block.take().filter(|_| geometry.has_parent()) else {
            return Ok(());
        };
        let start = geometry.start(block.number);
        let end = (start + geometry.block_size()).min(self.spec.size);
        if state.bits.covers(self.bits_of(start..end)) {
            return Ok(());
        }
        state.bits.needed = true;
        let place = geometry.entry(block.number);
        self.set_entry(&mut state.table, place, BatEntry::partial(block.host))
    }

    /// The bits of a guest range in its chunk's bitmap.
    fn bits_of(&self, guest: Range<u64>) -> Range<u64> {
        let geometry = &self.spec.geometry;
        let first = geometry.bit(guest.start);
        first..first + (guest.end - guest.start).div_ceil(geometry.sector())
    }

    /// Writes the bitmap of the previous chunk.
    fn enter_chunk(&self, state: &mut State, chunk: u64) -> Result<()> {
        if !self.spec.geometry.has_parent()
            || state.bits.chunk == chunk && !state.bits.bytes.is_empty()
        {
            return Ok(());
        }
        self.leave_chunk(state)?;
        state.bits = Bits {
            chunk,
            bytes: memory::zeroed(MIB as usize)?,
            needed: false,
        };
        Ok(())
    }

    fn leave_chunk(&self, state: &mut State) -> Result<()> {
        if !state.bits.needed {
            return Ok(());
        }
        let host = state.cursor;
        state.cursor += MIB;
        self.storage.write_at(&state.bits.bytes, host)?;
        let place = self.spec.geometry.bitmap_entry(state.bits.chunk);
        self.set_entry(&mut state.table, place, BatEntry::present(host))
    }

    /// Records that the sectors of a guest range within one block are in the file.
    fn note(&self, state: &mut State, guest: Range<u64>) {
        if self.spec.geometry.has_parent() {
            let bits = self.bits_of(guest);
            state.bits.set(bits);
        }
    }

    /// Splits a guest range into blocks.
    fn by_block(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Range<u64>)> {
        let geometry = self.spec.geometry;
        let blocks = geometry.block(start)..geometry.blocks(end);
        blocks.map(move |block| {
            let first = geometry.start(block);
            (
                block,
                first.max(start)..(first + geometry.block_size()).min(end),
            )
        })
    }
}

impl Bits {
    fn set(&mut self, bits: Range<u64>) {
        for bit in bits {
            if let Some(byte) = self.bytes.get_mut((bit / 8) as usize) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    fn covers(&self, bits: Range<u64>) -> bool {
        let mut bits = bits;
        bits.all(|bit| {
            self.bytes
                .get((bit / 8) as usize)
                .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
        })
    }
}

fn out_of_order() -> Error {
    Error::new(ErrorKind::Internal, "A new image is filled out of order")
}

impl Bulk for VhdxBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        if slot == StorageSlot::MAIN {
            return Ok(&self.storage);
        }
        Err(Error::new(ErrorKind::Internal, "A VHDX has one file only"))
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![&self.storage]
    }

    fn takes_raw_writes(&self) -> bool {
        true
    }

    fn encode_unit(&self) -> Option<u32> {
        None
    }

    fn zero_unit(&self) -> u32 {
        ZERO_UNIT as u32
    }

    fn alignment(&self) -> u64 {
        // Guest offsets of blocks are multiples of their size; file offsets are multiples of a MiB.
        MIB
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: self.fresh || !self.spec.fixed,
            unwritten_is_zero: self.fresh || !self.spec.fixed,
        }
    }

    fn encode(
        &self,
        _scratch: &mut Encoder,
        _guest_offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::no_compression())
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        if self.spec.fixed {
            state.next_guest = end;
            return Ok(Reserved {
                slot: StorageSlot::MAIN,
                offset: self.fixed_host(guest_offset),
                len,
            });
        }
        let within = self.spec.geometry.in_block(guest_offset);
        let mut place = None;
        let mut done = guest_offset;
        for (number, part) in self.by_block(guest_offset, end) {
            // There may be a bitmap or a later allocation between two blocks.
            if let Some(place) = place
                && (state.cursor != place + (part.start - guest_offset)
                    || self.leaves_chunk(state, number))
            {
                break;
            }
            let host = self.block(state, number)?;
            place.get_or_insert(host + within);
            done = part.end;
            self.note(state, part);
        }
        state.next_guest = done;
        Ok(Reserved {
            slot: StorageSlot::MAIN,
            offset: place.ok_or_else(out_of_order)?,
            len: done - guest_offset,
        })
    }

    fn reserve_encoded(&self, _guest_offset: u64, _encoded_len: u32) -> Result<(StorageSlot, u64)> {
        Err(Error::no_compression())
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        state.next_guest = end;
        let geometry = &self.spec.geometry;
        if !geometry.has_parent() {
            // What is not written reads as zeroes.
            return Ok(());
        }
        for (number, part) in self.by_block(guest_offset, end) {
            let whole = geometry.in_block(part.start) == 0
                && (part.end - part.start == geometry.block_size() || part.end >= self.spec.size);
            if whole {
                self.leave_block(state)?;
                // A bitmap that is still to be written has an earlier entry.
                self.enter_chunk(state, geometry.chunk(number))?;
                self.set_entry(&mut state.table, geometry.entry(number), BatEntry::ZERO)?;
            } else {
                // The block reads as zeroes where nothing is written to it.
                self.block(state, number)?;
                self.note(state, part);
            }
        }
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        let state = &mut *self.state.lock();
        if std::mem::replace(&mut state.finished, true) {
            return Err(out_of_order());
        }
        self.leave_block(state)?;
        self.leave_chunk(state)?;
        let last = self.spec.geometry.entries(self.spec.size).saturating_sub(1);
        let last = last.max(state.table.first);
        self.move_window(&mut state.table, last)?;
        self.write_window(&state.table)?;
        let end = match self.spec.fixed {
            true => self.spec.end_of_all(),
            false => state.cursor,
        };
        if self.storage.len()? != end {
            set_len_or_fit(&*self.storage, end, Preallocation::Off)?;
        }
        if durability == Durability::Synced {
            self.storage.sync(durability)?;
        }
        self.front.write(&*self.storage, durability)
    }
}

impl VhdxBulk {
    /// Whether the bitmap of the previous chunk has to be written first.
    fn leaves_chunk(&self, state: &State, number: u64) -> bool {
        let geometry = &self.spec.geometry;
        geometry.has_parent() && geometry.chunk(number) != state.bits.chunk
    }
}
