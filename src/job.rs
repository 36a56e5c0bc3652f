//! Long work under control: progress, cancel, pause, a byte-rate limit, and messages.
//!
//! A [`Job`] belongs to the thread that runs the operation; its [`JobControl`] may be used from
//! any thread, and workers of the operation check it between chunks.

mod bell;
pub mod events;
mod rate;
mod thread;
mod unchanged;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

use bell::Bell;
use rate::Rate;

pub use thread::Working;
pub(crate) use unchanged::Unchanged;

/// How far the work has come, in bytes of guest data (or in the unit that the operation documents).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// The total; may grow while the work runs. 0 until known.
    pub total: u64,
}

/// What a progress callback asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// End the job with [`crate::ErrorKind::Cancelled`].
    Cancel,
}

/// Maximum time that a wait goes on without checking what a signal handler may have stored.
const LOOK: Duration = Duration::from_millis(50);

/// What ends the work, apart from a cancel.
#[derive(Debug, Default)]
struct Limits {
    deadline: Option<Instant>,
    /// Other controls that end this one's work too.
    heeded: Vec<Arc<JobControl>>,
    /// How long this work may go on after theirs has ended.
    grace: Duration,
}

/// The position of a part of the work within the whole.
#[derive(Clone, Copy, Debug)]
struct Part {
    before: u64,
    share: u64,
    whole: u64,
}

/// `share × done / total`; 0 if the total is not known yet.
fn scaled(share: u64, done: u64, total: u64) -> u64 {
    let product = u128::from(share) * u128::from(done);
    let scaled = product.checked_div(u128::from(total)).unwrap_or(0);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The shared half of a job: any thread may cancel, pause, resume or throttle through it. Opening an image and deriving
/// a key take one too.
#[derive(Debug, Default)]
pub struct JobControl {
    cancelled: AtomicBool,
    paused: AtomicBool,
    /// Rings when something has changed that a waiting worker should check.
    changed: Bell,
    /// Whether there are limits, so that most checks need no lock.
    limited: AtomicBool,
    limits: Mutex<Limits>,
    /// When a waiting thread that works for it first noticed that its work has ended.
    seen_ended: OnceLock<Instant>,
    rate: Rate,
    done: AtomicU64,
    total: AtomicU64,
    /// The control of the work of which this is a part.
    whole: OnceLock<Arc<Self>>,
    /// What the work has created and could not remove again.
    left: Mutex<Vec<String>>,
    /// Which part of the work `done` and `total` refer to, if it is done in parts.
    part: Mutex<Option<Part>>,
}

impl JobControl {
    /// Asks the job to end. Only stores an atomic: safe from a signal handler.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether the job was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Pauses the work at its next checkpoint until [`JobControl::resume`] or cancel. Safe from a signal handler.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.changed.ring();
    }

    /// Whether the work is paused, or will be at its next checkpoint.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Lets paused work continue. Safe from a signal handler.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.changed.ring();
    }

    /// Ends the work with [`crate::ErrorKind::Cancelled`] at its first checkpoint once `time` from now has passed; None
    /// removes the deadline.
    pub fn set_deadline(&self, time: Option<Duration>) {
        // A time past the range of the clock means never.
        self.limit(|limits| {
            limits.deadline = time.and_then(|time| Instant::now().checked_add(time));
        });
        self.changed.ring();
    }

    /// Ends this control's work also when `other` ends its own: when that is cancelled, or past its deadline.
    pub fn heed(self: &Arc<Self>, other: &Arc<Self>) {
        if Arc::ptr_eq(self, other) {
            return;
        }
        self.limit(|limits| {
            if !limits.heeded.iter().any(|known| Arc::ptr_eq(known, other)) {
                limits.heeded.push(other.clone());
            }
        });
    }

    /// As [`JobControl::heed`], but no longer heeds any other control; None heeds none.
    pub fn heed_only(self: &Arc<Self>, other: Option<&Arc<Self>>) {
        let other = other.filter(|other| !Arc::ptr_eq(self, other));
        self.limit(|limits| limits.heeded = other.into_iter().cloned().collect());
    }

    /// Whether nothing can end the work: it was not cancelled, has no deadline and heeds no other control.
    pub(crate) fn is_idle(&self) -> bool {
        !self.limited.load(Ordering::Relaxed) && !self.is_cancelled()
    }

    fn limit(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = self.limits.lock();
        change(&mut limits);
        let any = limits.deadline.is_some() || !limits.heeded.is_empty();
        self.limited.store(any, Ordering::SeqCst);
    }

    /// As [`JobControl::checkpoint`], but does not wait while the work is paused. Also fails soon after the control
    /// that this thread works for has ended its work (see [`JobControl::work_here`]).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`]; with the errno `ETIMEDOUT` if the deadline has passed.
    pub fn check(&self) -> Result<()> {
        self.check_own()?;
        thread::check_other(self)
    }

    fn check_own(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::cancelled());
        }
        if !self.limited.load(Ordering::Relaxed) {
            return Ok(());
        }
        let limits = self.limits.lock();
        if limits.deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "Operation cancelled: its deadline has passed",
            )
            .with_errno(libc::ETIMEDOUT));
        }
        // No control heeds one that heeds it, so the locks have an order.
        match limits.heeded.iter().try_for_each(|other| other.check_own()) {
            Err(error) if self.ended_for() >= limits.grace => Err(error),
            _ => Ok(()),
        }
    }

    /// How long ago the end of the work was first noticed; the work must have ended.
    fn ended_for(&self) -> Duration {
        self.seen_ended.get_or_init(Instant::now).elapsed()
    }

    /// Records, in one line, what a failed operation has created and could not remove again, where the control of the
    /// whole work finds it.
    pub(crate) fn leaves(&self, line: String) {
        match self.whole.get() {
            Some(whole) => whole.leaves(line),
            None => self.left.lock().push(line),
        }
    }

    /// Takes the record of what a failed operation has created and could not remove again, such as a file on a server
    /// that no longer answers: one line each.
    pub fn take_left(&self) -> Vec<String> {
        std::mem::take(&mut *self.left.lock())
    }

    /// Limits the work to `bytes_per_second` from now on, even if it is already waiting; 0 removes the limit. Safe from
    /// a signal handler.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.rate.set(bytes_per_second);
        self.changed.ring();
    }

    /// Called by workers between chunks: waits while paused, fails when cancelled or past the deadline.
    ///
    /// # Errors
    /// As [`JobControl::check`].
    pub fn checkpoint(&self) -> Result<()> {
        while self.paused.load(Ordering::Relaxed) {
            let seen = self.changed.seen();
            if !self.is_paused() || self.check().is_err() {
                break;
            }
            // A cancel does not ring, so check again from time to time.
            self.changed.wait(seen, LOOK);
        }
        self.check()
    }

    /// Takes `bytes` from the rate budget, waiting as long as the limit requires.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] when cancelled while waiting.
    pub fn throttle(&self, bytes: u64) -> Result<()> {
        if let Some(turn) = self.rate.take(bytes) {
            loop {
                let seen = self.changed.seen();
                self.checkpoint()?;
                let Some(left) = self.rate.time_until(turn) else {
                    break;
                };
                self.changed.wait(seen, left.min(LOOK));
            }
        }
        self.checkpoint()
    }

    /// Adds to the work done.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the total: work that was not foreseen, or whose parts are announced one by one.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets the total.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// What is done from here on is one part of the work, `share` of `whole`, which begins when `before` of it is done;
    /// the part counts from 0 in a unit of its own.
    pub(crate) fn begin_part(&self, before: u64, share: u64, whole: u64) {
        *self.part.lock() = Some(Part {
            before,
            share,
            whole,
        });
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
    }

    /// How far the work has come.
    pub fn progress(&self) -> Progress {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed);
        let done = if total == 0 { done } else { done.min(total) };
        match *self.part.lock() {
            None => Progress { done, total },
            Some(part) => Progress {
                done: part.before + scaled(part.share, done, total),
                total: part.whole,
            },
        }
    }
}

/// Runs `start` with all signals blocked on this thread, so that threads which it starts block them and the program's
/// own threads receive them.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let _blocked = crate::sys::signal::Blocked::all();
    start()
}

/// A message of the work to the user, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A finding of `check`, or another line that belongs to the operation's normal output.
    Note(String),
    /// Something that the caller should know, although the work goes on.
    Warning(String),
}

/// Receives progress on the thread that runs the job.
pub type ProgressFn = Box<dyn FnMut(Progress) -> Verdict + Send>;
/// Receives messages on the thread that runs the job.
pub type MessageFn = Box<dyn FnMut(&Message) + Send>;

/// Minimum time between two progress reports, unless progress advanced by 1 %.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A running operation as seen by the thread that runs it.
#[derive(Default)]
pub struct Job {
    control: Arc<JobControl>,
    on_progress: Option<ProgressFn>,
    on_message: Option<MessageFn>,
    warnings: Vec<String>,
    last: Option<(Instant, Progress)>,
    /// What must not change for the work to be worth anything.
    needed: Option<Unchanged>,
}

/// Maximum number of warnings retained for the caller, who may receive all of them as they arise.
const MAX_WARNINGS: usize = 1000;

/// The line after the last retained warning, if there were more.
const MORE_WARNINGS: &str = "There were more warnings than are kept";

/// What is retained of a warning after this many others.
pub(crate) fn kept_warning(before: usize, line: String) -> Option<String> {
    match before {
        0..MAX_WARNINGS => Some(line),
        MAX_WARNINGS => Some(MORE_WARNINGS.to_owned()),
        _ => None,
    }
}

impl Job {
    /// A job without callbacks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A job without callbacks that ends when `control` ends its own work.
    pub fn heeding(control: &Arc<JobControl>) -> Self {
        let job = Self::new();
        job.control.heed(control);
        let _ = job.control.whole.set(control.clone());
        job
    }

    /// Reports progress to `callback`, at most every 100 ms or 1 %.
    #[must_use]
    pub fn on_progress(mut self, callback: ProgressFn) -> Self {
        self.on_progress = Some(callback);
        self
    }

    /// Passes messages to `callback` as they arise.
    #[must_use]
    pub fn on_message(mut self, callback: MessageFn) -> Self {
        self.on_message = Some(callback);
        self
    }

    /// The half that other threads may hold.
    pub fn control(&self) -> &Arc<JobControl> {
        &self.control
    }

    /// Ends the work at its next tick, with [`ErrorKind::Busy`], once something has changed, and reports no more
    /// findings from then on; None lifts that.
    pub(crate) fn need(&mut self, unchanged: Option<Unchanged>) {
        self.needed = unchanged;
    }

    /// Whether nothing that the work needs has changed.
    fn is_valid(&self) -> bool {
        self.needed.as_ref().is_none_or(Unchanged::holds)
    }

    /// Called by the running thread between chunks: reports progress, waits while paused.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] when cancelled or requested by the callback.
    pub fn tick(&mut self) -> Result<()> {
        if !self.is_valid() {
            return Err(Error::new(
                ErrorKind::Busy,
                "What the work needs has changed",
            ));
        }
        self.report(false)?;
        self.control.checkpoint()
    }

    /// Reports the final state, regardless of the interval.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] if requested by the callback.
    pub fn finish(&mut self) -> Result<()> {
        let progress = self.control.progress();
        if progress.total == 0 {
            // There was nothing to do: a caller that divides by the total must see the end all the same.
            self.control.set_total(progress.done.max(1));
        }
        let progress = self.control.progress();
        self.control
            .advance(progress.total.saturating_sub(progress.done));
        self.report(true)
    }

    fn report(&mut self, force: bool) -> Result<()> {
        let Some(callback) = self.on_progress.as_mut() else {
            return Ok(());
        };
        let progress = self.control.progress();
        let due = force
            || self.last.is_none_or(|(at, last)| {
                let step = progress.done.saturating_sub(last.done);
                step.saturating_mul(100) >= progress.total.max(1) && step > 0
                    || at.elapsed() >= REPORT_INTERVAL
            });
        if !due {
            return Ok(());
        }
        self.last = Some((Instant::now(), progress));
        if callback(progress) == Verdict::Cancel {
            self.control.cancel();
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Passes one line of the operation's findings to the message callback.
    pub fn note(&mut self, line: impl Into<String>) {
        if !self.is_valid() {
            return;
        }
        if let Some(callback) = self.on_message.as_mut() {
            callback(&Message::Note(line.into()));
        }
    }

    /// Records a warning: for the message callback, and in the list that the caller reads.
    pub fn warn(&mut self, line: impl Into<String>) {
        let line = line.into();
        if let Some(callback) = self.on_message.as_mut() {
            callback(&Message::Warning(line.clone()));
        }
        self.warnings
            .extend(kept_warning(self.warnings.len(), line));
    }

    /// The warnings so far, oldest first.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_job_fails_at_the_next_tick() {
        let mut job = Job::new();
        job.tick().unwrap();
        job.control().clone().cancel();
        assert_eq!(job.tick().unwrap_err().kind(), crate::ErrorKind::Cancelled);
    }

    #[test]
    fn more_warnings_than_are_kept_are_told_by_the_last_one() {
        let heard = Arc::new(Mutex::new(0));
        let count = heard.clone();
        let mut job = Job::new().on_message(Box::new(move |_| *count.lock() += 1));
        for n in 0..MAX_WARNINGS {
            job.warn(n.to_string());
        }
        assert_eq!(job.warnings().last().unwrap(), "999");
        job.warn("too many");
        job.warn("far too many");
        assert_eq!(job.warnings().len(), MAX_WARNINGS + 1);
        assert_eq!(job.warnings().last().unwrap(), MORE_WARNINGS);
        assert_eq!(*heard.lock(), MAX_WARNINGS + 2);
    }

    #[test]
    fn the_callback_sees_the_end_and_can_cancel() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let mut job = Job::new().on_progress(Box::new(move |p| {
            log.lock().push(p.done);
            if p.done == 5 {
                Verdict::Cancel
            } else {
                Verdict::Continue
            }
        }));
        job.control().set_total(10);
        job.tick().unwrap();
        job.control().advance(5);
        assert!(job.tick().is_err());
        assert_eq!(*seen.lock(), [0, 5]);
    }

    #[test]
    fn a_deadline_ends_even_paused_and_throttled_work() {
        let late = |control: &JobControl, outcome: Result<()>| {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            assert_eq!(error.os_errno(), Some(libc::ETIMEDOUT));
            control.set_deadline(None);
            control.check().unwrap();
        };
        let control = JobControl::default();
        control.set_deadline(Some(Duration::MAX));
        control.checkpoint().unwrap();
        control.set_deadline(Some(Duration::ZERO));
        late(&control, control.checkpoint());
        control.pause();
        control.set_deadline(Some(Duration::from_millis(5)));
        late(&control, control.checkpoint());
        control.resume();
        control.set_rate(1);
        control.throttle(1 << 30).unwrap();
        control.set_deadline(Some(Duration::from_millis(5)));
        late(&control, control.throttle(1));
    }

    #[test]
    fn a_rate_that_is_lifted_or_raised_ends_a_wait_that_has_begun() {
        for rate in [0, u64::MAX] {
            let control = Arc::new(JobControl::default());
            control.set_rate(1);
            control.throttle(1 << 30).unwrap();
            let worker = std::thread::spawn({
                let control = control.clone();
                move || control.throttle(1)
            });
            std::thread::sleep(Duration::from_millis(5));
            assert!(!worker.is_finished());
            control.set_rate(rate);
            worker.join().unwrap().unwrap();
        }
    }

    #[test]
    fn what_signal_handlers_call_takes_no_lock() {
        let control = Arc::new(JobControl::default());
        let (told, done) = std::sync::mpsc::channel();
        let _limits = control.limits.lock();
        let _part = control.part.lock();
        control.rate.while_locked(|| {
            let control = control.clone();
            std::thread::spawn(move || {
                control.pause();
                control.set_rate(1);
                control.set_rate(0);
                control.resume();
                control.cancel();
                told.send(()).unwrap();
            });
            done.recv_timeout(Duration::from_secs(60)).unwrap();
        });
    }

    #[test]
    fn a_control_ends_with_those_that_it_heeds() {
        let job = Job::new();
        let other = Arc::new(JobControl::default());
        job.control().heed(&other);
        job.control().heed(job.control());
        job.control().check().unwrap();
        other.set_deadline(Some(Duration::ZERO));
        let error = job.control().check().unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::ETIMEDOUT));
        other.set_deadline(None);
        other.cancel();
        assert!(job.control().checkpoint().is_err());
    }

    #[test]
    fn pause_holds_a_worker_until_resume() {
        let control = Arc::new(JobControl::default());
        control.pause();
        let worker = std::thread::spawn({
            let control = control.clone();
            move || control.checkpoint()
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!worker.is_finished());
        control.resume();
        worker.join().unwrap().unwrap();
    }
}
