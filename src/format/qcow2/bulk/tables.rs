//! The L1 table and the one open L2 table.

use std::sync::Arc;

use crate::error::Result;
use crate::format::qcow2::disk::{Geometry, L1Entry, L2Entry, SubclusterBitmap};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::storage::Storage;

use super::batch::Batch;
use super::space::HostSpace;

/// Where preallocated clusters are: guest offset 0 at `base`, all others contiguously behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    /// Host offset of guest offset 0.
    pub base: u64,
    /// Number of guest clusters in the image.
    pub clusters: u64,
}

/// Tables in memory; entries are set in ascending guest order.
#[derive(Debug)]
pub(super) struct Tables {
    geometry: Geometry,
    /// Offsets of the L2 tables; 0 if there is none.
    l1: Vec<u64>,
    /// The index of the open table, and its bytes.
    open: Option<usize>,
    bytes: IoBuf,
    batch: Batch,
    linear: Option<Linear>,
    /// Ends the writing of many tables.
    control: Option<Arc<JobControl>>,
}

impl Tables {
    /// For `l1_entries` L2 tables, which have no place yet.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn new(geometry: Geometry, l1_entries: u64) -> Result<Self> {
        Ok(Self {
            geometry,
            l1: memory::filled(l1_entries as usize, 0)?,
            open: None,
            bytes: memory::zeroed(geometry.cluster_size() as usize)?,
            batch: Batch::new(geometry.cluster_size()),
            linear: None,
            control: None,
        })
    }

    /// Assigns a place to every L2 table and an entry to every cluster; `control` can end the writing of tables.
    pub fn preallocate(&mut self, first_table: u64, linear: Linear, control: &Arc<JobControl>) {
        for (offset, index) in self.l1.iter_mut().zip(0u64..) {
            *offset = first_table + index * self.geometry.cluster_size();
        }
        self.linear = Some(linear);
        self.control = Some(control.clone());
    }

    /// The layout of the clusters, if every one of them has an entry from the start.
    pub fn linear(&self) -> Option<Linear> {
        self.linear
    }

    /// The number of L2 tables.
    pub fn l1_entries(&self) -> usize {
        self.l1.len()
    }

    /// Allocates those L2 tables of guest clusters `first..=last` that have no place yet.
    ///
    /// # Errors
    /// As [`HostSpace::take`].
    pub fn place(
        &mut self,
        first: u64,
        last: u64,
        space: &mut HostSpace,
        out: &dyn Storage,
    ) -> Result<()> {
        let bits = self.geometry.l2_bits();
        let range = (first >> bits) as usize..=(last >> bits) as usize;
        for offset in self.l1.get_mut(range).into_iter().flatten() {
            if *offset == 0 {
                *offset = space.take(1, out)?;
            }
        }
        Ok(())
    }

    /// The entry of a guest cluster: from the open table, or else from a new one.
    pub fn get(&mut self, cluster: u64, out: &dyn Storage) -> Result<(L2Entry, SubclusterBitmap)> {
        self.switch_to((cluster >> self.geometry.l2_bits()) as usize, out)?;
        let at = self.position(cluster);
        let word = |at: usize| {
            let field = self.bytes.get(at..at + 8).and_then(|f| f.try_into().ok());
            field.map(u64::from_be_bytes).unwrap_or_default()
        };
        let bitmap = if self.geometry.extended_l2() {
            word(at + 8)
        } else {
            0
        };
        Ok((L2Entry(word(at)), SubclusterBitmap(bitmap)))
    }

    /// Sets the entry of a guest cluster, whose table has a place.
    ///
    /// # Errors
    /// If writing the previously open table fails.
    pub fn set(
        &mut self,
        cluster: u64,
        entry: L2Entry,
        bitmap: SubclusterBitmap,
        out: &dyn Storage,
    ) -> Result<()> {
        self.switch_to((cluster >> self.geometry.l2_bits()) as usize, out)?;
        let at = self.position(cluster);
        if let Some(field) = self.bytes.get_mut(at..at + 8) {
            field.copy_from_slice(&entry.to_bytes());
        }
        if self.geometry.extended_l2()
            && let Some(field) = self.bytes.get_mut(at + 8..at + 16)
        {
            field.copy_from_slice(&bitmap.to_bytes());
        }
        Ok(())
    }

    /// Writes all pending tables; preallocated ones up to the last.
    ///
    /// # Errors
    /// If a write fails.
    pub fn finish(&mut self, out: &dyn Storage) -> Result<()> {
        if self.linear.is_some() && !self.l1.is_empty() {
            self.switch_to(self.l1.len() - 1, out)?;
        }
        self.spill(out)?;
        self.batch.flush(out)
    }

    /// The bytes of the L1 table.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn l1_bytes(&self) -> Result<IoBuf> {
        let entry = |&offset: &u64| L1Entry::new(offset, offset != 0).0;
        memory::bytes_of(self.l1.iter().map(entry))
    }

    fn position(&self, cluster: u64) -> usize {
        let index = cluster & (self.geometry.l2_entries() - 1);
        index as usize * self.geometry.l2_entry_size()
    }

    /// Opens table `index`, which must not be before the open one.
    fn switch_to(&mut self, index: usize, out: &dyn Storage) -> Result<()> {
        if self.open == Some(index) {
            return Ok(());
        }
        let next = self.open.map_or(0, |open| open + 1);
        self.spill(out)?;
        if self.linear.is_some() {
            for skipped in next..index {
                if let Some(control) = &self.control {
                    control.checkpoint()?;
                }
                self.start(skipped);
                self.spill(out)?;
            }
        }
        self.start(index);
        Ok(())
    }

    fn start(&mut self, index: usize) {
        self.open = Some(index);
        let Some(linear) = self.linear else {
            self.bytes.fill(0);
            return;
        };
        let cluster_size = self.geometry.cluster_size();
        let first = (index as u64) << self.geometry.l2_bits();
        let entry_size = self.geometry.l2_entry_size();
        for (slot, cluster) in self.bytes.chunks_exact_mut(entry_size).zip(first..) {
            let entry = if cluster < linear.clusters {
                L2Entry::data(linear.base + cluster * cluster_size, true)
            } else {
                L2Entry(0)
            };
            let (word, bitmap) = slot.split_at_mut(8);
            word.copy_from_slice(&entry.to_bytes());
            bitmap.fill(0);
        }
    }

    fn spill(&mut self, out: &dyn Storage) -> Result<()> {
        let Some(index) = self.open.take() else {
            return Ok(());
        };
        match self.l1.get(index) {
            Some(&offset) if offset != 0 => self.batch.push(offset, &self.bytes, out),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::MemoryStorage;

    #[test]
    fn tables_that_were_given_a_place_are_not_all_written_once_cancelled() {
        let geometry = Geometry::new(16, false, 4).unwrap();
        for (is_cancelled, len) in [(false, 101 << 16), (true, 0)] {
            let mut tables = Tables::new(geometry, 100).unwrap();
            let control = Arc::new(JobControl::default());
            let clusters = 100 * geometry.l2_entries();
            let base = 200 << 16;
            tables.preallocate(1 << 16, Linear { base, clusters }, &control);
            if is_cancelled {
                control.cancel();
            }
            let out = MemoryStorage::new("out");
            let done = tables.finish(&out);
            assert_eq!(
                done.err().map(|error| error.kind()),
                is_cancelled.then_some(ErrorKind::Cancelled)
            );
            assert_eq!(out.len().unwrap(), len);
        }
    }
}
