//! Data written to the disk: blocks in an unnamed temporary file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::storage::file::FileStorage;
use crate::storage::traits::Storage;
use crate::storage::{Preallocation, ZeroFlags, spool};

/// Size in bytes of the blocks that are tracked. Lengths of disks are multiples of it.
pub(super) const BLOCK: u64 = 4096;

/// Number of blocks per bitmap.
const GROUP: u64 = 4096;

/// A set of blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks(BTreeMap<u64, Box<[u64; (GROUP / 64) as usize]>>);

impl Blocks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn insert(&mut self, block: u64) {
        let group = self.0.entry(block / GROUP);
        let bits = group.or_insert_with(|| Box::new([0; (GROUP / 64) as usize]));
        bits[(block % GROUP / 64) as usize] |= 1 << (block % 64);
    }

    pub(super) fn contains(&self, block: u64) -> bool {
        let bits = self.0.get(&(block / GROUP));
        bits.is_some_and(|bits| bits[(block % GROUP / 64) as usize] >> (block % 64) & 1 != 0)
    }

    /// Whether the set contains any block that overlaps the range.
    pub(super) fn touches(&self, start: u64, end: u64) -> bool {
        let mut blocks = start / BLOCK..end.div_ceil(BLOCK);
        blocks.any(|block| self.contains(block))
    }

    /// Whether the block at an offset is in the set, and up to which offset the same holds.
    pub(super) fn run(&self, offset: u64, end: u64) -> (bool, u64) {
        let first = offset / BLOCK;
        let inside = self.contains(first);
        let mut blocks = first + 1..end.div_ceil(BLOCK);
        let other = blocks.find(|block| self.contains(*block) != inside);
        (inside, other.map_or(end, |block| block * BLOCK).min(end))
    }
}

/// Written blocks.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileStorage,
    directory: PathBuf,
    blocks: Blocks,
    /// The blocks written since changes were last carried over.
    pub(super) fresh: Blocks,
    /// Maximum size of the file in bytes, and the number of bytes written to it.
    max_bytes: u64,
    written: u64,
}

impl Overlay {
    /// An empty overlay for a disk of `len` bytes.
    ///
    /// # Errors
    /// Errors of creating the file.
    pub(super) fn new(name: &BStr, len: u64, max_bytes: u64) -> Result<Self> {
        let shown = format!("temporary file for '{name}'");
        let (file, directory) = spool::open(name, shown.into())?;
        file.set_len(len, Preallocation::Off)?;
        Ok(Self {
            file,
            directory,
            blocks: Blocks::default(),
            fresh: Blocks::default(),
            max_bytes,
            written: 0,
        })
    }

    /// Whether the data at an offset was written, and up to which offset the same holds.
    pub(super) fn run(&self, offset: u64, end: u64) -> (bool, u64) {
        self.blocks.run(offset, end)
    }

    /// Reads written data.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buf, offset)
    }

    pub(super) fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.file.extent(offset, len)
    }

    /// Whether a block was written.
    pub(super) fn has(&self, block: u64) -> bool {
        self.blocks.contains(block)
    }

    /// Stores whole blocks; `is_new`: the guest wrote them.
    pub(super) fn put(&mut self, bytes: &[u8], offset: u64, is_new: bool) -> Result<()> {
        let blocks = offset / BLOCK..(offset + bytes.len() as u64).div_ceil(BLOCK);
        let more = blocks.clone().filter(|block| !self.has(*block)).count();
        self.written = self.written.saturating_add(more as u64 * BLOCK);
        if self.written > self.max_bytes {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "What was written takes a temporary file larger than the open policy allows ({} bytes)",
                    self.max_bytes
                ),
            ));
        }
        self.file
            .write_at(bytes, offset)
            .context(|| format!("There is no more room in '{}'", self.directory.display()))?;
        self.mark(blocks, is_new);
        Ok(())
    }

    /// Stores blocks of zeroes.
    pub(super) fn put_zeroes(&mut self, offset: u64, len: u64) -> Result<()> {
        self.file.write_zeroes(offset, len, ZeroFlags::MAY_UNMAP)?;
        self.mark(offset / BLOCK..(offset + len) / BLOCK, true);
        Ok(())
    }

    fn mark(&mut self, blocks: std::ops::Range<u64>, is_new: bool) {
        for block in blocks {
            self.blocks.insert(block);
            if is_new {
                self.fresh.insert(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_blocks_are_found_across_groups() {
        let mut blocks = Blocks::default();
        for block in [0, 1, 4095, 4096, 4097, 9000] {
            blocks.insert(block);
        }
        let mut at = 0;
        let mut runs = Vec::new();
        while at < 10_000 * BLOCK {
            let (inside, end) = blocks.run(at, 10_000 * BLOCK);
            if inside {
                runs.push(at / BLOCK..end / BLOCK);
            }
            at = end;
        }
        assert_eq!(runs, [0..2, 4095..4098, 9000..9001]);
        assert!(blocks.touches(1, 2) && blocks.touches(2 * BLOCK - 1, 3 * BLOCK));
        assert!(!blocks.touches(2 * BLOCK, 4095 * BLOCK));
    }
}
