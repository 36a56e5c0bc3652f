//! A storage that fails on demand.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::storage::forward::forward;
use crate::storage::{Durability, HostFile, Preallocation, Storage, ZeroFlags};
use crate::storage::{Step, StepWatcher};

bitflags::bitflags! {
    /// Classes of calls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Calls: u32 {
        /// Reads.
        const READ = 1;
        /// Writes.
        const WRITE = 1 << 1;
        /// Zeroing.
        const ZERO = 1 << 2;
        /// Discards.
        const DISCARD = 1 << 3;
        /// Changes of the length.
        const SET_LEN = 1 << 4;
        /// Syncs.
        const SYNC = 1 << 5;
        /// Extent look-ups.
        const EXTENT = 1 << 6;
        /// Every call that changes something.
        const CHANGES = Self::WRITE.bits() | Self::ZERO.bits() | Self::DISCARD.bits()
            | Self::SET_LEN.bits();
    }
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The classes that are counted.
    pub calls: Calls,
    /// Index of the failing call among those of these classes, starting at 0.
    pub nth: u64,
    /// The errno of the error.
    pub errno: i32,
    /// All later calls of these classes also fail.
    pub for_good: bool,
    /// A failing write still writes its first half.
    pub torn: bool,
}

/// Forwards calls to another storage until the fault strikes.
#[derive(Debug)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// Calls of the fault's classes since it was set.
    counted: u64,
    struck: bool,
    /// Each step taken and how often, in order of first occurrence.
    steps: Vec<(Step, u64)>,
}

impl StepWatcher for FaultyStorage {
    fn before(&self, step: Step) {
        let steps = &mut self.state.lock().steps;
        match steps.iter_mut().find(|(taken, _)| *taken == step) {
            Some((_, times)) => *times += 1,
            None => steps.push((step, 1)),
        }
    }
}

impl FaultyStorage {
    /// A storage that does not fail yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Sets or clears the fault and counts from 0.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.state.lock() = State {
            fault,
            ..State::default()
        };
    }

    /// Whether the fault struck: if not, `nth` was past the last call.
    pub fn struck(&self) -> bool {
        self.state.lock().struck
    }

    /// The steps taken since the previous call, without duplicates.
    pub fn take_steps(&self) -> Vec<Step> {
        let steps = std::mem::take(&mut self.state.lock().steps);
        steps.into_iter().map(|(step, _)| step).collect()
    }

    /// How often a step was taken since [`FaultyStorage::take_steps`].
    pub fn times(&self, step: Step) -> u64 {
        let state = self.state.lock();
        let found = state.steps.iter().find(|(taken, _)| *taken == step);
        found.map_or(0, |(_, times)| *times)
    }

    fn strikes(&self, call: Calls) -> Option<Fault> {
        let mut state = self.state.lock();
        let fault = state.fault.filter(|fault| fault.calls.intersects(call))?;
        let now = state.counted;
        state.counted += 1;
        let strikes = now == fault.nth || (fault.for_good && now > fault.nth);
        state.struck |= strikes;
        strikes.then_some(fault)
    }

    fn failed(&self, fault: Fault) -> Error {
        Error::os(fault.errno).of_file(self.name())
    }

    fn check(&self, call: Calls) -> Result<()> {
        match self.strikes(call) {
            Some(fault) => Err(self.failed(fault)),
            None => Ok(()),
        }
    }
}

impl Storage for FaultyStorage {
    forward!(inner: name, driver, identity, read_only, len, limits, allocated_size, lock);

    fn step_watcher(&self) -> Option<&dyn StepWatcher> {
        Some(self)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check(Calls::READ)?;
        self.inner.read_at(buf, offset)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.check(Calls::READ)?;
        self.inner.read_vectored_at(bufs, offset)
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // The read that follows is counted instead.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if let Some(fault) = self.strikes(Calls::WRITE) {
            if fault.torn {
                self.inner.write_at(&buf[..buf.len() / 2], offset)?;
            }
            return Err(self.failed(fault));
        }
        self.inner.write_at(buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        if let Some(fault) = self.strikes(Calls::WRITE) {
            if fault.torn {
                self.inner
                    .write_vectored_at(&bufs[..bufs.len() / 2], offset)?;
            }
            return Err(self.failed(fault));
        }
        self.inner.write_vectored_at(bufs, offset)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check(Calls::SET_LEN)?;
        self.inner.set_len(len, preallocation)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check(Calls::ZERO)?;
        self.inner.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check(Calls::DISCARD)?;
        self.inner.discard(offset, len)
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        self.check(Calls::SYNC)?;
        self.inner.sync(durability)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.check(Calls::EXTENT)?;
        self.inner.extent(offset, len)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would not be counted.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn the_chosen_call_fails() {
        let memory = Arc::new(MemoryStorage::new("m"));
        let storage = FaultyStorage::new(memory.clone());
        storage.set_fault(Some(Fault {
            calls: Calls::WRITE | Calls::SYNC,
            nth: 1,
            errno: libc::EIO,
            for_good: false,
            torn: true,
        }));
        storage.write_at(&[1; 4], 0).unwrap();
        storage.discard(0, 1).unwrap_err();
        assert!(!storage.struck());
        let error = storage.write_at(&[2; 4], 0).unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::EIO));
        assert!(storage.struck());
        assert_eq!(memory.to_vec(), [2, 2, 1, 1]);
        storage.sync(Durability::Synced).unwrap();
    }
}
