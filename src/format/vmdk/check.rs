//! The consistency check: every entry of every table is checked, and whatever has only one cure is repaired.

use std::collections::VecDeque;
use std::ops::Range;

use crate::bytes::le32;
use crate::error::{ErrorKind, Result};
use crate::format::notes::NoteCount;
use crate::format::read_ahead::MOST_BYTES;
use crate::format::{Check, CheckReport, Format, RepairMode};
use crate::job::Job;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, ReadRange};

use super::parts::PartKind;
use super::sparse::{Grain, Sparse};
use super::state::Vmdk;
use super::survey::{NamedGrains, Survey};
use crate::format::table_cache::Table;

impl Check for Vmdk {
    fn repairs(&self) -> RepairMode {
        match self.writer() {
            Some(_) => RepairMode::All,
            None => RepairMode::Report,
        }
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let repairs = repair == RepairMode::All;
        let mut notes = NoteCount::default();
        for part in self.parts.iter() {
            if let PartKind::Sparse(sparse) = &part.kind {
                let mut check = Checking {
                    image: self,
                    sparse,
                    repairs,
                    report: &mut report,
                    notes: &mut notes,
                    named: NamedGrains::new(sparse)?,
                    file_len: sparse.file_len_at_least(u64::MAX),
                    copies: VecDeque::new(),
                };
                check.run(part.start, job)?;
            }
        }
        if repairs {
            self.flush_all(self.durability)?;
            let _one = self.flushing.lock();
            for part in self.parts.iter() {
                if let PartKind::Sparse(sparse) = &part.kind {
                    sparse.repair_mark(self.durability)?;
                }
            }
        }
        Ok(report)
    }
}

struct Checking<'a> {
    image: &'a Vmdk,
    sparse: &'a Sparse,
    repairs: bool,
    report: &'a mut CheckReport,
    notes: &'a mut NoteCount,
    /// The grains to which entries have been found to refer.
    named: NamedGrains,
    /// Length of the file before anything was repaired.
    file_len: u64,
    /// Redundant copies that were read ahead, with the numbers of their tables.
    copies: VecDeque<(u32, Vec<u32>)>,
}

/// Maximum number of tables that are examined for copies to be read together.
const LOOKS: usize = 1 << 12;

/// The redundant copy with which a table is compared.
fn copy_of(sparse: &Sparse, index: u32, survey: &Survey) -> Option<u64> {
    match sparse.copy_places(index) {
        [Some(copy), primary] if Some(copy) != primary && !survey.overlaps(index)[0] => Some(copy),
        _ => None,
    }
}

/// Reads `count` copies together, from that of table `index` on.
fn read_copies(
    sparse: &Sparse,
    index: u32,
    survey: &Survey,
    count: usize,
    into: &mut VecDeque<(u32, Vec<u32>)>,
) -> Result<()> {
    let len = sparse.per_table * sparse.word_len();
    let end = sparse.file_len_at_least(u64::MAX);
    let is_inside = |place: u64| place.checked_add(len).is_some_and(|past| past <= end);
    let places = (index..sparse.tables())
        .take(LOOKS)
        .filter_map(|index| Some((index, copy_of(sparse, index, survey)?)))
        .filter(|(_, place)| is_inside(*place));
    let mut copies = Vec::new();
    for (index, place) in places.take(count) {
        memory::push(&mut copies, (index, place, memory::zeroed(len as usize)?))?;
    }
    let mut ranges: Vec<ReadRange<'_>> = Vec::new();
    for (_, place, bytes) in &mut copies {
        memory::push(&mut ranges, (*place, &mut **bytes))?;
    }
    sparse.storage.read_many_at(&mut ranges)?;
    for (index, _, bytes) in copies {
        into.try_reserve(1).map_err(|_| memory::lack())?;
        into.push_back((index, words_of(&bytes)?));
    }
    Ok(())
}

fn words_of(bytes: &[u8]) -> Result<Vec<u32>> {
    let words = bytes.chunks_exact(4);
    memory::collect(words.map(|word| le32(word, 0).unwrap_or_default()))
}

impl Checking<'_> {
    fn run(&mut self, base: u64, job: &mut Job) -> Result<()> {
        let sparse = self.sparse;
        let tables = sparse.tables();
        job.control().expect(u64::from(tables));
        // Queried once, rather than for each wrong entry.
        sparse.file_len_at_least(u64::MAX);
        let survey = Survey::of(sparse, tables)?;
        for place in &survey.crossing {
            let sector = place / SECTOR;
            self.found(
                job,
                || format!("the cluster at sector {sector} of the file overlaps another one"),
                false,
            );
        }
        for index in 0..tables {
            if self.places(index, &survey, job)? {
                // A repair may move tables.
                if !self.repairs {
                    sparse.tables_ahead(index..tables, |_| false);
                }
                self.table(index, base, &survey, job)?;
            }
            if self.repairs {
                // So far, repairs are only in memory.
                self.image.write_back_if_full()?;
            }
            job.control().advance(1);
            job.tick()?;
        }
        Ok(())
    }

    fn found(&mut self, job: &mut Job, text: impl FnOnce() -> String, cure: bool) {
        let prefix = if cure && self.repairs {
            "Repairing"
        } else {
            "ERROR"
        };
        if let Some(line) = self.notes.next(|| format!("{prefix}: {}", text())) {
            job.note(line);
        }
        match cure && self.repairs {
            true => self.report.corruptions_fixed += 1,
            false => self.report.corruptions += 1,
        }
    }

    /// Checks where a table and its redundant copy are; returns whether its entries can be checked. If only one of the
    /// two is damaged, the other one is used.
    fn places(&mut self, index: u32, survey: &Survey, job: &mut Job) -> Result<bool> {
        let sparse = self.sparse;
        let has_copies = !sparse.directory.read().redundant.is_empty();
        let named = sparse.named_places(index);
        let overlaps = survey.overlaps(index);
        let mut whole = [false; 2];
        for ((whole, place), overlaps) in whole
            .iter_mut()
            .zip(sparse.copy_places(index))
            .zip(overlaps)
        {
            *whole = place.is_some() && !overlaps;
        }
        // A table that both directories refer to is not a copy of itself.
        let is_one = named[0] == named[1];
        whole[0] &= !is_one;
        match (whole, named) {
            // Neither of them exists, or both do.
            ([_, false], [_, None]) if !has_copies || named[0].is_none() => return Ok(true),
            ([true, true], _) => return Ok(true),
            ([_, true], _) if !has_copies => return Ok(true),
            ([_, _], [Some(_), None]) => {
                // The directories are written one after the other: if the image was not closed, only the redundant one
                // may refer to a table. Such a table is not in use, and once the image is closed it is damage.
                let was_unclean = sparse.changes.lock().was_unclean;
                if !was_unclean || self.repairs {
                    let text =
                        || format!("the redundant directory alone names a grain table {index}");
                    self.found(job, text, was_unclean);
                }
                if was_unclean && self.repairs {
                    sparse.drop_copy(index)?;
                    self.image.flush_extent(sparse)?;
                }
                return Ok(true);
            }
            _ => {}
        }
        let what = |copy: usize| -> String {
            let table = match copy {
                0 => format!("the redundant copy of grain table {index}"),
                _ => format!("grain table {index}"),
            };
            match named
                .get(copy)
                .copied()
                .flatten()
                .filter(|_| copy == 1 || !is_one)
            {
                None => format!("grain table {index} has no redundant copy"),
                Some(_) if overlaps.get(copy) == Some(&true) => {
                    format!("{table} overlaps another table or a cluster")
                }
                Some(place) => match sparse.check_table_place(place) {
                    Err(error) => error.message().to_owned(),
                    Ok(()) => table,
                },
            }
        };
        let (damaged, other) = match whole {
            [true, false] => (1, named[0]),
            [false, true] => (0, named[1]),
            _ => {
                self.found(job, || what(1), false);
                if has_copies {
                    self.found(job, || what(0), false);
                }
                return Ok(false);
            }
        };
        let words = match other {
            Some(place) => self.words_at(place)?,
            None => Vec::new(),
        };
        // All that is known about a redundant copy is its own entries.
        let cure = self.can_copy() && (damaged == 0 || self.are_sound(index, &words, survey));
        self.found(job, || what(damaged), cure);
        if cure && self.repairs {
            if damaged == 1 {
                self.image.prepare_write()?;
            }
            sparse.place_again(index, damaged, &words)?;
            self.image.flush_extent(sparse)?;
        }
        Ok(damaged == 0 || cure && self.repairs)
    }

    /// The words of a table in the file.
    fn words_at(&self, place: u64) -> Result<Vec<u32>> {
        let sparse = self.sparse;
        let mut bytes = memory::zeroed((sparse.per_table * sparse.word_len()) as usize)?;
        sparse.storage.read_at(&mut bytes, place)?;
        words_of(&bytes)
    }

    /// The words of the redundant copy of a table; where requests are slow, the following copies are read with it.
    fn copy_at(&mut self, index: u32, place: u64, survey: &Survey) -> Result<Vec<u32>> {
        while self.copies.front().is_some_and(|(known, _)| *known < index) {
            self.copies.pop_front();
        }
        // A repair may move tables.
        if self.copies.is_empty() && !self.repairs {
            let sparse = self.sparse;
            let len = sparse.per_table * sparse.word_len();
            let most = (MOST_BYTES / len.max(1)) as usize;
            let copies = &mut self.copies;
            sparse.read_ahead.run(
                most,
                || true,
                |count| read_copies(sparse, index, survey, count, copies),
            );
        }
        match self.copies.front() {
            Some((known, _)) if *known == index => {
                let words = self.copies.pop_front();
                Ok(words.map(|(_, words)| words).unwrap_or_default())
            }
            _ => self.words_at(place),
        }
    }

    /// Whether every entry of a table refers to a possible grain that belongs to no other entry.
    fn are_sound(&self, index: u32, words: &[u32], survey: &Survey) -> bool {
        let sparse = self.sparse;
        let start = u64::from(index) * sparse.per_table * sparse.grain;
        let guests = (start..sparse.len()).step_by(sparse.grain as usize);
        let mut entries = words.iter().zip(guests);
        entries.all(|(word, guest)| self.is_sound(*word, guest, survey))
    }

    fn is_sound(&self, word: u32, guest: u64, survey: &Survey) -> bool {
        match self.grain(u64::from(word), guest) {
            Some(Grain::At(place)) => survey.is_free(place, self.sparse),
            Some(Grain::Absent | Grain::Zero) => true,
            None => false,
        }
    }

    fn table(&mut self, index: u32, base: u64, survey: &Survey, job: &mut Job) -> Result<()> {
        let sparse = self.sparse;
        let table = match sparse.table(index) {
            Ok(Some(table)) => table,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.found(job, || error.to_string(), false);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let copy = copy_of(sparse, index, survey);
        let copy = copy.map(|place| self.copy_at(index, place, survey));
        let copy = copy.transpose()?;
        let span = sparse.per_table * sparse.grain;
        let start = u64::from(index) * span;
        let mut guest = start;
        // Whether any entries differ, and whether there are some of which either version may be right.
        let (mut differ, mut plausible) = (false, false);
        for entry in 0..sparse.per_table {
            if guest >= sparse.len() {
                break;
            }
            let other = copy.as_ref().and_then(|words| words.get(entry as usize));
            let other = other
                .copied()
                .filter(|word| u64::from(*word) != table.get(entry));
            match other {
                Some(word) if self.take(&table, entry, guest, word, base, survey, job)? => {
                    self.named.note(u64::from(word) * SECTOR);
                    guest += sparse.grain;
                    continue;
                }
                Some(word) => {
                    let sound = self.is_sound(word, guest, survey);
                    let held = self.grain(table.get(entry), guest).is_some();
                    plausible |= sound && held;
                    differ = true;
                }
                None => {}
            }
            self.entry(&table, entry, guest, base, job)?;
            guest += sparse.grain;
        }
        if differ {
            // What was being written when the image was abandoned may be in only one of the two.
            let unclean = sparse.changes.lock().was_unclean;
            let cure = sparse.takes_writes() && (unclean || !plausible);
            let text = || match cure || !sparse.takes_writes() {
                true => format!("the redundant copy of grain table {index} differs"),
                false => format!(
                    "the redundant copy of grain table {index} differs, and nothing tells which of both is right"
                ),
            };
            self.found(job, text, cure);
            if cure && self.repairs {
                table.mark_dirty();
            }
        }
        Ok(())
    }

    /// Takes an entry from the redundant copy of its table if only that can be right: the primary one refers to no
    /// grain, or to that of another entry. Returns whether it did or would.
    #[expect(clippy::too_many_arguments, reason = "an entry and its place")]
    fn take(
        &mut self,
        table: &Table,
        entry: u64,
        guest: u64,
        word: u32,
        base: u64,
        survey: &Survey,
        job: &mut Job,
    ) -> Result<bool> {
        let sector = (base + guest) / SECTOR;
        let what = match self.grain(table.get(entry), guest) {
            Some(Grain::At(place)) if survey.named.is_shared(place) => {
                "is that of another cluster too"
            }
            Some(_) => return Ok(false),
            None => self.points(table.get(entry)),
        };
        let holds = word != 0 && self.is_sound(word, guest, survey);
        if !holds || !self.can_copy() {
            return Ok(false);
        }
        self.found(
            job,
            || format!("cluster offset for sector {sector} {what}"),
            true,
        );
        if self.repairs {
            self.image.prepare_write()?;
            table.set(entry, u64::from(word));
        }
        Ok(true)
    }

    /// What is wrong with an entry that does not refer to a grain.
    fn points(&self, word: u64) -> &'static str {
        match word.saturating_mul(SECTOR) < self.sparse.overhead {
            true => "points into metadata",
            false => "points after EOF",
        }
    }

    fn entry(
        &mut self,
        table: &Table,
        entry: u64,
        guest: u64,
        base: u64,
        job: &mut Job,
    ) -> Result<()> {
        let sparse = self.sparse;
        let sector = (base + guest) / SECTOR;
        match self.grain(table.get(entry), guest) {
            Some(Grain::At(place)) => {
                if self.named.note(place) == Some(true) {
                    let text = || {
                        format!("cluster offset for sector {sector} is that of another cluster too")
                    };
                    self.found(job, text, self.can_copy());
                    if self.repairs && self.can_copy() {
                        self.copy(table, entry, place..place + sparse.grain)?;
                    }
                }
                Ok(())
            }
            Some(Grain::Absent | Grain::Zero) => Ok(()),
            None => {
                let what = self.points(table.get(entry));
                self.found(
                    job,
                    || format!("cluster offset for sector {sector} {what}"),
                    sparse.takes_writes(),
                );
                if self.repairs && sparse.takes_writes() {
                    self.image.prepare_write()?;
                    match sparse.cut_grain(table.get(entry), self.file_len) {
                        // What is left of it is kept, and the rest reads as zeroes.
                        Some(left) if self.can_copy() => self.copy(table, entry, left)?,
                        // Nothing is left of it, and something else may become visible now.
                        _ => table.set(entry, 0),
                    }
                }
                Ok(())
            }
        }
    }

    /// What an entry refers to in the file as it was: a bad entry was not meant for what was appended since.
    fn grain(&self, word: u64, guest: u64) -> Option<Grain> {
        self.sparse.grain_in(word, guest, self.file_len)
    }

    fn can_copy(&self) -> bool {
        self.sparse.takes_writes() && !self.sparse.compressed
    }

    /// Moves an entry to a grain of its own, with a copy of the bytes at `place`.
    fn copy(&self, table: &Table, entry: u64, place: Range<u64>) -> Result<()> {
        let sparse = self.sparse;
        let mut bytes = memory::zeroed(sparse.grain as usize)?;
        let held = (place.end - place.start) as usize;
        if let Some(held) = bytes.get_mut(..held) {
            sparse.storage.read_at(held, place.start)?;
        }
        let host = sparse.reserve(sparse.grain)?;
        sparse.storage.write_at(&bytes, host)?;
        table.set(entry, host / SECTOR);
        Ok(())
    }
}

impl Sparse {
    /// An extent that was checked and repaired counts as closed.
    fn repair_mark(&self, durability: Durability) -> Result<()> {
        {
            let changes = &mut *self.changes.lock();
            changes.marked |= changes.was_unclean;
            changes.was_unclean = false;
        }
        self.mark_clean(durability)
    }
}
