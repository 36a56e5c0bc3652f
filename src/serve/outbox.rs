//! Replies to a client, sent in order and many per system call.
//!
//! One thread writes at a time: other threads leave their replies in the queue, and the writer sends those too. A
//! shared worker never waits for a client: what the connection does not accept at once is left to a thread of the
//! connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::error::{Error, Result};
use crate::job::without_signals;
use crate::memory;
use crate::net::{Stream, Wait};
use crate::serve::budget::Held;
use crate::storage::Storage;

/// Maximum length of the head of a packet: a header, and the message of an error.
pub(super) const HEAD: usize = 128;
/// Maximum number of packets per system call.
const MOST: usize = 64;

/// What follows the head of a packet.
#[derive(Debug)]
enum Body {
    None,
    Memory(Arc<Held>, Range<usize>),
    /// Bytes of a host file, starting at an offset, which the kernel sends directly.
    File(Arc<dyn Storage>, u64, usize),
}

/// Bytes for a client that must be sent contiguously.
#[derive(Debug)]
pub(super) struct Packet {
    head: [u8; HEAD],
    head_len: usize,
    body: Body,
    /// Released once the packet has been sent, or never will be.
    _charge: Option<Charge>,
    /// The request that it completes.
    _request: Option<Answering>,
}

impl Packet {
    pub(super) fn new(parts: &[&[u8]]) -> Self {
        let mut packet = Self {
            head: [0; HEAD],
            head_len: 0,
            body: Body::None,
            _charge: None,
            _request: None,
        };
        for part in parts {
            let end = packet.head_len + part.len();
            if let Some(place) = packet.head.get_mut(packet.head_len..end) {
                place.copy_from_slice(part);
                packet.head_len = end;
            }
        }
        packet
    }

    pub(super) fn with_body(mut self, held: Arc<Held>, range: Range<usize>) -> Self {
        self.body = Body::Memory(held, range);
        self
    }

    /// Adds a body of bytes of a host file whose location stays valid.
    pub(super) fn with_file(mut self, storage: Arc<dyn Storage>, offset: u64, len: usize) -> Self {
        self.body = Body::File(storage, offset, len);
        self
    }

    pub(super) fn charged(mut self, charge: Option<Charge>) -> Self {
        self._charge = charge;
        self
    }

    /// Marks it as the last packet of a request, which completes with it.
    pub(super) fn ending(mut self, request: Option<Answering>) -> Self {
        self._request = request;
        self
    }

    fn parts(&self) -> [&[u8]; 2] {
        let head = self.head.get(..self.head_len).unwrap_or_default();
        let body = match &self.body {
            Body::Memory(held, range) => {
                let bytes: &[u8] = held.buffer();
                bytes.get(range.clone())
            }
            Body::None | Body::File(..) => None,
        };
        [head, body.unwrap_or_default()]
    }

    fn len(&self) -> usize {
        let memory: usize = self.parts().iter().map(|part| part.len()).sum();
        memory
            + match self.body {
                Body::File(_, _, len) => len,
                Body::None | Body::Memory(..) => 0,
            }
    }
}

/// How much work of a client is in progress.
#[derive(Debug, Default)]
pub(super) struct Load {
    state: Mutex<UnderWay>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// Requests, or pieces of them, that have not been answered.
    requests: usize,
    /// Whole requests that have not been answered, even while no piece of them is in progress.
    whole: usize,
    /// Since when the rest of a request has been expected from the client.
    expected_since: Option<Instant>,
    /// Those of the requests that are only refused, because the server or the export is shutting down.
    refused: usize,
    bytes: u64,
}

impl UnderWay {
    fn has_room(&self, bytes: u64, most: usize, most_bytes: u64) -> bool {
        self.requests == 0 || self.requests < most && self.bytes.saturating_add(bytes) <= most_bytes
    }

    fn awaited(&self, what: Awaited) -> usize {
        match what {
            Awaited::All => self.requests + self.whole,
            Awaited::CarriedOut => self.requests.saturating_sub(self.refused) + self.whole,
        }
    }
}

/// Which replies to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    All,
    /// Not those that are refused: a client could go on sending such requests forever.
    CarriedOut,
}

/// A part of the load, released when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    load: Arc<Load>,
    refused: usize,
    bytes: u64,
}

impl Load {
    /// Waits until there are fewer than `most` requests and, including these, no more than `most_bytes` bytes.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64, most: usize, most_bytes: u64) -> Charge {
        let mut state = self.state.lock();
        while !state.has_room(bytes, most, most_bytes) {
            self.changed.wait(&mut state);
        }
        state.requests += 1;
        state.bytes += bytes;
        Charge {
            load: self.clone(),
            refused: 0,
            bytes,
        }
    }

    /// Counts a request from its first byte on; it never waits.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.state.lock().whole += 1;
        Answering { load: self.clone() }
    }

    /// Receives input from the client by `receive`, recording since when it has been expected.
    pub(super) fn expecting<T>(&self, receive: impl FnOnce() -> T) -> T {
        self.state.lock().expected_since = Some(Instant::now());
        let received = receive();
        self.state.lock().expected_since = None;
        received
    }

    /// Since when the rest of a request has been expected from the client, if it is.
    pub(super) fn expected_since(&self) -> Option<Instant> {
        self.state.lock().expected_since
    }

    /// Whether a charge would succeed without waiting.
    pub(super) fn has_room(&self, bytes: u64, most: usize, most_bytes: u64) -> bool {
        self.state.lock().has_room(bytes, most, most_bytes)
    }

    /// Number of requests in progress, and their bytes.
    pub(super) fn now(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.requests, state.bytes)
    }

    /// Waits until nothing is in progress, or the deadline has passed.
    pub(super) fn wait_for_rest(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while state.awaited(Awaited::All) > 0 {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(at) if self.changed.wait_until(&mut state, at).timed_out() => return,
                Some(_) => {}
            }
        }
    }

    /// Whether nothing of what is awaited is in progress at some time up to `moment`.
    fn rests_by(&self, what: Awaited, moment: Instant) -> bool {
        let mut state = self.state.lock();
        while state.awaited(what) > 0 {
            if self.changed.wait_until(&mut state, moment).timed_out() {
                return state.awaited(what) == 0;
            }
        }
        true
    }
}

/// A request that is being answered, until dropped.
#[derive(Debug)]
pub(super) struct Answering {
    load: Arc<Load>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.load.state.lock().whole -= 1;
        self.load.changed.notify_all();
    }
}

impl Charge {
    /// The request is refused, because the server or the export is shutting down.
    pub(super) fn refused(mut self) -> Self {
        if self.refused == 0 {
            self.refused = 1;
            self.load.state.lock().refused += 1;
            self.load.changed.notify_all();
        }
        self
    }
}

/// What is in progress for a client.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) outbox: Arc<Outbox>,
    pub(super) load: Arc<Load>,
    /// How long a client that is to be disconnected may go without accepting any of its replies.
    pub(super) patience: Duration,
}

impl Traffic {
    /// Waits until nothing is in progress; false if the deadline passes first, or the client no longer accepts
    /// anything.
    pub(super) fn wait_for_rest(&self, what: Awaited, deadline: Option<Instant>) -> bool {
        loop {
            let now = Instant::now();
            // If no reply waits for the client and no input is expected from it, the image is busy: that is waited for.
            let since = [self.outbox.waiting_since(), self.load.expected_since()];
            let since = since.into_iter().flatten().min().unwrap_or(now);
            let moment = since + self.patience;
            let next = deadline.map_or(moment, |deadline| deadline.min(moment));
            if self.load.rests_by(what, next) {
                return true;
            }
            if next <= now {
                return false;
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut state = self.load.state.lock();
        state.requests -= 1;
        state.refused -= self.refused;
        state.bytes -= self.bytes;
        drop(state);
        self.load.changed.notify_all();
    }
}

/// The kind of thread that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A thread of the connection, which may wait for the client.
    Connection,
    /// A thread that other clients need too.
    Worker,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Packet>,
    /// How many bytes of the first packet have been sent.
    sent: usize,
    /// Some thread is writing, or the outbox's thread is about to.
    busy: bool,
    /// The outbox's thread should write.
    wanted: bool,
    failed: bool,
    closed: bool,
    thread: Option<JoinHandle<()>>,
    /// When the client last accepted something.
    taken: Option<Instant>,
}

/// The replies to one client.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: Arc<Stream>,
    state: Mutex<State>,
    wake: Condvar,
}

impl Outbox {
    pub(super) fn new(stream: Arc<Stream>) -> Arc<Self> {
        Arc::new(Self {
            stream,
            state: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    /// Sends packets one after the other, or leaves them to the thread that is writing now. Nothing is sent to a client
    /// that is gone; its connection's thread finds that out by itself.
    pub(super) fn send(self: &Arc<Self>, packets: impl IntoIterator<Item = Packet>, by: Sender) {
        let mut state = self.state.lock();
        if state.failed {
            return;
        }
        for packet in packets {
            if state.queue.try_reserve(1).is_err() {
                return self.fail(&mut state);
            }
            state.queue.push_back(packet);
        }
        if std::mem::replace(&mut state.busy, true) {
            return;
        }
        // From now on there is something for the client to accept.
        state.taken = Some(Instant::now());
        drop(state);
        self.write(by);
    }

    /// Stops sending: a client that cannot be answered is better off with another connection, and the thread that reads
    /// must not wait for it.
    fn fail(&self, state: &mut State) {
        state.failed = true;
        if !state.busy {
            state.queue.clear();
        }
        self.stream.shutdown();
    }

    /// Writes until nothing is left. The caller must have set `busy`.
    fn write(self: &Arc<Self>, by: Sender) {
        let mut packets: Vec<Packet> = Vec::new();
        let room = memory::reserve(&mut packets, MOST);
        let mut state = self.state.lock();
        if room.is_err() {
            self.fail(&mut state);
        }
        loop {
            if state.failed {
                state.queue.clear();
            }
            if state.queue.is_empty() {
                state.busy = false;
                return;
            }
            // A file ends the batch of one call.
            let file = |packet: &Packet| matches!(packet.body, Body::File(..));
            let count = state.queue.iter().take(MOST).position(file);
            let count = count.map_or(state.queue.len().min(MOST), |at| at + 1);
            packets.extend(state.queue.drain(..count));
            let sent = std::mem::take(&mut state.sent);
            drop(state);
            let total: usize = packets.iter().map(Packet::len).sum();
            let written = self.write_some(&packets, sent, by);
            let mut now = sent;
            if let Ok(written) = written {
                now = sent.saturating_add(written);
            }
            // What has been sent is released before the lock is taken.
            let mut first = 0;
            while let Some(len) = packets
                .get(first)
                .map(Packet::len)
                .filter(|len| now >= *len)
            {
                now -= len;
                first += 1;
            }
            packets.drain(..first);
            state = self.state.lock();
            state.taken = Some(Instant::now());
            match written {
                Err(_) => {
                    packets.clear();
                    self.fail(&mut state);
                }
                Ok(written) if sent.saturating_add(written) < total => {
                    if state.queue.try_reserve(packets.len()).is_err() {
                        packets.clear();
                        self.fail(&mut state);
                        continue;
                    }
                    for packet in packets.drain(..).rev() {
                        state.queue.push_front(packet);
                    }
                    state.sent = now;
                    if by == Sender::Worker {
                        return self.leave_to_thread(state);
                    }
                }
                Ok(_) => packets.clear(),
            }
        }
    }

    /// Writes all of the packets except the first `sent` bytes; less only if a worker would have to wait.
    fn write_some(&self, packets: &[Packet], mut sent: usize, by: Sender) -> Result<usize> {
        let mut slices = [IoSlice::new(&[]); MOST * 2];
        let mut count = 0;
        let mut total = 0;
        for part in packets.iter().flat_map(Packet::parts) {
            let skip = sent.min(part.len());
            sent -= skip;
            let part = part.get(skip..).unwrap_or_default();
            if let Some(slice) = slices.get_mut(count).filter(|_| !part.is_empty()) {
                *slice = IoSlice::new(part);
                count += 1;
                total += part.len();
            }
        }
        let slices = slices.get_mut(..count).unwrap_or_default();
        if count > 0 {
            let written = self.write_slices(slices, total, by)?;
            if written < total {
                return Ok(written);
            }
        }
        let Some(Body::File(storage, offset, len)) = packets.last().map(|packet| &packet.body)
        else {
            return Ok(total);
        };
        // The file may have to be read from disk, and a worker does not wait for that on behalf of a client.
        if by == Sender::Worker {
            return Ok(total);
        }
        let host = storage.host().ok_or_else(|| Error::os(libc::EIO))?;
        while sent < *len {
            let (at, left) = (offset + sent as u64, (len - sent) as u64);
            match self
                .stream
                .send_file(host.fd(), at, left, Wait::forever())?
            {
                // The header has promised more than the file has by now.
                0 => return Err(Error::os(libc::EIO)),
                n => {
                    sent += n as usize;
                    total += n as usize;
                }
            }
        }
        Ok(total)
    }

    /// Writes all of the buffers; less only if a worker would have to wait.
    fn write_slices(&self, slices: &mut [IoSlice<'_>], total: usize, by: Sender) -> Result<usize> {
        match by {
            Sender::Connection => {
                self.stream.write_all_vectored(slices, Wait::forever())?;
                Ok(total)
            }
            Sender::Worker => self.stream.try_write_vectored(slices),
        }
    }

    /// Whether packets may contain bytes of files.
    pub(super) fn sends_files(&self) -> bool {
        self.stream.descriptor().is_some()
    }

    /// Leaves the rest to the outbox's thread.
    fn leave_to_thread(self: &Arc<Self>, mut state: parking_lot::MutexGuard<'_, State>) {
        state.wanted = true;
        if state.thread.is_none() && !state.closed {
            let outbox = self.clone();
            let spawned = without_signals(|| {
                crew::thread("serve-out")
                    .stack_size(128 << 10)
                    .spawn(move || outbox.serve())
            });
            match spawned {
                Ok(thread) => state.thread = Some(thread),
                Err(_) => {
                    state.busy = false;
                    self.fail(&mut state);
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Main function of the outbox's thread.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            while !state.wanted && !state.closed {
                self.wake.wait(&mut state);
            }
            if !std::mem::take(&mut state.wanted) {
                return;
            }
            drop(state);
            self.write(Sender::Connection);
        }
    }

    /// Whether the connection has been shut down, so that the client can no longer be answered.
    pub(super) fn is_shut(&self) -> bool {
        self.stream.is_shut()
    }

    /// When the client last accepted something, if replies are waiting for it.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        let taken = state.taken.filter(|_| state.busy)?;
        Some(taken.max(self.stream.last_taken()))
    }

    /// Stops sending, by shutting down the connection.
    pub(super) fn give_up(&self) {
        self.stream.shutdown();
    }

    /// Ends the thread; everything must have been sent, or the connection have failed.
    pub(super) fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.closed = true;
            state.thread.take()
        };
        self.wake.notify_one();
        if let Some(thread) = thread {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_is_waited_for_until_patience_ends() {
        let (near, far) = Stream::pair().unwrap();
        let traffic = Traffic {
            outbox: Outbox::new(Arc::new(near)),
            load: Arc::default(),
            patience: Duration::from_secs(60),
        };
        let budget = crate::serve::budget::Budget::new(64 << 20);
        let held = budget.take(16 << 20, Instant::now()).unwrap().unwrap();
        let len = held.buffer().len();
        let charge = traffic.load.charge(0, 1, 0);
        let packet = Packet::new(&[]).with_body(Arc::new(held), 0..len);
        // More than the socket holds: the rest is left to the outbox's thread.
        traffic
            .outbox
            .send([packet.charged(Some(charge))], Sender::Worker);
        let rests = |patience| {
            let patience = Duration::from_millis(patience);
            let traffic = Traffic {
                patience,
                ..traffic.clone()
            };
            traffic.wait_for_rest(Awaited::All, None)
        };
        assert!(!rests(20));
        // A client that accepts a little gets more time from then on.
        let mut taken = vec![0; 4 << 20];
        let begun = traffic.outbox.waiting_since().unwrap();
        far.read_exact(&mut taken, Wait::forever()).unwrap();
        // One call of the writer may last until the reader has stopped, and is recorded when it returns.
        while traffic.outbox.waiting_since().unwrap() <= begun {
            std::thread::yield_now();
        }
        let soon = Some(Instant::now() + Duration::from_millis(5));
        assert!(!traffic.wait_for_rest(Awaited::All, soon));
        traffic.outbox.give_up();
        traffic.load.wait_for_rest(None);
        assert!(rests(0));
        traffic.outbox.close();
    }

    #[test]
    fn what_has_failed_holds_nothing_of_a_client() {
        let (near, far) = Stream::pair().unwrap();
        let outbox = Outbox::new(Arc::new(near));
        let load = Arc::<Load>::default();
        let packet = || Packet::new(&[b"late"]).charged(Some(load.charge(0, 9, 9)));
        // As while another thread is writing.
        outbox.state.lock().busy = true;
        outbox.send([packet(), packet()], Sender::Worker);
        outbox.fail(&mut outbox.state.lock());
        assert_eq!(load.now().0, 2);
        outbox.write(Sender::Connection);
        outbox.send([packet()], Sender::Worker);
        assert_eq!(load.now(), (0, 0));
        assert!(outbox.is_shut());
        far.read_exact(&mut [0], Wait::forever()).unwrap_err();
    }

    #[test]
    fn a_request_is_waited_for_between_its_pieces_and_not_for_ever() {
        let (near, _far) = Stream::pair().unwrap();
        let traffic = Traffic {
            outbox: Outbox::new(Arc::new(near)),
            load: Arc::default(),
            patience: Duration::from_millis(5),
        };
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        let request = traffic.load.answering();
        drop(traffic.load.charge(1, 9, 9));
        assert!(!traffic.wait_for_rest(Awaited::All, soon()));
        assert!(!traffic.wait_for_rest(Awaited::CarriedOut, soon()));
        assert_eq!(traffic.load.now(), (0, 0));
        // A client that does not send the rest of a request is given up on.
        let load = traffic.load.clone();
        let left = load.expecting(|| traffic.wait_for_rest(Awaited::CarriedOut, None));
        assert!(!left);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                drop(request);
            });
            assert!(traffic.wait_for_rest(Awaited::All, None));
        });
        // The last packet keeps the request in progress.
        let packet = Packet::new(&[b"done"]).ending(Some(traffic.load.answering()));
        assert!(!traffic.wait_for_rest(Awaited::All, soon()));
        drop(packet);
        assert!(traffic.wait_for_rest(Awaited::All, soon()));
    }

    #[test]
    fn refusals_are_waited_for_only_where_all_replies_are() {
        let (near, _far) = Stream::pair().unwrap();
        let traffic = Traffic {
            outbox: Outbox::new(Arc::new(near)),
            load: Arc::default(),
            patience: Duration::from_secs(60),
        };
        let refused = traffic.load.charge(0, 2, 0).refused();
        let now = Some(Instant::now());
        assert!(traffic.wait_for_rest(Awaited::CarriedOut, None));
        assert!(!traffic.wait_for_rest(Awaited::All, now));
        let carried_out = traffic.load.charge(0, 2, 0);
        assert!(!traffic.wait_for_rest(Awaited::CarriedOut, now));
        drop(carried_out);
        assert!(traffic.wait_for_rest(Awaited::CarriedOut, None));
        drop(refused);
        assert!(traffic.wait_for_rest(Awaited::All, None));
    }
}
