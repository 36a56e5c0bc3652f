//! What a server said of holes and zeroes, kept for all threads, but not for long: others may write to the
//! same bytes, and those taken for zeroes would be lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::recent;

/// The most extents that are kept.
const MAX_KEPT: usize = 64 << 10;

/// How long an answer is believed at least. One that took long to get is believed ten times as long.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is believed at most.
const STALE: Duration = Duration::from_secs(60);

/// A run of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<T> {
    pub(super) end: u64,
    pub(super) state: T,
    /// When the server was asked.
    asked: Instant,
    /// Until when it may be believed.
    until: Instant,
}

/// When the server was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    changes: u64,
    at: Instant,
}

/// Runs by their beginnings, which do not overlap. `T` is what is said of each.
#[derive(Debug)]
pub(super) struct StatusCache<T> {
    runs: Mutex<BTreeMap<u64, Run<T>>>,
    /// Counts writes: an answer that was on its way during one is not kept.
    changes: AtomicU64,
    /// Held while the server is asked, so that one question is asked once.
    pub(super) asking: Mutex<()>,
}

impl<T> Default for StatusCache<T> {
    fn default() -> Self {
        Self {
            runs: Mutex::default(),
            changes: AtomicU64::new(0),
            asking: Mutex::default(),
        }
    }
}

impl<T: Copy + PartialEq> StatusCache<T> {
    /// The run at `offset`.
    pub(super) fn find(&self, offset: u64) -> Option<Run<T>> {
        let runs = self.runs.lock();
        let (_, run) = runs.range(..=offset).next_back()?;
        let is_believed = Instant::now() < run.until && recent::counts(run.asked);
        (run.end > offset && is_believed).then_some(*run)
    }

    /// To be taken before the server is asked.
    pub(super) fn now(&self) -> Asked {
        Asked {
            changes: self.changes.load(Ordering::Acquire),
            at: Instant::now(),
        }
    }

    /// Keeps an answer that begins at `offset`, unless something was written since `asked`; gives its first run.
    /// Each has a length. Those that follow each other and are alike become one, and none passes `size`.
    pub(super) fn keep(
        &self,
        asked: Asked,
        offset: u64,
        size: u64,
        extents: impl IntoIterator<Item = (u64, T)>,
    ) -> Option<Run<T>> {
        let fresh = (asked.at.elapsed() * 10).clamp(FRESH, STALE);
        let until = Instant::now() + fresh;
        let mut at = offset;
        let mut joined: Vec<(u64, Run<T>)> = Vec::new();
        for (len, state) in extents {
            if at >= size {
                break;
            }
            let run = Run {
                end: at.saturating_add(len).min(size),
                state,
                asked: asked.at,
                until,
            };
            match joined.last_mut() {
                Some((_, last)) if last.state == run.state => last.end = run.end,
                _ => {
                    if joined.len() == MAX_KEPT {
                        break;
                    }
                    joined.push((at, run));
                }
            }
            at = run.end;
        }
        let first = joined.first().map(|(_, run)| *run);
        let end = joined.last().map_or(offset, |(_, run)| run.end);
        let mut runs = self.runs.lock();
        if self.changes.load(Ordering::Acquire) == asked.changes {
            if runs.len() + joined.len() > MAX_KEPT {
                runs.clear();
            }
            carve(&mut runs, offset, end);
            runs.extend(joined);
        }
        first
    }

    /// Before and after a write: what was known of the range is no longer true.
    pub(super) fn forget(&self, offset: u64, len: u64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let mut runs = self.runs.lock();
        if !runs.is_empty() {
            carve(&mut runs, offset, offset.saturating_add(len));
        }
    }
}

/// Takes a range out of the runs.
fn carve<T: Copy>(runs: &mut BTreeMap<u64, Run<T>>, start: u64, end: u64) {
    if start >= end {
        return;
    }
    let before = runs.range(..start).next_back().map(|(at, run)| (*at, *run));
    if let Some((at, run)) = before
        && run.end > start
    {
        runs.insert(at, Run { end: start, ..run });
        if run.end > end {
            runs.insert(end, run);
        }
    }
    while let Some((at, run)) = runs.range(start..end).next().map(|(at, run)| (*at, *run)) {
        runs.remove(&at);
        if run.end > end {
            runs.insert(end, run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const ZERO: u8 = 1;

    #[test]
    fn answers_are_kept_joined_and_cut_at_the_end() {
        let cache = StatusCache::default();
        let answer = [(10, DATA), (5, DATA), (100, ZERO)];
        let first = cache.keep(cache.now(), 20, 50, answer).unwrap();
        assert_eq!((first.end, first.state), (35, DATA));
        assert_eq!(cache.find(34), Some(first));
        assert_eq!(cache.find(35).unwrap().end, 50);
        assert_eq!((cache.find(19), cache.find(50)), (None, None));
    }

    #[test]
    fn what_is_written_is_forgotten_and_late_answers_are_not_kept() {
        let cache = StatusCache::default();
        let answer = [(100, DATA)];
        let asked = cache.now();
        cache.keep(asked, 0, 100, answer);
        cache.forget(40, 20);
        assert_eq!(cache.find(39).unwrap().end, 40);
        assert_eq!(cache.find(40), None);
        assert_eq!(cache.find(60).unwrap().end, 100);
        cache.forget(0, 100);
        assert_eq!(cache.find(60), None);
        assert!(cache.keep(asked, 0, 100, answer).is_some());
        assert_eq!(cache.find(60), None);
    }

    proptest::proptest! {
        #[test]
        fn the_cache_never_says_more_than_it_was_told(
            steps in proptest::collection::vec((0..60u64, 1..30u64, 0..4u64, proptest::bool::ANY), 1..40),
        ) {
            let cache = StatusCache::default();
            let mut model = [None; 90];
            for (offset, len, state, tell) in steps {
                let range = offset as usize..(offset + len) as usize;
                if tell {
                    cache.keep(cache.now(), offset, 90, [(len, state)]);
                    model[range].fill(Some(state));
                } else {
                    cache.forget(offset, len);
                    model[range].fill(None);
                }
                for (at, known) in model.iter().enumerate() {
                    let found = cache.find(at as u64).map(|run| run.state);
                    proptest::prop_assert_eq!(found, *known);
                }
            }
        }
    }
}
