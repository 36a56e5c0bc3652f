//! The numbers that a conversion goes by: sizes of steps and buffers, how many workers and writers.

use crate::crew::{Load, MEMORY};
use crate::format::Bulk;
use crate::format::bulk::most_encoded;
use crate::image::Image;
use crate::size::SECTOR;

use super::conflict::MAX_PARALLEL;
use super::request::ConvertRequest;
use super::runs::{Run, RunKind};
use super::sources::Sources;

/// The smallest step in which the range is divided: a page and file system block.
pub(super) const MIN_STEP: u64 = 4096;

/// The largest step: more at once copies no faster.
const MAX_STEP: u64 = 2 << 20;

/// The largest extent that is skipped as one task.
pub(super) const MAX_LONG_TASK: u64 = 1 << 40;

/// The largest extent that is copied by the kernel, or written as zeroes, as one task: what is
/// cancelled ends soon, progress moves, and a rate is kept.
pub(super) const MAX_MOVED_TASK: u64 = 16 << 20;

/// The most guest bytes that are read at once.
const MAX_CHUNK: u64 = 1 << 20;

/// The same where the target keeps larger units as a whole.
const MAX_UNIT: u64 = 4 << 20;

/// The same where units are compressed: smaller, so that the workers share the work evenly.
const MAX_CODED_CHUNK: u64 = 512 << 10;

/// The most workers while the storages answer at once: their buffers stay in the processor's cache.
pub(super) const FEW: usize = 4;

/// Writers at once into a file in the page cache, which lets in one at a time: a second one may
/// as well wait there, more would only be missing elsewhere.
pub(super) const CACHED_WRITERS: usize = 2;

/// The numbers that a conversion goes by; all in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopySizes {
    /// Guest bytes that are compressed together.
    pub encode_unit: u64,
    /// Zeroes are left out in multiples of this.
    pub zero_unit: u64,
    /// Guest ranges are classified in steps of this, a multiple of the one that counts.
    pub step: u64,
    /// The most guest bytes that are read at once, a multiple of the step.
    pub chunk: u64,
    /// Chunks end at multiples of their size.
    pub aligned: bool,
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

impl CopySizes {
    /// Whether runs of zeroes are to be left out or marked.
    pub fn keeps_sparse(&self) -> bool {
        self.sparse > 0
    }

    /// Bytes of the buffer for a chunk: units that do not shrink may take more than they have.
    pub fn buffer_len(&self) -> u64 {
        match self.compress && self.encode_early {
            true => self.chunk.div_ceil(self.encode_unit) * most_encoded(self.encode_unit),
            false => self.chunk,
        }
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

impl CopySizes {
    /// For a target that leaves out zeroes in multiples of `zero_unit`, in steps that are good for
    /// copying: of the unit that is compressed, where there is one.
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
            // The same however many workers: the layout of the target depends on it.
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

    /// For a new image; zeroes before `backing_end` have to be recorded.
    pub fn for_new(request: &ConvertRequest, bulk: &dyn Bulk, backing_end: u64) -> Self {
        let initial = bulk.initial_content();
        let limits = || bulk.data_storages().into_iter().map(|s| s.limits());
        let units = limits().map(|limits| limits.write_unit);
        // Of use where guest bytes lie as they lie in the guest.
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

    /// For an image that exists, in whole clusters, unless they are larger than is good for copying.
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

    /// Into what is written in such units: in whole ones, or parts of one alone.
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

    /// With sources that like so many requests in flight.
    pub fn reading_from(self, sources: &Sources) -> Self {
        Self {
            in_flight: self.in_flight.max(sources.in_flight()),
            ..self
        }
    }
}

/// How many workers, and how many ranges in work at once: one per worker, and some that wait for
/// their turn. Large units make few of both.
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
