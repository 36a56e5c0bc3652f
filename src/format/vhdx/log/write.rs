//! Writes log entries. Each is a sequence of its own: by the time it is written, everything before it has been carried
//! out durably. None is longer than half the log, so that the previous one stays intact until the next one is complete:
//! a crash never brings back an older one.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::memory;
use crate::storage::Storage;

use super::super::disk::{
    DATA_SECTOR, DESCRIPTOR_LEN, Descriptor, ENTRY_HEADER_LEN, EntryHeader, data_sector,
    descriptors_len, seal,
};
use super::scan::LogArea;

const SECTOR: u64 = DATA_SECTOR as u64;
/// Maximum number of pages in an entry of a flush: more do not make it faster.
const MAX_PAGES: u64 = 1024;

/// Offset of a page, and its new content.
pub(in super::super) type NewPage = (u64, Box<[u8; DATA_SECTOR]>);

impl LogArea {
    /// Maximum number of pages in an entry of a log of this length.
    pub(in super::super) fn room(&self) -> u64 {
        let sectors = self.len / 2 / SECTOR;
        let mut pages = sectors.saturating_sub(1);
        while pages > 0 && descriptors_len(pages) / SECTOR + pages > sectors {
            pages -= 1;
        }
        pages
    }
}

/// The log of an image that is open for writing.
#[derive(Debug)]
pub(in super::super) struct LogWriter {
    area: LogArea,
    /// The GUID of this session's entries.
    log: Uuid,
    /// Offset in the log of the next entry.
    at: u64,
    sequence: u64,
    /// The header refers to the log.
    pub(in super::super) active: bool,
    /// Pages of the last entry that have not been carried out yet.
    pub(in super::super) pending: Vec<NewPage>,
}

impl LogWriter {
    /// A log in which entries of earlier sessions are no longer valid.
    pub(in super::super) fn new(area: LogArea) -> Self {
        Self {
            area,
            log: Uuid::new_v4(),
            at: 0,
            sequence: 1,
            active: false,
            pending: Vec::new(),
        }
    }

    /// The header no longer refers to the log: what comes next is another session.
    pub(in super::super) fn end(&mut self) {
        self.log = Uuid::new_v4();
        self.active = false;
    }

    /// The GUID of this session's entries.
    pub(in super::super) fn guid(&self) -> Uuid {
        self.log
    }

    /// Maximum number of pages in one entry of a flush.
    pub(in super::super) fn most_pages(&self) -> usize {
        self.area.room().min(MAX_PAGES) as usize
    }

    /// Maximum number of pages that fit into an entry.
    pub(in super::super) fn room(&self) -> u64 {
        self.area.room()
    }

    /// Writes an entry for a file that durably has this length. The caller has to make the entry durable, too.
    pub(in super::super) fn write(
        &mut self,
        storage: &dyn Storage,
        pages: &[NewPage],
        file_len: u64,
    ) -> Result<()> {
        let front = descriptors_len(pages.len() as u64);
        let len = front + pages.len() as u64 * SECTOR;
        if len > self.area.len / 2 {
            return Err(Error::new(
                crate::ErrorKind::Internal,
                "An entry is too long for the VHDX log",
            ));
        }
        let header = EntryHeader {
            checksum: 0,
            len: len as u32,
            tail: self.at as u32,
            sequence: self.sequence,
            descriptors: pages.len() as u32,
            log: self.log,
            flushed: file_len,
            last: file_len,
        };
        let mut bytes = memory::zeroed(len as usize)?;
        let (descriptors, data) = bytes.split_at_mut(front as usize);
        let (head, descriptors) = descriptors.split_at_mut(ENTRY_HEADER_LEN);
        head.copy_from_slice(&header.to_bytes());
        for ((place, sector), (offset, page)) in descriptors
            .chunks_exact_mut(DESCRIPTOR_LEN)
            .zip(data.chunks_exact_mut(DATA_SECTOR))
            .zip(pages)
        {
            place.copy_from_slice(&Descriptor::of_page(page, *offset, self.sequence).to_bytes());
            sector.copy_from_slice(&data_sector(page, self.sequence));
        }
        seal(&mut bytes);
        let (front, back) = bytes.split_at((self.area.len - self.at).min(len) as usize);
        storage.write_at(front, self.area.offset + self.at)?;
        if !back.is_empty() {
            storage.write_at(back, self.area.offset)?;
        }
        self.at = (self.at + len) % self.area.len;
        self.sequence += 1;
        Ok(())
    }
}
