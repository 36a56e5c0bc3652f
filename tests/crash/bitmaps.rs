//! Persistent bitmaps: after a crash each one either says that it misses something, or holds every
//! change that it was there to record.

use std::ops::Range;

use bstr::BStr;
use platter::format::{BitmapInfo, Format};
use platter::job::JobControl;

use crate::model::Possible;
use crate::rig::SECTOR;

/// A bitmap of the run.
pub struct Tracked {
    pub name: String,
    pub granularity: u64,
    pub enabled: Possible<bool>,
    /// Event counts: it is there from the first on, at the latest, and until the second at least.
    pub made: usize,
    pub dropped: usize,
    changes: Vec<Change>,
}

/// What a bitmap must hold.
#[derive(Clone)]
struct Change {
    sectors: Range<usize>,
    /// The bytes that show it; None where others could read the same.
    tag: Option<u64>,
    /// Flushes before it: the next one makes it durable.
    flushes: usize,
    /// The event at which its bits are given up.
    until: usize,
}

impl Tracked {
    /// An empty one, which records, is there behind `made` events.
    pub fn new(name: String, granularity: u64, made: usize) -> Self {
        Self {
            name,
            granularity,
            enabled: Possible::new(true),
            made,
            dropped: usize::MAX,
            changes: Vec::new(),
        }
    }

    /// Whether it has not been removed.
    pub fn is_live(&self) -> bool {
        self.dropped == usize::MAX
    }

    /// Sectors change behind so many flushes.
    pub fn record(&mut self, sectors: Range<usize>, tag: Option<u64>, flushes: usize) {
        if self.is_live() && self.enabled.current() {
            self.add(sectors, tag, flushes);
        }
    }

    fn add(&mut self, sectors: Range<usize>, tag: Option<u64>, flushes: usize) {
        self.changes.push(Change {
            sectors,
            tag,
            flushes,
            until: usize::MAX,
        });
    }

    /// What `other` must hold, this one must too.
    pub fn merge(&mut self, other: &[Range<usize>], flushes: usize) {
        for sectors in other {
            self.add(sectors.clone(), None, flushes);
        }
    }

    /// The sectors that it must hold now.
    pub fn held(&self) -> Vec<Range<usize>> {
        let now = self.changes.iter().filter(|one| one.until == usize::MAX);
        now.map(|one| one.sectors.clone()).collect()
    }

    /// At event `at` an operation begins that gives up the bits of sectors from `first` on.
    pub fn give_up(&mut self, at: usize, first: usize) {
        let mut left = Vec::new();
        for change in &mut self.changes {
            if change.until != usize::MAX || change.sectors.end <= first {
                continue;
            }
            if change.sectors.start < first {
                left.push(Change {
                    sectors: change.sectors.start..first,
                    ..change.clone()
                });
            }
            change.until = at;
        }
        self.changes.append(&mut left);
    }

    /// The first sector that is missing among those that are dirty, behind `count` events.
    fn missing(
        &self,
        dirty: &[bool],
        tags: &[Option<u64>],
        count: usize,
        flushes: &[usize],
    ) -> Option<usize> {
        let due = self.changes.iter().filter(|one| count <= one.until);
        due.flat_map(|one| {
            let durable = flushes.get(one.flushes).is_some_and(|at| *at <= count);
            let shows = move |sector: &usize| {
                durable || one.tag.is_some() && tags.get(*sector) == Some(&one.tag)
            };
            one.sectors.clone().filter(shows)
        })
        .find(|sector| dirty.get(*sector) == Some(&false))
    }
}

/// The sectors that a bitmap says are dirty.
fn dirty(image: &dyn Format, name: &str) -> Result<Vec<bool>, String> {
    let mut sectors = vec![false; image.len() as usize / SECTOR];
    let bitmaps = image.bitmaps().unwrap();
    let visited = bitmaps.visit_dirty(
        BStr::new(name),
        0..u64::MAX,
        &JobControl::default(),
        &mut |offset, len| {
            let end = (offset + len).div_ceil(SECTOR as u64) as usize;
            sectors[offset as usize / SECTOR..end].fill(true);
            Ok(())
        },
    );
    visited.map_err(|error| format!("bitmap {name} cannot be read: {error:?}"))?;
    Ok(sectors)
}

/// The bitmaps of an image.
pub fn list(image: &dyn Format) -> Result<Vec<BitmapInfo>, String> {
    let list = image.bitmaps().map_or(Ok(Vec::new()), |all| all.list());
    list.map_err(|error| format!("the bitmaps cannot be read: {error:?}"))
}

/// What is wrong with the bitmaps of an image behind `count` events, whose sectors hold `tags`.
pub fn check(
    image: &dyn Format,
    known: &[Tracked],
    tags: &[Option<u64>],
    count: usize,
    flushes: &[usize],
) -> Result<(), String> {
    let list = list(image)?;
    for one in known {
        let Some(found) = list.iter().find(|found| found.name == one.name) else {
            if one.made <= count && count <= one.dropped {
                return Err(format!("bitmap {} is missing", one.name));
            }
            continue;
        };
        if found.granularity != one.granularity {
            return Err(format!("{found:?} of granularity {}", one.granularity));
        }
        let flush = *flushes.iter().rfind(|at| **at <= count).unwrap();
        if !one.enabled.allows(found.enabled, count, flush) {
            return Err(format!("{found:?}"));
        }
        if found.inconsistent {
            continue;
        }
        let dirty = dirty(image, &one.name)?;
        if let Some(sector) = one.missing(&dirty, tags, count, flushes) {
            return Err(format!("bitmap {} misses sector {sector}", one.name));
        }
    }
    let unknown = |found: &&BitmapInfo| known.iter().all(|one| one.name != found.name);
    match list.iter().find(unknown) {
        Some(found) => Err(format!("{found:?} was never made")),
        None => Ok(()),
    }
}

/// Of the bitmaps that were whole before, those that record hold these sectors now.
pub fn check_recorded(
    image: &dyn Format,
    before: &[BitmapInfo],
    sectors: impl Iterator<Item = usize> + Clone,
) -> Result<(), String> {
    let now = list(image)?;
    for old in before.iter().filter(|one| !one.inconsistent) {
        if !now.contains(old) {
            return Err(format!("{old:?} is gone: {now:?}"));
        }
        if !old.enabled {
            continue;
        }
        let dirty = dirty(image, &old.name.to_string())?;
        if let Some(sector) = sectors.clone().find(|sector| !dirty[*sector]) {
            return Err(format!("bitmap {} misses sector {sector}", old.name));
        }
    }
    Ok(())
}
