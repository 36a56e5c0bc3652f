//! Refcounts of host clusters, through the cache. All changes happen under the allocator's lock.

use crate::error::Result;
use crate::storage::Step;

use super::allocator::Alloc;
use super::cache::Class;
use super::disk::RefcountTableEntry;
use super::hex::Hex;
use super::state::Qcow2;
use crate::format::limbo::Freed;

impl Qcow2 {
    /// The refcount of a host cluster.
    pub(super) fn refcount(&self, alloc: &Alloc, cluster: u64) -> Result<u64> {
        let Some(offset) = self.refcount_slice(alloc, cluster)? else {
            return Ok(0);
        };
        let slice = self.slice(Class::Refcount, offset)?;
        let index = cluster % self.counts().slice_refcounts();
        Ok(slice.read(|words| self.counts().refcount(words, index)))
    }

    /// Offset of the slice that holds a cluster's refcount; None without a block.
    pub(super) fn refcount_slice(&self, alloc: &Alloc, cluster: u64) -> Result<Option<u64>> {
        let per_block = self.counts().refcount_block_entries();
        let block = alloc.block(cluster / per_block);
        if block == 0 {
            return Ok(None);
        }
        if self.layout.in_cluster(block) != 0 {
            return Err(self.corruption(
                format!(
                    "Refblock offset {} unaligned (reftable index: {})",
                    Hex(block),
                    Hex(cluster / per_block)
                ),
                block,
            ));
        }
        let slice = cluster % per_block / self.counts().slice_refcounts();
        Ok(Some(block + slice * self.layout.slice_bytes()))
    }

    /// Sets the refcounts of `count` clusters that lie in one slice of an existing block.
    pub(super) fn set_refcounts(
        &self,
        alloc: &Alloc,
        cluster: u64,
        count: u64,
        value: u64,
    ) -> Result<()> {
        let Some(offset) = self.refcount_slice(alloc, cluster)? else {
            return Err(self.corruption(
                format!("Cluster {cluster:#x} has no refcount block"),
                cluster << self.layout.cluster_bits(),
            ));
        };
        let slice = self.slice(Class::Refcount, offset)?;
        let first = cluster % self.counts().slice_refcounts();
        self.cache.modify(&slice, |words| {
            for index in first..first + count {
                self.counts().set_refcount(words, index, value);
            }
        });
        Ok(())
    }

    /// Drops one reference to each cluster; those that reach 0 may be allocated again.
    pub(super) fn drop_references(
        &self,
        alloc: &mut Alloc,
        clusters: impl IntoIterator<Item = u64>,
    ) -> Result<()> {
        let mut clusters = clusters.into_iter().peekable();
        if clusters.peek().is_some() {
            self.announce(Step::ClusterFree);
        }
        for cluster in clusters {
            let count = self.refcount(alloc, cluster)?;
            let Some(left) = count.checked_sub(1) else {
                return Err(self.corruption(
                    format!("Refcount of cluster {cluster:#x} is 0 although it was referenced"),
                    cluster << self.layout.cluster_bits(),
                ));
            };
            self.set_refcounts(alloc, cluster, 1, left)?;
            if left == 0 {
                alloc.became_free(cluster);
                self.meta.remove_table(cluster);
            }
        }
        Ok(())
    }

    /// Releases clusters that were allocated but never referred to by any table.
    pub(super) fn free_unused(&self, cluster: u64, count: u64) {
        let clusters = cluster..cluster + count;
        // A failure leaks the clusters, which does no harm; the caller reports its own error.
        let _ = self.drop_references(&mut self.alloc.lock(), clusters);
    }

    /// Releases references that are unlinked on disk and that no I/O uses any more.
    pub(super) fn reclaim(&self) -> Result<()> {
        let Some(_one) = self.reclaiming.try_lock() else {
            return Ok(());
        };
        self.give_back()
    }

    /// As [`Self::reclaim`], but waits until no unlinked reference is left. Nothing may be remapped in the meantime.
    pub(super) fn reclaim_all(&self) -> Result<()> {
        let _one = self.reclaiming.lock();
        // The first round may find users that started after its wait; the second releases the rest.
        for _ in 0..2 {
            self.limbo.wait_for_users();
            self.give_back()?;
        }
        Ok(())
    }

    fn give_back(&self) -> Result<()> {
        let freed = self.limbo.drained();
        if freed.is_empty() {
            return Ok(());
        }
        self.punch(&freed)?;
        let clusters = freed.iter().map(|freed| freed.cluster);
        self.drop_references(&mut self.alloc.lock(), clusters)
    }

    /// Discards clusters that are about to become free, so that the host gets their space back.
    fn punch(&self, freed: &[Freed]) -> Result<()> {
        let mut last = Vec::new();
        {
            let alloc = self.alloc.lock();
            for freed in freed.iter().filter(|freed| freed.punch) {
                // Only the last reference; no other can be added before it is dropped.
                if self.refcount(&alloc, freed.cluster)? == 1 {
                    last.push(freed.cluster);
                }
            }
        }
        last.sort_unstable();
        let bits = self.layout.cluster_bits();
        for run in last.chunk_by(|a, b| a + 1 == *b) {
            if let Some(first) = run.first() {
                // A host that cannot discard keeps the space, which loses nothing.
                let _ = self
                    .storage
                    .discard(first << bits, (run.len() as u64) << bits);
            }
        }
        Ok(())
    }

    /// Number of host clusters in the file whose refcount is not 0, counted up to `enough`.
    pub(super) fn count_clusters_in_use(&self, enough: u64) -> Result<u64> {
        let table = if self.protected {
            self.alloc.lock().table.clone()
        } else {
            self.read_refcount_table()?
        };
        let step = self.layout.slice_bytes();
        let clusters = self.storage.len()?.div_ceil(self.layout.cluster_size());
        let per_slice = self.counts().slice_refcounts();
        let per_block = self.counts().refcount_block_entries();
        // Table entries for clusters past the end of the file are not read.
        let blocks = usize::try_from(clusters.div_ceil(per_block)).unwrap_or(usize::MAX);
        let mut used = 0;
        let blocks = table.get(..blocks).unwrap_or(&table);
        for (index, entry) in blocks.iter().enumerate() {
            let block = RefcountTableEntry(*entry).offset();
            if block == 0 || self.layout.in_cluster(block) != 0 {
                continue;
            }
            self.count_ahead(blocks.get(index..).unwrap_or(&[]));
            for at in (0..self.layout.cluster_size()).step_by(step as usize) {
                if used >= enough {
                    return Ok(used);
                }
                let slice = self.slice(Class::Refcount, block + at)?;
                used += slice.read(|words| {
                    (0..per_slice)
                        .filter(|index| self.counts().refcount(words, *index) != 0)
                        .count() as u64
                });
            }
        }
        Ok(used)
    }
}
