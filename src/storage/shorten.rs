//! Making storages shorter.

use crate::error::Result;
use crate::job::JobControl;
use crate::storage::grow::zero;
use crate::storage::modes::{Preallocation, ZeroFlags};
use crate::storage::traits::Storage;

/// Whether what lies behind `end` can be cut off: devices keep their length, and some images only grow.
pub(crate) fn can_cut(storage: &dyn Storage, end: u64) -> bool {
    !storage.limits().fixed_len && storage.check_shrink(end).is_ok()
}

/// Cuts off what lies behind `end`; where that cannot be done it stays, unused.
///
/// # Errors
/// Of the storage.
pub(crate) fn cut(storage: &dyn Storage, end: u64) -> Result<()> {
    match storage.len()? > end && can_cut(storage, end) {
        true => storage.set_len(end, Preallocation::Off),
        false => Ok(()),
    }
}

/// Makes the storage end at `end`; if it only grows and is longer, what lies behind reads as zeroes.
///
/// # Errors
/// If the storage fails.
pub(crate) fn end_at(storage: &dyn Storage, end: u64) -> Result<()> {
    if storage.limits().fixed_len {
        return Ok(());
    }
    let len = storage.len()?;
    match len > end && !can_cut(storage, end) {
        true => zero(
            storage,
            end,
            len,
            ZeroFlags::MAY_UNMAP,
            &JobControl::default(),
        ),
        false => storage.set_len(end, Preallocation::Off),
    }
}
