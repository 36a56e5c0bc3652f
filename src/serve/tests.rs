use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::image::Image;
use crate::nbd::chunk::status_from_bytes;
use crate::nbd::export::{InfoCode, InfoRequest};
use crate::nbd::flags::{ChunkFlags, ClientFlags, CommandFlags, TransmissionFlags};
use crate::nbd::meta::MetaQuery;
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::{ChunkType, Headers, Reply};
use crate::nbd::request::{Command, Request, StatusPayload};
use crate::net::{Stream, Wait};
use crate::storage::{MemoryStorage, Storage};
use crate::{ErrorKind, OpenOptions, OpenPolicy};

const FOREVER: Wait<'_> = Wait::forever();

fn raw(bytes: Vec<u8>, writable: bool) -> Arc<Image> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("memory", bytes));
    let options = OpenOptions {
        format: Some("raw".into()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Arc::new(Image::open_storage(storage, &options).unwrap())
}

fn named(name: &str, writable: bool) -> ExportOptions {
    ExportOptions {
        name: name.into(),
        writable,
        ..ExportOptions::default()
    }
}

/// A server that exports these bytes as writable, under the empty name.
fn server(bytes: Vec<u8>) -> Server {
    let server = Server::new(Limits::default()).unwrap();
    let export = Export::new(raw(bytes, true), named("", true)).unwrap();
    server.add_export(export).unwrap();
    server
}

/// A client that speaks the protocol by hand.
struct Client {
    stream: Stream,
    headers: Headers,
}

impl Client {
    /// Connects, and completes the greeting.
    fn greeted(server: &Server) -> Self {
        let (near, far) = Stream::pair().unwrap();
        server.serve(far).unwrap();
        let mut greeting = [0; 18];
        near.read_exact(&mut greeting, FOREVER).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        let flags = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        near.write_all(&flags.to_bytes(), FOREVER).unwrap();
        Self {
            stream: near,
            headers: Headers::Simple,
        }
    }

    fn ready(server: &Server, headers: Headers) -> Self {
        let mut client = Self::greeted(server);
        client.agree(headers);
        client.go("");
        client
    }

    fn send_option(&self, option: OptionCode, data: &[u8]) {
        let len = data.len() as u32;
        let header = OptionHeader { option, len }.to_bytes();
        self.stream.write_all(&header, FOREVER).unwrap();
        self.stream.write_all(data, FOREVER).unwrap();
    }

    /// Sends an option, and returns all replies to it.
    fn option(&self, option: OptionCode, data: &[u8]) -> Vec<(ReplyCode, Vec<u8>)> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            let mut header = [0; OptionReply::LEN];
            self.stream.read_exact(&mut header, FOREVER).unwrap();
            let header = OptionReply::from_bytes(&header).unwrap();
            assert_eq!(header.option, option);
            let mut data = vec![0; header.len as usize];
            self.stream.read_exact(&mut data, FOREVER).unwrap();
            replies.push((header.code, data));
            if header.code == ReplyCode::ACK || header.code.is_error() {
                return replies;
            }
        }
    }

    fn last(&self, option: OptionCode, data: &[u8]) -> ReplyCode {
        self.option(option, data).pop().unwrap().0
    }

    fn agree(&mut self, headers: Headers) {
        let option = match headers {
            Headers::Simple => return,
            Headers::Structured => OptionCode::STRUCTURED_REPLY,
            Headers::Extended => OptionCode::EXTENDED_HEADERS,
        };
        assert_eq!(self.last(option, &[]), ReplyCode::ACK);
        self.headers = headers;
    }

    fn go(&self, name: &str) -> TransmissionFlags {
        let request = InfoRequest {
            name: name.into(),
            wanted: vec![InfoCode::BLOCK_SIZE],
        };
        let replies = self.option(OptionCode::GO, &request.to_bytes());
        assert_eq!(replies.last().unwrap().0, ReplyCode::ACK, "{replies:?}");
        let info = &replies[0].1;
        TransmissionFlags::from_bits_retain(u16::from_be_bytes([info[10], info[11]]))
    }

    fn choose(&self, query: &str) -> usize {
        let request = MetaQuery {
            export: "".into(),
            queries: vec![query.into()],
        };
        let replies = self.option(OptionCode::SET_META_CONTEXT, &request.to_bytes());
        assert_eq!(replies.last().unwrap().0, ReplyCode::ACK);
        replies.len() - 1
    }

    fn send(&self, request: &Request, payload: &[u8]) {
        let header = match self.headers {
            Headers::Extended => request.to_extended().to_vec(),
            _ => request.to_compact().unwrap().to_vec(),
        };
        self.stream
            .write_all(&[&header, payload].concat(), FOREVER)
            .unwrap();
    }

    /// The chunks of a reply; a simple one counts as one of type NONE, or as an error.
    fn reply(&self, cookie: u64, data: usize) -> Vec<(ChunkType, Vec<u8>)> {
        let mut chunks = Vec::new();
        loop {
            let mut header = vec![0; self.headers.first_len()];
            self.stream.read_exact(&mut header, FOREVER).unwrap();
            let more = Reply::rest_len(self.headers, &header).unwrap();
            let mut rest = vec![0; more];
            self.stream.read_exact(&mut rest, FOREVER).unwrap();
            header.extend(rest);
            let reply = Reply::from_bytes(&header).unwrap();
            assert_eq!(reply.cookie(), cookie);
            match reply {
                Reply::Simple(reply) if reply.error == 0 => {
                    let mut bytes = vec![0; data];
                    self.stream.read_exact(&mut bytes, FOREVER).unwrap();
                    return vec![(ChunkType::NONE, bytes)];
                }
                Reply::Simple(reply) => {
                    return vec![(ChunkType::ERROR, reply.error.to_be_bytes().to_vec())];
                }
                Reply::Chunk(chunk) => {
                    let mut bytes = vec![0; chunk.len as usize];
                    self.stream.read_exact(&mut bytes, FOREVER).unwrap();
                    chunks.push((chunk.kind, bytes));
                    if chunk.flags.contains(ChunkFlags::DONE) {
                        return chunks;
                    }
                }
            }
        }
    }

    fn ask(&self, request: &Request, payload: &[u8]) -> Vec<(ChunkType, Vec<u8>)> {
        self.send(request, payload);
        let data = match request.command {
            Command::READ => request.len as usize,
            _ => 0,
        };
        self.reply(request.cookie, data)
    }

    /// The protocol's error number, 0 for success.
    fn errno(&self, request: &Request, payload: &[u8]) -> u32 {
        let chunks = self.ask(request, payload);
        let error = chunks.iter().find(|(kind, _)| kind.is_error());
        error.map_or(0, |(_, bytes)| {
            u32::from_be_bytes(bytes[..4].try_into().unwrap())
        })
    }

    /// The result of a read, assembled from its chunks, and the number of holes.
    fn read(&self, offset: u64, len: usize, flags: CommandFlags) -> (Vec<u8>, usize) {
        let mut request = request(Command::READ, offset, len as u64);
        request.flags = flags;
        let chunks = self.ask(&request, &[]);
        let mut bytes = vec![0xee; len];
        let mut holes = 0;
        for (kind, payload) in chunks {
            let at = || u64::from_be_bytes(payload[..8].try_into().unwrap()) - offset;
            match kind {
                ChunkType::OFFSET_DATA => {
                    bytes[at() as usize..][..payload.len() - 8].copy_from_slice(&payload[8..]);
                }
                ChunkType::OFFSET_HOLE => {
                    let len = u32::from_be_bytes(payload[8..].try_into().unwrap());
                    bytes[at() as usize..][..len as usize].fill(0);
                    holes += 1;
                }
                ChunkType::NONE if self.headers == Headers::Simple => bytes = payload,
                ChunkType::NONE => {}
                other => panic!("{other:?}"),
            }
        }
        (bytes, holes)
    }
}

fn request(command: Command, offset: u64, len: u64) -> Request {
    Request {
        flags: CommandFlags::empty(),
        command,
        cookie: 0x1122_3344_5566_7788,
        offset,
        len,
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

const ALL: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

#[test]
fn bytes_come_and_go_with_every_kind_of_header() {
    let len = 5 << 20;
    for headers in ALL {
        let server = server(pattern(len));
        let client = Client::ready(&server, headers);
        let mut model = pattern(len);
        for (offset, len) in [
            (0, 1),
            (511, 513),
            (4096, 16 << 10),
            (1000, 40_000),
            (100, 3 << 20),
            (0, 5 << 20),
        ] {
            let new: Vec<u8> = model[offset..][..len].iter().map(|byte| !byte).collect();
            let write = request(Command::WRITE, offset as u64, len as u64);
            assert_eq!(client.errno(&write, &new), 0);
            model[offset..][..len].copy_from_slice(&new);
            for (from, count) in [(offset, len), (0, model.len()), (offset, 1)] {
                let (bytes, _) = client.read(from as u64, count, CommandFlags::empty());
                assert!(
                    bytes == model[from..][..count],
                    "{headers:?} {offset} {len}"
                );
            }
        }
        let mut zero = request(Command::WRITE_ZEROES, 4096, 2 << 20);
        zero.flags = CommandFlags::FUA;
        assert_eq!(client.errno(&zero, &[]), 0);
        model[4096..][..2 << 20].fill(0);
        assert_eq!(client.errno(&request(Command::FLUSH, 0, 0), &[]), 0);
        assert_eq!(client.errno(&request(Command::CACHE, 0, 5 << 20), &[]), 0);
        let (bytes, _) = client.read(0, len, CommandFlags::empty());
        assert!(bytes == model);
        client.send(&request(Command::DISC, 0, 0), &[]);
        let mut end = [0];
        assert_eq!(client.stream.read(&mut end, FOREVER).unwrap(), 0);
    }
}

#[test]
fn many_requests_under_way_are_all_answered() {
    let data = pattern(1 << 20);
    let server = server(data.clone());
    let client = Client::ready(&server, Headers::Simple);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for cookie in 0..2000u64 {
                let len = 1 + cookie % 7 * 5000;
                let mut read = request(Command::READ, cookie * 500, len);
                read.cookie = cookie;
                client.send(&read, &[]);
            }
        });
        let mut seen = vec![false; 2000];
        for _ in 0..2000 {
            let mut header = [0; 16];
            client.stream.read_exact(&mut header, FOREVER).unwrap();
            let cookie = u64::from_be_bytes(header[8..].try_into().unwrap());
            let len = 1 + cookie % 7 * 5000;
            let inside = cookie * 500 + len <= data.len() as u64;
            assert!(inside && header[4..8] == [0; 4]);
            let mut bytes = vec![0; len as usize];
            client.stream.read_exact(&mut bytes, FOREVER).unwrap();
            assert!(bytes == data[cookie as usize * 500..][..len as usize]);
            assert!(!std::mem::replace(&mut seen[cookie as usize], true));
        }
    });
}

#[test]
fn what_may_not_be_is_refused_and_the_client_stays() {
    let data = pattern(64 << 10);
    let end = data.len() as u64;
    let server = server(data.clone());
    let export = Export::new(raw(data, false), named("ro", false)).unwrap();
    server.add_export(export).unwrap();
    for headers in ALL {
        let client = Client::ready(&server, headers);
        let errno = |command, offset, len, flags, payload: &[u8]| {
            let mut request = request(command, offset, len);
            request.flags = flags;
            client.errno(&request, payload)
        };
        let none = CommandFlags::empty();
        assert_eq!(errno(Command::READ, end, 1, none, &[]), 22);
        assert_eq!(errno(Command::READ, u64::MAX, 2, none, &[]), 22);
        assert_eq!(errno(Command::WRITE, end - 1, 2, none, &[1, 2]), 28);
        assert_eq!(errno(Command::WRITE_ZEROES, end, 1, none, &[]), 28);
        assert_eq!(errno(Command::TRIM, end, 1, none, &[]), 22);
        assert_eq!(errno(Command::CACHE, end, 1, none, &[]), 22);
        assert_eq!(errno(Command::BLOCK_STATUS, 0, 512, none, &[]), 22);
        assert_eq!(errno(Command::RESIZE, 0, 512, none, &[]), 22);
        assert_eq!(errno(Command(77), 0, 512, none, &[]), 22);
        assert_eq!(errno(Command::READ, 0, 1, CommandFlags::NO_HOLE, &[]), 22);
        let long = (32 << 20) + 1;
        assert_eq!(errno(Command::READ, 0, long, none, &[]), 22);
        assert_eq!(
            errno(Command::WRITE, 0, long, none, &vec![0; long as usize]),
            22
        );
        let (bytes, _) = client.read(5, 3, none);
        assert_eq!(bytes, [35, 42, 49]);
    }
    let mut client = Client::greeted(&server);
    client.agree(Headers::Structured);
    assert!(client.go("ro").contains(TransmissionFlags::READ_ONLY));
    assert_eq!(client.errno(&request(Command::WRITE, 0, 1), &[1]), 1);
    assert_eq!(client.errno(&request(Command::TRIM, 0, 1), &[]), 1);
    assert_eq!(client.errno(&request(Command::FLUSH, 0, 0), &[]), 0);
    assert_eq!(server.statistics().accepted, 4);
}

/// An image with a hole from 64 KiB to 192 KiB.
fn with_hole() -> (tempfile::TempDir, Arc<Image>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(256 << 10).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 64 << 10], 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 64 << 10], 192 << 10).unwrap();
    let options = OpenOptions {
        format: Some("raw".into()),
        ..OpenOptions::default()
    };
    let image = Image::open(&crate::Location::from_path(path), &options).unwrap();
    (dir, Arc::new(image))
}

#[test]
fn holes_are_told_and_not_sent() {
    let (_dir, image) = with_hole();
    let server = Server::new(Limits::default()).unwrap();
    let export = Export::new(image, named("", false)).unwrap();
    server.add_export(export).unwrap();
    let model = [vec![1; 64 << 10], vec![0; 128 << 10], vec![2; 64 << 10]].concat();
    for headers in [Headers::Structured, Headers::Extended] {
        let client = Client::ready(&server, headers);
        let (bytes, holes) = client.read(0, 256 << 10, CommandFlags::empty());
        assert!(bytes == model);
        assert_eq!(holes, 1);
        let (bytes, holes) = client.read(0, 256 << 10, CommandFlags::DF);
        assert!(bytes == model);
        assert_eq!(holes, 0);
    }
    let client = Client::ready(&server, Headers::Simple);
    assert!(client.read(0, 256 << 10, CommandFlags::empty()).0 == model);
}

#[test]
fn block_status_tells_of_runs_in_the_contexts_that_were_chosen() {
    let (_dir, image) = with_hole();
    let server = Server::new(Limits::default()).unwrap();
    let options = ExportOptions {
        allocation_depth: true,
        offset: 4096,
        ..named("", false)
    };
    server
        .add_export(Export::new(image, options).unwrap())
        .unwrap();
    let tail = 252 << 10;
    for headers in [Headers::Structured, Headers::Extended] {
        let extended = headers == Headers::Extended;
        let mut client = Client::greeted(&server);
        client.agree(headers);
        // Wildcards are for lists only.
        assert_eq!(client.choose("base:"), 0);
        assert_eq!(client.choose("other:thing"), 0);
        assert_eq!(client.choose("base:allocation"), 1);
        let flags = client.go("");
        assert_eq!(
            flags.contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD),
            extended
        );
        let status = |request: &Request, payload: &[u8]| {
            let chunks = client.ask(request, payload);
            let [(kind, bytes)] = &chunks[..] else {
                panic!("{chunks:?}")
            };
            assert_eq!(*kind == ChunkType::BLOCK_STATUS_EXT, extended);
            let (context, extents) = status_from_bytes(bytes, extended).unwrap();
            assert_eq!(context, 0);
            extents.map(|run| (run.len, run.flags)).collect::<Vec<_>>()
        };
        let whole = request(Command::BLOCK_STATUS, 0, tail);
        let runs = [(60 << 10, 0), (128 << 10, 3), (64 << 10, 0)];
        assert_eq!(status(&whole, &[]), runs);
        let mut one = request(Command::BLOCK_STATUS, 61 << 10, 100 << 10);
        one.flags = CommandFlags::REQ_ONE;
        assert_eq!(status(&one, &[]), [(100 << 10, 3)]);
        assert_eq!(client.errno(&request(Command::BLOCK_STATUS, 0, 0), &[]), 22);
        if extended {
            let payload = StatusPayload {
                len: tail,
                contexts: vec![0],
            };
            let bytes = payload.to_bytes();
            let mut by_payload = request(Command::BLOCK_STATUS, 0, bytes.len() as u64);
            by_payload.flags = CommandFlags::PAYLOAD_LEN;
            assert_eq!(status(&by_payload, &bytes), runs);
            let bytes = StatusPayload {
                contexts: vec![9],
                ..payload
            }
            .to_bytes();
            assert_eq!(client.errno(&by_payload, &bytes), 22);
        }
    }
}

#[test]
fn options_are_answered_one_by_one() {
    let server = server(vec![0; 512]);
    let export = Export::new(raw(vec![0; 512], true), named("b", true)).unwrap();
    server.add_export(export).unwrap();
    let export = Export::new(raw(vec![0; 512], true), named("b", true)).unwrap();
    let error = server.add_export(export).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);

    let client = Client::greeted(&server);
    let list = client.option(OptionCode::LIST, &[]);
    assert_eq!(list.len(), 3);
    assert_eq!(list[1], (ReplyCode::SERVER, b"\0\0\0\x01b".to_vec()));
    assert_eq!(client.last(OptionCode::LIST, b"x"), ReplyCode::ERR_INVALID);
    assert_eq!(client.last(OptionCode(99), b"x"), ReplyCode::ERR_UNSUP);
    assert_eq!(
        client.last(OptionCode::STARTTLS, &[]),
        ReplyCode::ERR_POLICY
    );
    let long = vec![0; 65 << 10];
    assert_eq!(client.last(OptionCode::GO, &long), ReplyCode::ERR_TOO_BIG);
    assert_eq!(client.last(OptionCode::GO, b"\0\0"), ReplyCode::ERR_INVALID);
    let unknown = InfoRequest {
        name: "nope".into(),
        wanted: Vec::new(),
    };
    let refused = client.option(OptionCode::GO, &unknown.to_bytes());
    assert_eq!(
        refused,
        [(
            ReplyCode::ERR_UNKNOWN,
            b"export 'nope' not present".to_vec()
        )]
    );
    let query = MetaQuery {
        export: "".into(),
        queries: Vec::new(),
    };
    let query = query.to_bytes();
    assert_eq!(
        client.last(OptionCode::SET_META_CONTEXT, &query),
        ReplyCode::ERR_INVALID
    );
    assert_eq!(
        client.option(OptionCode::LIST_META_CONTEXT, &query).len(),
        2
    );
    assert_eq!(
        client.last(OptionCode::EXTENDED_HEADERS, &[]),
        ReplyCode::ACK
    );
    assert_eq!(
        client.last(OptionCode::STRUCTURED_REPLY, &[]),
        ReplyCode::ERR_EXT_HEADER_REQD
    );
    assert_eq!(client.last(OptionCode::ABORT, &[]), ReplyCode::ACK);
    let mut end = [0];
    assert_eq!(client.stream.read(&mut end, FOREVER).unwrap(), 0);

    // The old way to select an export.
    let client = Client::greeted(&server);
    client.send_option(OptionCode::EXPORT_NAME, b"b");
    let mut export = [0; 10];
    client.stream.read_exact(&mut export, FOREVER).unwrap();
    assert_eq!(export[..8], 512u64.to_be_bytes());
    assert_eq!(client.read(0, 512, CommandFlags::empty()).0, vec![0; 512]);
    let client = Client::greeted(&server);
    client.send_option(OptionCode::EXPORT_NAME, b"nope");
    assert_eq!(client.stream.read(&mut end, FOREVER).unwrap(), 0);
}

#[test]
fn garbage_and_silence_end_a_client_alone() {
    let limits = Limits {
        handshake: Some(Duration::from_millis(300)),
        ..Limits::default()
    };
    let server = Server::new(limits).unwrap();
    let export = Export::new(raw(vec![3; 512], true), named("", true)).unwrap();
    server.add_export(export).unwrap();
    let ends = |bytes: &[u8]| {
        let (near, far) = Stream::pair().unwrap();
        server.serve(far).unwrap();
        near.write_all(bytes, FOREVER).unwrap();
        let mut rest = vec![0; 4096];
        while near.read(&mut rest, FOREVER).is_ok_and(|len| len > 0) {}
    };
    ends(b"");
    ends(b"GET / HTTP/1.1\r\n\r\n");
    ends(&[0xff; 64]);
    ends(b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    ends(b"\0\0\0\x03IHAVEOPX\0\0\0\x07\0\0\0\0");
    ends(b"\0\0\0\x00IHAVEOPT\0\0\0\x03\0\0\0\0");
    let client = Client::ready(&server, Headers::Simple);
    client.stream.write_all(&[0x5a; 28], FOREVER).unwrap();
    let mut end = [0];
    assert_eq!(client.stream.read(&mut end, FOREVER).unwrap(), 0);
    // One that stays silent once it has its export is not disconnected.
    let client = Client::ready(&server, Headers::Simple);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(client.read(0, 1, CommandFlags::empty()).0, [3]);
}

#[test]
fn a_client_that_takes_no_replies_is_bounded_and_ends_with_the_server() {
    let server = server(pattern(1 << 20));
    let idle = Client::ready(&server, Headers::Structured);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Never read by the server: requests it has not accepted yet wait in the socket.
            for _ in 0..10_000 {
                let header = request(Command::READ, 0, 1 << 20).to_compact().unwrap();
                if idle.stream.write_all(&header, FOREVER).is_err() {
                    return;
                }
            }
        });
        // Others are served in the meantime.
        let other = Client::ready(&server, Headers::Structured);
        let (bytes, _) = other.read(0, 1 << 20, CommandFlags::empty());
        assert!(bytes == pattern(1 << 20));
        assert!(server.statistics().most_memory <= 40 << 20);
        server.stop();
    });
    assert_eq!(server.statistics().clients, 0);
}

#[test]
fn a_drained_server_carries_out_what_it_has_and_refuses_the_rest() {
    let server = server(pattern(1 << 20));
    let client = Client::ready(&server, Headers::Structured);
    let late = Client::greeted(&server);
    for _ in 0..50 {
        client.send(&request(Command::READ, 0, 100_000), &[]);
    }
    // The first reply has arrived, so the others have been requested.
    client.reply(request(Command::READ, 0, 0).cookie, 0);
    // Clients that read their replies until the end.
    let take_all = |client: &Client| {
        let mut rest = vec![0; 1 << 20];
        let mut more = || client.stream.read(&mut rest, FOREVER);
        while more().is_ok_and(|len| len > 0) {}
    };
    std::thread::scope(|scope| {
        scope.spawn(|| take_all(&client));
        scope.spawn(|| take_all(&late));
        server.drain(None);
    });
    assert_eq!(server.statistics().clients, 0);
    let (_near, far) = Stream::pair().unwrap();
    assert!(server.serve(far).is_err());
}

#[test]
fn who_takes_nothing_keeps_a_drain_and_a_removal_no_longer_than_the_limit() {
    let limits = Limits {
        stall: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = Server::new(limits).unwrap();
    let export = Export::new(raw(vec![3; 64 << 20], true), named("", true)).unwrap();
    server.add_export(export).unwrap();
    let export = Export::new(raw(vec![4; 64 << 20], true), named("other", true)).unwrap();
    server.add_export(export).unwrap();
    let clients = ["", "other"].map(|name| {
        let client = Client::greeted(&server);
        client.go(name);
        // More than sockets hold: the first reply has begun, and nobody reads the rest.
        client.send(&request(Command::READ, 0, 32 << 20), &[]);
        client.send(&request(Command::READ, 0, 32 << 20), &[]);
        let mut begun = [0];
        client.stream.read_exact(&mut begun, FOREVER).unwrap();
        client
    });
    server.remove_export("other".into(), None).unwrap();
    server.drain(None);
    assert_eq!(server.statistics().clients, 0);
    drop(clients);
}

#[test]
fn a_window_and_names_are_checked() {
    let image = raw(vec![0; 1024], false);
    let new = |options: ExportOptions| Export::new(image.clone(), options);
    let window = |offset, len| ExportOptions {
        offset,
        len,
        ..ExportOptions::default()
    };
    assert_eq!(new(window(1000, None)).unwrap().len(), 24);
    assert_eq!(new(window(1024, Some(0))).unwrap().len(), 0);
    let error = new(window(1025, None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Offset (1025) cannot be greater than size of the containing file (1024)"
    );
    assert!(new(window(0, Some(1025))).is_err());
    assert!(new(named("a\0b", false)).is_err());
    assert!(new(named(&"x".repeat(4097), false)).is_err());
    assert_eq!(
        new(named("", true)).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    let options = ExportOptions {
        bitmaps: vec!["b".into()],
        ..ExportOptions::default()
    };
    assert_eq!(
        new(options).unwrap_err().to_string(),
        "Bitmap 'b' is not found"
    );
}

/// Bytes that can be read only while the gate is open.
#[derive(Debug)]
struct Gated {
    bytes: MemoryStorage,
    is_open: parking_lot::Mutex<bool>,
    changed: parking_lot::Condvar,
    waiting: std::sync::atomic::AtomicUsize,
}

impl Gated {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            bytes: MemoryStorage::with_bytes("memory", bytes),
            is_open: parking_lot::Mutex::new(true),
            changed: parking_lot::Condvar::new(),
            waiting: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    fn set_open(&self, is_open: bool) {
        *self.is_open.lock() = is_open;
        self.changed.notify_all();
    }

    /// Waits until a read is blocked at the gate.
    fn wait_for_one(&self) {
        while self.waiting.load(std::sync::atomic::Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
    }
}

impl Storage for Gated {
    crate::storage::forward::forward!(bytes: name, driver, identity, read_only, write_at, len, set_len,
        write_zeroes, discard, sync, extent, limits, allocated_size, lock, host);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> crate::Result<()> {
        let mut is_open = self.is_open.lock();
        self.waiting
            .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        while !*is_open {
            self.changed.wait(&mut is_open);
        }
        self.bytes.read_at(buf, offset)
    }

    fn try_read(&self, _: &mut [std::io::IoSliceMut<'_>], _: u64) -> crate::Result<bool> {
        Ok(false)
    }
}

#[test]
fn a_removed_export_answers_what_it_has_and_refuses_the_rest() {
    let storage = Gated::new(pattern(1 << 20));
    let options = OpenOptions {
        format: Some("raw".into()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Arc::new(Image::open_storage(storage.clone(), &options).unwrap());
    let server = server(pattern(1 << 20));
    let options = ExportOptions {
        description: "behind a gate".into(),
        ..named("gated", false)
    };
    let export = Export::new(image.clone(), options.clone()).unwrap();
    server.add_export(export).unwrap();
    assert_eq!(server.exports(), ["", "gated"]);
    let mut client = Client::greeted(&server);
    client.agree(Headers::Structured);
    client.go("gated");
    let other = Client::ready(&server, Headers::Simple);
    let offered = server.export("gated".into()).unwrap();
    assert_eq!((offered.len, offered.clients), (1 << 20, 1));
    assert_eq!(offered.options, options);

    storage.set_open(false);
    storage
        .waiting
        .store(0, std::sync::atomic::Ordering::Release);
    let read = request(Command::READ, 4096, 4096);
    client.send(&read, &[]);
    storage.wait_for_one();
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| server.remove_export("gated".into(), None));
        while server.export("gated".into()).is_ok() {
            std::thread::yield_now();
        }
        // New clients do not find it, its own are refused, those of others do not notice.
        let stranger = Client::greeted(&server);
        let go = InfoRequest {
            name: "gated".into(),
            wanted: Vec::new(),
        };
        let refused = stranger.last(OptionCode::GO, &go.to_bytes());
        assert_eq!(refused, ReplyCode::ERR_UNKNOWN);
        // Withdrawing the export and refusing requests are two steps.
        while client.errno(&request(Command::READ, 0, 0), &[]) == 0 {}
        assert_eq!(client.errno(&request(Command::FLUSH, 0, 0), &[]), 108);
        assert!(!removing.is_finished());
        assert!(other.read(0, 512, CommandFlags::empty()).0 == pattern(512));
        storage.set_open(true);
        assert_eq!(
            client.reply(read.cookie, 0)[0].1[8..],
            pattern(8192)[4096..]
        );
        removing.join().unwrap().unwrap();
    });
    assert_eq!(client.stream.read(&mut [0], FOREVER).unwrap(), 0);
    assert!(other.read(512, 512, CommandFlags::empty()).0 == pattern(1024)[512..]);
    // Nothing but this test holds the image.
    assert_eq!(Arc::strong_count(&image), 1);
    let gone = server.remove_export("gated".into(), None).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn an_export_is_removed_although_a_client_of_it_waits_for_memory() {
    let limits = Limits {
        memory: 1 << 20,
        ..Limits::default()
    };
    let server = Server::new(limits).unwrap();
    let storage = Gated::new(pattern(1 << 20));
    let options = OpenOptions {
        format: Some("raw".into()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let gated = Arc::new(Image::open_storage(storage.clone(), &options).unwrap());
    let other = raw(pattern(1 << 20), false);
    for (image, name) in [(&gated, ""), (&other, "other")] {
        let export = Export::new(image.clone(), named(name, false)).unwrap();
        server.add_export(export).unwrap();
    }
    let holder = Client::ready(&server, Headers::Simple);
    let mut waiting = Client::greeted(&server);
    waiting.agree(Headers::Simple);
    waiting.go("other");
    storage.set_open(false);
    storage
        .waiting
        .store(0, std::sync::atomic::Ordering::Release);
    let all = request(Command::READ, 0, 1 << 20);
    holder.send(&all, &[]);
    storage.wait_for_one();
    waiting.send(&all, &[]);
    while server.statistics().requests < 2 {
        std::thread::yield_now();
    }
    let removed = server.remove_export("other".into(), Some(std::time::Instant::now()));
    removed.unwrap();
    assert_eq!(Arc::strong_count(&other), 1);
    // It may have been refused before it came to wait.
    while waiting.stream.read(&mut [0], FOREVER).unwrap() > 0 {}
    storage.set_open(true);
    assert!(holder.reply(all.cookie, 1 << 20)[0].1 == pattern(1 << 20));
}
