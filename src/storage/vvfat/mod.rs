//! A directory of the host as a disk with a FAT file system (`fat:DIRECTORY`).
//!
//! Nothing of the disk is stored: the list of files, which is looked at once, says where everything stands, and
//! the bytes of each place are made when they are read. What a guest writes is kept apart, until a flush finds a
//! consistent file system on the disk: then the directory is changed to what that holds.

mod aliases;
mod below;
mod carry;
mod disk;
mod files;
mod known;
mod layout;
mod overlay;
mod scan;
mod settings;
mod storage;
#[cfg(test)]
mod tests;
mod tree;
mod written;

use crate::storage::driver::{StorageDriver, StorageFeatures};

/// The protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "vvfat",
    schemes: &[settings::SCHEME],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::LOCKS)
        .union(StorageFeatures::EXTENTS),
    is_local: true,
    info_type: None,
    open_options: settings::OPTIONS,
    weak_options: &[],
    create_options: &[],
    parse_file_name: Some(settings::parse_file_name),
    open: storage::open,
    stands_on: below::stands_on,
    file_name: None,
    create: None,
    exports: None,
};
