//! The refcounts stored in the file.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::qcow2::disk::{Geometry, Header, MAX_REFTABLE_BYTES, RefcountTableEntry};
use crate::format::read_ahead::{MOST_BYTES, ReadAhead};
use crate::memory::{self, IoBuf};
use crate::storage::{ReadRange, Storage};

/// Memory for refcount blocks, in bytes.
const CACHE_BYTES: u64 = 8 << 20;

/// Reads refcounts through the refcount table, with a small cache of blocks.
#[derive(Debug)]
pub(super) struct StoredRefcounts<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    table: Vec<RefcountTableEntry>,
    /// Direct-mapped: block index and bytes.
    slots: Vec<Option<(u64, IoBuf)>>,
    ahead: Arc<ReadAhead>,
}

impl<'a> StoredRefcounts<'a> {
    /// Reads the refcount table; what lies past the end of the file reads as zeroes.
    ///
    /// # Errors
    /// If I/O fails.
    pub fn read(storage: &'a dyn Storage, header: &Header, geometry: Geometry) -> Result<Self> {
        // A table at an impossible offset has no entries.
        let clusters = match header.validate_reftable() {
            Ok(()) => header.reftable_clusters,
            Err(_) => 0,
        };
        let bytes = u64::from(clusters) * geometry.cluster_size();
        let there = storage.len()?.saturating_sub(header.reftable_offset);
        let mut table = memory::zeroed(bytes.min(MAX_REFTABLE_BYTES).min(there) as usize & !7)?;
        storage.read_at(&mut table, header.reftable_offset)?;
        let slots = (CACHE_BYTES / geometry.cluster_size()).clamp(4, 256);
        Ok(Self {
            storage,
            geometry,
            table: memory::collect(table.chunks_exact(8).map(|entry| {
                RefcountTableEntry(
                    entry
                        .iter()
                        .fold(0, |word, byte| word << 8 | u64::from(*byte)),
                )
            }))?,
            slots: (0..slots).map(|_| None).collect(),
            ahead: Arc::new(ReadAhead::of(storage)),
        })
    }

    /// The table, without the zero entries past the end of the file.
    pub fn table(&self) -> &[RefcountTableEntry] {
        &self.table
    }

    /// The block with this index; None if there is none, in which case its refcounts are all 0. Those after it are read
    /// ahead.
    ///
    /// # Errors
    /// If the block is not aligned, or if I/O fails.
    pub fn block(&mut self, index: u64) -> Result<Option<&[u8]>> {
        let most = (MOST_BYTES / self.geometry.cluster_size()) as usize;
        let (most, is_needed) = (most.min(self.slots.len() / 2), self.is_missing(index));
        let ahead = self.ahead.clone();
        ahead.run(most, || is_needed, |count| self.read_ahead(index, count));
        self.one_block(index)
    }

    fn one_block(&mut self, index: u64) -> Result<Option<&[u8]>> {
        let offset = match self.table.get(index as usize) {
            Some(entry) if entry.offset() != 0 => entry.offset(),
            _ => return Ok(None),
        };
        if self.geometry.in_cluster(offset) != 0 {
            let index = match index {
                0 => "0".to_owned(),
                index => format!("{index:#x}"),
            };
            return Err(Error::corrupt(format!(
                "Refblock offset {offset:#x} unaligned (reftable index: {index})"
            ))
            .with_offset(offset));
        }
        if i64::try_from(offset).is_err() {
            // No file is this long: fails the same on every storage, as if the read had failed.
            return Err(Error::os(libc::EIO));
        }
        let slots = self.slots.len() as u64;
        let Some(slot) = self.slots.get_mut((index % slots) as usize) else {
            return Ok(None);
        };
        if slot.as_ref().is_none_or(|(held, _)| *held != index) {
            let mut block = match slot.take() {
                Some((_, block)) => block,
                None => memory::zeroed(self.geometry.cluster_size() as usize)?,
            };
            self.storage.read_at(&mut block, offset)?;
            *slot = Some((index, block));
        }
        Ok(slot.as_ref().map(|(_, block)| &**block))
    }

    fn holds(&self, index: u64) -> bool {
        let slot = self.slots.get((index % self.slots.len() as u64) as usize);
        matches!(slot, Some(Some((held, _))) if *held == index)
    }

    /// Whether there is a block with this index that is not in memory.
    fn is_missing(&self, index: u64) -> bool {
        let entry = self.table.get(index as usize);
        entry.is_some_and(|entry| entry.offset() != 0) && !self.holds(index)
    }

    /// Reads blocks from this one on together.
    fn read_ahead(&mut self, index: u64, count: usize) -> Result<()> {
        let file_len = self.storage.len()?;
        let cluster = self.geometry.cluster_size();
        let slots = self.slots.len() as u64;
        let entries = self.table.iter().zip(0u64..).skip(index as usize);
        // No two for the same slot.
        let wanted = entries
            .take(slots as usize)
            .map(|(entry, index)| (index, entry.offset()))
            .filter(|(index, offset)| {
                let is_one = *offset != 0 && self.geometry.in_cluster(*offset) == 0;
                let end = offset.checked_add(cluster);
                is_one && end.is_some_and(|end| end <= file_len) && !self.holds(*index)
            })
            .take(count);
        let mut blocks = Vec::new();
        for (index, offset) in wanted {
            memory::push(
                &mut blocks,
                (index, offset, memory::zeroed(cluster as usize)?),
            )?;
        }
        let mut ranges: Vec<ReadRange<'_>> = memory::collect(
            blocks
                .iter_mut()
                .map(|(_, offset, block)| (*offset, &mut **block)),
        )?;
        self.storage.read_many_at(&mut ranges)?;
        for (index, _, block) in blocks {
            if let Some(slot) = self.slots.get_mut((index % slots) as usize) {
                *slot = Some((index, block));
            }
        }
        Ok(())
    }

    /// The refcount of a cluster.
    ///
    /// # Errors
    /// As [`StoredRefcounts::block`].
    pub fn get(&mut self, cluster: u64) -> Result<u64> {
        let (geometry, width) = (self.geometry, self.geometry.refcount_width());
        let index = cluster >> geometry.refcount_block_bits();
        let within = cluster & (geometry.refcount_block_entries() - 1);
        let block = self.one_block(index)?;
        Ok(block
            .and_then(|block| width.get(block, within as usize))
            .unwrap_or(0))
    }
}
