//! The parameters of a conversion: sizes of steps and buffers, numbers of workers and writers.

use crate::crew::{Load, MEMORY};
use crate::format::Bulk;
use crate::format::bulk::most_encoded;
use crate::image::Image;
use crate::size::SECTOR;

use super::conflict::MAX_PARALLEL;
use super::request::ConvertRequest;
use super::runs::{Run, RunKind};
use super::sources::Sources;

/// Minimum step into which the range is divided: a page and file system block.
pub(super) const MIN_STEP: u64 = 4096;

/// Maximum step: more at once is not faster to copy.
const MAX_STEP: u64 = 2 << 20;

/// Maximum extent that is skipped as one task.
pub(super) const MAX_LONG_TASK: u64 = 1 << 40;

/// Maximum extent that is copied by the kernel, or written as zeroes, as one task: this keeps cancellation prompt,
/// progress moving and a rate limit accurate.
pub(super) const MAX_MOVED_TASK: u64 = 16 << 20;

/// Maximum number of guest bytes that are read at once.
const MAX_CHUNK: u64 = 1 << 20;

/// The same if the target stores larger units as a whole.
const MAX_UNIT: u64 = 4 << 20;

/// The same if units are compressed: smaller, so that the work is spread evenly over the workers.
const MAX_CODED_CHUNK: u64 = 512 << 10;

/// Maximum number of workers while the storages answer promptly: their buffers stay in the processor's cache.
pub(super) const FEW: usize = 4;

/// Concurrent writers to a file in the page cache, which admits one at a time: a second one may as well wait there, but
/// more would be missing elsewhere.
pub(super) const CACHED_WRITERS: usize = 2;

/// The parameters of a conversion; all sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopySizes {
    /// Guest bytes that are compressed together.
    pub encode_unit: u64,
    /// Granularity at which zeroes are left out.
    pub zero_unit: u64,
    /// Guest ranges are classified in steps of this size, a multiple of the relevant unit.
    pub step: u64,
    /// Maximum number of guest bytes that are read at once, a multiple of the step.
    pub chunk: u64,
    /// Whether chunks end at multiples of their size.
    pub aligned: bool,
    /// Shortest run of zeroes that is left out; 0 for none.
    pub sparse: u64,
    /// Whether reserved bytes that are not written read as zeroes.
    pub unwritten_is_zero: bool,
    /// Whether runs of zeroes are written out, byte by byte.
    pub zeroes_cost: bool,
    /// Maximum run of zeroes that is one task, a multiple of the step.
    pub longest_zeroes: u64,
    /// Whether units are compressed.
    pub compress: bool,
    /// Number of requests that the files of sources and target prefer to have in flight.
    pub in_flight: u32,
    /// Whether the sink takes encoded units; otherwise it encodes them itself.
    pub encode_early: bool,
}

impl CopySizes {
    /// Whether runs of zeroes are to be left out or marked.
    pub fn keeps_sparse(&self) -> bool {
        self.sparse > 0
    }

    /// Size of the buffer for a chunk: units that do not shrink may take more space than they hold.
    pub fn buffer_len(&self) -> u64 {
        match self.compress && self.encode_early {
            true => self.chunk.div_ceil(self.encode_unit) * most_encoded(self.encode_unit),
            false => self.chunk,
        }
    }

    /// How many bytes of a run must be moved.
    pub fn moved(&self, run: &Run<'_>) -> u64 {
        match run.kind {
            RunKind::Data { .. } => run.len,
            RunKind::Zero if self.zeroes_cost || !self.keeps_sparse() => run.len,
            RunKind::Zero | RunKind::Backed => 0,
        }
    }
}

impl CopySizes {
    /// For a target that leaves out zeroes in multiples of `zero_unit`, with steps suitable for copying: the unit that
    /// is compressed, if there is one.
    pub fn new(request: &ConvertRequest, zero_unit: u64, encode_unit: Option<u32>) -> Self {
        let zero_unit = zero_unit.max(SECTOR);
        let encode_unit = encode_unit.map_or(zero_unit, u64::from).max(SECTOR);
        let (step, most) = match request.target.compress {
            true => (encode_unit, MAX_CODED_CHUNK),
            false => (zero_unit, MAX_CHUNK),
        };
        let step = step.max(MIN_STEP);
        Self {
            encode_unit,
            zero_unit,
            step,
            // Independent of the number of workers: the layout of the target depends on it.
            chunk: most.max(step).next_multiple_of(step),
            aligned: false,
            sparse: request.tuning.sparse(),
            unwritten_is_zero: false,
            zeroes_cost: false,
            longest_zeroes: MAX_MOVED_TASK,
            compress: request.target.compress,
            in_flight: 1,
            encode_early: false,
        }
    }

    /// For a new image; zeroes before `backing_end` must be recorded.
    pub fn for_new(request: &ConvertRequest, bulk: &dyn Bulk, backing_end: u64) -> Self {
        let initial = bulk.initial_content();
        let limits = || bulk.data_storages().into_iter().map(|s| s.limits());
        let units = limits().map(|limits| limits.write_unit);
        // Useful only if guest bytes are contiguous in the target over a whole unit.
        let units = units.filter(|unit| *unit <= bulk.alignment());
        let sizes = Self {
            unwritten_is_zero: initial.unwritten_is_zero,
            longest_zeroes: match initial.unreserved_is_zero && backing_end == 0 {
                true => MAX_LONG_TASK,
                false => MAX_MOVED_TASK,
            },
            zeroes_cost: !initial.unreserved_is_zero && !bulk.takes_raw_writes(),
            in_flight: limits().map(|limits| limits.in_flight).max().unwrap_or(1),
            encode_early: request.target.compress,
            ..Self::new(request, u64::from(bulk.zero_unit()), bulk.encode_unit())
        };
        sizes.in_units_of(units.max().unwrap_or(1))
    }

    /// For an existing image, in whole clusters, unless they are too large for efficient copying.
    pub fn for_existing(request: &ConvertRequest, image: &Image) -> Self {
        let cluster = u64::from(image.format().cluster_size().unwrap_or(0));
        let encode_unit = image
            .compressor()
            .map(|compressor| compressor.encode_unit());
        let sizes = Self {
            unwritten_is_zero: request.target.is_zero,
            longest_zeroes: match request.target.is_zero {
                true => MAX_LONG_TASK,
                false => MAX_MOVED_TASK,
            },
            in_flight: image.requests_in_flight(),
            ..Self::new(request, cluster.min(MAX_STEP), encode_unit)
        };
        sizes.in_units_of(image.write_unit())
    }

    /// For a target that is written in units of this size: in whole units, or parts of a single one.
    pub fn in_units_of(self, unit: u64) -> Self {
        match unit {
            0 | 1 => self,
            unit => Self {
                chunk: self.chunk.max(unit.min(MAX_UNIT)),
                aligned: true,
                ..self
            },
        }
    }

    /// How much of what begins at `start` is read at once.
    pub fn chunk_at(&self, start: u64) -> u64 {
        match self.aligned {
            true => self.chunk - start % self.chunk,
            false => self.chunk,
        }
    }

    /// Takes into account how many requests the sources prefer to have in flight.
    pub fn reading_from(self, sources: &Sources) -> Self {
        Self {
            in_flight: self.in_flight.max(sources.in_flight()),
            ..self
        }
    }
}

/// The number of workers, and of ranges in progress at once: one per worker, and some that wait for their turn. Large
/// units reduce both.
pub(super) fn crew_for(request: &ConvertRequest, sizes: &CopySizes) -> (u64, u64) {
    let affordable = MEMORY / sizes.chunk;
    let load = Load {
        in_flight: sizes.in_flight,
        computes: sizes.encode_early,
        bytes: sizes.chunk,
    };
    let wanted = match request.tuning.parallel {
        Some(number) => u64::from(number.min(MAX_PARALLEL)),
        None => load.threads() as u64,
    };
    if request.target.compress {
        // Each worker also has a buffer of plain bytes.
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
