//! Block tables in the resource fork: resources of the type `blkx`.

use crate::bytes::{array, be16, be32};
use crate::error::{Error, Result};

use super::mish::TableReader;

/// The type of block tables.
const TABLES: [u8; 4] = *b"blkx";

/// Passes each table of the fork to `tables`.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the fork is damaged, or those of [`TableReader::add`].
pub(in super::super) fn tables_of_fork(fork: &[u8], tables: &mut TableReader<'_>) -> Result<()> {
    let (list, count) = list(fork).ok_or_else(damaged)?;
    for n in 0..count {
        let table = resource(fork, list + n * 12).ok_or_else(damaged)?;
        tables.add(table)?;
    }
    Ok(())
}

fn damaged() -> Error {
    Error::corrupt("The resource fork is damaged")
}

/// The offset of the list of block tables, and the number of its entries.
fn list(fork: &[u8]) -> Option<(usize, usize)> {
    let map = be32(fork, 4)? as usize;
    let types = map.checked_add(usize::from(be16(fork, map.checked_add(24)?)?))?;
    // Stored as the number minus one.
    let count = usize::from(be16(fork, types)?.wrapping_add(1));
    for n in 0..count {
        let entry = types.checked_add(2 + n * 8)?;
        if array(fork, entry)? == TABLES {
            let list = types.checked_add(usize::from(be16(fork, entry + 6)?))?;
            return Some((list, usize::from(be16(fork, entry + 4)?) + 1));
        }
    }
    // Without tables there are no chunks.
    Some((0, 0))
}

/// The resource to which an entry points.
fn resource(fork: &[u8], entry: usize) -> Option<&[u8]> {
    let data = be32(fork, 0)? as usize;
    // A byte of flags precedes the offset.
    let offset = be32(fork, entry.checked_add(4)?)? & 0xff_ffff;
    let at = data.checked_add(offset as usize)?;
    let len = be32(fork, at)? as usize;
    let from = at.checked_add(4)?;
    fork.get(from..from.checked_add(len)?)
}
