//! Storages for tests: one that logs what was written and in which order, one that fails on demand, one whose reads
//! wait for each other, and one whose writes block until the test releases them; also files on an SFTP server over a
//! socket, and namespaces of an emulated NVMe controller.

mod faulty;
mod gated;
mod gathering;
mod logging;

#[cfg(feature = "nvme")]
pub use super::nvme::{NvmeController, NvmeMemory, nvme_over};
pub use super::ssh::sftp_over;
pub use faulty::{Calls, Fault, FaultyStorage};
pub use gated::{Gate, Gated, GatedStorage};
pub use gathering::GatheringStorage;
pub use logging::{Event, Log, LoggingStorage, Record};
