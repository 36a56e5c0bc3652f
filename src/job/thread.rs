//! The work that a thread does: whatever it waits for along the way, such as a server below an image that was opened
//! long before, is waited for no longer than the work goes on.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;

use super::JobControl;

/// How long waits may go on after the work has ended, in total: cleaning up needs them, and this is enough for a server
/// that responds.
const GRACE: Duration = Duration::from_millis(50);

thread_local! {
    static CONTROL: RefCell<Option<Arc<JobControl>>> = const { RefCell::new(None) };
}

/// While this exists, the thread works for a control.
#[derive(Debug)]
#[must_use = "the thread works for the control until this is dropped"]
pub struct Working {
    before: Option<Arc<JobControl>>,
    /// Belongs to this thread only.
    here: PhantomData<*const ()>,
}

impl JobControl {
    /// Makes everything that this thread does heed the control too, until the returned guard is dropped: when the work
    /// ends, a wait for a server ends within about 100 ms, even if the storage was opened under another control.
    pub fn work_here(self: &Arc<Self>) -> Working {
        Working {
            before: CONTROL.replace(Some(self.clone())),
            here: PhantomData,
        }
    }

    /// The control that this thread works for, so that other threads can work for it too.
    pub(crate) fn of_this_thread() -> Option<Arc<Self>> {
        CONTROL.with_borrow(Clone::clone)
    }

    /// Runs what must be done even if the work of this thread has ended, such as removing what it created: under a
    /// control that ends after `time`, and under no other.
    pub(crate) fn apart<T>(time: Duration, owed: impl FnOnce(&Arc<Self>) -> T) -> T {
        let control = Arc::new(Self::default());
        control.set_deadline(Some(time));
        let _working = control.work_here();
        owed(&control)
    }

    /// Runs what must complete before it is known what has to be undone, such as a request that creates a file: when
    /// this work ends, it may go on for `time`.
    pub(crate) fn settling<T>(
        self: &Arc<Self>,
        time: Duration,
        begun: impl FnOnce(&Arc<Self>) -> T,
    ) -> T {
        let control = Arc::new(Self::default());
        // Nobody else has access to it yet.
        let _ = control.whole.set(self.clone());
        control.limit(|limits| {
            limits.heeded = [Some(self.clone()), Self::of_this_thread()]
                .into_iter()
                .flatten()
                .collect();
            limits.grace = time;
        });
        let _working = control.work_here();
        begun(&control)
    }

    /// Fails a moment after the work has ended, so that what was begun can still be undone.
    fn check_late(&self) -> Result<()> {
        let Err(error) = self.check_own() else {
            return Ok(());
        };
        match self.ended_for() < GRACE {
            true => Ok(()),
            false => Err(error),
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        CONTROL.set(self.before.take());
    }
}

/// Checks the control that this thread works for, unless that is `control`.
pub(super) fn check_other(control: &JobControl) -> Result<()> {
    CONTROL.with_borrow(|working| match working {
        Some(working) if !std::ptr::eq(&raw const **working, control) => working.check_late(),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_settles_outlasts_the_work() {
        let job = Arc::new(JobControl::default());
        let _working = job.work_here();
        let long = Duration::from_secs(600);
        job.settling(long, |control| {
            job.cancel();
            control.check()
        })
        .unwrap();

        let job = Arc::new(JobControl::default());
        let short = job.settling(Duration::ZERO, |control| {
            job.cancel();
            control.check()
        });
        assert_eq!(short.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_control_that_heeds_another_is_worked_for() {
        let (job, user) = (Arc::new(JobControl::default()), Arc::default());
        job.heed(&user);
        let _working = job.work_here();
        job.checkpoint().unwrap();
        JobControl::default().check().unwrap();
        user.cancel();
        job.check().unwrap_err();
    }

    #[test]
    fn a_thread_heeds_what_it_works_for_until_that_is_dropped() {
        let (storage, job) = (Arc::new(JobControl::default()), Arc::default());
        let working = JobControl::work_here(&job);
        storage.check().unwrap();
        job.cancel();
        job.check().unwrap_err();
        // A moment is left for cleaning up.
        let error = loop {
            if let Err(error) = storage.check() {
                break error;
            }
            std::thread::yield_now();
        };
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| storage.check());
            other.join().unwrap().unwrap();
        });
        JobControl::apart(Duration::from_secs(60), |control| control.check()).unwrap();
        JobControl::apart(Duration::ZERO, |control| control.check()).unwrap_err();
        let inner = Arc::new(JobControl::default());
        let within = inner.work_here();
        storage.check().unwrap();
        drop(within);
        storage.check().unwrap_err();
        drop(working);
        storage.check().unwrap();
    }
}
