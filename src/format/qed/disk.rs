//! The header of a QED file ("Header" of the specification) and the location of its clusters.

use crate::bytes::{le32, le64, put};
use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{BAD, Coding, Entry, FREE, Layout, ZERO};
use crate::size::SECTOR;

/// The first bytes of a file.
pub(super) const MAGIC: &[u8; 4] = b"QED\0";

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 64;

/// Length of a table entry in bytes.
pub(super) const ENTRY: u64 = 8;

/// The entry of a cluster that reads as zeroes.
pub(super) const ZERO_CLUSTER: u64 = 1;

bitflags::bitflags! {
    /// Features that a program must know to use the image ("Feature bits").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct FeatureBits: u64 {
        /// There is a backing file.
        const BACKING_FILE = 1;
        /// The image was not closed; it must be checked before it is changed.
        const NEED_CHECK = 2;
        /// The backing file is a raw disk.
        const BACKING_IS_RAW = 4;
    }
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster_size: u32,
    /// Clusters per table.
    pub(super) table_size: u32,
    /// Clusters before the first one that tables can name.
    pub(super) header_size: u32,
    pub(super) features: FeatureBits,
    /// Features that a program need not know.
    pub(super) compatible: u64,
    /// Features that a writer must clear if it does not know them.
    pub(super) autoclear: u64,
    /// Offset of the upper table.
    pub(super) table_offset: u64,
    /// The virtual size.
    pub(super) size: u64,
    /// Offset of the name of the backing file.
    pub(super) name_offset: u32,
    pub(super) name_len: u32,
}

impl Header {
    /// Decodes the header; what a short file lacks counts as zeroes.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`] if it is none, [`crate::ErrorKind::Unsupported`] for features.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut head = [0; HEADER_LEN];
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        if !head.starts_with(MAGIC) {
            return Err(Error::new(ErrorKind::NotAnImage, "Image not in QED format"));
        }
        let number = |at| le32(&head, at).unwrap_or(0);
        let long = |at| le64(&head, at).unwrap_or(0);
        let bits = long(16);
        let features = FeatureBits::from_bits(bits).ok_or_else(|| {
            let unknown = bits & !FeatureBits::all().bits();
            Error::unsupported(format!("Unsupported QED features: {unknown:x}"))
        })?;
        Ok(Self {
            cluster_size: number(4),
            table_size: number(8),
            header_size: number(12),
            features,
            compatible: long(24),
            autoclear: long(32),
            table_offset: long(40),
            size: long(48),
            name_offset: number(56),
            name_len: number(60),
        })
    }

    /// Checks that the fields are consistent with each other and with a file of that length.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], in QEMU's words.
    pub(super) fn check(&self, file_len: u64) -> Result<()> {
        let bad = |what: &str| Err(Error::corrupt(format!("QED {what} is invalid")));
        if !is_cluster_size(u64::from(self.cluster_size)) {
            return bad("cluster size");
        }
        if !is_table_size(u64::from(self.table_size)) {
            return bad("table size");
        }
        if !self.can_hold(self.size) {
            return bad("image size");
        }
        let fits = self.table_offset >= self.start()
            && self
                .table_offset
                .is_multiple_of(u64::from(self.cluster_size))
            && self
                .table_offset
                .checked_add(self.table_len())
                .is_some_and(|end| end <= file_len);
        if !fits {
            return bad("table offset");
        }
        let name_end = u64::from(self.name_offset) + u64::from(self.name_len);
        // A name that overlaps the header fields would change when they are next written.
        let has_place = self.name_len == 0 || self.name_offset as usize >= HEADER_LEN;
        let ends_within = name_end <= u64::from(self.header_size) * u64::from(self.cluster_size);
        if self.features.contains(FeatureBits::BACKING_FILE) && !(has_place && ends_within) {
            return bad("backing filename offset");
        }
        Ok(())
    }

    /// Whether an image of that virtual size is possible.
    pub(super) fn can_hold(&self, size: u64) -> bool {
        size.is_multiple_of(SECTOR)
            && u128::from(size) <= u128::from(most_size(self.cluster_size, self.table_size))
    }

    /// Length of a table in bytes.
    pub(super) fn table_len(&self) -> u64 {
        u64::from(self.table_size) * u64::from(self.cluster_size)
    }

    /// Entries per table.
    pub(super) fn per_table(&self) -> u64 {
        self.table_len() / ENTRY
    }

    /// The first offset that tables can name.
    pub(super) fn start(&self) -> u64 {
        u64::from(self.header_size.max(1)) * u64::from(self.cluster_size)
    }

    /// Whether a table may be located there in a file of that length.
    pub(super) fn is_table_place(&self, host: u64, file_len: u64) -> bool {
        host.is_multiple_of(u64::from(self.cluster_size))
            && host >= self.start()
            && host
                .checked_add(self.table_len())
                .is_some_and(|end| end <= file_len)
    }

    /// How entries are encoded in the tables.
    pub(super) fn coding(&self) -> Coding {
        Coding::Offsets {
            bits: self.cluster_size.trailing_zeros(),
        }
    }

    /// Number of clusters of the virtual disk.
    pub(super) fn clusters(&self) -> u64 {
        self.size.div_ceil(u64::from(self.cluster_size))
    }

    /// The bytes of the header.
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        for (at, value) in [
            (4, self.cluster_size),
            (8, self.table_size),
            (12, self.header_size),
            (56, self.name_offset),
            (60, self.name_len),
        ] {
            // The fields lie within the header.
            let _ = put(&mut bytes, at, &value.to_le_bytes());
        }
        for (at, value) in [
            (16, self.features.bits()),
            (24, self.compatible),
            (32, self.autoclear),
            (40, self.table_offset),
            (48, self.size),
        ] {
            let _ = put(&mut bytes, at, &value.to_le_bytes());
        }
        let _ = put(&mut bytes, 0, MAGIC);
        bytes
    }
}

/// Whether clusters may have that size.
pub(super) fn is_cluster_size(size: u64) -> bool {
    size.is_power_of_two() && (1 << 12..=1 << 26).contains(&size)
}

/// Whether tables may have that many clusters.
pub(super) fn is_table_size(size: u64) -> bool {
    size.is_power_of_two() && (1..=16).contains(&size)
}

/// The maximum virtual size; files end at [`i64::MAX`].
pub(super) fn most_size(cluster_size: u32, table_size: u32) -> u64 {
    let per_table = u128::from(cluster_size) * u128::from(table_size) / u128::from(ENTRY);
    let most = per_table * per_table * u128::from(cluster_size);
    most.min(1 << 63) as u64 - u64::from(most >= 1 << 63) * SECTOR
}

/// Clusters of one size, each at a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QedLayout {
    bits: u32,
    start: u64,
}

impl QedLayout {
    pub(super) fn of(header: &Header) -> Self {
        Self {
            bits: header.cluster_size.trailing_zeros(),
            start: header.start(),
        }
    }
}

impl Layout for QedLayout {
    fn block_size(&self) -> u64 {
        1 << self.bits
    }

    fn lead(&self) -> u64 {
        0
    }

    fn start(&self) -> u64 {
        self.start
    }

    fn entry(&self, word: u32) -> Entry {
        match word {
            FREE => Entry::Free,
            ZERO => Entry::Zero,
            BAD => Entry::Bad,
            word => Entry::At(u64::from(word) << self.bits),
        }
    }

    fn vet(&self, word: u32, file_len: u64) -> u32 {
        match self.entry(word) {
            Entry::At(host) if host < self.start || host >= file_len => BAD,
            _ => word,
        }
    }

    fn word(&self, host: u64) -> Option<u32> {
        u32::try_from(host >> self.bits)
            .ok()
            .filter(|word| *word < BAD)
    }

    fn zero_word(&self) -> Option<u32> {
        Some(ZERO)
    }

    fn shows_free(&self) -> bool {
        true
    }

    fn next(&self, end: u64) -> u64 {
        end.max(self.start).next_multiple_of(self.block_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            cluster_size: 1 << 16,
            table_size: 4,
            header_size: 1,
            features: FeatureBits::BACKING_FILE | FeatureBits::BACKING_IS_RAW,
            compatible: 1,
            autoclear: 2,
            table_offset: 1 << 16,
            size: 3 << 20,
            name_offset: 64,
            name_len: 5,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = header();
        assert_eq!(Header::from_bytes(&header.to_bytes()).unwrap(), header);
        assert!(header.check(5 << 16).is_ok());
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        type Damage = fn(&mut Header);
        let cases: [(&str, Damage); 9] = [
            ("cluster size", |header| header.cluster_size = 2048),
            ("cluster size", |header| header.cluster_size = 5000),
            ("table size", |header| header.table_size = 32),
            ("table size", |header| header.table_size = 0),
            ("image size", |header| header.size = 1 << 47),
            ("table offset", |header| header.table_offset = 0),
            ("table offset", |header| header.table_offset = 2 << 16),
            ("backing filename offset", |header| {
                header.name_len = u32::MAX
            }),
            ("backing filename offset", |header| header.name_offset = 63),
        ];
        for (what, damage) in cases {
            let mut header = header();
            damage(&mut header);
            let error = header.check(5 << 16).unwrap_err();
            assert_eq!(error.to_string(), format!("QED {what} is invalid"));
        }
        let mut bytes = header().to_bytes();
        bytes[16] = 0x18;
        let error = Header::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "Unsupported QED features: 18");
    }

    #[test]
    fn the_largest_size_follows_from_the_tables() {
        assert_eq!(most_size(1 << 16, 4), 64 << 40);
        assert_eq!(most_size(1 << 12, 1), 1 << 30);
        assert_eq!(most_size(1 << 26, 16), (1 << 63) - 512);
    }
}
