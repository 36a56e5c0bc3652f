//! Growing a storage with its space filled, in steps that can be ended.

use crate::error::{Error, Result, ResultExt};
use crate::job::JobControl;
use crate::memory;
use crate::storage::modes::{Durability, Preallocation, ZeroFlags};
use crate::storage::traits::Storage;

/// Zeroes are written in pieces of this size.
const PIECE: u64 = 1 << 20;
/// Bytes that are written before the host is asked to write them out.
const BATCH: u64 = 8 << 20;
/// Of so many batches the writing out is under way; what is more is waited for, and forgotten. A removal
/// waits for all that is being written, and frees all that is in memory: of a file of 4 GiB that is a
/// second, in a call that no signal ends.
const BATCHES_UNDER_WAY: u64 = 2;
/// Where the storage may have a faster way to zero, the pieces are longer.
const ZERO_PIECE: u64 = 64 << 20;

/// As [`Storage::set_len`]; where the new part is to be filled, `control` ends that and counts it.
/// A failure leaves the length as it was.
///
/// # Errors
/// As [`Storage::set_len`], and [`crate::ErrorKind::Cancelled`].
pub fn grow(
    storage: &dyn Storage,
    len: u64,
    preallocation: Preallocation,
    control: &JobControl,
) -> Result<()> {
    let old = storage.len()?;
    if preallocation != Preallocation::Full || len <= old || storage.limits().fixed_len {
        return storage.set_len(len, preallocation);
    }
    control.expect(len - old);
    // A full disk is found before any time is spent.
    storage
        .set_len(len, Preallocation::Falloc)
        .map_err(|error| match error.os_errno() {
            Some(libc::ENOSPC) => {
                Error::os(libc::ENOSPC).context("Could not write zeros for preallocation")
            }
            _ => error,
        })?;
    let filled = fill(storage, old, len, control).and_then(|()| {
        storage
            .sync(Durability::Synced)
            .context(|| "Could not sync the preallocated file".into())
    });
    if filled.is_err() {
        // The error to report is the first one.
        let _ = storage.set_len(old, Preallocation::Off);
    }
    filled
}

/// Writes zeroes to `start..end`, piece by piece.
///
/// # Errors
/// Of I/O, and [`crate::ErrorKind::Cancelled`].
pub fn fill(storage: &dyn Storage, start: u64, end: u64, control: &JobControl) -> Result<()> {
    let zeroes = memory::zeroed(end.saturating_sub(start).min(PIECE) as usize)?;
    let mut at = start;
    let mut written = start;
    while at < end {
        control.checkpoint()?;
        if at - written >= BATCH
            && let Some(host) = storage.host()
        {
            host.hint_written(written, BATCH);
            if written - start >= BATCHES_UNDER_WAY * BATCH {
                host.settle_written(written - BATCHES_UNDER_WAY * BATCH, BATCH)?;
            }
            written += BATCH;
        }
        let piece = (end - at).min(PIECE);
        storage
            .write_at(zeroes.get(..piece as usize).unwrap_or_default(), at)
            .context(|| "Could not write zeros for preallocation".into())?;
        control.advance(piece);
        at += piece;
    }
    Ok(())
}

/// Makes `start..end` read as zeroes, piece by piece.
///
/// # Errors
/// Of I/O, and [`crate::ErrorKind::Cancelled`].
pub fn zero(
    storage: &dyn Storage,
    start: u64,
    end: u64,
    flags: ZeroFlags,
    control: &JobControl,
) -> Result<()> {
    let mut at = start;
    while at < end {
        control.checkpoint()?;
        let piece = (end - at).min(ZERO_PIECE);
        storage.write_zeroes(at, piece, flags)?;
        control.advance(piece);
        at += piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use std::time::Duration;

    #[test]
    fn a_growth_that_is_cancelled_leaves_the_length() {
        let storage = MemoryStorage::with_bytes("m", vec![7; 100]);
        let control = JobControl::default();
        control.set_deadline(Some(Duration::ZERO));
        let ended = grow(&storage, 10 << 20, Preallocation::Full, &control);
        assert_eq!(ended.unwrap_err().kind(), crate::ErrorKind::Cancelled);
        assert_eq!(storage.len().unwrap(), 100);
        control.set_deadline(None);
        grow(&storage, 10 << 20, Preallocation::Full, &control).unwrap();
        assert_eq!(storage.len().unwrap(), 10 << 20);
        assert!(control.progress().done >= (10 << 20) - 100);
    }
}
