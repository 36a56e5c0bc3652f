//! Jobs: long-running work with progress, cancellation, pausing, a rate limit and a deadline.

mod in_handler;
mod run;

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use crate::capi::boundary::{
    self, Handle, OutValue, Poison, UserData, call_ref, call_ref_out, check_flags, given,
    platter_free_fn,
};
use crate::capi::error::platter_error;
use crate::capi::image;
use crate::capi::report::{Content, platter_report};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobControl};

use run::{Channel, MessageCallback, ProgressCallback, Runner};

/// Long-running work: created by a `platter_*_job_new()`, run once, then queried for its result. Functions that take it
/// as `const` may be called from any thread while it runs.
#[derive(Debug)]
pub struct platter_job {
    runner: Arc<Runner>,
    heeds_rate: bool,
}

impl Handle for platter_job {
    fn poison(&self) -> &Poison {
        self.runner.poison()
    }
}

/// How far a job has come.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_progress {
    /// Amount done so far, in bytes of guest data moved or in the unit of the job.
    pub done: u64,
    /// The total: an estimate at first, exact at the end; 0 until anything is known. A job that has succeeded has done
    /// all of it, and the total is at least 1.
    pub total: u64,
    /// 0.
    pub reserved: [u64; 2],
}

impl OutValue for platter_progress {
    fn empty() -> Self {
        Self::default()
    }
}

/// Kind of message: a finding of a check, or another line of the job's normal output.
pub const PLATTER_MESSAGE_NOTE: u32 = 1;
/// Kind of message: something that the user should know, although the work goes on.
pub const PLATTER_MESSAGE_WARNING: u32 = 2;

/// A message from a job. The library owns it; it lives until the callback returns.
#[repr(C)]
#[derive(Debug)]
pub struct platter_message {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// UTF-8 without the final newline: one line, sometimes more for a warning.
    pub text: *const c_char,
    /// A `PLATTER_MESSAGE_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// Receives progress, at most every 100 ms or 1 %, and once at the end; a non-zero result cancels the job. Called on
/// the thread that runs the job. It must not free the job.
pub type platter_progress_fn = Option<
    unsafe extern "C" fn(progress: *const platter_progress, user_data: *mut c_void) -> c_int,
>;

/// Receives messages as they arise, on the thread that runs the job. It must not free the job.
pub type platter_message_fn =
    Option<unsafe extern "C" fn(message: *const platter_message, user_data: *mut c_void)>;

/// Flag of `platter_job_result()`: wait for the end of the job.
pub const PLATTER_JOB_WAIT: u32 = 1;

/// State of a job: created, and not run yet.
pub const PLATTER_JOB_STATE_NEW: u32 = 1;
/// State of a job: it is running.
pub const PLATTER_JOB_STATE_RUNNING: u32 = 2;
/// State of a job: it was started, and is paused, or will be at its next step, until `platter_job_resume()`.
pub const PLATTER_JOB_STATE_PAUSED: u32 = 3;
/// State of a job: it succeeded; `platter_job_result()` returns its report.
pub const PLATTER_JOB_STATE_DONE: u32 = 4;
/// State of a job: it failed with an error, which `platter_job_result()` returns.
pub const PLATTER_JOB_STATE_FAILED: u32 = 5;
/// State of a job: it ended because it was cancelled, or past its deadline.
pub const PLATTER_JOB_STATE_CANCELLED: u32 = 6;

/// The images that a job uses; a panic poisons them together with the job.
pub(super) type Images = Vec<Arc<image::Shared>>;
/// The work of a job.
pub(super) type Body = Box<dyn FnOnce(&mut Job, &Images) -> Result<Content> + Send>;

/// A job before its handle exists: constructors may already send messages through it.
pub(super) struct NewJob {
    channel: Arc<Channel>,
    pub(super) job: Job,
    heeds_rate: bool,
}

impl NewJob {
    pub(super) fn new() -> Self {
        let channel = Arc::new(Channel::default());
        let job = channel.job();
        Self {
            channel,
            job,
            heeds_rate: false,
        }
    }

    /// A job that moves guest data, with a rate limit if one is set.
    pub(super) fn with_rate() -> Self {
        Self {
            heeds_rate: true,
            ..Self::new()
        }
    }

    /// Makes `control` end it too.
    pub(super) fn heeding(self, control: &Arc<JobControl>) -> Self {
        self.job.control().heed(control);
        self
    }

    /// The handle of a job that opens or owns its images, and reports only that it is done.
    pub(super) fn into_owner(
        self,
        name: &'static str,
        work: impl FnOnce(&mut Job) -> Result<()> + Send + 'static,
    ) -> *mut platter_job {
        let body = move |job: &mut Job, _: &Images| {
            work(job)?;
            Ok(Content::Done { virtual_size: None })
        };
        self.into_handle(name, None, Vec::new(), Box::new(body))
    }

    /// The handle; `name` is for the log.
    pub(super) fn into_handle(
        self,
        name: &'static str,
        summary: Option<CString>,
        images: Images,
        body: Body,
    ) -> *mut platter_job {
        let heeds_rate = self.heeds_rate;
        let runner = Runner::new(name, summary, self.channel, self.job, images, body);
        Box::into_raw(Box::new(platter_job {
            runner: Arc::new(runner),
            heeds_rate,
        }))
    }
}

/// Sets the callback for progress. `free_fn` (may be NULL) is called once with `user_data`: when the job is freed or
/// another callback is set, or at once if this call fails. `flags` must be 0.
///
/// Statuses: BUSY once the job runs, INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `progress_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the
/// job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_job_set_progress(
    job: *mut platter_job,
    progress_fn: platter_progress_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    // SAFETY: NULL or a job of the caller.
    let job = unsafe { job.as_ref() };
    call_ref(job, "job", err, |job| {
        check_flags(flags, 0)?;
        let function = given(progress_fn, "progress_fn")?;
        job.runner.refuse_if_begun()?;
        job.runner
            .channel()
            .set_progress(ProgressCallback::new(function, user_data));
        Ok(())
    })
}

/// Sets the callback for messages: the findings of a check, and warnings. `free_fn` is used as by
/// `platter_job_set_progress()`. `flags` must be 0.
///
/// Statuses: BUSY once the job runs, INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `message_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the
/// job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_job_set_message(
    job: *mut platter_job,
    message_fn: platter_message_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    // SAFETY: NULL or a job of the caller.
    let job = unsafe { job.as_ref() };
    call_ref(job, "job", err, |job| {
        check_flags(flags, 0)?;
        let function = given(message_fn, "message_fn")?;
        job.runner.refuse_if_begun()?;
        job.runner
            .channel()
            .set_message(MessageCallback::new(function, user_data));
        Ok(())
    })
}

/// Returns the line that announces the job, without newline: `Formatting '…', fmt=…` for a creation; NULL for jobs
/// without one, and for NULL. Lives as long as the job.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_summary(job: Option<&platter_job>) -> *const c_char {
    boundary::get(std::ptr::null(), || {
        let summary = job.and_then(|job| job.runner.summary());
        summary.map_or(std::ptr::null(), |summary| summary.as_ptr())
    })
}

/// Runs the job on this thread and returns its status. `flags` must be 0.
///
/// Statuses: those of the work, CANCELLED, BUSY (it was run before), INVALID. Threads: one at a time.
/// Since 0.1.
///
/// # Safety
/// The job is NULL or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_job_run(
    job: *mut platter_job,
    flags: u32,
    mut err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: NULL or a job of the caller.
    let job = unsafe { job.as_ref() };
    let mut runner = None;
    let status = call_ref(job, "job", err.as_deref_mut(), |job| {
        check_flags(flags, 0)?;
        let work = job.runner.begin()?;
        runner = Some((job.runner.clone(), work));
        Ok(())
    });
    let Some((runner, work)) = runner else {
        return status;
    };
    match runner.execute(*work) {
        Ok(_) => status,
        Err(error) => boundary::report(err, &error),
    }
}

/// Starts the job on a thread of its own, which blocks all signals. `platter_job_fd()` signals its end,
/// `platter_job_result()` returns how it ended. `flags` must be 0.
///
/// Statuses: BUSY (it was run before), OS, INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// The job is NULL or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_job_start(
    job: *mut platter_job,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: NULL or a job of the caller.
    let job = unsafe { job.as_ref() };
    call_ref(job, "job", err, |job| {
        check_flags(flags, 0)?;
        job.runner.start()
    })
}

/// Returns an eventfd (non-blocking, close-on-exec) that becomes readable when the job ends, and stays readable until
/// it is read. It belongs to the job and is closed with it. `flags` must be 0.
///
/// Statuses: OS, INVALID; `*out` is -1 then. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_fd(
    out: Option<&mut MaybeUninit<c_int>>,
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // 0 would be a valid descriptor, which a caller might close.
    let mut fd = MaybeUninit::new(-1);
    let place = out.is_some().then_some(&mut fd);
    let status = call_ref_out(place, job, "job", err, |job| {
        check_flags(flags, 0)?;
        job.runner.event_fd()
    });
    if let Some(out) = out {
        // SAFETY: initialised above, and left so by the call.
        let fd = unsafe { fd.assume_init() };
        out.write(if status == 0 { fd } else { -1 });
    }
    status
}

/// Returns how the job ended. `out` may be NULL; otherwise `*out` is the report, which belongs to the caller, who frees
/// it with `platter_report_free()`. May be called more than once. `flags` is 0 or `PLATTER_JOB_WAIT`.
///
/// Statuses: BUSY while the job has not ended (with `PLATTER_JOB_WAIT`: has not begun), those of the
/// work, CANCELLED, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_result(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    job: Option<&platter_job>,
    flags: u32,
    mut err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let out = out.map(|out| out.write(std::ptr::null_mut()));
    let mut failure = None;
    // Bypasses the poison: the result of a job that panicked is still available.
    let status = boundary::call(err.as_deref_mut(), || {
        check_flags(flags, PLATTER_JOB_WAIT)?;
        let job = given(job, "job")?;
        match job.runner.outcome(flags & PLATTER_JOB_WAIT != 0)? {
            Ok(report) => {
                if let Some(out) = out {
                    *out = platter_report::new(report);
                }
            }
            Err(error) => failure = Some(error),
        }
        Ok(())
    });
    match failure {
        Some(error) => boundary::report(err, &error),
        None => status,
    }
}

/// Returns the report of a job that failed, if it left one: a check whose repair was refused ends with CORRUPT, and
/// this is what it found. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` is 0 or
/// `PLATTER_JOB_WAIT`.
///
/// Statuses: NOT_FOUND (the job succeeded, or left no report), BUSY while the job has not ended (with
/// `PLATTER_JOB_WAIT`: has not begun), INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_failure_report(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, job, "job", err, |job| {
        check_flags(flags, PLATTER_JOB_WAIT)?;
        let left = job.runner.left(flags & PLATTER_JOB_WAIT != 0)?;
        Ok(platter_report::new(left))
    })
}

/// Returns the state of the job: `*out` is a `PLATTER_JOB_STATE_*`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_state(
    out: Option<&mut MaybeUninit<u32>>,
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // Bypasses the poison: a job that panicked still has a state.
    boundary::call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(given(job, "job")?.runner.stand())
    })
}

/// Returns how far the job has come. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_progress(
    out: Option<&mut MaybeUninit<platter_progress>>,
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, job, "job", err, |job| {
        check_flags(flags, 0)?;
        Ok(run::shown(job.runner.control().progress()))
    })
}

/// Returns a warning of the job: UTF-8, rarely more than one line. `index` counts from 0 in chronological order; NULL
/// past the last one, and for NULL. The first 1,000 are retained, and a line that says that there were more; a callback
/// (`platter_job_set_message()`) receives them all. Lives as long as the job.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_warning(job: Option<&platter_job>, index: usize) -> *const c_char {
    boundary::get(std::ptr::null(), || {
        job.map_or(std::ptr::null(), |job| job.runner.channel().warning(index))
    })
}

/// Asks the job to end; it ends with CANCELLED unless it was already done. What it leaves behind is documented at the
/// function that creates the job. This only stores an atomic. NULL does nothing.
///
/// Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_cancel(job: Option<&platter_job>) {
    if let Some(job) = job {
        job.runner.control().cancel();
    }
}

/// Pauses the job at its next step until `platter_job_resume()` or `platter_job_cancel()`. In a signal handler, `err`
/// must be NULL. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_pause(
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    in_handler::control(job, flags, err, JobControl::pause)
}

/// Lets a paused job continue, at once. In a signal handler, `err` must be NULL. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_resume(
    job: Option<&platter_job>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    in_handler::control(job, flags, err, JobControl::resume)
}

/// Limits the job to `bytes_per_second` of guest data that it copies, compares or sends; 0 removes the limit. It takes
/// effect at once, even for a job that is already waiting: the wait for what was copied before is then adjusted to the
/// new rate. Jobs that move no guest data (check, create, measure, map, amend, resize and those of snapshots) refuse a
/// limit. In a signal handler, `err` must be NULL. `flags` must be 0.
///
/// Statuses: UNSUPPORTED, INVALID. Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_set_rate(
    job: Option<&platter_job>,
    bytes_per_second: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    in_handler::set_rate(job, bytes_per_second, flags, err)
}

/// Ends the job with CANCELLED (and `ETIMEDOUT` as the error's errno) at its next step once `milliseconds` from now
/// have passed, whether it is then running, paused or not yet started; 0 removes the deadline. What the job leaves
/// behind is the same as when it is cancelled. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_job_set_deadline(
    job: Option<&platter_job>,
    milliseconds: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let time = (milliseconds != 0).then(|| Duration::from_millis(milliseconds));
    call_ref(job, "job", err, |job| {
        check_flags(flags, 0)?;
        job.runner.control().set_deadline(time);
        Ok(())
    })
}

/// Frees a job. One that is running is cancelled, and this waits for it to end. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The job is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_job_free(job: *mut platter_job) {
    // SAFETY: the caller owns the job, which came from `NewJob::into_handle`.
    if let Some(job) = unsafe { job.as_ref() } {
        boundary::get((), || job.runner.end());
    }
    // SAFETY: as above.
    unsafe { boundary::free(job) }
}

/// The error for a job in the wrong state.
fn busy(message: &str) -> Error {
    Error::new(ErrorKind::Busy, message)
}
