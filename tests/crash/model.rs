//! What each sector may hold after a crash.

use crate::rig::{SECTOR, SIZE, base_tag};

/// Sectors of the image.
pub const SECTORS: usize = SIZE as usize / SECTOR;

/// The values that one sector has had, by the number of events at which they became possible.
#[derive(Clone, Debug)]
struct Sector {
    /// Durable since the event count.
    settled: Vec<(usize, u64)>,
    /// Written since: possible from the event count on, until settled.
    written: Vec<(usize, u64)>,
}

/// The history of an image.
pub struct History {
    sectors: Vec<Sector>,
    current: Vec<u64>,
}

impl History {
    /// An empty image, over a base or not.
    pub fn new(overlay: bool) -> Self {
        let current: Vec<u64> = (0..SECTORS)
            .map(|sector| if overlay { base_tag(sector) } else { 0 })
            .collect();
        let sectors = current
            .iter()
            .map(|tag| Sector {
                settled: vec![(0, *tag)],
                written: Vec::new(),
            })
            .collect();
        Self { sectors, current }
    }

    /// An operation that began at event `at` sets a sector.
    pub fn set(&mut self, at: usize, sector: usize, tag: u64) {
        self.sectors[sector].written.push((at, tag));
        self.current[sector] = tag;
    }

    /// The driver decided: the sector reads as this from now on.
    pub fn observe(&mut self, sector: usize, tag: u64) {
        self.current[sector] = tag;
    }

    /// What the sector reads as now.
    pub fn current(&self, sector: usize) -> u64 {
        self.current[sector]
    }

    /// A flush ended at event `at`: what was written is durable.
    pub fn flushed(&mut self, at: usize) {
        for (sector, tag) in self.sectors.iter_mut().zip(&self.current) {
            if sector.settled.last().is_none_or(|(_, last)| last != tag) {
                sector.settled.push((at, *tag));
            }
        }
    }

    /// Whether a sector may hold `tag` after a crash behind `count` events, where `flushes` holds
    /// the event counts at which flushes had ended.
    pub fn allows(&self, sector: usize, tag: u64, count: usize, last_flush: usize) -> bool {
        let sector = &self.sectors[sector];
        let settled = sector
            .settled
            .iter()
            .rev()
            .find(|(at, _)| *at <= last_flush);
        settled.is_some_and(|(_, value)| *value == tag)
            || sector
                .written
                .iter()
                .any(|(at, value)| *value == tag && *at >= last_flush && *at <= count)
    }
}
