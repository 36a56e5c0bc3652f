//! Fills a new image.

use crate::error::{Error, Result, ResultExt};
use crate::format::{BackingRef, Bulk, Features, Format, registry};
use crate::image::Image;
use crate::job::Job;
use crate::ops::create::{self, Reason};
use crate::options::Values;

use super::bitmaps::Chosen;
use super::bulk_sink::BulkSink;
use super::growing::fill_growing;
use super::offload::Offload;
use super::open_target::{
    check_features, creatable, final_durability, open_backing, replaced_depth,
};
use super::report::Counters;
use super::request::ConvertRequest;
use super::run::run;
use super::sizes::{CopySizes, MIN_STEP, Writers};
use super::sources::{BackedBelow, Sources};

/// Converts into a new image; returns its virtual size.
pub(super) fn fill_new(
    request: &ConvertRequest,
    mut sources: Sources,
    bitmaps: Option<&Chosen>,
    counters: &Counters,
    job: &mut Job,
) -> Result<u64> {
    let name = request
        .target
        .format
        .as_deref()
        .unwrap_or(registry::plain().name);
    let format = creatable(request, name)?;
    let (driver, name) = (format.driver, format.name());
    let location = format.location(&request.target.location);
    let table = create::option_table(driver, &location)?;
    let values = Values::check(&request.target.options, &table)?;
    let outline = (driver.outline)(&values);
    let preallocated = outline.is_preallocated();
    let request = &*request.compressing(outline.always_compressed);
    if request.target.compress && outline.encrypted && driver.can(Features::COMPRESS) {
        return Err(Error::invalid(
            "Compression and encryption not supported at the same time",
        ));
    }
    check_features(request, format, preallocated)?;
    if request.target.compress && outline.never_compressed {
        return Err(Error::no_compression());
    }
    if let Some(bitmaps) = bitmaps {
        bitmaps.check_new(driver, outline)?;
    }
    let while_converting = || {
        let target = request.target.location.display();
        let what = (request.wording.creating)(name);
        format!("{target}: {what}")
    };
    let backing_format = request.target.backing_format();
    let backing = request
        .target
        .backing_name()
        .map(|name| BackingRef::to_record(name.to_owned(), backing_format.as_deref()));
    if backing.is_none() && request.target.backing_format().is_some() {
        return Err(
            Error::invalid("Backing format cannot be used without backing file")
                .context(while_converting()),
        );
    }
    let len = sources.known_len();
    if len.is_none() && (!driver.is_stream || preallocated) {
        return Err(unknown_length(request, name));
    }
    // Progress covers the copy only.
    let control = Job::heeding(job.control()).control().clone();
    let create = create::TargetRequest {
        location: &location,
        driver,
        size: len.unwrap_or(0),
        values: &values,
        backing: backing.as_ref(),
        exclusive: request.target.exclusive,
        cache: request.target.cache,
        is_filled: !preallocated,
        objects: &request.target.objects,
        policy: &request.target.policy,
        storages: request.target.storages.as_deref(),
        control: &control,
        package: request.target.package(),
    };
    let planned = create.plan().context(while_converting)?;
    let mut kept = sources.kept(request)?;
    kept.check(&planned.written())
        .map_err(|error| match request.wording.names_target {
            true => error.context(while_converting()),
            false => error,
        })?;
    let below = match &backing {
        Some(backing) => Some(open_backing(request, backing, job)?),
        None => None,
    };
    if let Some(below) = &below {
        kept.add(Reason::Backing, below)?;
        sources.set_backed(BackedBelow {
            depth: replaced_depth(&sources, below),
            end: below.len(),
        });
    }
    let parent = below.as_ref().map(create::parent_of);
    let target = planned.create(&kept, parent).context(while_converting)?;
    for warning in target.warnings() {
        job.warn(warning.clone());
    }
    if len.is_none() {
        return fill_growing(request, &sources, target, counters, job);
    }
    let bulk = target.bulk();
    let offload = detect_offload(request, &sources, bulk, preallocated)?;
    let sink = BulkSink {
        bulk,
        sources: &sources,
        offload: &offload,
        counters,
        below: below.as_ref(),
        unreserved_is_zero: bulk.initial_content().unreserved_is_zero,
        unwritten_is_zero: bulk.initial_content().unwritten_is_zero,
    };
    let backing_end = below.as_ref().map_or(0, Image::len);
    let sizes = CopySizes::for_new(request, bulk, backing_end);
    // Encryption keeps all processors busy, and a server has latency.
    let writers = Writers::of(request, sizes.in_flight > 1 || !bulk.takes_raw_writes());
    let sizes = sizes.reading_from(&sources);
    run(request, &sources, &offload, &sink, sizes, writers, job)?;
    match bitmaps {
        None => target
            .finish(final_durability(request))
            .context(while_converting)?,
        Some(bitmaps) => {
            let copy = |image: &dyn Format| bitmaps.copy(image.bitmaps(), &sources, job);
            target.finish_and(&create, final_durability(request), while_converting, copy)?;
        }
    }
    Ok(len.unwrap_or(0))
}

fn unknown_length(request: &ConvertRequest, format: &str) -> Error {
    let how = request.wording.size;
    Error::invalid(format!(
        "The length of the input is not known before its end, and a new image in the format '{format}' needs a size: give {how}"
    ))
}

/// Finds the storages, in any layer of the sources, that can share blocks with the target.
fn detect_offload(
    request: &ConvertRequest,
    sources: &Sources,
    bulk: &dyn Bulk,
    preallocated: bool,
) -> Result<Offload> {
    let targets = bulk.data_storages();
    let Some(target) = targets.first() else {
        return Ok(Offload::default());
    };
    // Shared blocks would replace the reserved ones; clusters of odd size never align.
    if !bulk.takes_raw_writes()
        || preallocated
        || request.target.compress
        || request.tuning.sparse() == 0
        || request.source.salvage
        || !bulk.alignment().is_multiple_of(MIN_STEP)
    {
        return Ok(Offload::default());
    }
    let slots = sources.layers().flat_map(Image::slots);
    let storages = slots.map(|(_, storage)| storage);
    Offload::detect(storages, target, request.tuning.copy_range)
}
