//! The table of blocks in memory, in pages.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::memory::{self, IoBuf};

use super::coding::{BAD, Coding, FREE};
use super::directory::Directory;

/// Entries per page, if the table has that many: 16 KiB in memory.
const PAGE: u64 = 4096;

/// Number of pages allocated together.
const CHUNK: usize = 512;

/// Bytes of entries that are written together: one sector, which no crash tears.
const UNIT: u64 = 512;

#[derive(Debug)]
enum Page {
    /// As on disk.
    Unread,
    /// All its entries are free.
    Free,
    Words(Box<[AtomicU32]>),
}

/// The table of an image: memory use grows with the pages that are used and hold anything.
#[derive(Debug)]
pub(crate) struct Table {
    /// Pages in chunks that are not allocated are as [`Table::others`] says.
    chunks: Vec<Option<Box<[Page]>>>,
    others: Page,
    count: u64,
    /// The offset of the table, or of its directory, in the file.
    offset: u64,
    coding: Coding,
    /// Entries per page.
    page: u64,
    /// Where its parts are, if it is in parts.
    directory: Option<Directory>,
}

impl Table {
    /// The table of `count` entries at `offset`; nothing is read yet.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn on_disk(count: u64, offset: u64, coding: impl Into<Coding>) -> Result<Self> {
        Self::of(Page::Unread, count, offset, coding.into(), None)
    }

    /// A new table without blocks.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn empty(count: u64, offset: u64, coding: impl Into<Coding>) -> Result<Self> {
        Self::of(Page::Free, count, offset, coding.into(), None)
    }

    /// The table of `count` entries whose parts are where the directory, which is at `offset`, says.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn in_parts(
        count: u64,
        offset: u64,
        coding: Coding,
        directory: Directory,
    ) -> Result<Self> {
        Self::of(Page::Unread, count, offset, coding, Some(directory))
    }

    fn of(
        others: Page,
        count: u64,
        offset: u64,
        coding: Coding,
        directory: Option<Directory>,
    ) -> Result<Self> {
        let page = directory
            .as_ref()
            .map_or(PAGE, |directory| PAGE.min(directory.per_table));
        let mut table = Self {
            chunks: Vec::new(),
            others,
            count: 0,
            offset,
            coding,
            page,
            directory,
        };
        table.grow(count)?;
        Ok(table)
    }

    /// Grows the table to `count` entries. If it is in parts, new parts have no place on disk yet.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn grow(&mut self, count: u64) -> Result<()> {
        let chunks = count.div_ceil(self.page).div_ceil(CHUNK as u64) as usize;
        let more = chunks.saturating_sub(self.chunks.len());
        memory::reserve(&mut self.chunks, more)?;
        if let Some(directory) = &mut self.directory {
            directory.grow(count.div_ceil(directory.per_table))?;
        }
        self.chunks.extend((0..more).map(|_| None));
        self.count = self.count.max(count);
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn coding(&self) -> Coding {
        self.coding
    }

    /// Where the parts are, if the table is in parts.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    pub(super) fn directory_mut(&mut self) -> Option<&mut Directory> {
        self.directory.as_mut()
    }

    fn page(&self, page: u64) -> Option<&Page> {
        match self.chunks.get(page as usize / CHUNK)? {
            Some(chunk) => chunk.get(page as usize % CHUNK),
            None => Some(&self.others),
        }
    }

    /// As [`Table::page`], but mutable.
    fn page_mut(&mut self, page: u64) -> Result<Option<&mut Page>> {
        let Some(chunk) = self.chunks.get_mut(page as usize / CHUNK) else {
            return Ok(None);
        };
        if chunk.is_none() {
            let others = (0..CHUNK).map(|_| match self.others {
                Page::Unread => Page::Unread,
                _ => Page::Free,
            });
            *chunk = Some(memory::collect(others)?.into_boxed_slice());
        }
        Ok(chunk
            .as_mut()
            .and_then(|chunk| chunk.get_mut(page as usize % CHUNK)))
    }

    /// What the directory says of the part that holds an entry, if it has no place: that it does not exist, or that its
    /// place is unknown.
    fn no_part(&self, index: u64) -> Option<u32> {
        let directory = self.directory.as_ref()?;
        let word = directory.word(index / directory.per_table);
        (word >= BAD).then_some(word)
    }

    /// The entry, free past the end; or the page that must be read first.
    pub(crate) fn get(&self, index: u64) -> std::result::Result<u32, u64> {
        if index >= self.count {
            return Ok(FREE);
        }
        let page = index / self.page;
        match self.page(page) {
            Some(Page::Unread) => self.no_part(index).ok_or(page),
            _ => Ok(self.kept(index)),
        }
    }

    /// What memory holds of an entry, including those past the end, which a part preserves.
    fn kept(&self, index: u64) -> u32 {
        match self.page(index / self.page) {
            Some(Page::Words(words)) => words
                .get((index % self.page) as usize)
                .map_or(FREE, |word| word.load(Ordering::Acquire)),
            _ => FREE,
        }
    }

    /// How many entries from `index` on are free, as far as that is known without examining each. All entries past the
    /// end are.
    pub(super) fn free_from(&self, index: u64) -> Option<u64> {
        if index >= self.count {
            return Some(u64::MAX >> 1);
        }
        let page = index / self.page;
        let is_free = match self.page(page)? {
            Page::Words(_) => false,
            Page::Free => true,
            Page::Unread => self.no_part(index) == Some(FREE),
        };
        if !is_free {
            return None;
        }
        // In a chunk that is not allocated all pages are alike, up to the end of the part.
        let mut run = self.page;
        if let (Some(None), Some(directory)) =
            (self.chunks.get(page as usize / CHUNK), &self.directory)
        {
            run = (self.page * CHUNK as u64).min(directory.per_table);
        }
        Some(run - index % run)
    }

    /// The pages that hold these entries.
    pub(super) fn pages_of(&self, first: u64, count: u64) -> Range<u64> {
        first / self.page..first.saturating_add(count).div_ceil(self.page)
    }

    /// The first page at or after this one that may hold entries other than free ones; None past the end.
    pub(super) fn next_page(&self, mut page: u64) -> Option<u64> {
        let end = self.pages_of(0, self.count).end;
        while page < end {
            let index = self.first_of(page);
            let run = match (&self.directory, self.page(page)?) {
                // The part is not on disk.
                (Some(directory), Page::Unread) if self.no_part(index).is_some() => {
                    directory.per_table - index % directory.per_table
                }
                _ => match self.free_from(index) {
                    Some(free) => free,
                    None => return Some(page),
                },
            };
            page = page.saturating_add(run / self.page);
        }
        None
    }

    /// Maximum length of a page on disk in bytes.
    pub(super) fn page_len(&self) -> u64 {
        self.page * self.coding.len()
    }

    /// The part of the table that a page belongs to.
    pub(super) fn part_of(&self, page: u64) -> u64 {
        let directory = self.directory.as_ref();
        directory.map_or(0, |directory| self.first_of(page) / directory.per_table)
    }

    /// The first entry of a page.
    pub(super) fn first_of(&self, page: u64) -> u64 {
        page * self.page
    }

    /// The unit of writing that an entry belongs to.
    pub(super) fn unit_of(&self, index: u64) -> u64 {
        index / self.unit()
    }

    /// Entries per unit of writing.
    fn unit(&self) -> u64 {
        UNIT / self.coding.len()
    }

    /// At most `count` entries on disk, from `first` on: a part is always stored as a whole.
    fn entries(&self, first: u64, count: u64) -> Range<u64> {
        let end = match self.directory {
            Some(_) => u64::MAX,
            None => self.count,
        };
        first.min(end)..first.saturating_add(count).min(end)
    }

    fn entries_of(&self, page: u64) -> Range<u64> {
        self.entries(self.first_of(page), self.page)
    }

    /// The offset of an entry in the file; None if its part has no place.
    fn place_of_entry(&self, index: u64) -> Option<u64> {
        let Some(directory) = &self.directory else {
            return Some(self.offset + index * self.coding.len());
        };
        let host = directory.host(index / directory.per_table)?;
        host.checked_add(index % directory.per_table * self.coding.len())
    }

    /// The range of a page in the file; None if its part has no place.
    pub(super) fn place_of(&self, page: u64) -> Option<Range<u64>> {
        let entries = self.entries_of(page);
        let start = self.place_of_entry(entries.start)?;
        Some(start..start + (entries.end - entries.start) * self.coding.len())
    }

    /// Whether a page must be read before it can be changed.
    pub(super) fn is_unread(&self, page: u64) -> bool {
        matches!(self.page(page), Some(Page::Unread)) && self.place_of(page).is_some()
    }

    pub(super) fn is_settable(&self, page: u64) -> bool {
        matches!(self.page(page), Some(Page::Words(_)))
    }

    /// Installs a page as read from disk, unless it is already known.
    pub(super) fn install(
        &mut self,
        page: u64,
        words: impl ExactSizeIterator<Item = u32>,
    ) -> Result<()> {
        let Some(place @ Page::Unread) = self.page_mut(page)? else {
            return Ok(());
        };
        let words = memory::collect(words.map(AtomicU32::new))?;
        let is_free = words
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == FREE);
        *place = if is_free {
            Page::Free
        } else {
            Page::Words(words.into_boxed_slice())
        };
        Ok(())
    }

    /// Allocates the entries of a page that is known, or is nowhere on disk.
    pub(super) fn make_settable(&mut self, page: u64) -> Result<()> {
        let entries = self.entries_of(page);
        if self.is_unread(page) || self.is_settable(page) {
            return Ok(());
        }
        let mut words = Vec::new();
        memory::reserve(&mut words, (entries.end - entries.start) as usize)?;
        words.extend(entries.map(|_| AtomicU32::new(FREE)));
        if let Some(place) = self.page_mut(page)? {
            *place = Page::Words(words.into_boxed_slice());
        }
        Ok(())
    }

    /// Changes an entry of a settable page.
    pub(super) fn set(&self, index: u64, word: u32) {
        if let Some(Page::Words(words)) = self.page(index / self.page)
            && let Some(place) = words.get((index % self.page) as usize)
        {
            place.store(word, Ordering::Release);
        }
    }

    /// Changes an entry of a table that no other thread uses.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn put(&mut self, index: u64, word: u32) -> Result<()> {
        self.make_settable(index / self.page)?;
        self.set(index, word);
        Ok(())
    }

    /// The entries of a page; None if they are not in memory.
    pub(super) fn words_of(&self, page: u64) -> Result<Option<Vec<u32>>> {
        match self.page(page) {
            Some(Page::Unread) if self.place_of(page).is_some() => Ok(None),
            Some(Page::Words(words)) => {
                memory::collect(words.iter().map(|word| word.load(Ordering::Acquire))).map(Some)
            }
            Some(Page::Unread | Page::Free) | None => Ok(Some(Vec::new())),
        }
    }

    /// The parts without a place that these units of writing belong to.
    pub(super) fn parts_without_place(&self, units: &[u64]) -> Result<Vec<u64>> {
        let mut parts = Vec::new();
        if let Some(directory) = &self.directory {
            for unit in units {
                let part = unit * self.unit() / directory.per_table;
                if parts.last() != Some(&part) && directory.host(part).is_none() {
                    memory::push(&mut parts, part)?;
                }
            }
        }
        Ok(parts)
    }

    /// The bytes of units of writing, neighbours merged, each with its offset in the file; `new` says where parts
    /// without a place will be.
    pub(super) fn bytes_of(&self, units: &[u64], new: &[(u64, u64)]) -> Result<Vec<(u64, IoBuf)>> {
        let mut runs: Vec<(u64, IoBuf)> = Vec::new();
        for unit in units {
            let entries = self.entries(unit * self.unit(), self.unit());
            let offset = self.place_of_entry(entries.start).or_else(|| {
                let per_table = self.directory.as_ref()?.per_table;
                let (part, within) = (entries.start / per_table, entries.start % per_table);
                let at = new.binary_search_by_key(&part, |(part, _)| *part).ok()?;
                new.get(at)
                    .map(|(_, host)| host + within * self.coding.len())
            });
            let Some(offset) = offset else {
                continue;
            };
            let mut bytes = [0; UNIT as usize];
            let len = entries.end.saturating_sub(entries.start) * self.coding.len();
            let places = bytes.chunks_exact_mut(self.coding.len() as usize);
            for (place, index) in places.zip(entries) {
                self.coding.put(self.kept(index), place);
            }
            let bytes = bytes.get(..len as usize).unwrap_or_default();
            match runs.last_mut() {
                Some((at, run)) if *at + run.len() as u64 == offset => {
                    run.extend_from_slice(bytes)?;
                }
                _ => memory::push(&mut runs, (offset, memory::copied(bytes)?))?,
            }
        }
        Ok(runs)
    }

    /// Assigns each part that holds anything a place from `end` on, which is a multiple of the directory's units;
    /// returns where they end. None if the directory cannot express that.
    pub(super) fn place_parts(&mut self, mut end: u64) -> Option<u64> {
        let pages = self.pages_of(0, self.count);
        let Some(per_table) = self.directory.as_ref().map(|directory| directory.per_table) else {
            return Some(end);
        };
        for page in pages {
            let part = page * self.page / per_table;
            if self.is_settable(page) && self.directory.as_ref()?.host(part).is_none() {
                let directory = self.directory.as_mut()?;
                let number = directory.number(end)?;
                directory.set(part, number);
                end = end.checked_add(directory.table_len())?;
            }
        }
        Some(end)
    }

    /// Writes the whole table, all of which must be known, and then the directory of its parts.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn write(&self, mut out: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let mut gather = Gather::default();
        let mut entry = [0; 8];
        let len = self.coding.len() as usize;
        for page in self.pages_of(0, self.count) {
            let Some(place) = self.place_of(page) else {
                continue;
            };
            gather.begin(place.start, &mut out)?;
            for index in self.entries_of(page) {
                self.coding.put(self.kept(index), &mut entry);
                gather
                    .bytes
                    .extend_from_slice(entry.get(..len).unwrap_or_default())?;
            }
        }
        gather.end(&mut out)?;
        if let Some(directory) = &self.directory {
            gather.begin(self.offset, &mut out)?;
            for word in directory.words() {
                self.coding.put(*word, &mut entry);
                gather
                    .bytes
                    .extend_from_slice(entry.get(..len).unwrap_or_default())?;
            }
            gather.end(&mut out)?;
        }
        Ok(())
    }

    /// The bytes of the directory entries in `new`, neighbours merged, each with its offset in the file.
    pub(super) fn bytes_of_parts(&self, new: &[(u64, u32)]) -> Result<Vec<(u64, IoBuf)>> {
        let mut runs: Vec<(u64, IoBuf)> = Vec::new();
        let mut entry = [0; 8];
        for (part, word) in new {
            let offset = self.offset + part * self.coding.len();
            self.coding.put(*word, &mut entry);
            let bytes = entry.get(..self.coding.len() as usize).unwrap_or_default();
            match runs.last_mut() {
                Some((at, run)) if *at + run.len() as u64 == offset => {
                    run.extend_from_slice(bytes)?;
                }
                _ => memory::push(&mut runs, (offset, memory::copied(bytes)?))?,
            }
        }
        Ok(runs)
    }

    /// Forgets the entries of a part without a place, all of which are free.
    pub(super) fn forget_part(&mut self, part: u64) -> Result<()> {
        let Some(per_table) = self.directory.as_ref().map(|known| known.per_table) else {
            return Ok(());
        };
        for page in self.pages_of(part * per_table, per_table) {
            if let Some(place) = self.page_mut(page)? {
                *place = Page::Unread;
            }
        }
        Ok(())
    }

    /// Forgets all entries: no part has a place any more.
    pub(super) fn forget(&mut self) {
        for chunk in &mut self.chunks {
            *chunk = None;
        }
        if let Some(directory) = &mut self.directory {
            directory.clear();
        }
    }
}

/// Collects bytes to write them in large pieces.
#[derive(Default)]
struct Gather {
    at: u64,
    bytes: IoBuf,
}

impl Gather {
    const MOST: usize = 1 << 20;

    /// What comes next belongs at `at`.
    fn begin(&mut self, at: u64, out: &mut impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        if self.bytes.len() >= Self::MOST || self.at + self.bytes.len() as u64 != at {
            self.end(out)?;
            self.at = at;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        if !self.bytes.is_empty() {
            out(&self.bytes, self.at)?;
            self.at += self.bytes.len() as u64;
            self.bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::coding::ByteOrder;
    use super::*;

    #[test]
    fn entries_are_free_until_set_and_unread_until_installed() {
        let mut table = Table::on_disk(PAGE + 5, 512, ByteOrder::Big).unwrap();
        assert_eq!(table.get(PAGE), Err(1));
        assert_eq!(table.get(PAGE + 5), Ok(FREE));
        assert_eq!(
            table.place_of(1),
            Some(512 + PAGE * 4..512 + (PAGE + 5) * 4)
        );
        table.install(1, [1, 2, 3, 4, FREE].into_iter()).unwrap();
        assert_eq!(table.get(PAGE + 3), Ok(4));
        table
            .install(0, (0..PAGE).map(|_| FREE).collect::<Vec<_>>().into_iter())
            .unwrap();
        assert!(!table.is_settable(0));
        assert_eq!(table.free_from(7), Some(PAGE - 7));
        table.put(7, 9).unwrap();
        assert_eq!(table.get(7), Ok(9));
        let units = [0, table.unit_of(PAGE)];
        let runs = table.bytes_of(&units, &[]).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].1[28..32], [0, 0, 0, 9]);
        assert_eq!(runs[1].1.len(), 20);
    }

    #[test]
    fn parts_have_a_place_once_they_hold_anything() {
        let coding = Coding::Offsets { bits: 12 };
        let directory = Directory::new(4096, (4096, 512), 12, vec![FREE, 5, BAD]).unwrap();
        let mut table = Table::in_parts(3 * 512, 4096, coding, directory).unwrap();
        assert_eq!(table.get(0), Ok(FREE));
        assert_eq!(table.free_from(1), Some(511));
        assert_eq!(table.get(512), Err(1));
        assert_eq!(table.place_of(1), Some(5 << 12..6 << 12));
        assert_eq!(table.get(1024), Ok(BAD));
        table.make_settable(0).unwrap();
        table.set(3, 7);
        let units = [0];
        assert_eq!(table.parts_without_place(&units).unwrap(), [0]);
        let runs = table.bytes_of(&units, &[(0, 9 << 12)]).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].0, 9 << 12);
        assert_eq!(runs[0].1[24..32], (7_u64 << 12).to_le_bytes());
        table.grow(5 * 512).unwrap();
        assert_eq!(table.get(4 * 512), Ok(FREE));
    }

    #[test]
    fn a_part_keeps_the_entries_past_the_end() {
        let coding = Coding::Offsets { bits: 12 };
        let directory = Directory::new(4096, (4096, 512), 12, vec![5]).unwrap();
        let mut table = Table::in_parts(4, 4096, coding, directory).unwrap();
        let words = (0..512).map(|index| if index == 9 { 7 } else { FREE });
        let words: Vec<u32> = words.collect();
        table.install(0, words.into_iter()).unwrap();
        table.set(1, 8);
        assert_eq!((table.get(1), table.get(9)), (Ok(8), Ok(FREE)));
        let runs = table.bytes_of(&[0], &[]).unwrap();
        assert_eq!(runs[0].1[8..16], (8_u64 << 12).to_le_bytes());
        assert_eq!(runs[0].1[72..80], (7_u64 << 12).to_le_bytes());
    }

    #[test]
    fn a_new_table_in_parts_is_written_with_its_directory() {
        let coding = Coding::Offsets { bits: 12 };
        let directory = Directory::new(4096, (4096, 512), 12, Vec::new()).unwrap();
        let mut table = Table::in_parts(512 * 1000, 4096, coding, directory).unwrap();
        table.put(0, 7).unwrap();
        table.put(512 * 900, 8).unwrap();
        assert_eq!(table.place_parts(9 << 12), Some(11 << 12));
        let mut file = vec![0; 11 << 12];
        let write = |bytes: &[u8], at: u64| {
            file[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        table.write(write).unwrap();
        let number = |at: usize| u64::from_le_bytes(*file[at..].first_chunk().unwrap());
        assert_eq!((number(4096), number(4096 + 900 * 8)), (9 << 12, 10 << 12));
        assert_eq!((number(9 << 12), number(10 << 12)), (7 << 12, 8 << 12));
    }
}
