//! The check of an open image.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::qcow2::Qcow2;
use crate::format::qcow2::disk::Incompatible;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::Job;

impl Check for Qcow2 {
    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        // What is cached must be on disk, where the check looks.
        if !self.read_only && !self.broken.load(Ordering::Acquire) {
            self.flush_all(self.durability)?;
        }
        let header = self.header.lock().clone();
        let plan = super::Plan {
            repair,
            ..super::Plan::default()
        };
        if repair != RepairMode::Report {
            // Even an image that is marked corrupt may be mended; nothing is cached of it.
            if self.read_only || self.guarded {
                return Err(Error::invalid(
                    "A repair needs an image that was opened for it, for writing",
                ));
            }
        }
        let mut report = super::repair::check(&*self.storage, &header, plan, self.durability, job)?;
        if repair == RepairMode::All && report.corruptions + report.check_errors > 0 {
            report = self.rebuild_for_check(report, job)?;
        }
        let whole = report.corruptions == 0 && report.check_errors == 0;
        if repair == RepairMode::All && whole && self.version >= 3 {
            self.update_header(|header| {
                header.incompatible -= Incompatible::DIRTY | Incompatible::CORRUPT;
            })?;
            self.barrier()?;
        }
        Ok(report)
    }
}

impl Qcow2 {
    /// Writes new refcount structures where those of the image cannot be used and all else is in
    /// order; else what was found stays.
    fn rebuild_for_check(&self, found: CheckReport, job: &mut Job) -> Result<CheckReport> {
        let mut image = self.header.lock();
        match super::rebuild_refcounts(&*self.storage, &mut image, self.durability) {
            Err(error) if error.kind() == crate::ErrorKind::Corrupt => return Ok(found),
            other => other?,
        }
        job.note("Rebuilding refcount structure");
        let plan = super::Plan {
            repair: RepairMode::All,
            ..super::Plan::default()
        };
        let again = super::repair::check(&*self.storage, &image, plan, self.durability, job)?;
        Ok(CheckReport {
            corruptions_fixed: found.corruptions_fixed
                + again.corruptions_fixed
                + found.corruptions
                + found.check_errors,
            leaks_fixed: found.leaks_fixed + found.leaks + again.leaks_fixed,
            ..again
        })
    }
}
