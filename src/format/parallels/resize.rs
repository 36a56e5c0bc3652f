//! Changing the virtual size.

use crate::error::{Error, Result};
use crate::format::blocks::Layout;
use crate::format::{Below, Resize};
use crate::job::JobControl;
use crate::size::SECTOR;
use crate::storage::{Preallocation, ZeroFlags};

use super::Parallels;
use super::disk::{HEADER_LEN, ParallelsLayout};

impl Resize for Parallels {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        _below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        if preallocation != Preallocation::Off {
            return Err(Error::unsupported(
                "A Parallels image has no space that can be allocated ahead",
            ));
        }
        let header = self.blocks.keeper.header();
        if !len.is_multiple_of(SECTOR) || !header.can_hold(len / SECTOR) {
            return Err(Error::invalid("Invalid image size specified"));
        }
        if self.blocks.keeper.outlasts() {
            return Err(Error::unsupported(
                "The format extension of the image is for its size",
            ));
        }
        if len < self.blocks.len() {
            self.note_change()?;
            return self.shrink(len, control);
        }
        self.blocks.refuse_blocks_behind(control)?;
        self.note_change()?;
        self.grow(len, control)
    }
}

impl Parallels {
    fn grow(&self, len: u64, control: &JobControl) -> Result<()> {
        let blocks = &self.blocks;
        let alone = blocks.exclusive();
        // Detect damage before anything changes.
        alone.end()?;
        blocks.zero_last_block(len)?;
        let cluster = blocks.layout().block_size();
        alone.clear_behind(blocks.len().div_ceil(cluster), control)?;
        let header = blocks.keeper.header();
        let mut new = header.clone();
        let count = len.div_ceil(cluster).max(u64::from(header.entries));
        new.entries = count as u32;
        new.sectors = len / SECTOR;
        let (mut start, _) = header.start(blocks.storage.len()?);
        let mut free = blocks.layout().start();
        if count > new.room(free) {
            if count > new.room(start) {
                start += (new.table_end() - start).next_multiple_of(cluster);
            }
            alone.reserve_up_to(start)?;
            alone.move_away(start, control)?;
            free = start;
        }
        new.set_start(start)
            .ok_or_else(|| Error::invalid("Invalid image size specified"))?;
        let table = alone.other_table(count, HEADER_LEN as u64, |_, word| Ok(word))?;
        let zeroes = header.table_end()..free;
        blocks
            .storage
            .write_zeroes(zeroes.start, zeroes.end - zeroes.start, ZeroFlags::empty())?;
        blocks.barrier()?;
        blocks
            .keeper
            .change(&*blocks.storage, |header| *header = new.clone())?;
        blocks.barrier()?;
        alone.replace(ParallelsLayout::of(&new, start), table);
        blocks.set_len(len);
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
        blocks.flush(blocks.durability())?;
        let table = alone.other_table(count, HEADER_LEN as u64, |_, word| Ok(word))?;
        let file_len = blocks.storage.len()?;
        blocks.keeper.change(&*blocks.storage, |header| {
            header.sectors = len / SECTOR;
            // The room for the table stays.
            let (start, _) = header.start(file_len);
            header.entries = count as u32;
            let _ = header.set_start(start);
        })?;
        blocks.barrier()?;
        blocks.set_len(len);
        alone.replace(layout, table);
        // From here on the new size is in effect; the rest returns space.
        alone.pack(&JobControl::default())
    }
}
