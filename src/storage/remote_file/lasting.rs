//! A connection that reconnects when it is lost, unless written data could be lost with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bstr::BStr;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::JobControl;
use crate::storage::batch::Broken;
use crate::storage::outage::Outage;
use crate::storage::unflushed::Unflushed;

/// The pauses between attempts to reconnect.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// How many connections one piece of work may lose: a server that closes each one is not retried for ever.
const MOST_LOST: u32 = 3;

/// The owner of a connection.
pub(in crate::storage) trait Renew {
    /// The connection, and whatever is open over it.
    type Connection;

    /// The name to use in messages.
    fn shown(&self) -> &BStr;

    /// The control that cancels the attempts.
    fn control(&self) -> &JobControl;

    /// Whether a connection has been lost.
    fn is_lost(&self, connection: &Self::Connection) -> bool;

    /// How long to keep trying to reconnect.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }

    /// Whether a lost connection may be replaced at all.
    fn may_renew(&self, lost: &Self::Connection) -> bool;

    /// Opens a new connection.
    ///
    /// # Errors
    /// Errors of the server, after which it is tried again.
    fn renew(&self) -> Result<Self::Connection>;

    /// Checks that the new connection leads to the same thing as the lost one.
    ///
    /// # Errors
    /// Where it does not.
    fn accept(&self, lost: &Self::Connection, fresh: &Self::Connection) -> Result<()>;
}

/// The current connection, and the state of what might be lost with it.
#[derive(Debug)]
pub(in crate::storage) struct Lasting<C> {
    current: RwLock<Arc<C>>,
    /// Held while reconnecting.
    renewing: Mutex<()>,
    failures: Mutex<Failures>,
    outage: Outage,
    unflushed: Unflushed,
    sync_failed: AtomicBool,
    /// The connection error that lost written data, reported to all later calls.
    loss: Mutex<Option<Broken>>,
}

/// What is known of attempts to reconnect that were given up.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<Broken>,
    /// Until when the last one stands for another one: an attempt that took long is not repeated at once.
    stands_until: Option<Instant>,
}

impl Failures {
    /// The error that another attempt would only repeat, for a caller that saw `before` failures.
    fn repeated(&self, before: u64) -> Option<Error> {
        let is_recent = self
            .stands_until
            .is_some_and(|until| Instant::now() < until);
        let last = self
            .last
            .as_ref()
            .filter(|_| self.count != before || is_recent);
        last.map(Broken::error)
    }
}

impl<C> Lasting<C> {
    pub(in crate::storage) fn new(connection: C) -> Self {
        Self {
            current: RwLock::new(Arc::new(connection)),
            renewing: Mutex::default(),
            failures: Mutex::default(),
            outage: Outage::default(),
            unflushed: Unflushed::default(),
            sync_failed: AtomicBool::new(false),
            loss: Mutex::default(),
        }
    }

    /// The current connection.
    pub(in crate::storage) fn current(&self) -> Arc<C> {
        self.current.read().clone()
    }

    /// Refuses to go on after a failed flush.
    ///
    /// # Errors
    /// Where a flush has failed.
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

    /// Runs `work`; again on a new connection where the old one was lost and no written data can have been.
    ///
    /// # Errors
    /// Errors of `work`, or of the attempts to reconnect.
    pub(in crate::storage) fn run<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        work: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        self.run_renewing(whose, work).of_file(whose.shown())
    }

    /// As [`Lasting::run`], without naming the file in errors.
    fn run_renewing<T>(
        &self,
        whose: &impl Renew<Connection = C>,
        mut work: impl FnMut(&C) -> Result<T>,
    ) -> Result<T> {
        let mut lost = 0;
        loop {
            let before = self.failures.lock().count;
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

    /// As [`Lasting::run`], for changes that a flush makes durable.
    ///
    /// # Errors
    /// As there; also where an earlier flush has failed.
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

    /// Makes earlier changes durable by calling `flush`.
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

    /// Runs `flush`. Once one has failed, all later ones fail too, as none can bring back what was lost.
    ///
    /// # Errors
    /// Errors of `flush`, or of an earlier one.
    pub(in crate::storage) fn sync(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        self.check()?;
        let done = flush();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        done
    }

    /// Replaces the connection `lost`. If reconnecting has failed since the caller saw `before` failures, it is not
    /// repeated by each caller that was waiting; once the server was waited for in vain, each caller tries once.
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
        if let Some(error) = self.failures.lock().repeated(before) {
            return Err(error);
        }
        if self.unflushed.is_any() || self.check().is_err() {
            // The server may have restarted, and lost what it had in memory.
            let hint = "What was written since the last flush may be lost";
            let loss = about(whose.shown(), error).with_hint(hint);
            // Other calls that run into the loss may be the first to report it.
            self.loss.lock().get_or_insert(Broken::of(&loss));
            self.sync_failed.store(true, Ordering::Release);
            return Err(loss);
        }
        let end = Instant::now() + self.outage.limit(whose.patience());
        let mut pauses = PAUSES.iter().copied();
        loop {
            let pause = pauses.next().unwrap_or(PAUSES[PAUSES.len() - 1]);
            whose.control().sleep(pause)?;
            let began = Instant::now();
            let fresh = whose
                .renew()
                .and_then(|fresh| whose.accept(lost, &fresh).map(|()| fresh));
            match fresh {
                Ok(fresh) => {
                    *self.current.write() = Arc::new(fresh);
                    self.outage.end();
                    return Ok(());
                }
                // A different file, or a cancelled job; anything else may be a server that is not ready yet.
                Err(error)
                    if error.kind() == ErrorKind::Cancelled || error.errno() == libc::ESTALE =>
                {
                    return Err(error);
                }
                // A server that does not respond has already been given its time.
                Err(last) if Instant::now() >= end || last.errno() == libc::ETIMEDOUT => {
                    let last = last.context(format!("Connection to '{}': {error}", whose.shown()));
                    self.outage.begin();
                    let mut failures = self.failures.lock();
                    *failures = Failures {
                        count: failures.count + 1,
                        last: Some(Broken::of(&last)),
                        stands_until: Some(Instant::now() + began.elapsed()),
                    };
                    return Err(last);
                }
                Err(_) => {}
            }
        }
    }
}

/// The error that broke a connection.
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

    /// From this number on there is no server.
    const ABSENT: u32 = 1 << 16;

    /// Connections are numbers; those below `good` are lost.
    struct Numbers {
        next: AtomicU32,
        good: u32,
        patience: Duration,
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

        fn patience(&self) -> Duration {
            self.patience
        }

        fn may_renew(&self, _lost: &u32) -> bool {
            true
        }

        fn renew(&self) -> Result<u32> {
            match self.next.fetch_add(1, Ordering::Relaxed) {
                ABSENT.. => Err(Error::os(libc::ECONNREFUSED)),
                number => Ok(number),
            }
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
            patience: Duration::from_secs(15),
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
    fn a_server_that_was_waited_for_in_vain_is_tried_once_by_each_until_it_is_back() {
        let (mut whose, lasting) = numbers(1);
        whose.patience = Duration::from_millis(100);
        whose.next.store(ABSENT, Ordering::Relaxed);
        let attempts = |lasting: &Lasting<u32>, whose: &Numbers| {
            let before = whose.next.load(Ordering::Relaxed);
            let error = lasting.run(whose, of(1)).unwrap_err();
            assert!(
                error.to_string().starts_with("Connection to 'x': "),
                "{error}"
            );
            whose.next.load(Ordering::Relaxed) - before
        };
        assert!(attempts(&lasting, &whose) > 1);
        for _ in 0..3 {
            lasting.failures.lock().stands_until = None;
            assert_eq!(attempts(&lasting, &whose), 1);
        }
        // An attempt that took long is not repeated at once.
        lasting.failures.lock().stands_until = Some(Instant::now() + Duration::from_secs(3600));
        assert_eq!(attempts(&lasting, &whose), 0);
        lasting.failures.lock().stands_until = None;
        whose.next.store(1, Ordering::Relaxed);
        assert_eq!(lasting.run(&whose, of(1)).unwrap(), 1);
        // From then on it is waited for again.
        whose.good = 2;
        whose.next.store(ABSENT, Ordering::Relaxed);
        let error = lasting.run(&whose, of(2)).unwrap_err();
        assert_eq!(error.errno(), libc::ECONNREFUSED);
        assert!(whose.next.load(Ordering::Relaxed) > ABSENT + 1);
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
        // Later errors repeat the first report.
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
