//! Namespaces of controllers that are simulated in software, for tests.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bus::Bus;
use super::controller::{Controller, MEMORY};
use super::options::Settings;
use super::storage::of_controller;
use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::storage::Storage;
use crate::storage::driver::StorageOpen;
use crate::sys::SharedMemory;
use crate::sys::vfio::SEEN_AT;

/// The memory that a controller can access.
#[derive(Debug)]
pub struct NvmeMemory(SharedMemory);

impl NvmeMemory {
    fn place(at: u64) -> io::Result<usize> {
        at.checked_sub(SEEN_AT)
            .and_then(|at| usize::try_from(at).ok())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
    }

    /// Its start address, as the controller sees it, and its length.
    pub fn range(&self) -> (u64, usize) {
        (SEEN_AT, self.0.len())
    }

    /// Copies bytes from an address, as the controller sees it.
    ///
    /// # Errors
    /// If the range is outside the memory.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(Self::place(at)?, into)
    }

    /// Copies bytes to an address, as the controller sees it.
    ///
    /// # Errors
    /// If the range is outside the memory.
    pub fn write(&self, at: u64, from: &[u8]) -> io::Result<()> {
        self.0.write(Self::place(at)?, from)
    }
}

/// What a controller does when its registers are accessed.
pub trait NvmeController: Debug + Send + Sync {
    /// Reads the register at an offset.
    ///
    /// # Errors
    /// If it cannot be accessed.
    fn read(&self, memory: &NvmeMemory, at: u64) -> io::Result<u32>;

    /// Writes the register at an offset.
    ///
    /// # Errors
    /// If it cannot be accessed.
    fn write(&self, memory: &NvmeMemory, at: u64, value: u32) -> io::Result<()>;
}

#[derive(Debug)]
struct Program {
    memory: NvmeMemory,
    controller: Box<dyn NvmeController>,
    haste: u32,
}

impl Bus for Program {
    fn read(&self, at: u64) -> io::Result<u32> {
        self.controller.read(&self.memory, at)
    }

    fn write(&self, at: u64, value: u32) -> io::Result<()> {
        self.controller.write(&self.memory, at, value)
    }

    fn memory(&self) -> &SharedMemory {
        &self.memory.0
    }

    fn patience(&self, usual: Duration) -> Duration {
        usual / self.haste.max(1)
    }
}

/// Opens the first namespace of a controller for writing. Timeouts for the controller are shorter by the factor
/// `haste`.
///
/// # Errors
/// If the controller does not start, or the namespace cannot be used.
pub fn nvme_over(
    controller: Box<dyn NvmeController>,
    haste: u32,
    control: &Arc<JobControl>,
) -> Result<Arc<dyn Storage>> {
    let memory = SharedMemory::new(MEMORY).map_err(|error| Error::io(&error))?;
    let program = Program {
        memory: NvmeMemory(memory),
        controller,
        haste,
    };
    let controller = Arc::new(Controller::start(Box::new(program), control)?);
    let settings = Settings {
        device: "0000:00:01.0".to_owned(),
        namespace: 1,
    };
    let how = StorageOpen {
        writable: true,
        ..StorageOpen::default()
    };
    of_controller(controller, &settings, how, control)
}
