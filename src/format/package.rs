//! Packages: files in which a product takes an image together with what describes it.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::driver::{CreateParams, FormatDriver, NewImage};
use crate::format::objection::Objection;
use crate::job::JobControl;
use crate::policy::OpenPolicy;
use crate::storage::Storage;

/// A kind of packages.
#[derive(Debug)]
pub struct Package {
    /// Its name: `ova`.
    pub name: &'static str,
    /// Puts a new image into a new package, which is the file that the image would have been.
    pub wrap: WrapFn,
    /// The first image of what may be a package, as a file of its own.
    pub first_image: FindFn,
    /// Finds what the product would refuse, except in the first image.
    pub check: fn(&PackageContext<'_>, &mut Vec<Objection>) -> Result<()>,
}

/// See [`Package::wrap`].
pub type WrapFn = fn(Box<dyn NewImage>, &CreateParams<'_>) -> Result<Box<dyn NewImage>>;

/// See [`Package::first_image`].
pub type FindFn = fn(&PackageContext<'_>) -> Result<Option<Arc<dyn Storage>>>;

/// A file that may be a package. It is read as far as it reaches: whether it is whole shows in no other way.
pub struct PackageContext<'a> {
    /// The file.
    pub storage: &'a Arc<dyn Storage>,
    /// Gives a view of an image in it that has a ceiling on what can be read.
    pub bounded: &'a dyn Fn(Arc<dyn Storage>) -> Arc<dyn Storage>,
    /// The ceilings.
    pub policy: &'a OpenPolicy,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a JobControl,
}

impl fmt::Debug for PackageContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageContext")
            .field("storage", self.storage)
            .finish_non_exhaustive()
    }
}

/// Plans a new image, in a package where one is wanted.
///
/// # Errors
/// Of the format, and of the package; [`crate::ErrorKind::Unsupported`] where the format creates nothing.
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
