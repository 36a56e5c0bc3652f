//! The source from which the guest bytes of an image are read.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::Storage;

/// A storage and its length.
#[derive(Clone, Debug)]
pub(crate) struct SizedStorage {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) len: u64,
}

impl SizedStorage {
    /// The storage with its current length.
    ///
    /// # Errors
    /// If the length cannot be determined.
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let len = storage.len()?;
        Ok(Self { storage, len })
    }

    /// The error of a read that encounters damage.
    pub(crate) fn damaged(&self, why: &str) -> Error {
        let name = self.storage.name();
        Error::corrupt(format!("'{name}' cannot be read: {why}")).with_errno(libc::EIO)
    }
}
