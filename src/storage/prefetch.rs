//! Bringing bytes near before they are read.

use crate::error::Result;

/// Bringing bytes near, reached through [`Storage::prefetcher`](crate::storage::Storage::prefetcher).
pub trait Prefetch: Send + Sync {
    /// Brings a range to where reads find it soon: into memory of this machine, or of the server. It may still be
    /// on its way when this returns. What passes the end is left out.
    ///
    /// # Errors
    /// Of the server.
    fn prefetch(&self, offset: u64, len: u64) -> Result<()>;
}
