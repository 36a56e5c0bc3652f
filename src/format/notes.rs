//! Reporting the findings of a check: one line each, up to a limit.

use std::cmp::Ordering;

use crate::error::Result;
use crate::job::Job;

/// Maximum number of findings that are reported individually; all are counted.
const MOST: u64 = 100_000;

/// The number of findings so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoteCount(u64);

impl NoteCount {
    /// The line for one more finding; None if there have been too many.
    pub(crate) fn next(&mut self, line: impl FnOnce() -> String) -> Option<String> {
        self.0 += 1;
        match self.0.cmp(&(MOST + 1)) {
            Ordering::Less => Some(line()),
            Ordering::Equal => {
                Some("Further findings are counted, but not told one by one".to_owned())
            }
            Ordering::Greater => None,
        }
    }
}

/// Number of entries between two checks of the deadline and for cancellation.
const CHECKED: u32 = 1 << 10;

/// Lines for the job of a check, if any.
pub(crate) struct Notes<'a> {
    job: Option<&'a mut Job>,
    count: NoteCount,
    ticks: u32,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(job: Option<&'a mut Job>) -> Self {
        let count = NoteCount::default();
        Self {
            job,
            count,
            ticks: 0,
        }
    }

    /// Reports a finding.
    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(job) = self.job.as_deref_mut()
            && let Some(line) = self.count.next(line)
        {
            job.note(line);
        }
    }

    /// See [`Job::tick`]; to be called for each of many entries.
    ///
    /// # Errors
    /// As [`Job::tick`].
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.ticks = self.ticks.wrapping_add(1);
        match self.job.as_deref_mut() {
            Some(job) if self.ticks % CHECKED == 1 => job.tick(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_counted() {
        let mut count = NoteCount::default();
        let told = (0..MOST + 7).filter_map(|n| count.next(|| n.to_string()));
        let told: Vec<String> = told.collect();
        assert_eq!(told.len() as u64, MOST + 1);
        assert!(told.last().unwrap().starts_with("Further findings"));
    }
}
