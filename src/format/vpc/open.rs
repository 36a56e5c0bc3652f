//! Finding the footer that counts, and the header to which it points.

use crate::error::{Error, ErrorKind, Result};
use crate::format::magic::FOOTERS;
use crate::storage::Storage;

use super::disk::{DiskType, DynamicHeader, FOOTER_LEN, Footer, HEADER_LEN, not_an_image};

/// Which footer of a disk with blocks is missing, damaged or out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Neither.
    None,
    /// The one at the end, which counts if the other is unusable.
    Last,
    /// The one in front, which most programs read.
    Front,
}

/// The footer and the header that were found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) footer: Footer,
    /// The header, of a disk with blocks.
    pub(super) header: Option<DynamicHeader>,
    /// The offset of the footer of a fixed disk.
    pub(super) footer_at: u64,
    pub(super) damage: Damage,
}

/// Reads the footers: the one at the end decides whether the disk is fixed; otherwise the one in front counts, if it is
/// intact.
///
/// # Errors
/// [`ErrorKind::NotAnImage`] if there is none, [`ErrorKind::Corrupt`], or if reading fails.
pub(super) fn find(storage: &dyn Storage, file_len: u64) -> Result<Found> {
    // A fixed disk has no copy of its footer in front of the data.
    let front = footer_at(storage, file_len, 0)?.and_then(|footer| match footer.disk_type {
        DiskType::Fixed => Err(Error::corrupt(
            "The footer at the beginning is that of a fixed disk",
        )),
        _ => Ok(footer),
    });
    let (mut last, mut last_at) = (Err(not_an_image()), 0);
    for back in FOOTERS {
        let Some(at) = file_len.checked_sub(back) else {
            continue;
        };
        let found = footer_at(storage, file_len, at)?;
        let better = found.is_ok()
            || last
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::NotAnImage);
        if better {
            (last, last_at) = (found, at);
        }
        if last.is_ok() {
            break;
        }
    }
    if let Ok(footer) = &last
        && footer.disk_type == DiskType::Fixed
    {
        return Ok(Found {
            footer: footer.clone(),
            header: None,
            footer_at: last_at,
            damage: Damage::None,
        });
    }
    let damage = match (&front, &last) {
        (Ok(front), Ok(last)) if front == last => Damage::None,
        (Ok(_), _) => Damage::Last,
        (Err(_), _) => Damage::Front,
    };
    let footer = match (front, last) {
        (Ok(front), _) => front,
        (Err(_), Ok(last)) => last,
        // The error from the footer in front says more, unless there is no footer.
        (Err(front), Err(last)) if front.kind() == ErrorKind::NotAnImage => return Err(last),
        (Err(front), Err(_)) => return Err(front),
    };
    if i64::try_from(footer.data_offset).is_err() {
        return Err(Error::corrupt("Error reading dynamic VHD header"));
    }
    let mut bytes = vec![0; HEADER_LEN];
    if footer.data_offset < file_len {
        storage.read_at(&mut bytes, footer.data_offset)?;
    }
    Ok(Found {
        header: Some(DynamicHeader::from_bytes(&bytes)?),
        footer,
        footer_at: 0,
        damage,
    })
}

/// A fixed disk whose footer seems to have nothing wrong but its checksum: the size in it says that the disk ends where
/// the footer is.
///
/// # Errors
/// If reading fails.
pub(super) fn find_despite_checksum(storage: &dyn Storage, file_len: u64) -> Result<Option<Found>> {
    for at in FOOTERS
        .into_iter()
        .filter_map(|back| file_len.checked_sub(back))
    {
        let mut bytes = vec![0; FOOTER_LEN];
        storage.read_at(&mut bytes, at)?;
        let found = Footer::despite_checksum(&bytes);
        let fits = |footer: &Footer| {
            let sizes = [footer.size(Some(false)), footer.size(Some(true))];
            footer.disk_type == DiskType::Fixed && sizes.contains(&at)
        };
        if let Some(footer) = found.ok().filter(fits) {
            return Ok(Some(Found {
                footer,
                header: None,
                footer_at: at,
                damage: Damage::Last,
            }));
        }
    }
    Ok(None)
}

/// The footer at an offset, or why there is none.
///
/// # Errors
/// If reading fails.
fn footer_at(storage: &dyn Storage, file_len: u64, at: u64) -> Result<Result<Footer>> {
    let mut bytes = vec![0; FOOTER_LEN];
    if file_len.saturating_sub(at) >= FOOTERS[1] {
        storage.read_at(&mut bytes, at)?;
    }
    Ok(Footer::from_bytes(&bytes))
}
