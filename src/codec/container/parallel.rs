//! Members and blocks that follow each other, unpacked by many threads while their order is kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::crew;
use crate::error::Result;
use crate::job::without_signals;
use crate::memory::{self, IoBuf};

/// Does the work of every job, with as many threads as there are processors; the results are in the order of the
/// jobs. None where there is no memory for one.
///
/// # Errors
/// Where there is no memory for the list.
pub(super) fn each<J: Sync, R: Send>(
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

/// Bytes that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pieces: VecDeque<IoBuf>,
    /// So much of the first was taken.
    at: usize,
}

impl Ready {
    /// Appends bytes.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(super) fn push(&mut self, piece: IoBuf) -> Result<()> {
        self.pieces.try_reserve(1).map_err(|_| memory::lack())?;
        self.pieces.push_back(piece);
        Ok(())
    }

    /// Takes bytes; 0 where there are none.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        loop {
            let Some(first) = self.pieces.front() else {
                return 0;
            };
            let rest = first.get(self.at..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            if len > 0 || buf.is_empty() {
                let (buf, _) = buf.split_at_mut(len);
                buf.copy_from_slice(rest.get(..len).unwrap_or_default());
                self.at += len;
                return len;
            }
            self.pieces.pop_front();
            self.at = 0;
        }
    }
}
