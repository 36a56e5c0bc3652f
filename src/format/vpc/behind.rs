//! What lies past the end of a disk. A footer states the size of its disk in two ways, and either may be wrong, so
//! bytes there may be the user's.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::behind;
use crate::storage::Storage;
use crate::zero::is_zero;

use super::disk::{FOOTER_LEN, Footer};

impl Footer {
    /// The largest size that any program takes the disk to have.
    pub(super) fn largest_size(&self) -> u64 {
        self.size(Some(false)).max(self.size(Some(true)))
    }
}

/// Whether a range of the file holds anything but zeroes and footers of the same disk. Calls `go_on` from time to time.
///
/// # Errors
/// If reading fails, or `go_on` returns an error.
pub(super) fn holds_data(
    storage: &dyn Storage,
    range: Range<u64>,
    own: &Footer,
    go_on: impl FnMut() -> Result<()>,
) -> Result<bool> {
    let is_own = |sector: &[u8]| {
        is_zero(sector) || Footer::from_bytes(sector).is_ok_and(|old| old.uuid == own.uuid)
    };
    let is_left_over = |piece: &[u8]| piece.chunks(FOOTER_LEN).all(is_own);
    behind::holds_data(storage, range, is_left_over, go_on)
}

/// The error for extending a disk over what may be its own data.
pub(super) fn two_sizes(footer: &Footer) -> Error {
    Error::unsupported(format!(
        "The footer says that the disk has {} bytes and that it has {}, and there is data between both ends; convert the image, opened by the size that is right",
        footer.size(Some(true)),
        footer.size(Some(false)),
    ))
}
