//! Data and holes, found with `SEEK_DATA` and `SEEK_HOLE`. The last run of data is cached, but never a hole:
//! another process may fill it, and data taken for zeroes would be lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{FileStorage, Kind};
use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::sys::seek;

/// Seeking is given up when this is the average cost of many calls that find next to nothing.
const SLOW_SEEK: Duration = Duration::from_millis(10);
const SLOW_SAMPLE: u32 = 64;
const SLOW_BYTES: u64 = 64 << 10;

/// Counts the changes of a file's contents, shared by all its handles in this process.
type Generation = Arc<AtomicU64>;

/// Device and inode.
type Node = (u64, u64);

static GENERATIONS: LazyLock<Mutex<HashMap<Node, Weak<AtomicU64>>>> = LazyLock::new(Mutex::default);

fn generation_of(node: Node) -> Generation {
    let mut all = GENERATIONS.lock();
    if let Some(found) = all.get(&node).and_then(Weak::upgrade) {
        return found;
    }
    all.retain(|_, weak| weak.strong_count() > 0);
    let new = Generation::default();
    all.insert(node, Arc::downgrade(&new));
    new
}

/// What is cached of a file's extents.
#[derive(Debug)]
pub(super) struct ExtentCache {
    generation: Generation,
    seekable: AtomicBool,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    data: Option<Run>,
    seeks: u32,
    spent: Duration,
    covered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    generation: u64,
}

impl Run {
    fn holds(&self, at: u64, generation: u64) -> bool {
        self.generation == generation && (self.start..self.end).contains(&at)
    }
}

impl ExtentCache {
    pub(super) fn new(node: Node) -> Self {
        Self {
            generation: generation_of(node),
            seekable: AtomicBool::new(true),
            runs: Mutex::default(),
        }
    }

    /// Invalidates the cache. Called after a change, before the call that made it returns; a run found
    /// by a seek that began earlier carries an older generation and is ignored.
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The number of changes made through any handle of this process.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// For a change that may complete while no thread waits for it.
    pub(super) fn changing(&self) -> Changing {
        Changing(self.generation.clone())
    }

    fn lookup(&self, at: u64, len: u64) -> Option<StorageExtent> {
        let generation = self.generation();
        let runs = self.runs.lock();
        let run = runs.data.filter(|run| run.holds(at, generation))?;
        Some(data(len.min(run.end - at)))
    }
}

/// A change that invalidates the cache when it has completed, that is, when this is dropped.
#[derive(Debug)]
pub(super) struct Changing(Generation);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

fn data(len: u64) -> StorageExtent {
    StorageExtent {
        len,
        zero: false,
        allocated: true,
    }
}

fn hole(len: u64) -> StorageExtent {
    StorageExtent {
        len,
        zero: true,
        allocated: false,
    }
}

impl FileStorage {
    pub(super) fn find_extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        if let Some(found) = self.extents.lookup(offset, len) {
            return Ok(found);
        }
        if self.kind != Kind::Regular || !self.extents.seekable.load(Ordering::Relaxed) {
            return self.all_data(offset, len);
        }
        let generation = self.extents.generation.load(Ordering::Acquire);
        let started = Instant::now();
        let Some((zero, end)) = self.seek_run(offset)? else {
            return self.all_data(offset, len);
        };
        let mut runs = self.extents.runs.lock();
        if !zero {
            runs.data = Some(Run {
                start: offset,
                end,
                generation,
            });
        }
        runs.seeks += 1;
        runs.spent += started.elapsed();
        runs.covered = runs.covered.saturating_add(end - offset);
        if runs.seeks == SLOW_SAMPLE {
            let slow = runs.spent > SLOW_SEEK * SLOW_SAMPLE
                && runs.covered < SLOW_BYTES * u64::from(SLOW_SAMPLE);
            self.extents.seekable.store(!slow, Ordering::Relaxed);
            (runs.seeks, runs.spent, runs.covered) = (0, Duration::ZERO, 0);
        }
        let len = len.min(end - offset);
        Ok(if zero { hole(len) } else { data(len) })
    }

    /// Whether a hole starts at `offset`, and the end of that run; None if the file system does not
    /// say, or returns nonsense.
    fn seek_run(&self, offset: u64) -> Result<Option<(bool, u64)>> {
        let unsupported = |error: std::io::Error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESPIPE) => {
                self.extents.seekable.store(false, Ordering::Relaxed);
                Ok(None)
            }
            _ => Err(Error::io(&error)),
        };
        let next = match seek::next_data(self.fd(), offset) {
            Ok(Some(next)) => next,
            // No data up to the end of the file: one hole, which extends past the end without limit.
            Ok(None) => return Ok(Some((true, u64::MAX))),
            Err(error) => return unsupported(error),
        };
        if next > offset {
            return Ok(Some((true, next)));
        }
        if next < offset {
            return Ok(None);
        }
        match seek::next_hole(self.fd(), offset) {
            Ok(Some(end)) if end > offset => Ok(Some((false, end))),
            // Truncated in the meantime, or nonsense.
            Ok(_) => Ok(None),
            Err(error) => unsupported(error),
        }
    }

    /// The fallback: everything before the end is data.
    fn all_data(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let end = self.raw_len().map_err(|error| Error::io(&error))?;
        Ok(if offset >= end {
            hole(len)
        } else {
            data(len.min(end - offset))
        })
    }
}
