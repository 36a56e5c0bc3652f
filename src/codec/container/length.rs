//! How many bytes a compressed file holds, where it says so: nothing is decompressed for it.

use super::Container;
use super::member::{self, Wanted};
use super::read_at::ReadAt;
use super::xz_index;
use super::zstd_table;
use crate::error::Result;

/// How many bytes a file of `len` bytes holds. None where it does not say, or contradicts itself; whoever
/// unpacks it finds out whether it is true. Tables larger than `max_table` are not looked at.
///
/// # Errors
/// Of reading.
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

/// The sum of what the indexes of all streams say.
fn of_xz(read_at: &ReadAt<'_>, len: u64, max_table: u64) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    let is_whole = xz_index::for_each_block(read_at, len, max_table, &mut |block| {
        total = total.and_then(|total| total.checked_add(block.plain));
        Ok(())
    })?;
    Ok(total.filter(|_| is_whole))
}

/// The sum of what the headers of all members say.
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
