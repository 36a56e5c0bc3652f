//! Runs of guest bytes of the sources.

use std::sync::Arc;

use crate::storage::Storage;

/// What the sources hold at an offset.
pub(super) enum RunKind<'a> {
    /// Reads as zeroes.
    Zero,
    /// The target's backing file holds the same.
    Backed,
    /// Must be copied; `plain` if the bytes are stored verbatim in a storage.
    Data {
        plain: Option<(&'a Arc<dyn Storage>, u64)>,
    },
}

/// A run of one kind.
pub(super) struct Run<'a> {
    pub len: u64,
    pub kind: RunKind<'a>,
}
