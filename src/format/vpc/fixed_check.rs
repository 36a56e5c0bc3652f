//! The consistency check of a fixed disk, in which only the footer can be wrong. QEMU has none for this format.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::blocks::check::{self, Repairable};
use crate::format::notes::Notes;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::{Job, JobControl};
use crate::storage::{Preallocation, shorten};

use super::behind::holds_data;
use super::disk::FOOTER_LEN;
use super::fixed::{Fixed, is_being_cut, last_footer};

/// The findings of a check.
#[derive(Debug)]
pub(super) struct Findings {
    /// The checksum of the footer is wrong.
    is_damaged: bool,
    /// Where the disk ends, if there is anything between it and its footer.
    unused_from: Option<u64>,
    /// This contains more than zeroes: perhaps the rest of a disk whose footer says too small a size.
    is_kept: bool,
}

impl check::Findings for Findings {
    fn corruptions(&self) -> u64 {
        u64::from(self.is_damaged)
    }

    fn leaks(&self) -> u64 {
        u64::from(self.unused_from.is_some())
    }
}

impl Check for Fixed {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        check::check(self, repair, job)
    }
}

impl Repairable for Fixed {
    type Found = Findings;

    fn look(&self, _: RepairMode, job: Option<&mut Job>) -> Result<Findings> {
        let mut notes = Notes::new(job);
        let is_damaged = self.is_damaged.load(Ordering::Acquire);
        if is_damaged {
            notes.tell(|| "ERROR: the checksum of the footer is wrong".to_owned());
        }
        let footer_at = last_footer(self.storage.len()?);
        let footer = self.footer.lock().clone();
        let end = footer.largest_size();
        let can_go = shorten::can_cut(&*self.storage, end + FOOTER_LEN as u64);
        let unused_from = (can_go && end < footer_at).then_some(end);
        let mut is_kept = false;
        if unused_from.is_some() {
            is_kept = !is_being_cut(&footer, footer_at)
                && holds_data(&*self.storage, end..footer_at, &footer, || notes.tick())?;
            let behind = match is_kept {
                true => "; there is data in it, which is kept: the footer may say too small a size",
                false => "",
            };
            notes.tell(|| {
                format!(
                    "Leaked space of {} bytes between the disk and its footer{behind}",
                    footer_at - end
                )
            });
        }
        Ok(Findings {
            is_damaged,
            unused_from,
            is_kept,
        })
    }

    /// Rewrites a damaged footer; then moves it to the end of the disk and truncates the file, unless data is kept.
    fn repair(&self, found: &Findings, _: &JobControl) -> Result<()> {
        if !self.writable {
            return Err(Error::os(libc::EROFS));
        }
        let storage = &*self.storage;
        let footer = &mut *self.footer.lock();
        if found.is_damaged {
            storage.write_at(&footer.to_bytes(), last_footer(storage.len()?))?;
            self.barrier()?;
            self.is_damaged.store(false, Ordering::Release);
        }
        if let Some(end) = found.unused_from.filter(|_| !found.is_kept) {
            footer.shrunk_from = None;
            storage.write_at(&footer.to_bytes(), end)?;
            self.barrier()?;
            storage.set_len(end + FOOTER_LEN as u64, Preallocation::Off)?;
            self.barrier()?;
        }
        Ok(())
    }
}
