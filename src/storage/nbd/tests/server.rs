//! A server that follows a script.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bstr::BString;

use super::super::options::{OPTIONS, Settings};
use super::super::storage::NbdStorage;
use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::nbd::chunk::{OffsetData, StatusExtent, StatusHead};
use crate::nbd::export::{Info, InfoRequest};
use crate::nbd::flags::{ChunkFlags, HandshakeFlags, StateFlags, TransmissionFlags};
use crate::nbd::greeting::Style;
use crate::nbd::meta::{ALLOCATION, MetaContext};
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::{Chunk, ChunkType, SimpleReply};
use crate::nbd::request::{Command, Request};
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::storage::CacheMode;

pub(super) const SIZE: u64 = 1 << 20;

/// What a server does on a connection.
pub(super) type Script = fn(&mut Peer);

/// What a server offers.
#[derive(Clone, Copy)]
pub(super) struct Offer {
    pub(super) size: u64,
    pub(super) structured: bool,
    pub(super) flags: TransmissionFlags,
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

/// The server's end of a connection.
pub(super) struct Peer(pub(super) UnixStream);

impl Peer {
    pub(super) fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    pub(super) fn send(&mut self, parts: &[&[u8]]) {
        // The client may already have closed the connection.
        let _ = self.0.write_all(&parts.concat());
    }

    pub(super) fn handshake(&mut self, offer: Offer) -> Option<()> {
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

    pub(super) fn request(&mut self) -> Option<(Request, Vec<u8>)> {
        let request = Request::from_compact(&self.read()?).unwrap();
        let mut data = Vec::new();
        if request.command == Command::WRITE {
            data.resize(request.len as usize, 0);
            self.0.read_exact(&mut data).ok()?;
        }
        (request.command != Command::DISC).then_some((request, data))
    }

    pub(super) fn simple(&mut self, request: &Request, error: u32, data: &[u8]) {
        let cookie = request.cookie;
        self.send(&[&SimpleReply { error, cookie }.to_bytes(), data]);
    }

    pub(super) fn chunk(&mut self, request: &Request, kind: ChunkType, last: bool, payload: &[u8]) {
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

    pub(super) fn data(&mut self, request: &Request, offset: u64, last: bool, data: &[u8]) {
        let head = OffsetData { offset }.to_bytes();
        let payload = [&head, data].concat();
        self.chunk(request, ChunkType::OFFSET_DATA, last, &payload);
    }

    pub(super) fn status(&mut self, request: &Request, extents: &[(u64, StateFlags)]) {
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

/// The contents at an offset, as served by these servers.
pub(super) fn content(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| (at / 512) as u8).collect()
}

/// The offer of a server that allows several connections.
fn several() -> Offer {
    let offer = Offer::default();
    Offer {
        flags: offer.flags | TransmissionFlags::CAN_MULTI_CONN,
        ..offer
    }
}

/// A server that handles connections concurrently, each in a thread that calls `each` with its number. The greeting
/// of the first one is delayed by `greeting`, as the timeout for further ones is ten times what the first one took.
pub(super) fn at_once(
    greeting: Duration,
    each: impl Fn(usize, &mut Peer) + Send + Sync + 'static,
) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let each = Arc::new(each);
    let thread = std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let each = each.clone();
            std::thread::spawn(move || {
                let mut peer = Peer(stream);
                if number == 0 {
                    std::thread::sleep(greeting);
                }
                if peer.handshake(several()).is_some() {
                    each(number, &mut peer);
                }
            });
        }
    });
    let thread = Some(thread);
    Fake { dir, thread }
}

/// A server on a socket of its own.
pub(super) struct Fake {
    pub(super) dir: tempfile::TempDir,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Serves one connection after the other, each with the next of the scripts.
    pub(super) fn new(scripts: Vec<(Offer, Script)>) -> Self {
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

    pub(super) fn one(offer: Offer, script: Script) -> Self {
        Self::new(vec![(offer, script)])
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(super) fn settings(&self, more: &str) -> Settings {
        let list = format!("path={}{more}", self.path().display());
        let values = Values::check(&Options::parse(&list).unwrap(), OPTIONS).unwrap();
        Settings::of(&values, &Objects::new()).unwrap()
    }

    pub(super) fn open(&self, more: &str, control: &Arc<JobControl>) -> Result<NbdStorage> {
        self.open_as(more, CacheMode::Writeback, control)
    }

    pub(super) fn open_as(
        &self,
        more: &str,
        cache: CacheMode,
        control: &Arc<JobControl>,
    ) -> Result<NbdStorage> {
        let settings = self.settings(more);
        let given = crate::value::Map::from_iter([(
            "path".to_owned(),
            BString::from(self.path().as_os_str().as_encoded_bytes()).into(),
        )]);
        NbdStorage::open(&settings, &given, true, cache, control)
    }

    pub(super) fn opened(&self) -> NbdStorage {
        self.open("", &Arc::default()).unwrap()
    }

    pub(super) fn end(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Serves all requests, with structured replies.
pub(super) fn serve(peer: &mut Peer) {
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
pub(super) fn broken(result: Result<()>, says: &str) -> Error {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(says), "{text}");
    assert!(text.contains("nbd+unix://?socket="), "{text}");
    error
}

/// Receives a request, which must be the expected one, and acknowledges it.
#[track_caller]
pub(super) fn done(peer: &mut Peer, command: Command, offset: u64, data: &[u8]) {
    let (request, bytes) = peer.request().unwrap();
    assert_eq!((request.command, request.offset), (command, offset));
    assert!(bytes == data);
    peer.simple(&request, 0, b"");
}
