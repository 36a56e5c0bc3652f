//! The creation of a target file: shared by `create` and `convert`.

use std::sync::Arc;

use crate::error::Result;
use crate::format::{BackingRef, Bulk, FormatDriver};
use crate::location::Location;
use crate::options::{OptionSpec, Values};
use crate::policy::OpenPolicy;
use crate::secret::Secrets;
use crate::storage::{CacheMode, Durability, Storage};

/// The options that `create` takes for this format at this location: those of the format and
/// those of the protocol, sorted by name.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for an unknown protocol, [`crate::ErrorKind::Unsupported`] where
/// format or protocol cannot create.
pub fn option_table(driver: &FormatDriver, location: &Location) -> Result<Vec<OptionSpec>> {
    let _ = (driver, location);
    todo!()
}

/// What [`target`] creates.
#[derive(Debug)]
pub struct TargetRequest<'a> {
    /// Where.
    pub location: &'a Location,
    /// The format.
    pub driver: &'static FormatDriver,
    /// Virtual size in bytes; rounded up to 512 here.
    pub size: u64,
    /// Options checked against [`option_table`]; `size`, `backing_file` and `backing_fmt` are
    /// ignored in favour of the fields.
    pub values: &'a Values,
    /// The backing file to record.
    pub backing: Option<&'a BackingRef>,
    /// How the target's storage is opened.
    pub cache: CacheMode,
    /// The secrets that options name by ID.
    pub secrets: &'a Secrets,
    /// What creating further files (a data file) may do.
    pub policy: &'a OpenPolicy,
}

impl TargetRequest<'_> {
    /// Checks the options without touching a file, and gives the `key=value` pairs of the
    /// "Formatting" line in QEMU's order.
    ///
    /// # Errors
    /// Of the format; the message does not name the target.
    pub fn plan(&self) -> Result<Vec<(&'static str, String)>> {
        todo!()
    }
}

/// A new image that is being filled. Dropped before [`Target::finish`] it removes the files that
/// it created; a file that was there before stays, empty.
#[derive(Debug)]
pub struct Target {
    bulk: Box<dyn Bulk>,
    storage: Arc<dyn Storage>,
}

/// Creates (or empties) the target file and starts the image.
///
/// # Errors
/// Of the checks and the creation; the message does not name the target in front, callers add it.
pub fn target(request: &TargetRequest<'_>) -> Result<Target> {
    let _ = request;
    todo!()
}

impl Target {
    /// The writer.
    pub fn bulk(&self) -> &dyn Bulk {
        &*self.bulk
    }

    /// The image file.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Writes tables and header, makes them durable as asked, and keeps the files.
    ///
    /// # Errors
    /// Of I/O; the files are removed then.
    pub fn finish(self, durability: Durability) -> Result<()> {
        let _ = durability;
        todo!()
    }
}
