//! Work over the guest bytes of an image, in pieces, on several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::{Job, JobControl, without_signals};

/// The most threads that one job uses.
const MAX_THREADS: usize = 8;

/// Hands `0..len` to `work` in pieces of `piece` bytes, in any order, on every core; `start` makes
/// what one thread keeps between pieces. Progress counts the bytes of finished pieces.
///
/// # Errors
/// The first failure of `work`, which ends the rest, or [`crate::ErrorKind::Cancelled`].
pub(crate) fn in_pieces<S>(
    len: u64,
    piece: u64,
    job: &mut Job,
    start: impl Fn() -> S + Sync,
    work: impl Fn(Range<u64>, &mut S, &JobControl) -> Result<()> + Sync,
) -> Result<()> {
    let control = job.control().clone();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let one = |tick: &mut dyn FnMut() -> Result<()>| {
        let mut state = start();
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(piece, Ordering::Relaxed);
            if at >= len {
                return;
            }
            let end = at.saturating_add(piece).min(len);
            let done = control
                .checkpoint()
                .and_then(|()| work(at..end, &mut state, &control))
                .and_then(|()| {
                    control.advance(end - at);
                    tick()
                });
            if let Err(error) = done {
                stop.store(true, Ordering::Relaxed);
                failure.lock().get_or_insert(error);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = usize::try_from(len.div_ceil(piece)).unwrap_or(usize::MAX);
    std::thread::scope(|scope| {
        for n in 1..threads.min(MAX_THREADS).min(wanted) {
            let spawned = without_signals(|| {
                std::thread::Builder::new()
                    .name(format!("platter-worker-{n}"))
                    .spawn_scoped(scope, || one(&mut || Ok(())))
            });
            // Fewer threads than wanted do the same work.
            if spawned.is_err() {
                break;
            }
        }
        one(&mut || job.tick());
    });
    failure.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_handed_out_once() {
        let mut job = Job::new();
        let sum = AtomicU64::new(0);
        in_pieces(
            1000,
            7,
            &mut job,
            || (),
            |range, (), _| {
                sum.fetch_add(range.sum(), Ordering::Relaxed);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(sum.into_inner(), (0..1000).sum::<u64>());
        assert_eq!(job.control().progress().done, 1000);
    }

    #[test]
    fn a_failure_ends_the_work() {
        let mut job = Job::new();
        let failed = in_pieces(
            u64::MAX / 2,
            1,
            &mut job,
            || (),
            |range, (), _| match range.start {
                100 => Err(Error::invalid("here")),
                _ => Ok(()),
            },
        );
        assert_eq!(failed.unwrap_err().to_string(), "here");
    }
}
