//! The files that an image consists of.

use std::sync::Arc;

use crate::extent::StorageSlot;
use crate::policy::ImplicitRole;
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
    /// A file of a piece of the guest data.
    Extent,
    /// Holds what the image itself does not.
    Backing,
    /// Gets a record of what is written to the image.
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

/// A child that a node of some driver can have: the name under which options describe it, and under which
/// reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// Its name; that of a list ends in `.*`, which stands for a number.
    pub name: &'static str,
    /// What it is to the node.
    pub role: FileRole,
    /// Without it the node cannot be described.
    pub required: bool,
    /// It is an image rather than a file: its contents show the format where none is named, and options
    /// that name a file alone do not describe it.
    pub is_image: bool,
    /// Where the user names a directory, the name of the file in it that is meant.
    pub in_directory: Option<&'static str>,
    /// An image that does not record one has none, whatever the user says.
    pub is_recorded: bool,
}

impl ChildSpec {
    /// The file that a format stands on.
    pub const FILE: Self = Self::required("file");
    /// The image below an overlay.
    pub const BACKING: Self = Self::optional("backing", FileRole::Backing);
    /// The same of formats whose images say by themselves whether anything below them shows.
    pub const PARENT: Self = Self {
        is_recorded: true,
        ..Self::BACKING
    };
    /// The file of the guest data.
    pub const DATA_FILE: Self = Self::optional("data-file", FileRole::Data);
    /// The files of the pieces of the guest data.
    pub const EXTENTS: Self = Self::optional("extents.*", FileRole::Extent);
    /// The file of the header.
    pub const HEADER: Self = Self::optional("header", FileRole::Header);

    /// One that a node stands on.
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

    /// One that a node may have.
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

    /// The same, which may be in a directory that is named instead.
    pub const fn in_directory(self, name: &'static str) -> Self {
        Self {
            in_directory: Some(name),
            ..self
        }
    }

    /// What stands before the number, where it is a list.
    pub fn list(&self) -> Option<&'static str> {
        self.name.strip_suffix(".*")
    }

    /// Whether a child of that name is one of these.
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

    /// The file of all guest data, which extents name by `slot`.
    pub fn data(slot: StorageSlot, storage: &'a Arc<dyn Storage>) -> Self {
        Self {
            role: FileRole::Data,
            slot: Some(slot),
            storage,
        }
    }

    /// The file of a piece of the guest data, which extents name by `slot`.
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
