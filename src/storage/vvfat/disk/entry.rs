//! Entries of directories (section "FAT Directory Structure").

use super::time;

/// Bytes of an entry.
pub(in super::super) const LEN: usize = 32;

/// A name of eight and three characters, padded with blanks.
pub(in super::super) type ShortName = [u8; 11];

pub(in super::super) const READ_ONLY: u8 = 0x01;
pub(in super::super) const VOLUME: u8 = 0x08;
pub(in super::super) const DIRECTORY: u8 = 0x10;
pub(in super::super) const ARCHIVE: u8 = 0x20;

/// The directory itself, and the one above it.
pub(in super::super) const DOT: ShortName = *b".          ";
pub(in super::super) const DOT_DOT: ShortName = *b"..         ";

/// What an entry with a short name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub(in super::super) name: ShortName,
    pub(in super::super) attributes: u8,
    /// When it was written, in seconds since 1970.
    pub(in super::super) modified: i64,
    pub(in super::super) cluster: u32,
    pub(in super::super) size: u32,
}

impl Entry {
    pub(in super::super) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, from: &[u8]| bytes[at..at + from.len()].copy_from_slice(from);
        let (date, time) = time::of_seconds(self.modified);
        let (date, time) = (date.to_le_bytes(), time.to_le_bytes());
        put(0, &self.name);
        put(11, &[self.attributes]);
        put(14, &time);
        put(16, &date);
        put(18, &date);
        put(20, &((self.cluster >> 16) as u16).to_le_bytes());
        put(22, &time);
        put(24, &date);
        put(26, &(self.cluster as u16).to_le_bytes());
        put(28, &self.size.to_le_bytes());
        bytes
    }
}
