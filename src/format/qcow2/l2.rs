//! L2 tables for writing: allocated, or copied if a snapshot shares them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Step, ZeroFlags};

use super::cache::{Class, Slice};
use super::disk::L1Entry;
use super::state::Qcow2;
use crate::format::limbo::Freed;

impl Qcow2 {
    /// The slice that maps a guest offset, in a table that belongs to the active image alone, and
    /// the entry's index in it.
    pub(super) fn l2_slice_for_write(&self, guest: u64) -> Result<(Arc<Slice>, u64)> {
        let table = match self.l2_table(guest)? {
            Some(entry) if entry.copied() => entry.offset(),
            _ => self.own_l2_table(guest)?,
        };
        self.check_table_place(table, self.layout.cluster_size())?;
        self.l2_slice(table, guest)
    }

    /// Allocates or copies the table that maps a guest offset, so that it may be written.
    fn own_l2_table(&self, guest: u64) -> Result<u64> {
        let _one = self.l2_alloc.lock();
        let old = self.l2_table(guest)?;
        if let Some(entry) = old.filter(|entry| entry.copied()) {
            return Ok(entry.offset());
        }
        let index = self.layout.l1_index(guest);
        if index >= self.l1.read().entries.len() as u64 {
            return Err(Error::new(
                ErrorKind::Internal,
                "a guest offset lies past the L1 table",
            ));
        }
        let cluster = self.alloc_run(1)?.cluster;
        let offset = cluster << self.layout.cluster_bits();
        self.cache.invalidate(offset, self.layout.cluster_size());
        let initialised = match old {
            None => {
                self.announce(Step::L2AllocWrite);
                self.storage
                    .write_zeroes(offset, self.layout.cluster_size(), ZeroFlags::empty())
            }
            Some(old) => self.copy_table(old.offset(), offset),
        };
        if let Err(error) = initialised {
            self.free_unused(cluster, 1);
            return Err(error);
        }
        self.meta.add_table(cluster);
        self.set_l1(index, L1Entry::new(offset, true));
        if let Some(old) = old {
            self.limbo.queue([Freed {
                cluster: old.offset() >> self.layout.cluster_bits(),
                punch: false,
            }]);
        }
        Ok(offset)
    }

    fn copy_table(&self, from: u64, to: u64) -> Result<()> {
        let step = self.layout.slice_bytes();
        for at in (0..self.layout.cluster_size()).step_by(step as usize) {
            self.announce(Step::L2AllocCowRead);
            let slice = self.slice(Class::L2, from + at)?;
            let bytes: Vec<u8> = slice.read(|words| {
                let words = words.iter().map(|word| word.load(Ordering::Relaxed));
                words.flat_map(u64::to_be_bytes).collect()
            });
            self.announce(Step::L2AllocWrite);
            self.storage.write_at(&bytes, to + at)?;
        }
        Ok(())
    }
}
