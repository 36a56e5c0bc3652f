//! The host clusters that an L1 table reaches: their refcounts and COPIED flags.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::allocator::Alloc;
use crate::format::qcow2::cache::{Class, Slice};
use crate::format::qcow2::disk::{L1Entry, L2Entry, L2Kind};
use crate::format::qcow2::map::Entry;
use crate::format::qcow2::state::Qcow2;
use crate::job::JobControl;
use crate::memory;

/// Total size of visited tables, in multiples of the file's length, beyond which an image is refused.
const MAX_VISITS: u64 = 16;
/// Total size of tables that may always be visited, in bytes.
const FREE_VISITS: u64 = 64 << 20;

/// Number of slices of a table that are read together.
const SLICES_AT_ONCE: u64 = 64;

/// How the number of references changes: by one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::qcow2) enum By {
    Raise,
    Lower,
}

impl Qcow2 {
    /// The active L1 table as it is in memory.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(in crate::format::qcow2) fn active_l1(&self) -> Result<Vec<u64>> {
        let l1 = self.l1.read();
        let entries = l1.entries.iter();
        memory::collect(entries.map(|entry| entry.load(Ordering::Acquire)))
    }

    /// Calls `visit` with the index of each L2 table and the host clusters that it reaches, itself included.
    pub(super) fn visit_tree(
        &self,
        l1: &[u64],
        control: &JobControl,
        mut visit: impl FnMut(usize, &mut Vec<u64>) -> Result<()>,
    ) -> Result<()> {
        let bits = self.layout.cluster_bits();
        let file_len = self.storage.len()?;
        let limit = file_len
            .saturating_mul(MAX_VISITS)
            .saturating_add(FREE_VISITS);
        let tables = l1.iter().filter(|word| L1Entry(**word).offset() != 0);
        let mut clusters = Vec::new();
        for (number, word) in tables.enumerate() {
            control.checkpoint()?;
            let table = self.checked_table(L1Entry(*word))?;
            if (number as u64 + 1).saturating_mul(self.layout.cluster_size()) > limit {
                return Err(Error::corrupt(format!(
                    "'{}': tables refer to each other more often than this file can need",
                    self.storage.name()
                )));
            }
            clusters.clear();
            clusters.push(table >> bits);
            let mut found = Vec::new();
            self.for_slices(table, |slice| {
                for (_, entry) in self.named_entries(slice) {
                    self.check_entry(entry, table)?;
                    self.collect_references(entry, false, &mut found)?;
                }
                Ok(())
            })?;
            memory::reserve(&mut clusters, found.len())?;
            clusters.extend(found.drain(..).map(|freed| freed.cluster));
            if let Some(wild) = clusters.iter().find(|cluster| {
                **cluster << bits >= file_len.next_multiple_of(self.layout.cluster_size())
            }) {
                return Err(self.corruption(
                    format!(
                        "A table refers to offset {:#x} past the end of the file",
                        wild << bits
                    ),
                    table,
                ));
            }
            visit(number, &mut clusters)?;
        }
        Ok(())
    }

    fn checked_table(&self, entry: L1Entry) -> Result<u64> {
        let offset = entry.offset();
        if self.layout.in_cluster(offset) != 0 {
            return Err(self.corruption(format!("L2 table offset {offset:#x} unaligned"), offset));
        }
        Ok(offset)
    }

    fn check_entry(&self, entry: Entry, table: u64) -> Result<()> {
        if let L2Kind::Data(host) | L2Kind::ZeroAllocated(host) =
            entry.word.kind(&self.layout, false)
            && self.layout.in_cluster(host) != 0
        {
            return Err(self.corruption(
                format!("Cluster allocation offset {host:#x} unaligned (L2 offset: {table:#x})"),
                table,
            ));
        }
        Ok(())
    }

    /// Calls `f` with each slice of an L2 table.
    pub(super) fn for_slices(
        &self,
        table: u64,
        mut f: impl FnMut(&Arc<Slice>) -> Result<()>,
    ) -> Result<()> {
        let step = self.layout.slice_bytes();
        let count = self.layout.cluster_size() / step;
        for first in (0..count).step_by(SLICES_AT_ONCE as usize) {
            let some = SLICES_AT_ONCE.min(count - first);
            for slice in self.slices(Class::L2, table + first * step, some)? {
                f(&slice)?;
            }
        }
        Ok(())
    }

    /// The entries of a slice of an L2 table whose first word is not 0, with their indexes.
    fn named_entries(&self, slice: &Slice) -> Vec<(u64, Entry)> {
        let step = self.layout.entry_words();
        slice.read(|words| {
            (0..)
                .zip(words.iter().step_by(step))
                .filter(|(_, word)| word.load(Ordering::Relaxed) != 0)
                .map(|(index, _)| (index, Entry::load(words, &self.layout, index)))
                .collect()
        })
    }

    /// Adds a reference to everything that an L1 table reaches; after a failure none is added.
    pub(super) fn raise_tree(&self, l1: &[u64], control: &JobControl) -> Result<()> {
        let mut done = 0;
        let raised = self.visit_tree(l1, control, |number, clusters| {
            self.change_references(clusters, By::Raise)?;
            done = number + 1;
            self.write_flags_if_full()
        });
        if raised.is_err() {
            // What cannot be dropped again is leaked, which does no harm.
            let _ = self.visit_tree(l1, &JobControl::default(), |number, clusters| {
                if number >= done {
                    return Err(Error::cancelled());
                }
                self.change_references(clusters, By::Lower)
            });
        }
        raised
    }

    /// Drops a reference to everything that an L1 table reaches; nothing on disk refers to it any more.
    pub(super) fn lower_tree(&self, l1: &[u64], control: &JobControl) -> Result<()> {
        self.visit_tree(l1, control, |_, clusters| {
            self.change_references(clusters, By::Lower)?;
            self.write_flags_if_full()
        })
    }

    /// Writes refcounts and flags out if many of them are pending; what the tables refer to stays the same.
    fn write_flags_if_full(&self) -> Result<()> {
        if self.cache.dirty_bytes() > self.cache.dirty_limit() {
            self.write_flags()?;
        }
        Ok(())
    }

    /// Changes the refcounts of clusters, which may repeat: either all of them or none.
    pub(super) fn change_references(&self, clusters: &mut [u64], by: By) -> Result<()> {
        clusters.sort_unstable();
        self.check_references(clusters, by)?;
        let alloc = &mut *self.alloc.lock();
        let per_slice = self.counts().slice_refcounts();
        for run in clusters.chunk_by(|a, b| a / per_slice == b / per_slice) {
            self.apply_change(alloc, run, by)?;
        }
        Ok(())
    }

    /// Refuses an impossible change of the refcounts of sorted clusters.
    pub(in crate::format::qcow2) fn check_references(
        &self,
        clusters: &[u64],
        by: By,
    ) -> Result<()> {
        let alloc = self.alloc.lock();
        let per_slice = self.counts().slice_refcounts();
        for run in clusters.chunk_by(|a, b| a / per_slice == b / per_slice) {
            self.check_change(&alloc, run, by)?;
        }
        Ok(())
    }

    /// Checks that the refcounts of one slice can change this way.
    fn check_change(&self, alloc: &Alloc, run: &[u64], by: By) -> Result<()> {
        let Some(&first) = run.first() else {
            return Ok(());
        };
        let slice = match self.refcount_slice(alloc, first)? {
            Some(offset) => Some(self.slice(Class::Refcount, offset)?),
            None => None,
        };
        let per_slice = self.counts().slice_refcounts();
        for same in run.chunk_by(|a, b| a == b) {
            let cluster = same.first().copied().unwrap_or(first);
            let times = same.len() as u64;
            let count = slice.as_ref().map_or(0, |slice| {
                slice.read(|words| self.counts().refcount(words, cluster % per_slice))
            });
            if count == 0 || by == By::Lower && count < times {
                return Err(self.corruption(
                    format!(
                        "Refcount of cluster {cluster:#x} is {count} although it is referenced"
                    ),
                    cluster << self.layout.cluster_bits(),
                ));
            }
            if by == By::Raise && self.counts().max_refcount() - count < times {
                return Err(Error::new(ErrorKind::Invalid, "Invalid argument")
                    .with_errno(libc::EINVAL)
                    .with_hint(format!(
                        "A refcount exceeds its width of {} bits.",
                        self.counts().refcount_width().bits()
                    )));
            }
        }
        Ok(())
    }

    fn apply_change(&self, alloc: &mut Alloc, run: &[u64], by: By) -> Result<()> {
        let Some(&first) = run.first() else {
            return Ok(());
        };
        let Some(offset) = self.refcount_slice(alloc, first)? else {
            return Ok(());
        };
        let slice = self.slice(Class::Refcount, offset)?;
        let per_slice = self.counts().slice_refcounts();
        let mut free = Vec::new();
        self.cache.modify(&slice, |words| {
            for &cluster in run {
                let index = cluster % per_slice;
                let count = self.counts().refcount(words, index);
                let count = match by {
                    By::Raise => count.saturating_add(1),
                    By::Lower => count.saturating_sub(1),
                };
                self.counts().set_refcount(words, index, count);
                if count == 0 {
                    free.push(cluster);
                }
            }
        });
        for cluster in free {
            alloc.became_free(cluster);
            self.meta.remove_table(cluster);
        }
        Ok(())
    }

    /// Whether the refcount of each cluster is one.
    fn are_single(&self, clusters: &[u64]) -> Result<Vec<bool>> {
        let alloc = self.alloc.lock();
        let mut held: Option<(Range<u64>, Arc<Slice>)> = None;
        let per_slice = self.counts().slice_refcounts();
        let mut single = Vec::with_capacity(clusters.len());
        for &cluster in clusters {
            if held
                .as_ref()
                .is_none_or(|(range, _)| !range.contains(&cluster))
            {
                let first = cluster - cluster % per_slice;
                held = match self.refcount_slice(&alloc, cluster)? {
                    Some(offset) => Some((
                        first..first + per_slice,
                        self.slice(Class::Refcount, offset)?,
                    )),
                    None => None,
                };
            }
            single.push(held.as_ref().is_some_and(|(_, slice)| {
                slice.read(|words| self.counts().refcount(words, cluster % per_slice)) == 1
            }));
        }
        Ok(single)
    }

    /// Sets the COPIED flags of the active tables according to the refcounts, or clears all of them.
    pub(in crate::format::qcow2) fn mark_active(
        &self,
        clear: bool,
        control: &JobControl,
    ) -> Result<()> {
        let l1 = self.active_l1()?;
        for (index, word) in (0u64..).zip(l1) {
            control.checkpoint()?;
            let entry = L1Entry(word);
            if entry.offset() == 0 {
                continue;
            }
            let table = self.checked_table(entry)?;
            self.mark_table(table, clear)?;
            let own = !clear && self.are_single(&[table >> self.layout.cluster_bits()])? == [true];
            let marked = L1Entry::new(table, own);
            if marked != entry {
                self.set_l1(index, marked);
            }
            self.write_flags_if_full()?;
        }
        Ok(())
    }

    /// Sets the COPIED flags of an L2 table according to the refcounts, or clears them. Clusters of a data file have no
    /// refcount: nothing but the entry refers to them.
    pub(super) fn mark_table(&self, table: u64, clear: bool) -> Result<()> {
        self.for_slices(table, |slice| {
            let entries: Vec<(u64, Entry, u64)> = self
                .named_entries(slice)
                .into_iter()
                .filter_map(|(index, entry)| {
                    match entry.word.kind(&self.layout, self.has_data_file) {
                        L2Kind::Data(host) | L2Kind::ZeroAllocated(host) => {
                            Some((index, entry, host >> self.layout.cluster_bits()))
                        }
                        _ => None,
                    }
                })
                .collect();
            let hosts: Vec<u64> = entries.iter().map(|(_, _, host)| *host).collect();
            let single = if clear || self.has_data_file {
                vec![!clear; hosts.len()]
            } else {
                self.are_single(&hosts)?
            };
            let changed: Vec<(u64, Entry)> = entries
                .into_iter()
                .zip(single)
                .filter(|((_, entry, _), single)| entry.word.copied() != *single)
                .map(|((index, mut entry, _), _)| {
                    entry.word.0 ^= L2Entry::COPIED;
                    (index, entry)
                })
                .collect();
            if !changed.is_empty() {
                self.cache.modify(slice, |words| {
                    for (index, entry) in changed {
                        entry.store(words, &self.layout, index);
                    }
                });
            }
            Ok(())
        })
    }
}
