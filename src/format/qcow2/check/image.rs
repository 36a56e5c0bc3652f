//! The check of an open image.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::qcow2::Qcow2;
use crate::format::qcow2::disk::{Autoclear, Extension, Incompatible};
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::Job;

impl Check for Qcow2 {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        // What is cached must be on disk, where the check looks.
        if !self.read_only && !self.broken.load(Ordering::Acquire) {
            self.flush_counted(self.durability)?;
        }
        if repair != RepairMode::Report {
            // Even an image that is marked corrupt may be repaired; nothing is cached of it.
            if self.read_only || self.protected {
                return Err(Error::invalid(
                    "A repair needs an image that was opened for it, for writing",
                ));
            }
            // Before the first change: features that this program does not know end with it.
            // So does the claim that a data file is raw where there is none: QEMU refuses that.
            let raw = Autoclear::RAW_DATA_FILE;
            let none = if self.has_data_file {
                Autoclear::empty()
            } else {
                raw
            };
            self.update_header(|header| header.autoclear &= Autoclear::KNOWN - none)?;
            self.barrier()?;
        }
        let repeated = self.drop_unusable(repair, job)? + self.tell_superseded(repair, job)?;
        let target = super::file::RepairedFile {
            storage: &*self.storage,
            durability: self.durability,
        };
        let mut image = self.header.lock().clone();
        let result = super::repair::check(target, &mut image, repair, job);
        // The header changes under way, also where the repair fails after that.
        *self.header.lock() = image;
        let mut report = result?;
        report.corruptions_fixed += repeated;
        let whole = report.corruptions == 0 && report.check_errors == 0;
        if repair != RepairMode::Report && whole && self.version() >= 3 {
            self.update_header(|header| {
                header.incompatible -= Incompatible::DIRTY | Incompatible::CORRUPT;
            })?;
            self.barrier()?;
        }
        Ok(report)
    }
}

impl Qcow2 {
    /// Takes out the bitmaps where nothing can use them, so that the image opens; how many
    /// extensions that was.
    fn drop_unusable(&self, repair: RepairMode, job: &mut Job) -> Result<u64> {
        let Some(why) = self.header.lock().unusable.clone() else {
            return Ok(0);
        };
        if repair != RepairMode::All {
            return Err(Error::corrupt(why));
        }
        job.note(format!("Repairing bitmaps: {why}; all bitmaps are removed"));
        self.replace_header(|image| image.header.autoclear -= Autoclear::BITMAPS)?;
        self.barrier()?;
        Ok(1)
    }

    /// Tells of extensions of the header that do not count, which other programs may see otherwise,
    /// and takes them out where all is repaired; how many it took out.
    fn tell_superseded(&self, repair: RepairMode, job: &mut Job) -> Result<u64> {
        let superseded = self.header.lock().superseded.clone();
        let all = repair == RepairMode::All;
        let told = |extension: &&Extension| !matches!(extension, Extension::Padding(_));
        for extension in superseded.iter().filter(told) {
            let what = extension.what();
            job.note(if all {
                format!("Repairing header extension that is repeated later: {what}")
            } else {
                format!(
                    "The header extension for the {what} is repeated; the last one counts, and \
                     repairing all removes the others"
                )
            });
        }
        if !all || superseded.is_empty() {
            return Ok(0);
        }
        self.replace_header(|_| ())?;
        self.barrier()?;
        Ok(superseded.iter().filter(told).count() as u64)
    }
}
