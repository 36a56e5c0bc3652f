//! What stands in the file.

mod directory;
mod entry;
mod header;

pub(super) use directory::Directory;
pub(super) use entry::{Entry, State, chunk_of_bitmap};
pub(super) use header::{HEADER_LEN, Header, MAGIC};

/// Bytes of a chunk, in which space is given out; tables take one each.
pub(super) const CHUNK: u64 = 1 << 20;

/// Chunks of a group: the entries of a table stand in groups, each followed by that of a bitmap.
pub(super) const GROUP: u64 = 2048;

/// Bytes of a group of entries.
pub(super) const GROUP_LEN: u64 = (GROUP + 1) * 8;

/// Groups of a table.
pub(super) const GROUPS: u64 = CHUNK / GROUP_LEN;

/// Guest bytes that a table covers.
pub(super) const COVERED: u64 = GROUPS * GROUP * CHUNK;

/// Bytes of a bitmap for one chunk: two bits for each sector.
pub(super) const STATES_LEN: u64 = CHUNK / crate::size::SECTOR / 4;
