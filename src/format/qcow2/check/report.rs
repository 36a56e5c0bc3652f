//! Findings on their way to the caller.

use crate::error::Result;
use crate::format::CheckReport;
use crate::job::Job;

/// The most findings that are told one by one; all are counted.
const MAX_NOTES: u64 = 100_000;

/// The numbers so far, and where the findings go.
pub(super) struct Findings<'a> {
    pub report: CheckReport,
    job: Option<&'a mut Job>,
    notes: u64,
}

impl<'a> Findings<'a> {
    /// Tells findings to `job`; without one they are only counted.
    pub fn new(job: Option<&'a mut Job>) -> Self {
        Self {
            report: CheckReport::default(),
            job,
            notes: 0,
        }
    }

    /// Tells a line.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        self.notes += 1;
        let Some(job) = &mut self.job else { return };
        if self.notes <= MAX_NOTES {
            job.note(line());
        } else if self.notes == MAX_NOTES + 1 {
            job.note("Further findings are counted, but not told one by one");
        }
    }

    /// A corruption.
    pub fn corruption(&mut self, line: impl FnOnce() -> String) {
        self.report.corruptions += 1;
        self.note(line);
    }

    /// Something that keeps the check from being complete.
    pub fn check_error(&mut self, line: impl FnOnce() -> String) {
        self.report.check_errors += 1;
        self.note(line);
    }

    /// Moves progress on; fails where the job is cancelled.
    pub fn advance(&mut self, bytes: u64) -> Result<()> {
        match &mut self.job {
            Some(job) => {
                job.control().advance(bytes);
                job.tick()
            }
            None => Ok(()),
        }
    }

    /// Sets the whole of the progress.
    pub fn set_total(&mut self, bytes: u64) {
        if let Some(job) = &mut self.job {
            job.control().set_total(bytes);
        }
    }
}
