//! Ranges that are asked for together, each by a thread that waits for it.

use std::thread;

use parking_lot::Mutex;

use crate::crew;
use crate::error::Result;
use crate::job::{JobControl, without_signals};
use crate::storage::ReadRange;

/// Fills each range by `read`, as many at once as there are `threads`, this one among them.
///
/// # Errors
/// Of one that failed; those that were not begun then are left out.
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
            // Those that are there do the work of one that is not.
            let _ = without_signals(|| crew::thread("remote").spawn_scoped(scope, run));
        }
        run();
    });
    left.into_inner().1
}
