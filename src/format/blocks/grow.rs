//! What all kinds of growth share: the last block, which the image shows only in part, and blocks past it.

use crate::error::{Error, Result};
use crate::format::Below;
use crate::job::JobControl;
use crate::storage::ZeroFlags;

use super::{Blocks, Entry, Keeper, Layout};

impl<K: Keeper> Blocks<K> {
    /// Allocates the last block if the image ends within it but its parent, which shows up to `hidden`, does not: the
    /// rest of the block must not become visible when the image grows.
    ///
    /// # Errors
    /// As [`Blocks::write`].
    pub(crate) fn own_last_block(&self, hidden: u64, below: &dyn Below) -> Result<()> {
        let end = self.len();
        if end == 0 || hidden <= end || end.is_multiple_of(self.layout().block_size()) {
            return Ok(());
        }
        if let (Entry::Free, _) = self.run(end - 1, 1)? {
            let mut sector = [0; 512];
            below.read_below(&mut sector, end - 512)?;
            self.write(&sector, end - 512, below)?;
        }
        Ok(())
    }

    /// Zeroes the range from the end of the image to the end of its last block, but not past `len`.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn zero_last_block(&self, len: u64) -> Result<()> {
        let old = self.len();
        let end = old.next_multiple_of(self.layout().block_size()).min(len);
        if old >= end {
            return Ok(());
        }
        if let (Entry::At(host), run) = self.run(old, end - old)? {
            let flags = ZeroFlags::MAY_UNMAP;
            self.storage.write_zeroes(host, run, flags)?;
        }
        Ok(())
    }

    /// Refuses to grow over blocks that the table holds past the last one of the disk, in a format whose shrinking
    /// leaves none there.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`], or if the table cannot be read.
    pub(crate) fn refuse_blocks_behind(&self, control: &JobControl) -> Result<()> {
        let block = self.layout().block_size();
        let end = self.count() * block;
        let mut at = self.len().next_multiple_of(block);
        while at < end {
            control.checkpoint()?;
            let (entry, len) = self.run(at, end - at)?;
            if let Entry::At(_) = entry {
                return Err(blocks_behind());
            }
            at += len;
        }
        Ok(())
    }
}

/// The error for a disk that would grow over what may be its own data.
pub(crate) fn blocks_behind() -> Error {
    Error::unsupported(
        "The image has data behind the end of the disk: the header may say too small a size; convert the image to leave that behind",
    )
}
