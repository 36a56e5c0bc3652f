//! Recently read data and read-ahead, held as a bounded number of units of the image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::job::JobControl;
use crate::memory::{self, IoBuf};

use super::{Sink, Source, cut};

/// Size of a unit in bytes.
pub(super) const UNIT: u64 = 64 << 10;
/// Maximum number of units: 32 MiB.
const MAX_UNITS: usize = 512;
/// Maximum number of them in flight.
const MAX_LOADING: usize = 256;
/// Number of sequential readers that are tracked separately.
const RUNS: usize = 8;
/// Factor by which the requests of a sequential reader grow.
const GROWTH: u64 = 4;
/// How long to wait for another thread before checking the control again.
const LOOK: Duration = Duration::from_millis(50);

/// The cache of one image.
#[derive(Debug)]
pub(in crate::storage) struct Cache {
    /// Number of units in the image.
    count: u64,
    len: u64,
    /// Maximum number of units per request.
    window: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    units: BTreeMap<u64, Unit>,
    loading: usize,
    /// Counts uses, for eviction.
    clock: u64,
    runs: [Run; RUNS],
}

#[derive(Debug)]
enum Unit {
    /// A thread is reading it.
    Loading,
    /// It is cached; the number says when it was last used.
    Ready(Arc<IoBuf>, u64),
}

/// A sequential reader.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// The first unit that it has not requested.
    next: u64,
    /// Length of its last request in units.
    window: u64,
    used: u64,
}

/// A half-open range of units, read with one request.
type Range = (u64, u64);

impl Cache {
    /// A cache for an image of `len` bytes that starts with `first`.
    pub(super) fn new(len: u64, read_ahead: u64, first: IoBuf) -> Self {
        let mut state = State::default();
        if !first.is_empty() && (first.len() as u64 == UNIT || first.len() as u64 == len) {
            state.units.insert(0, Unit::Ready(Arc::new(first), 0));
            state.runs[0] = Run {
                next: 1,
                window: 1,
                used: 1,
            };
        }
        Self {
            count: len.div_ceil(UNIT),
            len,
            window: (read_ahead / UNIT).max(1),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Whether a range is cached.
    pub(super) fn has(&self, offset: u64, len: usize) -> bool {
        let units = offset / UNIT
            ..offset
                .saturating_add(len as u64)
                .min(self.len)
                .div_ceil(UNIT);
        let state = self.state.lock();
        let mut units = units.map(|unit| state.units.get(&unit));
        units.all(|unit| matches!(unit, Some(Unit::Ready(..))))
    }

    /// Reads a range inside the image.
    ///
    /// # Errors
    /// Errors of the source.
    pub(super) fn read(
        &self,
        source: &dyn Source,
        mut buf: &mut [u8],
        offset: u64,
        control: &JobControl,
    ) -> Result<()> {
        let last = (offset + buf.len() as u64).div_ceil(UNIT);
        let mut at = offset;
        while !buf.is_empty() {
            let unit = self.unit(source, at / UNIT, last, control)?;
            let start = usize::try_from(at % UNIT).unwrap_or(0);
            let bytes = unit.get(start..).unwrap_or_default();
            let len = bytes.len().min(buf.len());
            let (now, then) = buf.split_at_mut(len);
            now.copy_from_slice(bytes.get(..len).unwrap_or_default());
            if len == 0 {
                // Happens only if a unit is shorter than it should be.
                now.fill(0);
                return Err(cut());
            }
            buf = then;
            at += len as u64;
        }
        Ok(())
    }

    /// Returns one unit, for a read that extends to `last`.
    fn unit(
        &self,
        source: &dyn Source,
        unit: u64,
        last: u64,
        control: &JobControl,
    ) -> Result<Arc<IoBuf>> {
        loop {
            let mut state = self.state.lock();
            state.clock += 1;
            let now = state.clock;
            let range = match state.units.get_mut(&unit) {
                Some(Unit::Ready(bytes, used)) => {
                    *used = now;
                    return Ok(bytes.clone());
                }
                Some(Unit::Loading) => {
                    // Instead of just waiting, this thread may as well read ahead.
                    let ahead = self.ahead(&state, unit);
                    let lane = ahead.and_then(|ahead| Some((ahead, source.lanes().try_take()?)));
                    if let Some(((run, range), lane)) = lane {
                        self.begin(&mut state, run, range);
                        drop(state);
                        // If this fails, the thread that needs the data requests it again.
                        let _ = self.load(source, range, control);
                        drop(lane);
                    } else {
                        control.check()?;
                        self.changed.wait_for(&mut state, LOOK);
                    }
                    continue;
                }
                None => {
                    let (run, range) = self.wanted(&state, unit, last);
                    self.begin(&mut state, run, range);
                    range
                }
            };
            drop(state);
            let mut loading = Loading::new(self, range);
            let lane = source.lanes().take(control)?;
            let done = loading.run(source, control);
            drop(lane);
            if let Some(Unit::Ready(bytes, _)) = self.state.lock().units.get(&unit) {
                return Ok(bytes.clone());
            }
            done?;
        }
    }

    fn load(&self, source: &dyn Source, range: Range, control: &JobControl) -> Result<()> {
        Loading::new(self, range).run(source, control)
    }

    /// What to request for a missing unit, and for which reader.
    fn wanted(&self, state: &State, unit: u64, last: u64) -> (usize, Range) {
        let runs = state.runs.iter().enumerate();
        let near = |run: &Run| run.window > 0 && run.next <= unit && unit <= run.next + run.window;
        let (place, window) = match runs.clone().find(|(_, run)| near(run)) {
            Some((place, run)) => (place, (run.window * GROWTH).min(self.window)),
            None => {
                let oldest = runs.min_by_key(|(_, run)| run.used);
                (oldest.map_or(0, |(place, _)| place), 1)
            }
        };
        let most = unit
            + window
                .max(last.saturating_sub(unit))
                .min(self.window.max(1));
        (place, self.gap(state, unit, most))
    }

    /// What to read ahead for a reader that waits for a unit, and for which reader.
    fn ahead(&self, state: &State, unit: u64) -> Option<(usize, Range)> {
        let mut runs = state.runs.iter().enumerate();
        let is_on = |run: &Run| {
            // No further ahead than the other waiting readers can have got.
            run.window > 1 && unit < run.next && run.next - unit <= 4 * run.window
        };
        let (place, run) = runs.find(|(_, run)| is_on(run))?;
        let window = (run.window * GROWTH).min(self.window);
        let free = MAX_LOADING.saturating_sub(state.loading) as u64;
        if run.next >= self.count || free < window || state.units.contains_key(&run.next) {
            return None;
        }
        Some((place, self.gap(state, run.next, run.next + window)))
    }

    /// The range from `from` to `to`, or to the next unit that is cached or in flight.
    fn gap(&self, state: &State, from: u64, to: u64) -> Range {
        let to = to.min(self.count).max(from + 1);
        let next = state.units.range(from..to).next();
        (from, next.map_or(to, |(unit, _)| *unit).max(from + 1))
    }

    /// Marks a range as in flight, and evicts old units to make room for it.
    fn begin(&self, state: &mut State, run: usize, (from, to): Range) {
        state.clock += 1;
        if let Some(run) = state.runs.get_mut(run) {
            *run = Run {
                next: to,
                window: to - from,
                used: state.clock,
            };
        }
        for unit in from..to {
            state.units.insert(unit, Unit::Loading);
        }
        state.loading += (to - from) as usize;
        let too_many = state.units.len().saturating_sub(MAX_UNITS);
        if too_many > 0 {
            let used = |(unit, kept): (&u64, &Unit)| match kept {
                Unit::Ready(_, used) => Some((*used, *unit)),
                Unit::Loading => None,
            };
            let mut old: Vec<(u64, u64)> = state.units.iter().filter_map(used).collect();
            old.sort_unstable();
            for (_, unit) in old.into_iter().take(too_many) {
                state.units.remove(&unit);
            }
        }
    }
}

/// A range that this thread is reading. Units that have not arrived when it is dropped are missing again.
struct Loading<'a> {
    cache: &'a Cache,
    next: u64,
    end: u64,
    unit: IoBuf,
    filled: usize,
}

impl<'a> Loading<'a> {
    fn new(cache: &'a Cache, (next, end): Range) -> Self {
        Self {
            cache,
            next,
            end,
            unit: IoBuf::new(),
            filled: 0,
        }
    }

    fn run(&mut self, source: &dyn Source, control: &JobControl) -> Result<()> {
        let range = (
            self.next * UNIT,
            self.end.saturating_mul(UNIT).min(self.cache.len),
        );
        source.read(range, self, control)
    }
}

impl Sink for Loading<'_> {
    fn room(&mut self) -> Result<&mut [u8]> {
        if self.unit.is_empty() {
            let left = self.cache.len.saturating_sub(self.next * UNIT);
            let len = usize::try_from(left.min(UNIT)).unwrap_or(0);
            self.unit = memory::zeroed(len)?;
            self.filled = 0;
        }
        Ok(self.unit.get_mut(self.filled..).unwrap_or_default())
    }

    fn came(&mut self, len: usize) -> Result<()> {
        self.filled += len;
        if self.filled < self.unit.len() {
            return Ok(());
        }
        let unit = memory::shared(std::mem::take(&mut self.unit))?;
        let mut state = self.cache.state.lock();
        state.clock += 1;
        let now = state.clock;
        state.units.insert(self.next, Unit::Ready(unit, now));
        state.loading = state.loading.saturating_sub(1);
        self.next += 1;
        drop(state);
        self.cache.changed.notify_all();
        Ok(())
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if self.next >= self.end {
            return;
        }
        let mut state = self.cache.state.lock();
        for unit in self.next..self.end {
            if matches!(state.units.get(&unit), Some(Unit::Loading)) {
                state.units.remove(&unit);
                state.loading = state.loading.saturating_sub(1);
            }
        }
        drop(state);
        self.cache.changed.notify_all();
    }
}
