//! Growing. Shrinking is refused, as in QEMU.

use crate::error::{Error, Result};
use crate::format::blocks::{Layout, ZERO, blocks_behind};
use crate::format::{Below, Resize};
use crate::job::JobControl;
use crate::storage::Preallocation;

use super::Qed;
use super::behind::look_behind;

/// Number of entries to change between two checks of the control.
const ENTRIES: u64 = 4096;

impl Resize for Qed {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        if preallocation != Preallocation::Off {
            return Err(Error::no_preallocation(preallocation.name()));
        }
        let old = self.blocks.len();
        if len < old {
            return Err(Error::no_shrink());
        }
        if !self.blocks.keeper.header().can_hold(len) {
            return Err(Error::invalid("Invalid image size specified"));
        }
        let behind = look_behind(&*self.blocks.storage, &self.blocks.keeper.header(), control)?;
        if behind.has_clusters {
            return Err(blocks_behind());
        }
        self.note_change()?;
        let mut hidden = 0;
        if self.blocks.is_overlay() {
            hidden = below.len_below().min(len);
            self.blocks.own_last_block(hidden, below)?;
        }
        self.grow(len, hidden, control)
    }

    fn can_shrink(&self) -> bool {
        false
    }
}

impl Qed {
    /// Grows the image; new clusters before `hidden` read as zeroes although the backing file has data there.
    fn grow(&self, len: u64, hidden: u64, control: &JobControl) -> Result<()> {
        let blocks = &self.blocks;
        let alone = blocks.exclusive();
        let cluster = blocks.layout().block_size();
        let in_use = blocks.len().div_ceil(cluster);
        let count = len.div_ceil(cluster);
        // Detect damage before anything changes.
        alone.end()?;
        blocks.zero_last_block(len)?;
        alone.grow_table(count)?;
        alone.clear_behind(in_use, control)?;
        for index in in_use..hidden.div_ceil(cluster).min(count) {
            if index.is_multiple_of(ENTRIES) {
                control.checkpoint()?;
            }
            alone.set(index, ZERO)?;
        }
        blocks.flush(blocks.durability())?;
        let storage = &*blocks.storage;
        blocks.keeper.change(storage, |header| header.size = len)?;
        blocks.barrier()?;
        blocks.set_len(len);
        Ok(())
    }
}
