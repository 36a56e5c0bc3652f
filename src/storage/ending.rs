//! What the end of use means to a storage beyond the closing of what it has open.

use crate::error::Result;

/// The end of use of a storage, reached through [`Storage::ending`](crate::storage::Storage::ending).
pub trait Ending: Send + Sync {
    /// Ends use: gives back what was reserved beyond what was written. Nothing is written afterwards.
    ///
    /// # Errors
    /// The operating system's; the storage is longer than it was shown to be then.
    fn finish(&self) -> Result<()>;

    /// Keeps what was written from being carried on, where the storage does that later: the operation that wrote
    /// it has not succeeded.
    fn abandon(&self) {}

    /// Whether it holds what was written although so many of the storages below it could not be ended.
    fn does_without(&self, failed: usize) -> bool {
        failed == 0
    }
}
