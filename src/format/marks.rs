//! Which places of a file are in use, by number.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use crate::error::Result;
use crate::memory;

/// Which places of a file are in use, by number; memory grows with the number of marks, however far apart they are.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    near: Bits,
    /// Chunks of higher places.
    far: HashMap<u64, Chunk>,
}

/// One bit for each place up to [`Marks::NEAR`], in blocks that are allocated on first use.
#[derive(Debug, Default)]
struct Bits(Vec<Option<Box<[u64]>>>);

/// The marks of the places of one chunk.
#[derive(Debug)]
enum Chunk {
    /// The marked places, in order.
    Few(Vec<u16>),
    /// A bit for each place.
    Many(Box<[u64]>),
}

impl Bits {
    fn mark(&mut self, place: u64) -> Result<bool> {
        let (number, within) = ((place / Marks::CHUNK) as usize, place % Marks::CHUNK);
        if number >= self.0.len() {
            memory::resize(&mut self.0, number + 1, None)?;
        }
        let Some(block) = self.0.get_mut(number) else {
            return Ok(true);
        };
        let bits = match block {
            Some(bits) => bits,
            None => {
                let bits = memory::filled((Marks::CHUNK / 64) as usize, 0_u64)?;
                block.insert(bits.into_boxed_slice())
            }
        };
        Ok(mark_bit(bits, within as u16))
    }

    fn has_any(&self, places: Range<u64>) -> bool {
        let Some(last) = last_of(&places) else {
            return false;
        };
        let (first_block, last_block) = (places.start / Marks::CHUNK, last / Marks::CHUNK);
        let blocks = self.0.iter().enumerate().skip(first_block as usize);
        let count = (last_block - first_block + 1) as usize;
        blocks.take(count).any(|(number, block)| {
            let start = number as u64 * Marks::CHUNK;
            let first = places.start.saturating_sub(start);
            let last = (last - start).min(Marks::CHUNK - 1);
            let bits = block.as_deref();
            bits.is_some_and(|bits| has_bit(bits, first as u16, last as u16))
        })
    }
}

impl Marks {
    /// Places per chunk, whose bits occupy 4 KiB.
    const CHUNK: u64 = 1 << 15;
    /// Places below this have a bit each, which together occupy at most 32 MiB.
    const NEAR: u64 = 1 << 28;

    /// Marks a place; false if it was marked already.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn mark(&mut self, place: u64) -> Result<bool> {
        if place < Self::NEAR {
            return self.near.mark(place);
        }
        let (number, within) = (place / Self::CHUNK, (place % Self::CHUNK) as u16);
        match self.far.get_mut(&number) {
            Some(chunk) => chunk.mark(within),
            None => {
                let mut few = Vec::new();
                memory::push(&mut few, within)?;
                self.far.try_reserve(1).map_err(|_| memory::lack())?;
                self.far.insert(number, Chunk::Few(few));
                Ok(true)
            }
        }
    }

    /// Whether a place is marked.
    pub(crate) fn has(&self, place: u64) -> bool {
        if place < Self::NEAR {
            return self.near.has_any(place..place + 1);
        }
        let within = (place % Self::CHUNK) as u16;
        let chunk = self.far.get(&(place / Self::CHUNK));
        chunk.is_some_and(|chunk| chunk.has_any(within, within))
    }

    /// Visits the marks from `first` on, in ascending order, until `visit` breaks off.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn each_from(
        &self,
        first: u64,
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut visit = |place: u64| match place < first {
            true => ControlFlow::Continue(()),
            false => visit(place),
        };
        let near = self.near.0.iter().zip((0..).step_by(Self::CHUNK as usize));
        for (block, start) in near.skip((first / Self::CHUNK) as usize) {
            if each_bit(block.as_deref().unwrap_or_default(), start, &mut visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let mut numbers = Vec::new();
        memory::reserve(&mut numbers, self.far.len())?;
        numbers.extend(
            self.far
                .keys()
                .filter(|number| **number >= first / Self::CHUNK),
        );
        numbers.sort_unstable();
        for number in numbers {
            let start = number * Self::CHUNK;
            let flow = match self.far.get(number) {
                Some(Chunk::Few(places)) => places
                    .iter()
                    .try_for_each(|place| visit(start + u64::from(*place))),
                Some(Chunk::Many(bits)) => each_bit(bits, start, &mut visit),
                None => ControlFlow::Continue(()),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether any of these places is marked.
    pub(crate) fn has_any(&self, places: Range<u64>) -> bool {
        let Some(last) = last_of(&places) else {
            return false;
        };
        if places.start < Self::NEAR && self.near.has_any(places.start..places.end.min(Self::NEAR))
        {
            return true;
        }
        let from = places.start.max(Self::NEAR);
        if from > last {
            return false;
        }
        let numbers = from / Self::CHUNK..=last / Self::CHUNK;
        let is_marked = |number: u64, chunk: &Chunk| {
            let start = number * Self::CHUNK;
            let first = from.saturating_sub(start);
            let last = (last - start).min(Self::CHUNK - 1);
            chunk.has_any(first as u16, last as u16)
        };
        if numbers.end() - numbers.start() < self.far.len() as u64 {
            let mut numbers = numbers;
            return numbers.any(|number| {
                let chunk = self.far.get(&number);
                chunk.is_some_and(|chunk| is_marked(number, chunk))
            });
        }
        let mut chunks = self.far.iter();
        chunks.any(|(number, chunk)| numbers.contains(number) && is_marked(*number, chunk))
    }
}

impl Chunk {
    /// Beyond this number, a list would occupy more memory than the bits.
    const FEW: usize = (Marks::CHUNK / 16) as usize;

    fn mark(&mut self, place: u16) -> Result<bool> {
        match self {
            Self::Few(places) => {
                let Err(at) = places.binary_search(&place) else {
                    return Ok(false);
                };
                if places.len() < Self::FEW {
                    memory::reserve(places, 1)?;
                    places.insert(at, place);
                    return Ok(true);
                }
                let mut bits = memory::filled((Marks::CHUNK / 64) as usize, 0_u64)?;
                for place in places.iter().chain([&place]) {
                    mark_bit(&mut bits, *place);
                }
                *self = Self::Many(bits.into_boxed_slice());
                Ok(true)
            }
            Self::Many(bits) => Ok(mark_bit(bits, place)),
        }
    }

    /// Whether any place from `first` to `last` (inclusive) is marked.
    fn has_any(&self, first: u16, last: u16) -> bool {
        match self {
            Self::Few(places) => {
                let at = places.partition_point(|place| *place < first);
                places.get(at).is_some_and(|place| *place <= last)
            }
            Self::Many(bits) => has_bit(bits, first, last),
        }
    }
}

/// The last place; None for an empty range.
fn last_of(places: &Range<u64>) -> Option<u64> {
    places
        .end
        .checked_sub(1)
        .filter(|last| *last >= places.start)
}

/// Sets a bit; false if it was set already.
fn mark_bit(bits: &mut [u64], at: u16) -> bool {
    let Some(word) = bits.get_mut(usize::from(at / 64)) else {
        return true;
    };
    let bit = 1 << (at % 64);
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

/// Whether any bit from `first` to `last` (inclusive) is set.
fn has_bit(bits: &[u64], first: u16, last: u16) -> bool {
    let words = usize::from(first / 64)..=usize::from(last / 64);
    words.into_iter().any(|at| {
        let mut word = bits.get(at).copied().unwrap_or_default();
        if at == usize::from(first / 64) {
            word &= u64::MAX << (first % 64);
        }
        if at == usize::from(last / 64) {
            word &= u64::MAX >> (63 - last % 64);
        }
        word != 0
    })
}

/// Visits the bits that are set; the first bit has the number `first`.
fn each_bit(
    bits: &[u64],
    first: u64,
    visit: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for (word, at) in bits.iter().zip((first..).step_by(64)) {
        let mut rest = *word;
        while rest != 0 {
            visit(at + u64::from(rest.trailing_zeros()))?;
            rest &= rest - 1;
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_new_once() {
        let mut marks = Marks::default();
        for place in [
            0,
            63,
            64,
            Marks::CHUNK,
            Marks::NEAR - 1,
            Marks::NEAR,
            u64::MAX,
        ] {
            assert!(marks.mark(place).unwrap());
            assert!(!marks.mark(place).unwrap());
        }
    }

    #[test]
    fn ranges_are_looked_through_wherever_few_or_many_are_marked() {
        const STARTS: [u64; 3] = [0, Marks::NEAR - 2 * Marks::CHUNK, Marks::NEAR + 77];
        for (step, base) in [3, 5000]
            .into_iter()
            .flat_map(|step| STARTS.map(|base| (step, base)))
        {
            let mut marks = Marks::default();
            let all: Vec<u64> = (0..4 * Marks::CHUNK)
                .step_by(step)
                .map(|place| base + place)
                .collect();
            for place in &all {
                assert!(marks.mark(*place).unwrap());
            }
            assert!(all.iter().all(|place| marks.has(*place)));
            for first in [0, base, all[7], all[all.len() / 2] + 1, u64::MAX] {
                let at = all.partition_point(|place| *place < first);
                for most in [1, 40, usize::MAX] {
                    let mut found = Vec::new();
                    let flow = marks.each_from(first, |place| {
                        found.push(place);
                        match found.len() < most {
                            true => ControlFlow::Continue(()),
                            false => ControlFlow::Break(()),
                        }
                    });
                    let expected: Vec<u64> = all[at..].iter().copied().take(most).collect();
                    assert_eq!(flow.unwrap().is_break(), expected.len() == most);
                    assert_eq!(found, expected);
                }
            }
            for start in (0..5 * Marks::CHUNK).step_by(997).map(|place| base + place) {
                for len in [0, 1, 2, 63, 64, 65, 4999, 5000, Marks::CHUNK + 1] {
                    let at = all.partition_point(|place| *place < start);
                    let is_marked = all.get(at).is_some_and(|place| *place < start + len);
                    assert_eq!(
                        marks.has_any(start..start + len),
                        is_marked,
                        "{start} {len}"
                    );
                }
            }
        }
    }
}
