//! A target that takes bytes in order: a pipe, a socket, a terminal or another device.

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::package::plan_new;
use crate::format::{CreateParams, FileRole, FormatDriver, InOrder, PrepareContext, registry};
use crate::job::{Job, JobControl};
use crate::location::Node;
use crate::memory::IoBuf;
use crate::ops::create::Written;
use crate::options::Values;
use crate::size::round_up_sector;
use crate::storage::stream::{Direction, Stream, is_stream};
use crate::storage::{Durability, Identity, LockRequest, Permissions};

use super::offload::Offload;
use super::open_target::{check_features, creatable};
use super::piece::{PieceKind, Prepared};
use super::report::Counters;
use super::request::ConvertRequest;
use super::run::run;
use super::sink::{Sink, at_byte};
use super::sizes::{CopySizes, MAX_LONG_TASK, MIN_STEP, Writers};
use super::sources::Sources;
use super::stream_source::is_kept;

/// The stream that a request writes to, if its target is a stream.
pub(super) fn open(request: &ConvertRequest, job: &mut Job) -> Result<Option<Stream>> {
    let stream = match (&request.target.fd, request.target.location.node()) {
        (Some(named), _) => {
            refuse_format(request, &named.name)?;
            named.stream(Direction::Write)?
        }
        (None, Node::Path(path))
            if !is_kept(path, request.target.storages.as_ref())
                && is_stream(path, is_raw(request)) =>
        {
            if request.target.exclusive {
                let name = request.target.location.display();
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("'{name}' exists already"),
                ));
            }
            refuse_format(request, &request.target.location.display())?;
            let control = job.control().clone();
            Stream::open(path, Direction::Write, &|| control.checkpoint())?
        }
        _ => return Ok(None),
    };
    Ok(Some(stream))
}

fn is_raw(request: &ConvertRequest) -> bool {
    let format = request.target.format.as_deref();
    format.is_none_or(|format| format == registry::plain().name)
}

fn refuse_format(request: &ConvertRequest, shown: &str) -> Result<()> {
    let name = request
        .target
        .format
        .as_deref()
        .unwrap_or(registry::plain().name);
    let format = creatable(request, name)?;
    check_features(request, format, false)?;
    if !is_raw(request) && !is_in_order(request, format.driver) {
        return Err(Error::unsupported(format!(
            "'{shown}' is written in order, which the format '{name}' cannot be; write it to a file, or take the format 'raw'"
        )));
    }
    Ok(())
}

/// Whether the options result in an image that can be written in order.
fn is_in_order(request: &ConvertRequest, driver: &FormatDriver) -> bool {
    let values = Values::check(&request.target.options, driver.create_options);
    values.is_ok_and(|values| (driver.outline)(&values).in_order)
}

/// Writes everything in order. Returns the length.
pub(super) fn fill(
    request: &ConvertRequest,
    sources: Sources,
    stream: &Stream,
    counters: &Counters,
    job: &mut Job,
) -> Result<u64> {
    if let Some(id) = Identity::of_fd(stream.fd()) {
        sources.kept(request)?.check(&[Written {
            id,
            role: FileRole::Image,
            name: stream.name().to_owned(),
        }])?;
    }
    stream.lock(LockRequest {
        uses: Permissions::WRITE,
        denies: Permissions::empty(),
    })?;
    if !is_raw(request) {
        return fill_image(request, sources, stream, counters, job);
    }
    let control = job.control().clone();
    let sink = StreamSink {
        stream,
        counters,
        control: &control,
    };
    let sizes = CopySizes {
        // Here, zeroes are bytes like any others.
        sparse: 0,
        ..CopySizes::new(request, MIN_STEP, None)
    };
    let offload = Offload::default();
    run(request, &sources, &offload, &sink, sizes, Writers::One, job)?;
    if request.target.cache.durability() == Durability::Synced {
        stream.sync()?;
    }
    sources.finish()
}

/// Writes an image in order.
fn fill_image(
    request: &ConvertRequest,
    sources: Sources,
    stream: &Stream,
    counters: &Counters,
    job: &mut Job,
) -> Result<u64> {
    let name = request.target.format.as_deref().unwrap_or_default();
    let driver = creatable(request, name)?.driver;
    let target = &request.target;
    if target.backing_name().is_some() {
        return Err(Error::unsupported(
            "An image that is written in order has no backing file",
        ));
    }
    let len = sources.known_len().ok_or_else(|| {
        Error::invalid(format!(
            "The length of the input is not known before its end, and an image in the format '{name}' begins with it"
        ))
    })?;
    let size = round_up_sector(len).ok_or_else(|| Error::os(libc::EFBIG))?;
    target.policy.check_format(driver.name)?;
    target.policy.check_virtual_size(size)?;
    let values = Values::check(&target.options, driver.create_options)?;
    let mut image = plan_new(
        driver,
        target.package(),
        &CreateParams {
            name: None,
            size,
            values: &values,
            backing: None,
        },
    )?;
    let control = job.control().clone();
    image.prepare(&PrepareContext {
        objects: &target.objects,
        parent: None,
        control: &control,
    })?;
    let image = image.in_order()?;
    let passes = image.passes();
    if passes > 1 && sources.is_stream() {
        return Err(Error::unsupported(format!(
            "'{}' has to begin with what only its end tells, for which the input is read twice, and it can be read but once: write to a file",
            stream.name()
        )));
    }
    let request = &*request.compressing(true);
    let unit = image.unit();
    let sizes = CopySizes {
        encode_early: true,
        longest_zeroes: MAX_LONG_TASK,
        ..CopySizes::new(request, u64::from(unit), Some(unit))
    };
    let offload = Offload::default();
    for pass in 1..=passes {
        if passes > 1 {
            control.begin_part(u64::from(pass - 1), 1, u64::from(passes));
        }
        // Passes that only try out the sizes do not count.
        let unseen = Counters::default();
        let sink = ImageSink {
            image: &*image,
            stream,
            counters: if pass == passes { counters } else { &unseen },
            control: &control,
        };
        image.begin(&mut |bytes| sink.take(bytes))?;
        run(request, &sources, &offload, &sink, sizes, Writers::One, job)?;
        image.end(&mut |bytes| sink.take(bytes))?;
    }
    if target.cache.durability() == Durability::Synced {
        stream.sync()?;
    }
    Ok(len)
}

/// An image being written to a stream.
struct ImageSink<'a> {
    image: &'a dyn InOrder,
    stream: &'a Stream,
    counters: &'a Counters,
    control: &'a JobControl,
}

impl ImageSink<'_> {
    fn take(&self, bytes: &[u8]) -> Result<()> {
        self.stream.write(bytes, &|| self.control.checkpoint())
    }
}

impl Sink for ImageSink<'_> {
    fn encode(
        &self,
        encoder: &mut Encoder,
        offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        self.image.encode(encoder, offset, unit, out)?;
        Ok(true)
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        for piece in &prepared.pieces {
            match piece.kind {
                // What is left out reads as zeroes.
                PieceKind::Zero => Counters::add(&self.counters.zero, piece.len),
                PieceKind::Encoded { at, len } => {
                    Counters::add(&self.counters.units, 1);
                    Counters::add(&self.counters.encoded, len as u64);
                    Counters::add(&self.counters.data, piece.len);
                    let bytes = prepared.buf.get(at, len);
                    self.image
                        .push(piece.offset, bytes, &mut |bytes| self.take(bytes))
                        .context(at_byte(piece.offset))?;
                }
                PieceKind::Data | PieceKind::Offload { .. } => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "An image that is written in order takes encoded units alone",
                    ));
                }
            }
        }
        Ok(())
    }
}

struct StreamSink<'a> {
    stream: &'a Stream,
    counters: &'a Counters,
    control: &'a JobControl,
}

impl Sink for StreamSink<'_> {
    fn encode(
        &self,
        _encoder: &mut Encoder,
        _offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Internal,
            "A stream takes no compressed units",
        ))
    }

    fn place(&self, _prepared: &mut Prepared) -> Result<()> {
        Ok(())
    }

    fn write(&self, prepared: &Prepared) -> Result<()> {
        for piece in &prepared.pieces {
            if !matches!(piece.kind, PieceKind::Data) {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "A stream takes nothing but data",
                ));
            }
            Counters::add(&self.counters.data, piece.len);
        }
        for span in &prepared.spans {
            self.stream
                .write(prepared.buf.get(span.at, span.len), &|| {
                    self.control.checkpoint()
                })
                .context(at_byte(span.offset))?;
        }
        Ok(())
    }
}
