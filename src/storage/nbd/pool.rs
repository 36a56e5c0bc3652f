//! Several connections to one export, which are established when needed, and re-established when lost.

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

/// Delay between a failed attempt to connect and the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum such delay.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Size of the kernel's socket buffers.
const KERNEL_BUFFER: usize = 2 << 20;
/// Minimum and maximum timeout for establishing an additional connection.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be silent before the kernel sends keepalive probes.
const SILENCE: Duration = Duration::from_secs(60);

/// The connections to one export.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    name: BString,
    /// Timeout for establishing an additional connection.
    patience: Duration,
    /// The export as negotiated first, which later connections must match.
    pub(super) export: Export,
    lanes: Vec<Lane>,
    /// How many lanes may be used.
    open: AtomicUsize,
    growing: Mutex<()>,
    /// The server accepts no more connections.
    full: AtomicBool,
    /// The changes to replay after a reconnect, if reconnecting is enabled.
    journal: Option<Journal>,
    /// A connection with writes that no flush covered has been replaced by another.
    lost: AtomicBool,
    /// The server has failed a flush: any acknowledged write may be lost, whatever the result of a later flush.
    flush_failed: AtomicBool,
}

/// The slot for one connection.
#[derive(Debug, Default)]
struct Lane {
    load: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    /// When the connection was lost.
    lost: Option<Instant>,
}

/// What the server may still lose of requests that it has replied to.
#[derive(Debug)]
enum Leaves<'a> {
    Nothing,
    /// Changes that a flush on the same connection covers.
    Unflushed,
    /// Changes to be replayed on another connection.
    Kept(Kept<'a>),
    /// A flush, and which of such changes it covers.
    Flush(Option<Mark>),
}

/// Requests counted towards the load of a lane.
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
        // Best effort: the connection works without it.
        let _ = stream.set_keepalive(SILENCE);
    }
    Ok(stream)
}

/// Connects, and negotiates the export.
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

/// Connects, and requests the list of exports.
///
/// # Errors
/// If the network fails, or the server reports an error.
pub(super) fn list(settings: &Settings, control: &JobControl) -> Result<Vec<ExportInfo>> {
    within(control, after(settings.open_timeout), |wait| {
        let wait = wait.silent_for(settings.timeout);
        listing::list(connected(settings, wait)?, settings, wait)
    })
}

/// Retries until the deadline; the last error is returned.
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
        // A time beyond the range of the clock sets no deadline.
        false => Instant::now().checked_add(time),
    }
}

impl Pool {
    /// Establishes the first connection.
    ///
    /// # Errors
    /// If the network fails, or the server reports an error.
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
        // A server that does not support flushes has nothing that it could lose.
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
            // Ten times what the first one took: a server that accepts no more may leave further ones pending.
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

    /// Sends the requests and receives their replies; returns the first error that the server reports.
    ///
    /// # Errors
    /// If the server reports an error, or the connection fails.
    pub(super) fn run(&self, ops: &mut [Op<'_, '_>], control: &JobControl) -> Result<()> {
        self.carry_out(ops, Leaves::Nothing, control)
    }

    /// As [`Pool::run`], for requests that modify the export; `durable` if the server cannot lose them once it has
    /// replied.
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

    /// Maximum number of bytes of changes that may be sent in one call.
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
                    // Give up on a server that closes the connection every time it gets this request.
                    if lost.get_or_insert_with(Instant::now).elapsed() >= delay {
                        return Err(self.about(error));
                    }
                    if again {
                        std::thread::sleep(PAUSE);
                    }
                }
                // Another job on this connection was cancelled.
                Some(true) => {}
            }
            for op in ops.iter_mut() {
                op.reset();
            }
        }
    }

    /// Sends the requests on a connection, and records what may still be lost once all have been replied to.
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

    /// Whether further storages may use it: requests succeed, or wait for a reconnect.
    pub(super) fn is_usable(&self) -> bool {
        // A pool that reconnects may have changes to replay before anybody sees the export.
        if self.journal.is_some() {
            return true;
        }
        // A thread that holds the lock is establishing a connection.
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

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// If the server fails it, after which all later flushes fail too; if a connection with unflushed writes was lost.
    pub(super) fn flush(&self, control: &JobControl) -> Result<()> {
        // A server that does not support flushes has nothing that it could lose.
        if !self.export.flags.contains(TransmissionFlags::SEND_FLUSH) {
            return Ok(());
        }
        self.check_flushes()?;
        match &self.journal {
            Some(journal) => self.send_flush(Some(journal.mark()), control)?,
            None => self.flush_connections(control)?,
        }
        // A concurrent flush may have received the error that concerns this one as well.
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

    /// Flushes each connection that has unflushed writes: a flush on another one proves nothing about them, as that
    /// connection may be to a restarted server.
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

    /// The lane with the lowest load; opens another one if all are busy.
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
            // The existing connections suffice.
            Err(_) => {
                self.full.store(true, Ordering::Relaxed);
                Ok(least)
            }
        }
    }

    /// Establishes another connection to the same export.
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

    /// The connection of a lane; reconnects if it was lost, for as long as the delay allows.
    fn connection(&self, lane: &Lane, control: &JobControl) -> Result<Arc<Connection>> {
        control.check()?;
        let mut line = control.lock(&lane.line)?;
        if let Some(connection) = &line.connection {
            match connection.ended() {
                None => return Ok(connection.clone()),
                // A cancelled job says nothing about the server.
                Some(true) => line.lost = None,
                Some(false) if self.settings.reconnect_delay.is_zero() => {
                    return Ok(connection.clone());
                }
                Some(false) => {}
            }
        }
        let lost = *line.lost.get_or_insert_with(Instant::now);
        let delay = self.settings.reconnect_delay;
        // Once the delay is over, each request tries once.
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

    /// Reconnects to a server, and makes sure that it has everything that was written.
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

    /// Replays the changes that a server may have lost, before any other request is sent to it.
    fn make_again(&self, connection: &Connection, control: &JobControl) -> Result<()> {
        let journal = self.journal.as_ref();
        journal.map_or(Ok(()), |journal| journal.make_again(connection, control))
    }

    /// Records changes that the server has acknowledged on a connection.
    fn note_written(&self, connection: &Connection, changes: usize) {
        connection.wrote(changes);
        // It may have been replaced already.
        if connection.ended().is_some() {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Records when a connection was lost.
    fn note_loss(&self, lane: &Lane, connection: &Arc<Connection>) {
        let mut line = lane.line.lock();
        let current = line.connection.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(current, connection)) {
            line.lost.get_or_insert_with(Instant::now);
        }
    }
}
