//! What a storage does at the end of its use, beyond closing what it has open.

use crate::error::Result;

/// The end of use of a storage, reached through [`Storage::ending`](crate::storage::Storage::ending).
pub trait Ending: Send + Sync {
    /// Ends use: gives back what was reserved beyond what was written. Nothing is written afterwards.
    ///
    /// # Errors
    /// The operating system's; the storage is then longer than it was shown to be.
    fn finish(&self) -> Result<()>;

    /// Keeps what was written from being carried over, where the storage does that later: the operation that wrote
    /// it has not succeeded.
    fn abandon(&self) {}

    /// Whether it holds what was written although this many of the storages below it could not be ended.
    fn does_without(&self, failed: usize) -> bool {
        failed == 0
    }
}
