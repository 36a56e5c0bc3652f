//! What a storage is besides bytes, where it is an image by itself.

use bstr::BString;

/// What `info` shows of a storage that is an image of its own kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageDetails {
    /// The pieces in which space is taken, in bytes.
    pub cluster_size: Option<u64>,
    /// Its snapshots.
    pub snapshots: Vec<StorageSnapshot>,
    /// Further information, by the driver's own keys.
    pub specific: Vec<(&'static str, String)>,
}

/// A snapshot that a storage keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSnapshot {
    /// Its name.
    pub name: BString,
    /// The length of the storage at that time.
    pub len: u64,
}
