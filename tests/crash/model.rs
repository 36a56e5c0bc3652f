//! What an image may hold after a crash.

use crate::configs::Config;
use crate::rig::base_tag;
use crate::states::STALE;

/// What a sector of stale bytes reads as.
const STALE_TAG: u64 = u64::from_ne_bytes([STALE; 8]);

/// The values that something has had, by the number of events at which they became possible.
#[derive(Clone, Debug)]
pub struct Possible<T> {
    current: T,
    /// Durable since the event count.
    settled: Vec<(usize, T)>,
    /// Under way since the event count: possible from then on, until settled.
    begun: Vec<(usize, T)>,
}

impl<T: Copy + PartialEq> Possible<T> {
    /// It has this value from the beginning.
    pub fn new(value: T) -> Self {
        Self {
            current: value,
            settled: vec![(0, value)],
            begun: Vec::new(),
        }
    }

    /// An operation that began at event `at` sets it.
    pub fn set(&mut self, at: usize, value: T) {
        self.begun.push((at, value));
        self.current = value;
    }

    /// The value now.
    pub fn current(&self) -> T {
        self.current
    }

    /// The value is durable since event `at`.
    pub fn settle(&mut self, at: usize) {
        if self.settled.last().is_none_or(|(_, v)| *v != self.current) {
            self.settled.push((at, self.current));
        }
    }

    /// Whether it may be `value` behind `count` events, the last flush before which had ended at
    /// `last_flush`.
    pub fn allows(&self, value: T, count: usize, last_flush: usize) -> bool {
        let settled = self.settled.iter().rev().find(|(at, _)| *at <= last_flush);
        let mut begun = self.begun.iter();
        settled.is_some_and(|(_, v)| *v == value)
            || begun.any(|(at, v)| *v == value && (last_flush..=count).contains(at))
    }
}

impl<T> Possible<T> {
    /// Whether something was under way behind `count` events, since the flush at `last_flush`.
    fn changes(&self, count: usize, last_flush: usize) -> bool {
        let mut begun = self.begun.iter();
        begun.any(|(at, _)| (last_flush..=count).contains(at))
    }
}

/// The history of an image.
pub struct History {
    sectors: Vec<Possible<u64>>,
    len: Possible<usize>,
    /// Sectors of the base, which hold their tags.
    base: usize,
}

impl History {
    /// An empty image.
    pub fn new(config: &Config) -> Self {
        let base = if config.overlay { config.sectors() } else { 0 };
        let below = |sector| if sector < base { base_tag(sector) } else { 0 };
        let sectors = (0..config.max_sectors()).map(|s| Possible::new(below(s)));
        Self {
            sectors: sectors.collect(),
            len: Possible::new(config.sectors()),
            base,
        }
    }

    /// What shows where the image holds nothing.
    pub fn below(&self, sector: usize) -> u64 {
        match sector < self.base {
            true => base_tag(sector),
            false => 0,
        }
    }

    /// An operation that began at event `at` sets a sector.
    pub fn set(&mut self, at: usize, sector: usize, tag: u64) {
        self.sectors[sector].set(at, tag);
    }

    /// An operation that began at event `at` gives a sector up: it reads as zeroes or as what lies
    /// below, which the driver decides, or still as before.
    pub fn give_up(&mut self, at: usize, sector: usize) {
        let below = self.below(sector);
        let cell = &mut self.sectors[sector];
        let now = cell.current;
        cell.set(at, 0);
        cell.set(at, below);
        cell.current = now;
    }

    /// The driver decided: the sector reads as this from now on.
    pub fn observe(&mut self, sector: usize, tag: u64) {
        self.sectors[sector].current = tag;
    }

    /// What the sector reads as now.
    pub fn current(&self, sector: usize) -> u64 {
        self.sectors[sector].current
    }

    /// Sectors that the image has now.
    pub fn len(&self) -> usize {
        self.len.current
    }

    /// An operation that began at event `at` changes the number of sectors.
    pub fn set_len(&mut self, at: usize, len: usize) {
        self.len.set(at, len);
    }

    /// A flush ended at event `at`: what was done is durable.
    pub fn flushed(&mut self, at: usize) {
        self.sectors.iter_mut().for_each(|cell| cell.settle(at));
        self.len.settle(at);
    }

    /// Whether a sector may hold `tag` after a crash behind `count` events, the last flush before
    /// which had ended at `last_flush`.
    pub fn allows(&self, sector: usize, tag: u64, count: usize, last_flush: usize) -> bool {
        let cell = &self.sectors[sector];
        // Of a sector that was being written, what the disk held before may show.
        cell.allows(tag, count, last_flush) || tag == STALE_TAG && cell.changes(count, last_flush)
    }

    /// The same for the number of sectors.
    pub fn allows_len(&self, len: usize, count: usize, last_flush: usize) -> bool {
        self.len.allows(len, count, last_flush)
    }
}
