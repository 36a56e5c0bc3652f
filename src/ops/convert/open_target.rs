//! What is checked and opened for a target before anything is written: its format, its files and its backing file.

use bstr::ByteSlice;

use crate::error::{Error, Result, ResultExt};
use crate::format::{BackingRef, Features, FileRole};
use crate::image::{Image, Nodes, OpenOptions, location_files};
use crate::job::Job;
use crate::location::Location;
use crate::memory;
use crate::ops::create::{self, TargetFormat, Written};
use crate::storage::Durability;

use super::request::ConvertRequest;
use super::sources::Sources;

/// The driver with that name, if it can create images.
pub(super) fn creatable(request: &ConvertRequest, name: &str) -> Result<TargetFormat> {
    if !TargetFormat::is_known(name) {
        return Err((request.wording.unknown_format)(name));
    }
    TargetFormat::creatable(name)
}

pub(super) fn check_features(
    request: &ConvertRequest,
    format: TargetFormat,
    preallocated: bool,
) -> Result<()> {
    let driver = format.driver;
    if !driver.can(Features::BACKING) {
        let refused = match (
            request.target.backing_name(),
            request.target.backing_format(),
        ) {
            (Some(_), _) => Some("Backing file"),
            (None, Some(_)) => Some("Backing file format"),
            _ => None,
        };
        if let Some(what) = refused {
            return Err(Error::not_recorded(what, format.name()));
        }
    }
    if request.target.backing_name().is_some() && request.target.backing_format().is_none() {
        return Err(Error::invalid(
            "Use of backing file requires explicit backing format",
        ));
    }
    if request.target.compress && !driver.can(Features::COMPRESS) {
        return Err(Error::no_compression());
    }
    if request.target.compress && preallocated {
        return Err(Error::invalid(
            "Compression and preallocation not supported at the same time",
        ));
    }
    Ok(())
}

/// The durability that a new image needs: nobody else has seen it yet.
pub(super) fn final_durability(request: &ConvertRequest) -> Durability {
    match request.target.cache.durability() {
        Durability::Ordered => Durability::None,
        other => other,
    }
}

/// Opens the target's backing file for its length and identity.
pub(super) fn open_backing(
    request: &ConvertRequest,
    backing: &BackingRef,
    job: &Job,
) -> Result<Image> {
    let nodes = request.source.options.nodes.as_ref();
    let options = OpenOptions {
        format: request.target.backing_format(),
        policy: request.target.policy.clone(),
        objects: request.target.objects.clone(),
        nodes: nodes.map(Nodes::apart),
        storages: request.target.storages.clone(),
        control: job.control().clone(),
        ..OpenOptions::default()
    };
    create::open_beside(&request.target.location, backing.name.as_bstr(), &options)
        .context(|| "Could not open backing file".to_owned())
        .map_err(|error| error.could_not_open(request.target.location.display()))
}

/// The depth of the source from which on `below` holds the same: that of the layer which is the same file, otherwise
/// the whole chain below the top of the source.
pub(super) fn replaced_depth(sources: &Sources, below: &Image) -> u32 {
    let wanted = below.identity();
    sources
        .layers()
        .zip(0u32..)
        .skip(1)
        .find(|(layer, _)| wanted.is_some() && layer.identity() == wanted)
        .map_or(1, |(_, depth)| depth)
}

/// The files of an existing target, as far as its name reveals them.
pub(super) fn written_at(target: &Location) -> Vec<Written> {
    let files = location_files(target, true).into_iter();
    files
        .map(|(id, name)| Written {
            id,
            role: FileRole::Image,
            name,
        })
        .collect()
}

/// The files that writing to an open image changes.
///
/// # Errors
/// If there is no memory for them.
pub(super) fn written_by(image: &Image) -> Result<Vec<Written>> {
    let files = image.written_files()?.into_iter();
    memory::collect(files.map(|file| Written {
        id: file.id,
        role: file.role,
        name: file.name,
    }))
}
