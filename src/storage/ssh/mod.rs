//! Files of SSH servers (`ssh://USER@HOST/PATH`), by SFTP.
//!
//! libssh, loaded at run time, makes the connection and makes sure of both ends. The protocol for files is
//! spoken here, with many requests under way at once, which the library does not do.

mod creation;
mod link;
mod login;
mod options;
mod plain;
mod sftp;
mod storage;
#[cfg(test)]
mod tests;

pub use plain::sftp_over;

use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::driver::{StorageDriver, StorageFeatures};

/// The protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "ssh",
    schemes: &["ssh"],
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
const fn text(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Str, help)
}
