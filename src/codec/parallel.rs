//! Units that follow each other, decoded by many threads while their order is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::crew;
use crate::error::Result;
use crate::job::without_signals;
use crate::memory;

/// Does the work of every job, with as many threads as there are processors; the results are in the order of the
/// jobs. None where there is no memory for one.
///
/// # Errors
/// Where there is no memory for the list.
pub(crate) fn each<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
) -> Result<Vec<Option<R>>> {
    let next = AtomicUsize::new(0);
    let mut results = Vec::new();
    memory::reserve(&mut results, jobs.len())?;
    results.resize_with(jobs.len(), || None);
    let results = Mutex::new(results);
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else {
                break;
            };
            let result = work(job);
            if let Some(place) = results.lock().get_mut(at) {
                *place = Some(result);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..crew::processors().min(jobs.len()) {
            // Those that are there do the work of one that is not.
            let _ = without_signals(|| crew::thread("codec").spawn_scoped(scope, run));
        }
        run();
    });
    Ok(results.into_inner())
}
