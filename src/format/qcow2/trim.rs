//! Trimming an image that has become smaller: empty refcount blocks, and the end of the file.

use crate::error::Result;
use crate::storage::{Durability, shorten};

use super::allocator::Alloc;
use super::cache::Class;
use super::state::Qcow2;
use crate::format::limbo::Freed;

impl Qcow2 {
    /// Frees refcount blocks that count nothing but themselves, and truncates the file behind the last cluster in use.
    /// Nothing may be remapped in the meantime.
    pub(super) fn trim(&self) -> Result<()> {
        // The file may lose only what nothing on disk refers to any more.
        self.check_lost()?;
        self.write_metadata(true, self.durability)?;
        self.reclaim_all()?;
        self.write_metadata(true, Durability::None)?;
        let counted_elsewhere = self.unlink_empty_blocks(&mut self.alloc.lock())?;
        self.write_metadata(true, Durability::None)?;
        if !counted_elsewhere.is_empty() {
            self.barrier()?;
            let clusters = counted_elsewhere.iter().map(|freed| freed.cluster);
            self.drop_references(&mut self.alloc.lock(), clusters)?;
            self.write_metadata(true, Durability::None)?;
        }
        self.barrier()?;
        self.cut_file(&self.alloc.lock())
    }

    /// Removes empty refcount blocks from the table in memory. Returns those that another block counts: their
    /// references may be dropped once the table on disk does not refer to them.
    fn unlink_empty_blocks(&self, alloc: &mut Alloc) -> Result<Vec<Freed>> {
        let bits = self.layout.cluster_bits();
        let per_block = self.counts().refcount_block_entries();
        let mut counted_elsewhere = Vec::new();
        // The first block counts the header.
        for index in 1..alloc.table.len() as u64 {
            let block = alloc.block(index);
            let cluster = block >> bits;
            let own = (cluster / per_block == index).then_some(cluster);
            if block == 0 || !self.counts_only(alloc, index, own)? {
                continue;
            }
            alloc.set_block(index, 0);
            self.cache.invalidate(block, self.layout.cluster_size());
            if own.is_some() {
                self.meta.remove_table(cluster);
                alloc.became_free(cluster);
            } else {
                counted_elsewhere.push(Freed {
                    cluster,
                    punch: true,
                });
            }
        }
        Ok(counted_elsewhere)
    }

    /// Whether the refcounts of block `index` are 0, except one reference to `own`.
    fn counts_only(&self, alloc: &Alloc, index: u64, own: Option<u64>) -> Result<bool> {
        let per_block = self.counts().refcount_block_entries();
        let per_slice = self.counts().slice_refcounts();
        for slice in 0..per_block / per_slice {
            let first = index * per_block + slice * per_slice;
            let Some(offset) = self.refcount_slice(alloc, first)? else {
                return Ok(true);
            };
            let expected = |at: u64| u64::from(own == Some(first + at));
            let only = self.slice(Class::Refcount, offset)?.read(|words| {
                (0..per_slice).all(|at| self.counts().refcount(words, at) == expected(at))
            });
            if !only {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Truncates the file behind the last cluster whose refcount is not 0.
    fn cut_file(&self, alloc: &Alloc) -> Result<()> {
        if self.storage.limits().fixed_len {
            return Ok(());
        }
        let end = self.end_of_use(alloc)? << self.layout.cluster_bits();
        shorten::cut(&*self.storage, end)
    }

    /// The cluster behind the last one whose refcount is not 0.
    fn end_of_use(&self, alloc: &Alloc) -> Result<u64> {
        let per_block = self.counts().refcount_block_entries();
        let per_slice = self.counts().slice_refcounts();
        for index in (0..alloc.table.len() as u64).rev() {
            if alloc.block(index) == 0 {
                continue;
            }
            for slice in (0..per_block / per_slice).rev() {
                let first = index * per_block + slice * per_slice;
                let Some(offset) = self.refcount_slice(alloc, first)? else {
                    continue;
                };
                let last = self.slice(Class::Refcount, offset)?.read(|words| {
                    (0..per_slice)
                        .rev()
                        .find(|at| self.counts().refcount(words, *at) != 0)
                });
                if let Some(last) = last {
                    return Ok(first + last + 1);
                }
            }
        }
        Ok(0)
    }
}
