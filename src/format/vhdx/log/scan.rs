//! Finds the sequence of entries that is to be replayed, and reads the changes in it.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::memory::{self, IoBuf};
use crate::storage::{Storage, read_exact_at};

use super::super::disk::{
    DATA_SECTOR, DESCRIPTOR_LEN, Descriptor, ENTRY_HEADER_LEN, EntryHeader, Header,
    descriptors_len, page_of,
};

const SECTOR: u64 = DATA_SECTOR as u64;
/// Entries change nothing before this offset: the headers are not written through the log.
const FIRST_CHANGE: u64 = 192 << 10;
/// The search for entries reads at most this many times the length of the log; each entry left over from earlier rounds
/// is examined once.
const EFFORT: u64 = 4;

/// Location of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct LogArea {
    /// Offset in the file.
    pub(in super::super) offset: u64,
    /// Its length in bytes.
    pub(in super::super) len: u64,
}

/// A change that an entry asks for.
#[derive(Debug)]
pub(in super::super) enum Change<'a> {
    /// The page at an offset is replaced by these bytes.
    Page(u64, &'a [u8; DATA_SECTOR]),
    /// A range (offset, length) becomes zeroes.
    Zero(u64, u64),
}

/// The entries to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Offset in the log of the first one.
    tail: u64,
    /// Length of all entries together.
    len: u64,
    /// Sequence number of the last one.
    last: u64,
    /// The lengths of the file according to the last one; see [`EntryHeader`].
    pub(super) flushed: u64,
    pub(super) file_len: u64,
}

impl LogArea {
    /// As given by the header.
    pub(in super::super) fn of(header: &Header) -> Self {
        Self {
            offset: header.log_offset,
            len: u64::from(header.log_len),
        }
    }

    /// Reads at a position, wrapping around at the end of the log.
    fn read(&self, storage: &dyn Storage, buf: &mut [u8], position: u64) -> Result<()> {
        let position = position % self.len.max(1);
        let until_end = (self.len - position).min(buf.len() as u64) as usize;
        let (front, back) = buf.split_at_mut(until_end);
        read_exact_at(storage, front, self.offset + position)?;
        if back.is_empty() {
            return Ok(());
        }
        read_exact_at(storage, back, self.offset)
    }

    fn overlaps(&self, offset: u64, len: u64) -> bool {
        offset < self.offset.saturating_add(self.len) && self.offset < offset.saturating_add(len)
    }
}

/// Searches the log of a file for entries with one GUID.
pub(super) struct Scan<'a> {
    storage: &'a dyn Storage,
    area: LogArea,
    log: Uuid,
    /// Bytes that may still be read.
    left: u64,
    sector: IoBuf,
}

impl<'a> Scan<'a> {
    /// For entries with this GUID.
    pub(super) fn new(storage: &'a dyn Storage, area: LogArea, log: Uuid) -> Result<Self> {
        Ok(Self {
            storage,
            area,
            log,
            left: area.len.saturating_mul(EFFORT),
            sector: memory::zeroed(DATA_SECTOR)?,
        })
    }

    /// The sequence that is to be replayed: of the complete ones, the one with the highest sequence number.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if too much has to be read because entries overlap; if I/O fails.
    pub(super) fn find(&mut self) -> Result<Option<Sequence>> {
        let mut best: Option<Sequence> = None;
        let mut start = 0;
        while start < self.area.len {
            let Some((found, end)) = self.run(start)? else {
                start += SECTOR;
                continue;
            };
            if let Some(found) = found
                && best.is_none_or(|best| found.last > best.last)
            {
                best = Some(found);
            }
            // Any sequence that begins later in the run ends with the same entry.
            start = end;
        }
        Ok(best)
    }

    /// The longest run of entries from `start` on, and its end; `None` if there is no entry. There is no sequence if
    /// that of the last entry does not begin within the run.
    fn run(&mut self, start: u64) -> Result<Option<(Option<Sequence>, u64)>> {
        let mut at = start;
        let mut last: Option<EntryHeader> = None;
        while let Some(entry) = self.entry(at)? {
            let next = at + u64::from(entry.len);
            let follows = last
                .as_ref()
                .is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence));
            if !follows || next - start > self.area.len {
                break;
            }
            at = next;
            last = Some(entry);
        }
        let Some(last) = last else {
            return Ok(None);
        };
        let tail = u64::from(last.tail);
        // The run may wrap around at the end of the log.
        let from = if tail >= start {
            tail
        } else {
            tail + self.area.len
        };
        let mut sequence = None;
        if from < at && self.begins(start, from)? {
            sequence = Some(Sequence {
                tail,
                len: at - from,
                last: last.sequence,
                flushed: last.flushed,
                file_len: last.last,
            });
        }
        Ok(Some((sequence, at)))
    }

    /// Whether one of the entries from `start` on begins at `from`.
    fn begins(&mut self, start: u64, from: u64) -> Result<bool> {
        let mut at = start;
        while at < from {
            let Some(header) = self.header(at)? else {
                return Ok(false);
            };
            at += u64::from(header.len);
        }
        Ok(at == from)
    }

    fn header(&mut self, at: u64) -> Result<Option<EntryHeader>> {
        self.load(at)?;
        Ok(self.understood())
    }

    /// Reads a sector.
    fn load(&mut self, at: u64) -> Result<()> {
        self.left = self.left.checked_sub(SECTOR).ok_or_else(|| {
            Error::corrupt("The VHDX log has entries within entries").with_offset(self.area.offset)
        })?;
        self.area.read(self.storage, &mut self.sector, at)
    }

    /// The header in the sector that was read, if it is plausible.
    fn understood(&self) -> Option<EntryHeader> {
        let header =
            EntryHeader::from_bytes(&self.sector).filter(|header| header.log == self.log)?;
        let (len, tail) = (u64::from(header.len), u64::from(header.tail));
        let fits = len >= SECTOR && len <= self.area.len && len.is_multiple_of(SECTOR);
        let placed = tail < self.area.len && tail.is_multiple_of(SECTOR);
        let described = descriptors_len(u64::from(header.descriptors)) <= len;
        (fits && placed && described && header.sequence > 0).then_some(header)
    }

    /// The entry at a position, if it is complete.
    fn entry(&mut self, at: u64) -> Result<Option<EntryHeader>> {
        let Some(header) = self.header(at)? else {
            return Ok(None);
        };
        let front = self.sector.get(..4).unwrap_or_default();
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(front), &[0; 4]);
        crc = crc32c::crc32c_append(crc, self.sector.get(8..).unwrap_or_default());
        let area = descriptors_len(u64::from(header.descriptors));
        let mut data = 0;
        for n in 0..u64::from(header.descriptors) {
            let place = ENTRY_HEADER_LEN as u64 + n * DESCRIPTOR_LEN as u64;
            if place.is_multiple_of(SECTOR) {
                self.load(at + place)?;
                crc = crc32c::crc32c_append(crc, &self.sector);
            }
            match descriptor_in(&self.sector, place)
                .filter(|found| self.is_good(*found, header.sequence))
            {
                Some(Descriptor::Data { .. }) => data += 1,
                Some(Descriptor::Zero { .. }) => {}
                None => return Ok(None),
            }
        }
        if area + data * SECTOR != u64::from(header.len) {
            return Ok(None);
        }
        for n in 0..data {
            self.load(at + area + n * SECTOR)?;
            if page_of(&self.sector, [0; 8], [0; 4], header.sequence).is_none() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, &self.sector);
        }
        Ok((crc == header.checksum).then_some(header))
    }

    fn is_good(&self, descriptor: Descriptor, entry: u64) -> bool {
        let (offset, len, sequence) = match descriptor {
            Descriptor::Zero {
                len,
                offset,
                sequence,
            } => (offset, len, sequence),
            Descriptor::Data {
                offset, sequence, ..
            } => (offset, SECTOR, sequence),
        };
        sequence == entry
            && offset >= FIRST_CHANGE
            && offset.is_multiple_of(SECTOR)
            && len.is_multiple_of(SECTOR)
            && offset
                .checked_add(len)
                .is_some_and(|end| end <= i64::MAX as u64)
            && !self.area.overlaps(offset, len)
    }

    /// Passes every change of a sequence to `take`, in order.
    ///
    /// # Errors
    /// If I/O or `take` fails.
    pub(super) fn changes(
        &mut self,
        sequence: Sequence,
        take: &mut dyn FnMut(Change<'_>) -> Result<()>,
    ) -> Result<()> {
        self.left = sequence.len.saturating_mul(2);
        let lost = || Error::corrupt("The VHDX log changed while it was read");
        let mut descriptors = memory::zeroed(DATA_SECTOR)?;
        let mut at = sequence.tail;
        while at < sequence.tail + sequence.len {
            let header = self.header(at)?.ok_or_else(lost)?;
            let mut data = at + descriptors_len(u64::from(header.descriptors));
            for n in 0..u64::from(header.descriptors) {
                let place = ENTRY_HEADER_LEN as u64 + n * DESCRIPTOR_LEN as u64;
                if n == 0 || place.is_multiple_of(SECTOR) {
                    self.area
                        .read(self.storage, &mut descriptors, at + place - place % SECTOR)?;
                }
                match descriptor_in(&descriptors, place).ok_or_else(lost)? {
                    Descriptor::Zero { len, offset, .. } => take(Change::Zero(offset, len))?,
                    Descriptor::Data {
                        trailing,
                        leading,
                        offset,
                        sequence,
                    } => {
                        self.load(data)?;
                        let page = page_of(&self.sector, leading, trailing, sequence);
                        take(Change::Page(offset, &page.ok_or_else(lost)?))?;
                        data += SECTOR;
                    }
                }
            }
            at += u64::from(header.len);
        }
        Ok(())
    }
}

/// The descriptor at a position of an entry, from the sector that contains it.
fn descriptor_in(sector: &[u8], place: u64) -> Option<Descriptor> {
    let start = (place % SECTOR) as usize;
    Descriptor::from_bytes(sector.get(start..start + DESCRIPTOR_LEN)?)
}
