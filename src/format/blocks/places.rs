//! Where things of one length are, none of which overlaps another.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::format::marks::Marks;
use crate::memory;
use crate::size::SECTOR;

/// Where things of one length are, each in a place of its own: blocks, including what belongs to them. All places are
/// at multiples of a sector.
#[derive(Debug)]
pub(crate) struct Places {
    sectors: u64,
    /// One entry per slot of that length, in which at most one thing begins: 0, or the sector within the slot plus one.
    /// In pages that are allocated once they hold something.
    near: Vec<Option<Box<[u16]>>>,
    /// The sectors at which things beyond the near slots begin.
    far: Marks,
}

impl Places {
    /// Slots per page.
    const PAGE: u64 = 1 << 11;
    /// The slots before this one take up no more than 32 MiB.
    const NEAR: u64 = 1 << 24;

    /// For things of `len` bytes; no place is taken yet.
    pub(crate) fn of(len: u64) -> Self {
        Self {
            sectors: len.div_ceil(SECTOR).max(1),
            near: Vec::new(),
            far: Marks::default(),
        }
    }

    /// The number of near slots; 0 for things too long for 16 bits, which are few wherever they are.
    fn near_end(&self) -> u64 {
        if self.sectors < 1 << 16 {
            Self::NEAR
        } else {
            0
        }
    }

    /// The sector at which something begins in a near slot.
    fn start_in(&self, slot: u64) -> Option<u64> {
        let page = self.near.get((slot / Self::PAGE) as usize)?.as_ref()?;
        let within = page.get((slot % Self::PAGE) as usize)?.checked_sub(1)?;
        Some(slot * self.sectors + u64::from(within))
    }

    /// Takes the place that begins at `start`; returns false, without taking it, if it overlaps another.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn take(&mut self, start: u64) -> Result<bool> {
        let start = start / SECTOR;
        let (slot, end) = (start / self.sectors, start.saturating_add(self.sectors));
        let overlaps = |other: u64| other < end && start < other.saturating_add(self.sectors);
        let slots = [slot.checked_sub(1), Some(slot), slot.checked_add(1)];
        let mut starts = slots
            .into_iter()
            .flatten()
            .filter_map(|slot| self.start_in(slot));
        if starts.any(overlaps) {
            return Ok(false);
        }
        let far = self.near_end() * self.sectors;
        let first = (start + 1).saturating_sub(self.sectors).max(far);
        if first < end && self.far.has_any(first..end) {
            return Ok(false);
        }
        if slot >= self.near_end() {
            return self.far.mark(start);
        }
        let number = (slot / Self::PAGE) as usize;
        if number >= self.near.len() {
            memory::resize(&mut self.near, number + 1, None)?;
        }
        let Some(place) = self.near.get_mut(number) else {
            return Ok(true);
        };
        let page = match place {
            Some(page) => page,
            None => place.insert(memory::filled(Self::PAGE as usize, 0)?.into_boxed_slice()),
        };
        if let Some(entry) = page.get_mut((slot % Self::PAGE) as usize) {
            *entry = (start % self.sectors + 1) as u16;
        }
        Ok(true)
    }

    /// Visits the start of each place that was taken, in ascending order.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn each(&self, mut visit: impl FnMut(u64)) -> Result<()> {
        let visit = |start| {
            visit(start);
            ControlFlow::Continue(())
        };
        self.each_from(0, visit).map(drop)
    }

    /// As [`Places::each`], for those that begin at or after `first`, until `visit` breaks.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn each_from(
        &self,
        first: u64,
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let first = first.div_ceil(SECTOR);
        for slot in first / self.sectors..self.near.len() as u64 * Self::PAGE {
            let start = self.start_in(slot).filter(|start| *start >= first);
            if start.is_some_and(|start| visit(start * SECTOR).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.far.each_from(first, |start| visit(start * SECTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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

    #[test]
    fn places_are_the_same_near_and_far_and_where_these_meet() {
        for (sectors, base) in [
            (1, 0),
            (5, 0),
            (5, 5 * Places::NEAR - 200),
            (5, 5 * Places::NEAR + 1000),
            (4097, 4097 * Places::NEAR - 100_000),
            ((1 << 16) - 1, 0),
            (1 << 16, 0),
        ] {
            let mut places = Places::of(sectors * SECTOR);
            let mut model = BTreeSet::new();
            let mut random = 12345_u64;
            for _ in 0..400 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                let start = base + (random >> 33) % (sectors * 80);
                let is_free = model
                    .range((start + 1).saturating_sub(sectors)..start + sectors)
                    .next()
                    .is_none();
                assert_eq!(
                    places.take(start * SECTOR).unwrap(),
                    is_free,
                    "{sectors} {start}"
                );
                if is_free {
                    model.insert(start);
                }
            }
            let mut taken = Vec::new();
            places.each(|start| taken.push(start / SECTOR)).unwrap();
            assert!(taken.iter().eq(&model), "{sectors} {base}");
            for first in model.iter().flat_map(|start| [*start, start + 1]) {
                let mut next = None;
                let flow = places.each_from(first * SECTOR, |start| {
                    next = Some(start / SECTOR);
                    ControlFlow::Break(())
                });
                assert_eq!(next.as_ref(), model.range(first..).next());
                assert_eq!(flow.unwrap().is_break(), next.is_some());
            }
        }
    }
}
