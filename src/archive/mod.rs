//! Tar archives: their members, read in place, and the blocks around the members of a new one.

mod read;
mod write;

pub(crate) use read::{Member, is_archive, visit_members};
pub(crate) use write::{END, header, padded};

/// An archive is a sequence of blocks of this many bytes.
pub(crate) const BLOCK: u64 = 512;
