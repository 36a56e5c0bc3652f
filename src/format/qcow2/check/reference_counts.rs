//! The number of references to each host cluster, found by walking the tables.

use std::collections::HashMap;

use crate::error::Result;
use crate::memory;

/// Clusters per page. Small, so that references scattered over a huge sparse file cost little.
const PAGE: u64 = 64;

/// Counts by cluster: one byte each, in pages that exist only where there are references.
#[derive(Debug, Default)]
pub(super) struct ReferenceCounts {
    index: HashMap<u64, usize>,
    pages: Vec<[u8; PAGE as usize]>,
    /// Counts that do not fit in a byte.
    large: HashMap<u64, u64>,
    /// The page used last: its number and its index.
    last: Option<(u64, usize)>,
    /// Memory for a page could not be allocated: counts are missing.
    incomplete: bool,
}

impl ReferenceCounts {
    /// Fails if counts are missing because memory ran out.
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

    /// Adds a reference unless there are already `max`, in which case it returns false. If memory runs out, this
    /// succeeds and [`ReferenceCounts::check_complete`] fails.
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

    /// The number of references to a cluster.
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

    /// The reference counts of a page's clusters, capped at 255; None if it has none.
    fn page(&self, page: u64) -> Option<&[u8; PAGE as usize]> {
        let place = self.index.get(&page)?;
        self.pages.get(*place)
    }

    /// A reader that is fast for adjacent clusters.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            counts: self,
            last: None,
        }
    }

    /// The clusters of whole pages that may have references: ascending starts, and their common length.
    ///
    /// # Errors
    /// If memory cannot be allocated.
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
    /// The number of references to a cluster.
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
