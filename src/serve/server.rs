//! The server: accepting clients, and shutting down.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use bstr::{BStr, BString};
use parking_lot::Mutex;

use crate::crew;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::without_signals;
use crate::log::Level;
use crate::net::{Address, Listener, Stream, Wait};
use crate::serve::door::Door;
use crate::serve::export::{Export, ExportOptions};
use crate::serve::offer::Tls;
use crate::serve::session;
use crate::serve::shared::{Limits, Shared, stopped};

/// Stack size of a client's thread.
const STACK: usize = 512 << 10;

/// Maximum number of clients waiting to be accepted.
const BACKLOG: u32 = 128;

/// Statistics of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Number of connected clients.
    pub clients: u64,
    /// Number of clients accepted so far.
    pub accepted: u64,
    /// Number of requests read.
    pub requests: u64,
    /// Number of requests that failed.
    pub failures: u64,
    /// Number of bytes that clients requested to read.
    pub bytes_read: u64,
    /// Number of bytes that clients requested to write, excluding zeroes.
    pub bytes_written: u64,
    /// Number of bytes in transit.
    pub memory: u64,
    /// The maximum of that so far.
    pub most_memory: u64,
}

/// An export of a server, and who uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// How it is offered.
    pub options: ExportOptions,
    /// Its size in bytes.
    pub len: u64,
    /// Number of clients that have selected it.
    pub clients: u64,
}

/// A server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
    listeners: Mutex<Vec<(Arc<Listener>, JoinHandle<()>)>>,
    doors: Mutex<Vec<Box<dyn Door>>>,
}

impl Server {
    /// Creates a server without exports and sockets.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for limits of 0; if the event cannot be created.
    pub fn new(limits: Limits) -> Result<Self> {
        Ok(Self {
            shared: Shared::new(limits)?,
            listeners: Mutex::default(),
            doors: Mutex::default(),
        })
    }

    /// Closes `door` when the server stops.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the server has been stopped; the door is closed then.
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
    /// [`ErrorKind::Exists`] if there is one of that name.
    pub fn add_export(&self, export: Export) -> Result<()> {
        let in_flight = export.image().requests_in_flight();
        self.shared.offer.add(export)?;
        self.shared
            .workers
            .allow(crew::serving(in_flight, u32::MAX));
        Ok(())
    }

    /// Withdraws an export. New requests of its clients are refused as the protocol specifies; those in progress are
    /// carried out and answered, up to the deadline; then its clients are disconnected. The image is released.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name.
    pub fn remove_export(&self, name: &BStr, deadline: Option<Instant>) -> Result<()> {
        let export = self
            .shared
            .offer
            .remove(name)
            .ok_or_else(|| unknown(name))?;
        export.withdraw();
        self.shared.rest(Some(&export), deadline);
        self.shared.leave_all_of(&export);
        Ok(())
    }

    /// The names of the exports, in order.
    pub fn exports(&self) -> Vec<BString> {
        let exports = self.shared.offer.exports();
        exports.iter().map(|one| one.name().to_owned()).collect()
    }

    /// How an export is offered, and who uses it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name.
    pub fn export(&self, name: &BStr) -> Result<Offered> {
        let export = self
            .shared
            .offer
            .export(name)
            .ok_or_else(|| unknown(name))?;
        Ok(Offered {
            options: export.options().clone(),
            len: export.len(),
            clients: self.shared.count_of(&export),
        })
    }

    /// Requires clients to start TLS before anything else.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for credentials of a client, and if TLS has been set before.
    pub fn set_tls(&self, tls: Tls) -> Result<()> {
        self.shared.offer.set_tls(tls)
    }

    /// Accepts clients at an address, on a thread of its own. Returns the addresses with the port numbers that the
    /// system chose.
    ///
    /// # Errors
    /// If a system call fails; [`ErrorKind::Invalid`] if the server has been stopped.
    pub fn listen(&self, address: &Address) -> Result<Vec<Address>> {
        self.accept_from(Listener::bind(address, BACKLOG, Wait::forever())?)
    }

    /// As [`Server::listen`], for listening sockets that somebody else has bound.
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
        if self.shared.is_stopped() {
            return Err(stopped());
        }
        let (shared, own) = (self.shared.clone(), listener.clone());
        let thread = spawn("serve-accept", 128 << 10, move || {
            accept(&shared, &own);
        })?;
        listeners.push((listener, thread));
        Ok(addresses)
    }

    /// Serves a client that is already connected, on a thread of its own.
    ///
    /// # Errors
    /// If a system call fails; [`ErrorKind::Invalid`] if the server has been stopped.
    pub fn serve(&self, stream: Stream) -> Result<()> {
        begin(&self.shared, stream)
    }

    /// A descriptor (an eventfd, non-blocking and close-on-exec) that becomes readable when clients come or leave after
    /// the last [`Server::statistics`]; it must not be read or written.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// The statistics so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.event.clear();
        let (memory, most_memory) = self.shared.budget.used();
        let (clients, accepted) = self.shared.count();
        let counters = &self.shared.counters;
        Statistics {
            clients,
            accepted,
            requests: counters.requests.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            bytes_read: counters.read.load(Ordering::Relaxed),
            bytes_written: counters.written.load(Ordering::Relaxed),
            memory,
            most_memory,
        }
    }

    /// The most recent reason why a request failed, or a client was disconnected or could not be accepted.
    pub fn last_error(&self) -> Option<Arc<Error>> {
        self.shared.last_error()
    }

    /// Stops gracefully: no further client is accepted, new requests are refused as the protocol specifies, and those
    /// in progress are carried out and answered. Clients that are still connected at the deadline, or have nothing in
    /// progress, are disconnected.
    pub fn drain(&self, deadline: Option<Instant>) {
        self.shared.offer.end();
        self.end_listeners();
        self.shared.rest(None, deadline);
        self.end_doors(Some(deadline));
        self.stop();
    }

    /// Stops: clients are disconnected at once. Completed writes persist; requests in progress are carried out, but not
    /// answered. Images are left as they are between two requests, and are not closed.
    pub fn stop(&self) {
        self.shared.offer.end();
        self.end_listeners();
        self.end_doors(None);
        self.shared.leave_all();
        self.shared.workers.stop();
        self.shared.offer.clear();
    }

    /// Closes what was added by [`Server::keep`]: gently up to a deadline, or at once.
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
        // Wakes the threads that wait for a client to leave.
        self.shared.wake();
        for (listener, thread) in listeners {
            let _ = thread.join();
            drop(listener);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Main function of a thread that accepts clients.
fn accept(shared: &Arc<Shared>, listener: &Listener) {
    loop {
        shared.wait_for_place();
        if shared.offer.is_ending() {
            return;
        }
        let begun = listener
            .accept(Wait::new(&shared.taking))
            .and_then(|stream| begin(shared, stream));
        if let Err(error) = begun {
            if shared.offer.is_ending() {
                return;
            }
            shared.note(Level::Error, error.context("A client could not be taken"));
        }
    }
}

/// Starts to serve a client.
fn begin(shared: &Arc<Shared>, stream: Stream) -> Result<()> {
    let stream = Arc::new(stream);
    let id = shared.enter(Some(stream.clone()))?;
    let own = shared.clone();
    let begun = spawn("serve-client", STACK, move || {
        let peer = stream.peer().to_string();
        let served = catch_unwind(AssertUnwindSafe(|| session::serve(&own, id, stream)));
        let (level, error) = match served {
            Ok(Ok(())) => return own.leave(id),
            Ok(Err(error)) => (Level::Warning, error),
            Err(_) => (
                Level::Error,
                Error::new(ErrorKind::Internal, "Internal error: a panic"),
            ),
        };
        own.note(level, error.context(format!("Client {peer} was left")));
        own.leave(id);
    });
    begun.map(drop).inspect_err(|_| shared.leave(id))
}

fn unknown(name: &BStr) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no export '{name}'"))
}

/// Starts a thread that blocks the signals of the process.
pub(super) fn spawn(
    name: &str,
    stack: usize,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let builder = crew::thread(name).stack_size(stack);
    without_signals(|| builder.spawn(run))
        .map_err(|error| Error::io(&error))
        .context(|| "Could not start a thread".into())
}
