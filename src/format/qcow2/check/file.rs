//! The file of an image under repair.

use crate::error::Result;
use crate::storage::{Durability, Storage};

/// The file under repair, and the durability of each step.
#[derive(Clone, Copy)]
pub(super) struct RepairedFile<'a> {
    pub storage: &'a dyn Storage,
    pub durability: Durability,
}

impl RepairedFile<'_> {
    pub(super) fn barrier(self) -> Result<()> {
        self.storage.sync(self.durability)
    }

    pub(super) fn write_words(self, words: impl IntoIterator<Item = (u64, u64)>) -> Result<()> {
        for (offset, word) in words {
            self.storage.write_at(&word.to_be_bytes(), offset)?;
        }
        self.barrier()
    }
}
