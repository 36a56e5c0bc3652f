//! The consistency check: entries name places in the file, and only compressed data may share its place.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bytes::be64;
use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::notes::Notes;
use crate::format::table_cache::Table;
use crate::format::uses::Uses;
use crate::format::{BackingChange, Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::shorten;

use super::Qcow;
use super::disk::{ClusterPlace, word_of, word_of_packed};

/// Number of entries of the upper table to write together.
const L1_PIECE: u32 = 8192;

/// The findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The header places the name of the backing file past the end of the file.
    lost_name: bool,
    /// Tables without a valid place.
    bad_tables: Vec<u32>,
    /// Tables that overlap something else.
    shared_tables: Vec<u32>,
    /// The number of entries that name no place in the file, and the first cluster with one.
    bad: u64,
    first_bad: Option<u64>,
    /// The number of clusters that overlap something else, and the first of them.
    shared: u64,
    first_shared: Option<u64>,
    /// Clusters named by entries past the end of the disk.
    behind: u64,
    leaks: u64,
    total: u64,
    allocated: u64,
    compressed: u64,
    fragmented: u64,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        let tables = self.bad_tables.len() + self.shared_tables.len();
        tables as u64 + self.bad + self.shared + u64::from(self.lost_name)
    }

    fn leaks(&self) -> u64 {
        self.leaks
    }

    fn count(&self, report: &mut CheckReport) {
        report.total_clusters = Some(self.total);
        report.allocated_clusters = self.allocated;
        report.compressed_clusters = self.compressed;
        report.fragmented_clusters = self.fragmented;
    }
}

impl Findings {
    /// A description of the first damage.
    pub(super) fn first(&self) -> Option<String> {
        if self.lost_name {
            return Some("the backing file name stands behind the end of the file".to_owned());
        }
        if let Some(index) = self.bad_tables.first() {
            return Some(format!("the L1 entry {index} names no table in the file"));
        }
        if let Some(index) = self.shared_tables.first() {
            return Some(format!(
                "the L2 table {index} stands where something else does"
            ));
        }
        if let Some(number) = self.first_bad {
            return Some(format!(
                "the entry of cluster {number} names nothing in the file"
            ));
        }
        let number = self.first_shared?;
        Some(format!("cluster {number} stands where something else does"))
    }
}

/// What is located where. Compressed clusters may overlap, because nothing is ever written over them.
struct Survey {
    /// Size in bytes of the units in which the first two are counted.
    unit: u64,
    /// Tables, uncompressed clusters, and the header.
    solid: Uses,
    packed: Uses,
    /// Anything, by host clusters.
    any: Uses,
    cluster: u64,
}

impl Survey {
    fn units(&self, place: &Range<u64>) -> Range<u64> {
        place.start / self.unit..place.end.div_ceil(self.unit)
    }

    /// Marks a place that must not be shared; returns false if something else is there.
    fn mark_solid(&mut self, place: Range<u64>) -> Result<bool> {
        let mut is_alone = true;
        for unit in self.units(&place) {
            is_alone &= self.solid.mark(unit)? && !self.packed.has(unit);
        }
        self.mark(place)?;
        Ok(is_alone)
    }

    /// Marks a place of compressed bytes; returns false if something that is not compressed is there.
    fn mark_packed(&mut self, place: Range<u64>) -> Result<bool> {
        let mut is_alone = true;
        for unit in self.units(&place) {
            is_alone &= !self.solid.has(unit);
            self.packed.mark(unit)?;
        }
        self.mark(place)?;
        Ok(is_alone)
    }

    fn mark(&mut self, place: Range<u64>) -> Result<()> {
        let clusters = place.start / self.cluster..place.end.div_ceil(self.cluster);
        self.any.mark_all(clusters).map(|_| ())
    }
}

impl Check for Qcow {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        check::check(self, repair, job)
    }
}

impl Repairable for Qcow {
    type Found = Findings;

    fn look(&self, _: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        self.survey(job, |_| Ok(()))
    }

    /// Clears entries that name nothing, gives everything a place of its own, and closes gaps.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        self.begin_change()?;
        let _all = self.inflight.reserve(0..u64::MAX);
        self.flush_all(self.durability)?;
        if found.lost_name {
            // It reads as no name, but new data would be placed after it.
            self.set_backing(None, None)?;
        }
        if !self.storage.limits().fixed_len {
            // Entries that name places past the end of the file are about to be cleared.
            let end = self.storage.len()?.max(self.l1_end);
            self.space.lock().set(end);
        }
        self.clear_l1(&found.bad_tables)?;
        for index in &found.shared_tables {
            control.checkpoint()?;
            let words = self.read_table(*index, self.table_host(*index))?;
            let bytes = memory::bytes_of(words.into_iter())?;
            let host = self.reserve(self.geometry.table_len())?;
            self.storage.write_at(&bytes, host)?;
            self.barrier()?;
            self.put_l1(*index, host)?;
        }
        self.forget_tables()?;
        let is_damaged = check::Findings::corruptions(found) > 0;
        self.clear_bad(is_damaged, control)?;
        self.flush_all(self.durability)?;
        // Only now is it known what the tables that were shared name.
        let mut shared = Vec::new();
        self.survey(None, |number| memory::push(&mut shared, number))?;
        for number in shared {
            control.checkpoint()?;
            self.change_entry(number, |place| match place {
                ClusterPlace::Absent => Ok(None),
                ClusterPlace::Plain(host) => {
                    let new = self.reserve(self.geometry.cluster())?;
                    self.copy(host, new, self.geometry.cluster())?;
                    Ok(word_of(new))
                }
                ClusterPlace::Packed { host, len } => {
                    let new = self.reserve_packed(len)?;
                    self.copy(host, new, len)?;
                    Ok(word_of_packed(new, len, self.geometry))
                }
            })?;
        }
        self.flush_all(self.durability)?;
        self.pack(control)
    }
}

impl Qcow {
    /// Scans the tables; calls `shared` with each cluster that overlaps something else.
    fn survey(
        &self,
        job: Option<&mut Job>,
        mut shared: impl FnMut(u64) -> Result<()>,
    ) -> Result<Findings> {
        let mut notes = Notes::new(job);
        let geometry = self.geometry;
        let (cluster, table_len) = (geometry.cluster(), geometry.table_len());
        let unit = cluster.min(table_len);
        let file_len = self.storage.len()?;
        // Space that is reserved but not written yet counts.
        let known_len = self.file_len_at_least(u64::MAX);
        let mut survey = Survey {
            unit,
            solid: Uses::of(file_len / unit),
            packed: Uses::of(file_len / unit),
            // A partial cluster at the end counts, as appended data goes after it.
            any: Uses::of(file_len.div_ceil(cluster)),
            cluster,
        };
        let mut found = Findings {
            total: self.len.div_ceil(cluster),
            ..Findings::default()
        };
        survey.mark_solid(0..self.l1_end)?;
        // QEMU's tools write the table in whole sectors.
        let written = (self.l1_end - self.l1_offset).next_multiple_of(SECTOR);
        survey.mark(self.l1_offset..self.l1_offset + written)?;
        if let Some(name) = self.header.lock().name_place() {
            found.lost_name = name.start >= file_len;
            if !found.lost_name {
                survey.mark(name)?;
            }
        }
        for index in 0..self.l1.len() as u32 {
            let host = self.table_host(index);
            if host == 0 {
                continue;
            }
            if !self.is_table_place_within(host, known_len) {
                memory::push(&mut found.bad_tables, index)?;
            } else if !survey.mark_solid(host..host + table_len)? {
                memory::push(&mut found.shared_tables, index)?;
            }
        }
        // Where the previous cluster ends.
        let mut before = None;
        let is_skipped = |index: u32| {
            let is_in = |tables: &[u32]| tables.binary_search(&index).is_ok();
            is_in(&found.bad_tables) || is_in(&found.shared_tables)
        };
        self.each_entry_beside(is_skipped, |number, _, word| {
            if number >= found.total {
                // The header may say too small a size, so this is no leak.
                let place = self.vetted_within(word, known_len);
                if let Some(at) = place.and_then(|place| place.range(cluster)) {
                    found.behind += 1;
                    survey.mark(at)?;
                }
                return notes.tick();
            }
            found.allocated += 1;
            let mut is_alone = true;
            let place = self.vetted_within(word, known_len);
            let at = place.and_then(|place| place.range(cluster));
            match place {
                None => {
                    found.bad += 1;
                    found.first_bad.get_or_insert(number);
                }
                Some(ClusterPlace::Absent) => found.allocated -= 1,
                Some(ClusterPlace::Plain(host)) => {
                    is_alone = survey.mark_solid(host..host + cluster)?;
                }
                Some(ClusterPlace::Packed { host, len }) => {
                    found.compressed += 1;
                    is_alone = survey.mark_packed(host..host + len)?;
                }
            }
            if !is_alone {
                found.shared += 1;
                found.first_shared.get_or_insert(number);
                shared(number)?;
            }
            if let Some(at) = at {
                // Compressed data may be followed by the rest of a sector.
                let follows = before.is_none_or(|before: u64| {
                    before == at.start || before.next_multiple_of(SECTOR) == at.start
                });
                found.fragmented += u64::from(!follows);
                before = Some(at.end);
            }
            notes.tick()
        })?;
        if found.behind > 0 {
            notes.tell(|| {
                format!(
                    "{} clusters are named behind the end of the disk, and kept: the header may say too small a size",
                    found.behind
                )
            });
        }
        found.leaks = match shorten::can_cut(&*self.storage, 0) {
            _ if self.l1_goes_on(known_len)? => {
                notes.tell(|| {
                    "The L1 table goes on behind the end of the disk: the header may say too small a size, and what is unused cannot be told".to_owned()
                });
                0
            }
            true => survey.any.unused(),
            false => survey.any.unused_within(),
        };
        Ok(found)
    }

    /// Calls `visit` with the number of each cluster, its table and its entry, if the table can be read and the entry
    /// is not 0; tables are not cached.
    pub(super) fn each_entry(&self, visit: impl FnMut(u64, u32, u64) -> Result<()>) -> Result<()> {
        self.each_entry_beside(|_| false, visit)
    }

    /// As [`Qcow::each_entry`], without the tables for which `is_skipped` holds.
    fn each_entry_beside(
        &self,
        is_skipped: impl Fn(u32) -> bool,
        mut visit: impl FnMut(u64, u32, u64) -> Result<()>,
    ) -> Result<()> {
        let file_len = self.file_len_at_least(u64::MAX);
        for index in 0..self.l1.len() as u32 {
            let host = self.table_host(index);
            if host == 0 || is_skipped(index) {
                continue;
            }
            self.tables_ahead(index..self.l1.len() as u32, &is_skipped);
            let first = u64::from(index) * self.geometry.per_table();
            let words = match self.cache.get((0, index)) {
                Some(table) => memory::collect(table.words())?,
                None if self.is_table_place_within(host, file_len) => {
                    self.read_table(index, host)?
                }
                None => continue,
            };
            for (number, word) in (first..).zip(words) {
                if word != 0 {
                    visit(number, index, word)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the L1 table is followed by words that could be entries, naming possible places of tables.
    fn l1_goes_on(&self, file_len: u64) -> Result<bool> {
        let end = self.l1_end.next_multiple_of(self.geometry.cluster());
        let mut bytes = memory::zeroed((end.min(file_len).saturating_sub(self.l1_end)) as usize)?;
        self.storage.read_at(&mut bytes, self.l1_end)?;
        let name = self.header.lock().name_place().unwrap_or(0..0);
        let words = (self.l1_end..).step_by(8).zip(bytes.chunks_exact(8));
        Ok(words
            .filter(|(at, _)| name.end <= *at || at + 8 <= name.start)
            .filter_map(|(_, word)| be64(word, 0))
            .any(|word| self.is_table_place_within(word, file_len)))
    }

    /// Clears the entries that name no place in the file and, if there is any damage, those of clusters past the end of
    /// the disk: what they name cannot be told from damage.
    fn clear_bad(&self, is_damaged: bool, control: &JobControl) -> Result<()> {
        let total = self.len.div_ceil(self.geometry.cluster());
        let file_len = self.file_len_at_least(u64::MAX);
        let mut held: Option<(u32, Arc<Table>)> = None;
        self.each_entry(|number, index, word| {
            let is_kept = number < total || !is_damaged;
            if is_kept && self.vetted_within(word, file_len).is_some() {
                return Ok(());
            }
            if held.as_ref().is_none_or(|(known, _)| *known != index) {
                control.checkpoint()?;
                held = None;
                self.write_back_if_full()?;
                held = self.table(index)?.map(|table| (index, table));
            }
            if let Some((_, table)) = &held {
                self.set(table, number % self.geometry.per_table(), 0);
            }
            Ok(())
        })
    }

    /// Changes the entry of a cluster to what `change` returns for its place, if anything.
    pub(super) fn change_entry(
        &self,
        number: u64,
        change: impl FnOnce(ClusterPlace) -> Result<Option<u64>>,
    ) -> Result<()> {
        self.write_back_if_full()?;
        let (index, entry) = self
            .geometry
            .indices(number.saturating_mul(self.geometry.cluster()));
        let Some(table) = self.table(index)? else {
            return Ok(());
        };
        let place = self
            .vetted(table.get(entry))
            .unwrap_or(ClusterPlace::Absent);
        if let Some(word) = change(place)? {
            self.set(&table, entry, word);
        }
        Ok(())
    }

    /// Clears entries of the upper table, which are in ascending order, in memory and on disk, in large writes.
    fn clear_l1(&self, indices: &[u32]) -> Result<()> {
        for near in indices.chunk_by(|one, next| one / L1_PIECE == next / L1_PIECE) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else {
                continue;
            };
            let entries = self.l1.get(*first as usize..=*last as usize);
            for index in near {
                if let Some(entry) = self.l1.get(*index as usize) {
                    entry.store(0, Ordering::Release);
                }
            }
            let words = entries.unwrap_or_default().iter();
            let bytes = memory::bytes_of(words.map(|word| word.load(Ordering::Acquire)))?;
            let at = self.l1_offset + u64::from(*first) * 8;
            self.storage.write_at(&bytes, at)?;
        }
        Ok(())
    }

    /// Makes the upper table name another place, in memory and on disk.
    pub(super) fn put_l1(&self, index: u32, host: u64) -> Result<()> {
        let at = self.l1_offset + u64::from(index) * 8;
        self.storage.write_at(&host.to_be_bytes(), at)?;
        if let Some(entry) = self.l1.get(index as usize) {
            entry.store(host, Ordering::Release);
        }
        Ok(())
    }

    /// Copies bytes of the file; what is past its end reads as zeroes.
    pub(super) fn copy(&self, from: u64, to: u64, len: u64) -> Result<()> {
        let mut bytes = memory::zeroed(len as usize)?;
        self.storage.read_at(&mut bytes, from)?;
        self.storage.write_at(&bytes, to)
    }
}
