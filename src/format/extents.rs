//! Opening the extent files that an image names.

use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::format::Opener;
use crate::format::inspect::NameTraits;
use crate::policy::ImplicitRole;
use crate::printable::printable;
use crate::storage::Storage;

/// Opens an extent file: as described by the user, otherwise under the name given in the image, which must refer to a
/// file in the image's directory.
///
/// # Errors
/// [`ErrorKind::Denied`] if it refers to another place, or by the policy; or if the file cannot be opened.
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
