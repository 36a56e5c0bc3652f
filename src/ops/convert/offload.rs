//! Copying inside the host: by sharing blocks if both files allow it, or by the kernel.

use std::sync::Arc;

use crate::error::Result;
use crate::storage::{CopyOutcome, Preallocation, Storage};

use super::sizes::MIN_STEP;

/// Where the trial copy goes: far beyond the contents of a new target.
const TRIAL_OFFSET: u64 = 1 << 30;

/// The storages of the sources from which data can be copied without being read.
#[derive(Debug, Default)]
pub(super) struct Offload {
    sharing: Vec<Arc<dyn Storage>>,
    by_kernel: bool,
}

fn same(a: &Arc<dyn Storage>, b: &Arc<dyn Storage>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Offload {
    /// Tests, for each storage of the sources, whether it can share blocks with the new, empty `target`. With
    /// `by_kernel`, data is copied by the kernel if blocks cannot be shared.
    pub fn detect<'a>(
        storages: impl Iterator<Item = &'a Arc<dyn Storage>>,
        target: &Arc<dyn Storage>,
        by_kernel: bool,
    ) -> Result<Self> {
        let mut found = Self {
            sharing: Vec::new(),
            by_kernel,
        };
        for storage in storages {
            if !found.shares(storage) && trial(&**storage, &**target)? {
                found.sharing.push(storage.clone());
            }
        }
        Ok(found)
    }

    fn shares(&self, storage: &Arc<dyn Storage>) -> bool {
        self.sharing.iter().any(|known| same(known, storage))
    }

    /// Whether data of `storage` is copied without being read.
    pub fn covers(&self, storage: &Arc<dyn Storage>) -> bool {
        self.by_kernel || self.shares(storage)
    }

    /// Copies without reading, if that is possible here.
    pub fn copy(
        &self,
        from: &dyn Storage,
        offset: u64,
        to: &dyn Storage,
        to_offset: u64,
        len: u64,
    ) -> Result<CopyOutcome> {
        let Some((from, to)) = from.host().zip(to.host()) else {
            return Ok(CopyOutcome::NotPossible);
        };
        if from.reflink_range(offset, to, to_offset, len)? == CopyOutcome::Done {
            return Ok(CopyOutcome::Done);
        }
        if self.by_kernel {
            return from.copy_range(offset, to, to_offset, len);
        }
        Ok(CopyOutcome::NotPossible)
    }
}

/// Shares one block with the target, and removes it again.
fn trial(storage: &dyn Storage, target: &dyn Storage) -> Result<bool> {
    let Some((from, to)) = storage.host().zip(target.host()) else {
        return Ok(false);
    };
    if storage.len()? < MIN_STEP {
        return Ok(false);
    }
    let len = target.len()?;
    let at = len
        .checked_add(TRIAL_OFFSET)
        .map_or(TRIAL_OFFSET, |at| at - at % TRIAL_OFFSET);
    let shared = from.reflink_range(0, to, at, MIN_STEP)? == CopyOutcome::Done;
    if target.len()? != len {
        target.set_len(len, Preallocation::Off)?;
    }
    Ok(shared)
}
