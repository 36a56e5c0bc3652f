//! What the tables of an extent name, as a whole: tables and grains that stand in each other's place.
//!
//! No entry of such a table means anything, so that none may be repaired: that would write over what stands there.

use crate::error::{ErrorKind, Result};
use crate::memory;

use super::sparse::{Grain, Sparse};

/// The most grains of a file of which it is noted whether something names them.
const MAX_GRAINS: u64 = 1 << 28;

/// The most tables, and grains that do not stand side by side with the others, that are compared.
const MAX_COMPARED: usize = 1 << 20;

/// What was found of one extent.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// One bit for each table that overlaps another table or a grain.
    overlapping: Vec<u64>,
    /// Where grains stand that overlap others by a part.
    pub(super) crossing: Vec<u64>,
}

impl Survey {
    /// Looks at all tables, of which there are `tables`.
    ///
    /// # Errors
    /// Of I/O, or a lack of memory.
    pub(super) fn of(sparse: &Sparse, tables: u32) -> Result<Self> {
        let mut survey = Self {
            overlapping: memory::filled(tables.div_ceil(64) as usize, 0)?,
            crossing: Vec::new(),
        };
        let bytes = sparse.per_table * sparse.word_len();
        let mut places: Vec<(u64, u32)> = Vec::new();
        for index in 0..tables {
            for place in sparse.copies(index) {
                // A directory that names one table twice for the same grains has no redundant copy.
                if places.last() != Some(&(place, index)) && places.len() < MAX_COMPARED {
                    memory::push(&mut places, (place, index))?;
                }
            }
        }
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(first, one), (second, other)] = pair
                && second - first < bytes
            {
                survey.mark(*one);
                survey.mark(*other);
            }
        }
        if !sparse.compressed {
            survey.grains(sparse, tables, &places)?;
        }
        Ok(survey)
    }

    fn mark(&mut self, index: u32) {
        if let Some(word) = self.overlapping.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether a table overlaps something.
    pub(super) fn overlaps(&self, index: u32) -> bool {
        let word = self.overlapping.get(index as usize / 64);
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    fn grains(&mut self, sparse: &Sparse, tables: u32, places: &[(u64, u32)]) -> Result<()> {
        let bytes = sparse.per_table * sparse.word_len();
        let mut named = Named::new(sparse)?;
        let mut odd: Vec<u64> = Vec::new();
        for index in 0..tables {
            if self.overlaps(index) {
                continue;
            }
            let table = match sparse.table(index) {
                Ok(Some(table)) => table,
                Ok(None) => continue,
                Err(error) if error.kind() == ErrorKind::Corrupt => continue,
                Err(error) => return Err(error),
            };
            let guest = u64::from(index) * sparse.per_table * sparse.grain;
            for entry in 0..sparse.per_table {
                let guest = guest + entry * sparse.grain;
                if guest >= sparse.len() {
                    break;
                }
                let Ok(Grain::At(place)) = sparse.grain_of(table.get(entry), guest) else {
                    continue;
                };
                let after = places.partition_point(|(table, _)| table + bytes <= place);
                for (at, index) in places.get(after..).unwrap_or_default() {
                    if *at >= place + sparse.grain {
                        break;
                    }
                    self.mark(*index);
                }
                if named.note(place).is_none() && odd.len() < MAX_COMPARED {
                    memory::push(&mut odd, place)?;
                }
            }
        }
        odd.sort_unstable();
        odd.dedup();
        for (n, place) in odd.iter().enumerate() {
            let next = odd.get(n + 1);
            if next.is_some_and(|next| next - place < sparse.grain) || named.crosses(*place) {
                memory::push(&mut self.crossing, *place)?;
            }
        }
        Ok(())
    }
}

/// The grains of a file that something names: those that stand where grains are written here, side by side.
#[derive(Debug, Default)]
pub(super) struct Named {
    grain: u64,
    /// Where the first one may stand.
    first: u64,
    bits: Vec<u64>,
}

impl Named {
    /// None yet; of a compressed extent or a very large one nothing is noted.
    pub(super) fn new(sparse: &Sparse) -> Result<Self> {
        let count = sparse.storage.len()?.div_ceil(sparse.grain);
        let bits = match count <= MAX_GRAINS && !sparse.compressed {
            true => memory::filled(count.div_ceil(64) as usize, 0)?,
            false => Vec::new(),
        };
        Ok(Self {
            grain: sparse.grain,
            first: sparse.overhead % sparse.grain,
            bits,
        })
    }

    /// Notes a grain; whether it was noted before. None where it stands askew, and is not noted.
    pub(super) fn note(&mut self, place: u64) -> Option<bool> {
        let offset = place.checked_sub(self.first)?;
        if !offset.is_multiple_of(self.grain) {
            return None;
        }
        let number = offset / self.grain;
        let Some(word) = self.bits.get_mut((number / 64) as usize) else {
            return Some(false);
        };
        let bit = 1 << (number % 64);
        let before = *word & bit != 0;
        *word |= bit;
        Some(before)
    }

    /// Whether a grain that stands askew overlaps one that was noted.
    fn crosses(&self, place: u64) -> bool {
        let end = (place + self.grain - 1).saturating_sub(self.first) / self.grain;
        let start = place.checked_sub(self.first).map(|at| at / self.grain);
        [start, Some(end)].into_iter().flatten().any(|number| {
            let word = self.bits.get((number / 64) as usize);
            word.is_some_and(|word| word & 1 << (number % 64) != 0)
        })
    }
}
