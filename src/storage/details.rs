//! What a storage is besides bytes, where it is an image by itself.

use bstr::{BStr, BString};

use crate::error::Result;

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

/// Snapshots that a storage keeps of itself, by their names; [`StorageDetails`] lists them.
pub trait StorageSnapshots: Send + Sync {
    /// Records the current bytes and length.
    ///
    /// # Errors
    /// Of the server, with the errno.
    fn create(&self, name: &BStr) -> Result<()>;

    /// Makes the bytes and the length those of a snapshot.
    ///
    /// # Errors
    /// Of the server, with the errno; some of the bytes may be those of the snapshot then.
    fn apply(&self, name: &BStr) -> Result<()>;

    /// Drops a snapshot.
    ///
    /// # Errors
    /// Of the server, with the errno.
    fn delete(&self, name: &BStr) -> Result<()>;
}

/// A snapshot that a storage keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSnapshot {
    /// Its name.
    pub name: BString,
    /// The length of the storage at that time.
    pub len: u64,
}
