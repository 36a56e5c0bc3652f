//! Growing a storage and filling its space, in steps between which it can be ended.

use crate::error::{Error, Result, ResultExt};
use crate::job::JobControl;
use crate::memory;
use crate::storage::modes::{Durability, Preallocation, ZeroFlags};
use crate::storage::traits::Storage;

/// Zeroes are written in pieces of this size.
const PIECE: u64 = 1 << 20;
/// Bytes that are written before the host is asked to write them out.
const BATCH: u64 = 8 << 20;
/// At most this many batches are on their way to the disk; earlier ones are waited for, and dropped from memory.
/// Removing the file waits for all that is being written and frees all that is in memory: a second for a file of
/// 4 GiB, in a call that no signal ends.
const BATCHES_UNDER_WAY: u64 = 2;
/// Where the storage may have a faster way to zero, the pieces are longer.
const ZERO_PIECE: u64 = 64 << 20;

/// What an error says of space that could not be filled.
pub(crate) const ZEROES_FAILED: &str = "Could not write zeros for preallocation";

/// Space is reserved in steps of this size: a file system may take long for more, in a call that no signal ends.
const RESERVE_STEP: u64 = 256 << 20;

/// As [`Storage::set_len`]; where space is to be reserved or filled, `control` ends that, and counts what is
/// filled. A failure leaves the length as it was.
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
    let takes_space = matches!(preallocation, Preallocation::Falloc | Preallocation::Full);
    if !takes_space || len <= old || storage.limits().fixed_len {
        return storage.set_len(len, preallocation);
    }
    let grown = match preallocation {
        Preallocation::Full => reserve_and_fill(storage, old, len, control),
        _ => reserve(storage, old, len, control),
    };
    if grown.is_err() {
        // The error to report is the first one.
        let _ = storage.set_len(old, Preallocation::Off);
    }
    grown
}

fn reserve_and_fill(storage: &dyn Storage, old: u64, len: u64, control: &JobControl) -> Result<()> {
    control.expect(len - old);
    // A full disk is found before any time is spent.
    reserve(storage, old, len, control).map_err(|error| match error.os_errno() {
        Some(libc::ENOSPC) => Error::os(libc::ENOSPC).context(ZEROES_FAILED),
        _ => error,
    })?;
    let sync = || {
        let synced = storage.sync(Durability::Synced);
        synced.context(|| "Could not sync the preallocated file".into())
    };
    if old > 0 {
        // A power cut must not leave a disk that ends where the zeroes did, or shows what the space held before.
        sync()?;
    }
    fill(storage, old, len, control)?;
    sync()
}

/// Makes the storage longer, with space, step by step.
fn reserve(storage: &dyn Storage, old: u64, len: u64, control: &JobControl) -> Result<()> {
    let mut end = old;
    while end < len {
        control.check()?;
        end = len.min(end.saturating_add(RESERVE_STEP));
        storage.set_len(end, Preallocation::Falloc)?;
    }
    Ok(())
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
                host.finish_writeback(written - BATCHES_UNDER_WAY * BATCH, BATCH)?;
            }
            written += BATCH;
        }
        let piece = (end - at).min(PIECE);
        storage
            .write_at(zeroes.get(..piece as usize).unwrap_or_default(), at)
            .context(|| ZEROES_FAILED.into())?;
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
    use crate::storage::forward::forward;
    use crate::storage::{HostFile, MemoryStorage};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    /// A file of which nothing but the length is kept; each step of its growth is reported and waited for.
    #[derive(Debug)]
    struct Steps {
        inner: MemoryStorage,
        len: AtomicU64,
        steps: AtomicU64,
        begun: mpsc::SyncSender<u64>,
    }

    impl Storage for Steps {
        forward!(
            inner: name,
            driver,
            identity,
            read_only,
            read_at,
            read_vectored_at,
            try_read,
            write_at,
            write_vectored_at,
            write_zeroes,
            discard,
            sync,
            extent,
            compressor,
            allocated_size,
            step_watcher,
            lock,
            limits,
        );

        fn len(&self) -> Result<u64> {
            Ok(self.len.load(Ordering::SeqCst))
        }

        fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
            self.len.store(len, Ordering::SeqCst);
            if preallocation == Preallocation::Falloc {
                self.steps.fetch_add(1, Ordering::SeqCst);
                self.begun.send(len).unwrap();
            }
            Ok(())
        }

        fn host(&self) -> Option<&dyn HostFile> {
            None
        }
    }

    #[test]
    fn another_thread_ends_a_growth_between_two_steps_of_it() {
        for mode in [Preallocation::Falloc, Preallocation::Full] {
            // Each step hands its number over before it ends: the control is cancelled within the third.
            let (begun, told) = mpsc::sync_channel(0);
            let storage = Steps {
                inner: MemoryStorage::new("m"),
                len: AtomicU64::new(100),
                steps: AtomicU64::new(0),
                begun,
            };
            let control = &JobControl::default();
            let ended = std::thread::scope(|scope| {
                scope.spawn(move || {
                    for end in told {
                        if end >= 3 * RESERVE_STEP {
                            control.cancel();
                        }
                    }
                });
                let ended = grow(&storage, 1 << 50, mode, control);
                let Steps {
                    len, steps, begun, ..
                } = storage;
                drop(begun);
                (ended, len.into_inner(), steps.into_inner())
            });
            assert_eq!(ended.0.unwrap_err().kind(), crate::ErrorKind::Cancelled);
            assert_eq!(ended.1, 100);
            // The next step may begin before the cancel is there.
            assert!((3..=4).contains(&ended.2), "{} steps", ended.2);
        }
    }

    #[test]
    fn a_disk_has_its_length_for_good_before_it_is_filled() {
        use crate::storage::testing::{Event, LoggingStorage};

        let storage = LoggingStorage::new("m", vec![7; 100]);
        let control = JobControl::default();
        grow(&storage, 3 << 20, Preallocation::Full, &control).unwrap();
        let events = storage.events();
        let is_write = |event: &Event| matches!(event, Event::Write { .. });
        let first = events.iter().position(is_write).unwrap();
        assert!(
            matches!(events[first - 1], Event::Sync),
            "{:?}",
            events[first - 1]
        );
    }

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
