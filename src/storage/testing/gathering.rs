//! A storage whose reads wait for each other, to count how many are in flight at once.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::storage::forward::forward;
use crate::storage::{HostFile, Limits, ReadRange, Storage};

/// How long a read waits for the others before it proceeds alone, in which case the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Forwards everything. Once armed, it holds reads until its preferred number is in flight.
#[derive(Debug)]
pub struct GatheringStorage {
    inner: Arc<dyn Storage>,
    in_flight: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    armed: bool,
    now: u32,
    most: u32,
    /// Maximum number of ranges in one call.
    together: usize,
    /// Number of read calls.
    reads: u64,
    /// Reads of these bytes fail.
    refused: Range<u64>,
}

impl GatheringStorage {
    /// A storage that prefers `in_flight` concurrent requests.
    pub fn new(inner: Arc<dyn Storage>, in_flight: u32) -> Self {
        Self {
            inner,
            in_flight,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Holds reads from now on.
    pub fn arm(&self) {
        self.state.lock().armed = true;
    }

    /// Maximum number of reads that were in flight at once.
    pub fn most(&self) -> u32 {
        self.state.lock().most
    }

    /// Maximum number of ranges requested in one call.
    pub fn together(&self) -> usize {
        self.state.lock().together
    }

    /// Number of read calls, and so of times a caller had to wait.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// Makes reads of these bytes fail from now on.
    pub fn refuse(&self, bytes: Range<u64>) {
        self.state.lock().refused = bytes;
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let refused = &self.state.lock().refused;
        let end = offset.saturating_add(len as u64);
        match offset < refused.end && refused.start < end {
            true => Err(Error::os(libc::EIO).of_file(self.name())),
            false => Ok(()),
        }
    }

    fn gather(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        state.reads += 1;
        if !state.armed {
            return;
        }
        state.now += 1;
        state.most = state.most.max(state.now);
        self.changed.notify_all();
        while state.most < self.in_flight {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                // One wait in vain is enough.
                state.armed = false;
                break;
            }
        }
        state.now -= 1;
    }
}

impl Storage for GatheringStorage {
    forward!(
        inner: name, driver, identity, read_only, write_at, write_vectored_at, len, set_len,
        write_zeroes, discard, sync, extent, allocated_size, step_watcher, lock
    );

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.gather();
        self.check(offset, buf.len())?;
        self.inner.read_at(buf, offset)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.gather();
        self.check(offset, bufs.iter().map(|buf| buf.len()).sum())?;
        self.inner.read_vectored_at(bufs, offset)
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.together = state.together.max(ranges.len());
        }
        self.gather();
        for (offset, buf) in &*ranges {
            self.check(*offset, buf.len())?;
        }
        self.inner.read_many_at(ranges)
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        Ok(false)
    }

    fn limits(&self) -> Limits {
        Limits {
            in_flight: self.in_flight,
            ..self.inner.limits()
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would not be counted.
        None
    }
}
