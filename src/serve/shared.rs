//! State shared by the threads of a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result, ResultExt};
use crate::job::JobControl;
use crate::log::{Level, log};
use crate::net::Stream;
use crate::serve::budget::{Budget, Held};
use crate::serve::export::Export;
use crate::serve::offer::Offer;
use crate::serve::outbox::{Awaited, Traffic};
use crate::serve::workers::Workers;
use crate::sys::event::Event;

/// How long to wait for memory before disconnecting the client that holds the most and accepts nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The resources that a server may spend on its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of concurrent clients; further ones wait until one leaves.
    pub clients: usize,
    /// Maximum number of bytes in transit between clients and images, over all clients.
    pub memory: u64,
    /// Timeout for the handshake; None for no limit.
    pub handshake: Option<Duration>,
    /// How long a client that is to be disconnected, because the server, its export or its requests end, may go without
    /// accepting any of the replies that wait for it.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 256,
            memory: 256 << 20,
            handshake: Some(Duration::from_secs(10)),
            stall: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
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
    /// None while TLS is being started.
    stream: Option<Arc<Stream>>,
    /// The export that it has selected.
    export: Option<Arc<Export>>,
    /// None before the transmission phase.
    traffic: Option<Traffic>,
}

impl Client {
    fn uses(&self, export: &Arc<Export>) -> bool {
        let own = self.export.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, export))
    }
}

#[derive(Debug, Default)]
struct Clients {
    present: BTreeMap<u64, Client>,
    accepted: u64,
    stopped: bool,
}

/// State shared by the threads of a server.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) offer: Offer,
    pub(super) budget: Arc<Budget>,
    pub(super) workers: Workers,
    pub(super) counters: Counters,
    pub(super) event: Event,
    /// Cancels the accepting of clients.
    pub(super) taking: JobControl,
    limits: Limits,
    last_error: Mutex<Option<Arc<Error>>>,
    clients: Mutex<Clients>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Result<Arc<Self>> {
        if limits.clients == 0 || limits.memory == 0 {
            return Err(Error::invalid(
                "A server needs memory and a place for one client at least",
            ));
        }
        let event = Event::new()
            .map_err(|error| Error::io(&error))
            .context(|| "Could not make an eventfd".into())?;
        Ok(Arc::new(Self {
            offer: Offer::default(),
            budget: Budget::new(limits.memory),
            workers: Workers::new(),
            counters: Counters::default(),
            event,
            taking: JobControl::default(),
            limits,
            last_error: Mutex::default(),
            clients: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Logs an error, and remembers it as the last one.
    pub(super) fn note(&self, level: Level, error: Error) {
        log(level, || error.to_string());
        *self.last_error.lock() = Some(Arc::new(error));
    }

    pub(super) fn last_error(&self) -> Option<Arc<Error>> {
        self.last_error.lock().clone()
    }

    /// Number of connected clients, and of clients accepted so far.
    pub(super) fn count(&self) -> (u64, u64) {
        let clients = self.clients.lock();
        (clients.present.len() as u64, clients.accepted)
    }

    /// Number of clients that have selected an export.
    pub(super) fn count_of(&self, export: &Arc<Export>) -> u64 {
        let clients = self.clients.lock();
        let users = clients.present.values().filter(|one| one.uses(export));
        users.count() as u64
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.clients.lock().stopped || self.offer.is_ending()
    }

    /// Waits until one more client may connect, or the server stops.
    pub(super) fn wait_for_place(&self) {
        let mut clients = self.clients.lock();
        while clients.present.len() >= self.limits.clients && !self.offer.is_ending() {
            self.changed.wait(&mut clients);
        }
    }

    /// Makes all waiting threads check their conditions again.
    pub(super) fn wake(&self) {
        drop(self.clients.lock());
        self.changed.notify_all();
    }

    /// Registers a client; [`Shared::leave`] removes it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the server has been stopped.
    pub(super) fn enter(&self, stream: Option<Arc<Stream>>) -> Result<u64> {
        let mut clients = self.clients.lock();
        if clients.stopped || self.offer.is_ending() {
            return Err(stopped());
        }
        clients.accepted += 1;
        let id = clients.accepted;
        let client = Client {
            stream,
            export: None,
            traffic: None,
        };
        clients.present.insert(id, client);
        drop(clients);
        self.event.signal();
        Ok(id)
    }

    pub(super) fn leave(&self, id: u64) {
        let gone = {
            let mut clients = self.clients.lock();
            let client = clients.present.get_mut(&id);
            client.map(|one| (one.stream.take(), one.export.take(), one.traffic.take()))
        };
        // Before the departure becomes visible: whoever stops the server may close the image right after it.
        let export = gone.and_then(|(_, export, _)| export);
        if let Some(export) = export.filter(|export| self.count_of(export) == 0) {
            export.release_decoded();
        }
        self.clients.lock().present.remove(&id);
        self.event.signal();
        self.changed.notify_all();
    }

    /// Leaves the stream of a client to its thread alone, or registers one in its place.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] if the server has been stopped.
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

    /// Records the client's choice of an export; false if that is no longer offered.
    pub(super) fn choose(&self, id: u64, export: &Arc<Export>) -> bool {
        let mut clients = self.clients.lock();
        // Whoever withdraws it looks for its clients only afterwards.
        if export.is_withdrawn() {
            return false;
        }
        if let Some(client) = clients.present.get_mut(&id) {
            client.export = Some(export.clone());
        }
        true
    }

    /// From now on the client may have requests in progress.
    pub(super) fn begin_transmission(&self, id: u64, traffic: Traffic) {
        if let Some(client) = self.clients.lock().present.get_mut(&id) {
            client.traffic = Some(traffic);
        }
    }

    /// Waits until no client of one export, or of any, has anything in progress, up to the deadline.
    pub(super) fn rest(&self, export: Option<&Arc<Export>>, deadline: Option<Instant>) {
        let traffic: Vec<_> = {
            let clients = self.clients.lock();
            let each = clients.present.values();
            let each = each.filter(|one| export.is_none_or(|export| one.uses(export)));
            each.filter_map(|one| one.traffic.clone()).collect()
        };
        for traffic in traffic {
            traffic.wait_for_rest(Awaited::CarriedOut, deadline);
        }
    }

    /// Disconnects the clients of an export that has been withdrawn, and waits until nobody holds it any more.
    pub(super) fn leave_all_of(&self, export: &Arc<Export>) {
        let mut clients = self.clients.lock();
        for client in clients.present.values().filter(|one| one.uses(export)) {
            if let Some(stream) = &client.stream {
                stream.shutdown();
            }
        }
        while Arc::strong_count(export) > 1 {
            // A worker thread drops its reference a moment after the last client is gone, without notice.
            self.changed.wait_for(&mut clients, MOMENT);
        }
    }

    /// Refuses new clients, disconnects the existing ones, and waits until they are gone.
    pub(super) fn leave_all(&self) {
        let mut clients = self.clients.lock();
        clients.stopped = true;
        for client in clients.present.values() {
            if let Some(stream) = &client.stream {
                stream.shutdown();
            }
        }
        while !clients.present.is_empty() {
            self.changed.wait(&mut clients);
        }
    }

    /// Takes memory for the bytes of a request, waiting until there is some.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn buffer(&self, len: usize) -> Result<Held> {
        if let Some(held) = self.budget.take(len, Instant::now())? {
            return Ok(held);
        }
        loop {
            self.release_decoded();
            if let Some(held) = self.budget.take(len, Instant::now() + PATIENCE)? {
                return Ok(held);
            }
            self.end_idle_holder(PATIENCE);
        }
    }

    /// Releases data that was decoded ahead, because others need memory.
    pub(super) fn release_decoded(&self) {
        for export in self.offer.exports() {
            export.release_decoded();
        }
    }

    /// Disconnects, because others need memory, the client that holds the most of it among those that have accepted no
    /// reply for that long, or have taken several times as long to send one piece of their data.
    pub(super) fn end_idle_holder(&self, idle: Duration) {
        let clients = self.clients.lock();
        let idle = clients.present.values().filter_map(|client| {
            let traffic = client.traffic.as_ref()?;
            let rests = |since: Option<Instant>, time| {
                since.is_some_and(|since: Instant| since.elapsed() >= time)
            };
            let is_idle = rests(traffic.outbox.waiting_since(), idle)
                || rests(traffic.load.expected_since(), SENDING * idle);
            is_idle.then(|| (traffic.load.now().1, client.stream.as_ref()))
        });
        if let Some((_, Some(stream))) = idle.max_by_key(|(held, _)| *held) {
            log(Level::Warning, || {
                format!(
                    "Client {} takes no replies, or sends no data, while others wait for memory: it is left",
                    stream.peer()
                )
            });
            stream.shutdown();
        }
    }
}

/// How many times longer sending one piece, which is slow on slow connections, may take than accepting a reply.
const SENDING: u32 = 4;

/// Polling interval while waiting for an export to become unused.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn stopped() -> Error {
    Error::invalid("The server was stopped")
}
