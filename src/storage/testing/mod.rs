//! Storages for tests: one that remembers what was written in which order, one that fails, one
//! whose reads wait for each other, one whose writes wait for the test; files of a server of SFTP over a socket;
//! namespaces of an NVMe controller that is a program.

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
