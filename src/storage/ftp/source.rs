//! A file on a server: whether it is still the same, which session reads it, and how failures are handled.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::storage::outage::Outage;
use crate::storage::remote::{
    self, Buffer, Counted, Failure, Lanes, Next, Sink, Tries, absent_at_first, ended, opening,
    violation,
};

use super::options::Settings;
use super::session::{Asking, File, Session};

/// Bytes to read when the file is opened: enough to tell the format of most images.
const FIRST: u64 = 64 << 10;
/// Maximum number of bytes to read and discard rather than start another transfer.
const MAX_GAP: u64 = 128 << 10;

/// The file.
#[derive(Debug)]
pub(super) struct Source {
    settings: Settings,
    name: BString,
    lanes: Lanes,
    /// Idle sessions, the most recently used ones last.
    idle: Mutex<Vec<Session>>,
    known: Mutex<Option<File>>,
    /// False once the server is known to lack `EPSV`.
    extended: AtomicBool,
    /// The server has been seen to start where it is told to.
    begins_inside: AtomicBool,
    outage: Outage,
}

impl Source {
    pub(super) fn new(settings: Settings, name: BString) -> Self {
        Self {
            lanes: Lanes::new(settings.terms.connections),
            settings,
            name,
            idle: Mutex::default(),
            known: Mutex::default(),
            extended: AtomicBool::new(true),
            begins_inside: AtomicBool::new(false),
            outage: Outage::default(),
        }
    }

    fn asking<'a>(&'a self, control: &'a JobControl) -> Asking<'a> {
        Asking {
            settings: &self.settings,
            control,
        }
    }

    /// Looks up the file; returns its length and its beginning.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn open(&self, control: &JobControl) -> Result<(u64, IoBuf)> {
        opening(self.settings.terms.retry_opening, control, || {
            self.try_open(control).map_err(absent_at_first)
        })
    }

    fn try_open(&self, control: &JobControl) -> Result<(u64, IoBuf), Failure> {
        let _lane = self.lanes.take(control)?;
        let asking = self.asking(control);
        let mut session = Session::begin(asking)?;
        let file = session.file.clone();
        let first = usize::try_from(file.len.min(FIRST)).unwrap_or(0);
        let mut bytes = memory::zeroed(first)?;
        if first > 0 {
            session.retrieve(0, &self.extended, asking)?;
            session.take(first as u64, &mut Buffer::new(&mut bytes), asking)?;
        }
        *self.known.lock() = Some(file.clone());
        self.idle.lock().push(session);
        Ok((file.len, bytes))
    }

    /// Reads what remains of a range with one transfer, or part of one.
    fn attempt(
        &self,
        at: &mut u64,
        end: u64,
        sink: &mut dyn Sink,
        control: &JobControl,
    ) -> Result<(), Failure> {
        loop {
            let asking = self.asking(control);
            let (mut session, old) = self.session(*at, asking)?;
            let before = *at;
            match session.take(end, &mut Counted { sink, at }, asking) {
                Ok(()) => {
                    self.idle.lock().push(session);
                    return Ok(());
                }
                // The server may have given up a transfer that was idle.
                Err(failure) if old && *at == before && failure.next == Next::Again => {
                    control.check()?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A session whose transfer is at `start`, and whether that transfer has been idle.
    fn session(&self, start: u64, asking: Asking<'_>) -> Result<(Session, bool), Failure> {
        loop {
            let Some(mut session) = self.take_idle(start) else {
                match self.new_session(start, asking) {
                    Err(failure) if self.has_too_many(&failure) => {
                        if !self.lanes.narrow(asking.control)? {
                            return Err(failure);
                        }
                        continue;
                    }
                    session => return Ok((session?, false)),
                }
            };
            let gap = session.position().and_then(|at| start.checked_sub(at));
            if gap.is_some_and(|gap| gap <= MAX_GAP) {
                if session.skip(start, asking).is_ok() {
                    return Ok((session, true));
                }
                asking.control.check()?;
                continue;
            }
            match self.retrieve(&mut session, start, asking) {
                Ok(()) => return Ok((session, false)),
                // The server may have closed it in the meantime, as it is entitled to.
                Err(failure) if ended(&failure.error) => asking.control.check()?,
                Err(failure) => return Err(failure),
            }
        }
    }

    fn new_session(&self, start: u64, asking: Asking<'_>) -> Result<Session, Failure> {
        let mut session = Session::begin(asking)?;
        if self.known.lock().as_ref() != Some(&session.file) {
            let error = Error::new(
                ErrorKind::Os,
                "The image on the server is not what it was before",
            );
            return Err(error.with_errno(libc::ESTALE).into());
        }
        self.retrieve(&mut session, start, asking)?;
        Ok(session)
    }

    /// Whether a server that has accepted one session refuses another.
    fn has_too_many(&self, failure: &Failure) -> bool {
        let refused = failure.error.kind() == ErrorKind::Denied;
        refused || ended(&failure.error)
    }

    /// The session whose transfer is at or shortly before `start`, or one without a transfer, or the least recently
    /// used one.
    fn take_idle(&self, start: u64) -> Option<Session> {
        let mut idle = self.idle.lock();
        let near = |session: &Session| {
            let gap = session.position().and_then(|at| start.checked_sub(at));
            gap.is_some_and(|gap| gap <= MAX_GAP)
        };
        let free = |session: &Session| session.position().is_none();
        let found = idle.iter().position(near);
        let found = found.or_else(|| idle.iter().position(free));
        let found = found.or((!idle.is_empty()).then_some(0))?;
        Some(idle.remove(found))
    }

    fn retrieve(
        &self,
        session: &mut Session,
        start: u64,
        asking: Asking<'_>,
    ) -> Result<(), Failure> {
        if start > 0 && !self.begins_inside.load(Relaxed) {
            self.check_rest(session, asking)?;
            self.begins_inside.store(true, Relaxed);
        }
        session.retrieve(start, &self.extended, asking)
    }

    /// A server that starts at the first byte, whatever it is told, would return wrong data: check that its last byte
    /// is where it should be.
    fn check_rest(&self, session: &mut Session, asking: Asking<'_>) -> Result<(), Failure> {
        let len = session.file.len;
        let last = len.saturating_sub(1);
        session.retrieve(last, &self.extended, asking)?;
        session.skip(len, asking).map_err(|failure| {
            if failure.next != Next::Nothing || failure.error.errno() != libc::EPROTO {
                return failure;
            }
            let message = format!(
                "The server does not begin where it is told to, or the file is longer than the {len} bytes that it says"
            );
            Failure::last(violation(message).with_kind(ErrorKind::Unsupported))
        })
    }
}

impl remote::Source for Source {
    fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    fn read(
        &self,
        (start, end): (u64, u64),
        sink: &mut dyn Sink,
        control: &JobControl,
    ) -> Result<()> {
        let mut at = start;
        let mut tries = Tries::new(&self.outage, self.settings.terms.retry);
        while at < end {
            let before = at;
            let attempt = self.attempt(&mut at, end, sink, control);
            if at > before {
                tries.succeeded();
            }
            let Err(failure) = attempt else {
                continue;
            };
            control.check()?;
            let over = failure.next == Next::Nothing;
            if over || !tries.wait(failure.after, control)? {
                let error = failure.error;
                return Err(match error.kind() {
                    ErrorKind::Cancelled => error,
                    _ => error.context(format!("Could not read '{}' at offset {at}", self.name)),
                });
            }
            // New sessions check that the file is still the same.
            let old = std::mem::take(&mut *self.idle.lock());
            drop(old);
        }
        Ok(())
    }
}
