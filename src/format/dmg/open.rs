//! Opening: the trailer, and the tables to which it points.

use crate::error::{Error, Result};
use crate::format::footer;
use crate::memory;
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use super::disk::{
    MAGIC, TRAILER_LEN, TableReader, Tables, Trailer, tables_of_fork, tables_of_plist,
};

/// The trailer of the image, if it has one.
///
/// # Errors
/// Those of [`Trailer::from_bytes`], or if reading fails.
pub(super) fn find_trailer(storage: &dyn Storage, file_len: u64) -> Result<Option<Trailer>> {
    let Some(at) = footer::find(storage, file_len, MAGIC)? else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER_LEN];
    storage.read_at(&mut bytes, at)?;
    Trailer::from_bytes(&bytes, at).map(Some)
}

/// As [`find_trailer`], for a file that is useless without one.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if there is none, otherwise those of [`find_trailer`].
pub(super) fn read_trailer(storage: &dyn Storage, file_len: u64) -> Result<Trailer> {
    if file_len == 0 {
        return Err(Error::corrupt("dmg file must be at least 512 bytes long"));
    }
    find_trailer(storage, file_len)?
        .ok_or_else(|| Error::corrupt("Could not locate UDIF trailer in dmg file"))
}

/// Reads the tables of the image.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Limit`] under the policy, or if reading fails.
pub(super) fn read_tables(
    storage: &dyn Storage,
    trailer: &Trailer,
    policy: &OpenPolicy,
) -> Result<Tables> {
    let mut tables = TableReader::new(policy, trailer.data.0);
    let (name, (at, len)) = match trailer.fork.1 {
        0 => ("Property list", trailer.plist),
        _ => ("Resource fork", trailer.fork),
    };
    if len == 0 {
        return Err(Error::corrupt(
            "The image has neither a property list nor a resource fork that tells where its data is",
        ));
    }
    policy.check_table(name, len)?;
    let mut bytes = memory::zeroed(usize::try_from(len).map_err(|_| memory::lack())?)?;
    storage.read_at(&mut bytes, at)?;
    match trailer.fork.1 {
        0 => tables_of_plist(&bytes, &mut tables)?,
        _ => tables_of_fork(&bytes, &mut tables)?,
    }
    drop(bytes);
    Ok(tables.into_tables())
}
