//! Closing gaps: what is last moves to free space in front of it, and the file becomes shorter.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Result;
use crate::job::JobControl;
use crate::memory;
use crate::size::SECTOR;

use super::Qcow;
use super::disk::{ClusterPlace, word_of, word_of_packed};

/// What occupies a place.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Table(u32),
    Cluster(u64),
    Packed(u64),
    /// The header, the upper table and the name of the backing file, which cannot move.
    Nobody,
}

/// The free space between things, in order. It only shrinks.
struct Gaps {
    gaps: Vec<Range<u64>>,
    /// Where to continue the search for a place of that length and alignment: no gap before has one.
    from: HashMap<(u64, u64), usize>,
}

impl Gaps {
    /// Takes a place of `len` bytes before `limit`.
    ///
    /// # Errors
    /// If there is not enough memory.
    fn take(&mut self, len: u64, unit: u64, limit: u64) -> Result<Option<u64>> {
        self.from.try_reserve(1).map_err(|_| memory::lack())?;
        let from = self.from.entry((len, unit)).or_default();
        while let Some(gap) = self.gaps.get_mut(*from).filter(|gap| gap.start < limit) {
            let start = gap.start.next_multiple_of(unit);
            if start + len <= gap.end {
                // What remains in front of an aligned place is given up.
                gap.start = start + len;
                return Ok(Some(start));
            }
            *from += 1;
        }
        Ok(None)
    }
}

impl Qcow {
    /// Moves what is last as long as there is room in front of it, and truncates the file.
    ///
    /// # Errors
    /// If I/O fails; the image remains intact.
    pub(super) fn pack(&self, control: &JobControl) -> Result<()> {
        let mut things = self.things()?;
        things.sort_unstable_by_key(|(place, _)| (place.start, place.end));
        let mut gaps = Gaps {
            gaps: Vec::new(),
            from: HashMap::new(),
        };
        let mut behind = 0;
        for (place, _) in &things {
            if place.start > behind {
                memory::push(&mut gaps.gaps, behind..place.start)?;
            }
            behind = behind.max(place.end);
        }
        let mut end = 0;
        while let Some((place, owner)) = things.pop() {
            control.checkpoint()?;
            let Some(moved) = self.move_down(&place, owner, &mut gaps)? else {
                // It stays, and so does everything before it.
                let rest = things.iter().map(|(place, _)| place.end);
                end = rest.fold(end.max(place.end), u64::max);
                break;
            };
            end = end.max(moved);
        }
        self.flush_all(self.durability)?;
        self.forget_tables()?;
        self.decoded.forget(0, u64::MAX);
        // The file may end within a cluster, whose full length is counted.
        self.cut_behind(end.min(self.storage.len()?))?;
        self.barrier()
    }

    /// Everything that has a place.
    fn things(&self) -> Result<Vec<(Range<u64>, Owner)>> {
        let mut things = Vec::new();
        // Nothing else is located in the unit in which the upper table ends.
        let unit = self.geometry.cluster().min(self.geometry.table_len());
        let head = 0..self.l1_end.next_multiple_of(unit);
        memory::push(&mut things, (head, Owner::Nobody))?;
        if let Some(name) = self.header.lock().name_place() {
            memory::push(&mut things, (name, Owner::Nobody))?;
        }
        for index in 0..self.l1.len() as u32 {
            let host = self.table_host(index);
            if host != 0 {
                let place = host..host + self.geometry.table_len();
                memory::push(&mut things, (place, Owner::Table(index)))?;
            }
        }
        self.each_entry(|number, _, word| {
            let thing = match self.vetted(word) {
                Some(ClusterPlace::Plain(host)) => {
                    (host..host + self.geometry.cluster(), Owner::Cluster(number))
                }
                Some(ClusterPlace::Packed { host, len }) => (
                    host..(host + len).next_multiple_of(SECTOR),
                    Owner::Packed(number),
                ),
                Some(ClusterPlace::Absent) | None => return Ok(()),
            };
            memory::push(&mut things, thing)
        })?;
        Ok(things)
    }

    /// Moves one thing and returns its new end; None if it stays.
    fn move_down(&self, place: &Range<u64>, owner: Owner, gaps: &mut Gaps) -> Result<Option<u64>> {
        let (len, cluster) = (place.end - place.start, self.geometry.cluster());
        let unit = match owner {
            Owner::Nobody => return Ok(None),
            Owner::Table(_) | Owner::Cluster(_) => cluster,
            Owner::Packed(_) => SECTOR,
        };
        let Some(host) = gaps.take(len, unit, place.start)? else {
            return Ok(None);
        };
        match owner {
            Owner::Nobody => {}
            Owner::Table(index) => {
                // The copy on disk must be current.
                self.flush_all(self.durability)?;
                self.copy(place.start, host, len)?;
                self.barrier()?;
                self.put_l1(index, host)?;
            }
            Owner::Cluster(number) => {
                self.copy(place.start, host, len)?;
                self.change_entry(number, |_| Ok(word_of(host)))?;
            }
            Owner::Packed(number) => {
                self.change_entry(number, |old| match old {
                    ClusterPlace::Packed { host: from, len } => {
                        self.copy(from, host, len)?;
                        Ok(word_of_packed(host, len, self.geometry))
                    }
                    _ => Ok(None),
                })?;
            }
        }
        Ok(Some(host + len))
    }

    /// Notes that the places of tables have changed, and determines them again.
    pub(super) fn forget_tables(&self) -> Result<()> {
        *self.tables.write() = None;
        self.begin_change()
    }
}
