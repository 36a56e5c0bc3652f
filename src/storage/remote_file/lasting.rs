//! A connection that is made again when it is lost, unless something that was written could be lost with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bstr::BStr;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::JobControl;
use crate::storage::batch::Broken;
use crate::storage::unflushed::Unflushed;

/// The pauses between attempts to connect again.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// How many connections one piece of work may lose: a server that ends each is not asked for ever.
const MOST_LOST: u32 = 3;

/// Whose connection it is.
pub(in crate::storage) trait Renew {
    /// The connection, and what is open over it.
    type Connection;

    /// The name for messages.
    fn shown(&self) -> &BStr;

    /// What ends the attempts.
    fn control(&self) -> &JobControl;

    /// Whether a connection has ended by itself.
    fn is_lost(&self, connection: &Self::Connection) -> bool;

    /// How long attempts to make another go on.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// Whether another may take its place at all.
    fn may_renew(&self, lost: &Self::Connection) -> bool;

    /// Makes another.
    ///
    /// # Errors
    /// Of the server; tried again then.
    fn renew(&self) -> Result<Self::Connection>;

    /// Checks that it leads to what the lost one did.
    ///
    /// # Errors
    /// It does not.
    fn accept(&self, lost: &Self::Connection, fresh: &Self::Connection) -> Result<()>;
}

/// The connection that there is at the moment, and what may be lost with it.
#[derive(Debug)]
pub(in crate::storage) struct Lasting<C> {
    current: RwLock<Arc<C>>,
    /// Held while the connection is made again.
    renewing: Mutex<()>,
    /// How often that has failed, and why the last time.
    failures: Mutex<(u64, Option<Broken>)>,
    unflushed: Unflushed,
    sync_failed: AtomicBool,
    /// What has taken written data with it, for all that comes after.
    loss: Mutex<Option<Broken>>,
}

impl<C> Lasting<C> {
    pub(in crate::storage) fn new(connection: C) -> Self {
        Self {
            current: RwLock::new(Arc::new(connection)),
            renewing: Mutex::default(),
            failures: Mutex::default(),
            unflushed: Unflushed::default(),
            sync_failed: AtomicBool::new(false),
            loss: Mutex::default(),
        }
    }

    /// The connection that there is now.
    pub(in crate::storage) fn current(&self) -> Arc<C> {
        self.current.read().clone()
    }

    /// Refuses what comes after a flush that has failed.
    ///
    /// # Errors
    /// One has failed.
    pub(in crate::storage) fn check(&self) -> Result<()> {
        if !self.sync_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let loss = self.loss.lock();
        Err(loss.as_ref().map_or_else(
            || Error::os(libc::EIO).context("An earlier flush has failed"),
            Broken::error,
        ))
    }

    /// Has `work` done; over a new connection where this one is lost and nothing that was written can be.
    ///
    /// # Errors
    /// Of `work`, or of the attempts to connect again.
    pub(in crate::storage) fn run<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        work: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        self.run_renewing(whose, work).of_file(whose.shown())
    }

    /// [`Lasting::run`] without the name of whose I/O it is.
    fn run_renewing<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        mut work: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        let mut lost = 0;
        loop {
            let before = self.failures.lock().0;
            let connection = self.current();
            let error = match work(&connection) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !whose.is_lost(&connection) || error.kind() == ErrorKind::Cancelled {
                return Err(error);
            }
            whose.control().check()?;
            if lost == MOST_LOST || !whose.may_renew(&connection) {
                return Err(about(whose.shown(), &error));
            }
            lost += 1;
            self.renew(whose, &connection, before, &error)?;
        }
    }

    /// As [`Lasting::run`], of what changes something that a flush makes durable.
    ///
    /// # Errors
    /// As there; also where a flush has failed before.
    pub(in crate::storage) fn change<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        mut work: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        self.check().of_file(whose.shown())?;
        self.run(whose, |connection| {
            self.unflushed.change(|| work(connection))
        })
    }

    /// Has `flush` make durable what was changed before.
    ///
    /// # Errors
    /// As [`Lasting::run`].
    pub(in crate::storage) fn flush<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        flush: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        let mark = self.unflushed.mark();
        let done = self.run(whose, flush)?;
        self.unflushed.flushed(mark);
        Ok(done)
    }

    /// Has `flush` carried out, after which none succeeds if it has failed: none brings back what was lost.
    ///
    /// # Errors
    /// Of `flush`, or of an earlier one.
    pub(in crate::storage) fn sync(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        self.check()?;
        let done = flush();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        done
    }

    /// Makes a connection in place of `lost`. What has failed since there were `before` failures is not tried again by
    /// each of those that waited.
    fn renew(
        &self,
        whose: &impl Renew<Connection = C>,
        lost: &Arc<C>,
        before: u64,
        error: &Error,
    ) -> Result<()> {
        let _alone = whose.control().lock(&self.renewing)?;
        if !Arc::ptr_eq(&self.current(), lost) {
            return Ok(());
        }
        if let (now, Some(broken)) = &*self.failures.lock()
            && *now != before
        {
            return Err(broken.error());
        }
        if self.unflushed.is_any() || self.check().is_err() {
            // The server may have been restarted, and what it had in memory be gone.
            let hint = "What was written since the last flush may be lost";
            let loss = about(whose.shown(), error).with_hint(hint);
            // Others that meet it may report it first.
            self.loss.lock().get_or_insert(Broken::of(&loss));
            self.sync_failed.store(true, Ordering::Release);
            return Err(loss);
        }
        let end = Instant::now() + whose.patience();
        let mut pauses = PAUSES.iter().copied();
        loop {
            let pause = pauses.next().unwrap_or(PAUSES[PAUSES.len() - 1]);
            whose.control().sleep(pause)?;
            let fresh = whose
                .renew()
                .and_then(|fresh| whose.accept(lost, &fresh).map(|()| fresh));
            match fresh {
                Ok(fresh) => {
                    *self.current.write() = Arc::new(fresh);
                    return Ok(());
                }
                // It is another one; all else may be a server that is not ready yet.
                Err(error)
                    if error.kind() == ErrorKind::Cancelled || error.errno() == libc::ESTALE =>
                {
                    return Err(error);
                }
                // A server that keeps quiet was waited for already.
                Err(last) if Instant::now() >= end || last.errno() == libc::ETIMEDOUT => {
                    let last = last.context(format!("Connection to '{}': {error}", whose.shown()));
                    let mut failures = self.failures.lock();
                    *failures = (failures.0 + 1, Some(Broken::of(&last)));
                    return Err(last);
                }
                Err(_) => {}
            }
        }
    }
}

/// What has ended a connection.
fn about(shown: &BStr, error: &Error) -> Error {
    let errno = match error.errno() {
        0 => libc::EIO,
        errno => errno,
    };
    let text = format!("Connection to '{shown}': {error}");
    Error::new(ErrorKind::Os, text).with_errno(errno)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Connections are numbers; those below `good` are lost.
    struct Numbers {
        next: AtomicU32,
        good: u32,
        control: JobControl,
    }

    impl Renew for Numbers {
        type Connection = u32;

        fn shown(&self) -> &BStr {
            "x".into()
        }

        fn control(&self) -> &JobControl {
            &self.control
        }

        fn is_lost(&self, connection: &u32) -> bool {
            *connection < self.good
        }

        fn may_renew(&self, _lost: &u32) -> bool {
            true
        }

        fn renew(&self) -> Result<u32> {
            Ok(self.next.fetch_add(1, Ordering::Relaxed))
        }

        fn accept(&self, lost: &u32, fresh: &u32) -> Result<()> {
            assert!(fresh > lost);
            Ok(())
        }
    }

    fn numbers(good: u32) -> (Numbers, Lasting<u32>) {
        let numbers = Numbers {
            next: AtomicU32::new(1),
            good,
            control: JobControl::default(),
        };
        (numbers, Lasting::new(0))
    }

    fn of(good: u32) -> impl Fn(&u32) -> Result<u32> {
        move |connection| match *connection < good {
            true => Err(Error::os(libc::EPIPE)),
            false => Ok(*connection),
        }
    }

    #[test]
    fn work_goes_on_over_a_new_connection_but_not_over_ever_so_many() {
        let (whose, lasting) = numbers(3);
        assert_eq!(lasting.run(&whose, of(3)).unwrap(), 3);
        let (whose, lasting) = numbers(4);
        let error = lasting.run(&whose, of(4)).unwrap_err();
        assert_eq!(error.errno(), libc::EPIPE);
    }

    #[test]
    fn what_was_not_flushed_keeps_a_new_connection_from_passing_for_the_old_one() {
        let (whose, lasting) = numbers(1);
        lasting.change(&whose, |_| Ok(())).unwrap();
        let error = lasting.run(&whose, of(1)).unwrap_err();
        assert!(
            error
                .hints()
                .iter()
                .any(|hint| hint.contains("may be lost"))
        );
        // The first report says why.
        for later in [
            lasting.sync(|| Ok(())).unwrap_err(),
            lasting.change(&whose, |_| Ok(())).unwrap_err(),
        ] {
            assert_eq!(later.to_string(), error.to_string());
            assert_eq!(later.hints(), error.hints());
        }
        let (whose, lasting) = numbers(1);
        lasting.change(&whose, |_| Ok(())).unwrap();
        lasting.flush(&whose, |_| Ok(())).unwrap();
        assert_eq!(lasting.run(&whose, of(1)).unwrap(), 1);
    }
}
