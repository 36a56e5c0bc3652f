//! The consistency check, in QEMU's words where it has them.

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::{Entry, FREE, Layout};
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::memory;

use super::Vdi;
use super::disk::DISCARDED;

/// What is wrong with the block of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is nothing: it stands behind the end of the file.
    Missing,
    /// It stands further back than all blocks could.
    TooLarge,
    /// Another one stands there.
    Twice,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: Vec<(u64, Fault)>,
    /// Blocks that have a place.
    used: u64,
    /// One more than the highest place.
    places: u64,
    /// What the header says.
    recorded: u64,
}

impl Findings {
    /// Whether new blocks would go where there are some.
    fn is_overwritten(&self) -> bool {
        self.recorded < self.places
    }
}

impl check::Findings for Findings {
    /// Places that are counted as used and that nothing names.
    fn leaks(&self) -> u64 {
        self.recorded.saturating_sub(self.used)
    }

    fn corruptions(&self) -> u64 {
        self.faults.len() as u64 + u64::from(self.is_overwritten())
    }
}

impl Check for Vdi {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        check::check(self, repair, job)
    }
}

impl Repairable for Vdi {
    type Found = Findings;

    /// Goes through the table.
    fn look(&self, mut job: Option<&mut Job>) -> Result<Findings> {
        let header = self.blocks.keeper.header();
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        let count = header.blocks;
        let mut seen = memory::filled((count as usize).div_ceil(64), 0_u64)?;
        let mut found = Findings {
            recorded: u64::from(header.allocated),
            ..Findings::default()
        };
        self.blocks.each(|index, word| {
            let Entry::At(host) = layout.entry(word) else {
                return Ok(());
            };
            let bit = 1 << (word % 64);
            let fault = match seen.get_mut((word / 64) as usize) {
                Some(bits) if word < count => {
                    found.used += 1;
                    let twice = *bits & bit != 0;
                    *bits |= bit;
                    match (twice, host >= file_len) {
                        (true, _) => Some(Fault::Twice),
                        (false, true) => Some(Fault::Missing),
                        (false, false) => None,
                    }
                }
                _ => Some(Fault::TooLarge),
            };
            if fault.is_none() {
                found.places = found.places.max(u64::from(word) + 1);
            }
            if let Some(fault) = fault {
                memory::push(&mut found.faults, (index, fault))?;
                let line = match fault {
                    Fault::TooLarge => format!("ERROR: block index {index} too large, is {word}"),
                    Fault::Twice => format!("ERROR: block index {word} also used by {word}"),
                    Fault::Missing => {
                        format!("ERROR: block index {index} is {word}, behind the end of the file")
                    }
                };
                if let Some(job) = job.as_deref_mut() {
                    job.note(line);
                }
            }
            match job.as_deref_mut() {
                Some(job) => job.tick(),
                None => Ok(()),
            }
        })?;
        if let Some(job) = job {
            if found.used != found.recorded {
                job.note(format!(
                    "ERROR: allocated blocks mismatch, is {}, should be {}",
                    found.used, found.recorded
                ));
            } else if found.is_overwritten() {
                job.note(format!(
                    "ERROR: {} blocks are allocated, but one has the index {}",
                    found.recorded,
                    found.places - 1
                ));
            }
        }
        Ok(found)
    }

    /// Gives each block a place of its own, without gaps, and counts them.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        self.blocks.check_writable()?;
        let alone = self.blocks.exclusive();
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        // A block that is not there reads as zeroes, and goes on to.
        let nothing = match self.blocks.is_overlay() {
            true => DISCARDED,
            false => FREE,
        };
        for (index, fault) in &found.faults {
            control.checkpoint()?;
            let offset = index * layout.block_size();
            let (Entry::At(host), _) = self.blocks.run(offset, 1)? else {
                continue;
            };
            if host >= file_len || *fault == Fault::Missing {
                alone.set(*index, nothing)?;
            }
        }
        self.blocks.flush(self.blocks.durability())?;
        for (index, fault) in &found.faults {
            control.checkpoint()?;
            let offset = index * layout.block_size();
            let (Entry::At(host), _) = self.blocks.run(offset, 1)? else {
                continue;
            };
            if *fault == Fault::Twice {
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
