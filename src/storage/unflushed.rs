//! Changes that a server has replied to and may still lose: while there are any, a new connection must not pass
//! for the old one, because the server may have been restarted in between.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::Result;

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    /// Shared from before a change is sent until it is counted.
    counting: RwLock<()>,
    written: AtomicU64,
    flushed: AtomicU64,
}

/// How far a flush reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Unflushed {
    /// Makes a change, and counts it when the server has replied.
    ///
    /// # Errors
    /// Of `change`.
    pub(super) fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let _counted = self.counting.read();
        let done = change()?;
        self.written.fetch_add(1, Ordering::AcqRel);
        Ok(done)
    }

    /// To be taken before a flush is sent.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.written.load(Ordering::Acquire))
    }

    /// A flush has succeeded.
    pub(super) fn flushed(&self, mark: Mark) {
        self.flushed.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// Whether there are any. To be asked when the connection is lost: waits for changes that the server has replied to
    /// and that are not counted yet; all others end with the connection.
    pub(super) fn is_any(&self) -> bool {
        let _alone = self.counting.write();
        self.written.load(Ordering::Acquire) > self.flushed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_that_was_replied_to_is_waited_for_until_it_is_counted() {
        let unflushed = Unflushed::default();
        assert!(!unflushed.is_any());
        let replied = Barrier::new(2);
        let (count, counts) = channel::<()>();
        let (told, tells) = channel();
        std::thread::scope(|scope| {
            let (unflushed, replied) = (&unflushed, &replied);
            scope.spawn(move || {
                let change = || {
                    replied.wait();
                    counts.recv().unwrap();
                    Ok(())
                };
                unflushed.change(change).unwrap();
            });
            replied.wait();
            scope.spawn(move || told.send(unflushed.is_any()).unwrap());
            let early = tells.recv_timeout(Duration::from_millis(30));
            count.send(()).unwrap();
            early.unwrap_err();
            assert!(tells.recv().unwrap());
        });
        let mark = unflushed.mark();
        unflushed.change(|| Ok(())).unwrap();
        unflushed.flushed(mark);
        assert!(unflushed.is_any());
        unflushed.flushed(unflushed.mark());
        assert!(!unflushed.is_any());
    }
}
