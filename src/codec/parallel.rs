//! Decoding of consecutive units by many threads, with their order preserved.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::crew;
use crate::error::Result;
use crate::job::without_signals;
use crate::memory;

/// Runs every job, with as many threads as there are processors; the results are in the order of the jobs. None for a
/// job that was not run.
///
/// # Errors
/// If memory for the list cannot be allocated.
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
            // If a thread cannot be started, the others do its work.
            let _ = without_signals(|| crew::thread("codec").spawn_scoped(scope, run));
        }
        run();
    });
    Ok(results.into_inner())
}
