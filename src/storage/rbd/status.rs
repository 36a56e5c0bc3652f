//! Which extents of an image hold data: queried for the whole image at once where the cluster keeps an object map, and
//! cached, but only briefly: others may write to the image, and treating their data as zeroes would lose it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::extent::StorageExtent;
use crate::storage::recent;

/// Maximum number of extents to cache; everything beyond them counts as data.
const MAX_RUNS: usize = 256 << 10;

/// Minimum lifetime of a cached result. A slow query is cached for ten times as long as it took.
const FRESH: Duration = Duration::from_secs(1);
/// Maximum lifetime of a cached result.
const STALE: Duration = Duration::from_secs(60);

/// Extents that hold data, within the range that was queried.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    start: u64,
    end: u64,
    /// Start and end of each extent, in order and not adjacent.
    held: Vec<(u64, u64)>,
    full: bool,
}

impl Runs {
    /// An empty result for that range.
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            ..Self::default()
        }
    }

    /// Adds an extent reported by the cluster, in order of offset; false where there are too many.
    pub(super) fn tell(&mut self, offset: u64, len: u64) -> bool {
        let start = offset.max(self.start);
        let end = offset.saturating_add(len).min(self.end);
        if start >= end {
            return true;
        }
        match self.held.last_mut() {
            // Out of order, which should never happen.
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

    /// Whether the result was cut short because there were too many extents.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The extent at an offset, at most `len` bytes; `None` outside the range.
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

    /// Records that a range was written.
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

/// A cached result.
#[derive(Debug)]
struct Known {
    runs: Runs,
    /// When the cluster was queried; `None` if the result never changes.
    asked: Option<Instant>,
    /// When the result expires.
    until: Instant,
}

/// The cached status of an image.
#[derive(Debug, Default)]
pub(super) struct Status {
    known: Mutex<Option<Known>>,
    /// Counts changes: a result that was in flight during a change is not cached.
    changes: AtomicU64,
    /// Held during a query, so that concurrent callers do not send the same one.
    pub(super) asking: Mutex<()>,
}

impl Status {
    /// The cached extent at an offset.
    pub(super) fn find(&self, offset: u64, len: u64) -> Option<StorageExtent> {
        let known = self.known.lock();
        let known = known.as_ref()?;
        let is_believed = Instant::now() < known.until && known.asked.is_none_or(recent::counts);
        is_believed.then(|| known.runs.at(offset, len)).flatten()
    }

    /// Must be called before the cluster is queried.
    pub(super) fn now(&self) -> (u64, Instant) {
        (self.changes.load(Ordering::Acquire), Instant::now())
    }

    /// Caches a result unless something has changed since the query; that of a snapshot never expires.
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

    /// Called before and after a write: the range holds data.
    pub(super) fn written(&self, offset: u64, len: u64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        if let Some(known) = self.known.lock().as_mut() {
            known.runs.write(offset, len);
        }
    }

    /// Discards the cached result.
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
