//! Block tables ("mish"): the chunks of a range of sectors.

use std::ops::Range;

use crate::bytes::{be32, be64};
use crate::codec::Packing;
use crate::error::{Error, Result};
use crate::memory;
use crate::policy::OpenPolicy;
use crate::size::SECTOR;

use super::checksum::Checksum;

const MAGIC: &[u8] = b"mish";
const ENTRIES_AT: usize = 204;
const ENTRY_LEN: usize = 40;

const COMMENT: u32 = 0x7fff_fffe;
const END: u32 = 0xffff_ffff;

/// How the bytes of a chunk are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Coding {
    /// They are zeroes.
    Zero,
    /// They were never written: zeroes that are not part of any checksum.
    Free,
    /// Uncompressed.
    Raw,
    /// Compressed.
    Packed(Packing),
    /// In an unknown way.
    Unknown(u32),
}

impl Coding {
    fn of(kind: u32) -> Self {
        match kind {
            0 => Self::Zero,
            2 => Self::Free,
            1 => Self::Raw,
            0x8000_0004 => Self::Packed(Packing::Adc),
            0x8000_0005 => Self::Packed(Packing::Zlib),
            0x8000_0006 => Self::Packed(Packing::Bzip2),
            0x8000_0007 => Self::Packed(Packing::Lzfse),
            0x8000_0008 => Self::Packed(Packing::Xz),
            other => Self::Unknown(other),
        }
    }
}

/// A chunk; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Chunk {
    /// Its first guest byte.
    pub(in super::super) guest: u64,
    /// Its length in guest bytes; not 0.
    pub(in super::super) len: u64,
    /// Its offset in the file.
    pub(in super::super) host: u64,
    /// Its length in the file.
    pub(in super::super) held: u64,
    pub(in super::super) coding: Coding,
}

impl Chunk {
    /// Its end in the guest.
    pub(in super::super) fn end(&self) -> u64 {
        self.guest + self.len
    }
}

/// What applies to all chunks of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Table {
    /// Its first sector.
    pub(in super::super) first: u64,
    /// Its chunks, numbered across all tables.
    pub(in super::super) chunks: Range<usize>,
    /// The checksum of the decoded chunks.
    pub(in super::super) sum: Checksum,
}

/// All tables of an image.
#[derive(Debug, Default)]
pub(in super::super) struct Tables {
    /// In the order in which they are stored.
    pub(in super::super) list: Vec<Table>,
    /// Their chunks, in that order.
    pub(in super::super) chunks: Vec<Chunk>,
}

/// Collects the chunks of block tables.
pub(in super::super) struct TableReader<'a> {
    policy: &'a OpenPolicy,
    data_at: u64,
    /// Total length of the tables so far.
    bytes: u64,
    tables: Tables,
}

impl<'a> TableReader<'a> {
    /// For an image whose data begins at `data_at`.
    pub(in super::super) fn new(policy: &'a OpenPolicy, data_at: u64) -> Self {
        Self {
            policy,
            data_at,
            bytes: 0,
            tables: Tables::default(),
        }
    }

    /// The collected tables.
    pub(in super::super) fn into_tables(self) -> Tables {
        self.tables
    }

    /// Adds the chunks of a table; other resources are ignored.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], or [`crate::ErrorKind::Limit`] under the policy.
    pub(in super::super) fn add(&mut self, table: &[u8]) -> Result<()> {
        let long = |at| be64(table, at).unwrap_or_default();
        if !table.starts_with(MAGIC) || table.len() < ENTRIES_AT {
            return Ok(());
        }
        // A fork may name a table many times.
        self.bytes = self.bytes.saturating_add(table.len() as u64);
        self.policy.check_table("Block tables", self.bytes)?;
        let (first, data_at) = (long(8), long(24));
        let entries = table.get(ENTRIES_AT..).unwrap_or_default();
        let Tables { list, chunks } = &mut self.tables;
        let before = chunks.len();
        memory::reserve(chunks, entries.len() / ENTRY_LEN)?;
        // The number of entries stored before them is unreliable.
        for (index, entry) in entries.chunks_exact(ENTRY_LEN).enumerate() {
            let kind = be32(entry, 0).unwrap_or_default();
            let long = |at| be64(entry, at).unwrap_or_default();
            let (sectors, held) = (long(16), long(32));
            if matches!(kind, COMMENT | END) || sectors == 0 {
                continue;
            }
            let outside = || Error::corrupt(format!("Chunk {index} lies outside of any disk"));
            let coding = Coding::of(kind);
            let bytes = |sectors: Option<u64>| sectors.and_then(|n| n.checked_mul(SECTOR));
            let guest = bytes(first.checked_add(long(8))).ok_or_else(outside)?;
            let len = bytes(Some(sectors)).ok_or_else(outside)?;
            guest.checked_add(len).ok_or_else(outside)?;
            if let Coding::Packed(_) = coding {
                self.policy.check_decompressed(len)?;
            }
            let host = [self.data_at, data_at, long(24)];
            let host = host.into_iter().try_fold(0_u64, u64::checked_add);
            memory::push(
                chunks,
                Chunk {
                    guest,
                    len,
                    // An offset past the end of any file is detected on reading.
                    host: host.unwrap_or(u64::MAX),
                    held,
                    coding,
                },
            )?;
        }
        memory::push(
            list,
            Table {
                first,
                chunks: before..chunks.len(),
                sum: Checksum::from_bytes(table, 64),
            },
        )
    }
}
