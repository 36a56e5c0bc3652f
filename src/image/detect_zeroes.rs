//! Whether zeroes are detected in written data.

use crate::error::{Error, Result};

/// Whether zeroes are detected in written data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// No.
    #[default]
    Off,
    /// They are written as zeroes without data.
    On,
    /// They may become holes.
    Unmap,
}

impl DetectZeroes {
    /// The setting with that name: `off`, `on` or `unmap`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "off" => Self::Off,
            "on" => Self::On,
            "unmap" => Self::Unmap,
            other => return Err(Error::invalid_value(other)),
        })
    }
}

/// Refuses to turn zeroes into holes if discards are ignored.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn check_unmapping(zeroes: DetectZeroes, discards: bool) -> Result<()> {
    match zeroes == DetectZeroes::Unmap && !discards {
        true => Err(Error::invalid(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
        )),
        false => Ok(()),
    }
}
