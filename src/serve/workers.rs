//! The threads that all clients of a server share: they carry out requests that may block.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::job::without_signals;

/// Work for a thread. A panic ends only the task.
pub(super) type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    limit: usize,
    stopped: bool,
}

impl State {
    /// Number of threads that are idle, plus those that may still be started.
    fn free(&self) -> usize {
        self.idle + self.limit.saturating_sub(self.threads.len())
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// Threads that are started when there is work for them.
pub(super) struct Workers(Arc<Shared>);

impl Workers {
    /// Creates no threads yet, and later no more than [`Workers::allow`] says.
    pub(super) fn new() -> Self {
        let workers = Self(Arc::default());
        workers.allow(1);
        workers
    }

    /// Allows at least this many threads.
    pub(super) fn allow(&self, threads: usize) {
        let limit = &mut self.0.state.lock().limit;
        *limit = threads.max(*limit);
    }

    /// Hands over a task. After a stop, or if no thread can be started, the caller runs it.
    pub(super) fn run(&self, task: Task) {
        let mut state = self.0.state.lock();
        if state.stopped {
            drop(state);
            return carry_out(task);
        }
        state.tasks.push_back(task);
        if state.idle < state.tasks.len() && state.threads.len() < state.limit {
            let shared = self.0.clone();
            let spawned = without_signals(|| {
                crew::thread(&format!("serve-{}", state.threads.len() + 1))
                    .spawn(move || shared.serve())
            });
            // The work gets done with fewer threads than wanted, too.
            state.threads.extend(spawned);
        }
        let alone = state.threads.is_empty().then(|| state.tasks.pop_front());
        drop(state);
        match alone.flatten() {
            Some(task) => carry_out(task),
            None => {
                self.0.wake.notify_one();
            }
        }
    }

    /// Whether a thread has nothing to do but what is handed over now, or can still be started.
    pub(super) fn are_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.free() > state.tasks.len()
    }

    /// Whether a task has to wait until a thread finishes another one.
    pub(super) fn are_behind(&self) -> bool {
        let state = self.0.state.lock();
        state.tasks.len() > state.free()
    }

    /// Finishes all tasks that were handed over, and ends the threads.
    pub(super) fn stop(&self) {
        let threads = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.threads)
        };
        self.0.wake.notify_all();
        for thread in threads {
            // Tasks cannot panic through `carry_out`.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("threads", &self.0.state.lock().threads.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                carry_out(task);
                state = self.state.lock();
            } else if state.stopped {
                return;
            } else {
                state.idle += 1;
                self.wake.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

/// A panic outside of the work on images, which is caught separately, must not end the thread.
fn carry_out(task: Task) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(task))
        && let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_tasks_are_done_before_the_threads_end() {
        let workers = Workers::new();
        workers.allow(3);
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..100 {
            let done = done.clone();
            workers.run(Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
                assert!(number % 10 != 0, "injected by a test");
            }));
        }
        workers.stop();
        assert_eq!(done.load(Ordering::Relaxed), 100);
        let late = done.clone();
        workers.run(Box::new(move || {
            late.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(done.load(Ordering::Relaxed), 101);
    }
}
