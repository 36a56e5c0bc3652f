//! Storages that the caller has.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::storage::driver::StorageOpen;
use crate::storage::traits::Storage;

/// Storages that the caller keeps under names of its own, such as chains in memory.
pub trait NamedStorages: Debug + Send + Sync {
    /// The storage of that name, asked before the protocols; None leaves the name to them. What is
    /// to be created there is emptied first; locks among its users are the caller's matter.
    fn find(&self, name: &Path, how: &StorageOpen) -> Option<Result<Arc<dyn Storage>>>;
}
