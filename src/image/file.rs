//! The file of an image alone, for looking at it without opening the image.

use std::sync::Arc;

use crate::error::{Error, Result, ResultExt};
use crate::image::plan::{Plan, Source};
use crate::image::{OpenOptions, host, lock};
use crate::location::Location;
use crate::storage::Storage;

/// The file at a location, open for reading, and the format that the location or the options name.
/// Nothing else is opened; no lock is taken.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] where the location describes more than a file, or of the open.
pub fn open_file(
    location: &Location,
    options: &OpenOptions,
) -> Result<(Arc<dyn Storage>, Option<String>)> {
    let open = || {
        let plan = Plan::new(location, options.format.as_deref())?;
        let (Source::Host(file) | Source::Bare(file)) = &plan.source else {
            return Err(Error::invalid(
                "Only a file can be inspected, not an image inside another",
            ));
        };
        let opened = host::open(file, false, false, options)?;
        let bare = matches!(plan.source, Source::Bare(_));
        let format = if bare {
            Some("raw".to_owned())
        } else {
            plan.format
        };
        Ok((opened.storage, format))
    };
    open().context(|| format!("Could not open '{}'", location.display()))
}

/// Changes the locks of a creator to those of who writes to the image.
///
/// # Errors
/// [`crate::ErrorKind::Locked`].
pub(crate) fn lock_for_writing(storage: &dyn Storage, has_metadata: bool) -> Result<()> {
    storage.lock(lock::of_image(lock::Use {
        has_metadata,
        writable: true,
        metadata_only: false,
        deny_writers: false,
        force_share: false,
    }))
}

/// Takes the locks of a read-only look at metadata: nobody may change what was judged while it is
/// being judged.
///
/// # Errors
/// [`crate::ErrorKind::Locked`].
pub fn lock_for_inspection(
    storage: &dyn Storage,
    has_metadata: bool,
    options: &OpenOptions,
) -> Result<()> {
    storage.lock(lock::of_image(lock::Use {
        has_metadata,
        writable: false,
        metadata_only: true,
        deny_writers: options.deny_writers,
        force_share: options.force_share,
    }))
}
