//! A directory of the host as a disk with a FAT file system (`fat:DIRECTORY`).
//!
//! Nothing of the disk is stored: the list of files, which is looked at once, says where everything stands, and
//! the bytes of each place are made when they are read.

mod aliases;
mod disk;
mod files;
mod layout;
mod scan;
mod settings;
mod storage;
mod tree;

use crate::storage::driver::{StorageDriver, StorageFeatures};

/// The protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "vvfat",
    schemes: &[settings::SCHEME],
    features: StorageFeatures::LOCKS.union(StorageFeatures::EXTENTS),
    is_local: true,
    info_type: None,
    open_options: settings::OPTIONS,
    create_options: &[],
    parse_file_name: Some(settings::parse_file_name),
    open: storage::open,
    create: None,
};
