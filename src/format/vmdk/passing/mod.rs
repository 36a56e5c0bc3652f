//! A stream that is read in order, through a pipe: the marker before each grain gives its place in the guest. The
//! tables, wherever they are, only serve to check that no grain is missing.

mod ahead;
mod bytes;
mod front;
mod tables;

use crate::error::{Error, Result};
use crate::format::{NextBytes, ReadInOrder};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::size::SECTOR;

use super::disk::SparseHeader;
use super::disk::marker::{self, GRAIN_MARKER, Special};
use super::read::longest_grain;
use super::source::{footer_of, no_footer};

use ahead::{Ahead, Grain, Packed};
use bytes::{Bytes, out_of_order};
use tables::{Tables, table_len};

/// A stream that is being read.
#[derive(Debug)]
struct Passing {
    header: SparseHeader,
    tables: Tables,
    /// Number of bytes of the file that have been read.
    at: u64,
    /// The next guest byte to return.
    guest: u64,
    /// The current grain, and what follows it.
    grain: Grain,
    ahead: Ahead,
    /// Minimum guest offset of the next grain.
    least: u64,
    table: IoBuf,
    /// Sector of the directory, if it followed the grains.
    directory: Option<u64>,
    has_footer: bool,
    is_ended: bool,
}

/// Reads up to the first grain; see [`crate::format::FormatDriver::read_in_order`].
///
/// # Errors
/// As [`front::read`].
pub(super) fn open(policy: &OpenPolicy, next: &mut NextBytes<'_>) -> Result<Box<dyn ReadInOrder>> {
    let mut at = 0;
    let (header, tables) = front::read(policy, &mut Bytes::new(next, &mut at))?;
    Ok(Box::new(Passing {
        header,
        tables,
        at,
        guest: 0,
        grain: Grain::default(),
        ahead: Ahead::default(),
        least: 0,
        table: IoBuf::new(),
        directory: None,
        has_footer: false,
        is_ended: false,
    }))
}

impl ReadInOrder for Passing {
    fn virtual_size(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    fn zeroes(&mut self, next: &mut NextBytes<'_>) -> Result<u64> {
        while !self.is_over() && self.guest >= self.grain_end() {
            self.advance(next)?;
        }
        let to = match self.guest < self.grain_end() {
            true => self.grain.start,
            false => self.virtual_size(),
        };
        Ok(to.saturating_sub(self.guest))
    }

    fn pass(&mut self, len: u64) {
        self.guest = self.guest.saturating_add(len);
    }

    fn read(&mut self, buf: &mut [u8], next: &mut NextBytes<'_>) -> Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let zeroes = self.zeroes(next)?.min(rest.len() as u64) as usize;
            let (part, behind) = rest.split_at_mut(zeroes);
            part.fill(0);
            self.guest += zeroes as u64;
            let within = self.guest.saturating_sub(self.grain.start) as usize;
            let held = self.grain.bytes.get(within..).unwrap_or_default();
            let len = held.len().min(behind.len());
            if zeroes == 0 && len == 0 {
                return Err(Error::invalid("A read passes the end of the image"));
            }
            let (part, behind) = behind.split_at_mut(len);
            part.copy_from_slice(held.get(..len).unwrap_or_default());
            self.guest += len as u64;
            rest = behind;
        }
        Ok(())
    }

    fn end(&mut self, next: &mut NextBytes<'_>) -> Result<()> {
        while !self.is_over() {
            self.advance(next)?;
        }
        // Some writers pad their last block.
        let mut bytes = Bytes::new(next, &mut self.at);
        let mut rest = [0; SECTOR as usize];
        loop {
            let at = bytes.at();
            let got = bytes.some(&mut rest)?;
            if rest.iter().take(got).any(|byte| *byte != 0) {
                let text = "Something stands behind the end of the stream";
                return Err(Error::corrupt(text).with_offset(at));
            }
            if got < rest.len() {
                return Ok(());
            }
        }
    }
}

impl Passing {
    fn grain_end(&self) -> u64 {
        self.grain.start + self.grain.bytes.len() as u64
    }

    /// Whether no grain follows.
    fn is_over(&self) -> bool {
        self.is_ended && self.ahead.is_empty()
    }

    /// Advances to the next grain, if there is one.
    fn advance(&mut self, next: &mut NextBytes<'_>) -> Result<()> {
        if self.ahead.is_empty() && !self.is_ended {
            let read = self.read_ahead(next);
            self.ahead.decode(read)?;
        }
        if let Some(grain) = self.ahead.take()? {
            self.grain = grain;
        }
        Ok(())
    }

    /// Reads until there is enough to decode.
    fn read_ahead(&mut self, next: &mut NextBytes<'_>) -> Result<()> {
        while !self.is_ended && !self.ahead.is_full() {
            self.step(next)?;
        }
        Ok(())
    }

    fn has_tables_behind(&self) -> bool {
        self.header.has_footer
    }

    /// Reads the next marker, and what follows it.
    fn step(&mut self, next: &mut NextBytes<'_>) -> Result<()> {
        let (place, has_tables_behind) = (self.at, self.has_tables_behind());
        let mut bytes = Bytes::new(next, &mut self.at);
        let mut sector = [0; SECTOR as usize];
        let got = bytes.some(&mut sector)?;
        let (number, len) = marker::parse_grain(&sector).unwrap_or_default();
        let has_grain = got >= GRAIN_MARKER && len > 0;
        match got < sector.len() {
            // The last grain does not have to fill its sector.
            true if has_grain && got - GRAIN_MARKER >= len as usize => {}
            // If all tables came first, they show whether something is missing.
            true if got == 0 && !has_tables_behind => return self.finish(),
            true => return Err(bytes.cut_off()),
            false => {}
        }
        match has_grain {
            true => self.take_grain(place, (number, len), &sector, next),
            false => self.take_special(place, number, &sector, next),
        }
    }

    /// Takes the grain whose first sector has been read.
    fn take_grain(
        &mut self,
        place: u64,
        (number, len): (u64, u32),
        first: &[u8],
        next: &mut NextBytes<'_>,
    ) -> Result<()> {
        let grain = self.header.grain_bytes();
        let start = number.checked_mul(SECTOR).filter(|start| {
            start.is_multiple_of(grain)
                && *start < self.header.capacity * SECTOR
                && u64::from(len) <= longest_grain(grain)
        });
        let Some(start) = start else {
            return Err(Error::corrupt(format!(
                "No grain can be what the marker at {place} says: sector {number}, {len} bytes"
            ))
            .with_offset(place));
        };
        if start < self.least {
            let text =
                format!("the grain of guest offset {start} comes behind those that follow it");
            return Err(out_of_order(&text).with_offset(place));
        }
        let mut bytes = Bytes::new(next, &mut self.at);
        let mut packed = memory::zeroed(len as usize)?;
        let held = first.get(GRAIN_MARKER..).unwrap_or_default();
        let (begun, rest) = packed.split_at_mut(held.len().min(len as usize));
        begun.copy_from_slice(held.get(..begun.len()).unwrap_or_default());
        bytes.all(rest)?;
        bytes.finish_sector()?;
        let whole = (self.header.capacity * SECTOR - start).min(grain);
        self.ahead.push(Packed {
            place,
            start,
            len: whole as usize,
            bytes: packed,
        })?;
        self.least = start + whole;
        self.tables.grain(start / grain, place / SECTOR)
    }

    /// Takes what follows a marker without a grain: this many sectors.
    fn take_special(
        &mut self,
        place: u64,
        sectors: u64,
        marker: &[u8],
        next: &mut NextBytes<'_>,
    ) -> Result<()> {
        let begin = place + SECTOR;
        let kind = Special::of(marker).ok_or_else(|| {
            Error::corrupt(format!("The marker at {place} is of no kind that is known"))
                .with_offset(place)
        })?;
        if kind == Special::EndOfStream {
            return self.finish();
        }
        let end = sectors
            .checked_mul(SECTOR)
            .and_then(|len| begin.checked_add(len));
        let end = end.ok_or_else(|| {
            Error::corrupt(format!("The marker at {place} names {sectors} sectors"))
                .with_offset(place)
        })?;
        let has_tables_behind = self.has_tables_behind();
        let mut bytes = Bytes::new(next, &mut self.at);
        match kind {
            _ if !has_tables_behind => {}
            Special::Table => {
                let table = self.table.room(table_len(&self.header) as usize)?;
                bytes.all(table)?;
                let entries = self.header.table_entries as usize * 4;
                let table = table.get(..entries).unwrap_or_default();
                self.tables.placed(begin / SECTOR, table)?;
            }
            Special::Directory => {
                let directory = front::directory(&self.header, &mut bytes)?;
                self.tables.directory(&directory)?;
                self.directory = Some(begin / SECTOR);
            }
            Special::Footer => {
                let mut footer = [0; SECTOR as usize];
                bytes.all(&mut footer)?;
                let footer = footer_of(&self.header, &footer, begin)?;
                if self.directory != Some(footer.directory) {
                    let text = "The footer names another grain directory than the one that came";
                    return Err(Error::corrupt(text).with_offset(begin));
                }
                self.has_footer = true;
            }
            Special::Progress | Special::EndOfStream => {}
        }
        // A marker may announce fewer sectors than what follows it has.
        let end = end.max(bytes.at());
        bytes.must_go_to(end, "next marker")?;
        bytes.finish_sector()
    }

    fn finish(&mut self) -> Result<()> {
        if self.has_tables_behind() && !self.has_footer {
            return Err(no_footer().with_offset(self.at));
        }
        self.is_ended = true;
        self.tables.end()
    }
}

#[cfg(test)]
mod tests;
