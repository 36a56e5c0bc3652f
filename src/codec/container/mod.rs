//! Compressed files: whole files, as compression tools write them.
//!
//! An [`Unpacker`] decompresses one from beginning to end, as its own tool does: consecutive members make up one file,
//! and checksums are verified.

mod bzip2_blocks;
mod fault;
mod index;
mod input;
mod length;
mod lz4_blocks;
mod member;
mod members_ahead;
#[cfg(test)]
mod packers;
mod part;
mod read_at;
mod ready;
mod unpack;
mod xz_index;
mod zstd_table;

pub use index::Index;
pub use input::Source;
pub use length::known_len;
pub use read_at::ReadAt;
pub use unpack::Unpacker;

use crate::bytes::le32;

/// Any file may expand to this length, however small it is.
const FREE: u64 = 1 << 30;

/// Number of bytes at the beginning of a file that identify its kind.
pub const HEAD: usize = 512;

/// A kind of compressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// xz.
    Xz,
    /// gzip, including files in blocks (bgzip).
    Gzip,
    /// bzip2.
    Bzip2,
    /// zstd.
    Zstd,
    /// lz4, in frames.
    Lz4,
}

const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const GZIP: &[u8] = &[0x1f, 0x8b, 8];
const BZIP2: &[u8] = b"BZh";
const ZSTD: u32 = 0xfd2f_b528;
const LZ4: u32 = 0x184d_2204;
const LZ4_LEGACY: u32 = 0x184c_2102;
/// The first of sixteen magic numbers of skippable frames, in files of zstd and lz4.
const SKIPPED: u32 = 0x184d_2a50;

impl Container {
    /// All kinds, by name.
    pub const ALL: [Self; 5] = [Self::Bzip2, Self::Gzip, Self::Lz4, Self::Xz, Self::Zstd];

    /// The name of its tool.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// The kind of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Recognises the kind of a file by its beginning; [`HEAD`] bytes are enough.
    pub fn recognise(head: &[u8]) -> Option<Self> {
        if head.starts_with(XZ) {
            return Some(Self::Xz);
        }
        if head.starts_with(GZIP) {
            return Some(Self::Gzip);
        }
        if head.starts_with(BZIP2) && matches!(head.get(3), Some(b'1'..=b'9')) {
            let next = head.get(4..10)?;
            let block = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
            let end = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
            return (next == block || next == end).then_some(Self::Bzip2);
        }
        let mut at = 0usize;
        loop {
            match le32(head, at)? {
                ZSTD => return Some(Self::Zstd),
                LZ4 | LZ4_LEGACY => return Some(Self::Lz4),
                mark if is_skipped(mark) => {
                    let len = le32(head, at.checked_add(4)?)?;
                    at = at.checked_add(8)?.checked_add(len as usize)?;
                }
                _ => return None,
            }
        }
    }
}

fn is_skipped(mark: u32) -> bool {
    mark & !0xf == SKIPPED
}

/// Maximum size of a part that is unpacked separately, given that several are in memory.
fn max_part(max_memory: u64) -> u64 {
    (max_memory / 8).min(u64::from(u32::MAX >> 1))
}

/// The checksum that lz4 uses.
fn sum32(bytes: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, bytes)
}

#[cfg(test)]
mod tests;
