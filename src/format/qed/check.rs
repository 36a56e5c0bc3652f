//! The consistency check: every cluster has one use, and lies within the file ("Consistency checking").

use std::ops::Range;

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::{Entry, FREE, Layout, shown_of};
use crate::format::nonzero::each_nonzero;
use crate::format::notes::Notes;
use crate::format::uses::Uses;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{ZeroFlags, shorten};

use super::Qed;
use super::behind::each_l1_behind;
use super::disk::{ENTRY, ZERO_CLUSTER};

/// The findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Tables whose place is unknown.
    bad_tables: Vec<u64>,
    /// Tables that are cut short by the end of the file, and where they are.
    cut_tables: Vec<(u64, u64)>,
    /// Tables that overlap something else, and the number of clusters concerned.
    shared_tables: Vec<u64>,
    shared_clusters: u64,
    /// The number of entries that name no cluster of the file, and the first of them.
    bad: u64,
    first_bad: Option<u64>,
    /// The number of entries that name a cluster with another use, and the first of them.
    shared: u64,
    first_shared: Option<u64>,
    /// The number of clusters that are cut short by the end of the file, and where the last of them ends.
    cut: u64,
    cut_end: u64,
    /// L1 entries past those of the disk that name no possible place for a table, or clusters with another use.
    behind: u64,
    /// Other entries past the end of the disk that name no cluster of the file, or one with another use.
    wrong_behind: u64,
    /// Clusters named by entries past the end of the disk.
    kept: u64,
    leaks: u64,
    total: u64,
    allocated: u64,
    fragmented: u64,
}

/// Findings of a survey that are repaired entry by entry.
enum Wrong {
    /// The entry of a cluster with another use.
    Shared(u64),
    /// Entries past the end of the disk, given by their range in the file.
    Behind(Range<u64>),
}

/// A table, or part of one, past the end of the disk.
struct TableBehind {
    part: u64,
    place: Range<u64>,
    /// Nothing else is in that place; otherwise its entries mean nothing.
    is_alone: bool,
}

/// The table of the previous entry, and where its cluster ends.
#[derive(Default)]
struct Before(Option<(u64, u64)>);

impl Before {
    /// Whether a cluster does not follow that of the previous entry in the same table; None is an entry that names no
    /// cluster: it follows nothing, and nothing follows it.
    fn breaks(&mut self, part: u64, cluster: Option<Range<u64>>) -> bool {
        let (start, end) = cluster.map_or((u64::MAX, 1), |place| (place.start, place.end));
        let before = self.0.replace((part, end));
        before.is_some_and(|(table, end)| table == part && end != start)
    }
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        self.bad_tables.len() as u64
            + self.bad
            + self.shared
            + self.shared_clusters
            + self.behind
            + self.wrong_behind
            + self.cut
    }

    fn leaks(&self) -> u64 {
        self.leaks
    }

    fn count(&self, report: &mut CheckReport) {
        report.total_clusters = Some(self.total);
        report.allocated_clusters = self.allocated;
        report.fragmented_clusters = self.fragmented;
    }
}

impl Check for Qed {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        let report = check::check(self, repair, job)?;
        if repair != RepairMode::Report && report.corruptions == 0 && report.leaks == 0 {
            self.blocks.keeper.note_whole();
        }
        Ok(report)
    }
}

impl Repairable for Qed {
    type Found = Findings;

    fn look(&self, _: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        self.survey(job, |_| Ok(()))
    }

    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        if found.cut_tables.is_empty() && found.wrong_behind == 0 {
            return self.repair_whole(found, control);
        }
        self.note_change()?;
        // What is left of a table is kept; the rest names nothing.
        let table_len = self.blocks.keeper.header().table_len();
        let ends = found.cut_tables.iter().map(|(_, host)| host + table_len);
        if let Some(end) = ends.max() {
            self.blocks.lengthen(end)?;
        }
        for (part, host) in &found.cut_tables {
            self.blocks.exclusive().believe_part(*part, *host)?;
        }
        if found.wrong_behind > 0 {
            self.clear_wrong_behind(control)?;
        }
        self.repair_whole(&self.survey(None, |_| Ok(()))?, control)
    }
}

impl Qed {
    /// Clears entries that name nothing, gives everything a place of its own, and closes gaps.
    fn repair_whole(&self, found: &Findings, control: &JobControl) -> Result<()> {
        let is_damaged = check::Findings::corruptions(found) > 0;
        if !is_damaged && (found.kept > 0 || found.leaks == 0) {
            // Closing gaps would move what the table of this disk does not cover.
            return Ok(());
        }
        self.note_change()?;
        let blocks = &self.blocks;
        let alone = blocks.exclusive();
        blocks.keeper.note_damage();
        blocks.keeper.begin(&*blocks.storage)?;
        if found.cut_end > blocks.storage.len()? {
            // What is left of it is kept, and the rest reads as zeroes.
            blocks.lengthen(found.cut_end)?;
        }
        self.clear_l1_behind(control)?;
        if !found.bad_tables.is_empty() {
            alone.drop_parts(found.bad_tables.iter().copied())?;
        }
        for part in &found.shared_tables {
            control.checkpoint()?;
            alone.detach_part(*part)?;
        }
        if found.bad > 0 {
            let layout = blocks.layout();
            alone.rewrite(control, |_, word| match layout.entry(word) {
                Entry::Bad => FREE,
                _ => word,
            })?;
        }
        alone.find_end_despite_overlaps()?;
        let cluster = blocks.layout().block_size();
        // Clusters past the end of the disk belong to nothing.
        alone.free_from(blocks.len().div_ceil(cluster), control)?;
        blocks.flush(blocks.durability())?;
        self.clear_tail(control)?;
        // Only now is it known what the tables that were shared name.
        let mut shared = Vec::new();
        self.survey(None, |wrong| match wrong {
            Wrong::Shared(index) => memory::push(&mut shared, index),
            Wrong::Behind(_) => Ok(()),
        })?;
        for index in shared {
            control.checkpoint()?;
            alone.part(index)?;
        }
        blocks.flush(blocks.durability())?;
        alone.pack(control)?;
        if self.survey(None, |_| Ok(()))?.leaks > 0 {
            // There are tables where packing does not move them.
            alone.gather_parts(control)?;
            alone.pack(control)?;
        }
        Ok(())
    }
}

impl Qed {
    /// Scans the tables; calls `wrong` with findings that can be repaired one by one.
    fn survey(
        &self,
        job: Option<&mut Job>,
        mut wrong: impl FnMut(Wrong) -> Result<()>,
    ) -> Result<Findings> {
        let mut notes = Notes::new(job);
        let header = self.blocks.keeper.header();
        let layout = self.blocks.layout();
        let cluster = layout.block_size();
        let disk = self.blocks.len();
        let file_len = self.blocks.storage.len()?.next_multiple_of(SECTOR);
        let mut uses = Uses::of(file_len / cluster);
        let mut found = Findings {
            total: self.blocks.len().div_ceil(cluster),
            ..Findings::default()
        };
        let tables = u64::from(header.table_size);
        let table_at = |host: u64| host / cluster..host / cluster + tables;
        uses.mark_all(0..u64::from(header.header_size).min(file_len / cluster))?;
        found.shared_clusters += uses.mark_all(table_at(header.table_offset))?;
        let hosts = self.blocks.with_directory(|known| {
            let mut hosts: Vec<(u64, Option<u64>)> = Vec::new();
            for (part, word) in (0_u64..).zip(known.words()) {
                if *word != FREE {
                    memory::push(&mut hosts, (part, known.host(part)))?;
                }
            }
            Ok(hosts)
        });
        let hosts = hosts.transpose()?.unwrap_or_default();
        for (part, host) in hosts {
            match host {
                None => {
                    if let Some(host) = self.cut_table(part, file_len)? {
                        memory::push(&mut found.cut_tables, (part, host))?;
                    }
                    memory::push(&mut found.bad_tables, part)?;
                }
                Some(host) => {
                    let shared = uses.mark_all(table_at(host))?;
                    if shared > 0 {
                        found.shared_clusters += shared;
                        memory::push(&mut found.shared_tables, part)?;
                    }
                }
            }
        }
        let per_table = header.per_table();
        let mut before = Before::default();
        let is_skipped = |part: u64| found.shared_tables.binary_search(&part).is_ok();
        self.blocks.each_beside(is_skipped, |index, word| {
            let part = index / per_table;
            let entry = layout.entry(word);
            if matches!(entry, Entry::Free | Entry::Zero) {
                return Ok(());
            }
            found.allocated += 1;
            found.kept += u64::from(index >= header.clusters() && entry != Entry::Bad);
            let place = match entry {
                Entry::At(host) => Some(host..host + cluster),
                _ => None,
            };
            found.fragmented += u64::from(before.breaks(part, place));
            if let Entry::At(host) = entry {
                let end = host + shown_of(index, layout.block_size(), disk);
                if end > file_len {
                    found.cut += 1;
                    found.cut_end = found.cut_end.max(end);
                }
            }
            match entry {
                Entry::At(host) if !uses.mark(host / cluster)? => {
                    found.shared += 1;
                    found.first_shared.get_or_insert(index);
                    wrong(Wrong::Shared(index))?;
                }
                Entry::Bad => {
                    found.bad += 1;
                    found.first_bad.get_or_insert(index);
                }
                _ => {}
            }
            notes.tick()
        })?;
        let mut behind = Vec::new();
        let mut known = Uses::of(file_len / cluster);
        let storage = &*self.blocks.storage;
        each_l1_behind(storage, &header, |_, words| {
            for (place, host) in words {
                if !header.is_table_place(*host, file_len) {
                    found.behind += 1;
                    continue;
                }
                let shared = table_at(*host).filter(|at| uses.has(*at)).count() as u64;
                found.behind += shared;
                if known.mark(host / cluster)? {
                    let table = TableBehind {
                        part: (place - header.table_offset) / ENTRY,
                        place: *host..*host + header.table_len(),
                        is_alone: shared == 0,
                    };
                    memory::push(&mut behind, table)?;
                }
            }
            notes.tick()
        })?;
        for table in &mut behind {
            let shared = uses.mark_all(table_at(table.place.start))?;
            table.is_alone &= shared == 0;
        }
        let tail = self.tail().filter(|tail| !is_skipped(tail.part));
        // In table order, so that clusters that follow each other count as such.
        let behind = behind.into_iter().filter(|table| table.is_alone);
        for table in tail.into_iter().chain(behind) {
            each_nonzero(storage, table.place, |_, words| {
                let mut run: Option<Range<u64>> = None;
                for (place, host) in words {
                    let is_place = host.is_multiple_of(cluster) && *host < file_len;
                    let is_zero = *host == ZERO_CLUSTER;
                    if !is_zero {
                        let named = is_place.then(|| *host..host + cluster);
                        found.fragmented += u64::from(before.breaks(table.part, named));
                        found.allocated += 1;
                    }
                    // The header may say too small a size, so what these entries name is no leak, as in QEMU.
                    let is_kept = is_place && uses.mark(host / cluster)?;
                    found.kept += u64::from(is_kept);
                    if is_zero || is_kept {
                        if let Some(run) = run.take() {
                            wrong(Wrong::Behind(run))?;
                        }
                        continue;
                    }
                    found.wrong_behind += 1;
                    run.get_or_insert(*place..*place).end = place + ENTRY;
                }
                if let Some(run) = run {
                    wrong(Wrong::Behind(run))?;
                }
                notes.tick()
            })?;
        }
        if found.kept > 0 {
            notes.tell(|| {
                format!(
                    "{} clusters are named behind the end of the disk, and kept: the header may say too small a size",
                    found.kept
                )
            });
        }
        found.leaks = match shorten::can_cut(&*self.blocks.storage, 0) {
            true => uses.unused(),
            false => uses.unused_within(),
        };
        Ok(found)
    }

    /// The part of the last table of the disk that is not examined otherwise.
    fn tail(&self) -> Option<TableBehind> {
        let header = self.blocks.keeper.header();
        let per_table = header.per_table();
        let part = header.clusters() / per_table;
        let from = self.blocks.end_of_entries().checked_sub(part * per_table)?;
        let host = self.blocks.with_directory(|known| known.host(part))??;
        (from > 0 && from < per_table).then(|| TableBehind {
            part,
            place: host + from * ENTRY..host + header.table_len(),
            is_alone: true,
        })
    }

    /// The offset of a table that is cut short by the end of the file, if it is.
    fn cut_table(&self, part: u64, file_len: u64) -> Result<Option<u64>> {
        let header = self.blocks.keeper.header();
        let mut word = [0; ENTRY as usize];
        let place = header.table_offset + part * ENTRY;
        self.blocks.storage.read_at(&mut word, place)?;
        let host = u64::from_le_bytes(word);
        let end = host.saturating_add(header.table_len());
        let is_cut = host < file_len && header.is_table_place(host, end);
        Ok(Some(host).filter(|_| is_cut && !self.blocks.storage.limits().fixed_len))
    }

    /// Clears the entries past the end of the disk that name nothing, and leaves the others.
    fn clear_wrong_behind(&self, control: &JobControl) -> Result<()> {
        let storage = &*self.blocks.storage;
        self.survey(None, |wrong| match wrong {
            Wrong::Behind(place) => {
                control.checkpoint()?;
                let len = place.end - place.start;
                storage.write_zeroes(place.start, len, ZeroFlags::empty())
            }
            Wrong::Shared(_) => Ok(()),
        })?;
        self.blocks.barrier()
    }

    /// Clears the rest of the last table: what it names is about to be moved.
    fn clear_tail(&self, control: &JobControl) -> Result<()> {
        let Some(tail) = self.tail() else {
            return Ok(());
        };
        let storage = &*self.blocks.storage;
        each_nonzero(storage, tail.place, |place, _| {
            control.checkpoint()?;
            storage.write_zeroes(place.start, place.end - place.start, ZeroFlags::empty())
        })?;
        self.blocks.barrier()
    }

    /// Clears the entries of the L1 table that the disk does not need: what they name is about to be moved.
    fn clear_l1_behind(&self, control: &JobControl) -> Result<()> {
        let storage = &*self.blocks.storage;
        let flags = ZeroFlags::empty();
        let header = self.blocks.keeper.header();
        each_l1_behind(storage, &header, |place, _| {
            control.checkpoint()?;
            storage.write_zeroes(place.start, place.end - place.start, flags)
        })?;
        self.blocks.barrier()
    }
}

impl Findings {
    /// A description of the first damage.
    pub(super) fn first(&self) -> Option<String> {
        if let Some(part) = self.bad_tables.first() {
            return Some(format!("the L1 entry {part} names no table in the file"));
        }
        if let Some(part) = self.shared_tables.first() {
            return Some(format!(
                "the L2 table {part} stands where something else does"
            ));
        }
        if let Some(index) = self.first_bad {
            return Some(format!(
                "the entry of cluster {index} names nothing in the file"
            ));
        }
        if let Some(index) = self.first_shared {
            return Some(format!("cluster {index} stands where something else does"));
        }
        if self.cut > 0 {
            return Some("the file ends within a cluster".to_owned());
        }
        if self.wrong_behind > 0 {
            return Some(format!(
                "{} entries behind the end of the disk name nothing in the file, or what is something else",
                self.wrong_behind
            ));
        }
        (self.behind > 0).then(|| {
            format!(
                "the L1 table names {} tables behind the end of the disk, where none can be",
                self.behind
            )
        })
    }
}
