//! A connection shared by all threads that send requests.
//!
//! The library below is not thread-safe, so a single thread owns the connection. The others queue requests, wake it
//! through an eventfd, and wait for all of their replies together.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobControl, without_signals};
use crate::memory;
use crate::storage::batch::{Batch, Broken, LOOK};
use crate::sys::event::Event;
use crate::sys::stream::wait_or_wake;

use super::sftp::{Extensions, Packets, Reply, Request, ServerLimits, hello, set_id, violation};

/// Maximum number of requests in flight; the index of a request's slot is part of its id.
const PLACES: usize = 64;
const PLACE_BITS: u32 = PLACES.trailing_zeros();
/// Amount of unsent data beyond which no further requests are taken from the queue.
const MAX_UNSENT: usize = 4 << 20;
/// Size of the receive buffer.
const RECEIVED: usize = 1 << 20;
/// Maximum number of reads before output gets its turn.
const READS: usize = 32;
/// Maximum time that the thread sleeps.
const SLEEP: Duration = Duration::from_secs(1);
/// How long the server may take to accept what is still queued when the connection is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// The same where replies are outstanding that nobody waits for any more: the job was cancelled, or is past its
/// deadline.
const BRIEF_FAREWELL: Duration = Duration::from_millis(50);

/// Both directions of a connection, non-blocking.
pub(super) trait Pipe {
    /// Reads into `buf` and returns the length; 0 if nothing is available at the moment, `None` at the end.
    fn read(&mut self, buf: &mut [u8]) -> Result<Option<usize>>;
    /// Writes as much as possible, and returns the length.
    fn write(&mut self, buf: &[u8]) -> Result<usize>;
    /// Whether the socket must become writable before more can be written.
    fn wants_write(&self) -> bool;
    /// The socket to poll.
    fn socket(&self) -> BorrowedFd<'_>;
}

/// Lets the code that connects wait for the socket.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    shared: &'a Shared,
    patience: Patience,
}

/// How long a server may be silent while a response is due, and since when it has been.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most: Option<Duration>,
    since: Instant,
}

impl Patience {
    fn new(most: Option<Duration>) -> Self {
        Self {
            most,
            since: Instant::now(),
        }
    }

    /// Fails if the server has been silent for too long.
    fn check(&self) -> Result<()> {
        match self.most {
            Some(most) if self.since.elapsed() >= most => Err(Error::new(
                ErrorKind::Os,
                format!(
                    "The server has not answered within {} seconds",
                    most.as_secs()
                ),
            )
            .with_errno(libc::ETIMEDOUT)),
            _ => Ok(()),
        }
    }
}

impl Waiter<'_> {
    /// Waits briefly for the socket to become readable or, if `room` is set, writable.
    ///
    /// # Errors
    /// Where nobody waits for the connection any more, or on a timeout.
    pub(super) fn wait(&self, socket: BorrowedFd<'_>, room: bool) -> Result<()> {
        if self.shared.state.lock().stop {
            return Err(Error::cancelled());
        }
        self.patience.check()?;
        let wake = self.shared.wake.as_fd();
        wait_or_wake(socket, room, wake, LOOK).map_err(|error| Error::io(&error))
    }
}

/// Opens a connection, on the thread that will own it.
pub(super) type Connect = Box<dyn FnOnce(&Waiter<'_>) -> Result<Box<dyn Pipe>> + Send>;

/// A connection that accepts requests; it is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Protocol extensions that the server supports.
    pub(super) extensions: Extensions,
    /// Maximum payload of one request.
    pub(super) limits: ServerLimits,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals a change of the phase.
    changed: Condvar,
    /// Wakes the thread.
    wake: Event,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    queue: VecDeque<Job>,
    /// The connection has no users any more.
    stop: bool,
    /// The thread has closed the connection and is finished.
    gone: bool,
}

#[derive(Debug)]
enum Phase {
    Opening,
    Ready(Extensions),
    Broken(Broken),
}

/// A queued request.
#[derive(Debug)]
struct Job {
    packet: Vec<u8>,
    /// Maximum length of the data in its reply.
    most: usize,
    batch: Arc<Batch<Reply>>,
    index: usize,
}

impl Link {
    /// Connects and performs the initial exchange; `timeout` limits how long the server may be silent while a response
    /// is due.
    ///
    /// # Errors
    /// Errors of the connection or the server, or where `control` ends the wait.
    pub(super) fn open(
        connect: Connect,
        timeout: Option<Duration>,
        control: &JobControl,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                phase: Phase::Opening,
                queue: VecDeque::new(),
                stop: false,
                gone: false,
            }),
            changed: Condvar::new(),
            wake: Event::new().map_err(|error| Error::io(&error))?,
        });
        let own = shared.clone();
        let thread = crew::thread("ssh");
        let thread = without_signals(|| thread.spawn(move || run(&own, connect, timeout)))
            .map_err(|error| Error::io(&error))?;
        let mut link = Self {
            shared,
            thread: Some(thread),
            extensions: Extensions::default(),
            limits: ServerLimits::default(),
        };
        link.extensions = link.await_ready(control)?;
        if link.extensions.limits
            && let [Reply::Extended(bytes)] = &*link.run(&[Request::Limits], control)?
        {
            link.limits = ServerLimits::from_reply(bytes).unwrap_or_default();
        }
        Ok(link)
    }

    fn await_ready(&self, control: &JobControl) -> Result<Extensions> {
        let mut state = self.shared.state.lock();
        loop {
            match &state.phase {
                Phase::Opening => {}
                Phase::Ready(extensions) => return Ok(*extensions),
                Phase::Broken(broken) => return Err(broken.error()),
            }
            self.shared.changed.wait_for(&mut state, LOOK);
            control.check()?;
        }
    }

    /// Whether the connection has been lost, other than by a violation of the protocol.
    pub(super) fn is_lost(&self) -> bool {
        match &self.shared.state.lock().phase {
            Phase::Broken(broken) => !broken.is_violation(),
            _ => false,
        }
    }

    /// Sends the requests and returns their replies in the same order.
    ///
    /// # Errors
    /// The connection was lost, or `control` ended the wait; some of the requests may have been carried out.
    pub(super) fn run(&self, requests: &[Request<'_>], control: &JobControl) -> Result<Vec<Reply>> {
        control.check()?;
        let batch = Batch::new(requests.len());
        self.post(requests, &batch)?;
        batch.wait(control)
    }

    /// Sends a request without waiting for its reply.
    pub(super) fn tell(&self, request: Request<'_>) {
        // If the connection is closed, there is nothing left to do.
        let _ = self.post(&[request], &Batch::new(1));
    }

    fn post(&self, requests: &[Request<'_>], batch: &Arc<Batch<Reply>>) -> Result<()> {
        let mut jobs = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            jobs.push(Job {
                packet: request.to_packet()?,
                most: request.most(),
                batch: batch.clone(),
                index,
            });
        }
        let mut state = self.shared.state.lock();
        if let Phase::Broken(broken) = &state.phase {
            return Err(broken.error());
        }
        state.queue.extend(jobs);
        drop(state);
        self.shared.wake.signal();
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stop = true;
        self.shared.wake.signal();
        // If the process exited while the library was running, the library's memory would vanish from under it. The
        // wait is bounded in case an unresponsive ssh-agent blocks the library.
        let end = Instant::now() + 2 * FAREWELL;
        while !state.gone && !self.shared.changed.wait_until(&mut state, end).timed_out() {}
        let gone = state.gone;
        drop(state);
        if let Some(thread) = self.thread.take().filter(|_| gone) {
            // If it panicked, that has been printed already.
            let _ = thread.join();
        }
    }
}

/// Runs the thread of a connection from start to end.
fn run(shared: &Shared, connect: Connect, timeout: Option<Duration>) {
    let mut engine = None;
    let begun = Engine::begin(shared, connect, timeout);
    let ended = begun.and_then(|begun| engine.insert(begun).serve());
    let error = match ended {
        Ok(()) => Error::new(ErrorKind::Os, "The connection was ended").with_errno(libc::EPIPE),
        Err(error) => error,
    };
    let broken = Broken::of(&error);
    let mut state = shared.state.lock();
    state.phase = Phase::Broken(broken.clone());
    let queue = std::mem::take(&mut state.queue);
    drop(state);
    shared.changed.notify_all();
    for job in queue {
        job.batch.fail(&broken);
    }
    for place in engine.iter().flat_map(|engine| &engine.places) {
        if let Some(sent) = &place.sent {
            sent.batch.fail(&broken);
        }
    }
    drop(engine);
    shared.state.lock().gone = true;
    shared.changed.notify_all();
}

/// The state of the thread.
struct Engine<'a> {
    shared: &'a Shared,
    patience: Patience,
    pipe: Box<dyn Pipe>,
    packets: Packets,
    places: [Place; PLACES],
    /// Outgoing packets; `out_at` is the position within the first one.
    out: VecDeque<Vec<u8>>,
    out_at: usize,
    out_bytes: usize,
}

/// A slot for a request in flight.
#[derive(Default)]
struct Place {
    /// Distinguishes the request from earlier ones in the same slot.
    serial: u32,
    sent: Option<Sent>,
}

struct Sent {
    most: usize,
    batch: Arc<Batch<Reply>>,
    index: usize,
}

impl<'a> Engine<'a> {
    fn begin(shared: &'a Shared, connect: Connect, timeout: Option<Duration>) -> Result<Self> {
        let patience = Patience::new(timeout);
        let waiter = Waiter { shared, patience };
        let pipe = connect(&waiter)?;
        let mut engine = Self {
            shared,
            patience,
            pipe,
            packets: Packets::default(),
            places: std::array::from_fn(|_| Place::default()),
            out: VecDeque::new(),
            out_at: 0,
            out_bytes: 0,
        };
        engine.push(hello().to_vec());
        let mut extensions = None;
        let mut buf = memory::zeroed(super::sftp::MAX_PACKET)?;
        while extensions.is_none() {
            shared.wake.clear();
            engine.send()?;
            let len = engine.receive_some(&mut buf)?;
            let bytes = buf.get(..len).unwrap_or_default();
            engine.packets.feed(bytes, |packet| {
                if extensions.is_some() {
                    return Err(violation("The server replies to what was not asked"));
                }
                extensions = Some(Extensions::from_packet(packet)?);
                Ok(())
            })?;
            if len == 0 {
                waiter.wait(engine.pipe.socket(), engine.pipe.wants_write())?;
            }
        }
        let mut state = shared.state.lock();
        state.phase = Phase::Ready(extensions.unwrap_or_default());
        drop(state);
        shared.changed.notify_all();
        Ok(engine)
    }

    /// Transfers requests and replies until the connection has no users any more.
    fn serve(&mut self) -> Result<()> {
        let mut buf = memory::zeroed(RECEIVED)?;
        let mut end = None;
        loop {
            self.shared.wake.clear();
            let (stop, all_taken) = self.take_up();
            if stop {
                let end = *end.get_or_insert_with(|| Instant::now() + self.farewell());
                if (all_taken && self.out.is_empty()) || Instant::now() >= end {
                    return Ok(());
                }
            }
            let sent = self.send()?;
            let received = self.receive(&mut buf)?;
            if sent || received || self.places.iter().all(|place| place.sent.is_none()) {
                self.patience.since = Instant::now();
            }
            self.patience.check()?;
            if !sent && !received {
                let (socket, room) = (self.pipe.socket(), self.pipe.wants_write());
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                let sleep = left.unwrap_or(SLEEP).min(SLEEP);
                wait_or_wake(socket, room, self.shared.wake.as_fd(), sleep)
                    .map_err(|error| Error::io(&error))?;
            }
        }
    }

    /// How long the server gets when the connection is being closed.
    fn farewell(&self) -> Duration {
        let mut sent = self.places.iter().filter_map(|place| place.sent.as_ref());
        match sent.any(|sent| sent.batch.is_abandoned()) {
            true => BRIEF_FAREWELL,
            false => FAREWELL,
        }
    }

    /// Dequeues requests while there are free slots; returns whether to close the connection, and whether the queue is
    /// empty.
    fn take_up(&mut self) -> (bool, bool) {
        let mut state = self.shared.state.lock();
        let mut free = 0;
        while self.out_bytes < MAX_UNSENT {
            let mut places = self.places.iter_mut().enumerate().skip(free);
            let Some((at, place)) = places.find(|(_, place)| place.sent.is_none()) else {
                break;
            };
            let Some(mut job) = state.queue.pop_front() else {
                break;
            };
            free = at;
            if job.batch.is_abandoned() {
                continue;
            }
            place.serial = place.serial.wrapping_add(1);
            set_id(&mut job.packet, id(place.serial, at));
            place.sent = Some(Sent {
                most: job.most,
                batch: job.batch,
                index: job.index,
            });
            self.out_bytes += job.packet.len();
            self.out.push_back(job.packet);
        }
        (state.stop, state.queue.is_empty())
    }

    fn push(&mut self, packet: Vec<u8>) {
        self.out_bytes += packet.len();
        self.out.push_back(packet);
    }

    /// Sends as much as possible; returns whether anything was sent.
    fn send(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some(packet) = self.out.front() {
            let rest = packet.get(self.out_at..).unwrap_or_default();
            let count = self.pipe.write(rest)?.min(rest.len());
            if count == 0 {
                break;
            }
            any = true;
            self.out_bytes = self.out_bytes.saturating_sub(count);
            self.out_at += count;
            if self.out_at >= packet.len() {
                self.out.pop_front();
                self.out_at = 0;
            }
        }
        Ok(any)
    }

    fn receive_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.pipe.read(buf)?.ok_or_else(|| {
            Error::new(ErrorKind::Os, "The server ended the connection")
                .with_errno(libc::ECONNRESET)
        })
    }

    /// Receives what is available, within limits; returns whether there was anything.
    fn receive(&mut self, buf: &mut [u8]) -> Result<bool> {
        let mut any = false;
        for _ in 0..READS {
            let len = self.receive_some(buf)?;
            if len == 0 {
                break;
            }
            any = true;
            let bytes = buf.get(..len).unwrap_or_default();
            let places = &mut self.places;
            self.packets.feed(bytes, |packet| {
                let number = Reply::id(packet)?;
                let at = number as usize % PLACES;
                let place = places.get_mut(at);
                let place = place.filter(|place| id(place.serial, at) == number);
                let sent = place.and_then(|place| place.sent.take());
                let unknown = || violation("The server replies to what was not asked");
                let sent = sent.ok_or_else(unknown)?;
                match Reply::from_packet(packet, sent.most) {
                    Ok(reply) => {
                        sent.batch.put(sent.index, reply);
                        Ok(())
                    }
                    Err(error) => {
                        sent.batch.fail(&Broken::of(&error));
                        Err(error)
                    }
                }
            })?;
        }
        Ok(any)
    }
}

/// The id of a request.
fn id(serial: u32, place: usize) -> u32 {
    // The index of a slot is less than `PLACES`.
    (serial << PLACE_BITS) | place as u32
}
