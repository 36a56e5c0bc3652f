//! Writing a new image with blocks: space from a cursor, the table in memory, the header last.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::memory::{self, IoBuf};
use crate::storage::{Durability, Storage, ZeroFlags};

use super::{Layout, Table, main_slot};

/// How far ahead the growth of the file is announced.
const EXPECTED: u64 = 256 << 20;

/// The parts of a new image that the format itself writes.
pub(crate) trait Finish<L>: Send + Sync + Debug {
    /// The lowest offset for the first block.
    fn first(&self, layout: &L) -> u64;

    /// The smallest part of a block that an overlay can own, while its parent shows in the rest; None if a block
    /// belongs to one image as a whole.
    fn part(&self) -> Option<u32> {
        None
    }

    /// Writes which parts of the block whose data is at `host` belong to the overlay: only if there is
    /// [`Finish::part`], and in place of [`Finish::begin_block`].
    ///
    /// # Errors
    /// If I/O fails.
    fn end_block(&self, _: &dyn Storage, _: &L, _host: u64, _parts: &[Range<u64>]) -> Result<()> {
        Ok(())
    }

    /// Writes the lead of the block whose data is at `host`.
    ///
    /// # Errors
    /// If I/O fails.
    fn begin_block(&self, storage: &dyn Storage, layout: &L, host: u64) -> Result<()>;

    /// Makes the file end at `end`, after the last block, and writes everything except what makes it an image.
    ///
    /// # Errors
    /// If I/O fails.
    fn end(&self, storage: &dyn Storage, layout: &L, end: u64) -> Result<()>;

    /// Writes the header.
    ///
    /// # Errors
    /// If I/O fails.
    fn header(&self, storage: &dyn Storage, layout: &L, end: u64) -> Result<()>;

    /// Writes what repeats the header, which is durable by then.
    ///
    /// # Errors
    /// If I/O fails.
    fn repeat(&self, _storage: &dyn Storage, _layout: &L, _end: u64) -> Result<()> {
        Ok(())
    }
}

/// A new image that is being filled.
#[derive(Debug)]
pub(crate) struct BlockBulk<L, F> {
    storage: Arc<dyn Storage>,
    layout: L,
    finish: F,
    size: u64,
    /// The requested size, if the format rounds it up.
    asked: u64,
    is_overlay: bool,
    /// See [`Finish::part`]; None if there is no parent to show.
    part: Option<u32>,
    /// New space reads as zeroes.
    fresh: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    /// The end of the last block.
    end: u64,
    /// The block being filled, if blocks may be filled in part.
    open: Option<OpenBlock>,
    /// Guest bytes before this have been dealt with.
    next_guest: u64,
    /// The storage expects writes up to here.
    expected: u64,
    finished: bool,
}

/// A block in which more parts may be reserved.
#[derive(Debug)]
struct OpenBlock {
    index: u64,
    /// Offset of its data.
    host: u64,
    /// The parts reserved in it, in order.
    parts: Vec<Range<u64>>,
}

impl<L: Layout, F: Finish<L>> BlockBulk<L, F> {
    /// Starts the image in an empty file; the second size is the requested one, if the format rounds it up.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn new(
        storage: &Arc<dyn Storage>,
        layout: L,
        table: Table,
        (size, asked): (u64, u64),
        is_overlay: bool,
        finish: F,
    ) -> Result<Self> {
        let fresh = storage.limits().grown_is_zero && storage.is_empty()?;
        if !storage.is_empty()? {
            // A device: its old contents must not be taken for the header.
            storage.write_zeroes(0, 4096, ZeroFlags::empty())?;
        }
        Ok(Self {
            storage: storage.clone(),
            layout,
            size,
            asked,
            is_overlay,
            part: finish.part().filter(|_| is_overlay),
            fresh,
            state: Mutex::new(State {
                table,
                end: finish.first(&layout),
                open: None,
                next_guest: 0,
                expected: 0,
                finished: false,
            }),
            finish,
        })
    }

    fn check_order(&self, state: &State, guest: u64, len: u64) -> Result<u64> {
        let unit = u64::from(self.zero_unit());
        let end = guest.checked_add(len).filter(|&end| {
            len > 0
                && end <= self.size
                && guest.is_multiple_of(unit)
                && (end.is_multiple_of(unit) || end == self.size || end == self.asked)
        });
        match end {
            Some(end) if guest >= state.next_guest && !state.finished => Ok(end),
            _ => Err(Error::out_of_order(guest, len)),
        }
    }

    /// Announces the coming growth of the file to the storage, in large steps.
    fn hint_growth(&self, state: &mut State) {
        if state.end <= state.expected || !self.fresh {
            return;
        }
        let left = self.size.saturating_sub(state.next_guest);
        state.expected = state.end.saturating_add(left.min(EXPECTED));
        if let Some(host) = self.storage.host() {
            host.hint_growth(state.expected);
        }
    }

    /// Allocates the place of one block.
    fn place(&self, state: &mut State, index: u64) -> Result<u64> {
        let host = self.layout.next(state.end);
        let word = self.layout.word(host).ok_or_else(too_large)?;
        if self.part.is_none() {
            self.finish
                .begin_block(&*self.storage, &self.layout, host)?;
        }
        state.table.put(index, word)?;
        state.end = host + self.layout.block_size();
        Ok(host)
    }
}

impl<L: Layout, F: Finish<L>> BlockBulk<L, F> {
    /// Reserves the part of the range that lies in its first block, which is allocated with its first part.
    fn reserve_part(&self, state: &mut State, guest: u64, end: u64) -> Result<Reserved> {
        let block = self.layout.block_size();
        let index = guest / block;
        if state.open.as_ref().is_none_or(|open| open.index != index) {
            self.close_block(state)?;
            let host = self.place(state, index)?;
            state.open = Some(OpenBlock {
                index,
                host,
                parts: Vec::new(),
            });
        }
        let start = index * block;
        let end = end.min(start + block);
        let part = guest - start..end - start;
        let mut offset = part.start;
        if let Some(open) = &mut state.open {
            offset += open.host;
            match open.parts.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => memory::push(&mut open.parts, part)?,
            }
        }
        state.next_guest = end;
        self.hint_growth(state);
        Ok(Reserved {
            slot: StorageSlot::MAIN,
            offset,
            len: end - guest,
        })
    }

    /// Records which parts of the last filled block belong to the overlay.
    fn close_block(&self, state: &mut State) -> Result<()> {
        let Some(open) = state.open.take() else {
            return Ok(());
        };
        self.finish
            .end_block(&*self.storage, &self.layout, open.host, &open.parts)
    }
}

fn too_large() -> Error {
    Error::image_too_large().with_errno(libc::EFBIG)
}

impl<L: Layout, F: Finish<L>> Bulk for BlockBulk<L, F> {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
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
        self.part.unwrap_or(self.layout.block_size() as u32)
    }

    fn alignment(&self) -> u64 {
        let first = self.layout.next(self.layout.start());
        let second = self.layout.next(first + self.layout.block_size());
        1 << (first | second | self.layout.block_size()).trailing_zeros()
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: true,
            unwritten_is_zero: self.fresh,
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
        if self.part.is_some() {
            return self.reserve_part(state, guest_offset, end);
        }
        let block = self.layout.block_size();
        let first = guest_offset / block;
        let offset = self.place(state, first)?;
        let mut done = first + 1;
        while self.layout.is_dense() && done * block < end {
            self.place(state, done)?;
            done += 1;
        }
        state.next_guest = end.min(done * block);
        let behind = done * block - state.next_guest;
        if behind > 0 && !self.fresh {
            // A larger disk would expose the old contents.
            self.storage.write_zeroes(
                offset + (state.next_guest - guest_offset),
                behind,
                ZeroFlags::empty(),
            )?;
        }
        self.hint_growth(state);
        Ok(Reserved {
            slot: StorageSlot::MAIN,
            offset,
            len: state.next_guest - guest_offset,
        })
    }

    fn reserve_encoded(&self, _guest_offset: u64, _encoded_len: u32) -> Result<(StorageSlot, u64)> {
        Err(Error::no_compression())
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        if self.is_overlay {
            let Some(word) = self.layout.zero_word() else {
                return Err(Error::unsupported(
                    "The format has no blocks of zeroes without data",
                ));
            };
            let block = self.layout.block_size();
            for index in guest_offset / block..end.div_ceil(block) {
                state.table.put(index, word)?;
            }
        }
        state.next_guest = end;
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        let state = &mut *self.state.lock();
        state.finished = true;
        self.close_block(state)?;
        let end = self.layout.next(state.end);
        state.end = match state.table.place_parts(end).ok_or_else(too_large)? {
            behind if behind > end => behind,
            _ => state.end,
        };
        if !self.fresh && state.end > end {
            // The table is written as far as the disk reaches, and its last part is longer than that.
            self.storage
                .write_zeroes(end, state.end - end, ZeroFlags::MAY_UNMAP)?;
        }
        self.finish.end(&*self.storage, &self.layout, state.end)?;
        state
            .table
            .write(|bytes, at| self.storage.write_at(bytes, at))?;
        if durability == Durability::Synced {
            // The header must not reach the disk before what it points to.
            self.storage.sync(durability)?;
        }
        self.finish
            .header(&*self.storage, &self.layout, state.end)?;
        self.storage.sync(durability)?;
        self.finish
            .repeat(&*self.storage, &self.layout, state.end)?;
        self.storage.sync(durability)
    }
}
