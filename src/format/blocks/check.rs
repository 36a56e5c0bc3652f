//! The course of a consistency check: look, repair what is asked for, look again.

use crate::error::Result;
use crate::format::{CheckReport, RepairMode, RepairRefused};
use crate::job::{Job, JobControl};

/// What a look at an image has found.
pub(crate) trait Findings {
    /// How much is damaged.
    fn corruptions(&self) -> u64;

    /// How much space nothing names.
    fn leaks(&self) -> u64;

    /// Adds what else the report is to say.
    fn count(&self, _report: &mut CheckReport) {}
}

/// An image that can be looked at and repaired.
pub(crate) trait Repairable {
    /// What is found.
    type Found: Findings;

    /// Goes through the image; tells `job` what is wrong, or is about to be repaired as `mode` says.
    ///
    /// # Errors
    /// Of reading.
    fn look(&self, mode: RepairMode, job: Option<&mut Job>) -> Result<Self::Found>;

    /// Repairs all that was found.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], or of I/O; the image is no worse then.
    fn repair(&self, found: &Self::Found, control: &JobControl) -> Result<()>;
}

/// Checks an image, and repairs as much as `mode` says.
///
/// # Errors
/// Of looking and repairing.
pub(crate) fn check(
    image: &impl Repairable,
    mode: RepairMode,
    job: &mut Job,
) -> Result<CheckReport> {
    let found = image.look(mode, Some(job))?;
    let mut report = CheckReport {
        corruptions: found.corruptions(),
        leaks: found.leaks(),
        ..CheckReport::default()
    };
    found.count(&mut report);
    let wanted = match mode {
        RepairMode::Report => false,
        RepairMode::Leaks => report.leaks > 0,
        RepairMode::All => report.leaks > 0 || report.corruptions > 0,
    };
    if !wanted {
        return Ok(report);
    }
    if mode == RepairMode::Leaks && report.corruptions > 0 {
        report.repair_refused = Some(RepairRefused::References);
        return Ok(report);
    }
    image.repair(&found, job.control())?;
    let left = image.look(RepairMode::Report, None)?;
    report.corruptions_fixed = report.corruptions.saturating_sub(left.corruptions());
    report.leaks_fixed = report.leaks.saturating_sub(left.leaks());
    report.corruptions = left.corruptions();
    report.leaks = left.leaks();
    left.count(&mut report);
    Ok(report)
}
