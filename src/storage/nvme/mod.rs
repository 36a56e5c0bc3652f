//! Namespaces of NVMe controllers that are bound to vfio-pci (`nvme://0000:01:00.0/1`).
//!
//! `crate::sys::vfio` accesses the registers and provides memory to the controller. Their meaning (NVM Express base
//! specification, revision 1.4), and the validation of what the controller reports, is implemented here. The
//! controller is polled for completions, as interrupts would only report the same later.

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

/// The NVMe driver.
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

/// An existing namespace is used as it is: these options are checked, but change nothing.
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
