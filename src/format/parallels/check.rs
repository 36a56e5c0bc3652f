//! The consistency check, in QEMU's words.

use std::sync::atomic::Ordering;

use bstr::BStr;

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::places::Places;
use crate::format::blocks::{Entry, FREE, Keeper, Layout};
use crate::format::notes::Notes;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::size::SECTOR;
use crate::storage::{Preallocation, shorten};

use super::Parallels;

const WRONG_START: &str = "data_off field has incorrect value";

/// The findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    was_open: bool,
    lacks_start: bool,
    lacks_extension: bool,
    /// Entries that name no cluster of the file.
    outside: u64,
    /// Entries of clusters that are cut short by the end of the file.
    cut_off: u64,
    /// Entries of clusters that overlap the cluster of an earlier entry, or the format extension.
    shared: u64,
    /// The number of clusters that fit into the space after the last one in use.
    leaks: u64,
    total: u64,
    allocated: u64,
    fragmented: u64,
    end: u64,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        let flags = [self.was_open, self.lacks_start, self.lacks_extension];
        let flags = flags.into_iter().map(u64::from).sum::<u64>();
        flags + self.cut_off + self.outside + self.shared
    }

    fn leaks(&self) -> u64 {
        self.leaks
    }

    fn count(&self, report: &mut CheckReport) {
        report.total_clusters = Some(self.total);
        report.allocated_clusters = self.allocated;
        report.fragmented_clusters = self.fragmented;
        report.image_end_offset = Some(self.end);
    }
}

/// Reports what is wrong, or is being repaired.
struct Teller<'a> {
    notes: Notes<'a>,
    repair: RepairMode,
    /// The file, if it is one of several.
    file: Option<&'a BStr>,
}

impl Teller<'_> {
    fn tell(&mut self, text: impl FnOnce() -> String, is_repaired: bool) {
        let what = if is_repaired { "Repairing" } else { "ERROR" };
        let file = self.file;
        self.notes.tell(|| match file {
            Some(file) => format!("{what} '{file}': {}", text()),
            None => format!("{what} {}", text()),
        });
    }

    fn damage(&mut self, text: impl FnOnce() -> String) {
        self.tell(text, self.repair == RepairMode::All);
    }

    fn leak(&mut self, text: impl FnOnce() -> String, is_damaged: bool) {
        let is_repaired = match self.repair {
            RepairMode::Report => false,
            RepairMode::Leaks => !is_damaged,
            RepairMode::All => true,
        };
        self.tell(text, is_repaired);
    }

    fn tick(&mut self) -> Result<()> {
        self.notes.tick()
    }
}

impl Check for Parallels {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        check::check(self, repair, job)
    }
}

impl Parallels {
    /// Scans the table; reports to `job` what is wrong, or is being repaired.
    fn walk(
        &self,
        repair: RepairMode,
        job: Option<&mut Job>,
        file: Option<&BStr>,
    ) -> Result<Findings> {
        let mut teller = Teller {
            notes: Notes::new(job),
            repair,
            file,
        };
        let blocks = &self.blocks;
        let layout = blocks.layout();
        let cluster = layout.block_size();
        let file_len = blocks.storage.len()?;
        let (said_start, _) = blocks.keeper.header().start(file_len);
        let mut found = Findings {
            was_open: self.own.was_open.load(Ordering::Acquire),
            lacks_start: !self.own.has_start.load(Ordering::Acquire),
            lacks_extension: self.own.lacks_extension.load(Ordering::Acquire),
            total: blocks.count(),
            end: layout.new_from(),
            ..Findings::default()
        };
        if found.was_open {
            teller.damage(|| "image was not closed correctly".to_owned());
        }
        if found.lacks_start {
            teller.damage(|| WRONG_START.to_owned());
        }
        if found.lacks_extension {
            teller.damage(|| "format extension is damaged".to_owned());
        }
        // The previous entry, and where its cluster ends.
        let mut before: Option<(u64, u64)> = None;
        blocks.each(|index, word| {
            teller.tick()?;
            found.allocated += 1;
            if let Entry::At(host) = layout.entry(word)
                && host < said_start
                && !found.lacks_start
            {
                teller.damage(|| WRONG_START.to_owned());
                found.lacks_start = true;
            }
            let Entry::At(host) = layout.entry(word) else {
                teller.damage(|| format!("cluster {index} is outside image"));
                before = None;
                found.outside += 1;
                return Ok(());
            };
            if host + cluster > file_len.next_multiple_of(SECTOR) {
                teller.damage(|| format!("cluster {index} is outside image"));
                found.cut_off += 1;
            }
            let breaks = before.is_some_and(|(last, end)| last + 1 == index && end != host);
            found.fragmented += u64::from(breaks);
            before = Some((index, host + cluster));
            found.end = found.end.max(host + cluster);
            Ok(())
        })?;
        let on_record = blocks.keeper.end_on_record(&layout).min(file_len);
        found.end = found.end.max(on_record);
        // A device cannot be truncated.
        if file_len > found.end && shorten::can_cut(&*blocks.storage, found.end) {
            let bytes = file_len - found.end;
            found.leaks = bytes.div_ceil(cluster);
            let is_damaged = check::Findings::corruptions(&found) > 0;
            teller.leak(
                || format!("space leaked at the end of the image {bytes}"),
                is_damaged,
            );
        }
        let mut places = self.places()?;
        blocks.each(|index, word| {
            if let Entry::At(host) = layout.entry(word)
                && !places.take(host)?
            {
                found.shared += 1;
                teller.damage(|| format!("duplicate offset in BAT entry {index}"));
            }
            teller.tick()
        })?;
        Ok(found)
    }

    /// Adds what is wrong with this image, one of several of a disk, to a report.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn add_to(&self, report: &mut CheckReport, job: &mut Job) -> Result<()> {
        let file = self.blocks.storage.name();
        let found = self.walk(RepairMode::Report, Some(job), Some(file))?;
        report.corruptions += check::Findings::corruptions(&found);
        report.leaks += found.leaks;
        report.total_clusters = Some(report.total_clusters.unwrap_or_default() + found.total);
        report.allocated_clusters += found.allocated;
        report.fragmented_clusters += found.fragmented;
        Ok(())
    }

    /// The places of clusters: none yet, apart from those of the format extension.
    fn places(&self) -> Result<Places> {
        let mut places = Places::of(self.blocks.layout().block_size());
        for place in self.blocks.keeper.extension() {
            places.take(place.start)?;
        }
        Ok(places)
    }
}

impl Repairable for Parallels {
    type Found = Findings;

    fn look(&self, mode: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        self.walk(mode, job, None)
    }

    /// Clears entries that name nothing, extends the file to hold all clusters, gives each one a place of its own, and
    /// truncates the file after them.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        let blocks = &self.blocks;
        blocks.check_writable()?;
        match found.outside == 0 && !found.lacks_extension {
            // What the guest sees does not change, so the format extension remains valid.
            true => blocks.keeper.begin(&*blocks.storage, false)?,
            false => self.note_change()?,
        }
        self.own.lacks_extension.store(false, Ordering::Release);
        let alone = blocks.exclusive();
        if found.lacks_start {
            let start = blocks.layout().start();
            // A start past the end of the file would be wrong again.
            if blocks.storage.len()? < start {
                blocks.storage.set_len(start, Preallocation::Off)?;
            }
            blocks.keeper.change(&*blocks.storage, |header| {
                // It follows from 32-bit numbers; a start too far back to be expressed never existed.
                let _ = header.set_start(start);
            })?;
            self.own.has_start.store(true, Ordering::Release);
        }
        if found.outside > 0 {
            let layout = blocks.layout();
            alone.rewrite(control, |_, word| match layout.entry(word) {
                Entry::At(_) => word,
                _ => FREE,
            })?;
        }
        blocks.flush(blocks.durability())?;
        if found.cut_off > 0 {
            blocks.keeper.extend(&*blocks.storage, found.end)?;
        }
        if found.shared > 0 {
            alone.find_end_despite_overlaps()?;
            let mut places = self.places()?;
            alone.part_each(control, |_, host| places.take(host))?;
        }
        alone.cut(blocks.keeper.end_of_rest())?;
        self.own.was_open.store(false, Ordering::Release);
        Ok(())
    }
}
