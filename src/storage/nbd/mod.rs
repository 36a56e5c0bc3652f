//! Exports of NBD servers (`nbd://HOST/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`).
//!
//! Requests are synchronous, and many threads share a connection: each sends its request and waits for its own
//! reply. There is no dedicated reader thread: one of the waiting threads reads, and hands the right to read over to
//! the one whose reply has arrived, which reads the payload straight into its own buffer.

mod connection;
mod handshake;
mod input;
mod journal;
mod listing;
mod op;
mod options;
mod pieces;
mod pool;
mod shared;
mod storage;
#[cfg(test)]
mod tests;

use crate::options::{OptionKind, OptionSpec};
use crate::storage::driver::{StorageDriver, StorageFeatures};
use crate::storage::existing;

/// The NBD protocol driver.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "nbd",
    schemes: options::SCHEMES,
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::EXTENTS)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: options::OPTIONS,
    weak_options: options::WEAK,
    create_options: CREATE,
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(options::file_name),
    open: storage::open,
    stands_on: storage::stands_on,
    create: Some(|context| existing::claim(&DRIVER, context)),
    exports: Some(storage::exports),
};

/// An existing export is used as it is: these options are checked, but change nothing.
const CREATE: &[OptionSpec] = &[
    OptionSpec {
        name: "preallocation",
        kind: OptionKind::Str,
        help: "Preallocation mode (allowed values: off)",
        default: None,
        allowed: &["off"],
    },
    OptionSpec {
        name: "size",
        kind: OptionKind::Size,
        help: "Virtual disk size",
        default: None,
        allowed: &[],
    },
];
