//! Surveys what the tables of an extent refer to, for tables and grains that overlap one another.
//!
//! The entries of such a table mean nothing, so none may be repaired: that would overwrite what is there. If the other
//! copy of the table is intact, it is used instead.

use crate::error::{ErrorKind, Result};
use crate::memory;

use super::sparse::{Grain, Sparse};

/// Maximum number of grains of a file for which it is recorded whether something refers to them.
const MAX_GRAINS: u64 = 1 << 27;

/// Maximum number of tables, and of misaligned grains, that are compared.
const MAX_COMPARED: usize = 1 << 20;

/// Identifies a table: its number, and 0 for the redundant copy or 1 for the primary one.
type At = (u32, usize);

/// The findings about one extent.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// One bit for each table that overlaps another table or a grain: redundant copies, and primary tables.
    overlapping: [Vec<u64>; 2],
    /// The grains to which entries of primary tables refer.
    pub(super) named: NamedGrains,
    /// Offsets of tables, in ascending order.
    tables: Vec<u64>,
    /// Offsets of grains that partly overlap others.
    pub(super) crossing: Vec<u64>,
}

impl Survey {
    /// Examines all tables, of which there are `tables`.
    ///
    /// # Errors
    /// If I/O fails, or memory cannot be allocated.
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
                // A table that both directories refer to has no redundant copy.
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

    /// Whether a place may hold a grain to which nothing refers so far.
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

    /// Whether the redundant copy of a table, and the primary one, overlap something.
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

/// The grains of a file to which something refers, if they are aligned like those that are written here.
#[derive(Debug, Default)]
pub(super) struct NamedGrains {
    grain: u64,
    /// Offset of the first place for a grain.
    first: u64,
    bits: Vec<u64>,
    /// Those that were recorded more than once.
    shared: Vec<u64>,
}

impl NamedGrains {
    /// Nothing is recorded yet; for a compressed or very large extent, nothing ever is.
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

    /// Records a grain; returns whether it was recorded before. `None` if it is misaligned, and not recorded.
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

    /// Whether a grain was recorded more than once.
    pub(super) fn is_shared(&self, place: u64) -> bool {
        let at = self.bit(place);
        at.is_some_and(|(word, bit)| self.shared.get(word).is_some_and(|found| found & bit != 0))
    }

    /// Whether a grain is aligned, and was not recorded.
    fn is_free(&self, place: u64) -> bool {
        let at = self.bit(place);
        at.is_some_and(|(word, bit)| self.bits.get(word).is_some_and(|found| found & bit == 0))
    }

    /// The word and the bit of a grain; `None` if it is misaligned.
    fn bit(&self, place: u64) -> Option<(usize, u64)> {
        let offset = place.checked_sub(self.first)?;
        let number = offset / self.grain;
        offset
            .is_multiple_of(self.grain)
            .then_some(((number / 64) as usize, 1 << (number % 64)))
    }

    /// Whether a misaligned grain overlaps one that was recorded.
    fn crosses(&self, place: u64) -> bool {
        let end = (place + self.grain - 1).saturating_sub(self.first) / self.grain;
        let start = place.checked_sub(self.first).map(|at| at / self.grain);
        [start, Some(end)].into_iter().flatten().any(|number| {
            let word = self.bits.get((number / 64) as usize);
            word.is_some_and(|word| word & 1 << (number % 64) != 0)
        })
    }
}
