//! A host directory presented as a disk with a FAT file system (`fat:DIRECTORY`).
//!
//! The disk itself is not stored: its layout follows from the list of files, which is read once, and its contents are
//! generated as they are read. A guest's writes are kept apart until a flush finds a consistent file system on the
//! disk: then the directory is updated to match it.

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

/// The driver for this protocol.
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
