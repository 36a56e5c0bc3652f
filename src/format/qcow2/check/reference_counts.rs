//! How often each host cluster is referred to, found by walking the tables.

use std::collections::HashMap;

use crate::error::Result;
use crate::memory;

/// Clusters of one page. Small, so that references strewn over a huge sparse file cost little.
const PAGE: u64 = 64;

/// Counts by cluster: a byte each, in pages that exist where something is referred to.
#[derive(Debug, Default)]
pub(super) struct ReferenceCounts {
    index: HashMap<u64, usize>,
    pages: Vec<[u8; PAGE as usize]>,
    /// Counts beyond a byte.
    large: HashMap<u64, u64>,
    /// The page used last: page number and place.
    last: Option<(u64, usize)>,
    /// There was no memory for a page: counts are missing.
    incomplete: bool,
}

impl ReferenceCounts {
    /// Fails where counts are missing because memory ran out.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn check_complete(&self) -> Result<()> {
        if self.incomplete {
            Err(memory::lack())
        } else {
            Ok(())
        }
    }

    /// Adds a reference unless there are `max` already; false then. Where memory is lacking it is
    /// [`ReferenceCounts::check_complete`] that fails.
    pub fn add(&mut self, cluster: u64, max: u64) -> bool {
        let Some(place) = self.place(cluster / PAGE) else {
            self.incomplete = true;
            return true;
        };
        let Some(count) = self
            .pages
            .get_mut(place)
            .and_then(|page| page.get_mut((cluster % PAGE) as usize))
        else {
            return false;
        };
        if *count < u8::MAX {
            if u64::from(*count) >= max {
                return false;
            }
            *count += 1;
            return true;
        }
        if self.large.try_reserve(1).is_err() {
            self.incomplete = true;
            return true;
        }
        let large = self.large.entry(cluster).or_insert(u64::from(u8::MAX));
        if *large >= max {
            return false;
        }
        *large += 1;
        true
    }

    /// The references to a cluster.
    pub fn get(&self, cluster: u64) -> u64 {
        let count = self
            .index
            .get(&(cluster / PAGE))
            .and_then(|&place| self.pages.get(place))
            .and_then(|page| page.get((cluster % PAGE) as usize))
            .copied()
            .unwrap_or(0);
        if count == u8::MAX {
            self.large
                .get(&cluster)
                .copied()
                .unwrap_or(u64::from(count))
        } else {
            u64::from(count)
        }
    }

    /// The references to the clusters of the page that starts at `first`, capped at 255; None
    /// where there are none.
    fn page(&self, page: u64) -> Option<&[u8; PAGE as usize]> {
        let place = self.index.get(&page)?;
        self.pages.get(*place)
    }

    /// A reader that is fast for neighbours.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            counts: self,
            last: None,
        }
    }

    /// The clusters of whole pages that may have references: ascending starts and their length.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn ranges(&self) -> Result<(Vec<u64>, u64)> {
        let mut starts = memory::collect(self.index.keys().map(|page| page * PAGE))?;
        starts.sort_unstable();
        Ok((starts, PAGE))
    }

    /// The last cluster with a reference.
    pub fn highest(&self) -> Option<u64> {
        let (&page, &place) = self.index.iter().max_by_key(|(page, _)| **page)?;
        let within = self
            .pages
            .get(place)?
            .iter()
            .rposition(|&count| count > 0)?;
        Some(page * PAGE + within as u64)
    }

    fn place(&mut self, page: u64) -> Option<usize> {
        if let Some((number, place)) = self.last
            && number == page
        {
            return Some(place);
        }
        self.index.try_reserve(1).ok()?;
        self.pages.try_reserve(1).ok()?;
        let pages = &mut self.pages;
        let place = *self.index.entry(page).or_insert_with(|| {
            pages.push([0; PAGE as usize]);
            pages.len() - 1
        });
        self.last = Some((page, place));
        Some(place)
    }
}

/// Reads counts, best in ascending order.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    counts: &'a ReferenceCounts,
    last: Option<(u64, Option<&'a [u8; PAGE as usize]>)>,
}

impl Reader<'_> {
    /// The references to a cluster.
    pub fn get(&mut self, cluster: u64) -> u64 {
        let number = cluster / PAGE;
        let page = match self.last {
            Some((held, page)) if held == number => page,
            _ => {
                let page = self.counts.page(number);
                self.last = Some((number, page));
                page
            }
        };
        match page.and_then(|page| page.get((cluster % PAGE) as usize)) {
            None => 0,
            Some(&u8::MAX) => self.counts.get(cluster),
            Some(&count) => u64::from(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_far_apart_and_beyond_a_byte() {
        let mut counts = ReferenceCounts::default();
        for _ in 0..1000 {
            assert!(counts.add(7, u64::MAX));
        }
        assert!(counts.add(1 << 40, 1));
        assert!(!counts.add(1 << 40, 1));
        assert_eq!((counts.get(7), counts.get(8)), (1000, 0));
        assert_eq!(counts.get(1 << 40), 1);
        assert_eq!(counts.highest(), Some(1 << 40));
        let mut reader = counts.reader();
        assert_eq!(
            (reader.get(7), reader.get(8), reader.get(1 << 40)),
            (1000, 0, 1)
        );
        assert!(!counts.add(7, 1000));
        assert_eq!(counts.ranges().unwrap().0, [0, 1 << 40]);
    }
}
