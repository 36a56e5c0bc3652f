//! The threads that process requests which neither memory nor the kernel can complete at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, WriteFlags};
use crate::job::{JobControl, without_signals};
use crate::queue::request::{Completion, QueueTarget, Request};
use crate::sys::event::Event;

/// A request in flight.
#[derive(Debug)]
pub(super) struct Job {
    token: u64,
    request: Request,
    /// The control that the thread which submitted it works for.
    control: Option<Arc<JobControl>>,
}

impl Job {
    /// A request on behalf of this thread's work, with which it ends if it is waiting for a server.
    pub(super) fn new(token: u64, request: Request) -> Self {
        Self {
            token,
            request,
            control: JobControl::of_this_thread(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    done: VecDeque<Completion>,
    /// Number of threads waiting for a job.
    idle: usize,
    /// Whether the event has been signalled since the last check.
    signalled: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    target: Arc<dyn QueueTarget>,
    event: Arc<Event>,
    state: Mutex<State>,
    wake: Condvar,
}

/// The threads of one queue.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    limit: usize,
}

impl Pool {
    /// Starts no thread yet; later there are at most as many as are needed to serve `depth` requests.
    pub(super) fn new(target: Arc<dyn QueueTarget>, event: Arc<Event>, depth: u32) -> Self {
        let room = depth as usize;
        let limit = crew::serving(target.image().requests_in_flight(), depth);
        let (mut jobs, mut done) = (VecDeque::new(), VecDeque::new());
        // If there is no space now, it is allocated as requests arrive.
        let _ = jobs.try_reserve(room).and_then(|()| done.try_reserve(room));
        Self {
            shared: Arc::new(Shared {
                target,
                event,
                state: Mutex::new(State {
                    jobs,
                    done,
                    ..State::default()
                }),
                wake: Condvar::new(),
            }),
            threads: Vec::new(),
            limit,
        }
    }

    /// Adds a job.
    pub(super) fn push(&mut self, job: Job) {
        let idle = {
            let mut state = self.shared.state.lock();
            state.jobs.push_back(job);
            state.idle >= state.jobs.len()
        };
        if !idle && self.threads.len() < self.limit {
            self.spawn();
        }
        if self.threads.is_empty() {
            // No thread can be started: the work is done here and now, which is slow but correct.
            self.shared.work_off();
        } else {
            self.shared.wake.notify_one();
        }
    }

    /// Moves completed requests to `ready`.
    pub(super) fn take(&self, ready: &mut VecDeque<Completion>) {
        let mut state = self.shared.state.lock();
        state.signalled = false;
        ready.append(&mut state.done);
    }

    /// The number of threads that were started.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    fn spawn(&mut self) {
        let shared = self.shared.clone();
        let spawned = without_signals(|| {
            crew::thread(&format!("queue-{}", self.threads.len() + 1)).spawn(move || shared.serve())
        });
        // Fewer threads than wanted do the same work.
        self.threads.extend(spawned);
    }
}

impl Drop for Pool {
    /// Drops jobs that have not begun and waits for the others.
    fn drop(&mut self) {
        let dropped = {
            let mut state = self.shared.state.lock();
            state.stop = true;
            std::mem::take(&mut state.jobs)
        };
        drop(dropped);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // The jobs cannot panic through `carry_out`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The main loop of a thread.
    fn serve(&self) {
        let mut state = self.state.lock();
        while !state.stop {
            let Some(job) = state.jobs.pop_front() else {
                state.idle += 1;
                self.wake.wait(&mut state);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let completion = carry_out(&*self.target, job);
            state = self.state.lock();
            self.finish(&mut state, completion);
        }
    }

    /// Processes all jobs on this thread.
    fn work_off(&self) {
        loop {
            let Some(job) = self.state.lock().jobs.pop_front() else {
                return;
            };
            let completion = carry_out(&*self.target, job);
            self.finish(&mut self.state.lock(), completion);
        }
    }

    fn finish(&self, state: &mut State, completion: Completion) {
        state.done.push_back(completion);
        if !std::mem::replace(&mut state.signalled, true) {
            self.event.signal();
        }
    }
}

/// Runs a job; a panic becomes its error.
fn carry_out(target: &dyn QueueTarget, job: Job) -> Completion {
    let Job {
        token,
        mut request,
        control,
    } = job;
    let _working = control.as_ref().map(JobControl::work_here);
    let result = catch_unwind(AssertUnwindSafe(|| perform(target.image(), &mut request)));
    let result = result.unwrap_or_else(|payload| {
        target.panicked();
        // Dropping a payload can panic in turn; leaking that one is the lesser evil.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        Err(Error::new(
            ErrorKind::Internal,
            "Internal error: a request of a queue panicked",
        ))
    });
    let buffer = match request {
        Request::Read { buffer, .. } | Request::Write { buffer, .. } => Some(buffer),
        Request::WriteZeroes { .. } | Request::Discard { .. } | Request::Flush => None,
    };
    Completion {
        token,
        result,
        buffer,
    }
}

fn perform(image: &Image, request: &mut Request) -> Result<u64> {
    image.change(flags_of(request), |image| match request {
        Request::Read { buffer, offset } => {
            image.read_vectored_at(buffer.slices_mut(), *offset)?;
            Ok(buffer.len())
        }
        Request::Write { buffer, offset, .. } => {
            image.write_vectored_at(buffer.slices(), *offset)?;
            Ok(buffer.len())
        }
        Request::WriteZeroes {
            offset, len, flags, ..
        } => image.write_zeroes(*offset, *len, *flags).map(|()| *len),
        Request::Discard { offset, len, .. } => image.discard(*offset, *len).map(|()| *len),
        Request::Flush => Ok(0),
    })
}

/// The flags of the change; a flush is an empty change that is durable.
fn flags_of(request: &Request) -> WriteFlags {
    let durable = match request {
        Request::Read { .. } => false,
        Request::Write { durable, .. }
        | Request::WriteZeroes { durable, .. }
        | Request::Discard { durable, .. } => *durable,
        Request::Flush => true,
    };
    let mut flags = WriteFlags::empty();
    flags.set(WriteFlags::FUA, durable);
    flags
}
