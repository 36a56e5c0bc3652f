//! The backing file of a new image: it must be there, and its format must be named.

use std::ffi::OsStr;

use super::CreateRequest;
use crate::error::{Error, Result};
use crate::image::{Image, OpenOptions};
use crate::job::Job;
use crate::location::{Location, resolve_name};

/// Opens the backing file and its chain; returns its virtual size.
pub(super) fn open(
    request: &CreateRequest,
    file: &str,
    format: Option<&str>,
    job: &mut Job,
) -> Result<u64> {
    let full = resolve_name(request.location.text(), OsStr::new(file));
    let options = OpenOptions {
        format: format.map(str::to_owned),
        force_share: true,
        metadata_only: true,
        secrets: request.secrets.clone(),
        policy: request.policy.clone(),
        ..OpenOptions::default()
    };
    let image = Location::parse_name(&full)
        .and_then(|location| Image::open(&location, &options))
        .map_err(could_not_open)?;
    for warning in image.warnings() {
        job.warn(warning.clone());
    }
    if format.is_none() {
        return Err(
            without_format().with_hint(format!("Detected format of {}.", image.format().driver()))
        );
    }
    Ok(image.len())
}

/// The error of a backing file whose format is left to be guessed each time.
pub(super) fn without_format() -> Error {
    Error::invalid("Backing file specified without backing format")
}

/// Drops the outermost "Could not open": the new image's name stands there instead.
fn could_not_open(error: Error) -> Error {
    let inner = error
        .cause()
        .map_or_else(|| error.to_string(), ToString::to_string);
    let mut plain = Error::new(error.kind(), inner).with_errno(error.errno());
    if let Some(offset) = error.offset() {
        plain = plain.with_offset(offset);
    }
    for hint in error.hints() {
        plain = plain.with_hint(hint.clone());
    }
    plain.with_hint("Could not open backing image.")
}
