//! Packages: files in which a product expects an image together with its description.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::driver::{CreateParams, FormatDriver, NewImage};
use crate::format::objection::Objection;
use crate::job::JobControl;
use crate::policy::OpenPolicy;
use crate::storage::Storage;

/// A kind of package.
#[derive(Debug)]
pub struct Package {
    /// Its name: `ova`.
    pub name: &'static str,
    /// Wraps a new image in a new package, which takes the place of the image's file.
    pub wrap: WrapFn,
    /// Returns the first image of a possible package, as a file of its own.
    pub first_image: FindFn,
    /// Finds what the product would refuse, outside the first image.
    pub check: fn(&PackageContext<'_>, &mut Vec<Objection>) -> Result<()>,
}

/// See [`Package::wrap`].
pub type WrapFn = fn(Box<dyn NewImage>, &CreateParams<'_>) -> Result<Box<dyn NewImage>>;

/// See [`Package::first_image`].
pub type FindFn = fn(&PackageContext<'_>) -> Result<Option<Arc<dyn Storage>>>;

/// A file that may be a package. It is read as far as needed: there is no other way to tell whether it is complete.
pub struct PackageContext<'a> {
    /// The file.
    pub storage: &'a Arc<dyn Storage>,
    /// Wraps an image in it in a view that limits how much can be read.
    pub bounded: &'a dyn Fn(Arc<dyn Storage>) -> Arc<dyn Storage>,
    /// The limits.
    pub policy: &'a OpenPolicy,
    /// Stops lengthy operations on cancellation or at the deadline.
    pub control: &'a JobControl,
}

impl fmt::Debug for PackageContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageContext")
            .field("storage", self.storage)
            .finish_non_exhaustive()
    }
}

/// Plans a new image, in a package if one is requested.
///
/// # Errors
/// Those of the format and of the package; [`crate::ErrorKind::Unsupported`] if the format does not support creation.
pub fn plan_new(
    driver: &FormatDriver,
    package: Option<&Package>,
    params: &CreateParams<'_>,
) -> Result<Box<dyn NewImage>> {
    let plan = driver
        .create
        .ok_or_else(|| Error::no_creation(driver.name))?;
    let image = plan(params)?;
    match package {
        Some(package) => (package.wrap)(image, params),
        None => Ok(image),
    }
}
