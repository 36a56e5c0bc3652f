//! Runs the job behind a handle.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::capi::boundary::{Poison, UserData, caught, unwound};
use crate::capi::error::platter_error;
use crate::capi::job::{
    Body, Images, PLATTER_JOB_STATE_CANCELLED, PLATTER_JOB_STATE_DONE, PLATTER_JOB_STATE_FAILED,
    PLATTER_JOB_STATE_NEW, PLATTER_JOB_STATE_PAUSED, PLATTER_JOB_STATE_RUNNING,
    PLATTER_MESSAGE_NOTE, PLATTER_MESSAGE_WARNING, busy, platter_message, platter_progress,
};
use crate::capi::report;
use crate::capi::status::PLATTER_STATUS_CANCELLED;
use crate::capi::text::{c_line, c_lines, c_string};
use crate::crew;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::{
    Job, JobControl, Message, Progress, Verdict, events, kept_warning, without_signals,
};
use crate::log::{Level, log};
use crate::sys::event::Event as Readable;

type ProgressFn = unsafe extern "C" fn(*const platter_progress, *mut c_void) -> c_int;
type MessageFn = unsafe extern "C" fn(*const platter_message, *mut c_void);

/// The caller's callback for progress.
pub(super) struct ProgressCallback {
    function: ProgressFn,
    user_data: UserData,
}

impl ProgressCallback {
    pub(super) fn new(function: ProgressFn, user_data: UserData) -> Self {
        Self {
            function,
            user_data,
        }
    }
}

/// The caller's callback for messages.
pub(super) struct MessageCallback {
    function: MessageFn,
    user_data: UserData,
}

impl MessageCallback {
    pub(super) fn new(function: MessageFn, user_data: UserData) -> Self {
        Self {
            function,
            user_data,
        }
    }
}

/// What the running work reports to the caller.
#[derive(Default)]
pub(super) struct Channel {
    progress: Mutex<Option<Arc<ProgressCallback>>>,
    message: Mutex<Option<Arc<MessageCallback>>>,
    // Only ever appended to, so that the strings lent to the caller stay valid.
    warnings: Mutex<Vec<CString>>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// A job that reports to this channel.
    pub(super) fn job(self: &Arc<Self>) -> Job {
        let progress = self.clone();
        let messages = self.clone();
        Job::new()
            .on_progress(Box::new(move |state| progress.report(state)))
            .on_message(Box::new(move |message| messages.deliver(message)))
    }

    pub(super) fn set_progress(&self, callback: ProgressCallback) {
        let previous = self.progress.lock().replace(Arc::new(callback));
        // Outside the lock: this runs the caller's free_fn.
        drop(previous);
    }

    pub(super) fn set_message(&self, callback: MessageCallback) {
        let previous = self.message.lock().replace(Arc::new(callback));
        drop(previous);
    }

    pub(super) fn warning(&self, index: usize) -> *const c_char {
        self.warnings
            .lock()
            .get(index)
            .map_or(std::ptr::null(), |line| line.as_ptr())
    }

    fn report(&self, state: Progress) -> Verdict {
        let Some(callback) = self.progress.lock().clone() else {
            return Verdict::Continue;
        };
        let state = shown(state);
        // SAFETY: the caller keeps both usable until `user_data` is dropped.
        match unsafe { (callback.function)(&state, callback.user_data.get()) } {
            0 => Verdict::Continue,
            _ => Verdict::Cancel,
        }
    }

    fn deliver(&self, message: &Message) {
        let (kind, line) = match message {
            Message::Note(line) => (PLATTER_MESSAGE_NOTE, c_line(line)),
            Message::Warning(text) => (PLATTER_MESSAGE_WARNING, c_lines(text)),
        };
        let callback = self.message.lock().clone();
        if let Some(callback) = callback {
            let message = platter_message {
                size: size_of::<platter_message>(),
                text: line.as_ptr(),
                kind,
                reserved: 0,
            };
            // SAFETY: the caller keeps both usable until `user_data` is dropped.
            unsafe { (callback.function)(&message, callback.user_data.get()) }
        }
        if kind == PLATTER_MESSAGE_WARNING {
            let line = line.to_string_lossy().into_owned();
            log(Level::Warning, || line.clone());
            let mut warnings = self.warnings.lock();
            let kept = kept_warning(warnings.len(), line);
            warnings.extend(kept.map(c_string));
        }
    }
}

/// Progress as C sees it.
pub(super) fn shown(progress: Progress) -> platter_progress {
    platter_progress {
        done: progress.done,
        total: progress.total,
        reserved: [0; 2],
    }
}

/// Work that was taken in order to run it.
pub(super) struct Work {
    job: Job,
    images: Images,
    body: Body,
}

/// How a job ended.
pub(super) type Outcome = Result<Arc<report::Inner>, platter_error>;

enum State {
    Ready(Box<Work>),
    /// On that thread, once it has begun.
    Running(Option<ThreadId>),
    /// How it ended, and the report that a failure left.
    Ended(Outcome, Option<Arc<report::Inner>>),
}

/// The job behind a handle.
pub(super) struct Runner {
    name: &'static str,
    poison: Poison,
    control: Arc<JobControl>,
    channel: Arc<Channel>,
    summary: Option<CString>,
    state: Mutex<State>,
    ended: Condvar,
    event: Mutex<Option<Readable>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("name", &self.name)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Runner {
    pub(super) fn new(
        name: &'static str,
        summary: Option<CString>,
        channel: Arc<Channel>,
        job: Job,
        images: Images,
        body: Body,
    ) -> Self {
        Self {
            name,
            poison: Poison::default(),
            control: job.control().clone(),
            channel,
            summary,
            state: Mutex::new(State::Ready(Box::new(Work { job, images, body }))),
            ended: Condvar::new(),
            event: Mutex::default(),
            thread: Mutex::default(),
        }
    }

    pub(super) fn poison(&self) -> &Poison {
        &self.poison
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn control(&self) -> &JobControl {
        &self.control
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn summary(&self) -> Option<&CStr> {
        self.summary.as_deref()
    }

    pub(super) fn refuse_if_begun(&self) -> Result<()> {
        match *self.state.lock() {
            State::Ready(_) => Ok(()),
            _ => Err(busy("The job has begun already")),
        }
    }

    /// Takes the work in order to run it.
    pub(super) fn begin(&self) -> Result<Box<Work>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Running(None)) {
            State::Ready(work) => Ok(work),
            other => {
                *state = other;
                Err(busy("The job was run before"))
            }
        }
    }

    /// Runs the work on this thread. The job always reaches its end state: others may be waiting for that.
    pub(super) fn execute(&self, work: Work) -> Outcome {
        let (outcome, left) = unwound(|| self.carry_out(work)).unwrap_or_else(|error| {
            self.poison.set();
            (Err(platter_error::new(&error)), None)
        });
        *self.state.lock() = State::Ended(outcome.clone(), left);
        self.ended.notify_all();
        if let Some(event) = &*self.event.lock() {
            event.signal();
        }
        outcome
    }

    /// Does the work and releases what it holds; returns how it ended, and the report that a failure left.
    fn carry_out(&self, work: Work) -> (Outcome, Option<Arc<report::Inner>>) {
        let Work {
            mut job,
            images,
            body,
        } = work;
        // Images that were opened before the job heed its control too.
        let _working = job.control().work_here();
        let this = std::thread::current().id();
        *self.state.lock() = State::Running(Some(this));
        let begin = Instant::now();
        log(Level::Info, || format!("{} begins", self.name));
        events::BEGIN.emit(|| format!("job={}", self.name));
        let result = caught(Some(&self.poison), || {
            let content = body(&mut job, &images)?;
            let failure = content.failure();
            Ok((content, failure))
        });
        if self.poison.is_set() {
            for image in &images {
                image.poison().set();
            }
        }
        // The images are released before the end is announced, and a failure to release them is one of the job.
        let released = caught(None, || {
            for line in job.control().take_left() {
                job.warn(line);
            }
            drop(images);
            drop(job);
            Ok(())
        });
        let result = released.and(result);
        log(Level::Info, || match &result {
            Ok((_, None)) => format!("{} ends after {:.3?}", self.name, begin.elapsed()),
            Ok((_, Some(error))) | Err(error) => {
                format!("{} fails after {:.3?}: {error}", self.name, begin.elapsed())
            }
        });
        events::END.emit(|| {
            format!(
                "job={} ok={} time={:?}",
                self.name,
                matches!(result, Ok((_, None))),
                begin.elapsed()
            )
        });
        match result {
            Ok((content, None)) => (Ok(report::Inner::new(content)), None),
            Ok((content, Some(error))) => (
                Err(platter_error::new(&error)),
                Some(report::Inner::new(content)),
            ),
            Err(error) => (Err(platter_error::new(&error)), None),
        }
    }

    /// Runs the work on a thread of its own.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let mut thread = self.thread.lock();
        let work = self.begin()?;
        let runner = self.clone();
        // The work is passed through a slot, so that it is not lost if the thread cannot be started.
        let slot = Arc::new(Mutex::new(Some(work)));
        let given = slot.clone();
        let spawned = without_signals(|| {
            crew::thread("job").spawn(move || {
                let Some(work) = given.lock().take() else {
                    return;
                };
                // The result is stored in the runner.
                let _ = runner.execute(*work);
            })
        });
        match spawned {
            Ok(handle) => {
                *thread = Some(handle);
                Ok(())
            }
            Err(error) => {
                if let Some(work) = slot.lock().take() {
                    *self.state.lock() = State::Ready(work);
                }
                Err(Error::io(&error)).context(|| "Could not start a thread".into())
            }
        }
    }

    /// The state of the job: a `PLATTER_JOB_STATE_*`.
    pub(super) fn stand(&self) -> u32 {
        match &*self.state.lock() {
            State::Ready(_) => PLATTER_JOB_STATE_NEW,
            State::Running(_) if self.control.is_paused() => PLATTER_JOB_STATE_PAUSED,
            State::Running(_) => PLATTER_JOB_STATE_RUNNING,
            State::Ended(Ok(_), _) => PLATTER_JOB_STATE_DONE,
            State::Ended(Err(error), _) if error.status() == PLATTER_STATUS_CANCELLED => {
                PLATTER_JOB_STATE_CANCELLED
            }
            State::Ended(Err(_), _) => PLATTER_JOB_STATE_FAILED,
        }
    }

    /// How the job ended.
    pub(super) fn outcome(&self, wait: bool) -> Result<Outcome> {
        self.end_of_work(wait).map(|(outcome, _)| outcome)
    }

    /// The report that a failed job left.
    pub(super) fn left(&self, wait: bool) -> Result<Arc<report::Inner>> {
        let (_, left) = self.end_of_work(wait)?;
        left.ok_or_else(|| Error::new(ErrorKind::NotFound, "The job left no report of a failure"))
    }

    fn end_of_work(&self, wait: bool) -> Result<(Outcome, Option<Arc<report::Inner>>)> {
        let mut state = self.state.lock();
        loop {
            match &*state {
                State::Ended(outcome, left) => return Ok((outcome.clone(), left.clone())),
                State::Ready(_) => return Err(busy("The job was not run")),
                State::Running(thread) if wait && *thread != Some(std::thread::current().id()) => {
                    self.ended.wait(&mut state);
                }
                State::Running(_) => return Err(busy("The job has not ended")),
            }
        }
    }

    /// The eventfd, created on first use.
    pub(super) fn event_fd(&self) -> Result<c_int> {
        let mut event = self.event.lock();
        if let Some(event) = &*event {
            return Ok(event.as_fd().as_raw_fd());
        }
        let made = Readable::new()
            .map_err(|error| Error::io(&error))
            .context(|| "Could not make an eventfd".into())?;
        if matches!(*self.state.lock(), State::Ended(..)) {
            made.signal();
        }
        Ok(event.insert(made).as_fd().as_raw_fd())
    }

    /// Called before the handle is freed: cancels running work and waits for it to end.
    pub(super) fn end(&self) {
        if matches!(*self.state.lock(), State::Running(_)) {
            self.control.cancel();
            // Fails at once on the job's own thread, where waiting would never end.
            let _ = self.outcome(true);
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // The work itself cannot panic through `caught`.
            let _ = thread.join();
        }
    }
}
