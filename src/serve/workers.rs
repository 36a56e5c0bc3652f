//! The threads that all clients of a server share: they carry out what may block.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::job::without_signals;

/// What a thread is to do. A panic ends only it.
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
    /// Threads that have nothing to do, and those that may be started.
    fn free(&self) -> usize {
        self.idle + self.limit.saturating_sub(self.threads.len())
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// Threads, started when there is something to do for them.
pub(super) struct Workers(Arc<Shared>);

impl Workers {
    /// None yet, and no more than [`Workers::allow`] says.
    pub(super) fn new() -> Self {
        let workers = Self(Arc::default());
        workers.allow(1);
        workers
    }

    /// Lets so many threads run at least.
    pub(super) fn allow(&self, threads: usize) {
        let limit = &mut self.0.state.lock().limit;
        *limit = threads.max(*limit);
    }

    /// Hands a task over. Once stopped, and where no thread can be had, it is done here and now.
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
            // Fewer threads than wanted do the same work.
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

    /// Whether a thread has nothing else to do than what is handed over now, or one may be started.
    pub(super) fn are_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.free() > state.tasks.len()
    }

    /// Whether a task waits for a thread to end another one.
    pub(super) fn are_behind(&self) -> bool {
        let state = self.0.state.lock();
        state.tasks.len() > state.free()
    }

    /// Does all tasks that were handed over and ends the threads.
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

/// A panic outside of the work on images, which has a net of its own, must not end the thread.
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
