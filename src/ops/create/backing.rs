//! The backing file of a new image: it must exist, and its format must be named.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use bstr::BStr;

use super::CreateRequest;
use super::overlap::{KeptFiles, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::format::NewParent;
use crate::image::{Image, OpenOptions, unopened_files};
use crate::job::Job;
use crate::location::{Location, resolve_name};
use crate::storage::Storage;

/// Opens the backing file and checks its chain; returns what the new image may have to record about it, and adds the
/// files of the chain to those that must be kept. Nothing is locked and no data file is opened.
pub(super) fn open(
    request: &CreateRequest,
    file: &BStr,
    format: Option<&str>,
    kept: &mut KeptFiles,
    job: &mut Job,
) -> Result<NewParent> {
    let options = options(request, format, job);
    let image = open_beside(&request.location, file, &options)
        .map_err(|error| error.with_hint(NOT_OPEN))?;
    for warning in image.warnings() {
        job.warn(warning.clone());
    }
    if format.is_none() {
        let found = image.format_name();
        return Err(without_format().with_hint(format!("Detected format of {found}.")));
    }
    let parent = parent_of(&image);
    check_chain(image, kept, &options)?;
    Ok(parent)
}

/// What an image records about a backing file that need not exist, if it does.
pub(super) fn identity(
    request: &CreateRequest,
    file: &BStr,
    format: Option<&str>,
    job: &Job,
) -> Option<NewParent> {
    open_beside(&request.location, file, &options(request, format, job))
        .ok()
        .map(|image| parent_of(&image))
}

/// Adds the files of a backing file that need not exist, and of its chain, to those that must be kept.
///
/// # Errors
/// If there is no memory for them.
pub(super) fn keep_unopened(
    request: &CreateRequest,
    file: &BStr,
    format: Option<&str>,
    kept: &mut KeptFiles,
    job: &Job,
) -> Result<()> {
    let Ok(location) = location_beside(&request.location, file) else {
        return Ok(());
    };
    kept.add_unopened(unopened_files(&location, &options(request, format, job))?);
    Ok(())
}

fn options(request: &CreateRequest, format: Option<&str>, job: &Job) -> OpenOptions {
    OpenOptions {
        format: format.map(str::to_owned),
        force_share: true,
        metadata_only: true,
        objects: request.objects.clone(),
        policy: request.policy.clone(),
        storages: request.storages.clone(),
        control: job.control().clone(),
        ..OpenOptions::default()
    }
}

/// What a new image may have to record about its parent.
pub(crate) fn parent_of(image: &Image) -> NewParent {
    NewParent {
        size: image.len(),
        id: image.format().parent_id(),
        disk_id: image.format().disk_id(),
        sectors: image.format().sectors(),
        modified: modified(&**image.storage()),
    }
}

/// When a file was last changed, if it is a file of this system.
pub(crate) fn modified(storage: &dyn Storage) -> Option<SystemTime> {
    let fd = storage.host()?.fd().try_clone_to_owned().ok()?;
    File::from(fd).metadata().ok()?.modified().ok()
}

/// Opens the backing file of the new image at `target`, by the name that the image is to record. The error names
/// neither.
pub(crate) fn open_beside(target: &Location, name: &BStr, options: &OpenOptions) -> Result<Image> {
    Image::open(&location_beside(target, name)?, options).map_err(unnamed)
}

/// The location of the backing file with that name, for an image at `target`.
pub(crate) fn location_beside(target: &Location, name: &BStr) -> Result<Location> {
    Location::parse_name(resolve_name(target.text(), OsStr::from_bytes(name)))
}

const NOT_OPEN: &str = "Could not open backing image.";

/// Opens every further image of the chain for its metadata: a missing one makes the new image useless.
fn check_chain(image: Image, kept: &mut KeptFiles, options: &OpenOptions) -> Result<()> {
    let mut image = image;
    for _ in 0..options.policy.chain_limit() {
        kept.add(Reason::Backing, &image)?;
        match image.open_below_metadata(options) {
            Ok(Some(next)) => image = next,
            Ok(None) => return Ok(()),
            // An image that may not be opened need not exist.
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
            Err(error) => {
                return Err(unnamed(error)
                    .context("Could not open backing file")
                    .with_hint(NOT_OPEN));
            }
        }
    }
    Err(Error::new(
        ErrorKind::Limit,
        "The chain of the backing file has too many images",
    )
    .with_hint(NOT_OPEN))
}

/// The error for a backing file whose format would have to be guessed each time.
pub(super) fn without_format() -> Error {
    Error::invalid("Backing file specified without backing format")
}

/// Drops the outermost "Could not open": the name of the new image takes its place.
fn unnamed(error: Error) -> Error {
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
    plain
}
