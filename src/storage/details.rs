//! What a storage is besides bytes.

use bstr::{BStr, BString};

use crate::error::Result;
use crate::value::Value;

/// What reports say of a storage beyond what every storage has, reached through
/// [`Storage::report`](crate::storage::Storage::report).
pub trait StorageReport: Send + Sync {
    /// What the user should know of it, one line each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What `info` shows of it. This may ask a server.
    ///
    /// # Errors
    /// Of the server.
    fn details(&self) -> Result<StorageDetails> {
        Ok(StorageDetails::default())
    }
}

/// What `info` shows of a storage beyond what every storage has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageDetails {
    /// Where it is an image of its own kind, what that has.
    pub image: Option<StoredImage>,
    /// Further information, by the driver's own keys in QEMU's order.
    pub specific: Vec<(&'static str, Value)>,
}

/// What is known of a storage that is an image by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredImage {
    /// The pieces in which space is taken, in bytes, where that is told.
    pub cluster_size: Option<u64>,
    /// Its snapshots.
    pub snapshots: Vec<StorageSnapshot>,
}

/// Snapshots that a storage keeps of itself, by their names; [`StoredImage`] lists them.
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
