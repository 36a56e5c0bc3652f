//! A server that says anything to the client: handshakes of all styles, and replies in pieces and in any order, with
//! faults, or bytes that mean nothing. What a read gives is what the server sent for it, a server without a fault is
//! understood, and the client asks only for what it was offered.
#![no_main]

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::nbd::chunk::{ErrorChunk, OffsetData, OffsetHole, StatusExtent, StatusHead};
use platter::nbd::export::{BlockSizes, Info, InfoCode, Listed};
use platter::nbd::flags::{
    ChunkFlags, ClientFlags, CommandFlags, HandshakeFlags, TransmissionFlags,
};
use platter::nbd::greeting::{NewstyleExport, OldstyleExport, PADDING, Style};
use platter::nbd::limits::{MAX_EXPORT, MAX_OPTION, PORTABLE_PAYLOAD, UNLIMITED_BLOCK};
use platter::nbd::meta::{ALLOCATION, MetaContext};
use platter::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use platter::nbd::reply::{Chunk, ChunkType, Headers, SimpleReply};
use platter::nbd::request::{Command, Request};
use platter::ops::exports;
use platter::storage::{Durability, Storage, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy};
use platter_fuzz::look_at;

/// How long the server waits for a client that may be waiting for it.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same where that is likely, or where replies are held back for further requests.
const SHORT: Duration = Duration::from_millis(1);
/// Calls of one run.
const MOST: usize = 12;
/// Requests of one run.
const MAX_REQUESTS: usize = 4000;
/// The most chunks of one reply.
const MAX_PIECES: usize = 64;
/// What buffers hold before they are read into; no byte of the disk is this.
const UNREAD: u8 = 0xa4;
/// The number of the metadata context.
const CONTEXT: u32 = 7;

#[derive(Arbitrary, Debug)]
struct Case {
    hello: Hello,
    offer: Offer,
    calls: Vec<Call>,
    plans: Vec<Plan>,
    answers: Vec<Turn>,
}

/// What the server says first.
#[derive(Arbitrary, Debug)]
struct Hello {
    style: u8,
    /// What it does not offer.
    without: u8,
}

impl Hello {
    /// The client wants the list of exports.
    fn lists(&self) -> bool {
        (192..224).contains(&self.style)
    }

    fn flags(&self) -> HandshakeFlags {
        HandshakeFlags::from_bits_retain(u16::from(!self.without))
    }
}

#[derive(Arbitrary, Debug)]
struct Offer {
    huge: bool,
    size: u64,
    flags: u16,
    sizes: Option<Sizes>,
    more: Option<(u16, Vec<u8>)>,
}

#[derive(Arbitrary, Debug)]
struct Sizes {
    wild: bool,
    minimum: u32,
    preferred: u32,
    maximum: u32,
}

/// What comes for an option: most are taken.
#[derive(Arbitrary, Debug)]
struct Turn {
    weight: u8,
    answer: Answer,
}

impl Turn {
    fn bad(&self) -> Option<&Answer> {
        (self.weight >= 160).then_some(&self.answer)
    }
}

#[derive(Arbitrary, Debug)]
enum Answer {
    Refused { code: u8, message: Vec<u8> },
    Reply { code: u32, data: Vec<u8> },
    Edited { at: u8, byte: u8 },
    Bytes(Vec<u8>),
}

/// How a request is replied to.
#[derive(Arbitrary, Debug, Default)]
struct Plan {
    /// Lengths of the pieces of a read, in units of 256 bytes.
    cuts: Vec<u8>,
    backwards: bool,
    /// After the requests that follow.
    later: bool,
    /// A simple reply where both are allowed.
    simple: bool,
    extents: Vec<(u32, u8)>,
    fault: Option<Fault>,
}

#[derive(Arbitrary, Debug)]
enum Fault {
    Error {
        code: u32,
        message: Vec<u8>,
    },
    ErrorAt {
        offset: u64,
        after: bool,
    },
    Cookie(u64),
    Shift(i32),
    Flags(u16),
    Without(u8),
    Twice(u8),
    AllTwice,
    Never,
    Simple,
    Chunks,
    Kind(u16),
    Len(i32),
    Status {
        context: u32,
        extents: Vec<(u64, u64)>,
    },
    Edited {
        at: u16,
        byte: u8,
    },
    Bytes(Vec<u8>),
    End,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Read { at: u32, len: u16 },
    Vectored { at: u32, first: u16, second: u16 },
    Many { at: u32, each: u16, count: u8 },
    Threads { at: u32, len: u16 },
    Extent { at: u32, len: u32 },
    Write { at: u32, len: u16 },
    Zero { at: u32, len: u32, flags: u8 },
    Discard { at: u32, len: u32 },
    Sync,
    Look,
}

/// What the export holds.
fn byte(at: u64) -> u8 {
    let sector = at / 512;
    match sector.wrapping_mul(0x9e37_79b9) >> 30 & 3 {
        0 => 0,
        _ => (at ^ sector.wrapping_mul(31)) as u8 | 1,
    }
}

fn bytes(at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(byte).collect()
}

/// What was played and what came of it, for both sides.
#[derive(Debug, Default)]
struct Played {
    /// Something was wrong, so that the client may give up.
    fault: AtomicBool,
    /// What was sent may be taken for data of a read.
    any_bytes: AtomicBool,
}

impl Played {
    fn fault(&self) {
        self.fault.store(true, Ordering::SeqCst);
    }

    fn any_bytes(&self) {
        self.fault();
        self.any_bytes.store(true, Ordering::SeqCst);
    }

    fn is_clean(&self) -> bool {
        !self.fault.load(Ordering::SeqCst)
    }

    fn tells_data(&self) -> bool {
        !self.any_bytes.load(Ordering::SeqCst)
    }
}

impl Offer {
    fn size(&self) -> u64 {
        match self.huge {
            true => self.size,
            false => self.size % (1 << 20),
        }
    }

    fn flags(&self) -> TransmissionFlags {
        // Each bit of the input takes away what a server usually has.
        TransmissionFlags::from_bits_retain(!self.flags) | TransmissionFlags::HAS_FLAGS
    }

    fn sizes(&self) -> Option<BlockSizes> {
        let sizes = self.sizes.as_ref()?;
        if sizes.wild {
            return Some(BlockSizes {
                minimum: sizes.minimum,
                preferred: sizes.preferred,
                maximum: sizes.maximum,
            });
        }
        let minimum = 1 << (sizes.minimum % 17);
        Some(BlockSizes {
            minimum,
            preferred: minimum << (sizes.preferred % 8),
            maximum: match sizes.maximum % 256 {
                255 => UNLIMITED_BLOCK,
                // Smaller requests would only be more.
                blocks => minimum * (blocks + 1).max(2048 / minimum),
            },
        })
    }
}

/// The server on its end of the connection.
struct Peer<'a> {
    stream: UnixStream,
    case: &'a Case,
    played: &'a Played,
    headers: Headers,
    context: bool,
    sizes: Option<BlockSizes>,
    plans: std::slice::Iter<'a, Plan>,
}

impl Peer<'_> {
    fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).then_some(bytes)
    }

    /// As [`Peer::read`] where the first byte was read before.
    fn read_from<const N: usize>(&mut self, first: u8) -> Option<[u8; N]> {
        let mut bytes = [first; N];
        self.fill(&mut bytes[1..]).then_some(bytes)
    }

    fn fill(&mut self, buf: &mut [u8]) -> bool {
        self.set_patience(self.played.is_clean());
        let done = self.stream.read_exact(buf);
        // The client may be slow rather than gone.
        if done.is_err() {
            self.played.fault();
        }
        done.is_ok()
    }

    fn set_patience(&self, long: bool) {
        let time = if long { PATIENCE } else { SHORT };
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
    }

    fn send(&mut self, bytes: &[u8]) {
        // A client that has had enough may be gone.
        let _ = self.stream.write_all(bytes);
    }

    fn serve(&mut self) {
        if self.handshake().is_some() {
            self.replies();
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn handshake(&mut self) -> Option<()> {
        let case = self.case;
        let offer = &case.offer;
        // An image ends with a whole sector.
        if offer.size() > MAX_EXPORT - 511 {
            self.played.fault();
        }
        match case.hello.style {
            255 => {
                self.played.any_bytes();
                let turn = case.answers.first();
                if let Some(Answer::Bytes(bytes)) = turn.map(|turn| &turn.answer) {
                    self.send(bytes);
                }
            }
            224..255 => {
                let export = OldstyleExport {
                    size: offer.size(),
                    flags: offer.flags(),
                };
                let parts = [
                    &Style::Old.to_bytes()[..],
                    &export.to_bytes(),
                    &[0; PADDING],
                ];
                self.send(&parts.concat());
                return Some(());
            }
            _ => {
                let flags = case.hello.flags().to_bytes();
                self.send(&[&Style::New.to_bytes()[..], &flags].concat());
            }
        }
        let client = ClientFlags::from_bytes(self.read()?);
        let mut answers = case.answers.iter();
        // A client that asks without end would be at fault.
        let most = 16 + 2 * MOST;
        for _ in 0..most {
            let header = OptionHeader::from_bytes(&self.read()?).expect("an option");
            assert!(header.len <= MAX_OPTION);
            let mut data = vec![0; header.len as usize];
            self.fill(&mut data).then_some(())?;
            let answer = answers.next().and_then(Turn::bad);
            if header.option == OptionCode::ABORT {
                // After a list it is a farewell.
                if !case.hello.lists() {
                    self.played.fault();
                }
                return None;
            }
            let good = match header.option {
                OptionCode::EXPORT_NAME => {
                    let export = NewstyleExport {
                        size: offer.size(),
                        flags: offer.flags(),
                    };
                    let mut reply = export.to_bytes().to_vec();
                    if !client.contains(ClientFlags::NO_ZEROES) {
                        reply.extend([0; PADDING]);
                    }
                    reply
                }
                option => {
                    let fixed = HandshakeFlags::FIXED_NEWSTYLE;
                    assert!(!self.played.tells_data() || case.hello.flags().contains(fixed));
                    self.good(option)
                }
            };
            let reply = |code: ReplyCode, data: &[u8]| {
                let reply = OptionReply {
                    option: header.option,
                    code,
                    len: data.len() as u32,
                };
                [&reply.to_bytes()[..], data].concat()
            };
            let taken = matches!(answer, None | Some(Answer::Edited { .. }));
            match answer {
                None => self.send(&good),
                Some(Answer::Refused { code, message }) => {
                    self.played.fault();
                    if header.option == OptionCode::EXPORT_NAME {
                        // It has no replies: what is not there ends the session.
                        return None;
                    }
                    let code = 1 << 31 | u32::from(code % 12);
                    self.send(&reply(ReplyCode(code), message));
                }
                Some(Answer::Reply { code, data }) => {
                    self.played.any_bytes();
                    self.send(&reply(ReplyCode(*code), data));
                }
                Some(Answer::Edited { at, byte }) => {
                    self.played.any_bytes();
                    let mut good = good;
                    let at = usize::from(*at) % good.len();
                    good[at] = *byte;
                    self.send(&good);
                }
                Some(Answer::Bytes(bytes)) => {
                    self.played.any_bytes();
                    self.send(bytes);
                }
            }
            match header.option {
                OptionCode::EXTENDED_HEADERS if taken => self.headers = Headers::Extended,
                OptionCode::STRUCTURED_REPLY if taken => self.headers = Headers::Structured,
                OptionCode::SET_META_CONTEXT => self.context = taken,
                OptionCode::EXPORT_NAME => return Some(()),
                OptionCode::GO if taken => {
                    self.sizes = offer.sizes();
                    return Some(());
                }
                _ => {}
            }
        }
        panic!("the client asks without end");
    }

    /// The replies of a server that has the option.
    fn good(&self, option: OptionCode) -> Vec<u8> {
        let offer = &self.case.offer;
        let mut all = Vec::new();
        let mut reply = |code, data: &[u8]| {
            let reply = OptionReply {
                option,
                code,
                len: data.len() as u32,
            };
            all.extend(reply.to_bytes());
            all.extend(data);
        };
        match option {
            OptionCode::LIST => {
                for plan in self.case.plans.iter().take(MOST) {
                    let listed = Listed {
                        name: plan.cuts.clone().into(),
                        description: format!("{:?}", plan.extents).into(),
                    };
                    reply(ReplyCode::SERVER, &listed.to_bytes());
                }
            }
            OptionCode::SET_META_CONTEXT | OptionCode::LIST_META_CONTEXT => {
                let context = MetaContext {
                    id: CONTEXT,
                    name: ALLOCATION.into(),
                };
                reply(ReplyCode::META_CONTEXT, &context.to_bytes());
            }
            OptionCode::GO | OptionCode::INFO => {
                if let Some((code, data)) = &offer.more {
                    // Information of a known kind has its own form.
                    if *code <= InfoCode::BLOCK_SIZE.0 {
                        self.played.any_bytes();
                    }
                    reply(ReplyCode::INFO, &[&code.to_be_bytes()[..], data].concat());
                }
                let export = Info::Export {
                    size: offer.size(),
                    flags: offer.flags(),
                };
                reply(ReplyCode::INFO, &export.to_bytes());
                if let Some(sizes) = offer.sizes() {
                    let info = Info::BlockSizes(sizes).to_bytes();
                    if Info::from_bytes(&info).is_err() {
                        self.played.fault();
                    }
                    reply(ReplyCode::INFO, &info);
                }
            }
            _ => {}
        }
        reply(ReplyCode::ACK, &[]);
        all
    }

    /// The next request; what a client may ask for is checked.
    fn request(&mut self, first: u8) -> Option<Request> {
        let request = match self.headers {
            Headers::Extended => Request::from_extended(&self.read_from(first)?),
            _ => Request::from_compact(&self.read_from(first)?),
        };
        let tells = self.played.tells_data();
        let Ok(request) = request else {
            assert!(!tells, "{request:?}");
            return None;
        };
        if tells {
            self.judge(&request);
        }
        if request.command == Command::WRITE {
            if request.len > u64::from(PORTABLE_PAYLOAD) {
                assert!(!tells, "{request:?}");
                return None;
            }
            let mut data = vec![0; request.len as usize];
            self.fill(&mut data).then_some(())?;
        }
        (request.command != Command::DISC).then_some(request)
    }

    fn judge(&self, request: &Request) {
        let offer = &self.case.offer;
        let has = |flag| offer.flags().contains(flag);
        let flag = |flag| request.flags.contains(flag);
        let writes = !has(TransmissionFlags::READ_ONLY);
        let offered = match request.command {
            Command::READ | Command::DISC => true,
            Command::WRITE => writes,
            Command::FLUSH => has(TransmissionFlags::SEND_FLUSH),
            Command::TRIM => writes && has(TransmissionFlags::SEND_TRIM),
            Command::WRITE_ZEROES => writes && has(TransmissionFlags::SEND_WRITE_ZEROES),
            Command::BLOCK_STATUS => self.context,
            _ => false,
        };
        assert!(offered, "{request:?}");
        assert!(!flag(CommandFlags::FUA) || has(TransmissionFlags::SEND_FUA));
        assert!(!flag(CommandFlags::FAST_ZERO) || has(TransmissionFlags::SEND_FAST_ZERO));
        if matches!(request.command, Command::FLUSH | Command::DISC) {
            assert_eq!((request.offset, request.len), (0, 0));
            return;
        }
        let end = request.offset.checked_add(request.len);
        let end = end.filter(|end| *end <= offer.size());
        let end = end.unwrap_or_else(|| panic!("{request:?} of {}", offer.size()));
        assert!(request.len > 0, "{request:?}");
        if let Some(sizes) = self.sizes {
            let whole = |at: u64| at.is_multiple_of(u64::from(sizes.minimum));
            assert!(
                whole(request.offset) && (whole(end) || end == offer.size()),
                "{request:?} {sizes:?}"
            );
            let data = matches!(request.command, Command::READ | Command::WRITE);
            assert!(
                !data || request.len <= u64::from(sizes.maximum),
                "{request:?} {sizes:?}"
            );
        }
    }

    fn replies(&mut self) {
        let mut held: Vec<(Request, &Plan)> = Vec::new();
        const GOOD: &Plan = &Plan {
            cuts: Vec::new(),
            backwards: false,
            later: false,
            simple: false,
            extents: Vec::new(),
            fault: None,
        };
        for _ in 0..MAX_REQUESTS {
            self.set_patience(held.is_empty() && self.played.is_clean());
            // Between requests, silence is no fault where something can still be said.
            let mut first = [0];
            let begun = loop {
                match self.stream.read(&mut first) {
                    // The engine's clock.
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            match begun {
                Err(_) if !held.is_empty() => {
                    for (request, plan) in held.drain(..).rev() {
                        if !self.reply(&request, plan) {
                            return;
                        }
                    }
                }
                Err(_) | Ok(0) => {
                    self.played.fault();
                    return;
                }
                Ok(_) => {
                    let Some(request) = self.request(first[0]) else {
                        return;
                    };
                    let plan = self.plans.next().unwrap_or(GOOD);
                    if plan.later {
                        held.push((request, plan));
                    } else if !self.reply(&request, plan) {
                        return;
                    }
                }
            }
        }
        self.played.fault();
    }

    fn chunk(
        &self,
        request: &Request,
        kind: ChunkType,
        last: bool,
        payload: &[u8],
    ) -> (Chunk, Vec<u8>) {
        let mut flags = ChunkFlags::empty();
        flags.set(ChunkFlags::DONE, last);
        let chunk = Chunk {
            flags,
            kind,
            cookie: request.cookie,
            len: payload.len() as u64,
        };
        (chunk, payload.to_vec())
    }

    /// The ranges in which a read is replied to.
    fn ranges(&self, request: &Request, plan: &Plan) -> Vec<(u64, u64)> {
        let end = request.offset + request.len;
        let mut at = request.offset;
        let mut ranges = Vec::new();
        for cut in plan.cuts.iter().take(MAX_PIECES) {
            let len = (u64::from(*cut) * 256).max(1).min(end - at);
            if at + len < end {
                ranges.push((at, len));
                at += len;
            }
        }
        ranges.push((at, end - at));
        if plan.backwards {
            ranges.reverse();
        }
        ranges
    }

    fn status(&self, context: u32, extents: &[StatusExtent]) -> Vec<u8> {
        let head = StatusHead {
            context,
            count: extents.len() as u32,
        };
        match self.headers {
            Headers::Extended => {
                let extents = extents.iter().flat_map(|extent| extent.to_extended());
                head.to_extended().into_iter().chain(extents).collect()
            }
            _ => {
                let extents = extents.iter().filter_map(|extent| extent.to_compact());
                head.to_compact()
                    .into_iter()
                    .chain(extents.flatten())
                    .collect()
            }
        }
    }

    /// False where nothing follows.
    fn reply(&mut self, request: &Request, plan: &Plan) -> bool {
        let fault = plan.fault.as_ref();
        if fault.is_some() {
            self.played.fault();
        }
        let reads = request.command == Command::READ;
        let asks = request.command == Command::BLOCK_STATUS;
        let simple = match fault {
            Some(Fault::Simple) => true,
            Some(Fault::Chunks) => false,
            _ => match self.headers {
                Headers::Simple => true,
                Headers::Structured => plan.simple && !reads && !asks,
                Headers::Extended => false,
            },
        };
        if simple {
            let error = match fault {
                Some(Fault::Error { code, .. }) => *code,
                _ => 0,
            };
            let mut cookie = request.cookie;
            if let Some(Fault::Cookie(other)) = fault {
                // Nothing in the data says which request it is for.
                self.played.any_bytes();
                cookie ^= other;
            }
            let mut all = SimpleReply { error, cookie }.to_bytes().to_vec();
            if reads && error == 0 {
                all.extend(bytes(request.offset, request.len));
            }
            return self.send_with(all, fault);
        }
        let mut chunks = Vec::new();
        match fault {
            Some(Fault::Error { code, message }) => {
                let error = ErrorChunk {
                    error: *code,
                    message: message.as_slice().into(),
                    offset: None,
                };
                chunks.push(self.chunk(request, ChunkType::ERROR, true, &error.to_bytes()));
            }
            Some(Fault::ErrorAt {
                offset,
                after: false,
            }) => {
                let error = ErrorChunk {
                    error: 5,
                    message: "no".into(),
                    offset: Some(*offset),
                };
                chunks.push(self.chunk(request, ChunkType::ERROR_OFFSET, true, &error.to_bytes()));
            }
            Some(Fault::Status { context, extents }) => {
                let extents = extents.iter();
                let extents = extents.map(|(len, flags)| StatusExtent {
                    len: *len,
                    flags: *flags,
                });
                let extents: Vec<_> = extents.collect();
                let payload = self.status(CONTEXT ^ context, &extents);
                let kind = match self.headers {
                    Headers::Extended => ChunkType::BLOCK_STATUS_EXT,
                    _ => ChunkType::BLOCK_STATUS,
                };
                chunks.push(self.chunk(request, kind, true, &payload));
            }
            _ if reads => {
                let shift = match fault {
                    Some(Fault::Shift(by)) => i64::from(*by),
                    _ => 0,
                };
                for (at, len) in self.ranges(request, plan) {
                    // What it says of itself is true, wherever that is.
                    let offset = at.wrapping_add_signed(shift);
                    let data = match offset.checked_add(len) {
                        Some(_) => bytes(offset, len),
                        None => vec![1; len as usize],
                    };
                    let (kind, payload) = match data.iter().all(|byte| *byte == 0) {
                        true => {
                            let len = len as u32;
                            let hole = OffsetHole { offset, len }.to_bytes();
                            (ChunkType::OFFSET_HOLE, hole.to_vec())
                        }
                        false => {
                            let head = OffsetData { offset }.to_bytes();
                            (ChunkType::OFFSET_DATA, [&head[..], &data].concat())
                        }
                    };
                    chunks.push(self.chunk(request, kind, false, &payload));
                }
                if let Some(Fault::ErrorAt { offset, .. }) = fault {
                    let error = ErrorChunk {
                        error: 5,
                        message: "no".into(),
                        offset: Some(*offset),
                    };
                    let error = error.to_bytes();
                    chunks.push(self.chunk(request, ChunkType::ERROR_OFFSET, false, &error));
                }
            }
            _ if asks => {
                let extents = plan.extents.iter();
                let extents = extents.map(|(len, flags)| StatusExtent {
                    len: u64::from(len | 1),
                    flags: u64::from(*flags),
                });
                let mut extents: Vec<_> = extents.collect();
                if extents.is_empty() {
                    let len = request.len;
                    extents.push(StatusExtent { len, flags: 0 });
                }
                let payload = self.status(CONTEXT, &extents);
                let kind = match self.headers {
                    Headers::Extended => ChunkType::BLOCK_STATUS_EXT,
                    _ => ChunkType::BLOCK_STATUS,
                };
                chunks.push(self.chunk(request, kind, true, &payload));
            }
            _ => chunks.push(self.chunk(request, ChunkType::NONE, true, &[])),
        }
        match fault {
            Some(Fault::Without(at)) => {
                chunks.remove(usize::from(*at) % chunks.len());
            }
            Some(Fault::Twice(at)) => {
                let again = chunks[usize::from(*at) % chunks.len()].clone();
                chunks.push(again);
            }
            Some(Fault::AllTwice) => chunks.extend(chunks.clone()),
            _ => {}
        }
        if let Some((chunk, _)) = chunks.last_mut() {
            chunk.flags |= ChunkFlags::DONE;
            let (chunk, payload) = chunks.last_mut().expect("the last");
            match fault {
                Some(Fault::Cookie(other)) => chunk.cookie ^= other,
                Some(Fault::Flags(other)) => {
                    chunk.flags ^= ChunkFlags::from_bits_retain(*other);
                }
                Some(Fault::Kind(kind)) => {
                    self.played.any_bytes();
                    chunk.kind = ChunkType(*kind);
                }
                Some(Fault::Len(by)) => {
                    self.played.any_bytes();
                    chunk.len = (payload.len() as u64).wrapping_add_signed(i64::from(*by));
                }
                _ => {}
            }
        }
        let mut all = Vec::new();
        for (chunk, payload) in chunks {
            match self.headers {
                Headers::Extended => all.extend(chunk.to_extended(request.offset)),
                _ => all.extend(chunk.to_compact().unwrap_or([0; Chunk::COMPACT_LEN])),
            }
            all.extend(payload);
        }
        self.send_with(all, fault)
    }

    fn send_with(&mut self, mut all: Vec<u8>, fault: Option<&Fault>) -> bool {
        match fault {
            Some(Fault::Never) => return true,
            Some(Fault::End) => {
                all.truncate(all.len() / 2);
                self.send(&all);
                return false;
            }
            Some(Fault::Edited { at, byte }) => {
                self.played.any_bytes();
                let at = usize::from(*at) % all.len().max(1);
                if let Some(known) = all.get_mut(at) {
                    *known = *byte;
                }
            }
            Some(Fault::Bytes(bytes)) => {
                self.played.any_bytes();
                all.clone_from(bytes);
            }
            _ => {}
        }
        self.send(&all);
        true
    }
}

/// The client.
struct Calls<'a> {
    storage: &'a dyn Storage,
    size: u64,
    played: &'a Played,
}

impl Calls<'_> {
    /// Most calls begin inside the export, or at its end.
    fn place(&self, at: u32) -> u64 {
        match at % 8 {
            7 => self.size.saturating_sub(u64::from(at >> 3) % 4096),
            6 => self.size.saturating_sub(1) / 512 * 512,
            _ => u64::from(at >> 3) % self.size.saturating_add(512) / 512 * 512 + u64::from(at & 1),
        }
    }

    fn expect(&self, done: &platter::Result<()>) {
        assert!(!self.played.is_clean() || done.is_ok(), "{done:?}");
    }

    /// That a change was done which can be.
    fn expect_inside(&self, done: &platter::Result<()>, at: u64, len: u64) {
        if at + len <= self.size && !self.storage.read_only() {
            self.expect(done);
        }
    }

    fn compare(&self, done: &platter::Result<()>, at: u64, got: &[u8]) {
        self.expect(done);
        if done.is_err() || !self.played.tells_data() {
            return;
        }
        for (index, got) in got.iter().enumerate() {
            let at = at + index as u64;
            let sent = if at < self.size { byte(at) } else { 0 };
            assert_eq!(*got, sent, "at {at} of {}", self.size);
        }
    }

    fn read(&self, at: u64, len: u16) {
        let mut buf = vec![UNREAD; usize::from(len)];
        let done = self.storage.read_at(&mut buf, at);
        self.compare(&done, at, &buf);
    }

    fn run(&self, call: &Call, image: &Image) {
        match *call {
            Call::Read { at, len } => self.read(self.place(at), len),
            Call::Vectored { at, first, second } => {
                let at = self.place(at);
                let mut buf = vec![UNREAD; usize::from(first) + usize::from(second)];
                let (one, two) = buf.split_at_mut(usize::from(first));
                let mut bufs = [IoSliceMut::new(one), IoSliceMut::new(two)];
                let done = self.storage.read_vectored_at(&mut bufs, at);
                self.compare(&done, at, &buf);
            }
            Call::Many { at, each, count } => {
                let at = self.place(at);
                let each = usize::from(each % 8192).max(1).next_multiple_of(512);
                let mut buf = vec![UNREAD; each * usize::from(count % 20)];
                let parts = buf.chunks_mut(each).enumerate();
                let mut ranges: Vec<_> = parts
                    .map(|(index, part)| (at + (index * each) as u64, part))
                    .collect();
                let done = self.storage.read_many_at(&mut ranges);
                self.compare(&done, at, &buf);
            }
            Call::Threads { at, len } => {
                let at = self.place(at);
                std::thread::scope(|scope| {
                    for part in 0..3 {
                        scope.spawn(move || self.read(at + part * u64::from(len), len));
                    }
                });
            }
            Call::Extent { at, len } => {
                let (at, len) = (self.place(at), u64::from(len).max(1));
                match self.storage.extent(at, len) {
                    Ok(found) => assert!((1..=len).contains(&found.len), "{found:?}"),
                    Err(error) => assert!(!self.played.is_clean(), "{error}"),
                }
            }
            Call::Write { at, len } => {
                let at = self.place(at);
                let done = self.storage.write_at(&vec![1; usize::from(len)], at);
                self.expect_inside(&done, at, len.into());
            }
            Call::Zero { at, len, flags } => {
                let flags = ZeroFlags::from_bits_truncate(flags.into());
                let (at, len) = (self.place(at), u64::from(len) >> 12);
                let done = self.storage.write_zeroes(at, len, flags);
                if !flags.contains(ZeroFlags::NO_FALLBACK) {
                    self.expect_inside(&done, at, len);
                }
            }
            Call::Discard { at, len } => {
                let _ = self.storage.discard(self.place(at), len.into());
            }
            Call::Sync => self.expect(&self.storage.sync(Durability::Synced)),
            Call::Look => look_at(image),
        }
    }
}

/// Asks for the list: what is in it is what was sent.
fn list(case: &Case, near: UnixStream, played: &Played) {
    let number = near.as_raw_fd();
    let location =
        Location::from_image_opts(&format!("driver=nbd,server.type=fd,server.str={number}"));
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let found = exports::list(&location.expect("a location"), &options);
    drop(near);
    // A server may send names that no export can have.
    if let Ok(found) = found
        && played.tells_data()
    {
        let sent = case.plans.iter().take(MOST);
        let names = found.exports.iter().map(|export| export.name.to_vec());
        assert!(names.eq(sent.map(|plan| plan.cuts.clone())));
    }
}

fn play(case: &Case, near: UnixStream, played: &Played) {
    if case.hello.lists() {
        return list(case, near, played);
    }
    let number = near.as_raw_fd();
    let location = Location::from_image_opts(&format!(
        "driver=raw,file.driver=nbd,file.server.type=fd,file.server.str={number}"
    ));
    let options = OpenOptions {
        writable: !case.offer.flags().contains(TransmissionFlags::READ_ONLY),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&location.expect("a location"), &options);
    // The client has its own.
    drop(near);
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            assert!(!played.is_clean(), "{error}");
            return;
        }
    };
    let calls = Calls {
        storage: &**image.storage(),
        size: image.storage().len().expect("the length"),
        played,
    };
    if played.tells_data() {
        assert_eq!(calls.size, case.offer.size());
    }
    for call in case.calls.iter().take(MOST) {
        calls.run(call, &image);
    }
}

fuzz_target!(|case: Case| {
    let (near, far) = UnixStream::pair().expect("a pair");
    let played = Played::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = Peer {
                stream: far,
                case: &case,
                played: &played,
                headers: Headers::Simple,
                context: false,
                sizes: None,
                plans: case.plans.iter(),
            };
            peer.serve();
        });
        play(&case, near, &played);
    });
});
