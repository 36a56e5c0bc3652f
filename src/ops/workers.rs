//! Processing of the guest bytes of an image, in pieces, on several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::crew::{self, Load};
use crate::error::{Error, Result};
use crate::job::{Job, JobControl, without_signals};
use crate::ops::forecast::{Forecast, Run};

/// How a thread reports its work between two steps.
pub(crate) struct Pace<'a> {
    control: &'a JobControl,
    tick: &'a mut dyn FnMut() -> Result<()>,
}

impl Pace<'_> {
    /// Before `bytes` are moved: waits as long as the job's rate requires.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`].
    pub(crate) fn before(&self, bytes: u64) -> Result<()> {
        self.control.throttle(bytes)
    }

    /// After `bytes` were moved: reports progress.
    ///
    /// # Errors
    /// As [`Pace::before`].
    pub(crate) fn after(&mut self, bytes: u64) -> Result<()> {
        self.control.advance(bytes);
        (self.tick)()
    }
}

/// Passes the guest bytes of `forecast` to `work` in pieces of `piece` bytes, in any order, on as many threads as
/// `load` calls for. `start` creates what one thread retains between pieces. Progress counts what `work` reports.
///
/// # Errors
/// The first failure of `work` or of the advance count, which ends the rest, or [`crate::ErrorKind::Cancelled`].
pub(crate) fn in_pieces<S, F: FnMut(u64) -> Result<Run>>(
    mut forecast: Forecast<F>,
    piece: u64,
    load: Load,
    job: &mut Job,
    start: impl Fn() -> S + Sync,
    work: impl Fn(Range<u64>, &mut S, &mut Pace<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let control = job.control().clone();
    let len = forecast.len();
    forecast.update(&control)?;
    job.tick()?;
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let one = |tick: &mut dyn FnMut() -> Result<()>| {
        let _working = control.work_here();
        let mut state = start();
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(piece, Ordering::Relaxed);
            if at >= len {
                return;
            }
            let end = at.saturating_add(piece).min(len);
            let mut pace = Pace {
                control: &control,
                tick: &mut *tick,
            };
            let done = control
                .checkpoint()
                .and_then(|()| work(at..end, &mut state, &mut pace))
                .and_then(|()| tick());
            if let Err(error) = done {
                stop.store(true, Ordering::Relaxed);
                failure.lock().get_or_insert(error);
            }
        }
    };
    let threads = load.threads();
    let wanted = usize::try_from(len.div_ceil(piece)).unwrap_or(usize::MAX);
    std::thread::scope(|scope| {
        for n in 1..threads.min(wanted) {
            let spawned = without_signals(|| {
                crew::thread(&format!("worker-{n}"))
                    .spawn_scoped(scope, || one(&mut || control.checkpoint()))
            });
            // Fewer threads than wanted do the same work.
            if spawned.is_err() {
                break;
            }
        }
        one(&mut || {
            forecast.update(&control)?;
            job.tick()
        });
    });
    failure.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Load = Load {
        in_flight: 1,
        computes: false,
        bytes: 0,
    };

    #[test]
    fn every_byte_is_handed_out_once() {
        let mut job = Job::new();
        let sum = AtomicU64::new(0);
        let look = |at| {
            Ok(Run {
                len: 1000 - at,
                moved: 1000 - at,
            })
        };
        in_pieces(
            Forecast::new(1000, 1000, look),
            7,
            ALONE,
            &mut job,
            || (),
            |range, (), pace| {
                let len = range.end - range.start;
                sum.fetch_add(range.sum(), Ordering::Relaxed);
                pace.after(len)
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
            Forecast::new(u64::MAX / 2, 0, |_| Ok(Run { len: 1, moved: 0 })),
            1,
            ALONE,
            &mut job,
            || (),
            |range, (), _| match range.start {
                100 => Err(Error::invalid("here")),
                _ => Ok(()),
            },
        );
        assert_eq!(failed.unwrap_err().to_string(), "here");
    }

    #[test]
    fn as_many_threads_wait_as_the_storages_like_requests() {
        let waiting = Mutex::new(0);
        let all = parking_lot::Condvar::new();
        let look = |at| {
            Ok(Run {
                len: 64 - at,
                moved: 64 - at,
            })
        };
        let load = Load {
            in_flight: 24,
            ..ALONE
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let gather = |_: Range<u64>, (): &mut (), _: &mut Pace<'_>| {
            let mut waiting = waiting.lock();
            *waiting += 1;
            all.notify_all();
            while *waiting < 24 {
                if all.wait_until(&mut waiting, deadline).timed_out() {
                    return Err(Error::invalid(format!("Only {waiting} came")));
                }
            }
            Ok(())
        };
        let forecast = Forecast::new(64, 64, look);
        in_pieces(forecast, 1, load, &mut Job::new(), || (), gather).unwrap();
    }
}
