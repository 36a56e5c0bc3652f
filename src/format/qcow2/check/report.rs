//! Passes findings to the caller.

use crate::error::Result;
use crate::format::CheckReport;
use crate::format::notes::NoteCount;
use crate::job::Job;

/// The counts so far, and where the findings go.
pub(super) struct Findings<'a> {
    pub report: CheckReport,
    /// Unreferenced clusters may be what a damaged entry should refer to: nothing is released then.
    pub doubtful: bool,
    job: Option<&'a mut Job>,
    notes: NoteCount,
    /// Lines that are held back until it is known whether the walk is valid.
    held: Option<Vec<String>>,
}

impl<'a> Findings<'a> {
    /// Reports findings to `job`; without one they are only counted.
    pub fn new(job: Option<&'a mut Job>) -> Self {
        Self {
            report: CheckReport::default(),
            doubtful: false,
            job,
            notes: NoteCount::default(),
            held: None,
        }
    }

    /// Holds lines back from here on.
    pub fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Reports the lines that were held back.
    pub fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        if let Some(job) = &mut self.job {
            for line in held {
                job.note(line);
            }
        }
    }

    /// Discards everything that was found since `base`; the job continues.
    pub fn restart(self, base: CheckReport) -> Self {
        Self {
            report: base,
            ..Self::new(self.job)
        }
    }

    /// Reports a line.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(job) = &mut self.job else { return };
        let Some(line) = self.notes.next(line) else {
            return;
        };
        match &mut self.held {
            Some(held) => held.push(line),
            None => job.note(line),
        }
    }

    /// Reports a corruption.
    pub fn corruption(&mut self, line: impl FnOnce() -> String) {
        self.report.corruptions += 1;
        self.note(line);
    }

    /// Reports a corruption of something that refers to clusters: these may be the ones that seem unreferenced.
    pub fn lost(&mut self, line: impl FnOnce() -> String) {
        self.doubtful = true;
        self.corruption(line);
    }

    /// Reports a damaged entry, repaired or not; `line` gets the words before its kind.
    pub fn repaired_or_not(&mut self, repaired: bool, line: impl FnOnce(&str) -> String) {
        if repaired {
            self.report.corruptions_fixed += 1;
            self.note(|| line("Repairing"));
        } else {
            self.corruption(|| line("ERROR found"));
        }
    }

    /// Reports something that keeps the check from being complete.
    pub fn check_error(&mut self, line: impl FnOnce() -> String) {
        self.report.check_errors += 1;
        self.note(line);
    }

    /// Advances the progress; fails if the job is cancelled.
    pub fn advance(&mut self, bytes: u64) -> Result<()> {
        match &mut self.job {
            Some(job) => {
                job.control().advance(bytes);
                job.tick()
            }
            None => Ok(()),
        }
    }

    /// Sets the total of the progress.
    pub fn set_total(&mut self, bytes: u64) {
        if let Some(job) = &mut self.job {
            job.control().set_total(bytes);
        }
    }
}
