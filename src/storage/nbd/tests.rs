//! Tests of the client with servers that follow a script.

mod flushes;
mod listing;
mod reconnecting;
mod replay;
mod server;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bstr::BString;
use parking_lot::Mutex;

use super::options::{OPTIONS, Settings};
use super::pool;
use super::storage::NbdStorage;
use crate::error::{ErrorKind, Result};
use crate::job::JobControl;
use crate::nbd::export::{Info, Listed};
use crate::nbd::flags::{HandshakeFlags, StateFlags, TransmissionFlags};
use crate::nbd::greeting::Style;
use crate::nbd::meta::{ALLOCATION, MetaContext};
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::ChunkType;
use crate::nbd::request::Command;
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::storage::exports::ExportInfo;
use crate::storage::{CacheMode, Durability, Storage, ZeroFlags};
use server::{Fake, Offer, Peer, SIZE, Script, at_once, broken, content, done, serve};

#[test]
fn replies_in_any_order_come_to_those_who_wait_for_them() {
    let fake = Fake::one(Offer::default(), |peer| {
        while let Some(first) = peer.request() {
            let mut all = vec![first];
            // Reply to the requests received by now, the last one first, and in interleaved pieces.
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
    // Ranges that are unaligned, pass the end or are empty, among others.
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
        // A broken connection stays broken.
        broken(storage.read_at(&mut [0; 1024], 0), says);
        fake.end();
    }
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
    // Nothing is requested past the end.
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
                // Less than was requested.
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
    // The server accepts only one connection.
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
    // What passes the end is left out, and nothing is requested if nothing is left.
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
