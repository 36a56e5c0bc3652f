//! Replaces zero clusters, which version 2 lacks: with unallocated ones if no backing file shows through, else with
//! data.

use crate::error::{Error, ErrorKind, Result};
use crate::format::limbo::Freed;
use crate::format::qcow2::allocator::Alloc;
use crate::format::qcow2::cache::Class;
use crate::format::qcow2::disk::{L2Entry, L2Kind};
use crate::format::qcow2::map::Entry;
use crate::format::qcow2::state::Qcow2;
use crate::job::Job;

use super::tables::Table;

impl Qcow2 {
    /// Replaces all zero clusters of the active state and of the snapshots. What the guest sees stays the same in each
    /// of them.
    pub(super) fn replace_zero_clusters(&self, job: &mut Job) -> Result<()> {
        let tables = self.all_tables()?;
        job.control().set_total(tables.len() as u64);
        for (offset, table) in tables {
            job.tick()?;
            self.replace_in_table(offset, table)?;
            job.control().advance(1);
            self.write_back_if_full()?;
        }
        Ok(())
    }

    fn replace_in_table(&self, offset: u64, table: Table) -> Result<()> {
        let step = self.layout.slice_bytes();
        let per_slice = self.layout.slice_entries();
        for part in 0..self.layout.cluster_size() / step {
            let slice = self.slice(Class::L2, offset + part * step)?;
            let zeroes: Vec<(u64, Entry)> = slice.read(|words| {
                (0..per_slice)
                    .map(|index| (index, Entry::load(words, &self.layout, index)))
                    .filter(|(_, entry)| {
                        matches!(
                            entry.word.kind(&self.layout, false),
                            L2Kind::Zero | L2Kind::ZeroAllocated(_)
                        )
                    })
                    .collect()
            });
            for (index, entry) in zeroes {
                let guest = (table.l1_index << self.layout.l1_shift())
                    + ((part * per_slice + index) << self.layout.cluster_bits());
                let (word, freed) = self.without_zero(entry.word, guest, table)?;
                self.cache.modify(&slice, |words| {
                    let entry = Entry { word, ..entry };
                    entry.store(words, &self.layout, index);
                });
                self.limbo.queue(freed);
            }
        }
        Ok(())
    }

    /// The entry that replaces a zero cluster, and the references that this releases.
    fn without_zero(
        &self,
        word: L2Entry,
        guest: u64,
        table: Table,
    ) -> Result<(L2Entry, Vec<Freed>)> {
        let cluster = self.layout.cluster_size();
        let mut freed = Vec::new();
        if let L2Kind::ZeroAllocated(host) = word.kind(&self.layout, false) {
            if self.layout.in_cluster(host) != 0 {
                return Err(self.damaged(&format!("the cluster offset {host:#x} is unaligned")));
            }
            let index = host >> self.layout.cluster_bits();
            let count = self.refcount(&self.alloc.lock(), index)?;
            if count == 1 {
                // Nothing else can refer to it: its bytes may change.
                self.check_data_place(host, cluster)?;
                self.write_zero_data(cluster, host, guest)?;
                return Ok((L2Entry(word.0 & !L2Entry::ZERO), freed));
            }
            if count < table.users {
                return Err(self.damaged(&format!(
                    "the refcount of the cluster at offset {host:#x} is too low"
                )));
            }
            freed.extend((0..table.users).map(|_| Freed {
                cluster: index,
                punch: true,
            }));
        }
        if !self.has_backing() {
            return Ok((L2Entry::default(), freed));
        }
        let host = self.alloc_for(table.users)?;
        self.cache.invalidate(host, cluster);
        self.check_data_place(host, cluster)
            .and_then(|()| self.write_zero_data(cluster, host, guest))
            .inspect_err(|_| {
                self.take_back(&mut self.alloc.lock(), host, table.users);
            })?;
        let own = table.active && table.users == 1;
        Ok((L2Entry::data(host, own), freed))
    }

    /// Allocates a cluster with this many references.
    fn alloc_for(&self, references: u64) -> Result<u64> {
        let alloc = &mut *self.alloc.lock();
        if references > self.counts().max_refcount() {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "A cluster would need {references} references, more than its refcount can hold"
                ),
            ));
        }
        let run = self.alloc_run_in(alloc, 1)?;
        let host = run.cluster << self.layout.cluster_bits();
        if references > 1 {
            self.set_refcounts(alloc, run.cluster, 1, references)
                .inspect_err(|_| self.take_back(alloc, host, 1))?;
        }
        Ok(host)
    }

    /// Drops the references to a cluster that no table refers to.
    fn take_back(&self, alloc: &mut Alloc, host: u64, references: u64) {
        let cluster = host >> self.layout.cluster_bits();
        // A failure leaks the cluster, which does no harm; the caller reports its own error.
        let _ = self.drop_references(alloc, (0..references).map(|_| cluster));
    }
}
