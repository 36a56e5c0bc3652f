//! Several connections with one export, which are made when there is use for them, and made again when they
//! are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bstr::{BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::nbd::flags::TransmissionFlags;
use crate::nbd::request::Command;
use crate::net::{Stream, Wait, connect};
use crate::storage::exports::ExportInfo;

use super::connection::Connection;
use super::handshake::{Export, Wanted, negotiate};
use super::journal::{Journal, Kept, MAX_BYTES, Mark};
use super::listing;
use super::op::Op;
use super::options::Settings;

/// How long after a failed attempt to connect the next one follows.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such time.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// What the kernel may hold of a connection.
const KERNEL_BUFFER: usize = 2 << 20;
/// The shortest and the longest time that a further connection may take.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// When the server's machine is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);

/// The connections.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    name: BString,
    /// How long a further connection may take to be made.
    patience: Duration,
    /// What was agreed on at first, and is to be found again.
    pub(super) export: Export,
    lanes: Vec<Lane>,
    /// The lanes that may be used.
    open: AtomicUsize,
    growing: Mutex<()>,
    /// The server takes no more connections.
    full: AtomicBool,
    /// What a server that comes back gets again, where it is waited for.
    journal: Option<Journal>,
    /// A connection with writes that no flush covered has another in its place.
    lost: AtomicBool,
    /// The server has refused a flush: of what it had replied to, anything may be lost, whatever a later one says.
    flush_failed: AtomicBool,
}

/// The place of one connection.
#[derive(Debug, Default)]
struct Lane {
    load: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    /// Since when there is none.
    lost: Option<Instant>,
}

/// What requests leave that the server may still lose when it has replied.
#[derive(Debug)]
enum Leaves<'a> {
    Nothing,
    /// Changes that a flush on the same connection covers.
    Unflushed,
    /// Changes that are made again on another connection.
    Kept(Kept<'a>),
    /// A flush, and what it covers of such changes.
    Flush(Option<Mark>),
}

/// Requests on a lane.
struct Loaded<'a>(&'a Lane, usize);

impl<'a> Loaded<'a> {
    fn new(lane: &'a Lane, requests: usize) -> Self {
        lane.load.fetch_add(requests, Ordering::Relaxed);
        Self(lane, requests)
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Connects to the server.
fn connected(settings: &Settings, wait: Wait<'_>) -> Result<Stream> {
    let stream = connect(&settings.address, wait)?;
    stream.set_buffers(KERNEL_BUFFER);
    if settings.keep_alive {
        // A hint: the connection is good without.
        let _ = stream.set_keepalive(SILENCE);
    }
    Ok(stream)
}

/// Connects, and agrees on the export.
pub(super) fn establish(settings: &Settings, wait: Wait<'_>) -> Result<Connection> {
    let wait = wait.silent_for(settings.timeout);
    let stream = connected(settings, wait)?;
    let wanted = Wanted {
        export: settings.export.as_bstr(),
        context: settings.context.as_bstr(),
        tls: settings.tls.as_ref(),
        tls_host: settings.tls_host.as_deref(),
    };
    let (stream, export) = negotiate(stream, &wanted, wait)?;
    Ok(Connection::new(stream, export, settings.timeout))
}

/// Connects, and asks for the list of exports.
///
/// # Errors
/// Of the network, or what the server says.
pub(super) fn list(settings: &Settings, control: &JobControl) -> Result<Vec<ExportInfo>> {
    within(control, after(settings.open_timeout), |wait| {
        let wait = wait.silent_for(settings.timeout);
        listing::list(connected(settings, wait)?, settings, wait)
    })
}

/// Tries again until the time is over; the last error counts.
fn establish_within(
    settings: &Settings,
    control: &JobControl,
    deadline: Option<Instant>,
) -> Result<Connection> {
    within(control, deadline, |wait| establish(settings, wait))
}

fn within<T>(
    control: &JobControl,
    deadline: Option<Instant>,
    attempt: impl Fn(Wait<'_>) -> Result<T>,
) -> Result<T> {
    let mut pause = PAUSE;
    loop {
        let wait = Wait::new(control).until(deadline);
        let error = match attempt(wait) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        control.check()?;
        let again = Instant::now() + pause;
        if deadline.is_none_or(|deadline| again >= deadline) {
            return Err(error);
        }
        while Instant::now() < again {
            control.check()?;
            std::thread::sleep(PAUSE.min(again.saturating_duration_since(Instant::now())));
        }
        pause = (pause * 2).min(LONG_PAUSE);
    }
}

fn after(time: Duration) -> Option<Instant> {
    match time.is_zero() {
        true => None,
        // Past the range of the clock is a long time.
        false => Instant::now().checked_add(time),
    }
}

impl Pool {
    /// Connects.
    ///
    /// # Errors
    /// Of the network, or what the server says.
    pub(super) fn open(settings: &Settings, name: BString, control: &JobControl) -> Result<Self> {
        let begun = Instant::now();
        let first = establish_within(settings, control, after(settings.open_timeout))?;
        let export = first.export;
        if settings.context_asked && export.context.is_none() {
            return Err(Error::invalid(format!(
                "requested x-dirty-bitmap {} not found",
                settings.context
            )));
        }
        // A server that knows no flush has nothing that it could lose.
        let keeps = !settings.reconnect_delay.is_zero()
            && export.flags.contains(TransmissionFlags::SEND_FLUSH);
        let several = export.flags.contains(TransmissionFlags::CAN_MULTI_CONN);
        let most = match several && settings.descriptor().is_none() {
            true => settings.connections,
            false => 1,
        };
        let mut lanes: Vec<Lane> = Vec::new();
        lanes.resize_with(most, Lane::default);
        if let Some(lane) = lanes.first_mut() {
            lane.line.get_mut().connection = Some(Arc::new(first));
        }
        Ok(Self {
            settings: settings.clone(),
            name,
            // Ten times what one took: a server that takes no more may leave them waiting.
            patience: (begun.elapsed() * 10).clamp(LEAST_PATIENCE, MOST_PATIENCE),
            export,
            lanes,
            open: AtomicUsize::new(1),
            growing: Mutex::new(()),
            full: AtomicBool::new(false),
            journal: keeps.then(Journal::default),
            lost: AtomicBool::new(false),
            flush_failed: AtomicBool::new(false),
        })
    }

    /// Sends the requests and takes their replies; gives the first error of the server.
    ///
    /// # Errors
    /// Of the server, or of the connection.
    pub(super) fn run(&self, ops: &mut [Op<'_, '_>], control: &JobControl) -> Result<()> {
        self.carry_out(ops, Leaves::Nothing, control)
    }

    /// As [`Pool::run`] for requests that change the export; `durable` where their replies say that nothing of them
    /// can be lost.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub(super) fn change(
        &self,
        ops: &mut [Op<'_, '_>],
        durable: bool,
        control: &JobControl,
    ) -> Result<()> {
        let leaves = match &self.journal {
            None if durable => Leaves::Nothing,
            None => Leaves::Unflushed,
            Some(journal) => loop {
                match journal.keep(ops, durable)? {
                    None => self.flush(control)?,
                    Some(kept) => break Leaves::Kept(kept),
                }
            },
        };
        self.carry_out(ops, leaves, control)
    }

    /// How many bytes of changes may be sent in one call.
    pub(super) fn most_bytes(&self) -> usize {
        match self.journal {
            Some(_) => usize::try_from(MAX_BYTES / 2).unwrap_or(usize::MAX),
            None => usize::MAX,
        }
    }

    fn carry_out(
        &self,
        ops: &mut [Op<'_, '_>],
        leaves: Leaves<'_>,
        control: &JobControl,
    ) -> Result<()> {
        let lane = self.lane(control)?;
        let _loaded = Loaded::new(lane, ops.len());
        let mut lost: Option<Instant> = None;
        let mut leaves = Some(leaves);
        loop {
            let connection = self.connection(lane, control)?;
            let done = self.exchange(&connection, ops, &mut leaves, control);
            let Err(error) = done else {
                let mut ops = ops.iter_mut();
                return ops.find_map(|op| op.error.take()).map_or(Ok(()), Err);
            };
            control.check()?;
            self.note_loss(lane, &connection);
            let delay = self.settings.reconnect_delay;
            match connection.ended() {
                None => return Err(self.about(error)),
                Some(false) => {
                    let again = lost.is_some();
                    // A server that every time ends the connection over this request is not waited for any longer.
                    if lost.get_or_insert_with(Instant::now).elapsed() >= delay {
                        return Err(self.about(error));
                    }
                    if again {
                        std::thread::sleep(PAUSE);
                    }
                }
                // Another's work was cancelled.
                Some(true) => {}
            }
            for op in ops.iter_mut() {
                op.reset();
            }
        }
    }

    /// Has the requests carried out on a connection, and takes note of what they leave once all are replied to.
    fn exchange(
        &self,
        connection: &Connection,
        ops: &mut [Op<'_, '_>],
        leaves: &mut Option<Leaves<'_>>,
        control: &JobControl,
    ) -> Result<()> {
        let journal = self.journal.as_ref();
        let _gate = match journal {
            Some(journal) => Some(journal.enter(connection, control)?),
            None => None,
        };
        connection.exchange(ops, control)?;
        match leaves.take() {
            None | Some(Leaves::Nothing) => {}
            Some(Leaves::Unflushed) => self.note_written(connection, ops.len()),
            Some(Leaves::Kept(kept)) => kept.record(ops),
            Some(Leaves::Flush(mark)) => {
                if ops.iter().any(|op| op.error.is_some()) {
                    self.flush_failed.store(true, Ordering::Release);
                } else if let Some((journal, mark)) = journal.zip(mark) {
                    journal.flushed(mark);
                }
            }
        }
        Ok(())
    }

    /// Whether further storages may use it: requests succeed, or wait for a connection to come back.
    pub(super) fn is_usable(&self) -> bool {
        // One that waits for its server has changes to make again before anybody sees the export.
        if self.journal.is_some() {
            return true;
        }
        // The thread that holds a line makes a connection.
        let lives = |lane: &Lane| {
            let line = lane.line.try_lock();
            line.is_none_or(|line| {
                let connection = line.connection.as_ref();
                connection.is_some_and(|connection| connection.ended() != Some(false))
            })
        };
        !self.lost.load(Ordering::Acquire) && self.open_lanes().all(lives)
    }

    fn open_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().take(self.open.load(Ordering::Acquire))
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Of the server, from then on for all who use it; also where a connection was lost that the flush does not cover.
    pub(super) fn flush(&self, control: &JobControl) -> Result<()> {
        // A server that knows no flush has nothing that it could lose.
        if !self.export.flags.contains(TransmissionFlags::SEND_FLUSH) {
            return Ok(());
        }
        self.check_flushes()?;
        match &self.journal {
            Some(journal) => self.send_flush(Some(journal.mark()), control)?,
            None => self.flush_connections(control)?,
        }
        // One at the same time may have been told what this one should have been.
        self.check_flushes()
    }

    fn check_flushes(&self) -> Result<()> {
        match self.flush_failed.load(Ordering::Acquire) {
            true => Err(Error::os(libc::EIO).context("An earlier flush has failed")),
            false => Ok(()),
        }
    }

    fn send_flush(&self, mark: Option<Mark>, control: &JobControl) -> Result<()> {
        let mut op = [Op::new(Command::FLUSH, 0, 0)];
        self.carry_out(&mut op, Leaves::Flush(mark), control)
    }

    /// Flushes on each connection with writes that no flush covers: a flush on another one says nothing of them,
    /// for that may have been made with a server that was restarted.
    fn flush_connections(&self, control: &JobControl) -> Result<()> {
        let mut unflushed = Vec::new();
        for lane in self.open_lanes() {
            let line = control.lock(&lane.line)?;
            let connection = line.connection.as_ref();
            unflushed.extend(connection.filter(|one| one.is_unflushed()).cloned());
        }
        let lost = self.lost.load(Ordering::Acquire)
            || unflushed
                .iter()
                .any(|connection| connection.ended().is_some());
        if lost {
            return Err(Error::new(
                ErrorKind::Os,
                format!(
                    "The connection to '{}' was lost after writes that were not flushed: whether the server has kept all of them is not known",
                    self.name
                ),
            )
            .with_errno(libc::EIO));
        }
        match unflushed.is_empty() {
            true => self.send_flush(None, control),
            false => {
                Connection::flush_all(&unflushed, &self.flush_failed, control).map_err(|error| {
                    let lost = unflushed.iter().any(|one| one.ended().is_some());
                    if lost { self.about(error) } else { error }
                })
            }
        }
    }

    fn about(&self, error: Error) -> Error {
        error.context(format!("Connection to '{}'", self.name))
    }

    /// The lane with the least to do; one more is opened where all have something.
    fn lane(&self, control: &JobControl) -> Result<&Lane> {
        let open = self.open.load(Ordering::Acquire);
        let load = |lane: &&Lane| lane.load.load(Ordering::Relaxed);
        let least = self.lanes.iter().take(open).min_by_key(load);
        let least =
            least.ok_or_else(|| Error::new(ErrorKind::Internal, "There is no connection"))?;
        let more = open < self.lanes.len() && !self.full.load(Ordering::Relaxed);
        if load(&least) == 0 || !more {
            return Ok(least);
        }
        let Some(_growing) = self.growing.try_lock() else {
            return Ok(least);
        };
        let open = self.open.load(Ordering::Acquire);
        let Some(lane) = self.lanes.get(open) else {
            return Ok(least);
        };
        let made = self.again(Wait::new(control).at_most(self.patience));
        let made = made.and_then(|made| self.make_again(&made, control).map(|()| made));
        match made {
            Ok(connection) => {
                lane.line.lock().connection = Some(connection);
                self.open.store(open + 1, Ordering::Release);
                Ok(lane)
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // Those that there are do.
            Err(_) => {
                self.full.store(true, Ordering::Relaxed);
                Ok(least)
            }
        }
    }

    /// A connection with the same export.
    fn again(&self, wait: Wait<'_>) -> Result<Arc<Connection>> {
        let connection = establish(&self.settings, wait)?;
        self.check_same(&connection)?;
        Ok(Arc::new(connection))
    }

    fn check_same(&self, connection: &Connection) -> Result<()> {
        let (was, is) = (&self.export, &connection.export);
        let same = was.size == is.size
            && was.flags == is.flags
            && was.sizes == is.sizes
            && was.context.is_some() == is.context.is_some();
        match same {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Os,
                format!("The export of '{}' is not what it was before", self.name),
            )
            .with_errno(libc::ESTALE)),
        }
    }

    /// The connection of a lane; one that was lost is made again, for as long as the delay allows.
    fn connection(&self, lane: &Lane, control: &JobControl) -> Result<Arc<Connection>> {
        control.check()?;
        let mut line = control.lock(&lane.line)?;
        if let Some(connection) = &line.connection {
            match connection.ended() {
                None => return Ok(connection.clone()),
                // What was cancelled says nothing of the server.
                Some(true) => line.lost = None,
                Some(false) if self.settings.reconnect_delay.is_zero() => {
                    return Ok(connection.clone());
                }
                Some(false) => {}
            }
        }
        let lost = *line.lost.get_or_insert_with(Instant::now);
        let delay = self.settings.reconnect_delay;
        // When the time is over, each request tries once.
        let deadline = lost.checked_add(delay).max(after(PAUSE));
        let deadline = deadline.filter(|_| !delay.is_zero());
        let made = Arc::new(
            self.return_within(control, deadline)
                .map_err(|e| self.about(e))?,
        );
        let before = line.connection.replace(made.clone());
        line.lost = None;
        if before.is_some_and(|before| before.is_unflushed()) {
            self.lost.store(true, Ordering::Release);
        }
        Ok(made)
    }

    /// A connection with a server that has all that was written.
    fn return_within(&self, control: &JobControl, deadline: Option<Instant>) -> Result<Connection> {
        if self.settings.descriptor().is_some() {
            let text = "The connection of a descriptor has ended, and cannot be made again";
            return Err(Error::new(ErrorKind::Os, text).with_errno(libc::ENOTCONN));
        }
        loop {
            let made = establish_within(&self.settings, control, deadline)?;
            self.check_same(&made)?;
            let Err(error) = self.make_again(&made, control) else {
                return Ok(made);
            };
            control.check()?;
            let late = deadline.is_none_or(|deadline| Instant::now() + PAUSE >= deadline);
            if late || made.ended() != Some(false) {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes the changes again that a server may have lost, before it is asked for anything else.
    fn make_again(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        let journal = self.journal.as_ref();
        journal.map_or(Ok(()), |journal| journal.make_again(connection, control))
    }

    /// Takes note of changes that the server has replied to on a connection.
    fn note_written(&self, connection: &Connection, changes: usize) {
        connection.wrote(changes);
        // It may have another in its place already.
        if connection.ended().is_some() {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Takes note that a connection has ended.
    fn note_loss(&self, lane: &Lane, connection: &Arc<Connection>) {
        let mut line = lane.line.lock();
        let current = line.connection.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(current, connection)) {
            line.lost.get_or_insert_with(Instant::now);
        }
    }
}
