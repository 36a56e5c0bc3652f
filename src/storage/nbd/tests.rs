//! The client against servers that keep to a script.

mod flushes;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bstr::BString;
use parking_lot::Mutex;

use super::options::{OPTIONS, Settings};
use super::pool;
use super::storage::NbdStorage;
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::nbd::chunk::{OffsetData, StatusExtent, StatusHead};
use crate::nbd::export::{Info, InfoRequest, Listed};
use crate::nbd::flags::{ChunkFlags, HandshakeFlags, StateFlags, TransmissionFlags};
use crate::nbd::greeting::Style;
use crate::nbd::meta::{ALLOCATION, MetaContext};
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::{Chunk, ChunkType, SimpleReply};
use crate::nbd::request::{Command, Request};
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::storage::exports::ExportInfo;
use crate::storage::{CacheMode, Durability, Storage, ZeroFlags};

const SIZE: u64 = 1 << 20;

/// What a server does on a connection.
type Script = fn(&mut Peer);

/// What a server offers.
#[derive(Clone, Copy)]
struct Offer {
    size: u64,
    structured: bool,
    flags: TransmissionFlags,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            size: SIZE,
            structured: true,
            flags: TransmissionFlags::HAS_FLAGS
                | TransmissionFlags::SEND_FLUSH
                | TransmissionFlags::SEND_WRITE_ZEROES,
        }
    }
}

/// One connection as its server sees it.
struct Peer(UnixStream);

impl Peer {
    fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn send(&mut self, parts: &[&[u8]]) {
        // A client that has had enough may be gone.
        let _ = self.0.write_all(&parts.concat());
    }

    fn handshake(&mut self, offer: Offer) -> Option<()> {
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        self.send(&[&Style::New.to_bytes(), &flags.to_bytes()]);
        self.read::<4>()?;
        loop {
            let header = OptionHeader::from_bytes(&self.read()?).unwrap();
            let mut data = vec![0; header.len as usize];
            self.0.read_exact(&mut data).ok()?;
            let mut reply = |code, data: &[u8]| {
                let reply = OptionReply {
                    option: header.option,
                    code,
                    len: data.len() as u32,
                };
                let _ = self.0.write_all(&[&reply.to_bytes(), data].concat());
            };
            match header.option {
                OptionCode::STRUCTURED_REPLY if offer.structured => reply(ReplyCode::ACK, b""),
                OptionCode::SET_META_CONTEXT => {
                    let context = MetaContext {
                        id: 7,
                        name: ALLOCATION.into(),
                    };
                    reply(ReplyCode::META_CONTEXT, &context.to_bytes());
                    reply(ReplyCode::ACK, b"");
                }
                OptionCode::GO => {
                    InfoRequest::from_bytes(&data).unwrap();
                    let info = Info::Export {
                        size: offer.size,
                        flags: offer.flags,
                    };
                    reply(ReplyCode::INFO, &info.to_bytes());
                    reply(ReplyCode::ACK, b"");
                    return Some(());
                }
                _ => reply(ReplyCode::ERR_UNSUP, b""),
            }
        }
    }

    fn request(&mut self) -> Option<(Request, Vec<u8>)> {
        let request = Request::from_compact(&self.read()?).unwrap();
        let mut data = Vec::new();
        if request.command == Command::WRITE {
            data.resize(request.len as usize, 0);
            self.0.read_exact(&mut data).ok()?;
        }
        (request.command != Command::DISC).then_some((request, data))
    }

    fn simple(&mut self, request: &Request, error: u32, data: &[u8]) {
        let cookie = request.cookie;
        self.send(&[&SimpleReply { error, cookie }.to_bytes(), data]);
    }

    fn chunk(&mut self, request: &Request, kind: ChunkType, last: bool, payload: &[u8]) {
        let mut flags = ChunkFlags::empty();
        flags.set(ChunkFlags::DONE, last);
        let chunk = Chunk {
            flags,
            kind,
            cookie: request.cookie,
            len: payload.len() as u64,
        };
        self.send(&[&chunk.to_compact().unwrap(), payload]);
    }

    fn data(&mut self, request: &Request, offset: u64, last: bool, data: &[u8]) {
        let head = OffsetData { offset }.to_bytes();
        let payload = [&head, data].concat();
        self.chunk(request, ChunkType::OFFSET_DATA, last, &payload);
    }

    fn status(&mut self, request: &Request, extents: &[(u64, StateFlags)]) {
        let head = StatusHead {
            context: 7,
            count: 0,
        };
        let mut payload = head.to_compact().to_vec();
        for (len, flags) in extents {
            let extent = StatusExtent {
                len: *len,
                flags: flags.bits(),
            };
            payload.extend(extent.to_compact().unwrap());
        }
        self.chunk(request, ChunkType::BLOCK_STATUS, true, &payload);
    }
}

/// What stands at an offset, as the servers here have it.
fn content(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| (at / 512) as u8).collect()
}

/// A server on a socket of its own.
struct Fake {
    dir: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Serves one connection after the other, each by the next of the scripts.
    fn new(scripts: Vec<(Offer, Script)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            for (offer, script) in scripts {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                let mut peer = Peer(stream);
                if peer.handshake(offer).is_some() {
                    script(&mut peer);
                }
            }
        });
        Self {
            dir,
            thread: Some(thread),
        }
    }

    fn one(offer: Offer, script: Script) -> Self {
        Self::new(vec![(offer, script)])
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn settings(&self, more: &str) -> Settings {
        let list = format!("path={}{more}", self.path().display());
        let values = Values::check(&Options::parse(&list).unwrap(), OPTIONS).unwrap();
        Settings::of(&values, &Objects::new()).unwrap()
    }

    fn open(&self, more: &str, control: &Arc<JobControl>) -> Result<NbdStorage> {
        let settings = self.settings(more);
        let given = crate::value::Map::from_iter([(
            "path".to_owned(),
            BString::from(self.path().as_os_str().as_encoded_bytes()).into(),
        )]);
        let cache = CacheMode::Writeback;
        NbdStorage::open(&settings, &given, true, cache, control)
    }

    fn opened(&self) -> NbdStorage {
        self.open("", &Arc::default()).unwrap()
    }

    fn end(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Serves whatever comes, with structured replies.
fn serve(peer: &mut Peer) {
    while let Some((request, _)) = peer.request() {
        match request.command {
            Command::READ => {
                let data = content(request.offset, request.len);
                peer.data(&request, request.offset, true, &data);
            }
            Command::BLOCK_STATUS => peer.status(&request, &[(SIZE, StateFlags::empty())]),
            _ => peer.simple(&request, 0, b""),
        }
    }
}

#[track_caller]
fn broken(result: Result<()>, says: &str) -> Error {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(says), "{text}");
    assert!(text.contains("nbd+unix://?socket="), "{text}");
    error
}

#[test]
fn replies_in_any_order_come_to_those_who_wait_for_them() {
    let fake = Fake::one(Offer::default(), |peer| {
        while let Some(first) = peer.request() {
            let mut all = vec![first];
            // Those that are there by now, the last one first, and in pieces that mix.
            peer.0
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            while all.len() < 8 {
                let Some(next) = peer.request() else { break };
                all.push(next);
            }
            peer.0.set_read_timeout(None).unwrap();
            for last in [false, true] {
                for (request, _) in all.iter().rev() {
                    let half = request.len / 2;
                    let at = request.offset + if last { 0 } else { half };
                    peer.data(request, at, last, &content(at, half));
                }
            }
        }
    });
    let storage = fake.opened();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let storage = &storage;
            scope.spawn(move || {
                for step in 0..10 {
                    let offset = (thread * 10 + step) * 4096;
                    let mut buf = [0xee; 4096];
                    storage.read_at(&mut buf, offset).unwrap();
                    assert_eq!(buf.to_vec(), content(offset, 4096));
                }
            });
        }
    });
    drop(storage);
    fake.end();
}

#[test]
fn ranges_of_one_call_are_asked_for_before_the_first_reply() {
    let fake = Fake::one(Offer::default(), |peer| {
        let all: Vec<_> = (0..8).map_while(|_| peer.request()).collect();
        for (request, _) in all.iter().rev() {
            peer.data(
                request,
                request.offset,
                true,
                &content(request.offset, request.len),
            );
        }
        serve(peer);
    });
    let storage = fake.opened();
    let mut bufs = vec![[0xee; 4096]; 8];
    let places = bufs.iter_mut().enumerate();
    let mut ranges: Vec<_> = places
        .map(|(n, buf)| (n as u64 * 8192, &mut buf[..]))
        .collect();
    storage.read_many_at(&mut ranges).unwrap();
    for (n, buf) in bufs.iter().enumerate() {
        assert_eq!(buf.to_vec(), content(n as u64 * 8192, 4096));
    }
    // Those that fit no block, pass the end or are empty, among others.
    let (mut odd, mut past, mut whole) = ([0xee; 700], [0xee; 1024], [0xee; 512]);
    let ranges = &mut [
        (100, &mut odd[..]),
        (SIZE - 512, &mut past[..]),
        (7, &mut []),
        (512, &mut whole[..]),
    ];
    storage.read_many_at(ranges).unwrap();
    assert_eq!(odd.to_vec(), content(100, 700));
    assert_eq!(
        past.to_vec(),
        [content(SIZE - 512, 512), vec![0; 512]].concat()
    );
    assert_eq!(whole.to_vec(), content(512, 512));
    drop(storage);
    fake.end();
}

#[test]
fn servers_that_break_the_protocol_are_told_in_one_line() {
    let scripts: [(&str, bool, Script); 8] = [
        ("not made", true, |peer| {
            let (mut request, _) = peer.request().unwrap();
            request.cookie ^= 1 << 40;
            peer.simple(&request, 0, b"");
        }),
        ("sent no reply", true, |peer| {
            peer.request();
            peer.send(&[&[0x11; 200]]);
        }),
        ("ended before it was complete", true, |peer| {
            let (request, _) = peer.request().unwrap();
            peer.data(&request, request.offset, true, &[0; 100]);
        }),
        ("the same bytes twice", true, |peer| {
            let (request, _) = peer.request().unwrap();
            peer.data(&request, request.offset, false, &[0; 512]);
            peer.data(&request, request.offset + 511, true, &[0; 513]);
        }),
        ("not asked for", true, |peer| {
            let (request, _) = peer.request().unwrap();
            peer.data(&request, request.offset + 1000, true, &[0; 512]);
        }),
        ("are the most", true, |peer| {
            let (request, _) = peer.request().unwrap();
            peer.chunk(&request, ChunkType::ERROR, true, &vec![0; 1 << 20]);
        }),
        ("kind that was not agreed on", false, |peer| {
            let (request, _) = peer.request().unwrap();
            peer.data(&request, request.offset, true, &[0; 1024]);
        }),
        ("Unexpected end-of-file", true, |peer| {
            peer.request();
        }),
    ];
    for (says, structured, script) in scripts {
        let offer = Offer {
            structured,
            ..Offer::default()
        };
        let fake = Fake::one(offer, script);
        let storage = fake.opened();
        broken(storage.read_at(&mut [0; 1024], 4096), says);
        // What is broken stays so.
        broken(storage.read_at(&mut [0; 1024], 0), says);
        fake.end();
    }
}

#[test]
fn a_cancel_ends_the_wait_for_a_server_that_stalls_and_later_requests_connect_again() {
    static STALLED: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            while peer.request().is_some() {
                STALLED.fetch_add(1, Ordering::SeqCst);
            }
        }),
        (Offer::default(), serve),
    ]);
    let control = Arc::new(JobControl::default());
    let storage = fake.open("", &control).unwrap();
    let other = fake.opened();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = scope.spawn(|| storage.read_at(&mut [0; 512], 0));
        let two = scope.spawn(|| storage.read_at(&mut [0; 512], 512));
        while STALLED.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        control.cancel();
        for thread in [one, two] {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Another's work goes on.
    let mut buf = [0; 512];
    other.read_at(&mut buf, 1024).unwrap();
    assert_eq!(buf.to_vec(), content(1024, 512));
    drop((storage, other));
    fake.end();
}

#[test]
fn requests_outlive_a_lost_connection_where_a_delay_allows_it() {
    fn three(peer: &mut Peer) {
        for _ in 0..3 {
            let (request, _) = peer.request().unwrap();
            let data = content(request.offset, request.len);
            peer.data(&request, request.offset, true, &data);
        }
        peer.request();
    }
    let fake = Fake::new(vec![
        (Offer::default(), three),
        (Offer::default(), three),
        (Offer::default(), serve),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    for step in 0..9 {
        let mut buf = [0; 4096];
        storage.read_at(&mut buf, step * 4096).unwrap();
        assert_eq!(buf.to_vec(), content(step * 4096, 4096));
    }
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn an_export_that_is_another_after_a_reconnection_is_refused() {
    let other = Offer {
        size: SIZE * 2,
        ..Offer::default()
    };
    let fake = Fake::new(vec![
        (Offer::default(), |peer| drop(peer.request())),
        (other, serve),
        (other, serve),
        (other, serve),
    ]);
    let storage = fake.open(",reconnect-delay=1", &Arc::default()).unwrap();
    let error = broken(
        storage.read_at(&mut [0; 512], 0),
        "is not what it was before",
    );
    assert_eq!(error.errno(), libc::ESTALE);
}

/// Takes a change, which must be the one that is expected, and says that it was done.
#[track_caller]
fn done(peer: &mut Peer, command: Command, offset: u64, data: &[u8]) {
    let (request, bytes) = peer.request().unwrap();
    assert_eq!((request.command, request.offset), (command, offset));
    assert!(bytes == data);
    peer.simple(&request, 0, b"");
}

#[test]
fn what_was_written_and_not_flushed_is_written_again_before_anything_else() {
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 4096, &[9; 512]);
            done(peer, Command::FLUSH, 0, &[]);
            done(peer, Command::WRITE, 0, &[1; 1024]);
            done(peer, Command::WRITE, 512, &[2; 512]);
            done(peer, Command::WRITE_ZEROES, 0, &[]);
            peer.request();
        }),
        // It is lost again in the middle of that.
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 1024]);
            peer.request();
        }),
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 1024]);
            done(peer, Command::WRITE, 512, &[2; 512]);
            done(peer, Command::WRITE_ZEROES, 0, &[]);
            serve(peer);
        }),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&[9; 512], 4096).unwrap();
    storage.sync(Durability::Synced).unwrap();
    storage.write_at(&[1; 1024], 0).unwrap();
    storage.write_at(&[2; 512], 512).unwrap();
    storage.write_zeroes(0, 512, ZeroFlags::empty()).unwrap();
    let mut buf = [0; 512];
    storage.read_at(&mut buf, 8192).unwrap();
    assert_eq!(buf.to_vec(), content(8192, 512));
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_server_that_does_not_take_again_what_it_had_is_not_used() {
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            peer.request();
        }),
        (Offer::default(), |peer| {
            let (request, _) = peer.request().unwrap();
            peer.simple(&request, 28, b"");
            assert!(peer.request().is_none());
        }),
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            serve(peer);
        }),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&[1; 512], 0).unwrap();
    let error = broken(storage.read_at(&mut [0; 512], 4096), "No space left");
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    storage.read_at(&mut [0; 512], 4096).unwrap();
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_flush_makes_room_for_more_than_is_kept() {
    let offer = Offer {
        size: 1 << 30,
        ..Offer::default()
    };
    let fake = Fake::one(offer, |peer| {
        let mut unflushed = 0;
        while let Some((request, data)) = peer.request() {
            unflushed = match request.command {
                Command::FLUSH => 0,
                _ => unflushed + data.len(),
            };
            assert!(unflushed <= 64 << 20);
            peer.simple(&request, 0, b"");
        }
    });
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&vec![1; 100 << 20], 0).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_request_that_ends_every_connection_is_given_up() {
    let fake = Fake::new(vec![(Offer::default(), |peer| drop(peer.request())); 200]);
    let storage = fake.open(",reconnect-delay=1", &Arc::default()).unwrap();
    broken(storage.read_at(&mut [0; 512], 0), "Unexpected end-of-file");
}

#[test]
fn errors_of_the_server_are_those_of_the_request_alone() {
    let fake = Fake::one(Offer::default(), |peer| {
        while let Some((request, _)) = peer.request() {
            match request.offset {
                0 => peer.simple(&request, 28, b""),
                512 => peer.chunk(&request, ChunkType::ERROR, true, b"\0\0\0\x05\0\x02no"),
                offset => {
                    let data = content(offset, request.len);
                    peer.data(&request, offset, true, &data);
                }
            }
        }
    });
    let storage = fake.opened();
    let full = storage.write_at(&[1; 512], 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    assert_eq!(full.file(), Some(storage.name()));
    let error = storage.read_at(&mut [0; 512], 512).unwrap_err();
    assert_eq!(error.errno(), libc::EIO);
    assert_eq!(error.hints(), ["server reported: no"]);
    assert_eq!(error.file(), Some(storage.name()));
    storage.read_at(&mut [0; 512], 1024).unwrap();
    // Past the end there is nothing to ask for.
    let mut past = [7; 512];
    storage.read_at(&mut past, SIZE).unwrap();
    assert_eq!(past, [0; 512]);
    assert!(storage.write_at(&[0; 512], SIZE).is_err());
    drop(storage);
    fake.end();
}

#[test]
fn block_status_is_asked_once_and_again_after_a_write() {
    let fake = Fake::one(Offer::default(), |peer| {
        let mut asked = 0;
        while let Some((request, _)) = peer.request() {
            if request.command != Command::BLOCK_STATUS {
                peer.simple(&request, 0, b"");
                continue;
            }
            asked += 1;
            let zero = StateFlags::HOLE | StateFlags::ZERO;
            match request.offset {
                // Less than was asked for.
                0 => peer.status(&request, &[(4096, zero), (4096, StateFlags::empty())]),
                _ => peer.status(&request, &[(SIZE * 4, StateFlags::ZERO)]),
            }
        }
        assert_eq!(asked, 3);
    });
    let storage = fake.opened();
    for _ in 0..3 {
        let hole = storage.extent(0, SIZE).unwrap();
        assert_eq!((hole.len, hole.zero, hole.allocated), (4096, true, false));
        let data = storage.extent(5000, SIZE).unwrap();
        assert_eq!((data.len, data.zero, data.allocated), (3192, false, true));
        let rest = storage.extent(8192, SIZE).unwrap();
        assert_eq!((rest.len, rest.zero), (SIZE - 8192, true));
        assert!(rest.allocated);
    }
    storage.write_zeroes(0, 512, ZeroFlags::empty()).unwrap();
    assert_eq!(storage.extent(0, 10).unwrap().len, 10);
    drop(storage);
    fake.end();
}

#[test]
fn extents_of_no_length_end_the_connection() {
    let fake = Fake::one(Offer::default(), |peer| {
        let (request, _) = peer.request().unwrap();
        peer.status(&request, &[(0, StateFlags::empty())]);
    });
    let storage = fake.opened();
    broken(storage.extent(0, SIZE).map(drop), "of no length");
    fake.end();
}

#[test]
fn two_storages_of_one_export_share_its_connections() {
    // One connection is served, and one alone.
    let fake = Fake::one(Offer::default(), serve);
    let (one, two) = (fake.opened(), fake.opened());
    assert_eq!(one.identity(), two.identity());
    one.write_at(&[0; 512], 0).unwrap();
    two.read_at(&mut [0; 512], 0).unwrap();
    drop(one);
    two.read_at(&mut [0; 512], 0).unwrap();
    drop(two);
    fake.end();
}

/// What a server replies to the options of a list, until it has nothing more to say.
type Replies = fn(OptionCode, &[u8]) -> Vec<(ReplyCode, Vec<u8>)>;

/// The list that comes of these replies.
fn listed(replies: Replies) -> Result<Vec<ExportInfo>> {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer(listener.accept().unwrap().0);
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        peer.send(&[&Style::New.to_bytes(), &flags.to_bytes()]);
        peer.read::<4>()?;
        loop {
            let header = OptionHeader::from_bytes(&peer.read()?).unwrap();
            let mut data = vec![0; header.len as usize];
            peer.0.read_exact(&mut data).ok()?;
            if header.option == OptionCode::ABORT {
                return Some(());
            }
            for (code, data) in replies(header.option, &data) {
                let reply = OptionReply {
                    option: header.option,
                    code,
                    len: data.len() as u32,
                };
                peer.send(&[&reply.to_bytes(), &data]);
            }
        }
    });
    let list = format!("path={}/s", dir.path().display());
    let values = Values::check(&Options::parse(&list)?, OPTIONS)?;
    let found = pool::list(
        &Settings::of(&values, &Objects::new())?,
        &JobControl::default(),
    );
    server.join().unwrap();
    found
}

fn server_reply(name: &[u8], description: &[u8]) -> (ReplyCode, Vec<u8>) {
    let listed = Listed {
        name: name.into(),
        description: description.into(),
    };
    (ReplyCode::SERVER, listed.to_bytes())
}

const ACK: (ReplyCode, Vec<u8>) = (ReplyCode::ACK, Vec::new());

#[test]
fn a_list_has_what_the_server_tells_of_each_export() {
    let exports = listed(|option, data| match option {
        OptionCode::STRUCTURED_REPLY => vec![ACK],
        OptionCode::LIST => vec![
            server_reply(b"a\xff", b"not \xfe UTF-8"),
            server_reply(b"gone", b""),
            ACK,
        ],
        OptionCode::INFO if data[4..].starts_with(b"gone") => {
            vec![(ReplyCode::ERR_UNKNOWN, b"it \x1b went".to_vec())]
        }
        OptionCode::INFO => {
            let info = Info::Export {
                size: SIZE,
                flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY,
            };
            vec![(ReplyCode::INFO, info.to_bytes()), ACK]
        }
        OptionCode::LIST_META_CONTEXT => {
            let context = MetaContext {
                id: 0,
                name: ALLOCATION.into(),
            };
            vec![(ReplyCode::META_CONTEXT, context.to_bytes()), ACK]
        }
        _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
    });
    let exports = exports.unwrap();
    let [first, gone] = &exports[..] else {
        panic!("{exports:?}");
    };
    assert_eq!(first.name, BString::from(b"a\xff"));
    assert_eq!(first.description, BString::from(b"not \xfe UTF-8"));
    let details = first.details.as_ref().unwrap();
    assert_eq!(
        (details.size, details.flags, details.read_only),
        (SIZE, 3, true)
    );
    assert_eq!(details.abilities, ["readonly"]);
    assert_eq!((first.length_bits, details.blocks), (32, None));
    assert_eq!(first.contexts, [ALLOCATION]);
    assert_eq!(
        gone.refusal.as_deref(),
        Some("Requested export not available: server reported: it \\u{1b} went")
    );
    assert!(gone.details.is_none() && gone.contexts.is_empty());
}

#[test]
fn a_server_that_cannot_describe_exports_still_lists_them() {
    let exports = listed(|option, _| match option {
        OptionCode::LIST => vec![server_reply(b"a", b""), server_reply(b"b", b""), ACK],
        _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
    });
    let names: Vec<_> = exports.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn hostile_lists_are_refused_in_one_line() {
    let cases: [(Replies, ErrorKind, &str); 8] = [
        (
            |_, _| vec![(ReplyCode::ERR_POLICY, b"no".to_vec())],
            ErrorKind::Denied,
            "Denied by server for option 3 (list)",
        ),
        (
            |_, _| vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            ErrorKind::Unsupported,
            "Unsupported option type 3 (list)",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => (0..17_000).map(|_| server_reply(b"a", b"")).collect(),
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Limit,
            "more than 16384 exports",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => (0..3000)
                    .map(|_| server_reply(&[b'n'; 4096], &[b'd'; 4096]))
                    .collect(),
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Limit,
            "longer than 16777216 bytes",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![server_reply(&[b'n'; 4097], b"")],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "is 4097 bytes long",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![(ReplyCode::SERVER, vec![0, 0, 1, 0, b'a'])],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "passes its reply",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![(ReplyCode::ACK, vec![0])],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "it should be empty",
        ),
        (
            |option, _| match option {
                OptionCode::STRUCTURED_REPLY => vec![ACK],
                OptionCode::LIST => vec![server_reply(b"a", b""), ACK],
                OptionCode::LIST_META_CONTEXT => {
                    let context = MetaContext {
                        id: 0,
                        name: "x:y".into(),
                    };
                    vec![(ReplyCode::META_CONTEXT, context.to_bytes()); 1001]
                }
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "contexts without end",
        ),
    ];
    for (replies, kind, says) in cases {
        let error = listed(replies).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn garbage_is_an_error_and_nothing_else(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        style in 0..3u8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let server = std::thread::spawn(move || {
            let greeting = match style {
                0 => Vec::new(),
                1 => Style::New.to_bytes().to_vec(),
                _ => Style::Old.to_bytes().to_vec(),
            };
            let all = [greeting, bytes].concat();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.write_all(&all);
            }
        });
        let list = format!("path={}/s", dir.path().display());
        let values = Values::check(&Options::parse(&list).unwrap(), OPTIONS).unwrap();
        let settings = Settings::of(&values, &Objects::new()).unwrap();
        let given = crate::value::Map::new();
        let opened = NbdStorage::open(
            &settings, &given, false, CacheMode::Writeback, &Arc::default(),
        );
        if let Ok(storage) = opened {
            let _ = storage.read_at(&mut [0; 512], 0);
            let _ = storage.extent(0, 512);
        }
        let _ = pool::list(&settings, &JobControl::default());
        server.join().unwrap();
    }
}

#[test]
fn what_is_to_be_near_is_asked_for_in_whole_blocks_until_the_server_cannot() {
    let flags = Offer::default().flags | TransmissionFlags::SEND_CACHE;
    let offer = Offer {
        flags,
        ..Offer::default()
    };
    let fake = Fake::one(offer, |peer| {
        for (range, error) in [((512, 1024), 0), ((SIZE - 512, 512), 0), ((0, SIZE), 95)] {
            let (request, _) = peer.request().unwrap();
            assert_eq!(request.command, Command::CACHE);
            assert_eq!((request.offset, request.len), range);
            peer.simple(&request, error, b"");
        }
        serve(peer);
    });
    let storage = fake.opened();
    let near = |offset, len| storage.prefetcher().unwrap().prefetch(offset, len).unwrap();
    near(700, 400);
    // What passes the end is left out, and nothing is asked for where nothing is left.
    near(SIZE - 1, u64::MAX);
    near(SIZE, 10);
    near(0, SIZE);
    assert!(storage.prefetcher().is_none());
    storage.read_at(&mut [0; 512], 0).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_server_that_offers_no_cache_is_not_asked() {
    let fake = Fake::one(Offer::default(), serve);
    assert!(fake.opened().prefetcher().is_none());
    fake.end();
}
