//! The interface between a controller and this process.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use crate::sys::vfio::{Device, SEEN_AT};
use crate::sys::{SharedMemory, vfio};

/// The registers of a controller, by their offsets, and the memory that it can access.
pub(super) trait Bus: Debug + Send + Sync {
    fn read(&self, at: u64) -> io::Result<u32>;
    fn write(&self, at: u64, value: u32) -> io::Result<()>;
    fn memory(&self) -> &SharedMemory;

    /// The timeout for this controller, where that for others is `usual`.
    fn patience(&self, usual: Duration) -> Duration {
        usual
    }
}

impl Bus for Device {
    fn read(&self, at: u64) -> io::Result<u32> {
        vfio::Device::read(self, at)
    }

    fn write(&self, at: u64, value: u32) -> io::Result<()> {
        vfio::Device::write(self, at, value)
    }

    fn memory(&self) -> &SharedMemory {
        vfio::Device::memory(self)
    }
}

/// The address at which the controller sees an offset of the memory.
pub(super) fn seen(at: usize) -> u64 {
    SEEN_AT + at as u64
}
