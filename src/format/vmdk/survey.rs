//! What the tables of an extent name, as a whole: tables and grains that stand in each other's place.
//!
//! No entry of such a table means anything, so that none may be repaired: that would write over what stands there.
//! Where the other copy of the table is whole, that takes its place.

use crate::error::{ErrorKind, Result};
use crate::memory;

use super::sparse::{Grain, Sparse};

/// The most grains of a file of which it is noted whether something names them.
const MAX_GRAINS: u64 = 1 << 27;

/// The most tables, and grains that do not stand side by side with the others, that are compared.
const MAX_COMPARED: usize = 1 << 20;

/// Which table: its number, and 0 for the redundant one or 1 for the one that counts.
type At = (u32, usize);

/// What was found of one extent.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// One bit for each table that overlaps another table or a grain: redundant ones, and those that count.
    overlapping: [Vec<u64>; 2],
    /// The grains that entries of the tables that count name.
    pub(super) named: NamedGrains,
    /// Where tables stand, in ascending order.
    tables: Vec<u64>,
    /// Where grains stand that overlap others by a part.
    pub(super) crossing: Vec<u64>,
}

impl Survey {
    /// Looks at all tables, of which there are `tables`.
    ///
    /// # Errors
    /// Of I/O, or where there is no memory.
    pub(super) fn of(sparse: &Sparse, tables: u32) -> Result<Self> {
        let none = || memory::filled(tables.div_ceil(64) as usize, 0);
        let mut survey = Self {
            overlapping: [none()?, none()?],
            named: NamedGrains::new(sparse)?,
            tables: Vec::new(),
            crossing: Vec::new(),
        };
        let bytes = sparse.per_table * sparse.word_len();
        let mut places: Vec<(u64, At)> = Vec::new();
        for index in 0..tables {
            let copies = sparse.copy_places(index);
            for (copy, place) in copies.iter().enumerate() {
                // A table that both directories name has no redundant copy.
                let same = copy == 0 && copies[1] == *place;
                if let Some(place) = place.filter(|_| !same)
                    && places.len() < MAX_COMPARED
                {
                    memory::push(&mut places, (place, (index, copy)))?;
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
        survey.tables = memory::collect(places.iter().map(|(place, _)| *place))?;
        if !sparse.compressed {
            survey.grains(sparse, tables, &places)?;
        }
        Ok(survey)
    }

    /// Whether a place may hold a grain that nothing names so far.
    pub(super) fn is_free(&self, place: u64, sparse: &Sparse) -> bool {
        let bytes = sparse.per_table * sparse.word_len();
        let after = self.tables.partition_point(|table| table + bytes <= place);
        let table = self.tables.get(after);
        self.named.is_free(place) && table.is_none_or(|table| *table >= place + sparse.grain)
    }

    fn mark(&mut self, (index, copy): At) {
        let words = self.overlapping.get_mut(copy);
        if let Some(word) = words.and_then(|words| words.get_mut(index as usize / 64)) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether the redundant table, and the one that counts, overlap something.
    pub(super) fn overlaps(&self, index: u32) -> [bool; 2] {
        let set = |words: &Vec<u64>| {
            let word = words.get(index as usize / 64);
            word.is_some_and(|word| word & 1 << (index % 64) != 0)
        };
        [set(&self.overlapping[0]), set(&self.overlapping[1])]
    }

    fn grains(&mut self, sparse: &Sparse, tables: u32, places: &[(u64, At)]) -> Result<()> {
        let bytes = sparse.per_table * sparse.word_len();
        let mut odd: Vec<u64> = Vec::new();
        for index in 0..tables {
            if self.overlaps(index)[1] {
                continue;
            }
            sparse.tables_ahead(index..tables, |index| self.overlaps(index)[1]);
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
                let Some(Grain::At(place)) = sparse.known_grain(table.get(entry), guest) else {
                    continue;
                };
                let after = places.partition_point(|(table, _)| table + bytes <= place);
                for (at, table) in places.get(after..).unwrap_or_default() {
                    if *at >= place + sparse.grain {
                        break;
                    }
                    self.mark(*table);
                }
                if self.named.note(place).is_none() && odd.len() < MAX_COMPARED {
                    memory::push(&mut odd, place)?;
                }
            }
        }
        odd.sort_unstable();
        odd.dedup();
        for (n, place) in odd.iter().enumerate() {
            let next = odd.get(n + 1);
            if next.is_some_and(|next| next - place < sparse.grain) || self.named.crosses(*place) {
                memory::push(&mut self.crossing, *place)?;
            }
        }
        Ok(())
    }
}

/// The grains of a file that something names: those that stand where grains are written here, side by side.
#[derive(Debug, Default)]
pub(super) struct NamedGrains {
    grain: u64,
    /// Where the first one may stand.
    first: u64,
    bits: Vec<u64>,
    /// Those that were noted more than once.
    shared: Vec<u64>,
}

impl NamedGrains {
    /// None yet; of a compressed extent or a very large one nothing is noted.
    pub(super) fn new(sparse: &Sparse) -> Result<Self> {
        let count = sparse.storage.len()?.div_ceil(sparse.grain);
        let words = match count <= MAX_GRAINS && !sparse.compressed {
            true => count.div_ceil(64) as usize,
            false => 0,
        };
        Ok(Self {
            grain: sparse.grain,
            first: sparse.overhead % sparse.grain,
            bits: memory::filled(words, 0)?,
            shared: memory::filled(words, 0)?,
        })
    }

    /// Notes a grain; whether it was noted before. None where it stands askew, and is not noted.
    pub(super) fn note(&mut self, place: u64) -> Option<bool> {
        let (word, bit) = self.bit(place)?;
        let Some(noted) = self.bits.get_mut(word) else {
            return Some(false);
        };
        let before = *noted & bit != 0;
        *noted |= bit;
        if let Some(shared) = self.shared.get_mut(word).filter(|_| before) {
            *shared |= bit;
        }
        Some(before)
    }

    /// Whether a grain was noted more than once.
    pub(super) fn is_shared(&self, place: u64) -> bool {
        let at = self.bit(place);
        at.is_some_and(|(word, bit)| self.shared.get(word).is_some_and(|found| found & bit != 0))
    }

    /// Whether a grain stands where others do, and nothing was noted there.
    fn is_free(&self, place: u64) -> bool {
        let at = self.bit(place);
        at.is_some_and(|(word, bit)| self.bits.get(word).is_some_and(|found| found & bit == 0))
    }

    /// The word and the bit of a grain; None where it stands askew.
    fn bit(&self, place: u64) -> Option<(usize, u64)> {
        let offset = place.checked_sub(self.first)?;
        let number = offset / self.grain;
        offset
            .is_multiple_of(self.grain)
            .then_some(((number / 64) as usize, 1 << (number % 64)))
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
