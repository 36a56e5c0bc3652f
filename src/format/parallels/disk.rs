//! The header of a Parallels image ("Header" of the specification) and the location of its clusters.

use crate::bytes::{le32, le64, put};
use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{BAD, Coding, Entry, FREE, Layout};
use crate::format::driver::Probe;
use crate::size::SECTOR;

/// The first bytes of a file whose table counts sectors.
const MAGIC: &[u8; 16] = b"WithoutFreeSpace";
/// The first bytes of a file whose table counts clusters.
const MAGIC_EXTENDED: &[u8; 16] = b"WithouFreSpacExt";

const VERSION: u32 = 2;

/// Length of the header in bytes; the table follows.
pub(super) const HEADER_LEN: usize = 64;

/// Length of a table entry in bytes.
const ENTRY: u64 = 4;

/// The image is open for writing.
const OPEN: u32 = 0x746f_6e59;
/// It was closed by a program that supports the format extension.
const CLOSED: u32 = 0x312e_3276;

/// The maximum number of entries and the maximum cluster size that QEMU's tools accept.
const MAX_ENTRIES: u64 = i32::MAX as u64 / 4;
const MAX_CLUSTER_SECTORS: u32 = i32::MAX as u32 / 513;

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The table counts clusters, and the size has 64 bits.
    pub(super) extended: bool,
    heads: u32,
    cylinders: u32,
    /// Sectors per cluster.
    pub(super) cluster_sectors: u32,
    /// Number of table entries.
    pub(super) entries: u32,
    /// The virtual size in sectors.
    pub(super) sectors: u64,
    in_use: u32,
    /// Offset of the first cluster in sectors, as stored in the header.
    data_offset: u32,
    flags: u32,
    /// Offset of the format extension in sectors; 0 if there is none.
    pub(super) extension: u64,
}

/// How an image was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It was not closed.
    Open,
    /// By a program that keeps the format extension up to date.
    Whole,
    /// By one that does not support it.
    WithoutExtension,
}

/// See [`crate::format::Signature::fits`].
pub(super) fn fits(file: &Probe<'_>) -> bool {
    (file.starts(MAGIC) || file.starts(MAGIC_EXTENDED)) && le32(file.head, 16) == Some(VERSION)
}

impl Header {
    /// Decodes the header from the beginning of a file.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`] if it is none, [`crate::ErrorKind::Corrupt`] or
    /// [`crate::ErrorKind::Unsupported`], in QEMU's words.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let number = |at| le32(bytes, at).unwrap_or(0);
        let long = |at| le64(bytes, at).unwrap_or(0);
        let extended = bytes.starts_with(MAGIC_EXTENDED);
        if !(extended || bytes.starts_with(MAGIC)) || number(16) != VERSION {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image not in Parallels format",
            ));
        }
        let header = Self {
            extended,
            heads: number(20),
            cylinders: number(24),
            cluster_sectors: number(28),
            entries: number(32),
            sectors: match extended {
                true => long(36),
                false => u64::from(number(36)),
            },
            in_use: number(44),
            data_offset: number(48),
            flags: number(52),
            extension: long(56),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        if self.cluster_sectors == 0 {
            return Err(Error::corrupt("Invalid image: Zero sectors per track"));
        }
        if self.cluster_sectors > MAX_CLUSTER_SECTORS {
            return Err(Error::unsupported("Invalid image: Too big cluster"));
        }
        if u64::from(self.entries) > MAX_ENTRIES {
            return Err(Error::unsupported("Catalog too large"));
        }
        let room = u64::from(self.entries) * u64::from(self.cluster_sectors);
        if self.sectors > room || self.sectors > i64::MAX as u64 / SECTOR {
            return Err(Error::corrupt(format!(
                "The BAT of the Parallels image has room for {room} sectors, the disk has {}",
                self.sectors
            )));
        }
        Ok(())
    }

    /// The header of a new image; None if its table would be too large.
    pub(super) fn new(size: u64, cluster_size: u64) -> Option<Self> {
        let sectors = size.div_ceil(SECTOR);
        let cluster_sectors = u32::try_from(cluster_size.div_ceil(SECTOR)).ok()?;
        if cluster_sectors == 0 || cluster_sectors > MAX_CLUSTER_SECTORS {
            return None;
        }
        let entries = sectors.div_ceil(u64::from(cluster_sectors));
        let entries = u32::try_from(entries).ok()?;
        let mut header = Self {
            extended: true,
            heads: 16,
            cylinders: u32::try_from(sectors / (16 * 32)).unwrap_or(u32::MAX),
            cluster_sectors,
            entries,
            sectors,
            in_use: CLOSED,
            data_offset: 0,
            flags: 0,
            extension: 0,
        };
        (u64::from(entries) <= MAX_ENTRIES).then_some(())?;
        header.set_start(header.usual_start())?;
        Some(header)
    }

    /// How the image was left.
    pub(super) fn closing(&self) -> Closing {
        match self.in_use {
            OPEN => Closing::Open,
            0 => Closing::WithoutExtension,
            _ => Closing::Whole,
        }
    }

    /// Marks the image as open, or as closed in some way.
    pub(super) fn set_closing(&mut self, closing: Closing) {
        self.in_use = match closing {
            Closing::Open => OPEN,
            Closing::Whole => CLOSED,
            Closing::WithoutExtension => 0,
        };
    }

    /// Size of a cluster in bytes.
    pub(super) fn cluster_size(&self) -> u64 {
        u64::from(self.cluster_sectors) * SECTOR
    }

    /// The virtual size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// The end of the table.
    pub(super) fn table_end(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.entries) * ENTRY
    }

    /// The number of entries for which there is room in front of the clusters.
    pub(super) fn room(&self, start: u64) -> u64 {
        start.saturating_sub(HEADER_LEN as u64) / ENTRY
    }

    /// Where the clusters begin with this many entries, unless specified otherwise.
    fn usual_start(&self) -> u64 {
        let unit = if self.extended {
            self.cluster_size()
        } else {
            SECTOR
        };
        self.table_end().next_multiple_of(unit)
    }

    /// Where the clusters begin, and whether the header is right about that.
    pub(super) fn start(&self, file_len: u64) -> (u64, bool) {
        let said = u64::from(self.data_offset) * SECTOR;
        if said == 0 && !self.extended {
            return (self.usual_start(), true);
        }
        let aligned = !self.extended || said.is_multiple_of(self.cluster_size());
        match said >= self.table_end() && said <= file_len && aligned {
            true => (said, true),
            false => (self.usual_start(), false),
        }
    }

    /// Sets where the clusters begin; None if the header cannot express it.
    pub(super) fn set_start(&mut self, start: u64) -> Option<()> {
        self.data_offset = u32::try_from(start / SECTOR).ok()?;
        Some(())
    }

    /// The bytes of the header.
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let magic = if self.extended { MAGIC_EXTENDED } else { MAGIC };
        for (at, value) in [
            (16, VERSION),
            (20, self.heads),
            (24, self.cylinders),
            (28, self.cluster_sectors),
            (32, self.entries),
            (44, self.in_use),
            (48, self.data_offset),
            (52, self.flags),
        ] {
            // The fields lie within the header.
            let _ = put(&mut bytes, at, &value.to_le_bytes());
        }
        let _ = put(&mut bytes, 0, magic);
        let _ = put(&mut bytes, 36, &self.sectors.to_le_bytes());
        let _ = put(&mut bytes, 56, &self.extension.to_le_bytes());
        bytes
    }

    /// Whether the header can hold that many sectors.
    pub(super) fn can_hold(&self, sectors: u64) -> bool {
        let entries = sectors.div_ceil(u64::from(self.cluster_sectors));
        entries <= MAX_ENTRIES
            && sectors <= i64::MAX as u64 / SECTOR
            && (self.extended || u32::try_from(sectors).is_ok())
    }
}

/// How entries are encoded in the table.
pub(super) const CODING: Coding = Coding::FromOne;

/// Clusters of one size; the table counts units of `unit` bytes from the beginning of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParallelsLayout {
    cluster: u64,
    unit: u64,
    /// The first possible place after the table.
    start: u64,
    /// Where clusters begin according to the header, at `start` or after it; new ones are aligned to it.
    said_start: u64,
}

impl ParallelsLayout {
    /// For clusters that begin at `start` according to the header. The table has precedence: what it names before that
    /// is a cluster as well.
    pub(super) fn of(header: &Header, start: u64) -> Self {
        Self {
            start: header.usual_start().min(start),
            cluster: header.cluster_size(),
            unit: match header.extended {
                true => header.cluster_size(),
                false => SECTOR,
            },
            said_start: start,
        }
    }
}

impl Layout for ParallelsLayout {
    fn block_size(&self) -> u64 {
        self.cluster
    }

    fn lead(&self) -> u64 {
        0
    }

    fn start(&self) -> u64 {
        self.start
    }

    fn new_from(&self) -> u64 {
        self.said_start
    }

    fn entry(&self, word: u32) -> Entry {
        match word {
            FREE => Entry::Free,
            BAD => Entry::Bad,
            // No product of these sizes exceeds 64 bits.
            word => Entry::At((u64::from(word) + 1) * self.unit),
        }
    }

    fn vet(&self, word: u32, file_len: u64) -> u32 {
        match self.entry(word) {
            Entry::At(host) if host < self.start || host >= file_len => BAD,
            _ => word,
        }
    }

    fn word(&self, host: u64) -> Option<u32> {
        let word = (host / self.unit).checked_sub(1)?;
        u32::try_from(word).ok().filter(|word| *word < BAD)
    }

    fn zero_word(&self) -> Option<u32> {
        None
    }

    fn shows_free(&self) -> bool {
        true
    }

    fn next(&self, end: u64) -> u64 {
        let end = end.max(self.start);
        let lead = self.said_start % self.cluster;
        let behind = end.saturating_sub(lead);
        lead + behind.next_multiple_of(self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let mut header = Header::new(10 << 20, 1 << 20).unwrap();
        header.extension = 77;
        header.set_closing(Closing::Open);
        assert_eq!(Header::from_bytes(&header.to_bytes()).unwrap(), header);
        assert_eq!(header.closing(), Closing::Open);
        assert_eq!(header.start(1 << 20), (1 << 20, true));
        // If the file ends before the stated start of the data, the usual start counts.
        assert_eq!(header.start(1000), (1 << 20, false));
    }

    #[test]
    fn what_qemu_refuses_is_refused_in_its_words() {
        let cases: [(usize, u32, &str); 5] = [
            (16, 3, "Image not in Parallels format"),
            (28, 0, "Invalid image: Zero sectors per track"),
            (28, 1 << 28, "Invalid image: Too big cluster"),
            (32, u32::MAX, "Catalog too large"),
            (
                32,
                9,
                "The BAT of the Parallels image has room for 18432 sectors, the disk has 20480",
            ),
        ];
        for (at, value, words) in cases {
            let mut bytes = Header::new(10 << 20, 1 << 20).unwrap().to_bytes();
            assert!(put(&mut bytes, at, &value.to_le_bytes()));
            let error = Header::from_bytes(&bytes).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
    }

    #[test]
    fn new_images_have_room_for_their_table() {
        let header = Header::new(10 << 20, 1024).unwrap();
        assert_eq!(header.entries, 10240);
        assert_eq!(header.start(u64::MAX), (41984, true));
        assert!(Header::new(1 << 50, 1 << 20).is_none());
        assert!(Header::new(1 << 20, 0).is_none());
        assert!(Header::new(1 << 20, 1 << 40).is_none());
    }
}
