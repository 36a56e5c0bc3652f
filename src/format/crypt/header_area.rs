//! The header area of a volume within a storage.

use std::sync::Arc;

use crate::crypto::luks::HeaderIo;
use crate::error::Result;
use crate::storage::{Durability, Storage, read_exact_at};

/// The bytes of a storage from `base` on.
pub(crate) struct HeaderArea {
    storage: Arc<dyn Storage>,
    base: u64,
}

impl HeaderArea {
    /// The header area at `base`; offsets in it come from a checked header.
    pub(crate) fn new(storage: Arc<dyn Storage>, base: u64) -> Self {
        Self { storage, base }
    }
}

impl HeaderIo for HeaderArea {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&*self.storage, buf, self.base.saturating_add(offset))
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.storage.write_at(buf, self.base.saturating_add(offset))
    }

    fn sync(&self) -> Result<()> {
        self.storage.sync(Durability::Synced)
    }
}
