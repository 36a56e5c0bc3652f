//! The consistency check: every entry of every table, and what has one cure is repaired.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::format::{Check, CheckReport, Format, RepairMode};
use crate::job::Job;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Durability;

use super::cache::Table;
use super::parts::PartKind;
use super::sparse::{Grain, Sparse, TablePlace};
use super::state::Vmdk;
use super::survey::{Named, Survey};

impl Check for Vmdk {
    fn repairs(&self) -> RepairMode {
        match self.writer() {
            Some(_) => RepairMode::All,
            None => RepairMode::Report,
        }
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let repairs = repair == RepairMode::All;
        for part in &self.parts {
            if let PartKind::Sparse(sparse) = &part.kind {
                let mut check = Checking {
                    image: self,
                    sparse,
                    repairs,
                    report: &mut report,
                    named: Named::new(sparse)?,
                };
                check.run(part.start, job)?;
            }
        }
        if repairs {
            self.flush_all(self.durability)?;
            for part in &self.parts {
                if let PartKind::Sparse(sparse) = &part.kind {
                    sparse.repair_mark(self.durability)?;
                }
            }
        }
        Ok(report)
    }
}

struct Checking<'a> {
    image: &'a Vmdk,
    sparse: &'a Sparse,
    repairs: bool,
    report: &'a mut CheckReport,
    /// The grains that an entry was found to name.
    named: Named,
}

impl Checking<'_> {
    fn run(&mut self, base: u64, job: &mut Job) -> Result<()> {
        let sparse = self.sparse;
        let span = sparse.per_table * sparse.grain;
        let tables = sparse.len().div_ceil(span);
        job.control().expect(tables);
        let tables = u32::try_from(tables).unwrap_or(u32::MAX);
        let survey = Survey::of(sparse, tables)?;
        for place in &survey.crossing {
            let sector = place / SECTOR;
            let text = format!("the cluster at sector {sector} of the file overlaps another one");
            self.found(job, text, false);
        }
        for index in 0..tables {
            match survey.overlaps(index) {
                true => {
                    let text = format!("grain table {index} overlaps another table or a cluster");
                    self.found(job, text, false);
                }
                false => self.table(index, base, job)?,
            }
            job.control().advance(1);
            job.tick()?;
        }
        Ok(())
    }

    fn found(&mut self, job: &mut Job, text: String, cure: bool) {
        let prefix = if cure && self.repairs {
            "Repairing"
        } else {
            "ERROR"
        };
        job.note(format!("{prefix}: {text}"));
        match cure && self.repairs {
            true => self.report.corruptions_fixed += 1,
            false => self.report.corruptions += 1,
        }
    }

    fn table(&mut self, index: u32, base: u64, job: &mut Job) -> Result<()> {
        let sparse = self.sparse;
        let table = match sparse.table(index) {
            Ok(Some(table)) => table,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                // The redundant copy may be good, and may be the damaged one's source.
                self.found(job, error.to_string(), false);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let span = sparse.per_table * sparse.grain;
        let start = u64::from(index) * span;
        let mut guest = start;
        for entry in 0..sparse.per_table {
            if guest >= sparse.len() {
                break;
            }
            self.entry(&table, entry, guest, base, job)?;
            guest += sparse.grain;
        }
        self.redundant(index, &table, job)
    }

    fn entry(
        &mut self,
        table: &Table,
        entry: u64,
        guest: u64,
        base: u64,
        job: &mut Job,
    ) -> Result<()> {
        let sparse = self.sparse;
        let sector = (base + guest) / SECTOR;
        match sparse.grain_of(table.get(entry), guest) {
            Ok(Grain::At(place)) => {
                if self.named.note(place) == Some(true) {
                    let text = format!(
                        "cluster offset for sector {sector} is that of another cluster too"
                    );
                    self.found(job, text, self.can_copy());
                    if self.repairs && self.can_copy() {
                        self.copy(table, entry, place)?;
                    }
                }
                Ok(())
            }
            Ok(Grain::Absent | Grain::Zero) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let place = table.get(entry).saturating_mul(SECTOR);
                let what = match place < sparse.overhead {
                    true => "points into metadata",
                    false => "points after EOF",
                };
                self.found(
                    job,
                    format!("cluster offset for sector {sector} {what}"),
                    sparse.takes_writes(),
                );
                if self.repairs && sparse.takes_writes() {
                    // Nothing is left of it, and something else may show now.
                    self.image.prepare_write()?;
                    table.set(entry, 0);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn can_copy(&self) -> bool {
        self.sparse.takes_writes() && !self.sparse.compressed
    }

    /// Gives a grain that two entries name a copy of its own.
    fn copy(&self, table: &Table, entry: u64, place: u64) -> Result<()> {
        let sparse = self.sparse;
        let mut bytes = memory::zeroed(sparse.grain as usize)?;
        sparse.storage.read_at(&mut bytes, place)?;
        let host = sparse.reserve(sparse.grain)?;
        sparse.storage.write_at(&bytes, host)?;
        table.set(entry, host / SECTOR);
        Ok(())
    }

    /// Compares the redundant table with the one that counts.
    fn redundant(&mut self, index: u32, table: &Arc<Table>, job: &mut Job) -> Result<()> {
        let sparse = self.sparse;
        if sparse.directory.read().redundant.is_empty() {
            return Ok(());
        }
        let places: Vec<u64> = sparse.copies(index).collect();
        let TablePlace::At(primary) = sparse.table_place(index)? else {
            return Ok(());
        };
        let Some(copy) = places.iter().find(|place| **place != primary) else {
            let text = format!("grain table {index} has no redundant copy");
            self.found(job, text, false);
            return Ok(());
        };
        let mut bytes = memory::zeroed((sparse.per_table * sparse.word_len()) as usize)?;
        sparse.storage.read_at(&mut bytes, *copy)?;
        let words = table.words().flat_map(|word| (word as u32).to_le_bytes());
        if words.eq(bytes.iter().copied()) {
            return Ok(());
        }
        let text = format!("the redundant copy of grain table {index} differs");
        self.found(job, text, sparse.takes_writes());
        if self.repairs {
            table.mark_dirty();
        }
        Ok(())
    }
}

impl Sparse {
    /// What was checked and repaired counts as closed.
    fn repair_mark(&self, durability: Durability) -> Result<()> {
        {
            let changes = &mut *self.changes.lock();
            changes.marked |= changes.was_unclean;
            changes.was_unclean = false;
        }
        self.mark_clean(durability)
    }
}
