//! Has the server write to its disks while it is being sent more, instead of all of it at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::storage::batch::Batch;
use crate::sys::libnfs::Reply;

/// How many bytes are sent before the server is asked to write them to its disks.
const STEP: u64 = 64 << 20;

/// What was sent, and what the server was asked.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    /// Number of bytes sent since the server was last asked.
    sent: AtomicU64,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// The request under way.
    batch: Option<Arc<Batch<Reply>>>,
    /// The errno of the server's refusal, which it may not repeat: what it was sent may be lost.
    failed: Option<i32>,
}

impl Asked {
    fn check(&self) -> Result<()> {
        self.failed.map_or(Ok(()), |errno| Err(Error::os(errno)))
    }

    /// Waits for the reply to the request under way.
    fn take_reply(&mut self, control: &JobControl) -> Result<()> {
        if let Some(batch) = self.batch.take() {
            for reply in batch.wait(control)? {
                self.failed = reply.err().map(|failure| failure.errno);
            }
        }
        self.check()
    }
}

impl WriteBack {
    /// Counts bytes that the server has acknowledged. If they are many, it is asked by `ask` to write them to its disks,
    /// unless it is still at work on those before.
    ///
    /// # Errors
    /// If the server has failed to write earlier bytes.
    pub(super) fn sent(
        &self,
        bytes: u64,
        control: &JobControl,
        ask: impl FnOnce() -> Result<Arc<Batch<Reply>>>,
    ) -> Result<()> {
        let sent = self.sent.fetch_add(bytes, Ordering::Relaxed);
        // A flush is asking already.
        let Some(mut asked) = self.asked.try_lock() else {
            return Ok(());
        };
        asked.check()?;
        if asked.batch.as_ref().is_some_and(|batch| !batch.is_done()) {
            return Ok(());
        }
        asked.take_reply(control)?;
        if sent.saturating_add(bytes) >= STEP {
            self.sent.store(0, Ordering::Relaxed);
            // Where the connection is lost, the next request finds out.
            asked.batch = ask().ok();
        }
        Ok(())
    }

    /// Has everything written to the server's disks by `flush`. Only one such request is under way at a time: libnfs may
    /// take for written what another one is to write.
    ///
    /// # Errors
    /// Of `flush`, if the server has failed to write earlier bytes, if the connection is lost, or if `control` ends the
    /// wait.
    pub(super) fn flush(
        &self,
        control: &JobControl,
        flush: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut asked = control.lock(&self.asked)?;
        self.sent.store(0, Ordering::Relaxed);
        asked.take_reply(control)?;
        flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::batch::Broken;
    use crate::sys::libnfs::{Answer, NfsError};

    fn failure() -> NfsError {
        NfsError {
            errno: libc::EIO,
            text: "x".to_owned(),
        }
    }

    fn lost() -> Error {
        Error::os(libc::ECONNRESET)
    }

    #[test]
    fn the_server_is_asked_for_each_step_and_once_at_a_time() {
        let (write_back, control) = (WriteBack::default(), JobControl::default());
        let never = || unreachable!("asked too early");
        write_back.sent(STEP - 1, &control, never).unwrap();
        let first = Batch::new(1);
        write_back.sent(1, &control, || Ok(first.clone())).unwrap();
        // It is still at work.
        write_back.sent(2 * STEP, &control, never).unwrap();
        first.put(0, Ok(Answer::Done));
        let second = Batch::new(1);
        write_back.sent(0, &control, || Ok(second.clone())).unwrap();
        second.put(0, Ok(Answer::Done));
        write_back.flush(&control, || Ok(())).unwrap();
        write_back.sent(STEP - 1, &control, never).unwrap();
        write_back.flush(&control, || Ok(())).unwrap();
        // What was flushed is not asked for again.
        write_back.sent(STEP - 1, &control, never).unwrap();
    }

    #[test]
    fn a_failure_is_the_error_of_all_that_follows() {
        let (write_back, control) = (WriteBack::default(), JobControl::default());
        let asked = Batch::new(1);
        write_back
            .sent(STEP, &control, || Ok(asked.clone()))
            .unwrap();
        asked.put(0, Err(failure()));
        for _ in 0..2 {
            let sent = write_back.sent(1, &control, || Err(lost()));
            assert_eq!(sent.unwrap_err().errno(), libc::EIO);
            let settled = write_back.flush(&control, || Ok(()));
            assert_eq!(settled.unwrap_err().errno(), libc::EIO);
        }
    }

    #[test]
    fn a_flush_waits_for_what_is_under_way() {
        let (write_back, control) = (Arc::new(WriteBack::default()), JobControl::default());
        let asked = Batch::new(1);
        write_back
            .sent(STEP, &control, || Ok(asked.clone()))
            .unwrap();
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| write_back.flush(&JobControl::default(), || Ok(())));
            asked.put(0, Err(failure()));
            assert_eq!(flushing.join().unwrap().unwrap_err().errno(), libc::EIO);
        });
        // A connection that is lost is not the server's failure.
        let write_back = WriteBack::default();
        let asked = Batch::new(1);
        write_back
            .sent(STEP, &control, || Ok(asked.clone()))
            .unwrap();
        asked.fail(&Broken::of(&lost()));
        assert_eq!(
            write_back.flush(&control, || Ok(())).unwrap_err().errno(),
            libc::ECONNRESET
        );
        write_back.sent(STEP, &control, || Err(lost())).unwrap();
    }
}
