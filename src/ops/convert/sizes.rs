//! The numbers that a conversion goes by: sizes of steps and buffers, how many workers and writers.

use super::conflict::MAX_PARALLEL;
use super::request::ConvertRequest;
use super::runs::{Run, RunKind};

/// The smallest step in which the range is divided: a page and file system block.
pub(super) const MIN_STEP: u64 = 4096;

/// The largest extent that is skipped as one task.
pub(super) const MAX_LONG_TASK: u64 = 1 << 40;

/// The largest extent that is copied by the kernel, or written as zeroes, as one task: what is
/// cancelled ends soon, progress moves, and a rate is kept.
pub(super) const MAX_MOVED_TASK: u64 = 16 << 20;

/// All buffers of a conversion together take at most this much memory.
const BUFFER_BYTES: u64 = 36 << 20;

/// The most guest bytes that are read at once.
const MAX_CHUNK: u64 = 1 << 20;

/// The same where units are compressed: smaller, so that the workers share the work evenly.
const MAX_CODED_CHUNK: u64 = 512 << 10;

/// Writers at once into a file in the page cache, which lets in one at a time: a second one may
/// as well wait there, more would only be missing elsewhere.
pub(super) const CACHED_WRITERS: usize = 2;

/// The numbers that a conversion goes by; all in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The target's allocation unit.
    pub unit: u64,
    /// Zeroes are left out in multiples of this: a part of the unit, or the unit.
    pub zero_unit: u64,
    /// Guest ranges are classified in steps of this, a multiple of the unit.
    pub step: u64,
    /// The most guest bytes that are read at once, a multiple of the step.
    pub chunk: u64,
    /// Shortest run of zeroes that is left out; 0 for none.
    pub sparse: u64,
    /// Reserved bytes that are not written read as zeroes.
    pub unwritten_is_zero: bool,
    /// Runs of zeroes are written out, byte by byte.
    pub zeroes_cost: bool,
    /// The longest run of zeroes that is one task, a multiple of the step.
    pub longest_zeroes: u64,
    /// Units are compressed.
    pub compress: bool,
    /// How many requests the files of sources and target like to have in flight.
    pub in_flight: u32,
    /// The sink takes encoded units; else it encodes them itself.
    pub encode_early: bool,
}

impl Shape {
    /// Whether runs of zeroes are to be left out or marked.
    pub fn keeps_sparse(&self) -> bool {
        self.sparse > 0
    }

    /// How many bytes of a run are to be moved.
    pub fn moved(&self, run: &Run<'_>) -> u64 {
        match run.kind {
            RunKind::Data { .. } => run.len,
            RunKind::Zero if self.zeroes_cost || !self.keeps_sparse() => run.len,
            RunKind::Zero | RunKind::Backed => 0,
        }
    }
}

/// Sizes of steps and chunks for a target with this allocation unit.
pub(super) fn shape(request: &ConvertRequest, unit: u64) -> Shape {
    let unit = unit.max(512);
    let step = unit.max(MIN_STEP);
    let most = if request.target.compress {
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
        sparse: request.tuning.sparse(),
        unwritten_is_zero: false,
        zeroes_cost: false,
        longest_zeroes: MAX_MOVED_TASK,
        compress: request.target.compress,
        in_flight: 1,
        encode_early: false,
    }
}

/// How many workers to use: as many as there are processors, or more where most of them would only
/// wait for a device.
fn workers(request: &ConvertRequest, shape: &Shape) -> u32 {
    let cores =
        || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let waiting = if request.target.compress {
        1
    } else {
        shape.in_flight
    };
    request
        .tuning
        .parallel
        .unwrap_or_else(|| cores().max(waiting))
        .clamp(1, MAX_PARALLEL)
}

/// How many workers, and how many ranges in work at once: one per worker, and some that wait for
/// their turn. Large units make few of both.
pub(super) fn crew(request: &ConvertRequest, shape: &Shape) -> (u64, u64) {
    let affordable = BUFFER_BYTES / shape.chunk;
    let wanted = u64::from(workers(request, shape));
    if request.target.compress {
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
    pub fn of(request: &ConvertRequest, parallel: bool) -> Self {
        if parallel || request.target.cache.direct() {
            Self::Many
        } else {
            Self::Cached
        }
    }
}
