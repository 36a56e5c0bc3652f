//! Images in pools of Ceph clusters (`rbd:POOL/IMAGE`), through the libraries librbd and librados, which are
//! loaded at run time.

mod client;
mod creation;
mod encryption;
mod gather;
mod options;
mod silence;
mod status;
mod storage;

use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::driver::{StorageDriver, StorageFeatures, none_is_known};

/// The driver for this protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "rbd",
    schemes: &["rbd"],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::RESIZE)
        .union(StorageFeatures::EXTENTS)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: Some("rbd"),
    open_options: options::OPTIONS,
    weak_options: options::WEAK,
    create_options: options::CREATE,
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(|_| None),
    open: storage::open,
    // Only the server knows.
    stands_on: none_is_known,
    create: Some(creation::claim),
    exports: None,
};

/// An [`OptionSpec`] of a text option, for the tables of options.
const fn text(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Str, help)
}

/// As [`text`], for a value that need not be UTF-8.
const fn name(key: &'static str, help: &'static str) -> OptionSpec {
    option(key, OptionKind::Name, help)
}
