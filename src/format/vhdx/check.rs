//! The consistency check: every entry of the table, and both copies of the header and of the region table.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::Result;
use crate::format::notes::NoteCount;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::Job;
use crate::memory;

use super::disk::{BatEntry, BitmapState, MIB, State};
use super::occupied::Occupied;
use super::open::{read_headers, read_region_tables};
use super::pages::Walker;
use super::state::{Vhdx, past_end};

/// Number of entries between two checks for cancellation.
const CHECKED: u64 = 1 << 12;

impl Check for Vhdx {
    fn repairs(&self) -> RepairMode {
        RepairMode::All
    }

    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        let mut walk = Walk {
            vhdx: self,
            walker: Walker::default(),
            report: CheckReport::default(),
            repair: repair == RepairMode::All,
            occupied: Occupied::new(self.file_len.load(Ordering::Acquire))?,
            file_len: self.file_len.load(Ordering::Acquire),
            notes: NoteCount::default(),
            repairs: false,
            is_told: false,
            job,
        };
        if repair != RepairMode::Report && self.replayed.swap(false, Ordering::AcqRel) {
            walk.report.corruptions_fixed += 1;
        }
        walk.copies()?;
        for (offset, len) in self.areas() {
            walk.occupied.occupy(offset, len);
        }
        walk.blocks()?;
        if walk.repairs {
            walk.write_out()?;
            self.end_log()?;
        }
        Ok(walk.report)
    }
}

struct Walk<'a> {
    vhdx: &'a Vhdx,
    walker: Walker,
    report: CheckReport,
    /// Whatever can be repaired is repaired.
    repair: bool,
    /// The parts of the file that are in use.
    occupied: Occupied,
    /// Length of the file before anything was repaired.
    file_len: u64,
    notes: NoteCount,
    /// Something has been repaired, possibly only in memory so far.
    repairs: bool,
    /// The header announces it.
    is_told: bool,
    job: &'a mut Job,
}

impl Walk<'_> {
    fn found(&mut self, repaired: bool, line: impl FnOnce() -> String) {
        let word = match repaired {
            true => {
                self.report.corruptions_fixed += 1;
                "Repairing"
            }
            false => {
                self.report.corruptions += 1;
                "ERROR"
            }
        };
        if let Some(line) = self.notes.next(|| format!("{word} {}", line())) {
            self.job.note(line);
        }
    }

    /// There are two copies each of the header and of the region table. A damaged copy does no harm yet, and a crash
    /// may leave one.
    fn copies(&mut self) -> Result<()> {
        let vhdx = self.vhdx;
        if read_headers(&*vhdx.storage)?.iter().any(Option::is_none) {
            match self.repair {
                true => {
                    self.job
                        .note("Repairing a damaged copy of the header".to_owned());
                    vhdx.change_header(|_| {})?;
                }
                false => self
                    .job
                    .note("One copy of the header is damaged; the other one counts".to_owned()),
            }
        }
        let tables = read_region_tables(&*vhdx.storage)?;
        let is_damaged = tables.iter().any(Option::is_none);
        let what = match is_damaged {
            true => "damaged copy of the region table",
            false => "copy of the region table that differs from the first one",
        };
        if is_damaged || tables[0].as_deref() != tables[1].as_deref() {
            match self.repair {
                true => {
                    self.job.note(format!("Repairing a {what}"));
                    vhdx.make_region_tables_equal()?;
                }
                false if is_damaged => self.job.note(
                    "One copy of the region table is damaged; the other one counts".to_owned(),
                ),
                false => self
                    .job
                    .note("The copies of the region table differ; the first one counts".to_owned()),
            }
        }
        if self.repair {
            vhdx.sync(vhdx.durability)?;
        }
        Ok(())
    }

    fn blocks(&mut self) -> Result<()> {
        let geometry = self.vhdx.geometry();
        let size = self.vhdx.virtual_size();
        self.job.control().set_total(size);
        for block in 0..geometry.blocks(size) {
            if block % geometry.chunk_blocks() == 0 && geometry.has_parent() {
                self.bitmap(geometry.chunk(block))?;
            }
            self.block(block)?;
            self.job.control().advance(geometry.block_size());
            if block % CHECKED == 0 {
                self.job.tick()?;
                self.write_back_if_full()?;
            }
        }
        Ok(())
    }

    /// Writes out repairs when many are pending, so that the whole table is never in memory.
    fn write_back_if_full(&mut self) -> Result<()> {
        if !self.vhdx.is_much_dirty() {
            return Ok(());
        }
        self.write_out()?;
        let mut bat = self.vhdx.bat.write();
        match self.vhdx.is_on_disk() {
            true => bat.forget(),
            false => Ok(()),
        }
    }

    fn write_out(&mut self) -> Result<()> {
        if !self.is_told {
            let (file, data) = (Uuid::new_v4(), Uuid::new_v4());
            self.vhdx.change_header(|header| {
                header.file_write = file;
                header.data_write = data;
            })?;
            self.is_told = true;
        }
        self.vhdx.write_metadata(self.vhdx.durability)?;
        Ok(())
    }

    fn block(&mut self, block: u64) -> Result<()> {
        let vhdx = self.vhdx;
        let geometry = vhdx.geometry();
        let place = geometry.entry(block);
        let entry = self.walker.entry(&vhdx.bat.read(), &*vhdx.storage, place)?;
        let blank = match geometry.has_parent() {
            true => BatEntry::NOT_PRESENT,
            false => BatEntry::ZERO,
        };
        let host = match entry.payload() {
            Err(error) => {
                self.found(self.repair, || format!("VHDX BAT entry {block}: {error}"));
                return self.replace(place, blank);
            }
            Ok(State::Present(host) | State::Partial(host)) => host,
            Ok(_) => return Ok(()),
        };
        let len = geometry
            .block_size()
            .min(vhdx.virtual_size() - geometry.start(block));
        let file_len = self.file_len;
        if host.saturating_add(len) > file_len {
            self.found(self.repair, || {
                past_end(block, host, geometry.block_size(), file_len)
            });
            let left = file_len.saturating_sub(host);
            return match self.repair && left > 0 && !vhdx.storage.limits().fixed_len {
                // What is left of it is kept, and the rest reads as zeroes.
                true => self.part(block, host, left),
                false => self.replace(place, blank),
            };
        }
        if let State::Partial(_) = entry.payload()? {
            let chunk = geometry.bitmap_entry(geometry.chunk(block));
            let bitmap = self.walker.entry(&vhdx.bat.read(), &*vhdx.storage, chunk)?;
            let known =
                geometry.has_parent() && matches!(bitmap.bitmap(), Ok(BitmapState::Present(_)));
            if !known {
                // The whole block is then read from it, as there is no other data.
                self.found(
                    self.repair,
                    || format!("VHDX BAT entry {block}: a block is partially present without a sector bitmap"),
                );
                self.replace(place, BatEntry::present(host))?;
            }
        }
        if !self.occupied.occupy(host, geometry.block_size()) {
            self.found(
                self.repair,
                || format!("VHDX BAT entry {block}: the block at offset {host} overlaps with something else"),
            );
            if self.repair {
                self.part(block, host, len)?;
            }
        }
        Ok(())
    }

    fn bitmap(&mut self, chunk: u64) -> Result<()> {
        let vhdx = self.vhdx;
        let place = vhdx.geometry().bitmap_entry(chunk);
        let entry = self.walker.entry(&vhdx.bat.read(), &*vhdx.storage, place)?;
        let file_len = self.file_len;
        let wrong = match entry.bitmap() {
            Err(error) => Some(format!("VHDX BAT entry {place}: {error}")),
            Ok(BitmapState::Present(host)) if host.saturating_add(MIB) > file_len => {
                Some(past_end(place, host, MIB, file_len))
            }
            Ok(BitmapState::Present(host)) if !self.occupied.occupy(host, MIB) => Some(format!(
                "VHDX BAT entry {place}: the sector bitmap at offset {host} overlaps with something else"
            )),
            Ok(_) => None,
        };
        if let Some(line) = wrong {
            // It is no longer known which sectors are in this file.
            self.found(false, || line);
        }
        Ok(())
    }

    fn replace(&mut self, place: u64, entry: BatEntry) -> Result<()> {
        if !self.repair {
            return Ok(());
        }
        self.repairs = true;
        self.vhdx.set_entry(place, entry)
    }

    /// Moves a block to a place of its own, and copies its first `len` bytes there.
    fn part(&mut self, block: u64, host: u64, len: u64) -> Result<()> {
        self.repairs = true;
        let vhdx = self.vhdx;
        let new_host = vhdx.allocate_behind(vhdx.geometry().block_size())?;
        let mut buf = memory::zeroed(len.min(MIB) as usize)?;
        let mut at = 0;
        while at < len {
            let step = (len - at).min(MIB) as usize;
            let part = buf.get_mut(..step).unwrap_or_default();
            vhdx.storage.read_at(part, host + at)?;
            vhdx.storage.write_at(part, new_host + at)?;
            at += step as u64;
            self.job.tick()?;
        }
        let entry = vhdx.block_entry(block)?;
        let moved = match entry.payload()? {
            State::Partial(_) => BatEntry::partial(new_host),
            _ => BatEntry::present(new_host),
        };
        vhdx.set_entry(vhdx.geometry().entry(block), moved)
    }
}
