//! One check and its repairs, in an order that never makes the image worse.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::format::qcow2::disk::{Geometry, Header, ImageHeader};
use crate::format::{CheckReport, RepairMode, RepairRefused};
use crate::job::Job;
use crate::memory::{self, IoBuf};
use crate::storage::Storage;

use super::bitmaps::BitmapRepair;
use super::compare::{self, Flags, Planned, RepairPlan, Structures};
use super::file::RepairedFile;
use super::rebuild::replace_structures;
use super::report::Findings;
use super::snapshots::Snapshots;
use super::stored_refcounts::StoredRefcounts;
use super::walk::{CheckedFile, Walker};
use super::{layout, references};

/// Checks, and repairs what `mode` says; `image` always matches the header in the file.
///
/// # Errors
/// If the check cannot be carried out, with the errno of QEMU's message; or if I/O fails.
pub(super) fn check(
    target: RepairedFile<'_>,
    image: &mut ImageHeader,
    mode: RepairMode,
    job: &mut Job,
) -> Result<CheckReport> {
    let found = check_once(target, image, mode, true, job)?;
    match found {
        Outcome::Done(report) => Ok(report),
        Outcome::Rebuilt(before) => {
            // The refcounts are new: anything left is repaired with them.
            let Outcome::Done(report) = check_once(target, image, mode, false, job)? else {
                return Ok(before);
            };
            Ok(CheckReport {
                corruptions_fixed: before.corruptions_fixed + report.corruptions_fixed,
                leaks_fixed: before.leaks_fixed + report.leaks_fixed,
                ..report
            })
        }
    }
}

enum Outcome {
    Done(CheckReport),
    /// New refcount structures were written; the report of what has been repaired so far.
    Rebuilt(CheckReport),
}

/// The result of a walk over all tables.
struct Walked<'a, 'b> {
    walker: Walker<'a, 'b>,
    stored: StoredRefcounts<'a>,
    structures: Structures,
}

/// The parts of one check that its steps share.
struct Run<'a> {
    target: RepairedFile<'a>,
    header: ImageHeader,
    layout: CheckedFile<'a>,
    mode: RepairMode,
    snapshots: Snapshots,
    bitmaps: BitmapRepair,
}

fn check_once(
    target: RepairedFile<'_>,
    image: &mut ImageHeader,
    mode: RepairMode,
    may_rebuild: bool,
    job: &mut Job,
) -> Result<Outcome> {
    let geometry = image.header.geometry()?;
    let layout = layout(target.storage, image, geometry)?;
    let mut findings = Findings::new(Some(job));
    findings.report.total_clusters = Some(geometry.guest_clusters(image.header.size));
    let tables = u64::from(image.header.l1_entries) * geometry.cluster_size();
    findings.set_total(tables.min(layout.file_len).saturating_mul(2));
    let all = mode == RepairMode::All;
    let snapshots = Snapshots::read(target.storage, image, all, &mut findings)?;
    let bitmaps = if all {
        BitmapRepair::survey(layout, image, &mut findings)?
    } else {
        BitmapRepair::AsTheyAre
    };
    let run = Run {
        target,
        header: image.clone(),
        layout,
        mode,
        snapshots,
        bitmaps,
    };
    let walked = run.walk(findings)?;
    run.finish(walked, image, may_rebuild)
}

impl<'a> Run<'a> {
    /// Walks all tables; a second time if the first walk finds entries that can be repaired.
    fn walk<'b>(&self, mut findings: Findings<'b>) -> Result<Walked<'a, 'b>> {
        let base = findings.report;
        if self.mode == RepairMode::All {
            findings.hold();
        }
        let mut walked = self.count(Walker::new(self.layout, findings))?;
        let walker = &mut walked.walker;
        let repair = std::mem::take(&mut walker.repairs);
        if self.mode != RepairMode::All {
            return Ok(walked);
        }
        match repair.next(&walker.counts, &walker.tables)? {
            Some(repair) if !walker.given_up() => {
                let mut walker = Walker::new(self.layout, walked.walker.findings.restart(base));
                walker.repairs = repair;
                self.count(walker)
            }
            _ => {
                walked.walker.findings.release();
                Ok(walked)
            }
        }
    }

    fn count<'b>(&self, mut walker: Walker<'a, 'b>) -> Result<Walked<'a, 'b>> {
        references(&mut walker, &self.header, &self.snapshots, &self.bitmaps)?;
        let header = &self.header.header;
        let stored = StoredRefcounts::read(self.target.storage, header, self.layout.geometry)?;
        let (corruptions, doubtful) =
            (walker.findings.report.corruptions, walker.findings.doubtful);
        let mut structures = compare::refcount_structures(&mut walker, &stored, header);
        // Damaged refcount structures lose no references to guest data.
        walker.findings.doubtful = doubtful;
        structures.corruptions = walker.findings.report.corruptions - corruptions;
        Ok(Walked {
            walker,
            stored,
            structures,
        })
    }

    /// Compares refcounts and flags, and writes the repairs.
    fn finish(
        self,
        walked: Walked<'_, '_>,
        image: &mut ImageHeader,
        may_rebuild: bool,
    ) -> Result<Outcome> {
        let Walked {
            mut walker,
            mut stored,
            mut structures,
        } = walked;
        let given_up = walker.given_up();
        let mut plan = RepairPlan {
            repair: self.mode,
            doubtful: given_up
                || walker.findings.doubtful
                || walker.findings.report.check_errors > 0,
            ..RepairPlan::default()
        };
        let report_only = self.mode == RepairMode::Report;
        let mut clean = true;
        if !report_only {
            clean = compare::refcounts(&mut walker, &mut stored, &mut structures, None)?;
            if self.mode == RepairMode::Leaks && structures.are_broken() {
                return self.refuse(walker, stored, structures);
            }
        }
        let words = std::mem::take(&mut walker.repairs.words);
        if may_rebuild
            && self.mode == RepairMode::All
            && (structures.need_rebuild() || self.snapshots.rewrite)
        {
            return self.rebuild(walker, structures, image, plan.doubtful, &words);
        }
        if structures.shared {
            plan.repair = RepairMode::Report;
        }
        if report_only || !clean {
            clean = compare::refcounts(&mut walker, &mut stored, &mut structures, Some(&mut plan))?;
        }
        let blocks = || {
            Blocks::new(
                self.target.storage,
                &self.header.header,
                self.layout.geometry,
            )
        };
        if !plan.refcounts.is_empty() {
            blocks()?.set_all(&plan, true)?;
            self.target.barrier()?;
        }
        if !words.is_empty() {
            self.target.write_words(words)?;
        }
        let set = if given_up {
            Vec::new()
        } else {
            self.flags(&mut walker, &mut stored, &plan, clean)?
        };
        if let Some((offset, len)) = self.bitmaps.rewritten(&self.header) {
            let alone = is_alone(&walker, offset, len);
            self.write_bitmaps(image, alone)?;
        } else {
            self.write_bitmaps(image, false)?;
        }
        if !plan.refcounts.is_empty() {
            blocks()?.set_all(&plan, false)?;
            self.target.barrier()?;
        }
        if !set.is_empty() {
            self.target.write_words(set)?;
        }
        Ok(Outcome::Done(walker.findings.report))
    }

    /// Leaks cannot be distinguished from clusters whose references are lost: counts what is wrong, including flags,
    /// and changes nothing.
    fn refuse(
        self,
        mut walker: Walker<'_, '_>,
        mut stored: StoredRefcounts<'_>,
        structures: Structures,
    ) -> Result<Outcome> {
        let report = &mut walker.findings.report;
        report.corruptions += structures.errors;
        report.leaks += structures.leaks;
        report.check_errors += structures.unread;
        report.repair_refused = Some(RepairRefused::Refcounts);
        if !walker.given_up() {
            walker.findings.hold();
            let l1 = (self.header.header.l1_offset, self.header.header.l1_entries);
            compare::copied_flags(self.layout, &mut walker.findings, &mut stored, l1, None)?;
        }
        Ok(Outcome::Done(walker.findings.report))
    }

    fn write_bitmaps(&self, image: &mut ImageHeader, alone: bool) -> Result<()> {
        let RepairedFile {
            storage,
            durability,
        } = self.target;
        self.bitmaps.write(storage, image, alone, durability)
    }

    /// Checks the COPIED flags and clears those that are wrong; returns those to be set after refcounts have been
    /// lowered.
    fn flags(
        &self,
        walker: &mut Walker<'_, '_>,
        stored: &mut StoredRefcounts<'_>,
        plan: &RepairPlan,
        clean: bool,
    ) -> Result<Vec<(u64, u64)>> {
        let header = &self.header.header;
        let l1 = (header.l1_offset, header.l1_entries);
        let Walker {
            counts,
            tables,
            findings,
            ..
        } = walker;
        let report = findings.report;
        let sound = report.corruptions == 0 && report.check_errors == 0;
        let mut flags = Flags::new(counts, tables, self.layout.geometry);
        let repairs = match self.mode {
            RepairMode::Report => false,
            RepairMode::Leaks => sound,
            RepairMode::All => true,
        };
        let to = repairs.then_some(&mut flags);
        if sound && report.leaks == 0 && (clean || repairs) {
            // The counts are what the file will hold, and are at hand.
            compare::copied_flags(self.layout, findings, counts.reader(), l1, to)?;
        } else {
            let planned = Planned(plan, stored);
            compare::copied_flags(self.layout, findings, planned, l1, to)?;
        }
        let Flags { clear, set, .. } = flags;
        if !clear.is_empty() {
            self.target.write_words(clear)?;
        }
        Ok(set)
    }

    /// Writes new refcount structures, and the snapshot table if it is damaged.
    fn rebuild(
        self,
        mut walker: Walker<'_, '_>,
        structures: Structures,
        image: &mut ImageHeader,
        doubtful: bool,
        words: &BTreeMap<u64, u64>,
    ) -> Result<Outcome> {
        if structures.need_rebuild() {
            walker
                .findings
                .note(|| "Rebuilding refcount structure".to_owned());
        }
        let mut report = walker.findings.report;
        if let Some((offset, len)) = self.bitmaps.rewritten(&self.header) {
            let alone = is_alone(&walker, offset, len);
            self.write_bitmaps(image, alone)?;
        } else {
            self.write_bitmaps(image, false)?;
        }
        match replace_structures(self.target, image, &self.snapshots, doubtful) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Limit) => {
                let text = error.message().to_owned();
                walker
                    .findings
                    .note(|| format!("ERROR refcount structures cannot be rebuilt: {text}"));
                report.corruptions += structures.errors + report.corruptions_fixed;
                report.corruptions_fixed = 0;
                report.leaks += structures.leaks;
                return Ok(Outcome::Done(report));
            }
            other => other?,
        }
        // An entry that is repaired may have referred to a cluster that the new refcounts count: it is written only
        // now, which leaves a leak until the next walk.
        if !words.is_empty() {
            self.target
                .write_words(words.iter().map(|(place, word)| (*place, *word)))?;
        }
        report.corruptions_fixed += structures.corruptions + structures.errors;
        report.leaks_fixed += if doubtful { 0 } else { structures.leaks };
        Ok(Outcome::Rebuilt(report))
    }
}

/// Whether nothing else refers to the clusters of a region.
fn is_alone(walker: &Walker<'_, '_>, offset: u64, len: u64) -> bool {
    let geometry = walker.layout.geometry;
    let end = offset.saturating_add(len.max(1) - 1);
    (geometry.cluster_of(offset)..=geometry.cluster_of(end))
        .all(|cluster| walker.counts.get(cluster) <= 1)
}

/// Writes refcounts, block by block.
struct Blocks<'a> {
    storage: &'a dyn Storage,
    stored: StoredRefcounts<'a>,
    geometry: Geometry,
    held: Option<(u64, IoBuf)>,
}

impl<'a> Blocks<'a> {
    fn new(storage: &'a dyn Storage, header: &Header, geometry: Geometry) -> Result<Self> {
        Ok(Self {
            storage,
            stored: StoredRefcounts::read(storage, header, geometry)?,
            geometry,
            held: None,
        })
    }

    /// Writes the planned refcounts that are higher than before, or the others.
    fn set_all(mut self, plan: &RepairPlan, raise: bool) -> Result<()> {
        for (cluster, count) in &plan.refcounts {
            self.set(*cluster, *count, raise)?;
        }
        self.finish()
    }

    /// Sets a refcount if that raises it or, without `raise`, if it does not.
    fn set(&mut self, cluster: u64, count: u64, raise: bool) -> Result<()> {
        let geometry = self.geometry;
        let index = cluster >> geometry.refcount_block_bits();
        let entry = self.stored.table().get(index as usize);
        let offset = entry.map_or(0, |entry| entry.offset());
        if offset == 0 || geometry.in_cluster(offset) != 0 {
            return Err(Error::corrupt(format!("Refcount block {index} is missing")));
        }
        if self.held.as_ref().is_none_or(|(held, _)| *held != offset) {
            self.finish()?;
            let mut block = memory::zeroed(geometry.cluster_size() as usize)?;
            self.storage.read_at(&mut block, offset)?;
            self.held = Some((offset, block));
        }
        let Some((_, block)) = &mut self.held else {
            return Ok(());
        };
        let within = (cluster & (geometry.refcount_block_entries() - 1)) as usize;
        let width = geometry.refcount_width();
        let now = width.get(block, within).unwrap_or(0);
        if (count > now) == raise && !width.set(block, within, count) {
            return Err(Error::corrupt("A refcount does not fit into its width"));
        }
        Ok(())
    }

    /// Writes the current block.
    fn finish(&mut self) -> Result<()> {
        if let Some((offset, block)) = self.held.take() {
            self.storage.write_at(&block, offset)?;
        }
        Ok(())
    }
}
