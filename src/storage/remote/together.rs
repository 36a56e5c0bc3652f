//! Ranges that are requested together, each by a thread that waits for it.

use std::thread;

use parking_lot::Mutex;

use crate::crew;
use crate::error::Result;
use crate::job::{JobControl, without_signals};
use crate::storage::ReadRange;

/// Fills the ranges by calling `read` on up to `threads` threads, including this one.
///
/// # Errors
/// The error of one that failed; ranges not started by then are skipped.
pub(super) fn each(
    ranges: &mut [ReadRange<'_>],
    threads: usize,
    read: impl Fn(&mut [u8], u64) -> Result<()> + Sync,
) -> Result<()> {
    let left = Mutex::new((ranges.iter_mut(), Ok(())));
    let run = || {
        loop {
            let next = {
                let (ranges, outcome) = &mut *left.lock();
                ranges.next().filter(|_| outcome.is_ok())
            };
            let Some((offset, buf)) = next else {
                return;
            };
            if let Err(error) = read(buf, *offset) {
                left.lock().1 = Err(error);
            }
        }
    };
    let working = JobControl::of_this_thread();
    thread::scope(|scope| {
        for _ in 1..threads {
            let run = || {
                let _working = working.as_ref().map(JobControl::work_here);
                run();
            };
            // If a thread cannot be started, the others do its share.
            let _ = without_signals(|| crew::thread("remote").spawn_scoped(scope, run));
        }
        run();
    });
    left.into_inner().1
}
