//! The consistency check, in QEMU's words where it has them.

use crate::error::Result;
use crate::format::blocks::check::{self, Repairable};
use crate::format::blocks::{Entry, FREE, Layout, shown_of};
use crate::format::marks::Marks;
use crate::format::notes::Notes;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::size::SECTOR;

use super::Vdi;
use super::disk::DISCARDED;

/// What is wrong with the block of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is there: it lies past the end of the file.
    Missing,
    /// Its number is too high for the count of blocks.
    TooLarge,
    /// Another block is in the same place.
    Twice,
    /// The file ends within it.
    Cut,
}

/// The findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: u64,
    /// Where the last block that is cut short by the end of the file ends; 0 if there is none.
    cut_end: u64,
    /// Blocks that have a place.
    used: u64,
    /// One more than the highest place.
    places: u64,
    /// The count in the header.
    recorded: u64,
}

impl Findings {
    /// Whether new blocks would overwrite existing ones.
    fn is_overwritten(&self) -> bool {
        self.recorded < self.places
    }
}

impl check::Findings for Findings {
    /// Places that are counted as used although nothing names them, unless a faulty entry may have meant them.
    fn leaks(&self) -> u64 {
        match self.faults {
            0 => self.recorded.saturating_sub(self.used),
            _ => 0,
        }
    }

    /// A wrong count is one more corruption, unless it is merely a leak.
    fn corruptions(&self) -> u64 {
        let count_is_wrong = self.faults > 0 && self.recorded != self.used;
        self.faults + u64::from(count_is_wrong || self.is_overwritten())
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

    /// Scans the table.
    fn look(&self, _: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        let header = self.blocks.keeper.header();
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        let disk = self.blocks.len();
        let count = header.blocks;
        let mut marks = Marks::default();
        let mut notes = Notes::new(job);
        let mut found = Findings {
            recorded: u64::from(header.allocated),
            ..Findings::default()
        };
        self.blocks.each(|index, word| {
            let Entry::At(host) = layout.entry(word) else {
                return Ok(());
            };
            let fault = if word >= count {
                Some(Fault::TooLarge)
            } else {
                found.used += 1;
                let end = host + shown_of(index, layout.block_size(), disk);
                match marks.mark(u64::from(word))? {
                    false => Some(Fault::Twice),
                    true if host >= file_len => Some(Fault::Missing),
                    true if end > file_len.next_multiple_of(SECTOR) => {
                        found.cut_end = found.cut_end.max(end);
                        Some(Fault::Cut)
                    }
                    true => None,
                }
            };
            if matches!(fault, None | Some(Fault::Cut)) {
                found.places = found.places.max(u64::from(word) + 1);
            }
            let Some(fault) = fault else {
                return notes.tick();
            };
            found.faults += 1;
            notes.tell(|| match fault {
                Fault::TooLarge => format!("ERROR: block index {index} too large, is {word}"),
                Fault::Twice => format!("ERROR: block index {word} also used by {word}"),
                Fault::Missing => {
                    format!("ERROR: block index {index} is {word}, behind the end of the file")
                }
                Fault::Cut => {
                    format!("ERROR: block index {index} is {word}, which the file ends within")
                }
            });
            notes.tick()
        })?;
        if found.used != found.recorded {
            notes.tell(|| {
                format!(
                    "ERROR: allocated blocks mismatch, is {}, should be {}",
                    found.used, found.recorded
                )
            });
        } else if found.is_overwritten() {
            notes.tell(|| {
                format!(
                    "ERROR: {} blocks are allocated, but one has the index {}",
                    found.recorded,
                    found.places - 1
                )
            });
        }
        Ok(found)
    }

    /// Gives each block a place of its own, without gaps, and counts them.
    fn repair(&self, found: &Findings, control: &JobControl) -> Result<()> {
        self.blocks.check_writable()?;
        let alone = self.blocks.exclusive();
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        if found.faults > 0 {
            if found.cut_end > file_len {
                // What is left of it is kept, and the rest reads as zeroes.
                self.blocks.lengthen(found.cut_end)?;
            }
            // A block that is missing reads as zeroes from now on.
            let nothing = match self.blocks.is_overlay() {
                true => DISCARDED,
                false => FREE,
            };
            alone.rewrite(control, |_, word| match layout.entry(word) {
                Entry::At(host) if host >= file_len => nothing,
                _ => word,
            })?;
            self.blocks.flush(self.blocks.durability())?;
            let mut marks = Marks::default();
            alone.part_each(control, |word, _| marks.mark(u64::from(word)))?;
        }
        self.blocks.flush(self.blocks.durability())?;
        alone.pack(control)
    }
}
