//! The course of a consistency check: look, repair what is asked for, look again.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Result;
use crate::format::{CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;
use crate::size::SECTOR;

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
        report.repair_refused = true;
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

/// Which places of a file have a use, by number; memory grows with what was marked, however far apart it is.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    chunks: HashMap<u64, Chunk>,
}

/// Places of which is known together.
#[derive(Debug)]
enum Chunk {
    /// These, in order.
    Few(Vec<u16>),
    /// A bit for each.
    Many(Box<[u64]>),
}

impl Marks {
    /// Places of a chunk, for which bits take 4 KiB.
    const CHUNK: u64 = 1 << 15;

    /// Marks a place; false where it was marked.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn mark(&mut self, place: u64) -> Result<bool> {
        let (number, within) = (place / Self::CHUNK, (place % Self::CHUNK) as u16);
        match self.chunks.get_mut(&number) {
            Some(chunk) => chunk.mark(within),
            None => {
                let mut few = Vec::new();
                memory::push(&mut few, within)?;
                self.chunks.try_reserve(1).map_err(|_| memory::lack())?;
                self.chunks.insert(number, Chunk::Few(few));
                Ok(true)
            }
        }
    }

    /// Whether a place is marked.
    pub(crate) fn has(&self, place: u64) -> bool {
        let within = (place % Self::CHUNK) as u16;
        let chunk = self.chunks.get(&(place / Self::CHUNK));
        chunk.is_some_and(|chunk| chunk.has_any(within, within))
    }

    /// Visits what is marked, in ascending order.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn each(&self, mut visit: impl FnMut(u64)) -> Result<()> {
        let mut numbers = memory::collect(self.chunks.keys().copied())?;
        numbers.sort_unstable();
        for number in numbers {
            let first = number * Self::CHUNK;
            match self.chunks.get(&number) {
                Some(Chunk::Few(places)) => places
                    .iter()
                    .for_each(|place| visit(first + u64::from(*place))),
                Some(Chunk::Many(bits)) => {
                    for (word, at) in bits.iter().zip((first..).step_by(64)) {
                        let mut rest = *word;
                        while rest != 0 {
                            visit(at + u64::from(rest.trailing_zeros()));
                            rest &= rest - 1;
                        }
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a place of these is marked.
    pub(crate) fn has_any(&self, places: Range<u64>) -> bool {
        let Some(last) = places
            .end
            .checked_sub(1)
            .filter(|last| *last >= places.start)
        else {
            return false;
        };
        let numbers = places.start / Self::CHUNK..=last / Self::CHUNK;
        let is_marked = |number: u64, chunk: &Chunk| {
            let start = number * Self::CHUNK;
            let first = places.start.saturating_sub(start);
            let last = (last - start).min(Self::CHUNK - 1);
            chunk.has_any(first as u16, last as u16)
        };
        if numbers.end() - numbers.start() < self.chunks.len() as u64 {
            let mut numbers = numbers;
            return numbers.any(|number| {
                let chunk = self.chunks.get(&number);
                chunk.is_some_and(|chunk| is_marked(number, chunk))
            });
        }
        let mut chunks = self.chunks.iter();
        chunks.any(|(number, chunk)| numbers.contains(number) && is_marked(*number, chunk))
    }
}

/// Where things of one length stand, each in a place of its own: blocks, with what belongs to them. All places are at
/// multiples of a sector.
#[derive(Debug)]
pub(crate) struct Places {
    sectors: u64,
    starts: Marks,
}

impl Places {
    /// Of things of `len` bytes; nothing stands anywhere yet.
    pub(crate) fn of(len: u64) -> Self {
        Self {
            sectors: len.div_ceil(SECTOR),
            starts: Marks::default(),
        }
    }

    /// Takes the place that begins at `start`; false, and nothing is taken, where something stands in it.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn take(&mut self, start: u64) -> Result<bool> {
        let start = start / SECTOR;
        let first = (start + 1).saturating_sub(self.sectors);
        match self
            .starts
            .has_any(first..start.saturating_add(self.sectors))
        {
            true => Ok(false),
            false => self.starts.mark(start),
        }
    }

    /// Visits where each place that was taken begins, in ascending order.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn each(&self, mut visit: impl FnMut(u64)) -> Result<()> {
        self.starts.each(|start| visit(start * SECTOR))
    }
}

impl Chunk {
    /// More places than this take more than their bits.
    const FEW: usize = (Marks::CHUNK / 16) as usize;

    fn mark(&mut self, place: u16) -> Result<bool> {
        match self {
            Self::Few(places) => {
                let Err(at) = places.binary_search(&place) else {
                    return Ok(false);
                };
                if places.len() < Self::FEW {
                    memory::reserve(places, 1)?;
                    places.insert(at, place);
                    return Ok(true);
                }
                let mut bits = memory::filled((Marks::CHUNK / 64) as usize, 0_u64)?;
                for place in places.iter().chain([&place]) {
                    if let Some(word) = bits.get_mut(usize::from(place / 64)) {
                        *word |= 1 << (place % 64);
                    }
                }
                *self = Self::Many(bits.into_boxed_slice());
                Ok(true)
            }
            Self::Many(bits) => {
                let Some(word) = bits.get_mut(usize::from(place / 64)) else {
                    return Ok(true);
                };
                let bit = 1 << (place % 64);
                let is_new = *word & bit == 0;
                *word |= bit;
                Ok(is_new)
            }
        }
    }

    /// Whether a place from `first` to `last` is marked.
    fn has_any(&self, first: u16, last: u16) -> bool {
        match self {
            Self::Few(places) => {
                let at = places.partition_point(|place| *place < first);
                places.get(at).is_some_and(|place| *place <= last)
            }
            Self::Many(bits) => {
                let words = usize::from(first / 64)..=usize::from(last / 64);
                words.into_iter().any(|at| {
                    let mut word = bits.get(at).copied().unwrap_or_default();
                    if at == usize::from(first / 64) {
                        word &= u64::MAX << (first % 64);
                    }
                    if at == usize::from(last / 64) {
                        word &= u64::MAX >> (63 - last % 64);
                    }
                    word != 0
                })
            }
        }
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

    #[test]
    fn ranges_are_looked_through_whether_few_or_many_are_marked() {
        for step in [3, 5000] {
            let mut marks = Marks::default();
            let all: Vec<u64> = (0..4 * Marks::CHUNK).step_by(step).collect();
            for place in &all {
                assert!(marks.mark(*place).unwrap());
            }
            assert!(all.iter().all(|place| marks.has(*place)));
            let mut found = Vec::new();
            marks.each(|place| found.push(place)).unwrap();
            assert_eq!(found, all);
            for start in (0..5 * Marks::CHUNK).step_by(997) {
                for len in [0, 1, 2, 63, 64, 65, 4999, 5000, Marks::CHUNK + 1] {
                    let at = all.partition_point(|place| *place < start);
                    let is_marked = all.get(at).is_some_and(|place| *place < start + len);
                    assert_eq!(
                        marks.has_any(start..start + len),
                        is_marked,
                        "{start} {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_place_is_taken_as_a_whole_or_not_at_all() {
        let mut places = Places::of(3 * SECTOR);
        for (start, is_free) in [
            (10, true),
            (10, false),
            (12, false),
            (8, false),
            (13, true),
            (7, true),
            (0, true),
            (2, false),
            (3, true),
            (5, false),
        ] {
            assert_eq!(places.take(start * SECTOR).unwrap(), is_free, "{start}");
        }
        let mut taken = Vec::new();
        places.each(|start| taken.push(start / SECTOR)).unwrap();
        assert_eq!(taken, [0, 3, 7, 10, 13]);
    }
}
