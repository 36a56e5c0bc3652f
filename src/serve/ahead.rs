//! Decoding ahead for clients that read an export sequentially.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::serve::budget::{Budget, Held};

/// Maximum number of sequential streams tracked at once: a client may have several connections.
const STREAMS: usize = 8;
/// A read that starts this close to the end of the last one counts as sequential: requests of several connections
/// overtake each other.
const NEAR: u64 = 1 << 20;
/// Number of bytes read sequentially before anything is decoded ahead.
const BEGIN: u64 = 512 << 10;
/// How far ahead to decode.
const WINDOW: u64 = 2 << 20;
/// If nothing was compressed, the next attempt is this many windows farther on, and twice as many each time.
const SKIP: u32 = 5;
/// Memory for data decoded ahead; at most an eighth of the server's budget.
const MEMORY: u64 = 32 << 20;

/// State of decoding ahead for the clients of one export.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// A thread is decoding ahead.
    running: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    streams: Vec<Stream>,
    clock: u64,
    /// Number of consecutive attempts that found nothing compressed.
    misses: u32,
    /// The memory, once there is something to decode ahead.
    memory: Option<Held>,
}

#[derive(Debug)]
struct Stream {
    /// The end of what was requested.
    front: u64,
    /// Number of bytes requested sequentially.
    run: u64,
    /// The end of what was decoded ahead.
    decoded: u64,
    used: u64,
}

impl Ahead {
    /// Records a read of an export of `len` bytes; returns the range to decode now, after which [`Ahead::ended`] must
    /// be called.
    pub(super) fn note(&self, read: Range<u64>, len: u64) -> Option<Range<u64>> {
        let mut state = self.state.lock();
        let skip = match state.misses {
            0 => 0,
            misses => WINDOW << misses.min(SKIP),
        };
        let stream = state.stream(&read);
        stream.run = stream
            .run
            .saturating_add(read.end.saturating_sub(read.start));
        stream.front = stream.front.max(read.end);
        let from = stream.decoded.max(stream.front);
        let to = stream.front.saturating_add(WINDOW).min(len);
        // Not for every small step.
        let wanted = to.saturating_sub(from);
        if stream.run < BEGIN || wanted < (WINDOW / 2).min(len.saturating_sub(stream.front).max(1))
        {
            return None;
        }
        if self.running.swap(true, Ordering::AcqRel) {
            return None;
        }
        stream.decoded = to.saturating_add(skip);
        Some(from..to)
    }

    /// Where to continue, now that everything before `at` is decoded: ranges requested since are left to their readers.
    pub(super) fn next(&self, at: u64) -> u64 {
        let state = self.state.lock();
        let passed = |front: &u64| *front > at && *front - at <= WINDOW;
        let fronts = state.streams.iter().map(|stream| stream.front);
        fronts.filter(passed).min().unwrap_or(at)
    }

    /// Reports that the range returned by [`Ahead::note`] has been decoded, and whether any of it was compressed.
    pub(super) fn ended(&self, was_compressed: bool) {
        let mut state = self.state.lock();
        state.misses = match was_compressed {
            true => 0,
            false => state.misses.saturating_add(1),
        };
        self.running.store(false, Ordering::Release);
    }

    /// Whether there is memory, reserving it from the budget if it is free. `keep` is called with the amount.
    pub(super) fn has_memory(&self, budget: &Arc<Budget>, keep: impl FnOnce(usize)) -> bool {
        let mut state = self.state.lock();
        // Without streams, the clients have left and the memory was returned.
        if state.memory.is_none() && !state.streams.is_empty() {
            state.memory = budget.reserve(MEMORY);
            if let Some(held) = &state.memory {
                keep(usize::try_from(held.bytes()).unwrap_or(usize::MAX));
            }
        }
        state.memory.is_some()
    }

    /// Returns the memory, if any is held, after calling `keep` with 0.
    pub(super) fn release(&self, keep: impl FnOnce(usize)) {
        let mut state = self.state.lock();
        if state.memory.is_some() {
            keep(0);
            *state = State::default();
        }
    }
}

impl State {
    /// The stream that a read continues, or a new one in place of the least recently used.
    fn stream(&mut self, read: &Range<u64>) -> &mut Stream {
        self.clock += 1;
        let near = |stream: &Stream| stream.front.abs_diff(read.start) <= NEAR;
        let at = self.streams.iter().position(near).unwrap_or_else(|| {
            let new = Stream {
                front: read.start,
                run: 0,
                decoded: 0,
                used: 0,
            };
            if self.streams.len() < STREAMS {
                self.streams.push(new);
                return self.streams.len() - 1;
            }
            let oldest = (0..STREAMS).min_by_key(|&at| self.streams[at].used);
            let oldest = oldest.unwrap_or(0);
            self.streams[oldest] = new;
            oldest
        });
        let clock = self.clock;
        let stream = &mut self.streams[at];
        stream.used = clock;
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 256 << 10;

    fn read(ahead: &Ahead, at: u64) -> Option<Range<u64>> {
        let found = ahead.note(at..at + STEP, 1 << 30);
        if found.is_some() {
            ahead.ended(true);
        }
        found
    }

    #[test]
    fn who_reads_in_turn_is_decoded_ahead_of_and_nobody_else() {
        let ahead = Ahead::default();
        let mut place = 1u64;
        for _ in 0..1000 {
            place = place
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (place >> 20) % (1 << 29);
            assert!(ahead.note(at..at + 4096, 1 << 30).is_none());
        }
        // Four connections, two at each of two positions, whose requests overtake each other.
        let mut all = Vec::new();
        for step in [1, 0, 3, 2, 5, 4, 7, 6] {
            for base in [0, 512 << 20] {
                all.extend(read(&ahead, base + step * STEP));
            }
        }
        let lower: Vec<_> = all.iter().filter(|one| one.start < 256 << 20).collect();
        assert!(lower.len() >= 2 && all.len() == 2 * lower.len());
        for pair in lower.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
    }

    #[test]
    fn one_thread_decodes_at_a_time_and_not_past_the_end() {
        let ahead = Ahead::default();
        let note = |at: u64| ahead.note(at..at + (1 << 20), 4 << 20);
        assert_eq!(note(0), Some(1 << 20..3 << 20));
        assert_eq!(note(1 << 20), None);
        // By now the reader has got there.
        assert_eq!(ahead.next(1 << 20), 2 << 20);
        assert_eq!(ahead.next(2 << 20), 2 << 20);
        ahead.ended(true);
        assert_eq!(note(2 << 20), Some(3 << 20..4 << 20));
        ahead.ended(true);
        assert_eq!(note(3 << 20), None);
    }

    #[test]
    fn where_nothing_is_compressed_it_is_looked_for_less_and_less_often() {
        let ahead = Ahead::default();
        let mut looks = 0;
        for step in 0..2048 {
            let found = ahead.note(step * STEP..(step + 1) * STEP, 1 << 30);
            if found.is_some() {
                looks += 1;
                ahead.ended(false);
            }
        }
        assert!((4..16).contains(&looks), "{looks}");
    }

    #[test]
    fn memory_comes_from_the_budget_and_goes_back() {
        let budget = Budget::new(64 << 20);
        let (ahead, mut kept) = (Ahead::default(), 0);
        assert!(!ahead.has_memory(&budget, |_| panic!("nobody reads")));
        ahead.note(0..1, 2);
        assert!(ahead.has_memory(&budget, |bytes| kept = bytes));
        assert_eq!((kept as u64, budget.used().0), (8 << 20, 8 << 20));
        assert!(ahead.has_memory(&budget, |_| panic!("it has some")));
        ahead.release(|bytes| kept = bytes);
        assert_eq!((kept, budget.used().0), (0, 0));
        ahead.note(0..1, 2);
        let all = budget.take(64 << 20, std::time::Instant::now());
        assert!(!ahead.has_memory(&budget, |_| panic!("there is none")));
        drop(all);
    }
}
