//! Changing the virtual size of a dynamic disk.

use crate::error::{Error, Result};
use crate::format::blocks::{Entry, Exclusive, Layout};
use crate::job::JobControl;
use crate::storage::{Preallocation, ZeroFlags};

use super::check_size;
use super::disk::{FOOTER_LEN, Geometry, VpcLayout};
use super::dynamic::Dynamic;
use super::records::Records;

impl Dynamic {
    /// See [`crate::format::Resize::resize_above`].
    pub(super) fn resize(
        &self,
        len: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        check_size(len)?;
        if preallocation != Preallocation::Off {
            return Err(Error::unsupported(
                "Only a fixed VPC image has space that can be allocated ahead",
            ));
        }
        if len == self.blocks.len() {
            return Ok(());
        }
        let alone = self.blocks.exclusive();
        control.checkpoint()?;
        let blocks = &self.blocks;
        let storage = &*blocks.storage;
        let block = blocks.layout().block_size();
        let old = blocks.len();
        let is_growth = len > old;
        // Damage is found before anything changes.
        let mut end = alone.end()?;
        let count = len.div_ceil(block);
        if is_growth {
            self.zero_last_block(old, len)?;
            // What a shrink that was interrupted left behind the end.
            alone.free_from(old.div_ceil(block), control)?;
            if count > blocks.count() {
                end = self.move_table(&alone, count, end)?;
            }
        } else {
            blocks.flush(blocks.durability())?;
        }
        // With the largest geometry this number is what all programs go by.
        blocks.keeper.change(storage, end, |footer| {
            footer.current_size = len;
            footer.geometry = Geometry::MAX;
        })?;
        blocks.barrier()?;
        blocks.set_len(len);
        if is_growth {
            return alone.set_end(end);
        }
        // From here on the size is the new one: what follows gives space back.
        let forever = JobControl::default();
        alone.free_from(count, &forever)?;
        alone.pack(&forever)?;
        // A table that was moved behind blocks which are no more goes with them.
        let last = alone.end_of_blocks()?.next_multiple_of(FOOTER_LEN as u64);
        let table = blocks.layout().table();
        if last + (table.end - table.start) <= table.start {
            self.move_table(&alone, blocks.count(), last)?;
            return alone.pack(&forever);
        }
        Ok(())
    }

    /// Lets what is between the end of the disk and that of its last block read as zeroes.
    fn zero_last_block(&self, old: u64, len: u64) -> Result<()> {
        let block = self.blocks.layout().block_size();
        let end = old.next_multiple_of(block).min(len);
        if old == end {
            return Ok(());
        }
        if let (Entry::At(host), run) = self.blocks.run(old, end - old)? {
            let flags = ZeroFlags::MAY_UNMAP;
            self.blocks.storage.write_zeroes(host, run, flags)?;
        }
        Ok(())
    }

    /// Writes a table of `count` entries to unused space at `offset` or behind, and lets the header name it,
    /// which is one write of one sector. Gives the end of what is in use.
    fn move_table(&self, alone: &Exclusive<'_, Records>, count: u64, offset: u64) -> Result<u64> {
        let blocks = &self.blocks;
        let storage = &*blocks.storage;
        let offset = offset.next_multiple_of(FOOTER_LEN as u64);
        let header = &mut *self.header.lock();
        let mut new = header.clone();
        new.table_offset = offset;
        new.entries = count as u32;
        let layout = VpcLayout::of(&new, blocks.layout().start());
        let table = alone.other_table(count, offset, |_, word| Ok(word))?;
        let end = layout.table().end;
        alone.reserve_up_to(end)?;
        storage.write_at(&[0xff; FOOTER_LEN], end - FOOTER_LEN as u64)?;
        alone.write_table(&table)?;
        blocks.barrier()?;
        let at = blocks.keeper.footer().data_offset;
        storage.write_at(&new.to_bytes(), at)?;
        blocks.barrier()?;
        *header = new;
        alone.replace(layout, table);
        alone.end()
    }
}
