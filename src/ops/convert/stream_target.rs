//! A target that takes raw bytes in order: a pipe, a socket, a terminal or another device.

use crate::codec::Encoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::{FileRole, registry};
use crate::job::{Job, JobControl};
use crate::location::Node;
use crate::memory::IoBuf;
use crate::ops::create::Written;
use crate::storage::stream::{Direction, Stream, is_stream};
use crate::storage::{Durability, Identity, LockRequest, Permissions};

use super::offload::Offload;
use super::open_target::{check_features, creatable};
use super::piece::{PieceKind, Prepared};
use super::report::Tally;
use super::request::ConvertRequest;
use super::run::run;
use super::sink::{Sink, at_byte};
use super::sizes::{MIN_STEP, Shape, Writers};
use super::sources::Sources;

/// The stream that a request writes to, if its target is one.
pub(super) fn open(request: &ConvertRequest, job: &mut Job) -> Result<Option<Stream>> {
    let stream = match (&request.target.fd, request.target.location.node()) {
        (Some(named), _) => {
            refuse_format(request, &named.name)?;
            named.stream(Direction::Write)?
        }
        (None, Node::Path(path)) if is_stream(path, is_raw(request)) => {
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
    if !is_raw(request) {
        return Err(Error::unsupported(format!(
            "'{shown}' is written in order, which the format '{name}' cannot be; write it to a file, or take the format 'raw'"
        )));
    }
    Ok(())
}

/// Writes everything in order, zeroes included. Gives the length.
pub(super) fn fill(
    request: &ConvertRequest,
    sources: Sources,
    stream: &Stream,
    tally: &Tally,
    job: &mut Job,
) -> Result<u64> {
    if let Some(id) = Identity::of_fd(stream.fd()) {
        sources.kept(request).check(&[Written {
            id,
            role: FileRole::Image,
            name: stream.name().to_owned(),
        }])?;
    }
    stream.lock(LockRequest {
        uses: Permissions::WRITE,
        denies: Permissions::empty(),
    })?;
    let control = job.control().clone();
    let sink = StreamSink {
        stream,
        tally,
        control: &control,
    };
    let shape = Shape {
        // Zeroes are bytes like others here.
        sparse: 0,
        ..Shape::new(request, MIN_STEP, None)
    };
    let offload = Offload::default();
    run(request, &sources, &offload, &sink, shape, Writers::One, job)?;
    if request.target.cache.durability() == Durability::Synced {
        stream.sync()?;
    }
    sources.finish()
}

struct StreamSink<'a> {
    stream: &'a Stream,
    tally: &'a Tally,
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
            Tally::add(&self.tally.data, piece.len);
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
