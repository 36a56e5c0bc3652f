//! Opens the pieces of a disk that an image names.

use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::format::Opener;
use crate::format::inspect::NameTraits;
use crate::policy::ImplicitRole;
use crate::printable::printable;
use crate::storage::Storage;

/// The file of a piece: as the user describes it, else under the name that the image gives, which has to lead
/// to a file beside the image.
///
/// # Errors
/// [`ErrorKind::Denied`] where it leads elsewhere, or by the policy; of the open.
pub(crate) fn open_extent(
    opener: &dyn Opener,
    number: u16,
    name: &BStr,
    writable: bool,
) -> Result<Arc<dyn Storage>> {
    let child = format!("extents.{number}");
    if let Some(file) = opener.child(&child, writable)? {
        return Ok(file);
    }
    let shown = printable(&name.to_str_lossy()).to_string();
    let traits = NameTraits::of(name);
    let elsewhere = || {
        Error::new(
            ErrorKind::Denied,
            format!(
                "The extent '{shown}' is not a file beside the image; an extent elsewhere has to be described as '{child}'"
            ),
        )
    };
    if traits.absolute || traits.parent {
        return Err(elsewhere());
    }
    let file = opener.open_named(ImplicitRole::Extent, name, writable)?;
    match file.limits().fixed_len {
        true => Err(elsewhere()),
        false => Ok(file),
    }
}
