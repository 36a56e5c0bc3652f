//! The server: what it offers, who is there, and how it ends.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bstr::{BStr, BString};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::crew;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::{JobControl, without_signals};
use crate::log::{Level, log};
use crate::net::tls::{Authorization, Endpoint, TlsCredentials};
use crate::net::{Address, Listener, Stream, Wait};
use crate::serve::budget::{Budget, Held};
use crate::serve::door::Door;
use crate::serve::export::Export;
use crate::serve::session;
use crate::serve::transmission::Connection;
use crate::serve::workers::Workers;
use crate::sys::event::Event;

/// Memory of the stack of a client's thread.
const STACK: usize = 512 << 10;

/// How long one waits for memory before the client that holds most and takes nothing is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server spends on its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients that are there at once; more wait until one leaves.
    pub clients: usize,
    /// Bytes that are on their way between clients and images, of all clients together.
    pub memory: u64,
    /// How long a client may take to say what it wants; None for ever.
    pub handshake: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 256,
            memory: 256 << 20,
            handshake: Some(Duration::from_secs(10)),
        }
    }
}

/// Clients must begin TLS before anything else.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificates or keys.
    pub credentials: TlsCredentials,
    /// Which of the clients that proved who they are may come in; None lets in all.
    pub authorization: Option<Arc<Authorization>>,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Clients that are there.
    pub clients: u64,
    /// Clients that ever were.
    pub accepted: u64,
    /// Requests that were read.
    pub requests: u64,
    /// Requests that were answered by an error.
    pub failures: u64,
    /// Bytes that clients asked to read.
    pub bytes_read: u64,
    /// Bytes that clients asked to write, without zeroes.
    pub bytes_written: u64,
    /// Bytes that are on their way.
    pub memory: u64,
    /// The most that ever were.
    pub most_memory: u64,
}

/// The exports, as clients see them.
#[derive(Debug, Default)]
pub(super) struct Offer {
    exports: RwLock<BTreeMap<BString, Arc<Export>>>,
    tls: OnceLock<Tls>,
    ending: AtomicBool,
}

impl Offer {
    pub(super) fn export(&self, name: &BStr) -> Option<Arc<Export>> {
        self.exports.read().get(name).cloned()
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.get()
    }

    pub(super) fn exports(&self) -> Vec<Arc<Export>> {
        self.exports.read().values().cloned().collect()
    }

    /// Whether the server takes no requests any more.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Client {
    /// None while TLS begins.
    stream: Option<Arc<Stream>>,
    connection: Option<Arc<Connection>>,
}

#[derive(Debug, Default)]
struct Clients {
    present: BTreeMap<u64, Client>,
    accepted: u64,
    stopped: bool,
}

/// What the threads of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) offer: Offer,
    pub(super) budget: Arc<Budget>,
    pub(super) workers: Workers,
    pub(super) counters: Counters,
    limits: Limits,
    last_error: Mutex<Option<Arc<Error>>>,
    clients: Mutex<Clients>,
    changed: Condvar,
    event: Event,
    /// Ends the taking of clients.
    taking: JobControl,
}

/// A server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
    listeners: Mutex<Vec<(Arc<Listener>, JoinHandle<()>)>>,
    doors: Mutex<Vec<Box<dyn Door>>>,
}

impl Server {
    /// One that offers nothing yet, to nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for limits of 0, or of making the event.
    pub fn new(limits: Limits) -> Result<Self> {
        if limits.clients == 0 || limits.memory == 0 {
            return Err(Error::invalid(
                "A server needs memory and a place for one client at least",
            ));
        }
        let event = Event::new()
            .map_err(|error| Error::io(&error))
            .context(|| "Could not make an eventfd".into())?;
        Ok(Self {
            shared: Arc::new(Shared {
                offer: Offer::default(),
                budget: Budget::new(limits.memory),
                workers: Workers::new(),
                counters: Counters::default(),
                limits,
                last_error: Mutex::default(),
                clients: Mutex::default(),
                changed: Condvar::new(),
                event,
                taking: JobControl::default(),
            }),
            listeners: Mutex::default(),
            doors: Mutex::default(),
        })
    }

    /// Ends `door` with the server.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] once the server was stopped; the door is ended then.
    pub(super) fn keep(&self, door: Box<dyn Door>) -> Result<()> {
        let mut doors = self.doors.lock();
        if self.shared.offer.is_ending() {
            drop(doors);
            door.end(None);
            return Err(stopped());
        }
        doors.push(door);
        Ok(())
    }

    /// Offers an export from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] where there is one of that name.
    pub fn add_export(&self, export: Export) -> Result<()> {
        let name = export.name().to_owned();
        let mut exports = self.shared.offer.exports.write();
        if exports.contains_key(&name) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("There is an export '{name}' already"),
            ));
        }
        let in_flight = export.image().requests_in_flight();
        let workers = crew::serving(in_flight, u32::MAX);
        self.shared.workers.allow(workers);
        exports.insert(name, Arc::new(export));
        Ok(())
    }

    /// Has clients begin TLS before anything else.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for credentials of a client, and where this was said before.
    pub fn set_tls(&self, tls: Tls) -> Result<()> {
        tls.credentials.expect(Endpoint::Server)?;
        let set = self.shared.offer.tls.set(tls);
        set.map_err(|_| Error::invalid("The server has TLS already"))
    }

    /// Takes clients at an address, on a thread of its own. Returns the addresses with the numbers that the
    /// system chose.
    ///
    /// # Errors
    /// Of the system; [`ErrorKind::Invalid`] once the server was stopped.
    pub fn listen(&self, address: &Address) -> Result<Vec<Address>> {
        self.accept_from(Listener::bind(address, BACKLOG, Wait::forever())?)
    }

    /// As [`Server::listen`], over sockets that somebody else bound and listens on.
    ///
    /// # Errors
    /// As [`Server::listen`].
    pub fn listen_on(&self, sockets: Vec<OwnedFd>) -> Result<Vec<Address>> {
        self.accept_from(Listener::from_sockets(sockets)?)
    }

    fn accept_from(&self, listener: Listener) -> Result<Vec<Address>> {
        let addresses = listener.addresses()?;
        let listener = Arc::new(listener);
        let mut listeners = self.listeners.lock();
        if self.shared.clients.lock().stopped || self.shared.offer.is_ending() {
            return Err(stopped());
        }
        let (shared, own) = (self.shared.clone(), listener.clone());
        let thread = spawn("platter-serve-accept", 128 << 10, move || {
            shared.accept(&own);
        })?;
        listeners.push((listener, thread));
        Ok(addresses)
    }

    /// Serves a client that is connected already, on a thread of its own.
    ///
    /// # Errors
    /// Of the system; [`ErrorKind::Invalid`] once the server was stopped.
    pub fn serve(&self, stream: Stream) -> Result<()> {
        self.shared.begin(stream)
    }

    /// A descriptor (an eventfd, non-blocking and close-on-exec) that is readable when clients came or left
    /// since the last [`Server::statistics`]; it must not be read or written.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.event.clear();
        let (memory, most_memory) = self.shared.budget.used();
        let clients = self.shared.clients.lock();
        let counters = &self.shared.counters;
        Statistics {
            clients: clients.present.len() as u64,
            accepted: clients.accepted,
            requests: counters.requests.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            bytes_read: counters.read.load(Ordering::Relaxed),
            bytes_written: counters.written.load(Ordering::Relaxed),
            memory,
            most_memory,
        }
    }

    /// Why a request failed, a client was left or could not be taken, the last time that happened.
    pub fn last_error(&self) -> Option<Arc<Error>> {
        self.shared.last_error.lock().clone()
    }

    /// Ends gently: no client is taken any more, requests that come are refused as the protocol has it, those
    /// under way are carried out and answered. Clients that are still there at the deadline, or have nothing
    /// under way, are left.
    pub fn drain(&self, deadline: Option<Instant>) {
        self.shared.offer.ending.store(true, Ordering::Release);
        self.end_listeners();
        let connections: Vec<_> = {
            let clients = self.shared.clients.lock();
            let each = clients.present.values();
            each.filter_map(|client| client.connection.clone())
                .collect()
        };
        for connection in connections {
            connection.load.wait_for_rest(deadline);
        }
        self.end_doors(Some(deadline));
        self.stop();
    }

    /// Ends: clients are left at once. What was written stays; requests under way are carried out, but not
    /// answered. Images are as they were between two requests, and are not closed.
    pub fn stop(&self) {
        self.shared.offer.ending.store(true, Ordering::Release);
        self.end_listeners();
        self.end_doors(None);
        let mut clients = self.shared.clients.lock();
        clients.stopped = true;
        for client in clients.present.values() {
            if let Some(stream) = &client.stream {
                stream.shutdown();
            }
        }
        while !clients.present.is_empty() {
            self.shared.changed.wait(&mut clients);
        }
        drop(clients);
        self.shared.workers.stop();
        self.shared.offer.exports.write().clear();
    }

    /// Ends what came by [`Server::keep`]: gently up to a deadline, or at once.
    fn end_doors(&self, gently: Option<Option<Instant>>) {
        let doors = std::mem::take(&mut *self.doors.lock());
        for door in doors {
            door.end(gently);
        }
    }

    fn end_listeners(&self) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        self.shared.taking.cancel();
        for (listener, _) in &listeners {
            listener.shutdown();
        }
        // Those that wait for a client to leave.
        drop(self.shared.clients.lock());
        self.shared.changed.notify_all();
        for (listener, thread) in listeners {
            let _ = thread.join();
            drop(listener);
        }
    }
}

/// Clients that wait to be taken.
const BACKLOG: u32 = 128;

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The life of a thread that takes clients.
    fn accept(self: &Arc<Self>, listener: &Listener) {
        loop {
            {
                let mut clients = self.clients.lock();
                while clients.present.len() >= self.limits.clients && !self.offer.is_ending() {
                    self.changed.wait(&mut clients);
                }
            }
            if self.offer.is_ending() {
                return;
            }
            let begun = listener
                .accept(Wait::new(&self.taking))
                .and_then(|stream| self.begin(stream));
            if let Err(error) = begun {
                if self.offer.is_ending() {
                    return;
                }
                self.note(Level::Error, error.context("A client could not be taken"));
            }
        }
    }

    /// Counts a client, which [`Shared::leave`] ends.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] once the server was stopped.
    pub(super) fn enter(&self, stream: Option<Arc<Stream>>) -> Result<u64> {
        let mut clients = self.clients.lock();
        if clients.stopped || self.offer.is_ending() {
            return Err(stopped());
        }
        clients.accepted += 1;
        let id = clients.accepted;
        let connection = None;
        clients.present.insert(id, Client { stream, connection });
        drop(clients);
        self.event.signal();
        Ok(id)
    }

    /// Begins to serve a client.
    fn begin(self: &Arc<Self>, stream: Stream) -> Result<()> {
        let stream = Arc::new(stream);
        let id = self.enter(Some(stream.clone()))?;
        let shared = self.clone();
        let begun = spawn("platter-serve-client", STACK, move || {
            let peer = stream.peer().to_string();
            let served = catch_unwind(AssertUnwindSafe(|| session::serve(&shared, id, stream)));
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = error.context(format!("Client {peer} was left"));
                    shared.note(Level::Warning, error);
                }
                Err(_) => {
                    let error = Error::new(ErrorKind::Internal, "Internal error: a panic");
                    shared.note(
                        Level::Error,
                        error.context(format!("Client {peer} was left")),
                    );
                }
            }
            shared.leave(id);
        });
        begun.map(drop).inspect_err(|_| self.leave(id))
    }

    pub(super) fn leave(&self, id: u64) {
        let gone = {
            let mut clients = self.clients.lock();
            let client = clients.present.get_mut(&id);
            client.map(|client| (client.stream.take(), client.connection.take()))
        };
        // Before anyone hears of it: who stops the server may close the image then.
        drop(gone);
        self.clients.lock().present.remove(&id);
        self.event.signal();
        self.changed.notify_all();
    }

    /// Tells the log and whoever asks of something that went wrong.
    pub(super) fn note(&self, level: Level, error: Error) {
        log(level, || error.to_string());
        *self.last_error.lock() = Some(Arc::new(error));
    }

    /// Gives the stream of a client to its thread alone, or takes one in its place.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] once the server was stopped.
    pub(super) fn set_stream(&self, id: u64, stream: Option<Arc<Stream>>) -> Result<()> {
        let mut clients = self.clients.lock();
        if clients.stopped {
            return Err(Error::cancelled());
        }
        if let Some(client) = clients.present.get_mut(&id) {
            client.stream = stream;
        }
        Ok(())
    }

    /// What ends the wait for a client that has no stream to be shut down.
    pub(super) fn ending(&self) -> &JobControl {
        &self.taking
    }

    /// From now on the client has requests under way.
    pub(super) fn begin_transmission(&self, id: u64, connection: &Arc<Connection>) {
        if let Some(client) = self.clients.lock().present.get_mut(&id) {
            client.connection = Some(connection.clone());
        }
    }

    /// Memory for the bytes of a request, which waits until there is some.
    ///
    /// # Errors
    /// Where the system has none.
    pub(super) fn lend(&self, len: usize) -> Result<Held> {
        loop {
            if let Some(held) = self.budget.take(len, Instant::now() + PATIENCE)? {
                return Ok(held);
            }
            self.end_idle_holder(PATIENCE);
        }
    }

    /// Others need memory: ends the client that holds most of it and took no reply for so long.
    pub(super) fn end_idle_holder(&self, idle: Duration) {
        let clients = self.clients.lock();
        let idle = clients.present.values().filter(|client| {
            let waiting = client.connection.as_ref();
            let since = waiting.and_then(|connection| connection.outbox.waiting_since());
            since.is_some_and(|since| since.elapsed() >= idle)
        });
        let held = |client: &&Client| {
            let connection = client.connection.as_ref();
            connection.map_or(0, |connection| connection.load.now().1)
        };
        if let Some(stream) = idle
            .max_by_key(held)
            .and_then(|client| client.stream.as_ref())
        {
            log(Level::Warning, || {
                format!(
                    "Client {} takes no replies while others wait for memory: it is left",
                    stream.peer()
                )
            });
            stream.shutdown();
        }
    }
}

fn stopped() -> Error {
    Error::invalid("The server was stopped")
}

/// A thread that signals of the process do not reach.
pub(super) fn spawn(
    name: &str,
    stack: usize,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack);
    without_signals(|| builder.spawn(run))
        .map_err(|error| Error::io(&error))
        .context(|| "Could not start a thread".into())
}
