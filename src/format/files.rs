//! The files that an image consists of.

use std::sync::Arc;

use crate::extent::StorageSlot;
use crate::policy::ImplicitRole;
use crate::storage::Storage;

/// The role of a file in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// The image's own file.
    Image,
    /// The file of its guest data, if that is separate.
    Data,
    /// The file of its header, if that is separate.
    Header,
    /// A file with a part of the guest data.
    Extent,
    /// The source of data that the image itself does not contain.
    Backing,
    /// Receives a log of the writes to the image.
    Log,
}

impl FileRole {
    /// For messages: `'X' is the … of 'Y'`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Image => "file",
            Self::Data => "data file",
            Self::Header => "header",
            Self::Extent => "extent",
            Self::Backing => "backing file",
            Self::Log => "log",
        }
    }
}

impl From<ImplicitRole> for FileRole {
    fn from(role: ImplicitRole) -> Self {
        match role {
            ImplicitRole::Backing | ImplicitRole::ParentLocator => Self::Backing,
            ImplicitRole::DataFile => Self::Data,
            ImplicitRole::Extent => Self::Extent,
        }
    }
}

/// A child that a node of some driver can have: the name by which options describe it, and by which reports refer to
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// Its name; that of a list ends in `.*`, which stands for an index.
    pub name: &'static str,
    /// Its role in the node.
    pub role: FileRole,
    /// The node cannot be described without it.
    pub required: bool,
    /// It is an image rather than a file: its format is probed if none is given, and options that only name a file do
    /// not describe it.
    pub is_image: bool,
    /// If the user names a directory, the name of the file to use in it.
    pub in_directory: Option<&'static str>,
    /// If an image does not record one, it has none, whatever the user says.
    pub is_recorded: bool,
}

impl ChildSpec {
    /// The file that a format is stored in.
    pub const FILE: Self = Self::required("file");
    /// The image below an overlay.
    pub const BACKING: Self = Self::optional("backing", FileRole::Backing);
    /// The same for formats whose images record by themselves whether anything below them shows.
    pub const PARENT: Self = Self {
        is_recorded: true,
        ..Self::BACKING
    };
    /// The file of the guest data.
    pub const DATA_FILE: Self = Self::optional("data-file", FileRole::Data);
    /// The files that each contain a part of the guest data.
    pub const EXTENTS: Self = Self::optional("extents.*", FileRole::Extent);
    /// The file of the header.
    pub const HEADER: Self = Self::optional("header", FileRole::Header);

    /// A child that a node requires.
    pub const fn required(name: &'static str) -> Self {
        Self {
            name,
            role: FileRole::Image,
            required: true,
            is_image: false,
            in_directory: None,
            is_recorded: false,
        }
    }

    /// A child that a node may have.
    pub const fn optional(name: &'static str, role: FileRole) -> Self {
        Self {
            name,
            role,
            required: false,
            is_image: false,
            in_directory: None,
            is_recorded: false,
        }
    }

    /// The same, but a directory that contains it may be named instead.
    pub const fn in_directory(self, name: &'static str) -> Self {
        Self {
            in_directory: Some(name),
            ..self
        }
    }

    /// The part of the name before the index, if it is a list.
    pub fn list(&self) -> Option<&'static str> {
        self.name.strip_suffix(".*")
    }

    /// Whether this describes a child of that name.
    pub fn covers(&self, name: &str) -> bool {
        match self.list() {
            Some(list) => name
                .strip_prefix(list)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|number| number.parse::<u32>().is_ok()),
            None => name == self.name,
        }
    }
}

/// An open file of an image.
#[derive(Clone, Copy, Debug)]
pub struct FormatFile<'a> {
    /// Its role in the image.
    pub role: FileRole,
    /// The slot by which extents refer to it, if it can contain guest data.
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

    /// The file of all guest data, which extents refer to by `slot`.
    pub fn data(slot: StorageSlot, storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Data,
            slot: Some(slot),
            storage,
        }
    }

    /// A file with a part of the guest data, which extents refer to by `slot`.
    pub fn extent(slot: StorageSlot, storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Extent,
            slot: Some(slot),
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
