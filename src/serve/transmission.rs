//! Requests and their replies ("Transmission" of the specification).

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{ReadsAs, TryRead, WriteFlags};
use crate::job::JobControl;
use crate::log::Level;
use crate::memory;
use crate::nbd::chunk::{StatusExtent, StatusHead};
use crate::nbd::flags::CommandFlags;
use crate::nbd::limits::{MAX_OPTION, PORTABLE_PAYLOAD};
use crate::nbd::reply::Headers;
use crate::nbd::request::{Command, Request, StatusPayload};
use crate::net::Wait;
use crate::serve::budget::Held;
use crate::serve::export::Export;
use crate::serve::input::Input;
use crate::serve::outbox::{Answering, Charge, Load, Outbox, Packet, Sender};
use crate::serve::replies::Replies;
use crate::serve::shared::{PATIENCE, Shared};
use crate::serve::status::{self, Context};
use crate::storage::{AskedAnew, Storage, ZeroFlags};

/// Maximum number of requests of one client in progress.
const MOST_REQUESTS: usize = 128;
/// Maximum number of bytes of one client in progress, unless a single request has more.
const MOST_BYTES: u64 = 32 << 20;
/// Interval at which a thread that waits for memory checks whether its client has been disconnected.
const LOOK: Duration = Duration::from_millis(50);
/// Long reads and writes are split into pieces of this size, at multiples of it.
const PIECE: u64 = 1 << 20;
/// Replies up to this size are batched in one buffer.
const SMALL: u64 = 16 << 10;
/// Size of that buffer.
const BATCH: usize = 64 << 10;
/// Reads of at least this length are answered with holes where the image has zeroes.
const WORTH_A_LOOK: u64 = 32 << 10;
/// Data of at least this length is sent directly by the kernel where possible.
const WORTH_SENDING: u64 = 64 << 10;
/// Maximum number of runs in the reply to one piece of a read; what follows them counts as data.
const MOST_RUNS: usize = 32;
/// Shorter holes are sent as data.
const SHORT_HOLE: u64 = 4 << 10;
/// Larger units are decoded only when they are read.
const MOST_AHEAD: u64 = 4 << 20;
/// Number of bytes that may be decoded or decrypted on the reader's thread if no other request is waiting.
const LONE_WORK: u64 = 128 << 10;

/// A client in the transmission phase.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) export: Arc<Export>,
    pub(super) replies: Replies,
    pub(super) contexts: Vec<Context>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) load: Arc<Load>,
}

/// The thread that reads a client's requests.
pub(super) struct Reader<'a> {
    connection: &'a Arc<Connection>,
    input: &'a mut Input,
    batch: Option<Batch>,
}

/// A batch of small replies.
struct Batch {
    held: Held,
    len: usize,
    charge: Charge,
}

/// A run within a read.
#[derive(Clone, Copy, Debug)]
struct Run {
    len: u64,
    zero: bool,
}

/// A piece of a read.
struct ReadPiece {
    request: Request,
    /// Offset in the export.
    offset: u64,
    runs: Vec<Run>,
    /// Memory for the runs that are not zero.
    held: Held,
    charge: Charge,
    /// Shared by all pieces of the reply; None if there is only one.
    several: Option<Arc<Several>>,
}

/// The state shared by the pieces of a reply.
struct Several {
    left: AtomicUsize,
    answering: Mutex<Option<Answering>>,
}

/// A write that consists of several pieces.
struct Write {
    request: Request,
    left: AtomicUsize,
    failed: Mutex<Option<Error>>,
    _answering: Answering,
}

impl<'a> Reader<'a> {
    pub(super) fn new(connection: &'a Arc<Connection>, input: &'a mut Input) -> Self {
        Self {
            connection,
            input,
            batch: None,
        }
    }

    /// Carries out requests until the client leaves.
    ///
    /// # Errors
    /// If the connection fails, or the client violates the protocol.
    pub(super) fn run(mut self) -> Result<()> {
        let served = self.serve();
        // Requests that came before a protocol violation are answered too.
        self.flush();
        served
    }

    fn serve(&mut self) -> Result<()> {
        while let Some(request) = self.next()? {
            if request.command == Command::DISC {
                break;
            }
            self.connection.shared.counters.request();
            self.handle(request)?;
        }
        Ok(())
    }

    /// Fills `buf` with the payload of a request.
    fn receive(&mut self, buf: &mut [u8]) -> Result<()> {
        if self.input.buffered() < buf.len() {
            // The client may wait for replies before it sends more.
            self.flush();
        }
        let load = &self.connection.load;
        load.expecting(|| self.input.rest(buf, Wait::forever()))
    }

    fn next(&mut self) -> Result<Option<Request>> {
        let extended = self.connection.replies.0 == Headers::Extended;
        let len = match extended {
            true => Request::EXTENDED_LEN,
            false => Request::COMPACT_LEN,
        };
        if self.input.buffered() < len {
            // The client may wait for replies before it sends more.
            self.flush();
        }
        if extended {
            let mut bytes = [0; Request::EXTENDED_LEN];
            let more = self.input.message(&mut bytes, Wait::forever())?;
            return more.then(|| Request::from_extended(&bytes)).transpose();
        }
        let mut bytes = [0; Request::COMPACT_LEN];
        let more = self.input.message(&mut bytes, Wait::forever())?;
        more.then(|| Request::from_compact(&bytes)).transpose()
    }

    fn handle(&mut self, request: Request) -> Result<()> {
        // Held until all of the request has been charged, or answered.
        let _answering = self.connection.load.answering();
        let extended = self.connection.replies.0 == Headers::Extended;
        let has_payload = request.command == Command::WRITE
            || extended && request.flags.contains(CommandFlags::PAYLOAD_LEN);
        if let Err(errno) = self.connection.check(&request) {
            if has_payload {
                self.flush();
                let load = &self.connection.load;
                load.expecting(|| self.input.skip(request.len, Wait::forever()))?;
            }
            return self.refuse(&request, errno);
        }
        match request.command {
            Command::READ => self.read(request),
            Command::WRITE => self.write(request),
            Command::BLOCK_STATUS => self.status(request),
            Command::CACHE => {
                // Accounts for the memory of what is read along the way.
                let held = self.take(PIECE as usize)?;
                self.hand_over(request, 0, move |connection, request| {
                    let done = cache(connection, request);
                    drop(held);
                    done
                })
            }
            _ => self.hand_over(request, 0, change),
        }
    }

    fn refuse(&mut self, request: &Request, errno: i32) -> Result<()> {
        self.connection.shared.counters.failure();
        // Also bounds a client that sends nothing but invalid requests, and reads no replies.
        let mut charge = self.charge(0);
        if errno == libc::ESHUTDOWN {
            charge = charge.refused();
        }
        let packet = self.connection.replies.error(request, errno, true);
        self.send([packet.charged(Some(charge))])
    }

    fn read(&mut self, request: Request) -> Result<()> {
        self.connection.shared.counters.read(request.len);
        if request.len == 0 {
            let replies = self.connection.replies;
            let charge = self.charge(0);
            // Without data, a simple reply is the end of a reply.
            return self.send([replies.done(&request).charged(Some(charge))]);
        }
        if request.len <= SMALL && self.read_small(&request)? {
            return Ok(());
        }
        self.read_pieces(request)?;
        self.decode_ahead(&request);
        Ok(())
    }

    /// Decodes what this client will probably read next, if threads are idle.
    fn decode_ahead(&self, request: &Request) {
        let export = &self.connection.export;
        let workers = &self.connection.shared.workers;
        let Some(ahead) = export.ahead().filter(|_| workers.are_idle()) else {
            return;
        };
        let end = request.offset.saturating_add(request.len);
        if let Some(next) = ahead.note(request.offset..end, export.len()) {
            let connection = self.connection.clone();
            workers.run(Box::new(move || connection.decode(next)));
        }
    }

    fn read_pieces(&mut self, request: Request) -> Result<()> {
        let replies = self.connection.replies;
        let whole = !replies.in_chunks()
            || request.flags.contains(CommandFlags::DF)
            || request.len <= SMALL;
        if whole {
            let runs = vec![Run {
                len: request.len,
                zero: false,
            }];
            return self.read_piece(request, request.offset, runs, None);
        }
        let pieces = cut(self.connection.export.place(request.offset), request.len);
        let count = pieces.clone().count();
        let several = (count > 1).then(|| {
            Arc::new(Several {
                left: AtomicUsize::new(count),
                answering: Mutex::new(Some(self.connection.load.answering())),
            })
        });
        let mut at = request.offset;
        for len in pieces {
            let runs = match request.len >= WORTH_A_LOOK {
                true => self.connection.runs(at, len),
                false => None,
            };
            let runs = runs.unwrap_or_else(|| vec![Run { len, zero: false }]);
            self.read_piece(request, at, runs, several.clone())?;
            at += len;
        }
        Ok(())
    }

    /// Answers a small read immediately, if that does not block.
    fn read_small(&mut self, request: &Request) -> Result<bool> {
        let connection = self.connection;
        let head = connection
            .replies
            .data(request, request.offset, request.len, true);
        let head = head.bytes();
        let len = request.len as usize;
        let work = self.work();
        let batch = self.batch(head.len() + len)?;
        let bytes: &mut [u8] = batch.held.buffer_mut();
        let (Some(place), from) = (
            bytes.get_mut(batch.len..),
            connection.export.place(request.offset),
        ) else {
            return Ok(false);
        };
        let Some((start, data)) = place
            .get_mut(..head.len() + len)
            .map(|place| place.split_at_mut(head.len()))
        else {
            return Ok(false);
        };
        let read = connection
            .export
            .with(|image| image.try_read(&mut [IoSliceMut::new(data)], from, work));
        // A failed read is repeated where its error is reported.
        if !matches!(read, Ok(TryRead::Done)) {
            return Ok(false);
        }
        start.copy_from_slice(head);
        batch.len += head.len() + len;
        Ok(true)
    }

    /// How many bytes this thread may decode or decrypt for a request: if others are waiting, the workers do that in
    /// the meantime.
    fn work(&self) -> u64 {
        let alone = self.input.buffered() == 0 && self.connection.load.now().0 == 0;
        if alone { LONE_WORK } else { 0 }
    }

    fn read_piece(
        &mut self,
        request: Request,
        offset: u64,
        runs: Vec<Run>,
        several: Option<Arc<Several>>,
    ) -> Result<()> {
        let data = runs.iter().filter(|run| !run.zero).map(|run| run.len);
        let data: u64 = data.sum();
        if let [run] = &runs[..]
            && let Some((storage, at)) = self.connection.sendable(offset, run)
        {
            let replies = self.connection.replies;
            let charge = self.charge(data);
            let head = replies.data(&request, offset, data, several.is_none());
            let packet = replies.packet(head).with_file(storage, at, data as usize);
            self.send([packet.charged(Some(charge))])?;
            let connection = self.connection;
            connection.finish_piece(&request, several.as_deref(), Sender::Connection);
            return Ok(());
        }
        let work = self.work();
        let charge = self.charge(data);
        let mut piece = ReadPiece {
            request,
            offset,
            runs,
            held: self.take(usize::try_from(data).unwrap_or(usize::MAX))?,
            charge,
            several,
        };
        let connection = self.connection;
        let read = connection.export.with(|image| {
            piece.fill(&connection.export, |buf, at| {
                let read = image.try_read(&mut [IoSliceMut::new(buf)], at, work)?;
                Ok(matches!(read, TryRead::Done))
            })
        });
        if matches!(read, Ok(true)) {
            self.flush_if_full();
            let several = piece.several.clone();
            let packets = piece.into_packets(connection.replies);
            self.send(packets)?;
            connection.finish_piece(&request, several.as_deref(), Sender::Connection);
            return Ok(());
        }
        let connection = connection.clone();
        self.connection.shared.workers.run(Box::new(move || {
            connection.read_later(piece);
        }));
        Ok(())
    }

    fn write(&mut self, request: Request) -> Result<()> {
        self.connection.shared.counters.written(request.len);
        if request.len == 0 {
            return self.hand_over(request, 0, change);
        }
        let export = self.connection.export.clone();
        let start = export.place(request.offset);
        let pieces = cut(start, request.len);
        let write = Arc::new(Write {
            request,
            left: AtomicUsize::new(pieces.clone().count()),
            failed: Mutex::default(),
            _answering: self.connection.load.answering(),
        });
        let mut at = start;
        for len in pieces {
            let charge = self.charge(len);
            let mut held = self.take(len as usize)?;
            self.receive(held.buffer_mut())?;
            let plain = !request.flags.contains(CommandFlags::FUA);
            let slice = [std::io::IoSlice::new(held.buffer())];
            if plain && export.image().overwrites_memory(&slice, at) {
                let written = export.with(|image| image.write_at(held.buffer(), at));
                drop(held);
                if let Some(packet) = self.connection.written(&write, written) {
                    self.send([packet.charged(Some(charge))])?;
                }
            } else {
                let (connection, write) = (self.connection.clone(), write.clone());
                self.connection.shared.workers.run(Box::new(move || {
                    let written = connection
                        .export
                        .with(|image| image.write_at(held.buffer(), at));
                    drop(held);
                    if let Some(packet) = connection.written(&write, written) {
                        let packet = packet.charged(Some(charge));
                        connection.outbox.send([packet], Sender::Worker);
                    }
                }));
            }
            at += len;
        }
        Ok(())
    }

    fn status(&mut self, request: Request) -> Result<()> {
        let connection = self.connection;
        let mut contexts = connection.contexts.clone();
        let mut len = request.len;
        if request.flags.contains(CommandFlags::PAYLOAD_LEN) {
            let mut payload = memory::zeroed(request.len as usize)?;
            self.receive(&mut payload)?;
            let Ok(payload) = StatusPayload::from_bytes(&payload) else {
                return self.refuse(&request, libc::EINVAL);
            };
            let known = |id: &u32| contexts.iter().any(|context| context.id() == *id);
            if !payload.contexts.iter().all(known) {
                return self.refuse(&request, libc::EINVAL);
            }
            contexts.retain(|context| payload.contexts.contains(&context.id()));
            len = payload.len;
            if len == 0 || !connection.export.holds(request.offset, len) {
                return self.refuse(&request, libc::EINVAL);
            }
        }
        let most = match request.flags.contains(CommandFlags::REQ_ONE) {
            true => 1,
            false => usize::MAX,
        };
        let extended = connection.replies.0 == Headers::Extended;
        let count = contexts.len();
        let _anew = AskedAnew::from_now();
        for (context, number) in contexts.into_iter().zip(1..) {
            let last = number == count;
            let runs = connection
                .export
                .with(|_| status::runs(&connection.export, context, request.offset, len, most));
            let runs = match runs {
                Ok(runs) => runs,
                Err(error) => {
                    let packet = connection.failed(&request, error, true);
                    let charge = self.charge(0);
                    return self.send([packet.charged(Some(charge))]);
                }
            };
            let mut bytes = Vec::new();
            let each = match extended {
                true => StatusExtent::EXTENDED_LEN,
                false => StatusExtent::COMPACT_LEN,
            };
            memory::reserve(&mut bytes, StatusHead::EXTENDED_LEN + runs.len() * each)?;
            let head = StatusHead {
                context: context.id(),
                count: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            };
            match extended {
                true => bytes.extend_from_slice(&head.to_extended()),
                false => bytes.extend_from_slice(&head.to_compact()),
            }
            for run in &runs {
                match extended {
                    true => bytes.extend_from_slice(&run.to_extended()),
                    // No run is longer than the request.
                    false => bytes.extend(run.to_compact().into_iter().flatten()),
                }
            }
            let charge = self.charge(bytes.len() as u64);
            let mut held = self.take(bytes.len())?;
            held.buffer_mut().copy_from_slice(&bytes);
            let head = connection
                .replies
                .status(&request, bytes.len() as u64, last);
            let packet = connection.replies.packet(head);
            let packet = packet.with_body(Arc::new(held), 0..bytes.len());
            self.send([packet.charged(Some(charge))])?;
        }
        Ok(())
    }

    /// Leaves a request without data to a worker.
    fn hand_over(
        &mut self,
        request: Request,
        bytes: u64,
        work: impl FnOnce(&Connection, &Request) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let charge = self.charge(bytes);
        let connection = self.connection.clone();
        self.connection.shared.workers.run(Box::new(move || {
            let packet = match work(&connection, &request) {
                Ok(()) => connection.replies.done(&request),
                Err(error) => connection.failed(&request, error, true),
            };
            let packet = packet.charged(Some(charge));
            connection.outbox.send([packet], Sender::Worker);
        }));
        Ok(())
    }

    /// Sends packets, after those batched before them.
    fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<()> {
        let gathered = self.batch.take().map(Batch::into_packet);
        let packets = gathered.into_iter().chain(packets);
        self.connection.outbox.send(packets, Sender::Connection);
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.connection
                .outbox
                .send([batch.into_packet()], Sender::Connection);
        }
    }

    /// The buffer of small replies, with space for this many bytes.
    fn batch(&mut self, len: usize) -> Result<&mut Batch> {
        if self
            .batch
            .as_ref()
            .is_some_and(|batch| BATCH - batch.len < len)
        {
            self.flush();
        }
        if self.batch.is_none() {
            let charge = self.charge(BATCH as u64);
            let held = self.take(BATCH)?;
            self.batch = Some(Batch {
                held,
                len: 0,
                charge,
            });
        }
        let none = || Error::new(ErrorKind::Internal, "There is no buffer for replies");
        self.batch.as_mut().ok_or_else(none)
    }

    /// Waits until this much more work of the client may be in progress.
    fn charge(&mut self, bytes: u64) -> Charge {
        let load = &self.connection.load;
        if !load.has_room(bytes, MOST_REQUESTS, MOST_BYTES) {
            // The batch counts too.
            if let Some(batch) = self.batch.take() {
                self.connection
                    .outbox
                    .send([batch.into_packet()], Sender::Connection);
            }
        }
        load.charge(bytes, MOST_REQUESTS, MOST_BYTES)
    }

    /// Waits for memory.
    fn take(&mut self, len: usize) -> Result<Held> {
        let budget = &self.connection.shared.budget;
        if let Some(held) = budget.take(len, Instant::now())? {
            return Ok(held);
        }
        self.flush();
        loop {
            self.connection.shared.release_decoded();
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                if let Some(held) = budget.take(len, Instant::now() + LOOK)? {
                    return Ok(held);
                }
                if self.connection.outbox.is_shut() {
                    return Err(Error::os(libc::EPIPE));
                }
            }
            self.connection.shared.end_idle_holder(PATIENCE);
        }
    }

    fn flush_if_full(&mut self) {
        if self
            .batch
            .as_ref()
            .is_some_and(|batch| batch.len * 2 > BATCH)
        {
            self.flush();
        }
    }
}

impl Batch {
    fn into_packet(self) -> Packet {
        Packet::new(&[])
            .with_body(Arc::new(self.held), 0..self.len)
            .charged(Some(self.charge))
    }
}

impl Connection {
    /// Checks whether a request may be carried out; otherwise returns the errno.
    fn check(&self, request: &Request) -> std::result::Result<(), i32> {
        let export = &self.export;
        let mut known = CommandFlags::FUA;
        match request.command {
            Command::READ if self.replies.in_chunks() => known |= CommandFlags::DF,
            Command::WRITE_ZEROES => known |= CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
            Command::BLOCK_STATUS => known |= CommandFlags::REQ_ONE,
            _ => {}
        }
        if self.replies.0 == Headers::Extended
            && matches!(request.command, Command::WRITE | Command::BLOCK_STATUS)
        {
            known |= CommandFlags::PAYLOAD_LEN;
        }
        if self.shared.offer.is_ending() || export.is_withdrawn() {
            return Err(libc::ESHUTDOWN);
        }
        if !known.contains(request.flags) {
            return Err(libc::EINVAL);
        }
        let changes = matches!(
            request.command,
            Command::WRITE | Command::TRIM | Command::WRITE_ZEROES
        );
        if changes && !export.writable() {
            return Err(libc::EPERM);
        }
        let inside = export.holds(request.offset, request.len);
        let limit = u64::from(PORTABLE_PAYLOAD);
        match request.command {
            Command::FLUSH => Ok(()),
            Command::BLOCK_STATUS if self.contexts.is_empty() => Err(libc::EINVAL),
            Command::BLOCK_STATUS if request.flags.contains(CommandFlags::PAYLOAD_LEN) => {
                match request.len > u64::from(MAX_OPTION) {
                    true => Err(libc::EINVAL),
                    false => Ok(()),
                }
            }
            Command::BLOCK_STATUS if request.len == 0 => Err(libc::EINVAL),
            Command::READ | Command::WRITE if request.len > limit => Err(libc::EINVAL),
            Command::WRITE | Command::WRITE_ZEROES if !inside => Err(libc::ENOSPC),
            Command::READ
            | Command::WRITE
            | Command::TRIM
            | Command::WRITE_ZEROES
            | Command::CACHE
            | Command::BLOCK_STATUS => match inside {
                true => Ok(()),
                false => Err(libc::EINVAL),
            },
            _ => Err(libc::EINVAL),
        }
    }

    /// The file and offset from which the kernel can send a run directly, presumably without waiting for the disk.
    fn sendable(&self, offset: u64, run: &Run) -> Option<(Arc<dyn Storage>, u64)> {
        if run.zero || run.len < WORTH_SENDING || !self.outbox.sends_files() {
            return None;
        }
        let place = self.export.place(offset);
        let (storage, at) = self
            .export
            .with(|image| image.lasting_place(place, run.len))
            .ok()??;
        let mut byte = [0];
        let mut is_here = |at| {
            let mut bufs = [IoSliceMut::new(&mut byte)];
            storage.try_read(&mut bufs, at).is_ok_and(|read| read)
        };
        let here = is_here(at) && is_here(at + run.len - 1);
        here.then_some((storage, at))
    }

    /// Decodes a range of the export ahead, as long as no request is waiting for a thread or for memory.
    fn decode(&self, range: std::ops::Range<u64>) {
        let Some(ahead) = self.export.ahead() else {
            return;
        };
        let (from, to) = (self.export.place(range.start), self.export.place(range.end));
        let decoded = self.export.with(|image| {
            let start = self.export.place(0);
            let next = |at: u64| {
                let keep = |bytes| image.keep_more_decoded(bytes);
                let goes_on = !self.shared.workers.are_behind()
                    && ahead.has_memory(&self.shared.budget, keep);
                goes_on.then(|| start.saturating_add(ahead.next(at.saturating_sub(start))))
            };
            image.decode_ahead(from, to, MOST_AHEAD, next)
        });
        // Data that cannot be decoded is an error of the read that needs it.
        ahead.ended(decoded.unwrap_or(true));
    }

    /// The runs of a piece of a read; None if they cannot be determined.
    fn runs(&self, offset: u64, len: u64) -> Option<Vec<Run>> {
        let place = self.export.place(offset);
        let mut runs: Vec<Run> = Vec::new();
        let found = self.export.with(|image| {
            let mut done = 0;
            while done < len {
                let known = runs.len() < MOST_RUNS;
                let (part, zero) = match known {
                    true => {
                        let run = image.map_to_read(place.saturating_add(done), len - done)?;
                        let part = run.extent.len.clamp(1, len - done);
                        let zero = run.reads_as() == ReadsAs::Zero;
                        (part, zero && part >= SHORT_HOLE)
                    }
                    false => (len - done, false),
                };
                match runs.last_mut().filter(|last| last.zero == zero) {
                    Some(last) => last.len += part,
                    None => memory::push(&mut runs, Run { len: part, zero })?,
                }
                done += part;
            }
            Ok(())
        });
        found.is_ok().then_some(runs)
    }

    /// Carries out a read that may block.
    fn read_later(&self, mut piece: ReadPiece) {
        let read = self.export.with(|image| {
            piece.fill(&self.export, |buf, at| {
                image.read_at(buf, at).map(|()| true)
            })
        });
        let (request, several) = (piece.request, piece.several.clone());
        let packets = match read {
            Ok(_) => piece.into_packets(self.replies),
            Err(error) => {
                let packet = self.failed(&request, error, several.is_none());
                vec![packet.charged(Some(piece.charge))]
            }
        };
        self.outbox.send(packets, Sender::Worker);
        self.finish_piece(&request, several.as_deref(), Sender::Worker);
    }

    /// Completes a reply of several pieces once the last of them is in the outbox.
    fn finish_piece(&self, request: &Request, several: Option<&Several>, by: Sender) {
        let last = several.filter(|all| all.left.fetch_sub(1, Ordering::AcqRel) == 1);
        if let Some(all) = last {
            let done = self.replies.done(request);
            let done = done.ending(all.answering.lock().take());
            self.outbox.send([done], by);
        }
    }

    /// Records the completion of a piece of a write; returns the reply if it was the last one.
    fn written(&self, write: &Write, result: Result<()>) -> Option<Packet> {
        if let Err(error) = result {
            write.failed.lock().get_or_insert(error);
        }
        if write.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let mut failed = write.failed.lock().take();
        let durable = write.request.flags.contains(CommandFlags::FUA);
        if failed.is_none() && durable {
            let made = self
                .export
                .with(|image| image.change(WriteFlags::FUA, |_| Ok(())));
            failed = made.err();
        }
        Some(match failed {
            None => self.replies.done(&write.request),
            Some(error) => self.failed(&write.request, error, true),
        })
    }

    /// The reply of a request that has failed.
    fn failed(&self, request: &Request, error: Error, last: bool) -> Packet {
        self.shared.counters.failure();
        let packet = self.replies.error(request, errno(&error), last);
        // That zeroes cannot be written fast is not worth reporting.
        if error.kind() != ErrorKind::Unsupported {
            let name = self.export.name();
            let message = format!("Request {} of export '{name}' failed", request.command);
            self.shared.note(Level::Error, error.context(message));
        }
        packet
    }
}

impl ReadPiece {
    /// Fills the memory of the piece, run by run; false if `read` returns false.
    fn fill(
        &mut self,
        export: &Export,
        mut read: impl FnMut(&mut [u8], u64) -> Result<bool>,
    ) -> Result<bool> {
        let mut rest: &mut [u8] = self.held.buffer_mut();
        let mut at = export.place(self.offset);
        for run in &self.runs {
            if !run.zero {
                let len = rest.len().min(run.len as usize);
                let (buf, more) = rest.split_at_mut(len);
                if !read(buf, at)? {
                    return Ok(false);
                }
                rest = more;
            }
            at = at.saturating_add(run.len);
        }
        Ok(true)
    }

    fn into_packets(self, replies: Replies) -> Vec<Packet> {
        let held = Arc::new(self.held);
        let (mut at, mut from) = (self.offset, 0);
        let mut packets = Vec::with_capacity(self.runs.len());
        let count = self.runs.len();
        for (run, number) in self.runs.iter().zip(1..) {
            let last = number == count && self.several.is_none();
            let packet = match u32::try_from(run.len) {
                Ok(len) if run.zero => replies.hole(&self.request, at, len, last),
                _ => {
                    let to = from + run.len as usize;
                    let head = replies.data(&self.request, at, run.len, last);
                    let packet = replies.packet(head).with_body(held.clone(), from..to);
                    from = to;
                    packet
                }
            };
            packets.push(packet);
            at = at.saturating_add(run.len);
        }
        // Released with the last of them.
        if let Some(last) = packets.pop() {
            packets.push(last.charged(Some(self.charge)));
        }
        packets
    }
}

/// The lengths of the pieces that a range of the image is split into.
fn cut(start: u64, len: u64) -> impl Iterator<Item = u64> + Clone {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len - done;
        let part = left.min(PIECE - start.saturating_add(done) % PIECE);
        done += part;
        (part > 0).then_some(part)
    })
}

/// Requests that change the image without a payload, and flushes.
fn change(connection: &Connection, request: &Request) -> Result<()> {
    let export = &connection.export;
    let (at, len) = (export.place(request.offset), request.len);
    let mut flags = WriteFlags::empty();
    flags.set(
        WriteFlags::FUA,
        request.flags.contains(CommandFlags::FUA) && export.writable(),
    );
    export.with(|image| {
        image.change(flags, |image| match request.command {
            Command::FLUSH => image.flush(),
            // It is advice that a format need not be able to follow.
            Command::TRIM => match image.discard(at, len) {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
                done => done,
            },
            Command::WRITE_ZEROES => {
                let mut zero = ZeroFlags::empty();
                let may_unmap = !request.flags.contains(CommandFlags::NO_HOLE);
                zero.set(ZeroFlags::MAY_UNMAP, may_unmap);
                let fast = request.flags.contains(CommandFlags::FAST_ZERO);
                zero.set(ZeroFlags::NO_FALLBACK, fast);
                image.write_zeroes(at, len, zero)
            }
            // A write of length 0.
            _ => Ok(()),
        })
    })
}

/// Prefetches data that is about to be read, up to the maximum length of one read.
fn cache(connection: &Connection, request: &Request) -> Result<()> {
    let export = &connection.export;
    let (mut at, control) = (export.place(request.offset), JobControl::default());
    for len in cut(at, request.len.min(u64::from(PORTABLE_PAYLOAD))) {
        export.with(|image| image.prefetch(at, len, &control))?;
        at += len;
    }
    Ok(())
}

/// The errno that a client is told for a failure.
fn errno(error: &Error) -> i32 {
    crate::nbd::errno::from_wire(crate::nbd::errno::of_error(error))
}
