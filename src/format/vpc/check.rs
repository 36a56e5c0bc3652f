//! The consistency check. QEMU has none for this format.

use std::ops::Range;

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::{Entry, FREE, Keeper, Layout, shown_of};
use crate::format::notes::Notes;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;
use crate::size::SECTOR;

use super::disk::{FOOTER_LEN, VpcLayout};
use super::dynamic::Dynamic;
use super::open::Damage;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Blocks that do not stand within the data of the file: there is nothing, or no guest data.
    outside: u64,
    /// Blocks that the file ends within, and where the last of them ends.
    cut: u64,
    cut_end: u64,
    /// Blocks that overlap another one, or a name of the parent.
    overlapping: Vec<u32>,
    /// What is wrong with the footers.
    damage: Option<Damage>,
    /// Blocks that there is unused space for between used ones.
    unused: u64,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        let blocks = self.outside + self.cut + self.overlapping.len() as u64;
        blocks + u64::from(self.damage == Some(Damage::Front))
    }

    /// Without the footer at the end nothing is lost: the other one counts.
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

    /// Goes through the table.
    fn look(&self, job: Option<&mut Job>) -> Result<Findings> {
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
        // The numbers of the table with the blocks: as many as there are blocks in the file.
        let mut used: Vec<(u32, u32)> = Vec::new();
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
                    memory::push(&mut used, (word, index as u32))?;
                }
                _ => {}
            }
            notes.tick()
        })?;
        used.sort_unstable();
        let mut spaces: Vec<Range<u64>> = self.blocks.keeper.reserved(&layout);
        spaces.push(0..layout.start());
        spaces.retain(|space| !space.is_empty());
        spaces.sort_unstable_by_key(|range| range.start);
        let mut spaces = spaces.into_iter().peekable();
        let mut end = 0;
        for (word, index) in used {
            let Entry::At(host) = layout.entry(word) else {
                continue;
            };
            let start = host - layout.lead();
            while let Some(space) = spaces.next_if(|space| space.start <= start) {
                found.unused += room(&layout, end, space.start);
                end = end.max(space.end);
            }
            let block_end = host + layout.block_size();
            let reaches_over = spaces.peek().is_some_and(|space| space.start < block_end);
            if start < end || reaches_over {
                notes.tell(|| format!("ERROR: block {index} overlaps another one"));
                memory::push(&mut found.overlapping, index)?;
            }
            found.unused += room(&layout, end, start);
            end = end.max(block_end);
        }
        for space in spaces {
            found.unused += room(&layout, end, space.start);
            end = end.max(space.end);
        }
        let last = file_len.saturating_sub(FOOTER_LEN as u64);
        found.unused += room(&layout, end, last);
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
        for index in &found.overlapping {
            control.checkpoint()?;
            let index = u64::from(*index);
            let (Entry::At(host), _) = self.blocks.run(index * layout.block_size(), 1)? else {
                continue;
            };
            let new = alone.take_at_end()?;
            alone.copy(host, new)?;
            if let Some(word) = layout.word(new) {
                alone.set(index, word)?;
            }
        }
        self.blocks.flush(self.blocks.durability())?;
        self.gather(&alone, control)
    }
}

/// Whether there is nothing where a block stands, or no guest data.
fn is_outside(layout: &VpcLayout, host: u64, file_len: u64) -> bool {
    let place = host - layout.lead()..host + layout.block_size();
    host >= file_len || layout.is_headers(&place)
}

/// How many blocks there is space for.
fn room(layout: &impl Layout, from: u64, to: u64) -> u64 {
    let unit = layout.lead() + layout.block_size();
    let first = layout.next_tight(from) - layout.lead();
    to.saturating_sub(first) / unit
}
