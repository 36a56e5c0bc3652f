//! Files of NFS servers (`nfs://HOST/PATH`), by versions 3 and 4 of the protocol.
//!
//! libnfs, loaded at run time, speaks the protocol. How requests are cut and how many are under way, and what is
//! done when a connection is lost, is decided here.

mod client;
mod creation;
mod options;
mod storage;

use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::driver::{StorageDriver, StorageFeatures};

/// The protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "nfs",
    schemes: &["nfs"],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::RESIZE)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: options::OPTIONS,
    weak_options: options::WEAK,
    create_options: &[option("size", OptionKind::Size, "Virtual disk size")],
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(options::file_name),
    open: storage::open,
    create: Some(creation::claim),
    exports: None,
};

/// One of [`OptionSpec`], for the table of options.
const fn number(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Num, help)
}
