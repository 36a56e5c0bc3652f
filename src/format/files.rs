//! The files that an image consists of.

use std::sync::Arc;

use crate::extent::StorageSlot;
use crate::storage::Storage;

/// What a file is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// The image's own file.
    Image,
    /// The file of its guest data, where that is apart.
    Data,
    /// The file of its header, where that is apart.
    Header,
}

impl FileRole {
    /// For messages: `'X' is the … of 'Y'`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Image => "file",
            Self::Data => "data file",
            Self::Header => "header",
        }
    }
}

/// An open file of an image.
#[derive(Clone, Copy, Debug)]
pub struct FormatFile<'a> {
    /// What it is to the image.
    pub role: FileRole,
    /// The slot that extents name it by, where guest data can be in it.
    pub slot: Option<StorageSlot>,
    /// The file.
    pub storage: &'a Arc<dyn Storage>,
}

impl<'a> FormatFile<'a> {
    /// The image's own file.
    pub fn own(storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Image,
            slot: Some(StorageSlot::MAIN),
            storage,
        }
    }

    /// The file of the guest data.
    pub fn data(storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Data,
            slot: Some(StorageSlot::DATA),
            storage,
        }
    }

    /// The file of the header.
    pub fn header(storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Header,
            slot: None,
            storage,
        }
    }
}
