//! Runs a conversion over the whole range.

use crate::crew::{self, Computing};
use crate::error::Result;
use crate::job::Job;
use crate::ops::forecast::{self, Forecast};

use super::offload::Offload;
use super::request::ConvertRequest;
use super::sink::Sink;
use super::sizes::{CACHED_WRITERS, CopySizes, FEW, Writers, crew_for};
use super::sources::Sources;
use super::worker::{Ahead, Work};

pub(super) fn run(
    request: &ConvertRequest,
    sources: &Sources,
    offload: &Offload,
    sink: &dyn Sink,
    sizes: CopySizes,
    writers: Writers,
    job: &mut Job,
) -> Result<()> {
    let (workers, buffers) = crew_for(request, &sizes);
    let workers = workers as usize;
    // Some workers of an encoding conversion only wait for storages.
    let computing = Computing::among(workers).filter(|_| sizes.encode_early);
    let work = Work {
        computing: computing.as_ref(),
        sources,
        offload,
        sink,
        sizes,
        workers,
        first_workers: match request.tuning.parallel {
            None if !request.target.compress => workers.min(crew::processors().min(FEW)),
            _ => workers,
        },
        buffers: buffers as usize,
        writers: match writers {
            Writers::One => 1,
            Writers::Cached => CACHED_WRITERS.min(workers),
            Writers::Many => workers,
        },
    };
    let mut forecast = forecast(sources, sizes);
    let Some(total) = sources.known_len() else {
        return work.run(0..u64::MAX, &mut forecast, job);
    };
    // The end comes last and separately: a raw disk left by an interrupted run is too short.
    let last = total.saturating_sub(1) / sizes.step * sizes.step;
    work.run(0..last, &mut forecast, job)?;
    let tail = Work {
        workers: 1,
        first_workers: 1,
        buffers: 1,
        ..work
    };
    tail.run(last..total, &mut forecast, job)?;
    sources.finish().map(drop)
}

/// How much there is to copy; for a stream, all of it, if its length is known.
fn forecast(sources: &Sources, sizes: CopySizes) -> Ahead<'_> {
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
                moved: sizes.moved(&run),
            })
        }),
    )
}
