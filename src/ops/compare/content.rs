//! Comparing contents on several threads; the first difference wins.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::pieces::{GuestPiece, LookupFailed, Pieces, Task};
use super::{SECTOR, read_failed, status_failed};
use crate::crew::{self, Load};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::job::{Job, JobControl, without_signals};
use crate::memory::IoBuf;
use crate::ops::forecast::{self, Forecast, Run};
use crate::zero::is_zero;

/// Minimum number of bytes read at a time from each image.
const CHUNK: u64 = 1 << 20;
/// Maximum number of bytes read at a time: larger clusters are read in parts, one after the other.
const MAX_CHUNK: u64 = 2 << 20;

/// The first difference within the first `limit` bytes: the offset of a byte in the sector.
///
/// # Errors
/// If mapping or reading fails, unless a difference comes before that; cancellation.
pub(super) fn first_difference(
    images: [&Image; 2],
    limit: u64,
    job: &mut Job,
) -> Result<Option<u64>> {
    let cluster = images
        .iter()
        .filter_map(|image| image.format().cluster_size())
        .map(u64::from)
        .max();
    let longest = cluster.unwrap_or(CHUNK).clamp(CHUNK, MAX_CHUNK);
    let shared = Shared {
        images,
        pieces: Mutex::new(Pieces::new(images, limit, longest)),
        first: AtomicU64::new(u64::MAX),
        found: Mutex::new(None),
        control: job.control().clone(),
    };
    let mut ahead = Pieces::new(images, limit, longest);
    let estimate = forecast::held_by(images.into_iter().flat_map(forecast::layers));
    let mut forecast = Forecast::new(limit, estimate, |at| match ahead.next() {
        Ok(Some(piece)) => Ok(Run {
            len: piece.len,
            moved: piece.moved(),
        }),
        Ok(None) => Ok(Run {
            len: limit - at,
            moved: 0,
        }),
        // It counts at its offset: a difference before it takes precedence.
        Err(failed) => {
            shared.record_lookup(failed);
            Ok(Run {
                len: limit - at,
                moved: 0,
            })
        }
    });
    forecast.update(&shared.control)?;
    let in_flight = images.map(Image::requests_in_flight);
    let load = Load {
        in_flight: in_flight[0].max(in_flight[1]),
        computes: false,
        bytes: 2 * longest,
    };
    let threads = load
        .threads()
        .min(usize::try_from(limit / longest + 1).unwrap_or(usize::MAX));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads)
            .map_while(|n| {
                // Fewer threads than requested do the same work.
                without_signals(|| {
                    crew::thread(&format!("compare-{n}"))
                        .spawn_scoped(scope, || {
                            let _working = shared.control.work_here();
                            shared.work(|| shared.control.checkpoint())
                        })
                        .ok()
                })
            })
            .collect();
        // This thread works too, and only this one may invoke callbacks.
        let mut outcome = shared.work(|| {
            forecast.update(&shared.control)?;
            job.tick()
        });
        for worker in workers {
            let ended = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended);
        }
        outcome
    })?;
    match shared.found.into_inner() {
        Some((_, event)) => event.map(Some),
        None => Ok(None),
    }
}

/// What the threads share.
struct Shared<'a> {
    images: [&'a Image; 2],
    pieces: Mutex<Pieces<'a>>,
    /// Offset of the first event so far; pieces from there on need not be compared.
    first: AtomicU64,
    /// That event: a difference, or the error that hides whether there is one.
    found: Mutex<Option<(u64, Result<u64>)>>,
    control: std::sync::Arc<JobControl>,
}

impl Shared<'_> {
    /// Takes pieces until none is left before the first event.
    ///
    /// # Errors
    /// Any error of `between`, which is called between pieces. The other threads then stop too.
    fn work(&self, mut between: impl FnMut() -> Result<()>) -> Result<()> {
        let mut buffers = [IoBuf::new(), IoBuf::new()];
        while let Some(piece) = self.take() {
            let allowed = match piece.moved() {
                0 => Ok(()),
                bytes => self.control.throttle(bytes),
            };
            if allowed.is_ok()
                && let Err((offset, error)) = self.compare(&piece, &mut buffers)
            {
                self.record(offset, error);
            }
            self.control.advance(piece.moved());
            if let Err(error) = allowed.and_then(|()| between()) {
                self.first.store(0, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The next piece that must be compared.
    fn take(&self) -> Option<GuestPiece> {
        let mut pieces = self.pieces.lock();
        match pieces.next() {
            Ok(piece) => piece.filter(|piece| piece.start < self.first.load(Ordering::Relaxed)),
            Err(failed) => {
                self.record_lookup(failed);
                None
            }
        }
    }

    /// Records that the contents of an image could not be looked up.
    fn record_lookup(&self, failed: LookupFailed) {
        let error = status_failed(self.images[failed.side], failed.error);
        self.record(failed.offset, Err(error));
    }

    fn record(&self, offset: u64, event: Result<u64>) {
        let mut found = self.found.lock();
        if found.as_ref().is_none_or(|(first, _)| offset < *first) {
            *found = Some((offset, event));
            self.first.fetch_min(offset, Ordering::Relaxed);
        }
    }

    /// Compares one piece; the error is the event and its offset.
    fn compare(
        &self,
        piece: &GuestPiece,
        buffers: &mut [IoBuf; 2],
    ) -> Result<(), (u64, Result<u64>)> {
        let differs = |at: usize| {
            let offset = piece.start + at as u64;
            Err((offset, Ok(offset)))
        };
        match piece.task {
            Task::Skip => Ok(()),
            Task::Zero(side) => {
                let buf = self.read(side, piece, &mut buffers[0])?;
                match is_zero(buf) {
                    true => Ok(()),
                    false => differs(buf.iter().position(|byte| *byte != 0).unwrap_or(0)),
                }
            }
            Task::Both => {
                let [a, b] = buffers;
                // Of two read errors, that of the first image is reported, as if they were read one after the other.
                let a = self.read(0, piece, a);
                let b = self.read(1, piece, b);
                let (a, b) = match (a, b) {
                    (Ok(a), Ok(b)) => (a, b),
                    (Err(x), Err(y)) => return Err(if y.0 < x.0 { y } else { x }),
                    (Err(x), _) | (_, Err(x)) => return Err(x),
                };
                match a == b {
                    true => Ok(()),
                    false => differs(position_of_difference(a, b)),
                }
            }
        }
    }

    fn read<'b>(
        &self,
        side: usize,
        piece: &GuestPiece,
        buffer: &'b mut IoBuf,
    ) -> Result<&'b [u8], (u64, Result<u64>)> {
        let image = self.images[side];
        let fail = |(offset, error)| (offset, Err(read_failed(image, offset, error)));
        // A piece is never longer than the largest chunk.
        let len = usize::try_from(piece.len.min(MAX_CHUNK)).unwrap_or(0);
        let buf = buffer
            .room(len)
            .map_err(|error| fail((piece.start, error)))?;
        match image.read_at(buf, piece.start) {
            Ok(()) => Ok(buf),
            Err(error) => Err(fail(first_failure(image, buf, piece.start, error))),
        }
    }
}

/// The first cluster that cannot be read, within a range that cannot be read.
fn first_failure(image: &Image, buf: &mut [u8], start: u64, error: Error) -> (u64, Error) {
    let unit = u64::from(image.format().cluster_size().unwrap_or(4096)).max(SECTOR);
    let mut at = 0;
    while at < buf.len() {
        let offset = start + at as u64;
        let rest = unit - offset % unit;
        let end = usize::try_from(rest).map_or(buf.len(), |rest| (at + rest).min(buf.len()));
        if let Err(error) = image.read_at(&mut buf[at..end], offset) {
            return (offset, error);
        }
        at = end;
    }
    // This time it was readable.
    (start, error)
}

fn position_of_difference(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 4096;
    let blocks = a.chunks(STEP).zip(b.chunks(STEP));
    for (i, (x, y)) in blocks.enumerate() {
        if x != y {
            let within = x.iter().zip(y).position(|(p, q)| p != q);
            return i * STEP + within.unwrap_or(0);
        }
    }
    0
}
