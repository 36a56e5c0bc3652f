//! `convert`: copies the guest bytes of one or more images into another.
//!
//! Workers claim ranges in guest order, read, test and compress them in parallel, take turns to reserve space in the
//! target, and write in parallel again. So the layout of the target is the same for any number of workers.

mod batch;
mod bitmaps;
mod buffer;
mod bulk_sink;
mod chain;
mod checksum;
mod conflict;
mod container;
mod existing;
mod growing;
mod lateness;
mod new;
mod offload;
mod open_target;
mod order;
mod passing_image;
mod piece;
mod plan;
mod prepare;
mod profile;
mod range_checksum;
mod report;
mod request;
mod run;
mod runs;
mod sink;
mod sizes;
mod sources;
mod stream_source;
mod stream_target;
mod window;
mod wording;
mod worker;

pub use checksum::Sha256Sum;
pub use conflict::Conflict;
pub(crate) use conflict::{check, check_parallel, check_sparse_size};
pub use report::ConvertReport;
pub use request::{ConvertRequest, ConvertSource, ConvertTarget, NamedFd, Tuning};
pub use window::Window;
pub use wording::Wording;

/// The trace events of conversions.
pub(in crate::ops) static EVENTS: &[&Event] = &[&worker::RANGE];

use std::sync::Arc;

use crate::error::Result;
use crate::image::{Image, OpenOptions};
use crate::job::Job;
use crate::location::Location;
use crate::trace::Event;

use bitmaps::Chosen;
use checksum::Checksum;
use report::Counters;
use sources::Sources;
use stream_source::Opened;

/// Runs the conversion. A target that it created is removed if it fails or is cancelled.
///
/// Progress counts the guest bytes that must be copied. Memory is bounded, whatever the images hold.
///
/// # Errors
/// One line that names the file.
pub fn convert(request: &ConvertRequest, job: &mut Job) -> Result<ConvertReport> {
    check(request)?;
    let request = &*request.naming_nodes_once();
    match request.target.profile {
        Some(profile) => convert_checked(&profile::applied(request, profile)?, job),
        None => convert_checked(request, job),
    }
}

fn convert_checked(request: &ConvertRequest, job: &mut Job) -> Result<ConvertReport> {
    if request.target.whole_chain {
        return chain::convert(request, job);
    }
    let (sources, bitmaps) = open_sources(request, job)?;
    fill(request, sources, bitmaps, job)
}

/// Fills the target from open sources.
fn fill(
    request: &ConvertRequest,
    mut sources: Sources,
    bitmaps: Option<Chosen>,
    job: &mut Job,
) -> Result<ConvertReport> {
    let checksum = request.tuning.checksum.then(Arc::<Checksum>::default);
    if let Some(checksum) = &checksum {
        sources.set_checksum(checksum.clone());
    }
    let container = sources.container_checksum();
    if let Some(line) = sources.grown_for_product(&request.source.window)
        && !job.warnings().contains(&line)
    {
        job.warn(line);
    }
    let bitmaps = bitmaps.as_ref();
    let counters = Counters::default();
    job.tick()?;
    let virtual_size = match stream_target::open(request, job)? {
        Some(stream) => {
            bitmaps.map_or(Ok(()), Chosen::refuse_stream)?;
            stream_target::fill(request, sources, &stream, &counters, job)?
        }
        None if request.target.exists => {
            existing::fill_existing(request, sources, bitmaps, &counters, job)?
        }
        None => new::fill_new(request, sources, bitmaps, &counters, job)?,
    };
    // The target is complete: it is too late for a callback to cancel.
    let _ = job.finish();
    Ok(ConvertReport {
        checksum: checksum.map(|checksum| checksum.sum()),
        container_checksum: container.map(|checksum| checksum.sum()),
        ..counters.report(virtual_size)
    })
}

fn open_sources(request: &ConvertRequest, job: &mut Job) -> Result<(Sources, Option<Chosen>)> {
    let mut images = Vec::with_capacity(request.source.images.len());
    let mut next = None;
    let container;
    match stream_source::open(request, job)? {
        Opened::Stream(stream) => {
            let bitmaps = bitmaps::choose(request, None)?;
            return Ok((Sources::from_stream(*stream)?, bitmaps));
        }
        Opened::Kept(storage, sum) => {
            container = sum;
            let options = OpenOptions {
                decompress: None,
                ..request.source.options.within(job)
            };
            next = Some(opened(Image::open_storage(storage, &options)?, job));
        }
        Opened::Images => {
            for location in &request.source.images {
                // The previous ones may have nodes that this one refers to.
                images.extend(next.take().map(Image::into_shared));
                next = Some(open_source(location, request, job)?);
            }
            let opened = images.iter().map(|image| &**image).chain(next.as_ref());
            // The target's backing chain is not copied.
            let read = match request.target.backing_name() {
                Some(_) => 1,
                None => usize::MAX,
            };
            let layers = opened.flat_map(|image| image.layers().take(read));
            container = container::checksum(request, layers, job.control())?;
        }
    }
    let first = images.first().map(|image| &**image);
    let bitmaps = bitmaps::choose(request, first.or(next.as_ref()))?;
    if let Some(snapshot) = &request.source.snapshot
        && let Some(image) = &mut next
    {
        crate::ops::snapshot::show(image, snapshot)?;
    }
    images.extend(next.map(Image::into_shared));
    let mut sources = Sources::new(images, &request.source.window, request.source.salvage)?;
    sources.set_container_checksum(container);
    Ok((sources, bitmaps))
}

fn open_source(location: &Location, request: &ConvertRequest, job: &mut Job) -> Result<Image> {
    let image = Image::open(location, &request.source.options.within(job))?;
    Ok(opened(image, job))
}

/// Passes on the warnings from opening an image.
fn opened(image: Image, job: &mut Job) -> Image {
    for warning in image.warnings() {
        job.warn(warning.clone());
    }
    image
}

#[cfg(test)]
mod tests;
