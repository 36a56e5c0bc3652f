//! Findings on their way to the caller.

use crate::error::Result;
use crate::format::CheckReport;
use crate::format::notes::NoteCount;
use crate::job::Job;

/// The numbers so far, and where the findings go.
pub(super) struct Findings<'a> {
    pub report: CheckReport,
    /// What is unreferenced may be what a damaged entry meant: nothing is given up then.
    pub doubtful: bool,
    job: Option<&'a mut Job>,
    notes: NoteCount,
    /// Lines that are held back until it is known whether the walk counts.
    held: Option<Vec<String>>,
}

impl<'a> Findings<'a> {
    /// Tells findings to `job`; without one they are only counted.
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

    /// Tells the lines that were held back.
    pub fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        if let Some(job) = &mut self.job {
            for line in held {
                job.note(line);
            }
        }
    }

    /// Forgets all that was found since `base`; the job goes on.
    pub fn restart(self, base: CheckReport) -> Self {
        Self {
            report: base,
            ..Self::new(self.job)
        }
    }

    /// Tells a line.
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

    /// A corruption.
    pub fn corruption(&mut self, line: impl FnOnce() -> String) {
        self.report.corruptions += 1;
        self.note(line);
    }

    /// A corruption of something that names clusters: they may be what seems unreferenced.
    pub fn lost(&mut self, line: impl FnOnce() -> String) {
        self.doubtful = true;
        self.corruption(line);
    }

    /// A damaged entry that is repaired, or not; `line` gets the words before its kind.
    pub fn repaired_or_not(&mut self, repaired: bool, line: impl FnOnce(&str) -> String) {
        if repaired {
            self.report.corruptions_fixed += 1;
            self.note(|| line("Repairing"));
        } else {
            self.corruption(|| line("ERROR found"));
        }
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
