//! Metadata in memory, in pages of 4 KiB: the block allocation table, whose pages are read when they are first needed,
//! and the most recently used pages of sector bitmaps.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::kept::Kept;
use crate::format::read_ahead::{MOST_BYTES, ReadAhead};
use crate::memory;
use crate::storage::{Storage, read_exact_at};

use super::disk::{BatEntry, DATA_SECTOR, Region};

/// Number of words in a page.
pub(super) const PAGE_WORDS: u64 = (DATA_SECTOR / 8) as u64;

/// Maximum number of pages of the table that are read together.
pub(super) const MOST_AHEAD: usize = MOST_BYTES as usize / DATA_SECTOR;

/// A page. Its words are changed individually.
#[derive(Debug)]
pub(super) struct Page {
    /// File offset of the page.
    pub(super) offset: u64,
    words: Box<[AtomicU64]>,
}

impl Page {
    fn read(storage: &dyn Storage, offset: u64) -> Result<Self> {
        let mut bytes = [0; DATA_SECTOR];
        read_exact_at(storage, &mut bytes, offset)?;
        Self::from_bytes(&bytes, offset)
    }

    fn from_bytes(bytes: &[u8], offset: u64) -> Result<Self> {
        let words = bytes.chunks_exact(8).map(|word| {
            let word = word.first_chunk().copied().unwrap_or_default();
            AtomicU64::new(u64::from_le_bytes(word))
        });
        Ok(Self {
            offset,
            words: memory::collect(words)?.into_boxed_slice(),
        })
    }

    /// The same words at another offset.
    fn moved(&self, offset: u64) -> Result<Self> {
        let words = self
            .words
            .iter()
            .map(|word| AtomicU64::new(word.load(Ordering::Acquire)));
        Ok(Self {
            offset,
            words: memory::collect(words)?.into_boxed_slice(),
        })
    }

    /// A word; 0 past the end.
    pub(super) fn get(&self, index: u64) -> u64 {
        let word = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index));
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Replaces a word.
    pub(super) fn set(&self, index: u64, value: u64) {
        if let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index))
        {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets or clears bits of a word.
    pub(super) fn set_bits(&self, index: u64, bits: u64, value: bool) {
        if let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index))
        {
            match value {
                true => word.fetch_or(bits, Ordering::AcqRel),
                false => word.fetch_and(!bits, Ordering::AcqRel),
            };
        }
    }

    /// The on-disk representation.
    pub(super) fn to_bytes(&self) -> Box<[u8; DATA_SECTOR]> {
        let mut bytes = Box::new([0; DATA_SECTOR]);
        for (place, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            place.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        bytes
    }
}

/// Pages that differ from the disk, by their offset.
#[derive(Debug, Default)]
pub(super) struct DirtyPages(Mutex<HashMap<u64, Arc<Page>>>);

impl DirtyPages {
    /// Changes a page and marks it as dirty.
    ///
    /// # Errors
    /// If memory cannot be allocated; nothing has changed then.
    pub(super) fn change(&self, page: &Arc<Page>, change: impl FnOnce(&Page)) -> Result<()> {
        let mut all = self.0.lock();
        all.try_reserve(1).map_err(|_| memory::lack())?;
        change(page);
        all.insert(page.offset, page.clone());
        Ok(())
    }

    /// Takes the pages within a range of the file; they are copied afterwards.
    ///
    /// # Errors
    /// If memory cannot be allocated; nothing has been taken then.
    pub(super) fn take_in(&self, range: &Range<u64>) -> Result<Vec<Arc<Page>>> {
        self.take(|offset| range.contains(offset))
    }

    /// As [`DirtyPages::take_in`], for all other pages.
    pub(super) fn take_beside(&self, range: &Range<u64>) -> Result<Vec<Arc<Page>>> {
        self.take(|offset| !range.contains(offset))
    }

    fn take(&self, is_wanted: impl Fn(&u64) -> bool) -> Result<Vec<Arc<Page>>> {
        let mut all = self.0.lock();
        let mut taken = Vec::new();
        memory::reserve(&mut taken, all.len())?;
        all.retain(|offset, page| {
            let stays = !is_wanted(offset);
            if !stays {
                taken.push(page.clone());
            }
            stays
        });
        taken.sort_unstable_by_key(|page| page.offset);
        Ok(taken)
    }

    /// Drops the pages of a range of the file.
    pub(super) fn forget(&self, range: Range<u64>) {
        self.0.lock().retain(|offset, _| !range.contains(offset));
    }

    /// Puts back pages that were not written.
    pub(super) fn put_back(&self, pages: Vec<Arc<Page>>) {
        let mut all = self.0.lock();
        all.extend(pages.into_iter().map(|page| (page.offset, page)));
    }

    /// Number of dirty pages.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// The block allocation table.
#[derive(Debug)]
pub(super) struct Bat {
    /// Its offset in the file.
    offset: u64,
    pages: Box<[OnceLock<Arc<Page>>]>,
}

impl Bat {
    /// A table with this many entries, in a region that is long enough.
    pub(super) fn new(region: Region, entries: u64) -> Result<Self> {
        let count = entries.div_ceil(PAGE_WORDS) as usize;
        let pages = (0..count).map(|_| OnceLock::new());
        Ok(Self {
            offset: region.offset,
            pages: memory::collect(pages)?.into_boxed_slice(),
        })
    }

    /// The same table with this many entries, without reading anything.
    pub(super) fn resized(&self, entries: u64) -> Result<Self> {
        let region = Region {
            offset: self.offset,
            len: 0,
        };
        let new = Self::new(region, entries)?;
        for (to, from) in new.pages.iter().zip(&self.pages) {
            if let Some(page) = from.get() {
                let _ = to.set(page.clone());
            }
        }
        Ok(new)
    }

    /// The same table in another region: each page as it is in memory, or else on disk.
    pub(super) fn moved(&self, storage: &dyn Storage, region: Region) -> Result<Self> {
        let count = self.pages.len() as u64;
        let new = Self::new(region, count * PAGE_WORDS)?;
        for (number, to) in (0..count).zip(&new.pages) {
            if let Some(page) = self.page(storage, number * PAGE_WORDS)? {
                let offset = region.offset + number * DATA_SECTOR as u64;
                let _ = to.set(memory::shared(page.moved(offset)?)?);
            }
        }
        Ok(new)
    }

    /// Writes all pages that are in memory.
    pub(super) fn write(&self, storage: &dyn Storage) -> Result<()> {
        for page in self.pages.iter().filter_map(OnceLock::get) {
            storage.write_at(&page.to_bytes()[..], page.offset)?;
        }
        Ok(())
    }

    /// The entry at an index.
    pub(super) fn entry(&self, storage: &dyn Storage, index: u64) -> Result<BatEntry> {
        let page = self.page(storage, index)?;
        Ok(BatEntry(
            page.map_or(0, |page| page.get(index % PAGE_WORDS)),
        ))
    }

    /// As [`Bat::entry`], if it is in memory.
    pub(super) fn try_entry(&self, index: u64) -> Option<BatEntry> {
        let page = self.pages.get(usize::try_from(index / PAGE_WORDS).ok()?)?;
        Some(BatEntry(page.get()?.get(index % PAGE_WORDS)))
    }

    /// Drops the pages, each of which must be the same on disk as in memory.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn forget(&mut self) -> Result<()> {
        let pages = (0..self.pages.len()).map(|_| OnceLock::new());
        self.pages = memory::collect(pages)?.into_boxed_slice();
        Ok(())
    }

    /// The number of the page that contains an entry, and whether it has to be read.
    pub(super) fn place(&self, index: u64) -> (u64, bool) {
        let number = index / PAGE_WORDS;
        let page = usize::try_from(number).ok().map(|at| self.pages.get(at));
        (
            number,
            matches!(page, Some(Some(page)) if page.get().is_none()),
        )
    }

    /// Reads pages from `first` on with one call, `count` of them at most and none past the end of the file, and keeps
    /// those that are not in memory yet.
    ///
    /// # Errors
    /// If I/O fails; no page is kept then.
    pub(super) fn load(&self, storage: &dyn Storage, first: u64, count: usize) -> Result<()> {
        for (number, page) in (first..).zip(self.read(storage, first, count)?) {
            let place = usize::try_from(number).ok().map(|at| self.pages.get(at));
            if let Some(Some(place)) = place {
                // Another thread may have been faster, and may have changed the page already.
                let _ = place.set(memory::shared(page)?);
            }
        }
        Ok(())
    }

    /// As [`Bat::load`], but returns the pages instead of keeping them.
    fn read(&self, storage: &dyn Storage, first: u64, count: usize) -> Result<Vec<Page>> {
        const PAGE: u64 = DATA_SECTOR as u64;
        let start = self.offset.saturating_add(first.saturating_mul(PAGE));
        let inside = storage.len()?.saturating_sub(start) / PAGE;
        let rest = (self.pages.len() as u64).saturating_sub(first);
        let count = (count as u64).min(rest).min(inside);
        let mut bytes = memory::zeroed((count * PAGE) as usize)?;
        storage.read_many_at(&mut [(start, &mut bytes)])?;
        let mut pages = Vec::new();
        for (bytes, offset) in bytes
            .chunks_exact(DATA_SECTOR)
            .zip((start..).step_by(DATA_SECTOR))
        {
            memory::push(&mut pages, Page::from_bytes(bytes, offset)?)?;
        }
        Ok(pages)
    }

    /// The page that contains an entry; `None` past the end of the table.
    pub(super) fn page(&self, storage: &dyn Storage, index: u64) -> Result<Option<&Arc<Page>>> {
        let number = index / PAGE_WORDS;
        let Some(place) = usize::try_from(number)
            .ok()
            .and_then(|at| self.pages.get(at))
        else {
            return Ok(None);
        };
        if place.get().is_none() {
            let offset = self.offset.saturating_add(number * DATA_SECTOR as u64);
            let page = memory::shared(Page::read(storage, offset)?)?;
            // Another thread may have been faster, and may have changed the page already.
            let _ = place.set(page);
        }
        Ok(place.get())
    }
}

/// Walks through the table. A page that is not in memory is read without being cached, together with those that follow
/// where requests are slow.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// Number of the first one.
    first: u64,
    pages: Vec<Page>,
    read_ahead: Option<ReadAhead>,
}

impl Walker {
    /// The entry at an index; 0 past the end of the table.
    pub(super) fn entry(
        &mut self,
        bat: &Bat,
        storage: &dyn Storage,
        index: u64,
    ) -> Result<BatEntry> {
        let (number, within) = (index / PAGE_WORDS, index % PAGE_WORDS);
        let Some(kept) = usize::try_from(number)
            .ok()
            .and_then(|at| bat.pages.get(at))
        else {
            return Ok(BatEntry(0));
        };
        if let Some(page) = kept.get() {
            return Ok(BatEntry(page.get(within)));
        }
        if self.page(number).is_none() {
            self.pages.clear();
            self.first = number;
            let ahead = self
                .read_ahead
                .get_or_insert_with(|| ReadAhead::of(storage));
            ahead.run(
                MOST_AHEAD,
                || true,
                |count| {
                    self.pages = bat.read(storage, number, count)?;
                    Ok(())
                },
            );
        }
        if self.page(number).is_none() {
            let offset = bat.offset.saturating_add(number * DATA_SECTOR as u64);
            memory::push(&mut self.pages, Page::read(storage, offset)?)?;
        }
        Ok(BatEntry(
            self.page(number).map_or(0, |page| page.get(within)),
        ))
    }

    fn page(&self, number: u64) -> Option<&Page> {
        let at = number.checked_sub(self.first)?;
        self.pages.get(usize::try_from(at).ok()?)
    }
}

/// Pages of sector bitmaps.
#[derive(Debug)]
pub(super) struct BitmapPages {
    kept: Kept<Page>,
    read_ahead: ReadAhead,
}

impl BitmapPages {
    /// Keeps at most `max_bytes`, but at least one page and those that are in use.
    pub(super) fn new(storage: &dyn Storage, max_bytes: u64) -> Self {
        let most = usize::try_from(max_bytes / DATA_SECTOR as u64);
        Self {
            kept: Kept::new(most.unwrap_or(usize::MAX)),
            read_ahead: ReadAhead::of(storage),
        }
    }

    /// Whether pages are read ahead.
    pub(super) fn looks_ahead(&self) -> bool {
        self.read_ahead.is_on()
    }

    /// Reads the pages at these file offsets into memory together.
    pub(super) fn bring(&self, storage: &dyn Storage, offsets: impl Iterator<Item = u64>) {
        let places = offsets.map(|offset| (offset, offset));
        self.read_ahead
            .bring(&self.kept, storage, places, DATA_SECTOR, Page::from_bytes);
    }

    /// The page at a file offset.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn page(&self, storage: &dyn Storage, offset: u64) -> Result<Arc<Page>> {
        self.kept
            .get_or_read(offset, || Page::read(storage, offset))
    }

    /// As [`BitmapPages::page`], if it is in memory.
    pub(super) fn try_page(&self, offset: u64) -> Option<Arc<Page>> {
        self.kept.get(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn storage() -> MemoryStorage {
        let bytes = (0..4 * PAGE_WORDS).flat_map(u64::to_le_bytes).collect();
        MemoryStorage::with_bytes("m", bytes)
    }

    #[test]
    fn a_table_is_read_page_by_page() {
        let storage = storage();
        let region = Region {
            offset: 4096,
            len: 1 << 20,
        };
        let bat = Bat::new(region, PAGE_WORDS + 1).unwrap();
        assert_eq!(bat.try_entry(1), None);
        assert_eq!(bat.entry(&storage, 1).unwrap().0, PAGE_WORDS + 1);
        assert_eq!(bat.try_entry(2).unwrap().0, PAGE_WORDS + 2);
        assert_eq!(bat.try_entry(PAGE_WORDS), None);
        assert_eq!(bat.entry(&storage, PAGE_WORDS).unwrap().0, 2 * PAGE_WORDS);
        assert_eq!(bat.entry(&storage, 9 * PAGE_WORDS).unwrap().0, 0);
        let cut = Bat::new(
            Region {
                offset: 16384,
                len: 1 << 20,
            },
            1,
        )
        .unwrap();
        cut.entry(&storage, 0).unwrap_err();
    }

    #[test]
    fn who_goes_through_the_table_keeps_nothing_and_sees_what_is_kept() {
        let storage = storage();
        let region = Region {
            offset: 4096,
            len: 1 << 20,
        };
        let mut bat = Bat::new(region, 3 * PAGE_WORDS).unwrap();
        let mut walker = Walker::default();
        let mut entry =
            |bat: &Bat, index: u64| walker.entry(bat, &storage, index).map(|entry| entry.0);
        for index in [0, 1, PAGE_WORDS, 2 * PAGE_WORDS] {
            assert_eq!(entry(&bat, index).unwrap(), PAGE_WORDS + index);
            assert_eq!(bat.try_entry(index), None);
        }
        let page = bat.page(&storage, 2 * PAGE_WORDS).unwrap().unwrap();
        page.set(0, 7);
        assert_eq!(entry(&bat, 2 * PAGE_WORDS).unwrap(), 7);
        assert_eq!(entry(&bat, 3 * PAGE_WORDS).unwrap(), 0);
        bat.forget().unwrap();
        assert_eq!(bat.try_entry(2 * PAGE_WORDS), None);
    }

    #[test]
    fn pages_that_are_read_together_are_those_of_the_table_in_the_file() {
        let storage = storage();
        let region = Region {
            offset: 4096,
            len: 1 << 20,
        };
        let bat = Bat::new(region, 9 * PAGE_WORDS).unwrap();
        bat.page(&storage, 1).unwrap().unwrap().set(1, 7);
        assert_eq!(bat.place(1), (0, false));
        assert_eq!(bat.place(PAGE_WORDS), (1, true));
        assert_eq!(bat.place(9 * PAGE_WORDS), (9, false));
        bat.load(&storage, 0, 8).unwrap();
        assert_eq!(bat.try_entry(1).unwrap().0, 7);
        assert_eq!(bat.try_entry(PAGE_WORDS).unwrap().0, 2 * PAGE_WORDS);
        assert_eq!(bat.try_entry(2 * PAGE_WORDS).unwrap().0, 3 * PAGE_WORDS);
        assert_eq!(bat.try_entry(3 * PAGE_WORDS), None);
    }

    #[test]
    fn pages_of_bitmaps_that_are_in_use_are_not_dropped() {
        let storage = storage();
        let pages = BitmapPages::new(&storage, 8192);
        let held = pages.page(&storage, 0).unwrap();
        pages.page(&storage, 4096).unwrap();
        pages.page(&storage, 8192).unwrap();
        assert!(pages.try_page(4096).is_none());
        assert!(Arc::ptr_eq(&held, &pages.page(&storage, 0).unwrap()));
    }
}
