//! The structures in the file.

mod directory;
mod entry;
mod header;

pub(super) use directory::Directory;
pub(super) use entry::{Entry, State, chunk_of_bitmap};
pub(super) use header::{HEADER_LEN, Header, MAGIC};

/// Size of a chunk in bytes; space is allocated in chunks, and each table takes up one.
pub(super) const CHUNK: u64 = 1 << 20;

/// Chunks per group: the entries of a table form groups, each followed by the entry of its bitmap.
pub(super) const GROUP: u64 = 2048;

/// Length of a group of entries in bytes.
pub(super) const GROUP_LEN: u64 = (GROUP + 1) * 8;

/// Groups per table.
pub(super) const GROUPS: u64 = CHUNK / GROUP_LEN;

/// Guest bytes that a table covers.
pub(super) const COVERED: u64 = GROUPS * GROUP * CHUNK;

/// Bytes of a bitmap per chunk: two bits for each sector.
pub(super) const STATES_LEN: u64 = CHUNK / crate::size::SECTOR / 4;
