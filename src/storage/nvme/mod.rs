//! Namespaces of NVMe controllers that vfio-pci holds for programs (`nvme://0000:01:00.0/1`).
//!
//! `crate::sys::vfio` reaches the registers and lends the controller memory. What they mean (NVM Express base
//! specification, revision 1.4), and what is believed of what the controller says, is decided here. The controller
//! is asked again and again whether it is done, as interrupts would only tell the same later.

mod bus;
mod command;
mod controller;
mod options;
mod plain;
mod queue;
mod storage;
#[cfg(test)]
mod tests;

pub use plain::{NvmeController, NvmeMemory, nvme_over};

use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::driver::{StorageDriver, StorageFeatures};
use crate::storage::existing;

/// The protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "nvme",
    schemes: &["nvme"],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: options::OPTIONS,
    weak_options: &[],
    create_options: CREATE,
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(options::file_name),
    open: storage::open,
    stands_on: storage::stands_on,
    create: Some(|context| existing::claim(&DRIVER, context)),
    exports: None,
};

/// A namespace is taken as it is: these are judged, and change nothing.
const CREATE: &[OptionSpec] = &[
    OptionSpec {
        allowed: &["off"],
        ..option(
            "preallocation",
            OptionKind::Str,
            "Preallocation mode (allowed values: off)",
        )
    },
    option("size", OptionKind::Size, "Virtual disk size"),
];
