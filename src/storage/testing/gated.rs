//! Storages whose writes or length changes block until a test releases them.

use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::storage::forward::forward;
use crate::storage::{HostFile, Limits, Preallocation, Storage, ZeroFlags};

/// A gate that calls have to pass. Initially open.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: u32,
}

impl Gate {
    /// Holds calls from now on.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Releases all calls.
    pub fn open(&self) {
        self.state.lock().closed = false;
        self.changed.notify_all();
    }

    /// Number of calls that are blocked.
    pub fn waiting(&self) -> u32 {
        self.state.lock().waiting
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }
}

/// Which calls have to pass the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gated {
    /// Writes, including those of zeroes.
    Writes,
    /// Changes of the length.
    Lengths,
}

/// Forwards everything, some calls through a gate.
#[derive(Debug)]
pub struct GatedStorage {
    inner: Arc<dyn Storage>,
    gate: Arc<Gate>,
    which: Gated,
}

impl GatedStorage {
    /// A storage whose calls of that kind pass the gate.
    pub fn new(inner: Arc<dyn Storage>, gate: Arc<Gate>, which: Gated) -> Self {
        Self { inner, gate, which }
    }

    fn pass(&self, call: Gated) {
        if self.which == call {
            self.gate.pass();
        }
    }
}

impl Storage for GatedStorage {
    forward!(
        inner: name, driver, identity, read_only, read_at, read_vectored_at, try_read, len,
        discard, sync, extent, allocated_size, step_watcher, lock
    );

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.pass(Gated::Writes);
        self.inner.write_at(buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.pass(Gated::Writes);
        self.inner.write_vectored_at(bufs, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.pass(Gated::Writes);
        self.inner.write_zeroes(offset, len, flags)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.pass(Gated::Lengths);
        self.inner.set_len(len, preallocation)
    }

    fn limits(&self) -> Limits {
        Limits {
            writes_to_memory: false,
            ..self.inner.limits()
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would bypass the gate.
        None
    }
}
