//! Changing the virtual size.

use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{Entry, Exclusive, Layout};
use crate::format::{Below, Resize};
use crate::job::JobControl;
use crate::storage::{Preallocation, ZeroFlags, grow, zero};

use super::Vdi;
use super::disk::{DISCARDED, Header};
use super::records::Records;

impl Resize for Vdi {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        if !len.is_multiple_of(512) {
            return Err(Error::odd_new_size());
        }
        let header = self.blocks.keeper.header();
        let most = Header::max_size(header.block_size);
        if len > most {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "Unsupported VDI image size (size is {len:#x}, max supported is {most:#x})"
                ),
            )
            .with_errno(libc::EFBIG));
        }
        let fills = matches!(preallocation, Preallocation::Falloc | Preallocation::Full);
        if preallocation == Preallocation::Metadata || fills && !self.own.is_fixed {
            return Err(Error::unsupported(
                "Only a fixed VDI image has space that can be allocated ahead",
            ));
        }
        if len < self.blocks.len() {
            if fills {
                return Err(Error::no_preallocated_shrink());
            }
            self.note_change()?;
            return self.shrink(len, control);
        }
        self.blocks.refuse_blocks_behind(control)?;
        self.note_change()?;
        let mut hidden = 0;
        if self.blocks.is_overlay() {
            hidden = below.len_below().min(len);
            self.blocks.own_last_block(hidden, below)?;
        }
        self.grow(len, hidden, preallocation, control)
    }
}

impl Vdi {
    /// Grows the image; new blocks before `hidden` read as zeroes although the parent has data there.
    fn grow(
        &self,
        len: u64,
        hidden: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        let blocks = &self.blocks;
        let alone = blocks.exclusive();
        let block = blocks.layout().block_size();
        let old = blocks.len();
        let in_use = old.div_ceil(block);
        let count = len.div_ceil(block);
        blocks.zero_last_block(len)?;
        alone.clear_behind(in_use, control)?;
        let header = blocks.keeper.header();
        let room = (u64::from(header.data_offset) - u64::from(header.table_offset)) / 4;
        if count > room {
            self.move_data(&alone, count, control)?;
        }
        let header = blocks.keeper.header();
        let layout = blocks.layout();
        let count = count.max(u64::from(header.blocks));
        let mut table =
            alone.other_table(count, u64::from(header.table_offset), |_, word| Ok(word))?;
        for index in in_use..hidden.div_ceil(block).min(count) {
            table.put(index, DISCARDED)?;
        }
        let mut end = alone.end()?;
        if self.own.is_fixed {
            let first = layout.blocks_up_to(end);
            let end_of_new = layout.end_of(first + (count - in_use));
            let storage = &*blocks.storage;
            let old_len = storage.len()?;
            if storage.limits().fixed_len {
                if old_len < end_of_new {
                    return Err(Error::os(libc::ENOSPC));
                }
            } else {
                grow(storage, end_of_new.max(old_len), preallocation, control)?;
            }
            // Bytes past the blocks belong to nothing, but the new blocks would expose them.
            let stale = layout.end_of(first)..end_of_new.min(old_len);
            zero(storage, stale.start, stale.end, ZeroFlags::empty(), control)?;
            for (index, host) in (in_use..count).zip(first..) {
                table.put(index, host as u32)?;
            }
            end = end_of_new;
        }
        alone.write_table(&table)?;
        blocks.barrier()?;
        let allocated = layout.blocks_up_to(end) as u32;
        blocks.keeper.change(&*blocks.storage, |header| {
            header.disk_size = len;
            header.blocks = count as u32;
            header.allocated = allocated;
        })?;
        blocks.barrier()?;
        alone.replace(layout, table);
        alone.set_end(end)?;
        blocks.set_len(len);
        Ok(())
    }

    /// Makes room for `count` entries in the table: the first blocks move behind the last one, and the table to where
    /// they were. A single write of the header puts all of that into effect.
    fn move_data(
        &self,
        alone: &Exclusive<'_, Records>,
        count: u64,
        control: &JobControl,
    ) -> Result<()> {
        let blocks = &self.blocks;
        let header = blocks.keeper.header();
        let layout = blocks.layout();
        let units = (count * 4).div_ceil(layout.unit());
        let new = layout.moved_by(units);
        if u32::try_from(new.start()).is_err() {
            return Err(Error::new(
                ErrorKind::Limit,
                "The block map would be too large",
            ));
        }
        alone.reserve_up_to(new.start())?;
        alone.move_away(new.start() + layout.lead(), control)?;
        let end = alone.end()?;
        let offset = layout.start();
        let table =
            alone.other_table(u64::from(header.blocks), offset, |index, word| match layout
                .entry(word)
            {
                Entry::At(host) => new.word(host).ok_or_else(|| {
                    Error::corrupt(format!("Block {index} stands where the block map goes"))
                }),
                _ => Ok(word),
            })?;
        alone.write_table(&table)?;
        blocks.barrier()?;
        blocks.keeper.change(&*blocks.storage, |header| {
            header.table_offset = offset as u32;
            header.data_offset = new.start() as u32;
            header.allocated = new.blocks_up_to(end) as u32;
        })?;
        blocks.barrier()?;
        alone.replace(new, table);
        Ok(())
    }

    fn shrink(&self, len: u64, control: &JobControl) -> Result<()> {
        let blocks = &self.blocks;
        let alone = blocks.exclusive();
        control.checkpoint()?;
        // Detect damage before anything changes.
        alone.end()?;
        let layout = blocks.layout();
        let count = len.div_ceil(layout.block_size());
        let header = blocks.keeper.header();
        blocks.flush(blocks.durability())?;
        let table = alone.other_table(count, u64::from(header.table_offset), |_, word| Ok(word))?;
        blocks.keeper.change(&*blocks.storage, |header| {
            header.disk_size = len;
            header.blocks = count as u32;
        })?;
        blocks.barrier()?;
        blocks.set_len(len);
        alone.replace(layout, table);
        // From here on the new size is in effect; the rest returns space.
        alone.pack(&JobControl::default())
    }
}
