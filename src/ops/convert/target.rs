//! Opening or creating the target, and the numbers that the conversion goes by.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bstr::BString;

use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageSlot;
use crate::format::{BackingRef, Bulk, Features, FileRole, Format, raw};
use crate::image::{Image, OpenOptions, file_id, location_ids};
use crate::job::Job;
use crate::location::{Location, resolve_name};
use crate::ops::create::{self, KeptFiles, Reason, TargetFormat, Written};
use crate::ops::forecast::{self, Forecast};
use crate::options::Values;
use crate::storage::{Durability, Preallocation};

use super::bitmaps::Chosen;
use super::offload::Offload;
use super::plan::{MAX_LONG_TASK, MAX_MOVED_TASK, MIN_STEP, Shape};
use super::report::Tally;
use super::request::ConvertRequest;
use super::sink::{BulkSink, GrowingSink, ImageSink, Sink, too_small};
use super::sources::{BackedBelow, Sources};
use super::worker::{Ahead, Work};

/// All buffers of a conversion together take at most this much memory.
const BUFFER_BYTES: u64 = 36 << 20;

/// The most guest bytes that are read at once.
const MAX_CHUNK: u64 = 1 << 20;

/// The same where units are compressed: smaller, so that the workers share the work evenly.
const MAX_CODED_CHUNK: u64 = 512 << 10;

/// Writers at once into a file in the page cache, which lets in one at a time: a second one may
/// as well wait there, more would only be missing elsewhere.
const CACHED_WRITERS: usize = 2;

fn no_compression() -> Error {
    Error::unsupported("Compression not supported for this file format")
}

/// Converts into a new image; returns its virtual size.
pub(super) fn fill_new(
    request: &ConvertRequest,
    mut sources: Sources,
    bitmaps: Option<&Chosen>,
    tally: &Tally,
    job: &mut Job,
) -> Result<u64> {
    let name = request.target_format.as_deref().unwrap_or("raw");
    let format = creatable(request, name)?;
    let driver = format.driver;
    let location = format.location(&request.target);
    let table = create::option_table(driver, &location)?;
    let values = Values::check(&request.target_options, &table)?;
    let preallocated = values.str("preallocation").is_some_and(|p| p != "off");
    let encrypted =
        values.str("encrypt.format").is_some() || values.bool("encryption") == Some(true);
    if request.compress && encrypted {
        return Err(Error::invalid(
            "Compression and encryption not supported at the same time",
        ));
    }
    check_features(request, format, preallocated)?;
    if let Some(bitmaps) = bitmaps {
        bitmaps.check_new(driver, &values, sources.known_len().unwrap_or(0))?;
    }
    let while_converting = || {
        let target = request.target.display();
        if request.for_dd {
            format!("{target}: error while creating output image")
        } else {
            format!("{target}: error while converting {name}")
        }
    };
    let backing = request.backing_name().map(|name| BackingRef {
        name: name.to_owned(),
        format: request.backing_format().map(BString::from),
    });
    if backing.is_none() && request.backing_format().is_some() {
        return Err(
            Error::invalid("Backing format cannot be used without backing file")
                .context(while_converting()),
        );
    }
    let len = sources.known_len();
    if len.is_none() && (driver.name != raw::DRIVER.name || preallocated) {
        return Err(unknown_length(request, name));
    }
    // Progress is that of the copy alone.
    let control = Job::heeding(job.control()).control().clone();
    let create = create::TargetRequest {
        location: &location,
        driver,
        size: len.unwrap_or(0),
        values: &values,
        backing: backing.as_ref(),
        cache: request.target_cache,
        secrets: &request.secrets,
        policy: &request.policy,
        storages: request.storages.as_deref(),
        control: &control,
    };
    let planned = create.plan().context(while_converting)?;
    let mut kept = sources.kept(request);
    kept.check(&planned.written()).map_err(|error| {
        if request.for_dd {
            error
        } else {
            error.context(while_converting())
        }
    })?;
    let mut backing_end = 0;
    if let Some(backing) = &backing {
        let below = open_backing(request, backing, job)?;
        kept.add(Reason::Backing, &below);
        backing_end = below.len();
        sources.set_backed(BackedBelow {
            depth: replaced_depth(&sources, &below),
            end: backing_end,
        });
    }
    let target = planned.create(&kept).context(while_converting)?;
    for warning in target.warnings() {
        job.warn(warning.clone());
    }
    if len.is_none() {
        return fill_growing(request, &sources, target, tally, job);
    }
    let bulk = target.bulk();
    let offload = detect_offload(request, &sources, bulk, preallocated)?;
    let sink = BulkSink {
        bulk,
        sources: &sources,
        offload: &offload,
        tally,
        backing_end,
        unreserved_is_zero: bulk.blank().unreserved_is_zero,
    };
    let shape = Shape {
        unwritten_is_zero: bulk.blank().unwritten_is_zero,
        longest_zeroes: match bulk.blank().unreserved_is_zero {
            true => MAX_LONG_TASK,
            false => MAX_MOVED_TASK,
        },
        zeroes_cost: !bulk.blank().unreserved_is_zero && bulk.is_encrypted(),
        zero_unit: u64::from(bulk.zero_unit()).max(1),
        in_flight: sources.in_flight().max(bulk_in_flight(bulk)?),
        encode_early: request.compress,
        ..shape(request, u64::from(bulk.unit()))
    };
    // Encryption takes the time of all processors.
    let writers = Writers::of(request, bulk.is_encrypted());
    run(request, &sources, &offload, &sink, shape, writers, job)?;
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

/// What a new image is worth: nobody else has seen it yet.
fn final_durability(request: &ConvertRequest) -> Durability {
    match request.target_cache.durability() {
        Durability::Ordered => Durability::None,
        other => other,
    }
}

fn unknown_length(request: &ConvertRequest, format: &str) -> Error {
    let how = if request.for_dd {
        "isize=N or osize=N"
    } else {
        "-o size=N"
    };
    Error::invalid(format!(
        "The length of the input is not known before its end, and a new image in the format '{format}' needs a size: give it as {how}"
    ))
}

/// Fills a new raw disk, which becomes as long as the stream turns out to be.
fn fill_growing(
    request: &ConvertRequest,
    sources: &Sources,
    target: create::Target,
    tally: &Tally,
    job: &mut Job,
) -> Result<u64> {
    let storage = target.storage().clone();
    let fixed = storage.limits().fixed_len;
    let sink = GrowingSink {
        bulk: target.bulk(),
        tally,
        unwritten_is_zero: !fixed,
    };
    let shape = Shape {
        unwritten_is_zero: !fixed,
        in_flight: storage.limits().in_flight,
        ..shape(request, u64::from(target.bulk().unit()))
    };
    let offload = Offload::default();
    let writers = Writers::of(request, false);
    run(request, sources, &offload, &sink, shape, writers, job)?;
    let len = sources.finish()?;
    let ended = match fixed {
        true => Ok(()),
        false => storage.set_len(len, Preallocation::Off),
    };
    ended
        .and_then(|()| storage.sync(final_durability(request)))
        .context(|| format!("Could not write '{}'", request.target.display()))?;
    target.keep();
    Ok(len)
}

/// The driver of that name, if it can create.
pub(super) fn creatable(request: &ConvertRequest, name: &str) -> Result<TargetFormat> {
    // `dd` does not say which.
    if request.for_dd && TargetFormat::find(name).is_none() {
        return Err(Error::invalid("Unknown file format"));
    }
    TargetFormat::creatable(name)
}

/// Converts into an image that exists; returns its virtual size.
pub(super) fn fill_existing(
    request: &ConvertRequest,
    mut sources: Sources,
    bitmaps: Option<&Chosen>,
    tally: &Tally,
    job: &mut Job,
) -> Result<u64> {
    let shown = request.target.display();
    let could_not_open = |error: Error| match request.for_dd {
        true => error,
        false => error.context(format!("Could not open '{shown}'")),
    };
    let kept = sources.kept(request);
    kept.check(&written_at(&request.target))
        .map_err(could_not_open)?;
    let options = OpenOptions {
        format: request.target_format.clone(),
        writable: true,
        cache: request.target_cache,
        secrets: request.secrets.clone(),
        policy: request.policy.clone(),
        storages: request.storages.clone(),
        control: job.control().clone(),
        ..OpenOptions::default()
    };
    let image = Image::open(&request.target, &options)?;
    // Its data file too, which only the open has found.
    kept.check(&written_by(&image)).map_err(could_not_open)?;
    for warning in image.warnings() {
        job.warn(warning.clone());
    }
    let compressor = image.format().compressor();
    if request.compress && compressor.is_none() {
        return Err(no_compression());
    }
    if sources.known_len().is_some_and(|len| image.len() < len) {
        return Err(too_small());
    }
    let overlay = image.backing().is_some() || request.backing_name().is_some();
    if request.target_is_zero && overlay {
        return Err(Error::invalid(
            "Cannot use --target-is-zero when the destination image has a backing file",
        ));
    }
    if let Some(name) = request.backing_name() {
        let named;
        let below: &Image = match image.backing() {
            Some(below) => below,
            None => {
                let backing = BackingRef {
                    name: name.to_owned(),
                    format: request.backing_format().map(BString::from),
                };
                named = open_backing(request, &backing, job)?;
                let mut kept = KeptFiles::default();
                kept.add(Reason::Backing, &named);
                kept.check(&written_by(&image)).map_err(could_not_open)?;
                job.warn(format!(
                    "'{}' records no backing file: only what differs from '{name}' is written, so \
                     it must hold a copy of that",
                    request.target.display()
                ));
                &named
            }
        };
        sources.set_backed(BackedBelow {
            depth: replaced_depth(&sources, below),
            end: below.len(),
        });
    }
    if let Some(bitmaps) = bitmaps {
        bitmaps.check_existing(&image, &sources)?;
    }
    let unit = match (request.compress, compressor) {
        (true, Some(compressor)) => compressor.unit(),
        _ => image.format().cluster_size().unwrap_or(512),
    };
    let sink = ImageSink {
        image: &image,
        tally,
        is_zero: request.target_is_zero,
    };
    let shape = Shape {
        unwritten_is_zero: request.target_is_zero,
        longest_zeroes: match request.target_is_zero {
            true => MAX_LONG_TASK,
            false => MAX_MOVED_TASK,
        },
        in_flight: sources.in_flight().max(image.requests_in_flight()),
        encode_early: false,
        ..shape(request, u64::from(unit))
    };
    let writers = Writers::of(request, image.format().request_alignment() > 1);
    let offload = Offload::default();
    run(request, &sources, &offload, &sink, shape, writers, job)?;
    if let Some(bitmaps) = bitmaps {
        bitmaps.copy(image.bitmaps(), &sources, job)?;
    }
    let len = image.len();
    image
        .close()
        .context(|| format!("Could not write '{}'", request.target.display()))?;
    Ok(len)
}

pub(super) fn check_features(
    request: &ConvertRequest,
    format: TargetFormat,
    preallocated: bool,
) -> Result<()> {
    let driver = format.driver;
    if !driver.features.contains(Features::BACKING) {
        let refused = match (request.backing_name(), request.backing_format()) {
            (Some(_), _) => Some("Backing file"),
            (None, Some(_)) => Some("Backing file format"),
            _ => None,
        };
        if let Some(what) = refused {
            return Err(Error::unsupported(format!(
                "{what} not supported for file format '{}'",
                format.name()
            )));
        }
    }
    if request.backing_name().is_some() && request.backing_format().is_none() {
        return Err(Error::invalid(
            "Use of backing file requires explicit backing format",
        ));
    }
    if request.compress && !driver.features.contains(Features::COMPRESS) {
        return Err(no_compression());
    }
    if request.compress && preallocated {
        return Err(Error::invalid(
            "Compression and preallocation not supported at the same time",
        ));
    }
    Ok(())
}

/// Sizes of steps and chunks for a target with this allocation unit.
pub(super) fn shape(request: &ConvertRequest, unit: u64) -> Shape {
    let unit = unit.max(512);
    let step = unit.max(MIN_STEP);
    let most = if request.compress {
        MAX_CODED_CHUNK
    } else {
        MAX_CHUNK
    };
    Shape {
        unit,
        zero_unit: unit,
        step,
        // The same however many workers: the layout of the target depends on it.
        chunk: most.max(step).next_multiple_of(step),
        sparse: request.sparse(),
        unwritten_is_zero: false,
        zeroes_cost: false,
        longest_zeroes: MAX_MOVED_TASK,
        compress: request.compress,
        in_flight: 1,
        encode_early: false,
    }
}

/// How many workers, and how many ranges in work at once: one per worker, and some that wait for
/// their turn. Large units make few of both.
fn crew(request: &ConvertRequest, shape: &Shape) -> (u64, u64) {
    let affordable = BUFFER_BYTES / shape.chunk;
    let wanted = u64::from(request.workers(shape));
    if request.compress {
        // Each worker has a buffer of plain bytes besides.
        let workers = wanted.min(affordable.saturating_sub(1) / 3).max(1);
        (workers, workers + workers.min(8) + 1)
    } else {
        let workers = wanted.min(affordable.saturating_sub(2)).max(1);
        (workers, workers + 2)
    }
}

/// How many ranges are written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    /// One, so that they are written in order.
    One,
    /// A few.
    Cached,
    /// As many as there are workers.
    Many,
}

impl Writers {
    fn of(request: &ConvertRequest, parallel: bool) -> Self {
        if parallel || request.target_cache.direct() {
            Self::Many
        } else {
            Self::Cached
        }
    }
}

pub(super) fn run(
    request: &ConvertRequest,
    sources: &Sources,
    offload: &Offload,
    sink: &dyn Sink,
    shape: Shape,
    writers: Writers,
    job: &mut Job,
) -> Result<()> {
    let (workers, buffers) = crew(request, &shape);
    let workers = workers as usize;
    let work = Work {
        sources,
        offload,
        sink,
        shape,
        workers,
        buffers: buffers as usize,
        writers: match writers {
            Writers::One => 1,
            Writers::Cached => CACHED_WRITERS.min(workers),
            Writers::Many => workers,
        },
    };
    let mut forecast = forecast(sources, shape);
    let Some(total) = sources.known_len() else {
        return work.run(0..u64::MAX, &mut forecast, job);
    };
    // The end comes last and alone: a raw disk that an interrupted run leaves is too short.
    let last = total.saturating_sub(1) / shape.step * shape.step;
    work.run(0..last, &mut forecast, job)?;
    let tail = Work {
        workers: 1,
        buffers: 1,
        ..work
    };
    tail.run(last..total, &mut forecast, job)?;
    sources.finish().map(drop)
}

/// How much there is to copy; of a stream, all of it, where its length is known.
fn forecast(sources: &Sources, shape: Shape) -> Ahead<'_> {
    let len = sources.known_len().unwrap_or(0);
    let estimate = match sources.is_stream() {
        true => u64::MAX,
        false => forecast::held_by(sources.layers()),
    };
    Forecast::new(
        len,
        estimate,
        Box::new(move |at| {
            if sources.is_stream() {
                let len = len - at;
                return Ok(forecast::Run { len, moved: len });
            }
            let run = sources.map(at, len - at)?;
            Ok(forecast::Run {
                len: run.len,
                moved: shape.moved(&run),
            })
        }),
    )
}

/// How many requests the files of a new image like to have in flight.
fn bulk_in_flight(bulk: &dyn Bulk) -> Result<u32> {
    let data = bulk.storage(StorageSlot::DATA).ok();
    let main = bulk.storage(StorageSlot::MAIN)?;
    Ok(data.unwrap_or(main).limits().in_flight)
}

/// The storages of every layer of the sources that might share blocks with the target.
fn detect_offload(
    request: &ConvertRequest,
    sources: &Sources,
    bulk: &dyn Bulk,
    preallocated: bool,
) -> Result<Offload> {
    let unit = u64::from(bulk.unit());
    // Shared blocks would replace those that were reserved; odd clusters never line up.
    if bulk.is_encrypted()
        || preallocated
        || request.compress
        || request.sparse() == 0
        || request.salvage
        || (unit % MIN_STEP != 0 && unit != 512)
    {
        return Ok(Offload::default());
    }
    let target = match bulk.storage(StorageSlot::DATA) {
        Ok(storage) => storage,
        Err(_) => bulk.storage(StorageSlot::MAIN)?,
    };
    let slots = sources.layers().flat_map(Image::slots);
    let storages = slots.map(|(_, storage)| storage);
    Offload::detect(storages, target, request.copy_range)
}

/// Opens the target's backing file for its length and identity.
fn open_backing(request: &ConvertRequest, backing: &BackingRef, job: &Job) -> Result<Image> {
    let options = OpenOptions {
        format: request.backing_format(),
        policy: request.policy.clone(),
        secrets: request.secrets.clone(),
        storages: request.storages.clone(),
        control: job.control().clone(),
        ..OpenOptions::default()
    };
    let full = resolve_name(request.target.text(), OsStr::from_bytes(&backing.name));
    let location = Location::parse(full)?;
    Image::open(&location, &options)
        .map_err(create::unnamed)
        .context(|| "Could not open backing file".to_owned())
        .context(|| format!("Could not open '{}'", request.target.display()))
}

/// From which layer of the source on `below` holds the same: the layer that is the same file,
/// else the whole of the source's chain below its top.
fn replaced_depth(sources: &Sources, below: &Image) -> u32 {
    let wanted = file_id(&**below.storage());
    sources
        .layers()
        .zip(0u32..)
        .skip(1)
        .find(|(layer, _)| wanted.is_some() && file_id(&**layer.storage()) == wanted)
        .map_or(1, |(_, depth)| depth)
}

/// The files of a target that exists, as far as its name tells.
pub(super) fn written_at(target: &Location) -> Vec<Written> {
    let ids = location_ids(target).into_iter();
    ids.map(|id| Written {
        id,
        role: FileRole::Image,
        name: target.text().as_bytes().into(),
    })
    .collect()
}

/// The files that writing to an open image changes.
fn written_by(image: &Image) -> Vec<Written> {
    let mut written = Vec::new();
    image.visit_files(&mut |file| {
        written.extend(file_id(&**file.storage).map(|id| Written {
            id,
            role: file.role,
            name: file.storage.name().to_owned(),
        }));
    });
    written
}
