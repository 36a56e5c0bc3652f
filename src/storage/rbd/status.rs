//! Which runs of an image hold something: asked once for all of it where the cluster keeps a map of its objects,
//! and kept, but not for long: others may write to the image, and bytes taken for zeroes would be lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::extent::StorageExtent;
use crate::storage::recent;

/// The most runs that are kept; what comes behind them counts as data.
const MAX_RUNS: usize = 256 << 10;

/// How long an answer is believed at least. One that took long to get is believed ten times as long.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is believed at most.
const STALE: Duration = Duration::from_secs(60);

/// Runs that hold something, in a range that was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    start: u64,
    end: u64,
    /// Beginnings and ends, in their order, which do not touch.
    held: Vec<(u64, u64)>,
    full: bool,
}

impl Runs {
    /// None in that range yet.
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            ..Self::default()
        }
    }

    /// Adds a run, as the cluster tells it, in the order of their offsets; false where there are too many.
    pub(super) fn tell(&mut self, offset: u64, len: u64) -> bool {
        let start = offset.max(self.start);
        let end = offset.saturating_add(len).min(self.end);
        if start >= end {
            return true;
        }
        match self.held.last_mut() {
            // Not in order, which is never expected.
            Some((from, _)) if start < *from => {
                self.write(start, end - start);
                return true;
            }
            Some((_, last)) if start <= *last => {
                *last = end.max(*last);
                return true;
            }
            _ => {}
        }
        if self.held.len() < MAX_RUNS && self.held.try_reserve(1).is_ok() {
            self.held.push((start, end));
            return true;
        }
        self.full = true;
        match self.held.last_mut() {
            Some((_, last)) => *last = self.end,
            None => self.end = self.start,
        }
        false
    }

    /// Whether it was cut short because there was too much.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The run at an offset, at most `len` bytes; None outside of the range.
    pub(super) fn at(&self, offset: u64, len: u64) -> Option<StorageExtent> {
        if offset < self.start || offset >= self.end {
            return None;
        }
        let next = self.held.partition_point(|(_, end)| *end <= offset);
        let (held, end) = match self.held.get(next) {
            Some((start, end)) if *start <= offset => (true, *end),
            Some((start, _)) => (false, *start),
            None => (false, self.end),
        };
        Some(StorageExtent {
            len: len.min(end - offset),
            zero: !held,
            allocated: held,
        })
    }

    /// Something was written there.
    fn write(&mut self, offset: u64, len: u64) {
        let start = offset.max(self.start);
        let end = offset.saturating_add(len).min(self.end);
        if start >= end {
            return;
        }
        let first = self.held.partition_point(|(_, end)| *end < start);
        let behind = self.held.partition_point(|(start, _)| *start <= end);
        let joined = self.held.get(first..behind).unwrap_or_default();
        let from = joined.first().map_or(start, |(from, _)| start.min(*from));
        let to = joined.last().map_or(end, |(_, to)| end.max(*to));
        self.held.splice(first..behind, [(from, to)]);
    }
}

/// An answer.
#[derive(Debug)]
struct Known {
    runs: Runs,
    /// When the cluster was asked; None of what never changes.
    asked: Option<Instant>,
    /// Until when it may be believed.
    until: Instant,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Status {
    known: Mutex<Option<Known>>,
    /// Counts changes: an answer that was on its way meanwhile is not kept.
    changes: AtomicU64,
    /// Held while the cluster is asked, so that one question is asked once.
    pub(super) asking: Mutex<()>,
}

impl Status {
    /// What is known of an offset.
    pub(super) fn find(&self, offset: u64, len: u64) -> Option<StorageExtent> {
        let known = self.known.lock();
        let known = known.as_ref()?;
        let is_believed = Instant::now() < known.until && known.asked.is_none_or(recent::counts);
        is_believed.then(|| known.runs.at(offset, len)).flatten()
    }

    /// To be taken before the cluster is asked.
    pub(super) fn now(&self) -> (u64, Instant) {
        (self.changes.load(Ordering::Acquire), Instant::now())
    }

    /// Keeps an answer, unless something was changed since it was asked for; of a snapshot, for ever.
    pub(super) fn keep(&self, (changes, asked): (u64, Instant), runs: Runs, is_fixed: bool) {
        let time = match is_fixed {
            true => Duration::from_secs(u64::from(u32::MAX)),
            false => (asked.elapsed() * 10).clamp(FRESH, STALE),
        };
        let mut known = self.known.lock();
        if self.changes.load(Ordering::Acquire) == changes {
            *known = Instant::now().checked_add(time).map(|until| Known {
                runs,
                asked: (!is_fixed).then_some(asked),
                until,
            });
        }
    }

    /// Before and after a write: there is data.
    pub(super) fn written(&self, offset: u64, len: u64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        if let Some(known) = self.known.lock().as_mut() {
            known.runs.write(offset, len);
        }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        *self.known.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_are_one_and_stay_in_the_range() {
        let mut runs = Runs::new(10, 100);
        for (offset, len) in [(0, 15), (20, 10), (30, 5), (90, 20)] {
            assert!(runs.tell(offset, len));
        }
        let at = |offset| runs.at(offset, 1000).map(|run| (run.len, run.zero));
        assert_eq!(at(9), None);
        assert_eq!(at(10), Some((5, false)));
        assert_eq!(at(15), Some((5, true)));
        assert_eq!(at(22), Some((13, false)));
        assert_eq!(at(99), Some((1, false)));
        assert_eq!(at(100), None);
    }

    proptest::proptest! {
        #[test]
        fn what_was_written_is_never_taken_for_a_hole(
            told in proptest::collection::vec((0..80u64, 1..20u64), 0..6),
            writes in proptest::collection::vec((0..120u64, 1..30u64), 0..12),
        ) {
            let mut told = told;
            told.sort_unstable();
            let (mut runs, mut model) = (Runs::new(0, 100), [false; 100]);
            for (offset, len) in &told {
                proptest::prop_assert!(runs.tell(*offset, *len));
            }
            for (offset, len) in &writes {
                runs.write(*offset, *len);
            }
            for (offset, len) in told.iter().chain(&writes) {
                for at in *offset..(offset + len).min(100) {
                    model[at as usize] = true;
                }
            }
            let mut at = 0;
            while at < 100 {
                let run = runs.at(at, 100).unwrap();
                for place in at..at + run.len {
                    proptest::prop_assert_eq!(model[place as usize], run.allocated);
                }
                at += run.len;
            }
        }
    }
}
