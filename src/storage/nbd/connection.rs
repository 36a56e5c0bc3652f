//! One connection, shared by all threads.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::nbd::chunk::{ErrorChunk, OffsetData, OffsetHole, status_from_bytes};
use crate::nbd::flags::CommandFlags;
use crate::nbd::limits::{MAX_PAYLOAD, MAX_STRING};
use crate::nbd::reply::{Chunk, ChunkType, Headers, Reply};
use crate::nbd::request::{Command, Request};
use crate::nbd::violation;
use crate::net::{Stream, Wait};

use super::handshake::Export;
use super::input::Input;
use super::op::{Op, Payload, Sink};

/// Maximum number of requests in flight; the place of a request is part of its cookie.
const PLACES: usize = 64;
/// Maximum number of requests in flight per thread.
pub(super) const MAX_OPS: usize = 16;
/// Maximum time to wait between two checks of the control.
const LOOK: Duration = Duration::from_millis(50);
/// Factor for the timeout of flushes, zeroes and the like: the server may have to write everything that it has cached.
const LONG: u32 = 12;
/// Timeout for sending the request to disconnect.
const FAREWELL: Duration = Duration::from_millis(50);
/// Maximum payload of a reply with block status: a million extents of 16 bytes, as many as any server sends.
const MAX_STATUS: u64 = (16 << 20) + 8;
/// Maximum payload of a chunk without data: an error with its message, and some slack.
const MAX_SMALL: u64 = MAX_STRING as u64 + 64;

/// Maximum number of replies that wait for their owners, and maximum total size of their payloads.
const MAX_KEPT: usize = 1024;
const MAX_KEPT_BYTES: usize = 2 * MAX_PAYLOAD as usize;

const TWICE: &str = "The server replied to a request twice";

/// A set of places, as a bit mask.
type Places = u64;

/// A connection to an export, ready for requests.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// How long the server may be silent while it owes replies, or accept no data.
    timeout: Option<Duration>,
    /// The export as negotiated.
    pub(super) export: Export,
    /// Held while requests are sent.
    sending: Mutex<()>,
    /// Locked by the thread that has the right to read.
    input: Mutex<Input>,
    state: Mutex<State>,
    /// How many changes the server has acknowledged here, and how many of them a flush on this connection has covered.
    written: AtomicU64,
    flushed: AtomicU64,
    /// Places have become free.
    freed: Condvar,
    /// Wakes the thread that waits for the reply in a place, or for the right to read.
    wake: [Condvar; PLACES],
}

#[derive(Debug)]
struct State {
    /// Why the connection is no longer usable.
    broken: Option<Broken>,
    /// Some thread has the right to read.
    reading: bool,
    /// The right to read is handed to the owner of the place, along with a header that has been read.
    handed: Option<(usize, Reply)>,
    /// Replies that another thread has read completely on behalf of their owners.
    kept: Vec<(usize, Reply, IoBuf)>,
    kept_bytes: usize,
    used: Places,
    /// Requests whose owners cannot receive a reply yet: those not sent completely, and those sent in advance.
    busy: Places,
    /// Waiting threads, by the first of their places.
    waiting: Places,
    places: [Place; PLACES],
}

/// A request that waits for its reply.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Distinguishes it from earlier requests in the same place.
    serial: u32,
    /// The first place of the same thread.
    first: usize,
    command: Option<Command>,
    len: u64,
}

/// Why a connection ended.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    kind: ErrorKind,
    errno: i32,
    text: String,
}

impl Broken {
    fn error(&self) -> Error {
        Error::new(self.kind, self.text.clone()).with_errno(self.errno)
    }

    /// Whether it was closed on this side because a job was cancelled.
    fn is_own(&self) -> bool {
        self.kind == ErrorKind::Cancelled
    }
}

impl State {
    fn keep(&mut self, place: usize, reply: Reply, payload: IoBuf) -> Result<()> {
        self.kept_bytes += payload.len();
        if self.kept.len() >= MAX_KEPT || self.kept_bytes > MAX_KEPT_BYTES {
            return Err(violation("The server replies without end"));
        }
        self.kept.push((place, reply, payload));
        Ok(())
    }
}

/// What has arrived for one of several requests: its place, the header, and the payload if it was already read.
type Arrived = (usize, Reply, Option<IoBuf>);

impl Connection {
    pub(super) fn new(stream: Stream, export: Export, timeout: Option<Duration>) -> Self {
        Self {
            stream,
            timeout,
            export,
            sending: Mutex::new(()),
            input: Mutex::new(Input::new()),
            state: Mutex::new(State {
                broken: None,
                reading: false,
                handed: None,
                kept: Vec::new(),
                kept_bytes: 0,
                used: 0,
                busy: 0,
                waiting: 0,
                places: [Place::default(); PLACES],
            }),
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            freed: Condvar::new(),
            wake: [const { Condvar::new() }; PLACES],
        }
    }

    /// None if it is still usable; otherwise, whether it was closed because a job was cancelled.
    pub(super) fn ended(&self) -> Option<bool> {
        self.state.lock().broken.as_ref().map(Broken::is_own)
    }

    /// Sends the requests, at most [`MAX_OPS`], and receives their replies. An error that the server reports for one is
    /// stored in its `error`. If `control` ends the wait, the connection is closed, as a reply is still outstanding.
    ///
    /// # Errors
    /// If the connection is lost; some of the requests may have been carried out.
    pub(super) fn exchange(&self, ops: &mut [Op<'_, '_>], control: &JobControl) -> Result<()> {
        debug_assert!(!ops.is_empty() && ops.len() <= MAX_OPS);
        let mut places = [0; MAX_OPS];
        let Some(places) = places.get_mut(..ops.len()) else {
            return Err(Error::new(ErrorKind::Internal, "Too many requests at once"));
        };
        self.enter(ops, places, control)?;
        let done = self
            .send(ops, places, control)
            .and_then(|()| self.receive(ops, places, control));
        self.leave(places);
        done
    }

    /// Records that the server has acknowledged changes that it may still lose.
    pub(super) fn wrote(&self, changes: usize) {
        self.written.fetch_add(changes as u64, Ordering::AcqRel);
    }

    /// Whether the server may still lose something that it has acknowledged here.
    pub(super) fn is_unflushed(&self) -> bool {
        self.written.load(Ordering::Acquire) > self.flushed.load(Ordering::Acquire)
    }

    /// Makes durable what was written on these connections: a flush is sent on each before the replies are received, so
    /// that all together take no longer than one. A reply on a connection proves that the server is still the one that
    /// received its writes. Sets `refused` if the server reports that a flush failed.
    ///
    /// # Errors
    /// If a connection is lost, or the server reports an error.
    pub(super) fn flush_all(
        connections: &[Arc<Self>],
        refused: &AtomicBool,
        control: &JobControl,
    ) -> Result<()> {
        let mut done = Ok(());
        let mut sent = Vec::with_capacity(connections.len());
        for connection in connections {
            let mark = connection.written.load(Ordering::Acquire);
            match connection.send_flush(control) {
                Ok(place) => sent.push((connection, place, mark)),
                Err(error) => done = done.and(Err(error)),
            }
        }
        for (connection, place, mark) in sent {
            let flushed = connection.take_flush(place, refused, control);
            if flushed.is_ok() {
                connection.flushed.fetch_max(mark, Ordering::AcqRel);
            }
            done = done.and(flushed);
        }
        done
    }

    /// Sends a flush, whose reply other threads keep until it is fetched; returns its place.
    fn send_flush(&self, control: &JobControl) -> Result<usize> {
        let op = [Op::new(Command::FLUSH, 0, 0)];
        let mut place = [0];
        self.enter(&op, &mut place, control)?;
        let sent = self.send(&op, &place, control);
        if sent.is_err() {
            self.leave(&place);
        }
        sent.map(|()| place[0])
    }

    fn take_flush(&self, place: usize, refused: &AtomicBool, control: &JobControl) -> Result<()> {
        let mut op = [Op::new(Command::FLUSH, 0, 0)];
        let done = self.receive(&mut op, &[place], control);
        self.leave(&[place]);
        let error = op[0].error.take();
        if error.is_some() {
            refused.store(true, Ordering::Release);
        }
        done.and(error.map_or(Ok(()), Err))
    }

    /// Allocates places for the requests.
    fn enter(&self, ops: &[Op<'_, '_>], places: &mut [usize], control: &JobControl) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(broken) = &state.broken {
                return Err(broken.error());
            }
            if PLACES - state.used.count_ones() as usize >= ops.len() {
                break;
            }
            self.freed.wait_for(&mut state, LOOK);
            control.check()?;
        }
        let mut first = None;
        for (op, place) in ops.iter().zip(places) {
            let free = state.used.trailing_ones() as usize;
            state.used |= 1 << free;
            state.busy |= 1 << free;
            let first = *first.get_or_insert(free);
            let entry = &mut state.places[free];
            *entry = Place {
                serial: entry.serial.wrapping_add(1),
                first,
                command: Some(op.command),
                len: op.len,
            };
            *place = free;
        }
        Ok(())
    }

    /// Releases the places, and makes sure that another thread reads.
    fn leave(&self, places: &[usize]) {
        let mine = set_of(places);
        let mut state = self.state.lock();
        let more = state.kept.iter().any(|kept| has(mine, kept.0));
        state.used &= !mine;
        state.busy &= !mine;
        if !state.reading && state.handed.is_none() && state.waiting != 0 {
            self.wake[state.waiting.trailing_zeros() as usize].notify_one();
        }
        self.freed.notify_all();
        drop(state);
        if more {
            self.fail(violation(TWICE));
        }
    }

    fn send(&self, ops: &[Op<'_, '_>], places: &[usize], control: &JobControl) -> Result<()> {
        let extended = self.export.headers == Headers::Extended;
        let mut headers = [[0; Request::EXTENDED_LEN]; MAX_OPS];
        let mut lens = [Request::COMPACT_LEN; MAX_OPS];
        {
            let state = self.state.lock();
            let both = ops.iter().zip(places);
            for ((op, place), (header, len)) in both.zip(headers.iter_mut().zip(&mut lens)) {
                let serial = state.places[*place].serial;
                let mut request = op.request((u64::from(serial) << 32) | *place as u64);
                if extended {
                    if !matches!(op.payload, Payload::None) {
                        request.flags |= CommandFlags::PAYLOAD_LEN;
                    }
                    *header = request.to_extended();
                    *len = header.len();
                    continue;
                }
                let compact = request.to_compact().ok_or_else(|| {
                    Error::new(
                        ErrorKind::Internal,
                        "A request passes what the server takes",
                    )
                })?;
                header[..compact.len()].copy_from_slice(&compact);
            }
        }
        let parts = || ops.iter().zip(headers.iter().zip(&lens));
        let sent = match (ops, parts().next()) {
            ([one], Some((_, (header, len)))) => {
                let header = &header[..*len];
                match one.payload {
                    Payload::None => self.write(&mut [IoSlice::new(header)], control),
                    Payload::One(data) => {
                        self.write(&mut [IoSlice::new(header), IoSlice::new(data)], control)
                    }
                    Payload::Many(data) => {
                        let mut all = vec![IoSlice::new(header)];
                        all.extend(data.iter().map(|buf| IoSlice::new(buf)));
                        self.write(&mut all, control)
                    }
                }
            }
            _ => {
                let mut all = Vec::with_capacity(2 * ops.len());
                for (op, (header, len)) in parts() {
                    all.push(IoSlice::new(&header[..*len]));
                    match op.payload {
                        Payload::None => {}
                        Payload::One(data) => all.push(IoSlice::new(data)),
                        Payload::Many(data) => {
                            all.extend(data.iter().map(|buf| IoSlice::new(buf)));
                        }
                    }
                }
                self.write(&mut all, control)
            }
        };
        sent.map_err(|error| self.fail(error))
    }

    fn wait<'a>(&self, control: &'a JobControl) -> Wait<'a> {
        Wait::new(control).silent_for(self.timeout.map(|timeout| self.patience(timeout)))
    }

    /// How long the server may be silent, given the requests in flight.
    fn patience(&self, timeout: Duration) -> Duration {
        let state = self.state.lock();
        let under_way = |place: usize| has(state.used, place).then(|| state.places[place].command);
        let is_long = |command| !matches!(command, Command::READ | Command::WRITE);
        match (0..PLACES).filter_map(under_way).flatten().any(is_long) {
            true => timeout.saturating_mul(LONG),
            false => timeout,
        }
    }

    fn write(&self, parts: &mut [IoSlice<'_>], control: &JobControl) -> Result<()> {
        let _alone = control.lock(&self.sending)?;
        self.stream.write_all_vectored(parts, self.wait(control))
    }

    /// Receives the replies to all requests.
    fn receive(
        &self,
        ops: &mut [Op<'_, '_>],
        places: &[usize],
        control: &JobControl,
    ) -> Result<()> {
        let mine = set_of(places);
        self.state.lock().busy &= !mine;
        let mut reading = None;
        while ops.iter().any(|op| !op.done) {
            let (place, reply, payload) = self.next(mine, &mut reading, control)?;
            let at = places.iter().position(|known| *known == place);
            let Some(op) = at.and_then(|at| ops.get_mut(at)).filter(|op| !op.done) else {
                return Err(self.fail(violation(TWICE)));
            };
            let taken = match (payload, &mut reading) {
                (Some(payload), _) => {
                    let mut rest = &payload[..];
                    self.take(op, reply, &mut |out| {
                        let cut = || violation("The payload of a reply is cut off");
                        let (now, then) = rest.split_at_checked(out.len()).ok_or_else(cut)?;
                        out.copy_from_slice(now);
                        rest = then;
                        Ok(())
                    })
                }
                (None, Some(input)) => self.take(op, reply, &mut |out| {
                    input.read_exact(out, &self.stream, self.wait(control))
                }),
                (None, None) => Err(Error::new(ErrorKind::Internal, "Nobody reads")),
            };
            taken.map_err(|error| self.fail(error))?;
        }
        if reading.take().is_some() {
            self.state.lock().reading = false;
        }
        Ok(())
    }

    /// The next reply that arrives for one of the places. If its payload has not been read yet, `reading` has the right
    /// to read, and keeps it until a payload for another thread arrives.
    fn next<'a>(
        &'a self,
        mine: Places,
        reading: &mut Option<MutexGuard<'a, Input>>,
        control: &JobControl,
    ) -> Result<Arrived> {
        loop {
            if let Some(arrived) = self.await_turn(mine, reading, control)? {
                return Ok(arrived);
            }
            let input = match reading.take() {
                Some(input) => input,
                None => self.input.lock(),
            };
            if let Some(arrived) = self.read_for_all(mine, input, reading, control)? {
                return Ok(arrived);
            }
        }
    }

    /// Waits for a reply that another thread has read, or for the right to read (None).
    fn await_turn<'a>(
        &'a self,
        mine: Places,
        reading: &mut Option<MutexGuard<'a, Input>>,
        control: &JobControl,
    ) -> Result<Option<Arrived>> {
        let first = mine.trailing_zeros() as usize;
        let mut state = self.state.lock();
        loop {
            if let Some(broken) = &state.broken {
                return Err(broken.error());
            }
            if let Some(at) = state.kept.iter().position(|kept| has(mine, kept.0)) {
                let (place, reply, payload) = state.kept.remove(at);
                state.kept_bytes -= payload.len();
                return Ok(Some((place, reply, Some(payload))));
            }
            match state.handed {
                Some((place, reply)) if has(mine, place) => {
                    state.handed = None;
                    drop(state);
                    *reading = Some(self.input.lock());
                    return Ok(Some((place, reply, None)));
                }
                _ => {}
            }
            if reading.is_some() || !state.reading {
                state.reading = true;
                return Ok(None);
            }
            state.waiting |= 1 << first;
            self.wake[first].wait_for(&mut state, LOOK);
            state.waiting &= !(1 << first);
            if let Err(error) = control.check() {
                drop(state);
                return Err(self.fail(error));
            }
        }
    }

    /// Reads until a reply for one of the places arrives; None if the right to read went to another thread.
    fn read_for_all<'a>(
        &'a self,
        mine: Places,
        mut input: MutexGuard<'a, Input>,
        reading: &mut Option<MutexGuard<'a, Input>>,
        control: &JobControl,
    ) -> Result<Option<Arrived>> {
        loop {
            let found = self
                .header(&mut input, control)
                .map_err(|error| self.fail(error))?;
            let (place, reply) = found;
            if has(mine, place) {
                *reading = Some(input);
                return Ok(Some((place, reply, None)));
            }
            let mut state = self.state.lock();
            let owner = state.places[place];
            let len = match payload_len(&reply, &owner) {
                0 => 0,
                // Its owner cannot receive it now, and may not get any further until the server does.
                len if has(state.busy, place) => len,
                _ => {
                    state.handed = Some((place, reply));
                    drop(input);
                    self.wake[owner.first].notify_one();
                    return Ok(None);
                }
            };
            drop(state);
            let kept = self.payload(len, &mut input, control).and_then(|payload| {
                let mut state = self.state.lock();
                state.keep(place, reply, payload)?;
                self.wake[owner.first].notify_one();
                Ok(())
            });
            kept.map_err(|error| self.fail(error))?;
        }
    }

    fn payload(&self, len: u64, input: &mut Input, control: &JobControl) -> Result<IoBuf> {
        let len = usize::try_from(len).map_err(|_| Error::os(libc::ENOMEM))?;
        let mut payload = memory::zeroed(len)?;
        input.read_exact(&mut payload, &self.stream, self.wait(control))?;
        Ok(payload)
    }

    /// Reads the header of a reply to one of the requests in flight.
    fn header(&self, input: &mut Input, control: &JobControl) -> Result<(usize, Reply)> {
        let mut bytes = [0; Chunk::EXTENDED_LEN];
        let headers = self.export.headers;
        let first = headers.first_len();
        let wait = self.wait(control);
        input.read_exact(&mut bytes[..first], &self.stream, wait)?;
        let len = first + Reply::rest_len(headers, &bytes[..first])?;
        input.read_exact(&mut bytes[first..len], &self.stream, wait)?;
        let reply = Reply::from_bytes(&bytes[..len])?;
        let cookie = reply.cookie();
        let unknown = || violation("The server replied to a request that was not made");
        let place = usize::try_from(cookie & u64::from(u32::MAX)).map_err(|_| unknown())?;
        let state = self.state.lock();
        let entry = state.places.get(place).ok_or_else(unknown)?;
        if !has(state.used, place) || u64::from(entry.serial) != cookie >> 32 {
            return Err(unknown());
        }
        if let Reply::Chunk(chunk) = &reply {
            let most = match (chunk.kind, entry.command) {
                (ChunkType::OFFSET_DATA, Some(Command::READ)) => {
                    entry.len.saturating_add(OffsetData::LEN as u64)
                }
                (
                    ChunkType::BLOCK_STATUS | ChunkType::BLOCK_STATUS_EXT,
                    Some(Command::BLOCK_STATUS),
                ) => MAX_STATUS,
                _ => MAX_SMALL,
            };
            if chunk.len > most {
                return Err(violation(format!(
                    "The server sent a reply of {} bytes where {most} are the most",
                    chunk.len
                )));
            }
        }
        Ok((place, reply))
    }

    /// Processes a reply or a chunk of one, whose payload `read` provides.
    fn take(
        &self,
        op: &mut Op<'_, '_>,
        reply: Reply,
        read: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let chunk = match reply {
            Reply::Simple(simple) => {
                let structured = self.export.headers != Headers::Simple;
                let plain = !matches!(op.command, Command::READ | Command::BLOCK_STATUS);
                if structured && !plain && simple.error == 0 {
                    return Err(violation(
                        "The server sent a simple reply where a structured one was agreed on",
                    ));
                }
                if simple.error != 0 {
                    op.refuse(simple.error, b"");
                } else if op.command == Command::READ {
                    let at = op.arrives(op.offset, op.len)?;
                    let len = usize::try_from(op.len).unwrap_or(usize::MAX);
                    op.sink.fill(at, len, read)?;
                }
                return op.end();
            }
            Reply::Chunk(chunk) => chunk,
        };
        let wrong = || violation("The server sent a chunk that does not fit the request");
        match chunk.kind {
            ChunkType::NONE if chunk.len == 0 && chunk.is_last() => {}
            ChunkType::OFFSET_DATA if op.command == Command::READ => {
                let mut head = [0; OffsetData::LEN];
                let len = chunk.len.checked_sub(head.len() as u64).ok_or_else(wrong)?;
                read(&mut head)?;
                let at = op.arrives(OffsetData::from_bytes(head).offset, len)?;
                let len = usize::try_from(len).map_err(|_| wrong())?;
                op.sink.fill(at, len, read)?;
            }
            ChunkType::OFFSET_HOLE if op.command == Command::READ => {
                let mut body = [0; OffsetHole::LEN];
                if chunk.len != body.len() as u64 {
                    return Err(wrong());
                }
                read(&mut body)?;
                let hole = OffsetHole::from_bytes(&body)?;
                let at = op.arrives(hole.offset, u64::from(hole.len))?;
                op.sink.fill(at, hole.len as usize, |buf| {
                    buf.fill(0);
                    Ok(())
                })?;
            }
            ChunkType::BLOCK_STATUS | ChunkType::BLOCK_STATUS_EXT => {
                let body = whole(&chunk, read)?;
                let extended = chunk.kind == ChunkType::BLOCK_STATUS_EXT;
                let (context, extents) = status_from_bytes(&body, extended)?;
                let Sink::Status(found) = &mut op.sink else {
                    return Err(wrong());
                };
                if Some(context) != self.export.context || !found.is_empty() {
                    return Err(violation(
                        "The server sent a block status that was not asked for",
                    ));
                }
                found.extend(extents);
            }
            kind if kind.is_error() => {
                let body = whole(&chunk, read)?;
                let at_offset = kind == ChunkType::ERROR_OFFSET;
                let error = ErrorChunk::from_bytes(&body, at_offset)?;
                op.refuse(error.error, &error.message);
            }
            _ => return Err(wrong()),
        }
        match chunk.is_last() {
            true => op.end(),
            false => Ok(()),
        }
    }

    /// Shuts the connection down for all threads that wait on it; returns the first reason.
    fn fail(&self, error: Error) -> Error {
        let mut state = self.state.lock();
        let first = state.broken.get_or_insert_with(|| Broken {
            kind: error.kind(),
            errno: error.errno(),
            text: error.to_string(),
        });
        let first = first.error();
        self.stream.shutdown();
        for wake in &self.wake {
            wake.notify_all();
        }
        self.freed.notify_all();
        first
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.state.get_mut().broken.is_some() {
            return;
        }
        let request = Op::new(Command::DISC, 0, 0).request(0);
        let bytes = match (self.export.headers, request.to_compact()) {
            (Headers::Extended, _) | (_, None) => request.to_extended().to_vec(),
            (_, Some(compact)) => compact.to_vec(),
        };
        // If it cannot be sent, the server sees the end of the stream.
        let _ = self
            .stream
            .write_all(&bytes, Wait::forever().at_most(FAREWELL));
        self.stream.shutdown();
    }
}

fn set_of(places: &[usize]) -> Places {
    places.iter().fold(0, |set, place| set | (1 << place))
}

fn has(set: Places, place: usize) -> bool {
    (set >> place) & 1 == 1
}

/// Length of the payload that follows the header.
fn payload_len(reply: &Reply, place: &Place) -> u64 {
    match reply {
        Reply::Simple(simple) if simple.error == 0 && place.command == Some(Command::READ) => {
            place.len
        }
        Reply::Simple(_) => 0,
        Reply::Chunk(chunk) => chunk.len,
    }
}

/// Reads the payload of a chunk, whose length has been checked.
fn whole(chunk: &Chunk, read: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<IoBuf> {
    let len = usize::try_from(chunk.len).map_err(|_| Error::os(libc::ENOMEM))?;
    let mut body = memory::zeroed(len)?;
    read(&mut body)?;
    Ok(body)
}
