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

/// Cuts off what lies behind `end`; where a file only grows, it stays there and reads as zeroes.
///
/// # Errors
/// Of the storage.
pub(crate) fn cut_or_zero(storage: &dyn Storage, end: u64) -> Result<()> {
    cut(storage, end)?;
    let len = storage.len()?;
    match storage.limits().fixed_len {
        true => Ok(()),
        false => zero(
            storage,
            end,
            len,
            ZeroFlags::MAY_UNMAP,
            &JobControl::default(),
        ),
    }
}
