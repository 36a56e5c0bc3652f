//! Markers in streams, which precede each compressed grain and each table.
//! Specification: VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".

use crate::bytes::{le32, le64, put};
use crate::size::SECTOR;

/// Length of the marker before the compressed data of a grain.
pub(in crate::format::vmdk) const GRAIN_MARKER: usize = 12;

/// The kinds of markers without a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) enum Special {
    /// Nothing follows.
    EndOfStream = 0,
    /// A grain table follows.
    Table = 1,
    /// The grain directory follows.
    Directory = 2,
    /// The footer follows.
    Footer = 3,
    /// Reports the progress of the writer.
    Progress = 4,
}

impl Special {
    const ALL: [Self; 5] = [
        Self::EndOfStream,
        Self::Table,
        Self::Directory,
        Self::Footer,
        Self::Progress,
    ];

    /// The kind of a marker without a grain.
    pub(in crate::format::vmdk) fn of(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| is_special(bytes, *kind))
    }
}

/// The marker before a compressed grain: its first guest sector, and the length of the data that follows.
pub(in crate::format::vmdk) fn grain_marker(sector: u64, len: u32) -> [u8; GRAIN_MARKER] {
    let mut bytes = [0; GRAIN_MARKER];
    let _ = put(&mut bytes, 0, &sector.to_le_bytes());
    let _ = put(&mut bytes, 8, &len.to_le_bytes());
    bytes
}

/// The guest sector and the length of the data in a grain marker.
pub(in crate::format::vmdk) fn parse_grain(bytes: &[u8]) -> Option<(u64, u32)> {
    Some((le64(bytes, 0)?, le32(bytes, 8)?))
}

/// A marker that announces this many sectors of a kind.
pub(in crate::format::vmdk) fn special(kind: Special, sectors: u64) -> [u8; SECTOR as usize] {
    let mut bytes = [0; SECTOR as usize];
    let _ = put(&mut bytes, 0, &sectors.to_le_bytes());
    let _ = put(&mut bytes, 12, &(kind as u32).to_le_bytes());
    bytes
}

/// Whether the bytes are a marker of that kind.
pub(in crate::format::vmdk) fn is_special(bytes: &[u8], kind: Special) -> bool {
    le32(bytes, 8) == Some(0) && le32(bytes, 12) == Some(kind as u32)
}
