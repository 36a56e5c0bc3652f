//! Only the file of an image, for examining it without opening the image.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{ChildSpec, FileRole, registry};
use crate::image::node_plan::{Driver, NodePlan};
use crate::image::{OpenOptions, directory, host, lock};
use crate::location::Location;
use crate::storage::{LockRequest, Storage};

/// Opens the file at a location for reading; returns it with the format named by the location or the options.
/// Nothing else is opened; no lock is taken.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if the location describes more than a file, or if it cannot be opened.
pub fn open_file(
    location: &Location,
    options: &OpenOptions,
) -> Result<(Arc<dyn Storage>, Option<String>)> {
    let open = || {
        let plan = NodePlan::of(location, options)?;
        let file = match plan.child(ChildSpec::FILE.name) {
            Some(child) => child.file()?,
            None => None,
        };
        let format = match &plan.driver {
            Driver::Host(_) => Some(registry::plain().name.to_owned()),
            Driver::Format(driver) => Some(driver.name.to_owned()),
            Driver::Probed | Driver::Filter(_) | Driver::Open(_) => None,
        };
        let file = match file {
            Some(file) => directory::entered(file, &plan.driver),
            None => plan,
        };
        match &file.driver {
            Driver::Host(host) => {
                let node = host::open(host, &file, false, false, options)?;
                Ok((node.storage, format))
            }
            _ => Err(Error::invalid(
                "Only a file can be inspected, not an image inside another",
            )),
        }
    };
    open().map_err(|error| error.could_not_open(location.display()))
}

/// Takes the locks for emptying a file and, for an image file, also those for writing to the image afterwards, so that
/// none has to be acquired after something has changed.
///
/// # Errors
/// [`crate::ErrorKind::Locked`].
pub(crate) fn lock_for_creation(storage: &dyn Storage, role: FileRole, plain: bool) -> Result<()> {
    let creator = lock::of_creator(role == FileRole::Image && !plain);
    storage.lock(creator)?;
    if let Some(host) = storage.host() {
        host.claim(0..u64::MAX)?;
    }
    if role != FileRole::Image {
        return Ok(());
    }
    let writer = lock::of_new_image(!plain);
    storage.lock(LockRequest {
        uses: creator.uses | writer.uses,
        denies: creator.denies | writer.denies,
    })
}

/// Releases the locks that are only needed for emptying a file.
///
/// # Errors
/// None that taking the locks has not already reported.
pub(crate) fn lock_for_writing(storage: &dyn Storage, plain: bool) -> Result<()> {
    storage.lock(lock::of_new_image(!plain))
}

/// Takes the locks for reading metadata: no one may change it during inspection.
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
