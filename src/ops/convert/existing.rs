//! Writes to an existing image.

use bstr::BStr;

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::{BackingRef, Compress};
use crate::image::{Image, OpenOptions, location_files};
use crate::job::Job;
use crate::location::Location;
use crate::memory::IoBuf;
use crate::ops::create::{KeptFiles, Reason, location_beside};
use crate::storage::ZeroFlags;

use super::bitmaps::Chosen;
use super::offload::Offload;
use super::open_target::{open_backing, replaced_depth, written_at, written_by};
use super::piece::{PieceKind, Prepared};
use super::report::Counters;
use super::request::ConvertRequest;
use super::run::run;
use super::sink::{Sink, at_byte};
use super::sizes::{CopySizes, Writers};
use super::sources::{BackedBelow, Sources};

/// Converts into an existing image; returns its virtual size.
pub(super) fn fill_existing(
    request: &ConvertRequest,
    mut sources: Sources,
    bitmaps: Option<&Chosen>,
    counters: &Counters,
    job: &mut Job,
) -> Result<u64> {
    let could_not_open = |error| could_not_open(request, error);
    let kept = sources.kept(request)?;
    let written = written_at(&request.target.location);
    kept.check(&written).map_err(could_not_open)?;
    // The target may know its backing file by itself, and then this name is not opened.
    named_below(request)
        .check(&written)
        .map_err(could_not_open)?;
    let options = OpenOptions {
        format: request.target.format.clone(),
        writable: true,
        cache: request.target.cache,
        may_unmap: true,
        objects: request.target.objects.clone(),
        nodes: request.source.options.nodes.clone(),
        policy: request.target.policy.clone(),
        storages: request.target.storages.clone(),
        control: job.control().clone(),
        ..OpenOptions::default()
    };
    let (looked, mut named) = look(request, &options, &sources, bitmaps, job)?;
    let image = Image::open(&request.target.location, &options)?;
    // Not before: a server may shut down with its last client.
    drop(looked);
    // Including its data file, which is only known once it is open.
    kept.check(&written_by(&image)?).map_err(could_not_open)?;
    for warning in image.warnings() {
        job.warn(warning.clone());
    }
    let compressor = image.compressor();
    let request = &*request.compressing(compressor.is_some_and(Compress::is_required));
    check(&image, request, &sources, bitmaps)?;
    check_named_below(&image, request)?;
    if let Some(name) = request.target.backing_name() {
        let below: &Image = match image.backing() {
            Some(below) => below,
            None => {
                let named = match &mut named {
                    Some(named) => named,
                    named => named.insert(open_named(request, name, job)?),
                };
                let mut kept = KeptFiles::default();
                kept.add(Reason::Backing, named)?;
                kept.check(&written_by(&image)?).map_err(could_not_open)?;
                job.warn(format!(
                    "'{}' records no backing file: only what differs from '{name}' is written, so \
                     it must hold a copy of that",
                    request.target.location.display()
                ));
                named
            }
        };
        sources.set_backed(BackedBelow {
            depth: replaced_depth(&sources, below),
            end: below.len(),
        });
    }
    let sink = ImageSink {
        image: &image,
        counters,
        is_zero: request.target.is_zero,
    };
    let sizes = CopySizes::for_existing(request, &image).reading_from(&sources);
    let writers = match image.compressor().is_some_and(Compress::is_ordered) {
        true => Writers::One,
        false => Writers::of(
            request,
            image.is_waited_for() || image.format().request_alignment() > 1,
        ),
    };
    let offload = Offload::default();
    run(request, &sources, &offload, &sink, sizes, writers, job)
        .and_then(|()| match bitmaps {
            Some(bitmaps) => {
                let _under_way = image.begin_change()?;
                bitmaps.copy(image.bitmaps(), &sources, job)
            }
            None => Ok(()),
        })
        .inspect_err(|_| image.abandon_writes())?;
    let len = image.len();
    image
        .close()
        .context(|| format!("Could not write '{}'", request.target.location.display()))?;
    Ok(len)
}

/// Opening an image for writing may repair it, so anything that prevents the conversion is checked on a read-only open
/// first. Returns that image, and the backing file that was named for an image that records none.
fn look(
    request: &ConvertRequest,
    options: &OpenOptions,
    sources: &Sources,
    bitmaps: Option<&Chosen>,
    job: &mut Job,
) -> Result<(Option<Image>, Option<Image>)> {
    let options = OpenOptions {
        writable: false,
        metadata_only: true,
        force_share: true,
        ..options.clone()
    };
    // Whatever prevents this open is reported by the open for writing.
    let Ok(image) = Image::open(&request.target.location, &options) else {
        return Ok((None, None));
    };
    check(&image, request, sources, bitmaps)?;
    check_named_below(&image, request)?;
    let named = match request.target.backing_name() {
        Some(name) if !has_backing(&image) => Some(open_named(request, name, job)?),
        _ => None,
    };
    Ok((Some(image), named))
}

/// Refuses a target that cannot do what is requested.
fn check(
    image: &Image,
    request: &ConvertRequest,
    sources: &Sources,
    bitmaps: Option<&Chosen>,
) -> Result<()> {
    if request.target.compress && image.compressor().is_none() {
        return Err(Error::no_compression());
    }
    if sources.known_len().is_some_and(|len| image.len() < len) {
        return Err(too_small());
    }
    let overlay = has_backing(image) || request.target.backing_name().is_some();
    if request.target.is_zero && overlay {
        return Err(Error::invalid(
            "A target with a backing file does not hold zeroes, whatever is said of it",
        ));
    }
    match bitmaps {
        Some(bitmaps) => bitmaps.check_existing(image, sources),
        None => Ok(()),
    }
}

/// Whether it records a backing file, opened or not.
fn has_backing(image: &Image) -> bool {
    image.backing().is_some() || image.backing_missing()
}

/// Refuses a target that is written to the file of the named backing file, as seen from the open target: not every name
/// of the target is one that others can be relative to.
fn check_named_below(image: &Image, request: &ConvertRequest) -> Result<()> {
    let Some(name) = request.target.backing_name() else {
        return Ok(());
    };
    files_below(name, Location::parse_name(image.name_beside(name)))
        .check(&written_by(image)?)
        .map_err(|error| could_not_open(request, error))
}

fn could_not_open(request: &ConvertRequest, error: Error) -> Error {
    match request.wording.names_target {
        true => error.could_not_open(request.target.location.display()),
        false => error,
    }
}

/// The files that the name of the backing file denotes, if any.
fn named_below(request: &ConvertRequest) -> KeptFiles {
    match request.target.backing_name() {
        Some(name) => files_below(name, location_beside(&request.target.location, name)),
        None => KeptFiles::default(),
    }
}

fn files_below(name: &BStr, location: Result<Location>) -> KeptFiles {
    let mut kept = KeptFiles::default();
    if let Ok(location) = location {
        for (id, _) in location_files(&location, false) {
            kept.add_file(Reason::Backing, id, name);
        }
    }
    kept
}

/// Opens the backing file that was named for an image that records none.
fn open_named(request: &ConvertRequest, name: &BStr, job: &mut Job) -> Result<Image> {
    let format = request.target.backing_format();
    let backing = BackingRef::to_record(name.to_owned(), format.as_deref());
    open_backing(request, &backing, job)
}

/// An existing image.
struct ImageSink<'a> {
    image: &'a Image,
    counters: &'a Counters,
    /// Whether the image reads as zeroes, so that runs of zeroes need not be written.
    is_zero: bool,
}

impl Sink for ImageSink<'_> {
    fn encode(
        &self,
        _encoder: &mut Encoder,
        _offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Internal,
            "An existing image compresses its units itself",
        ))
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        Counters::add(&self.counters.backed, prepared.left_out());
        for piece in &prepared.pieces {
            if piece.offset + piece.len > self.image.len() {
                return Err(too_small());
            }
            match &piece.kind {
                PieceKind::Zero => {
                    Counters::add(&self.counters.zero, piece.len);
                    if !self.is_zero {
                        self.image
                            .write_zeroes(piece.offset, piece.len, ZeroFlags::MAY_UNMAP)
                            .context(at_byte(piece.offset))?;
                    }
                }
                PieceKind::Encoded { at, len } => {
                    let compressor = self.image.compressor().ok_or_else(Error::no_compression)?;
                    compressor
                        .write_compressed(prepared.buf.get(*at, *len), piece.offset)
                        .context(at_byte(piece.offset))?;
                    Counters::add(&self.counters.units, 1);
                    Counters::add(&self.counters.data, piece.len);
                }
                PieceKind::Data => Counters::add(&self.counters.data, piece.len),
                PieceKind::Offload { .. } => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "An existing image is not copied to inside the host",
                    ));
                }
            }
        }
        for span in &prepared.spans {
            self.image
                .write_at(prepared.buf.get(span.at, span.len), span.offset)
                .context(at_byte(span.offset))?;
        }
        Ok(())
    }
}

/// The error of an existing target that is too small for the sources.
fn too_small() -> Error {
    Error::invalid("output file is smaller than input file")
}
