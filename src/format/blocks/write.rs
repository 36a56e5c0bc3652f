//! Changing guest bytes: in place if the block is allocated, otherwise by allocating space, writing the data and
//! setting the entry.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::Below;
use crate::format::inflight::Reservation;
use crate::memory;
use crate::storage::{Step, ZeroFlags, steps};
use crate::zero::is_zero;

use super::space::NewBlocks;
use super::{Blocks, Entry, Keeper, Layout, no_place};

/// Size of the pieces in which the parent's data is copied.
const PIECE: u64 = 1 << 20;

/// Zeroes are skipped in multiples of this.
const PAGE: usize = 4096;

/// Maximum number of blocks that one write allocates at once: the table of in-flight ranges is coarse.
const MOST_BLOCKS: u64 = 64;

impl<K: Keeper> Blocks<K> {
    /// See [`crate::format::FormatWrite::write`].
    ///
    /// # Errors
    /// If I/O fails; guest bytes outside the range are unchanged then.
    pub(crate) fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.check_writable()?;
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let done = match self.write_in_place(rest, at)? {
                0 => self.write_reserved(rest, at, below)?,
                done => done,
            };
            rest = rest.get(done as usize..).unwrap_or_default();
            at += done;
        }
        Ok(())
    }

    /// Refuses a range outside the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(Error::invalid("The range does not lie in the image")),
        }
    }

    /// Overwrites data in blocks that are allocated; returns how much, from the start of `buf`.
    fn write_in_place(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let _io = self.users.enter();
        if self.moving.load(Ordering::SeqCst) {
            return Ok(0);
        }
        self.overwrite(buf, offset)
    }

    fn overwrite(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let (Entry::At(host), len) = self.run(offset, buf.len() as u64)? else {
            return Ok(0);
        };
        let part = buf.get(..len as usize).unwrap_or(buf);
        self.check_place(host, len)?;
        self.touch(offset, len, host)?;
        steps::announce(&*self.storage, Step::WriteAio);
        self.storage.write_at(part, host)?;
        Ok(len)
    }

    /// Calls [`Keeper::touch_block`] for all blocks of a run.
    fn touch(&self, offset: u64, len: u64, host: u64) -> Result<()> {
        let layout = self.layout();
        let block = layout.block_size();
        for index in offset / block..(offset + len).div_ceil(block) {
            if self.keeper.is_touched(index) {
                continue;
            }
            let host = (host + index * block).saturating_sub(offset);
            let lead = layout.lead();
            self.check_place(host.saturating_sub(lead), lead + block)?;
            self.keeper.touch_block(&*self.storage, index, host)?;
        }
        Ok(())
    }

    /// Refuses to write guest data over the header and the table.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(crate) fn check_place(&self, host: u64, len: u64) -> Result<()> {
        if !self.is_metadata(host..host.saturating_add(len)) {
            return Ok(());
        }
        let text = format!(
            "'{}': a block stands where the metadata does; check the image first",
            self.storage.name()
        );
        Err(Error::corrupt(text).with_offset(host))
    }

    /// Whether a range of the file contains anything other than blocks.
    pub(crate) fn is_metadata(&self, place: Range<u64>) -> bool {
        self.state.read().is_metadata(&place)
    }

    /// Where a write to the whole range would overwrite bytes in place, if that is known now.
    pub(crate) fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        if !self.writable || self.moving.load(Ordering::SeqCst) {
            return None;
        }
        match self.try_run(offset, len)? {
            (Entry::At(host), run) if run == len && !self.is_metadata(host..host + len) => {
                let block = self.layout().block_size();
                let mut blocks = offset / block..(offset + len).div_ceil(block);
                let touched = blocks.all(|index| self.keeper.is_touched(index));
                touched.then_some((StorageSlot::MAIN, host))
            }
            _ => None,
        }
    }

    /// Writes the beginning of `buf` while nothing else remaps its blocks; returns how much was written.
    fn write_reserved(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<u64> {
        let block = self.layout().block_size();
        let first = offset / block;
        let most = first.saturating_add(MOST_BLOCKS).saturating_mul(block);
        let end = (offset + buf.len() as u64).min(most);
        let blocks = first..end.div_ceil(block);
        let _mine = self.inflight.reserve(blocks.clone());
        let _io = self.users.enter();
        // The image may have shrunk in the meantime.
        self.check_range(offset, end - offset)?;
        let data = buf.get(..(end - offset) as usize).unwrap_or(buf);
        // Another write may have allocated in the meantime.
        let done = self.overwrite(data, offset)?;
        if done > 0 {
            return Ok(done);
        }
        let mut missing = 0;
        for index in blocks {
            if matches!(self.entry(index)?, Entry::At(_)) {
                break;
            }
            missing += 1;
        }
        self.make_settable(first, missing)?;
        let place = self.take(missing)?;
        let end = end.min((first + place.count) * block);
        let data = data.get(..(end - offset) as usize).unwrap_or(data);
        if let Err(error) = self.write_new(first, place, data, offset, below) {
            self.give_back(place);
            return Err(error);
        }
        Ok(end - offset)
    }

    /// Keeps all other changes off these blocks.
    pub(crate) fn reserve(&self, blocks: Range<u64>) -> Reservation<'_> {
        self.inflight.reserve(blocks)
    }

    /// Allocates a block that has no place, and writes nothing but its lead; returns where its data will be. The caller
    /// has reserved the block.
    ///
    /// # Errors
    /// As [`Blocks::write`].
    pub(crate) fn new_block(&self, index: u64) -> Result<u64> {
        self.make_settable(index, 1)?;
        let place = self.take(1)?;
        let word = self.layout().word(place.host);
        let begun = word.ok_or_else(no_place).and_then(|word| {
            self.keeper.begin_block(&*self.storage, place.host)?;
            Ok(word)
        });
        match begun {
            Ok(word) => {
                self.set(index, word);
                Ok(place.host)
            }
            Err(error) => {
                self.give_back(place);
                Err(error)
            }
        }
    }

    /// Writes new blocks from guest block `first` on, and makes the table name them.
    fn write_new(
        &self,
        first: u64,
        place: NewBlocks,
        data: &[u8],
        offset: u64,
        below: &dyn Below,
    ) -> Result<()> {
        let layout = self.layout();
        let block = layout.block_size();
        let start = first * block;
        let end = offset + data.len() as u64;
        let host = |guest: u64| place.host + (guest - start);
        let words = (0..place.count).map(|n| layout.word(place.host + n * block));
        let words: Option<Vec<u32>> = words.collect();
        let words = words.ok_or_else(no_place)?;
        for n in 0..place.count {
            self.keeper
                .begin_block(&*self.storage, place.host + n * block)?;
        }
        let last = (first + place.count) * block;
        for around in [start..offset, end..last] {
            if !around.is_empty() {
                let to = host(around.start);
                self.fill(around, to, place.zeroed, below)?;
            }
        }
        steps::announce(&*self.storage, Step::WriteAio);
        self.storage.write_at(data, host(offset))?;
        for (index, word) in (first..).zip(words) {
            self.set(index, word);
        }
        Ok(())
    }

    /// Writes the current contents of guest bytes of one block to their new place.
    fn fill(&self, guest: Range<u64>, host: u64, zeroed: bool, below: &dyn Below) -> Result<()> {
        let shown = guest.end.min(self.len());
        let mut at = guest.start;
        let (entry, _) = self.run(at, 1)?;
        let copies = entry == Entry::Free && self.is_overlay();
        while at < guest.end {
            let to = host + (at - guest.start);
            let piece = if copies && at < shown {
                (shown - at).min(PIECE)
            } else {
                guest.end - at
            };
            if copies && at < shown && !below.is_zero_below(at, piece)? {
                let mut bytes = memory::zeroed(piece as usize)?;
                steps::announce(&*self.storage, Step::ReadBackingAio);
                below.read_below(&mut bytes, at)?;
                steps::announce(&*self.storage, Step::CowWrite);
                match zeroed {
                    true => self.write_over_zeroes(&bytes, to)?,
                    false => self.storage.write_at(&bytes, to)?,
                }
            } else if !zeroed {
                self.storage.write_zeroes(to, piece, ZeroFlags::empty())?;
            }
            at += piece;
        }
        Ok(())
    }

    /// Writes the nonzero pages where zeroes are already in place, so that zero pages of the parent stay holes.
    fn write_over_zeroes(&self, bytes: &[u8], to: u64) -> Result<()> {
        let pages: Vec<_> = bytes.chunks(PAGE).collect();
        let mut at = to;
        for alike in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let len: usize = alike.iter().map(|page| page.len()).sum();
            let from = (at - to) as usize;
            let run = bytes.get(from..from + len).unwrap_or_default();
            if !is_zero(run) {
                self.storage.write_at(run, at)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// See [`crate::format::FormatWrite::write_zeroes`].
    ///
    /// # Errors
    /// As [`Blocks::write`].
    pub(crate) fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.check_writable()?;
        self.check_range(offset, len)?;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            at += self.zero_run(at, end, flags, below)?;
        }
        Ok(())
    }

    /// Zeroes the beginning of a range; returns how much was zeroed.
    fn zero_run(&self, at: u64, end: u64, flags: ZeroFlags, below: &dyn Below) -> Result<u64> {
        {
            let _io = self.users.enter();
            if !self.moving.load(Ordering::SeqCst) {
                match self.run(at, end - at)? {
                    (Entry::At(host), run) => {
                        self.check_place(host, run)?;
                        self.storage.write_zeroes(host, run, flags)?;
                        return Ok(run);
                    }
                    (Entry::Zero, run) => return Ok(run),
                    (Entry::Free, run) if !self.is_overlay() => return Ok(run),
                    (Entry::Free | Entry::Bad, _) => {}
                }
            }
        }
        let block = self.layout().block_size();
        let index = at / block;
        let part = end.min((index + 1) * block) - at;
        // Reaching the end of the image counts as reaching the end of its last block.
        let is_whole = at == index * block && (part == block || at + part == self.len());
        {
            let _mine = self.inflight.reserve(index..index + 1);
            let _io = self.users.enter();
            self.check_range(at, part)?;
            match self.entry(index)? {
                Entry::At(host) => {
                    let host = host + at % block;
                    self.check_place(host, part)?;
                    self.storage.write_zeroes(host, part, flags)?;
                    return Ok(part);
                }
                Entry::Zero => return Ok(part),
                Entry::Free if below.is_zero_below(at, part)? => return Ok(part),
                Entry::Free | Entry::Bad => {}
            }
            if let (true, Some(word)) = (is_whole, self.layout().zero_word()) {
                // A damaged table must not be written.
                self.used()?;
                self.make_settable(index, 1)?;
                self.set(index, word);
                return Ok(part);
            }
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported("The range cannot be zeroed fast"));
        }
        let piece = part.min(PIECE);
        self.write(&memory::zeroed(piece as usize)?, at, below)?;
        Ok(piece)
    }

    /// See [`crate::format::FormatWrite::discard`]: blocks keep their places, but the space is returned to the host if
    /// it can punch holes that read as zeroes.
    ///
    /// # Errors
    /// As [`Blocks::write`].
    pub(crate) fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        self.check_range(offset, len)?;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let _io = self.users.enter();
            // While blocks are moving, space stays as it is.
            if self.moving.load(Ordering::SeqCst) {
                return Ok(());
            }
            let (entry, run) = self.run(at, end - at)?;
            if let Entry::At(host) = entry {
                self.check_place(host, run)?;
                let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
                self.storage.write_zeroes(host, run, flags)?;
            }
            at += run;
        }
        Ok(())
    }
}
