//! Checking an open image.

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
        // Cached changes must be on disk, which is what the check reads.
        if !self.read_only && !self.broken.load(Ordering::Acquire) {
            self.flush_counted(self.durability)?;
        }
        if repair != RepairMode::Report {
            // Even an image that is marked corrupt may be repaired; nothing of it is cached.
            if self.read_only || self.protected {
                return Err(Error::invalid(
                    "A repair needs an image that was opened for it, for writing",
                ));
            }
            // Before the first change: clears autoclear features unknown to this program, and the claim that a data
            // file is raw if there is none, which QEMU refuses.
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
        // The header may change during the repair, even if that fails later.
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
    /// Removes the bitmaps if nothing can use them, so that the image can be opened; returns the number of extensions
    /// that this concerns.
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

    /// Reports header extensions that are not in effect, which other programs may interpret differently, and removes
    /// them if everything is to be repaired; returns the number removed.
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
