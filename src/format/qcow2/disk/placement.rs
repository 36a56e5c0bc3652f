//! A header with the locations of its parts in the header cluster, to find out whether two of them can share it.

use std::ops::Range;

use crate::error::Result;
use crate::memory;
use crate::size::SECTOR;

use super::extension::Extension;
use super::image_header::ImageHeader;

const UNIT: usize = SECTOR as usize;

/// Bytes that a reader of a header examines, and their location.
pub struct Part {
    /// Their offset in the cluster.
    pub at: usize,
    /// The bytes themselves.
    pub bytes: Vec<u8>,
}

impl Part {
    fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.bytes.len())
    }

    fn within(&self, range: &Range<usize>) -> &[u8] {
        let place = |at: usize| at.saturating_sub(self.at);
        let range = place(range.start)..place(range.end);
        self.bytes.get(range).unwrap_or_default()
    }
}

/// A header and the locations of its parts. Other bytes of the cluster have no meaning.
pub struct Placement {
    /// The header.
    pub image: ImageHeader,
    /// The bytes with a meaning; no two parts overlap.
    pub parts: Vec<Part>,
}

impl Placement {
    /// The header `image` as found in `cluster`, the beginning of its cluster.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn found(image: &ImageHeader, cluster: &[u8]) -> Result<Self> {
        let first = image.header.header_len as usize;
        let name = image.name_range();
        let limit = if name.is_empty() {
            cluster.len()
        } else {
            name.start.min(cluster.len())
        };
        let area = cluster.get(first..limit).unwrap_or_default();
        let gap = Extension::leading_padding(area);
        let end = first.saturating_add(Extension::area_len(area));
        let gap = first.saturating_add(gap.start)..first.saturating_add(gap.end);
        let ranges = [0..gap.start, gap.end..end, name];
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let bytes = cluster.get(range.clone()).unwrap_or_default();
            parts.push(Part {
                at: range.start,
                bytes: memory::to_vec(bytes)?,
            });
        }
        Ok(Self::new(image.clone(), parts))
    }

    /// A header with padding before its extensions that reaches to an offset or slightly beyond, and with its name at
    /// an offset or behind the extensions. None if it does not fit that way.
    pub fn at(
        mut image: ImageHeader,
        extensions_at: Option<usize>,
        name_at: Option<usize>,
    ) -> Option<Self> {
        let start = image.header.to_bytes().len() + Extension::HEAD_LEN;
        let gap = match extensions_at {
            Some(at) => start..start + at.checked_sub(start)?.next_multiple_of(8),
            None => 0..0,
        };
        image.superseded = extensions_at
            .map(|_| Extension::Padding(gap.len()))
            .into_iter()
            .collect();
        let (mut head, name) = image.serialize(name_at).ok()?;
        let extensions = if gap.is_empty() {
            Vec::new()
        } else {
            let extensions = head.split_off(gap.end);
            head.truncate(gap.start);
            extensions
        };
        let parts = [
            (0, head),
            (gap.end, extensions),
            (image.name_range().start, name),
        ];
        let parts = parts.map(|(at, bytes)| Part { at, bytes });
        Some(Self::new(image, parts.into()))
    }

    fn new(image: ImageHeader, mut parts: Vec<Part>) -> Self {
        parts.retain(|part| !part.bytes.is_empty());
        Self { image, parts }
    }

    /// The end of the last part.
    pub fn end(&self) -> usize {
        let ends = self.parts.iter().map(|part| part.range().end);
        ends.max().unwrap_or_default()
    }

    /// The sector whose change turns this header into `next`, once everything that `next` has elsewhere is in place,
    /// where this one has nothing or the same. None if there is no such sector.
    pub fn decider(&self, next: &Self) -> Option<usize> {
        let mut decider = None;
        for (old, new) in self
            .parts
            .iter()
            .flat_map(|old| next.parts.iter().map(move |new| (old, new)))
        {
            let shared =
                old.range().start.max(new.range().start)..old.range().end.min(new.range().end);
            if shared.is_empty() {
                continue;
            }
            let pairs = old.within(&shared).iter().zip(new.within(&shared));
            let differing = pairs.enumerate().filter(|(_, (old, new))| old != new);
            for (n, _) in differing {
                let sector = (shared.start + n) / UNIT;
                if *decider.get_or_insert(sector) != sector {
                    return None;
                }
            }
        }
        Some(decider.unwrap_or_default())
    }
}
