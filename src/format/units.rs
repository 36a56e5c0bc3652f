//! The units of a table that are to be written.

use crate::error::Result;
use crate::memory;

/// A set of unit numbers with memory reserved in advance: adding one never allocates.
#[derive(Debug, Default)]
pub(crate) struct Units {
    bits: Vec<u64>,
    count: usize,
}

impl Units {
    /// An empty set with room for this many units.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn with_room(units: u64) -> Result<Self> {
        let mut new = Self::default();
        new.make_room(units)?;
        Ok(new)
    }

    /// Makes room for unit numbers below `units`.
    ///
    /// # Errors
    /// If memory is exhausted; nothing has changed then.
    pub(crate) fn make_room(&mut self, units: u64) -> Result<()> {
        let words = usize::try_from(units.div_ceil(64)).map_err(|_| memory::lack())?;
        match words > self.bits.len() {
            true => memory::resize(&mut self.bits, words, 0),
            false => Ok(()),
        }
    }

    /// Adds a unit for which there is room.
    pub(crate) fn add(&mut self, unit: u64) {
        let (word, bit) = ((unit / 64) as usize, 1 << (unit % 64));
        debug_assert!(word < self.bits.len(), "room was to be made");
        if word >= self.bits.len() {
            // Losing a change would be worse than what happens here if memory is exhausted.
            self.bits.resize(word + 1, 0);
        }
        if let Some(word) = self.bits.get_mut(word) {
            self.count += usize::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Adds units that were taken before.
    pub(crate) fn put_back(&mut self, units: &[u64]) {
        units.iter().for_each(|unit| self.add(*unit));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes all units, in ascending order. Their room remains reserved.
    ///
    /// # Errors
    /// If memory is exhausted; nothing is taken then.
    pub(crate) fn take(&mut self) -> Result<Vec<u64>> {
        let mut taken = Vec::new();
        memory::reserve(&mut taken, self.count)?;
        for (first, word) in (0u64..).step_by(64).zip(&mut self.bits) {
            let mut left = std::mem::take(word);
            while left != 0 {
                taken.push(first + u64::from(left.trailing_zeros()));
                left &= left - 1;
            }
        }
        self.count = 0;
        Ok(taken)
    }

    /// Removes all units. Their room remains reserved.
    pub(crate) fn clear(&mut self) {
        self.bits.fill(0);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_once_and_in_order_and_their_room_stays() {
        let mut units = Units::with_room(130).unwrap();
        assert!(units.is_empty() && units.take().unwrap().is_empty());
        for unit in [129, 0, 64, 63, 129] {
            units.add(unit);
        }
        assert!(!units.is_empty());
        assert_eq!(units.take().unwrap(), [0, 63, 64, 129]);
        assert!(units.is_empty());
        let place = units.bits.as_ptr();
        units.add(7);
        units.put_back(&[129, 7]);
        assert_eq!(units.take().unwrap(), [7, 129]);
        units.add(1);
        units.clear();
        assert!(units.is_empty() && units.take().unwrap().is_empty());
        assert_eq!(units.bits.as_ptr(), place);
        units.make_room(1000).unwrap();
        units.add(999);
        assert_eq!(units.take().unwrap(), [999]);
    }
}
