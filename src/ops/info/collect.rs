//! Collecting what `info` shows, over one image or its chain.

use super::InfoReport;
use crate::error::Result;
use crate::image::OpenOptions;
use crate::location::Location;

/// Collects the report. Opens no data file; opens backing files only for `chain`.
///
/// # Errors
/// As opening the image; a chain that names a file twice.
pub fn info(location: &Location, options: &OpenOptions, chain: bool) -> Result<InfoReport> {
    let _ = (location, options, chain);
    todo!()
}
