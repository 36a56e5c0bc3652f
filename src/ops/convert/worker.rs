//! The workers: each prepares ranges, places those whose turn it is, and writes.

use std::time::Instant;

use crate::crew::{self, Computing};
use crate::error::Result;
use crate::job::{Job, JobControl, without_signals};
use crate::ops::forecast::{Forecast, Run};
use crate::trace::Event;

use super::buffer::Buffer;
use super::offload::Offload;
use super::order::{Order, Step};
use super::piece::PieceKind;
use super::plan::Planner;
use super::prepare::Preparer;
use super::range_checksum;
use super::sink::Sink;
use super::sizes::CopySizes;
use super::sources::Sources;

/// A conversion writes a range of the guest.
pub(super) static RANGE: Event = Event::new("convert_range");

/// Everything that the workers of one conversion share.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub sources: &'a Sources,
    pub offload: &'a Offload,
    pub sink: &'a dyn Sink,
    pub sizes: CopySizes,
    /// Limits the workers that encode, if not all of them may at once.
    pub computing: Option<&'a Computing>,
    /// Number of workers; the calling thread is one of them.
    pub workers: usize,
    /// Number of workers that are active while the storages answer promptly.
    pub first_workers: usize,
    /// Maximum number of ranges in progress at once.
    pub buffers: usize,
    /// Maximum number of ranges written at once.
    pub writers: usize,
}

/// Counts in advance how much there is to copy.
pub(super) type Ahead<'a> = Forecast<Box<dyn FnMut(u64) -> Result<Run> + 'a>>;

/// A turn later than any other: for failures that belong to no range.
const NO_TURN: u64 = u64::MAX;

impl Work<'_> {
    /// Converts a range with all workers.
    pub fn run(
        &self,
        range: std::ops::Range<u64>,
        ahead: &mut Ahead<'_>,
        job: &mut Job,
    ) -> Result<()> {
        let planner = Planner::new(self.sources, self.offload, self.sizes, range);
        let size = self.sizes.buffer_len() as usize;
        let buffers = |count| {
            let each = std::iter::repeat_with(|| Buffer::new(size));
            each.take(count).collect::<Vec<_>>()
        };
        let first = match self.first_workers < self.workers {
            true => self.buffers.min(self.first_workers + 2),
            false => self.buffers,
        };
        let order = Order::new(
            buffers(first),
            buffers(self.buffers - first),
            self.writers,
            self.sources.checksum().is_some(),
        );
        let control = job.control().clone();
        ahead.update(&control)?;
        std::thread::scope(|scope| {
            let (planner, order, control) = (&planner, &order, &control);
            for n in 1..self.workers {
                let spawned = without_signals(|| {
                    crew::thread(&format!("convert-{n}")).spawn_scoped(scope, move || {
                        let _working = control.work_here();
                        if n >= self.first_workers {
                            order.wait_until_wanted(n == self.first_workers);
                        }
                        self.work(planner, order, control, &mut || Ok(()));
                    })
                });
                // Fewer threads than requested do the same work.
                if spawned.is_err() {
                    break;
                }
            }
            self.work(planner, order, control, &mut || {
                for warning in self.sources.take_warnings() {
                    job.warn(warning);
                }
                ahead.update(control)?;
                job.tick()
            });
        });
        for warning in self.sources.take_warnings() {
            job.warn(warning);
        }
        order.into_result()
    }

    fn work(
        &self,
        planner: &Planner<'_>,
        order: &Order,
        control: &JobControl,
        tick: &mut dyn FnMut() -> Result<()>,
    ) {
        let _stop = StopOnPanic(order);
        let mut preparer = Preparer::new(
            self.sources,
            self.offload,
            self.sink,
            self.sizes,
            self.computing,
        );
        loop {
            let mut turn = NO_TURN;
            match self.step(planner, order, control, &mut preparer, &mut turn) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return order.fail(turn, error),
            }
            if let Err(error) = tick() {
                return order.fail(NO_TURN, error);
            }
        }
    }

    /// One step of a worker; false when nothing is left. `turn` is set to the range that failed.
    fn step(
        &self,
        planner: &Planner<'_>,
        order: &Order,
        control: &JobControl,
        preparer: &mut Preparer<'_>,
        turn: &mut u64,
    ) -> Result<bool> {
        match order.step(planner, self.sink)? {
            Step::Done => return Ok(false),
            Step::Again => {}
            Step::Sum(mut prepared) => {
                *turn = prepared.turn;
                if let Some(checksum) = self.sources.checksum() {
                    range_checksum::take(checksum, &prepared, self.sources, control)?;
                }
                prepared.kept = None;
                order.summed(prepared);
            }
            Step::Write(prepared) => {
                *turn = prepared.turn;
                RANGE.emit(|| format!("turn={} bytes={}", prepared.turn, prepared.len));
                let begun = Instant::now();
                prepared.buf.lend(|| self.sink.write(&prepared))?;
                order.write_took(begun.elapsed());
                control.advance(prepared.moved);
                order.written(prepared.buf);
            }
            Step::Prepare(buffer) => {
                control.checkpoint()?;
                match planner.next_task()? {
                    None => order.recycle(buffer),
                    Some(task) => {
                        *turn = task.turn;
                        let begun = Instant::now();
                        let prepared = preparer.prepare(&task, buffer)?;
                        let time = begun.elapsed();
                        let moved = prepared
                            .pieces
                            .iter()
                            .filter(|piece| !matches!(piece.kind, PieceKind::Zero))
                            .map(|piece| piece.len)
                            .sum();
                        if moved > 0 {
                            order.read_took(time);
                        }
                        control.throttle(moved)?;
                        order.park(prepared);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Wakes the other workers when this one panics; otherwise they would wait for its range forever.
struct StopOnPanic<'a>(&'a Order);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
