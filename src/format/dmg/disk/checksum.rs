//! Checksums in the trailer and in block tables: a kind, a number of bits, the value.

use crate::bytes::be32;

const NONE: u32 = 0;
const CRC32: u32 = 2;

/// The recorded checksum of a part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Checksum {
    /// None is recorded.
    None,
    /// A CRC-32.
    Crc32(u32),
    /// A checksum of a kind that is not compared.
    Other(u32),
}

impl Checksum {
    /// Decodes the structure at an offset.
    pub(super) fn from_bytes(bytes: &[u8], at: usize) -> Self {
        let word = |n: usize| be32(bytes, at + n * 4).unwrap_or_default();
        match (word(0), word(1)) {
            (NONE, _) => Self::None,
            (CRC32, 32) => Self::Crc32(word(2)),
            (kind, _) => Self::Other(kind),
        }
    }
}
