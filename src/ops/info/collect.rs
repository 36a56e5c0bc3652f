//! Collects what `info` shows, for one image or its chain.

use std::collections::HashSet;

use bstr::BString;

use super::contents::contents;
use super::layer::{layer_alone, layer_info};
use super::{InfoReport, LayerInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, OpenOptions};
use crate::job::JobControl;
use crate::location::Location;
use crate::memory;
use crate::storage::Identity;

/// Collects the report. Opens no data file; opens backing files only for `chain`.
///
/// # Errors
/// As for opening the image; a chain that names a file twice, or is longer than the policy allows.
pub fn info(location: &Location, options: &OpenOptions, chain: bool) -> Result<InfoReport> {
    let options = OpenOptions {
        writable: false,
        metadata_only: true,
        backing: false,
        ..options.clone()
    };
    let mut layers = Vec::new();
    let mut warnings = Vec::new();
    let mut seen = HashSet::new();
    let limit = usize::try_from(options.policy.chain_limit()).unwrap_or(usize::MAX);
    let mut next = Some(Image::open(location, &options)?);
    while let Some(image) = next {
        let name = image.filename().to_owned();
        // The same file under another name is a loop as well.
        let known = image
            .identity()
            .is_some_and(|id| !seen.insert(Key::File(id)));
        if !seen.insert(Key::Name(name.clone())) || known {
            return Err(Error::backing_loop(name));
        }
        if layers.len() >= limit {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("The chain of '{name}' has more than {limit} images"),
            ));
        }
        layers.push(LayerInfo {
            contents: contents(&image, &options.control)?,
            ..layer_info(&image)?
        });
        warnings.extend(image.warnings().iter().cloned());
        next = if chain {
            image.open_backing_metadata(&options)?
        } else {
            None
        };
    }
    Ok(InfoReport {
        layers,
        chain,
        warnings,
    })
}

/// The report on an open image and, with `chain`, on the open images below it. Cached data is written out first, so
/// that the report shows what is in the file.
///
/// # Errors
/// If writing out or reading metadata fails.
pub fn info_of_open(image: &Image, control: &JobControl, chain: bool) -> Result<InfoReport> {
    if image.writable() {
        image.flush()?;
    }
    let mut layers = Vec::new();
    for layer in image.layers().take(if chain { usize::MAX } else { 1 }) {
        let info = LayerInfo {
            contents: contents(layer, control)?,
            ..layer_alone(layer)?
        };
        memory::push(&mut layers, info)?;
    }
    Ok(InfoReport {
        layers,
        chain,
        warnings: image.warnings().to_vec(),
    })
}

/// What distinguishes the images of a chain.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    File(Identity),
    Name(BString),
}
