//! What the threads of a server share.

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

/// How long one waits for memory before the client that holds most and takes nothing is left.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a server spends on its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients that are there at once; more wait until one leaves.
    pub clients: usize,
    /// Bytes that are on their way between clients and images, of all clients together.
    pub memory: u64,
    /// How long a client may take to say what it wants; None for ever.
    pub handshake: Option<Duration>,
    /// How long a client that is to be left, because the server, its export or its requests end, may take nothing
    /// of the replies that wait for it.
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
    /// None while TLS begins.
    stream: Option<Arc<Stream>>,
    /// What it chose.
    export: Option<Arc<Export>>,
    /// None before its first request.
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

/// What the threads of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) offer: Offer,
    pub(super) budget: Arc<Budget>,
    pub(super) workers: Workers,
    pub(super) counters: Counters,
    pub(super) event: Event,
    /// Ends the taking of clients.
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

    /// Logs something that went wrong, and keeps it as the last error.
    pub(super) fn note(&self, level: Level, error: Error) {
        log(level, || error.to_string());
        *self.last_error.lock() = Some(Arc::new(error));
    }

    pub(super) fn last_error(&self) -> Option<Arc<Error>> {
        self.last_error.lock().clone()
    }

    /// Clients that are there, and that ever were.
    pub(super) fn count(&self) -> (u64, u64) {
        let clients = self.clients.lock();
        (clients.present.len() as u64, clients.accepted)
    }

    /// Clients that have chosen an export.
    pub(super) fn count_of(&self, export: &Arc<Export>) -> u64 {
        let clients = self.clients.lock();
        let users = clients.present.values().filter(|one| one.uses(export));
        users.count() as u64
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.clients.lock().stopped || self.offer.is_ending()
    }

    /// Whether no client stays, however it is served.
    pub(super) fn leaves_all(&self) -> bool {
        self.clients.lock().stopped
    }

    /// Waits until one more client may be there, or the server ends.
    pub(super) fn wait_for_place(&self) {
        let mut clients = self.clients.lock();
        while clients.present.len() >= self.limits.clients && !self.offer.is_ending() {
            self.changed.wait(&mut clients);
        }
    }

    /// Has everyone who waits for something look again.
    pub(super) fn wake(&self) {
        drop(self.clients.lock());
        self.changed.notify_all();
    }

    /// Counts a client, which [`Shared::leave`] ends.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] once the server was stopped.
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
        // Before anyone hears of it: who stops the server may close the image then.
        let export = gone.and_then(|(_, export, _)| export);
        if let Some(export) = export.filter(|export| self.count_of(export) == 0) {
            export.release_decoded();
        }
        self.clients.lock().present.remove(&id);
        self.event.signal();
        self.changed.notify_all();
    }

    /// Gives the stream of a client to its thread alone, or takes one in its place.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] once the server was stopped.
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

    /// The client has chosen an export; false where that is not offered any more.
    pub(super) fn choose(&self, id: u64, export: &Arc<Export>) -> bool {
        let mut clients = self.clients.lock();
        // Who withdraws it looks for its clients afterwards.
        if export.is_withdrawn() {
            return false;
        }
        if let Some(client) = clients.present.get_mut(&id) {
            client.export = Some(export.clone());
        }
        true
    }

    /// From now on the client has requests under way.
    pub(super) fn begin_transmission(&self, id: u64, traffic: Traffic) {
        if let Some(client) = self.clients.lock().present.get_mut(&id) {
            client.traffic = Some(traffic);
        }
    }

    /// Waits until nothing is under way for clients, those of one export or all, up to the deadline.
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

    /// Leaves the clients of an export that is withdrawn, and waits until none has it any more.
    pub(super) fn leave_all_of(&self, export: &Arc<Export>) {
        let mut clients = self.clients.lock();
        for client in clients.present.values().filter(|one| one.uses(export)) {
            if let Some(stream) = &client.stream {
                stream.shutdown();
            }
        }
        while Arc::strong_count(export) > 1 {
            // The thread of a worker lets go of it a moment after its last client is gone, without a word.
            self.changed.wait_for(&mut clients, MOMENT);
        }
    }

    /// Takes no client any more, leaves those that are there, and waits until they are gone.
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

    /// Memory for the bytes of a request, which waits until there is some.
    ///
    /// # Errors
    /// Where the system has none.
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

    /// Others need memory: what was decoded before anyone asked is let go.
    pub(super) fn release_decoded(&self) {
        for export in self.offer.exports() {
            export.release_decoded();
        }
    }

    /// Others need memory: ends the client that holds most of it and took no reply for so long, or took several times
    /// as long to send one piece of its data.
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

/// So many times as long a client may send one piece, which slow connections do, as it may take no replies.
const SENDING: u32 = 4;

/// How long who waits for an export to be unused sleeps between two looks.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn stopped() -> Error {
    Error::invalid("The server was stopped")
}
