//! The course of a consistency check: look, repair what is asked for, look again.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::{CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;

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

    /// Goes through the image; tells what is wrong to `job`.
    ///
    /// # Errors
    /// Of reading.
    fn look(&self, job: Option<&mut Job>) -> Result<Self::Found>;

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
    let found = image.look(Some(job))?;
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
        report.repair_refused = true;
        return Ok(report);
    }
    image.repair(&found, job.control())?;
    let left = image.look(None)?;
    report.corruptions_fixed = report.corruptions.saturating_sub(left.corruptions());
    report.leaks_fixed = report.leaks.saturating_sub(left.leaks());
    report.corruptions = left.corruptions();
    report.leaks = left.leaks();
    left.count(&mut report);
    Ok(report)
}

/// Which places of a file have a use, by number; memory grows with what was marked.
#[derive(Debug, Default)]
pub(crate) struct Marks(HashMap<u64, Box<[u64]>>);

impl Marks {
    /// Places of which is known together: 4 KiB.
    const CHUNK: u64 = 1 << 15;

    /// Marks a place; false where it was marked.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn mark(&mut self, place: u64) -> Result<bool> {
        let number = place / Self::CHUNK;
        if !self.0.contains_key(&number) {
            let chunk = memory::filled((Self::CHUNK / 64) as usize, 0_u64)?;
            self.0.try_reserve(1).map_err(|_| memory::lack())?;
            self.0.insert(number, chunk.into_boxed_slice());
        }
        let within = place % Self::CHUNK;
        let chunk = self.0.get_mut(&number);
        let Some(bits) = chunk.and_then(|chunk| chunk.get_mut((within / 64) as usize)) else {
            return Ok(true);
        };
        let bit = 1 << (within % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        Ok(is_new)
    }

    /// Whether a place is marked.
    pub(crate) fn has(&self, place: u64) -> bool {
        let chunk = self.0.get(&(place / Self::CHUNK));
        let within = place % Self::CHUNK;
        let bits = chunk.and_then(|chunk| chunk.get((within / 64) as usize));
        bits.is_some_and(|bits| bits & 1 << (within % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_new_once() {
        let mut marks = Marks::default();
        for place in [0, 63, 64, Marks::CHUNK, u64::MAX] {
            assert!(marks.mark(place).unwrap());
            assert!(!marks.mark(place).unwrap());
        }
    }
}
