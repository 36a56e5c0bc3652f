//! Scanning the sections of segments.

use crate::error::{Error, Result};
use crate::format::read_only::SizedStorage;
use crate::job::JobControl;
use crate::memory;
use crate::policy::OpenPolicy;

use super::disk::{
    ENTRY_LEN, FileHeader, HEADER_LEN, Hashes, SECTION_LEN, Section, TABLE_HEADER_LEN, TableHeader,
    Volume,
};

/// Maximum length of the data of a section that describes the disk.
const MAX_VOLUME: u64 = 1052;

/// A table of chunks; offsets refer to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The number of its first chunk, and of the first chunk after it.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Offset of its entries.
    pub(super) entries: u64,
    /// Offset of the copy of the entries.
    pub(super) copy: Option<u64>,
    /// The base of the offsets in it.
    pub(super) base: u64,
    /// The end of the last chunk.
    pub(super) data_end: u64,
}

impl Table {
    /// The number of its chunks.
    pub(super) fn count(&self) -> u64 {
        self.end - self.first
    }
}

/// The contents of the sections.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) volume: Option<Volume>,
    pub(super) tables: Vec<Table>,
    pub(super) hashes: Hashes,
    /// The number of sections so far.
    count: u64,
    /// Where the last section of the last segment ends in that segment.
    pub(super) ended: u64,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The image ends as well.
    Done,
    /// Another segment follows.
    Next,
}

/// The limits under which sections are read.
pub(super) struct Limits<'a> {
    pub(super) policy: &'a OpenPolicy,
    pub(super) control: &'a JobControl,
}

impl Sections {
    /// Reads the segment of that number, which begins at `start` in the source of the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Unsupported`], [`crate::ErrorKind::Limit`] under the policy,
    /// [`crate::ErrorKind::Cancelled`], or if reading fails.
    pub(super) fn take(
        &mut self,
        segment: &SizedStorage,
        start: u64,
        number: u16,
        limits: &Limits<'_>,
    ) -> Result<End> {
        let mut header = [0; HEADER_LEN];
        segment.storage.read_at(&mut header, 0)?;
        let header = FileHeader::from_bytes(&header)?;
        if header.segment != number {
            return Err(Error::corrupt(format!(
                "The file is segment {} of an image, and not {number}",
                header.segment
            )));
        }
        let len = segment.len;
        let mut at = HEADER_LEN as u64;
        // The end of the data of chunks named by the tables that follow it.
        let mut sectors = None;
        // A table was damaged; its copy should follow.
        let mut lacks = false;
        loop {
            limits.control.checkpoint()?;
            self.count += 1;
            let described = self.count.saturating_mul(SECTION_LEN);
            limits.policy.check_table("List of sections", described)?;
            if at.checked_add(SECTION_LEN).is_none_or(|end| end > len) {
                return Err(ends_early(number));
            }
            let mut bytes = [0; SECTION_LEN as usize];
            segment.storage.read_at(&mut bytes, at)?;
            let section = Section::from_bytes(&bytes, at)?;
            if section.is_last() && lacks {
                return Err(no_table(number));
            }
            if section.is_last() {
                self.ended = section.data();
                return Ok(match &*section.kind {
                    b"done" => End::Done,
                    _ => End::Next,
                });
            }
            if section.next < section.data() || section.next > len {
                return Err(ends_early(number).with_offset(at));
            }
            let end = start + section.next;
            match &*section.kind {
                b"sectors" => sectors = Some(end),
                kind @ (b"table" | b"table2") => {
                    let header = table_header(segment, section.data())?;
                    match header {
                        Some(header) if kind == b"table2" && !lacks => {
                            self.copy(header, start, &section);
                        }
                        Some(header) => {
                            let data_end = sectors.unwrap_or(end);
                            self.add(header, start, &section, data_end, limits)?;
                            lacks = false;
                        }
                        None if kind == b"table2" && !lacks => {}
                        None if lacks => return Err(no_table(number)),
                        None => lacks = true,
                    }
                }
                b"volume" | b"disk" if self.volume.is_none() => {
                    let data = data(segment, &section, MAX_VOLUME)?;
                    self.volume = Some(Volume::from_bytes(&data)?);
                }
                kind => {
                    if let Some(len) = Hashes::wants(kind) {
                        let data = data(segment, &section, len as u64)?;
                        self.hashes.add(kind, &data);
                    }
                }
            }
            at = section.next;
        }
    }

    fn add(
        &mut self,
        header: TableHeader,
        start: u64,
        section: &Section,
        data_end: u64,
        limits: &Limits<'_>,
    ) -> Result<()> {
        let at = start + section.data();
        let count = u64::from(header.count);
        let entries = at + TABLE_HEADER_LEN as u64;
        let len = count * ENTRY_LEN;
        limits.policy.check_table("Table of chunks", len)?;
        let base = start.checked_add(header.base);
        let end = entries.checked_add(len);
        let (Some(base), true) = (base, end.is_some_and(|end| end <= start + section.next)) else {
            let why = format!("The table of chunks at {} has no room", section.at);
            return Err(Error::corrupt(why).with_offset(section.at));
        };
        let first = self.tables.last().map_or(0, |table| table.end);
        let table = Table {
            first,
            end: first + count,
            entries,
            copy: None,
            base,
            data_end,
        };
        memory::push(&mut self.tables, table)
    }

    /// Records the copy of the previous table.
    fn copy(&mut self, header: TableHeader, start: u64, section: &Section) {
        let at = start + section.data() + TABLE_HEADER_LEN as u64;
        if let Some(table) = self.tables.last_mut()
            && table.entries < at
            && table.count() == u64::from(header.count)
            && table.copy.is_none()
        {
            table.copy = Some(at);
        }
    }
}

fn table_header(segment: &SizedStorage, at: u64) -> Result<Option<TableHeader>> {
    let mut bytes = [0; TABLE_HEADER_LEN];
    segment.storage.read_at(&mut bytes, at)?;
    Ok(TableHeader::from_bytes(&bytes).ok())
}

fn data(segment: &SizedStorage, section: &Section, most: u64) -> Result<memory::IoBuf> {
    let len = (section.next - section.data()).min(most);
    let mut bytes = memory::zeroed(len as usize)?;
    segment.storage.read_at(&mut bytes, section.data())?;
    Ok(bytes)
}

fn no_table(number: u16) -> Error {
    Error::corrupt(format!(
        "Segment {number} of the image is damaged: neither a table of chunks nor its copy has its checksum"
    ))
}

fn ends_early(number: u16) -> Error {
    Error::corrupt(format!(
        "Segment {number} of the image is damaged: its sections do not end where they should"
    ))
}
