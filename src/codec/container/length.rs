//! The decompressed length of a compressed file, if it is recorded: nothing is decompressed to find it.

use super::Container;
use super::member::{self, Wanted};
use super::read_at::ReadAt;
use super::xz_index;
use super::zstd_table;
use crate::error::Result;

/// The decompressed length of a file of `len` bytes. None if it is not recorded, or is inconsistent; unpacking shows
/// whether it is true. Tables larger than `max_table` are not read.
///
/// # Errors
/// If reading fails.
pub fn known_len(
    kind: Container,
    read_at: &ReadAt<'_>,
    len: u64,
    max_table: u64,
) -> Result<Option<u64>> {
    match kind {
        Container::Xz => of_xz(read_at, len, max_table),
        Container::Zstd => match zstd_table::read(read_at, len, max_table)? {
            Some(frames) => Ok(Some(
                frames.iter().map(|frame| u64::from(frame.plain)).sum(),
            )),
            None => of_members(kind, read_at, len),
        },
        Container::Gzip | Container::Lz4 => of_members(kind, read_at, len),
        Container::Bzip2 => Ok(None),
    }
}

/// The sum of the lengths in the indexes of all streams.
fn of_xz(read_at: &ReadAt<'_>, len: u64, max_table: u64) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    let is_whole = xz_index::for_each_block(read_at, len, max_table, &mut |block| {
        total = total.and_then(|total| total.checked_add(block.plain));
        Ok(())
    })?;
    Ok(total.filter(|_| is_whole))
}

/// The sum of the lengths in the headers of all members.
fn of_members(kind: Container, read_at: &ReadAt<'_>, len: u64) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    let wanted = Wanted {
        limit: u64::MAX >> 1,
        exact: true,
    };
    let is_whole = member::for_each(kind, read_at, len, wanted, &mut |_, member| {
        total = total.and_then(|total| total.checked_add(member.plain.exactly()?));
        Ok(total.is_some())
    })?;
    Ok(total.filter(|_| is_whole))
}
