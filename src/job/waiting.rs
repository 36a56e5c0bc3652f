//! Waits that end with the work, although only time or another thread would end them otherwise.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};

use crate::error::Result;

use super::{JobControl, LOOK};

impl JobControl {
    /// Sleeps for this long.
    ///
    /// # Errors
    /// As [`JobControl::check`], which ends the wait.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.check()?;
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Locks a mutex that another thread may hold while it waits for a server.
    ///
    /// # Errors
    /// As [`JobControl::check`], which ends the wait.
    pub(crate) fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>> {
        loop {
            if let Some(held) = mutex.try_lock_for(LOOK) {
                return Ok(held);
            }
            self.check()?;
        }
    }

    /// Locks exclusively what others share for the duration of their requests.
    ///
    /// # Errors
    /// As [`JobControl::check`], which ends the wait.
    pub(crate) fn lock_alone<'a, T>(&self, lock: &'a RwLock<T>) -> Result<RwLockWriteGuard<'a, T>> {
        loop {
            // New readers wait in the meantime, so that the present ones are the last.
            if let Some(held) = lock.try_write_for(LOOK) {
                return Ok(held);
            }
            self.check()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_with_the_work() {
        let control = JobControl::default();
        control.sleep(Duration::from_millis(1)).unwrap();
        let mutex = Mutex::new(());
        let held = control.lock(&mutex).unwrap();
        control.cancel();
        control.sleep(Duration::MAX).unwrap_err();
        control.lock(&mutex).unwrap_err();
        drop(held);
        drop(control.lock(&mutex).unwrap());
        let shared = RwLock::new(());
        let held = shared.read();
        control.lock_alone(&shared).unwrap_err();
        drop(held);
        drop(control.lock_alone(&shared).unwrap());
    }
}
