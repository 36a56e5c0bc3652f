//! Pages of the table that will be needed soon, read in batches where each request waits for a server or a device.

use std::collections::VecDeque;

use crate::error::Result;
use crate::format::read_ahead::{MOST_BYTES, ReadAhead, read_together};
use crate::memory;

use super::{Blocks, Keeper, Layout};

/// Maximum number of pages to examine for one batch.
const LOOKS: usize = 1 << 12;

/// A page number with the entries of the page.
type Numbered = (u64, Vec<u32>);

impl<K: Keeper> Blocks<K> {
    /// See [`crate::format::Format::map_ahead`].
    pub(crate) fn look_ahead(&self, offset: u64, end: u64) {
        if self.read_ahead.is_on() && offset < end {
            let _io = self.begin_io();
            self.bring(self.page_of(offset), end);
        }
    }

    fn page_of(&self, offset: u64) -> u64 {
        let block = self.layout().block_size();
        self.state.read().table.pages_of(offset / block, 1).start
    }

    /// Reads pages from this one on into memory in batches, up to the page for the guest offset before `end`.
    pub(super) fn bring(&self, page: u64, end: u64) {
        if !self.read_ahead.is_on() {
            return;
        }
        let last = self.page_of(end.saturating_sub(1));
        if last <= page {
            return;
        }
        // A run continues into the next page.
        let is_needed = || {
            let table = &self.state.read().table;
            table.is_unread(page) || table.is_unread(page + 1)
        };
        self.read_ahead.run(self.most_ahead(), is_needed, |count| {
            let (pages, generation) = self.read_pages(page..=last, count, |_| true)?;
            let state = &mut *self.state.write();
            if state.generation == generation {
                for (page, words) in pages {
                    state.table.install(page, words.into_iter())?;
                }
            }
            Ok(())
        });
    }

    /// Maximum number of pages per batch.
    fn most_ahead(&self) -> usize {
        let len = self.state.read().table.page_len();
        (MOST_BYTES / len.max(1)) as usize
    }

    /// Reads from disk the first `count` pages among `pages` that are not in memory and whose parts are `wanted`;
    /// returns them with the generation. Pages past the end of the file are not read.
    fn read_pages(
        &self,
        pages: std::ops::RangeInclusive<u64>,
        count: usize,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(Vec<Numbered>, u64)> {
        let file_len = self.storage.len()?;
        let mut places = Vec::new();
        let (layout, coding, generation) = {
            let state = self.state.read();
            let table = &state.table;
            let mut next = table.next_page(*pages.start());
            let mut looks = 0..LOOKS;
            while let Some(page) = next.filter(|page| pages.contains(page)) {
                if places.len() == count || looks.next().is_none() {
                    break;
                }
                let place = table.place_of(page).filter(|_| table.is_unread(page));
                let place = place.filter(|place| place.end <= file_len);
                if let Some(place) = place.filter(|_| wanted(table.part_of(page))) {
                    memory::push(&mut places, (page, place))?;
                }
                next = table.next_page(page + 1);
            }
            (state.layout, table.coding(), state.generation)
        };
        let bytes = read_together(
            &*self.storage,
            places.iter().map(|(_, place)| place.clone()),
        )?;
        let mut pages = Vec::new();
        let mut rest = &*bytes;
        for (page, place) in places {
            let (now, later) = rest.split_at((place.end - place.start) as usize);
            rest = later;
            let words = coding.words(now).map(|word| layout.vet(word, file_len));
            memory::push(&mut pages, (page, memory::collect(words)?))?;
        }
        Ok((pages, generation))
    }
}

/// Pages read in advance by code that scans the table without caching it.
#[derive(Debug)]
pub(super) struct PagesAhead {
    pages: VecDeque<Numbered>,
    generation: u64,
    read_ahead: ReadAhead,
}

impl PagesAhead {
    pub(super) fn of<K: Keeper>(blocks: &Blocks<K>) -> Self {
        Self {
            pages: VecDeque::new(),
            generation: 0,
            read_ahead: ReadAhead::of(&*blocks.storage),
        }
    }

    /// Reads a page that is not in memory; later pages are read along with it, except in parts for which `is_skipped`
    /// holds.
    ///
    /// # Errors
    /// If I/O fails.
    pub(super) fn page<K: Keeper>(
        &mut self,
        blocks: &Blocks<K>,
        page: u64,
        is_skipped: impl Fn(u64) -> bool,
    ) -> Result<Vec<u32>> {
        if !self.has(blocks, page) {
            self.pages.clear();
            let Self {
                pages,
                generation,
                read_ahead,
            } = self;
            read_ahead.run(
                blocks.most_ahead(),
                || true,
                |count| {
                    let wanted = |part| !is_skipped(part);
                    let (read, of) = blocks.read_pages(page..=u64::MAX, count, wanted)?;
                    (*pages, *generation) = (read.into(), of);
                    Ok(())
                },
            );
        }
        if self.has(blocks, page)
            && let Some((_, words)) = self.pages.pop_front()
        {
            return Ok(words);
        }
        blocks.read_page(page).map(|(words, _)| words)
    }

    /// Whether that page is the next of those that were read, and the table has not been replaced since.
    fn has<K: Keeper>(&mut self, blocks: &Blocks<K>, page: u64) -> bool {
        while self.pages.front().is_some_and(|(number, _)| *number < page) {
            self.pages.pop_front();
        }
        let is_next = self
            .pages
            .front()
            .is_some_and(|(number, _)| *number == page);
        is_next && blocks.state.read().generation == self.generation
    }
}
