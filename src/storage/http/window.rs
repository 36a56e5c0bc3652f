//! The received bytes that stay cached: the first ones, where formats have their tables, and the last ones.

use std::collections::VecDeque;

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// Bytes to receive at a time.
pub(super) const UNIT: usize = 256 << 10;
/// Number of first units to keep: 16 MiB.
const FIRST: usize = 64;
/// Number of last units to keep: 48 MiB, more than the distance between the threads of a conversion.
const LAST: usize = 192;

/// The cached bytes.
#[derive(Debug, Default)]
pub(super) struct Window {
    first: Vec<IoBuf>,
    last: VecDeque<IoBuf>,
    /// Number of bytes received.
    end: u64,
}

impl Window {
    /// Number of bytes received so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// A buffer for the next unit, for which the oldest unit that need not be kept is dropped.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn room(&mut self) -> Result<IoBuf> {
        match self.last.len() < LAST {
            true => memory::zeroed(UNIT),
            false => Ok(self.last.pop_front().unwrap_or_default()),
        }
    }

    /// Adds the next unit, which is shorter than the others only at the end.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn push(&mut self, unit: IoBuf) -> Result<()> {
        let len = unit.len() as u64;
        if self.first.len() < FIRST {
            memory::push(&mut self.first, unit)?;
        } else {
            self.last.try_reserve(1).map_err(|_| memory::lack())?;
            self.last.push_back(unit);
        }
        self.end += len;
        Ok(())
    }

    /// The bytes from `offset` to the end of its unit; None if they are no longer cached.
    pub(super) fn at(&self, offset: u64) -> Option<&[u8]> {
        let unit = usize::try_from(offset / UNIT as u64).ok()?;
        let within = usize::try_from(offset % UNIT as u64).ok()?;
        let units = self.end.div_ceil(UNIT as u64);
        let kept = match self.first.get(unit) {
            Some(kept) => kept,
            None => {
                let gone = usize::try_from(units).ok()?.checked_sub(self.last.len())?;
                self.last.get(unit.checked_sub(gone)?)?
            }
        };
        kept.get(within..).filter(|bytes| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_units_and_the_last_ones_are_kept() {
        let mut window = Window::default();
        let count = FIRST + LAST + 5;
        for number in 0..count {
            let mut unit = window.room().unwrap();
            unit.fill(number as u8);
            if number + 1 == count {
                unit.truncate(10);
            }
            window.push(unit).unwrap();
        }
        let unit = UNIT as u64;
        let kept = |number: usize| window.at(number as u64 * unit + 1).map(|bytes| bytes[0]);
        assert_eq!(window.end(), (count as u64 - 1) * unit + 10);
        assert_eq!(kept(0), Some(0));
        assert_eq!(kept(FIRST - 1), Some((FIRST - 1) as u8));
        // Units `FIRST` to `FIRST + 4` were dropped to make room for the last five.
        assert_eq!(kept(FIRST), None);
        assert_eq!(kept(FIRST + 4), None);
        assert_eq!(kept(FIRST + 5), Some((FIRST + 5) as u8));
        assert_eq!(kept(count - 1), Some((count - 1) as u8));
        assert_eq!(window.at(window.end() - 1).map(<[u8]>::len), Some(1));
        assert_eq!(window.at(window.end()), None);
    }
}
