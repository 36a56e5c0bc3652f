//! The consistency check. QEMU has none for this format.

use std::ops::Range;

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::{Entry, FREE, Keeper, Layout};
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;

use super::disk::FOOTER_LEN;
use super::dynamic::Dynamic;
use super::open::Damage;

/// What is wrong with the block of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is nothing, or no guest data: it does not stand within the data of the file.
    Outside,
    /// It overlaps another one, or a name of the parent.
    Overlaps,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: Vec<(u64, Fault)>,
    /// What is wrong with the footers.
    damage: Option<Damage>,
    /// Blocks that there is unused space for between used ones.
    unused: u64,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        self.faults.len() as u64 + u64::from(self.damage == Some(Damage::Front))
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
    fn look(&self, mut job: Option<&mut Job>) -> Result<Findings> {
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        let mut found = Findings {
            damage: Some(self.blocks.keeper.damage()),
            ..Findings::default()
        };
        let mut note = |line: String| {
            if let Some(job) = job.as_deref_mut() {
                job.note(line);
            }
        };
        match found.damage {
            Some(Damage::Front) => note("ERROR: the footer at the beginning is damaged".to_owned()),
            Some(Damage::Last) => {
                note("The footer at the end is missing, damaged or out of date".to_owned());
            }
            _ => {}
        }
        let mut used: Vec<(u64, u32)> = Vec::new();
        self.blocks.each(|index, word| {
            let Entry::At(host) = layout.entry(word) else {
                return Ok(());
            };
            let place = host - layout.lead()..host + layout.block_size();
            if host >= file_len || layout.is_metadata(place) {
                note(format!("ERROR: block {index} stands outside of the data"));
                return memory::push(&mut found.faults, (index, Fault::Outside));
            }
            memory::push(&mut used, (host, index as u32))
        })?;
        used.sort_unstable();
        let mut spaces: Vec<Range<u64>> = self.blocks.keeper.reserved(&layout);
        spaces.push(0..layout.start());
        spaces.retain(|space| !space.is_empty());
        spaces.sort_unstable_by_key(|range| range.start);
        let mut spaces = spaces.into_iter().peekable();
        let mut end = 0;
        for (host, index) in used {
            let start = host - layout.lead();
            while let Some(space) = spaces.next_if(|space| space.start <= start) {
                found.unused += room(&layout, end, space.start);
                end = end.max(space.end);
            }
            let block_end = host + layout.block_size();
            let reaches_over = spaces.peek().is_some_and(|space| space.start < block_end);
            if start < end || reaches_over {
                note(format!("ERROR: block {index} overlaps another one"));
                memory::push(&mut found.faults, (u64::from(index), Fault::Overlaps))?;
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
            note(format!("Leaked space of {} blocks", found.unused));
        }
        Ok(found)
    }

    /// Gives each block a place of its own, without gaps, and writes the footers.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        self.blocks.check_writable()?;
        let alone = self.blocks.exclusive();
        let layout = self.blocks.layout();
        for (index, fault) in &found.faults {
            control.checkpoint()?;
            if *fault == Fault::Outside {
                alone.set(*index, FREE)?;
            }
        }
        self.blocks.flush(self.blocks.durability())?;
        self.note_change()?;
        for (index, fault) in &found.faults {
            control.checkpoint()?;
            let offset = index * layout.block_size();
            let (Entry::At(host), _) = self.blocks.run(offset, 1)? else {
                continue;
            };
            if *fault == Fault::Overlaps {
                let new = alone.take_at_end()?;
                alone.copy(host, new)?;
                if let Some(word) = layout.word(new) {
                    alone.set(*index, word)?;
                }
            }
        }
        self.blocks.flush(self.blocks.durability())?;
        alone.pack(control)
    }
}

/// How many blocks there is space for.
fn room(layout: &impl Layout, from: u64, to: u64) -> u64 {
    let unit = layout.lead() + layout.block_size();
    let first = layout.next_tight(from) - layout.lead();
    to.saturating_sub(first) / unit
}
