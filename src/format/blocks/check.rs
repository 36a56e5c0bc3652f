//! The steps of a consistency check: examine, repair as requested, examine again.

use crate::error::Result;
use crate::format::{CheckReport, RepairMode, RepairRefused};
use crate::job::{Job, JobControl};

/// What the examination of an image has found.
pub(crate) trait Findings {
    /// The number of corruptions.
    fn corruptions(&self) -> u64;

    /// The amount of space that nothing refers to.
    fn leaks(&self) -> u64;

    /// Adds anything else that belongs in the report.
    fn count(&self, _report: &mut CheckReport) {}
}

/// An image that can be examined and repaired.
pub(crate) trait Repairable {
    /// What an examination finds.
    type Found: Findings;

    /// Examines the image; reports to `job` what is wrong, or is about to be repaired according to `mode`.
    ///
    /// # Errors
    /// If reading fails.
    fn look(&self, mode: RepairMode, job: Option<&mut Job>) -> Result<Self::Found>;

    /// Repairs everything that was found.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], or if I/O fails; the image is no worse than before then.
    fn repair(&self, found: &Self::Found, control: &JobControl) -> Result<()>;
}

/// Checks an image, and repairs as much as `mode` allows.
///
/// # Errors
/// If looking or repairing fails.
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
