//! Logical units of iSCSI targets (`iscsi://HOST/TARGET/LUN`).
//!
//! libiscsi, loaded at run time, maintains the session with the target and transports commands. The commands
//! themselves, the decoding of replies, retries and the re-establishing of sessions are implemented here.

mod device;
mod options;
mod scsi;
mod session;
mod shared;
mod storage;
#[cfg(test)]
mod tests;

use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::driver::{StorageDriver, StorageFeatures};
use crate::storage::existing;

const fn driver(
    name: &'static str,
    schemes: &'static [&'static str],
    open: crate::storage::driver::OpenFn,
    stands_on: crate::storage::driver::StandsOnFn,
    create: crate::storage::driver::ClaimFn,
    parse: crate::storage::driver::ParseNameFn,
    show: crate::storage::driver::ShortNameFn,
) -> StorageDriver {
    StorageDriver {
        name,
        schemes,
        features: StorageFeatures::WRITE
            .union(StorageFeatures::CREATE)
            .union(StorageFeatures::EXTENTS)
            .union(StorageFeatures::PLACES),
        is_local: false,
        info_type: None,
        open_options: options::OPTIONS,
        weak_options: options::WEAK,
        create_options: CREATE,
        parse_file_name: Some(parse),
        file_name: Some(show),
        open,
        stands_on,
        create: Some(create),
        exports: None,
    }
}

/// The iSCSI driver, over TCP unless an option says otherwise.
pub static ISCSI: StorageDriver = driver(
    "iscsi",
    &["iscsi"],
    |context| storage::open("iscsi", context),
    |context, visit| storage::stands_on("iscsi", context, visit),
    |context| existing::claim(&ISCSI, context),
    |name| options::parse_file_name("iscsi", name),
    |given| options::file_name("iscsi", given),
);

/// The driver for iSCSI over RDMA.
pub static ISER: StorageDriver = driver(
    "iser",
    &["iser"],
    |context| storage::open("iser", context),
    |context, visit| storage::stands_on("iser", context, visit),
    |context| existing::claim(&ISER, context),
    |name| options::parse_file_name("iser", name),
    |given| options::file_name("iser", given),
);

/// An existing unit is used as it is: these options are checked, but change nothing.
const CREATE: &[OptionSpec] = &[
    OptionSpec {
        allowed: &["off"],
        ..text("preallocation", "Preallocation mode (allowed values: off)")
    },
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// An [`OptionSpec`] of a string, for the table of options.
const fn text(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Str, help)
}
