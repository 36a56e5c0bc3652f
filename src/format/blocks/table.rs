//! The table of blocks in memory, a page at a time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::memory::{self, IoBuf};

/// The number of a block that is not in the table.
pub(crate) const FREE: u32 = u32::MAX;

/// Entries of a page: 16 KiB.
const PAGE: u64 = 4096;

/// Entries that are written together: one sector of 512 bytes, which no crash tears.
const UNIT: u64 = 128;

const ENTRY: u64 = 4;

/// How numbers stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// The least significant byte first.
    Little,
    /// The most significant byte first.
    Big,
}

impl ByteOrder {
    /// The numbers in the bytes.
    pub(crate) fn words(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> {
        let (chunks, _) = bytes.as_chunks::<4>();
        chunks.iter().map(move |bytes| match self {
            Self::Little => u32::from_le_bytes(*bytes),
            Self::Big => u32::from_be_bytes(*bytes),
        })
    }

    pub(crate) fn bytes(self, word: u32) -> [u8; 4] {
        match self {
            Self::Little => word.to_le_bytes(),
            Self::Big => word.to_be_bytes(),
        }
    }
}

#[derive(Debug)]
enum Page {
    /// As on disk.
    Unread,
    /// All of its entries are free.
    Free,
    Words(Box<[AtomicU32]>),
}

/// The table of an image: memory grows with the pages that are used and hold anything.
#[derive(Debug)]
pub(crate) struct Table {
    pages: Vec<Page>,
    count: u64,
    /// Where it stands in the file.
    offset: u64,
    order: ByteOrder,
}

impl Table {
    /// The table of `count` entries that stands at `offset`; nothing is read yet.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn on_disk(count: u64, offset: u64, order: ByteOrder) -> Result<Self> {
        Self::of(|| Page::Unread, count, offset, order)
    }

    /// A new table without blocks.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn empty(count: u64, offset: u64, order: ByteOrder) -> Result<Self> {
        Self::of(|| Page::Free, count, offset, order)
    }

    fn of(page: fn() -> Page, count: u64, offset: u64, order: ByteOrder) -> Result<Self> {
        let mut pages = Vec::new();
        let len = count.div_ceil(PAGE) as usize;
        memory::reserve(&mut pages, len)?;
        pages.resize_with(len, page);
        Ok(Self {
            pages,
            count,
            offset,
            order,
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    /// The entry, free past the end; or the page that must be read first.
    pub(crate) fn get(&self, index: u64) -> std::result::Result<u32, usize> {
        if index >= self.count {
            return Ok(FREE);
        }
        let page = (index / PAGE) as usize;
        match self.pages.get(page) {
            Some(Page::Unread) => Err(page),
            Some(Page::Words(words)) => Ok(words
                .get((index % PAGE) as usize)
                .map_or(FREE, |word| word.load(Ordering::Acquire))),
            Some(Page::Free) | None => Ok(FREE),
        }
    }

    /// How many entries from `index` to the end of its page are free, where the whole page is known
    /// to be. Past the end all are.
    pub(super) fn free_from(&self, index: u64) -> Option<u64> {
        match self.pages.get((index / PAGE) as usize) {
            None => Some(u64::MAX >> 1),
            Some(Page::Free) => Some(PAGE - index % PAGE),
            Some(_) => None,
        }
    }

    /// The pages that entries stand in.
    pub(super) fn pages_of(first: u64, count: u64) -> Range<usize> {
        let end = first.saturating_add(count).div_ceil(PAGE);
        (first / PAGE) as usize..end as usize
    }

    /// The first entry of a page.
    pub(super) fn first_of(page: usize) -> u64 {
        page as u64 * PAGE
    }

    /// The unit of writing that an entry stands in.
    pub(super) fn unit_of(index: u64) -> u64 {
        index / UNIT
    }

    fn entries_of(&self, page: usize) -> Range<u64> {
        let first = Self::first_of(page).min(self.count);
        first..(first + PAGE).min(self.count)
    }

    /// Where a page stands in the file.
    pub(super) fn place_of(&self, page: usize) -> Range<u64> {
        let entries = self.entries_of(page);
        self.offset + entries.start * ENTRY..self.offset + entries.end * ENTRY
    }

    pub(super) fn is_unread(&self, page: usize) -> bool {
        matches!(self.pages.get(page), Some(Page::Unread))
    }

    pub(super) fn is_settable(&self, page: usize) -> bool {
        matches!(self.pages.get(page), Some(Page::Words(_)))
    }

    /// Takes in what the disk has of a page, unless it is known.
    pub(super) fn install(
        &mut self,
        page: usize,
        words: impl ExactSizeIterator<Item = u32>,
    ) -> Result<()> {
        let Some(place @ Page::Unread) = self.pages.get_mut(page) else {
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

    /// Gives a page that is known a place for each entry.
    pub(super) fn make_settable(&mut self, page: usize) -> Result<()> {
        let entries = self.entries_of(page);
        if let Some(place @ Page::Free) = self.pages.get_mut(page) {
            let mut words = Vec::new();
            memory::reserve(&mut words, (entries.end - entries.start) as usize)?;
            words.extend(entries.map(|_| AtomicU32::new(FREE)));
            *place = Page::Words(words.into_boxed_slice());
        }
        Ok(())
    }

    /// Changes an entry of a page that is settable.
    pub(super) fn set(&self, index: u64, word: u32) {
        if let Some(Page::Words(words)) = self.pages.get((index / PAGE) as usize)
            && let Some(place) = words.get((index % PAGE) as usize)
        {
            place.store(word, Ordering::Release);
        }
    }

    /// Changes an entry of a table that is nobody else's.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(crate) fn put(&mut self, index: u64, word: u32) -> Result<()> {
        self.make_settable((index / PAGE) as usize)?;
        self.set(index, word);
        Ok(())
    }

    /// The entries of a page; None where they are not in memory.
    pub(super) fn words_of(&self, page: usize) -> Result<Option<Vec<u32>>> {
        match self.pages.get(page) {
            Some(Page::Unread) => Ok(None),
            Some(Page::Words(words)) => {
                memory::collect(words.iter().map(|word| word.load(Ordering::Acquire))).map(Some)
            }
            Some(Page::Free) | None => Ok(Some(Vec::new())),
        }
    }

    /// The bytes of units of writing, neighbours together, each with its place in the file.
    pub(super) fn bytes_of(&self, units: &BTreeSet<u64>) -> Result<Vec<(u64, IoBuf)>> {
        let mut runs: Vec<(u64, IoBuf)> = Vec::new();
        for unit in units {
            let entries = unit * UNIT..((unit + 1) * UNIT).min(self.count);
            let offset = self.offset + entries.start * ENTRY;
            let mut bytes = [0; (UNIT * ENTRY) as usize];
            let len = entries.end.saturating_sub(entries.start) * ENTRY;
            for (place, index) in bytes.chunks_exact_mut(ENTRY as usize).zip(entries) {
                let word = self.get(index).unwrap_or(FREE);
                place.copy_from_slice(&self.order.bytes(word));
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

    /// Writes the whole table, all of which must be known, and `FREE` for the rest of its last sector.
    ///
    /// # Errors
    /// Of I/O.
    pub(super) fn write(&self, mut out: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        // Pages are gathered, so that large tables are written in large pieces.
        const GATHER: usize = 1 << 20;
        let mut bytes = IoBuf::new();
        let mut at = self.offset;
        for page in 0..self.pages.len() {
            for index in self.entries_of(page) {
                let word = self.get(index).unwrap_or(FREE);
                bytes.extend_from_slice(&self.order.bytes(word))?;
            }
            if bytes.len() >= GATHER || page + 1 == self.pages.len() {
                out(&bytes, at)?;
                at += bytes.len() as u64;
                bytes.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_free_until_set_and_unread_until_installed() {
        let mut table = Table::on_disk(PAGE + 5, 512, ByteOrder::Big).unwrap();
        assert_eq!(table.get(PAGE), Err(1));
        assert_eq!(table.get(PAGE + 5), Ok(FREE));
        assert_eq!(table.place_of(1), 512 + PAGE * 4..512 + (PAGE + 5) * 4);
        table.install(1, [1, 2, 3, 4, FREE].into_iter()).unwrap();
        assert_eq!(table.get(PAGE + 3), Ok(4));
        table
            .install(0, (0..PAGE).map(|_| FREE).collect::<Vec<_>>().into_iter())
            .unwrap();
        assert!(!table.is_settable(0));
        assert_eq!(table.free_from(7), Some(PAGE - 7));
        table.put(7, 9).unwrap();
        assert_eq!(table.get(7), Ok(9));
        let units = BTreeSet::from([0, PAGE / UNIT]);
        let runs = table.bytes_of(&units).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].1[28..32], [0, 0, 0, 9]);
        assert_eq!(runs[1].1.len(), 20);
    }
}
