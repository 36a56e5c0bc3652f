//! The consistency check. QEMU has none for this format.

use std::ops::Range;

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::places::Places;
use crate::format::blocks::{Entry, FREE, Keeper, Layout, shown_of};
use crate::format::notes::Notes;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::size::SECTOR;
use crate::storage::shorten;

use super::disk::{FOOTER_LEN, VpcLayout};
use super::dynamic::Dynamic;
use super::open::Damage;

/// The findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Blocks that are not within the data of the file: nothing is there, or something other than guest data.
    outside: u64,
    /// Blocks that are cut short by the end of the file, and where the last of them ends.
    cut: u64,
    cut_end: u64,
    /// Blocks that overlap the block of an earlier entry, or a name of the parent.
    overlapping: u64,
    /// What is wrong with the footers.
    damage: Option<Damage>,
    /// The number of blocks that would fit into unused space between used ones.
    unused: u64,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        let blocks = self.outside + self.cut + self.overlapping;
        blocks + u64::from(self.damage == Some(Damage::Front))
    }

    /// Without the footer at the end nothing is lost, because the other one counts.
    fn leaks(&self) -> u64 {
        self.unused + u64::from(self.damage == Some(Damage::Last))
    }
}

impl Check for Dynamic {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        check::check(self, repair, job)
    }
}

impl Repairable for Dynamic {
    type Found = Findings;

    /// Scans the table.
    fn look(&self, _: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        let disk = self.blocks.len();
        let mut notes = Notes::new(job);
        let mut found = Findings {
            damage: Some(self.blocks.keeper.damage()),
            ..Findings::default()
        };
        match found.damage {
            Some(Damage::Front) => {
                notes.tell(|| "ERROR: the footer at the beginning is damaged".to_owned());
            }
            Some(Damage::Last) => {
                notes
                    .tell(|| "The footer at the end is missing, damaged or out of date".to_owned());
            }
            _ => {}
        }
        let mut placed = Placed::of(self, file_len);
        self.blocks.each(|index, word| {
            match layout.entry(word) {
                Entry::At(host) if is_outside(&layout, host, file_len) => {
                    found.outside += 1;
                    notes.tell(|| format!("ERROR: block {index} stands outside of the data"));
                }
                Entry::At(host) => {
                    let end = host + shown_of(index, layout.block_size(), disk);
                    if end > file_len.next_multiple_of(SECTOR) {
                        found.cut += 1;
                        found.cut_end = found.cut_end.max(end);
                        notes.tell(|| format!("ERROR: the file ends within block {index}"));
                    }
                    if !placed.take(host)? {
                        found.overlapping += 1;
                        notes.tell(|| format!("ERROR: block {index} overlaps another one"));
                    }
                }
                _ => {}
            }
            notes.tick()
        })?;
        found.unused = placed.room(file_len)?;
        if found.unused > 0 {
            notes.tell(|| format!("Leaked space of {} blocks", found.unused));
        }
        Ok(found)
    }

    /// Gives each block a place of its own, without gaps, and writes the footers.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        self.blocks.check_writable()?;
        let alone = self.blocks.exclusive();
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        if found.cut_end > file_len {
            self.blocks.keeper.repair_front(&*self.blocks.storage)?;
            // What is left of it is kept, and the rest reads as zeroes.
            self.blocks.lengthen(found.cut_end)?;
        }
        if found.outside > 0 {
            alone.rewrite(control, |_, word| match layout.entry(word) {
                Entry::At(host) if is_outside(&layout, host, file_len) => FREE,
                _ => word,
            })?;
        }
        self.blocks.flush(self.blocks.durability())?;
        alone.find_end_despite_overlaps()?;
        self.note_change()?;
        if found.overlapping > 0 {
            let mut placed = Placed::of(self, file_len);
            alone.part_each(control, |_, host| placed.take(host))?;
        }
        self.blocks.flush(self.blocks.durability())?;
        self.gather(&alone, control)
    }
}

/// Where the blocks are that overlap nothing named by an earlier entry, and what else is in the file.
struct Placed {
    layout: VpcLayout,
    blocks: Places,
    /// In ascending order.
    others: Vec<Range<u64>>,
    /// The file cannot become shorter than this.
    least_len: u64,
    /// The space after the last block can be returned.
    has_tail: bool,
}

impl Placed {
    /// Without any block yet, in a file of that length.
    fn of(image: &Dynamic, file_len: u64) -> Self {
        let layout = image.blocks.layout();
        let mut others = image.blocks.keeper.reserved(&layout);
        others.push(0..layout.start());
        others.retain(|other| !other.is_empty());
        others.sort_unstable_by_key(|other| other.start);
        Self {
            blocks: Places::of(layout.lead() + layout.block_size()),
            layout,
            others,
            least_len: image.unmovable_end(file_len),
            has_tail: shorten::can_cut(&*image.blocks.storage, 0),
        }
    }

    /// Takes the place of a block whose data is at `host`; returns false if it overlaps something.
    fn take(&mut self, host: u64) -> Result<bool> {
        let start = host - self.layout.lead();
        let end = host + self.layout.block_size();
        let mut others = self.others.iter();
        if others.any(|other| other.start < end && start < other.end) {
            return Ok(false);
        }
        self.blocks.take(start)
    }

    /// How many blocks would fit into unused space that a repair returns, in a file of that length.
    fn room(&self, file_len: u64) -> Result<u64> {
        let layout = &self.layout;
        let unit = layout.lead() + layout.block_size();
        let (mut unused, mut end) = (0, 0);
        let mut others = self.others.iter().peekable();
        self.blocks.each(|start| {
            while let Some(other) = others.next_if(|other| other.start <= start) {
                unused += room(layout, end, other.start);
                end = end.max(other.end);
            }
            unused += room(layout, end, start);
            end = start + unit;
        })?;
        end = end.max(self.least_len);
        for other in others {
            unused += room(layout, end, other.start);
            end = end.max(other.end);
        }
        if self.has_tail {
            let last = file_len.saturating_sub(FOOTER_LEN as u64);
            unused += room(layout, end, last);
        }
        Ok(unused)
    }
}

/// Whether nothing, or something other than guest data, is where a block should be.
fn is_outside(layout: &VpcLayout, host: u64, file_len: u64) -> bool {
    let place = host - layout.lead()..host + layout.block_size();
    host >= file_len || layout.is_headers(&place)
}

/// How many blocks fit into a range.
fn room(layout: &impl Layout, from: u64, to: u64) -> u64 {
    let unit = layout.lead() + layout.block_size();
    let first = layout.next_tight(from) - layout.lead();
    to.saturating_sub(first) / unit
}
