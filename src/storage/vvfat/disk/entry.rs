//! Directory entries (section "FAT Directory Structure").

use super::time;

/// Size of an entry in bytes.
pub(in super::super) const LEN: usize = 32;

/// A name of eight and three characters, padded with blanks.
pub(in super::super) type ShortName = [u8; 11];

pub(in super::super) const READ_ONLY: u8 = 0x01;
pub(in super::super) const VOLUME: u8 = 0x08;
pub(in super::super) const DIRECTORY: u8 = 0x10;
pub(in super::super) const ARCHIVE: u8 = 0x20;

/// Names of the entries for the directory itself and for its parent.
pub(in super::super) const DOT: ShortName = *b".          ";
pub(in super::super) const DOT_DOT: ShortName = *b"..         ";

/// First byte of an entry that ends the directory, and of one that was deleted.
pub(in super::super) const END: u8 = 0;
pub(in super::super) const DELETED: u8 = 0xe5;

/// Windows NT's flags for a base name, or an extension, in lower case.
const SMALL_NAME: u8 = 0x08;
const SMALL_EXTENSION: u8 = 0x10;

/// The contents of an entry with a short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub(in super::super) name: ShortName,
    pub(in super::super) attributes: u8,
    /// Whether the base name, and the extension, are in lower case.
    pub(in super::super) small: (bool, bool),
    /// When it was last written, in seconds since 1970.
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

    /// `wide`: cluster numbers have 32 bits. The modification time is not read.
    pub(in super::super) fn from_bytes(bytes: &[u8; LEN], wide: bool) -> Self {
        let pair = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let high = if wide { u32::from(pair(20)) << 16 } else { 0 };
        let mut name = [0; 11];
        name.copy_from_slice(&bytes[..11]);
        Self {
            name,
            attributes: bytes[11],
            small: (
                bytes[12] & SMALL_NAME != 0,
                bytes[12] & SMALL_EXTENSION != 0,
            ),
            modified: 0,
            cluster: high | u32::from(pair(26)),
            size: u32::from(pair(28)) | u32::from(pair(30)) << 16,
        }
    }
}
