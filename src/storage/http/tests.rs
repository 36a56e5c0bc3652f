//! Tests the client against scripted servers.

mod parsing;
mod redirects;
mod server;
mod without_ranges;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{ErrorKind, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::{HostRule, OpenPolicy};
use crate::secret::Secret;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::registry;
use server::{Asked, LEN, Server, check, data, error, open, status, whole};

#[test]
fn bytes_come_by_ranges_and_nothing_else_is_asked_for() {
    let server = Server::new(|asked| (asked.answer(), true));
    let storage = server.open().unwrap();
    assert_eq!(storage.len().unwrap(), LEN as u64);
    check(&*storage, 0, 512);
    check(&*storage, 65_000, 70_000);
    check(&*storage, 0, 1 << 20);
    check(&*storage, LEN - 100, 300);
    check(&*storage, LEN + 5, 3);
    check(&*storage, 1_999_999, 1);
    for text in server.asked() {
        assert!(text.starts_with("GET /a HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("\r\nRange: bytes="), "{text}");
        assert!(text.contains("\r\nAccept-Encoding: identity\r\n"), "{text}");
    }
    assert!(storage.read_only() && storage.write_at(b"x", 0).is_err());
}

#[test]
fn sequential_reads_become_few_long_requests() {
    let server = Server::new(|asked| (asked.answer(), true));
    let storage = server.open().unwrap();
    for at in (0..LEN).step_by(4096) {
        check(&*storage, at, 4096);
    }
    // 64 KiB, 256 KiB, 1 MiB, and the rest.
    assert!(server.asked().len() <= 5, "{:?}", server.asked());
    let server = Server::new(|asked| (asked.answer(), true));
    let storage = server.open().unwrap();
    for at in [2_000_000, 1_000_000, 2_500_000, 500_000] {
        check(&*storage, at, 512);
    }
    let most = |text: &String| {
        let asked = Asked::new(0, text);
        asked.range.map_or(0, |(start, end)| end - start)
    };
    assert_eq!(server.asked().iter().map(most).max(), Some(64 << 10));
}

#[test]
fn cut_answers_are_resumed_where_they_ended() {
    let server = Server::new(|asked| match asked.number {
        0 => (asked.answer(), true),
        number if number % 3 != 0 => (asked.short(1000), false),
        _ => (asked.answer(), true),
    });
    let storage = server.open().unwrap();
    check(&*storage, 100, 2 << 20);
    let asked: Vec<_> = server
        .asked()
        .iter()
        .map(|text| Asked::new(0, text).range)
        .collect();
    let end = 100 + (2 << 20);
    assert_eq!(asked[1], Some((100, end)));
    assert_eq!(asked[2], Some((end - 1000, end)));
    for at in (0..LEN).step_by(100_000) {
        check(&*storage, at, 100_000);
    }
}

#[test]
fn a_kept_connection_that_has_ended_costs_nothing() {
    let server = Server::new(|asked| (asked.answer(), false));
    let storage = server
        .open_with("retry-timeout=0", &Objects::new())
        .unwrap();
    check(&*storage, 0, 2 << 20);
    check(&*storage, 2 << 20, 1 << 19);
}

#[test]
fn busy_servers_are_asked_again_and_missing_images_are_not() {
    let server = Server::new(|asked| match asked.number {
        0 | 2 => (status(503, ""), true),
        3 => (status(429, "Retry-After: 0\r\n"), true),
        4 => (status(416, ""), true),
        _ => (asked.answer(), true),
    });
    let storage = server.open().unwrap();
    check(&*storage, 0, 2 << 20);
    assert!(server.asked()[5].contains("Cache-Control: no-cache"));
    for code in [400, 401, 403, 404, 410, 418] {
        let server = Server::new(move |_| (status(code, ""), true));
        let found = error(server.open()).to_string();
        assert_eq!(found, format!("The requested URL returned error: {code}"));
        assert_eq!(server.asked().len(), 1);
    }
    let server = Server::new(|asked| match asked.number {
        0 => (asked.answer(), true),
        _ => (status(500, ""), true),
    });
    let storage = server
        .open_with("retry-timeout=1", &Objects::new())
        .unwrap();
    let found = error(storage.read_at(&mut [0; 100], 100_000)).to_string();
    let url = server.url();
    assert_eq!(
        found,
        format!("Could not read '{url}' at offset 65536: The requested URL returned error: 500")
    );
}

#[test]
fn once_retries_were_in_vain_each_read_asks_once_until_one_succeeds() {
    const FAILING: usize = 1 << 20;
    const GOOD: usize = 2 << 20;
    let is_up = Arc::new(AtomicBool::new(true));
    let server = Server::new({
        let is_up = is_up.clone();
        move |asked| match is_up.load(Ordering::SeqCst) {
            true => (asked.answer(), true),
            false => (status(503, ""), true),
        }
    });
    let storage = server
        .open_with("retry-timeout=1", &Objects::new())
        .unwrap();
    let times = || {
        let before = server.asked().len();
        error(storage.read_at(&mut [0; 100], FAILING as u64));
        server.asked().len() - before
    };
    is_up.store(false, Ordering::SeqCst);
    assert!(times() > 1);
    for _ in 0..3 {
        assert_eq!(times(), 1);
    }
    is_up.store(true, Ordering::SeqCst);
    check(&*storage, GOOD, 100);
    is_up.store(false, Ordering::SeqCst);
    assert!(times() > 1);
}

#[test]
fn an_image_that_changes_is_an_error() {
    for change in ["tag", "time", "length", "other"] {
        let server = Server::new(move |asked| {
            let (head, body) = asked.good();
            let time = "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
            let head = match (asked.number, change) {
                (0, _) => head + time,
                (_, "tag") => head.replace("\"a\"", "\"b\"") + time,
                (_, "time") => head + &time.replace("1970", "1971"),
                (_, "length") => head.replace(&format!("/{LEN}"), &format!("/{}", LEN + 1)) + time,
                _ => head.replace("206", "200").replace("Content-Range", "X") + time,
            };
            ([head.as_bytes(), &body].concat(), true)
        });
        let storage = server.open().unwrap();
        let found = error(storage.read_at(&mut [0; 1000], 100_000));
        assert_eq!(found.errno(), libc::ESTALE, "{change}: {found}");
        assert_eq!(found.file(), Some(storage.name()));
    }
}

#[test]
fn what_no_server_may_send_is_refused() {
    type Lie = fn(&Asked) -> Vec<u8>;
    let lies: [(Lie, &str); 9] = [
        (|_| b"220 welcome\r\n\r\n".to_vec(), "does not speak HTTP"),
        (
            |_| b"HTTP/1.1 206 P\r\nx: y\r\n".repeat(9000),
            "does not speak HTTP",
        ),
        (
            |_| [b"HTTP/1.1 206 P\r\nx: ".to_vec(), vec![b'y'; 100_000]].concat(),
            "a head without end",
        ),
        (
            |_| b"HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
            "never begins",
        ),
        (|asked| asked.with("Content-Length: 7"), "two lengths"),
        (
            |asked| asked.with("Transfer-Encoding: chunked"),
            "in two ways",
        ),
        (
            |asked| asked.with("Content-Encoding: gzip"),
            "in another coding",
        ),
        (|_| status(206, ""), "which part"),
        (
            |asked| {
                String::from_utf8_lossy(&asked.answer())
                    .replace("bytes 0-", "bytes 1-")
                    .into_bytes()
            },
            "The server sent the bytes 1-",
        ),
    ];
    for (lie, text) in lies {
        let server = Server::new(move |asked| (lie(asked), false));
        let options = "retry-timeout=0";
        let found = error(server.open_with(options, &Objects::new())).to_string();
        assert!(found.contains(text), "{found}");
    }
}

#[test]
fn silent_and_slow_servers_end_by_deadline_and_by_cancelling() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let server = Server::new({
        let gate = gate.clone();
        move |asked| {
            if asked.number > 0 {
                let mut open = gate.0.lock();
                while !*open {
                    gate.1.wait(&mut open);
                }
            }
            (asked.answer(), true)
        }
    });
    let storage = server
        .open_with("timeout=1,retry-timeout=0", &Objects::new())
        .unwrap();
    let found = error(storage.read_at(&mut [0; 100], 100_000)).to_string();
    assert!(
        found.ends_with("The server has not answered within 1 seconds"),
        "{found}"
    );
    let control = Arc::new(JobControl::default());
    // The gate closes before this storage's first request after opening.
    *gate.0.lock() = true;
    gate.1.notify_all();
    let storage = open(
        &server.url(),
        "timeout=0",
        &Objects::new(),
        &OpenPolicy::default(),
        &control,
    )
    .unwrap();
    *gate.0.lock() = false;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| storage.read_at(&mut [0; 100], 100_000));
        while server
            .asked()
            .last()
            .is_none_or(|text| !text.contains("bytes=65536-"))
        {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        control.cancel();
        assert_eq!(error(reader.join().unwrap()).kind(), ErrorKind::Cancelled);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    });
    *gate.0.lock() = true;
    gate.1.notify_all();
}

/// A server that answers range requests only once four have arrived after the first, and counts them.
fn gathering_server() -> (Server, Arc<(Mutex<u32>, Condvar)>) {
    let gate = Arc::new((Mutex::new(0), Condvar::new()));
    let server = Server::new({
        let gate = gate.clone();
        move |asked| {
            if asked.number > 0 {
                let mut waiting = gate.0.lock();
                *waiting += 1;
                gate.1.notify_all();
                while *waiting < 4 {
                    gate.1.wait(&mut waiting);
                }
            }
            (asked.answer(), true)
        }
    });
    (server, gate)
}

#[test]
fn as_many_requests_are_in_flight_as_there_are_connections() {
    let (server, _) = gathering_server();
    let storage = server.open_with("connections=8", &Objects::new()).unwrap();
    assert_eq!(storage.limits().in_flight, 8);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let storage = &storage;
            scope.spawn(move || check(&**storage, at * 300_000 + 65_536, 300_000));
        }
    });
}

#[test]
fn ranges_that_are_asked_for_together_are_requested_together() {
    let (server, asked) = gathering_server();
    let storage = server.open_with("connections=4", &Objects::new()).unwrap();
    let mut bufs = [[0; 512]; 12];
    let offset = |at: usize| 100_000 + at * 200_000;
    let places = (0..).map(|at| offset(at) as u64);
    let mut ranges: Vec<_> = places
        .zip(bufs.iter_mut().map(|buf| &mut buf[..]))
        .collect();
    storage.read_many_at(&mut ranges).unwrap();
    for (at, buf) in bufs.iter().enumerate() {
        assert_eq!(buf[..], data(offset(at)..offset(at) + 512), "{at}");
    }
    // What is cached requires no request.
    let before = *asked.0.lock();
    let mut ranges: Vec<_> = (0..)
        .map(|at| offset(at) as u64)
        .zip(bufs.iter_mut().map(|buf| &mut buf[..]))
        .collect();
    storage.read_many_at(&mut ranges).unwrap();
    assert_eq!(*asked.0.lock(), before);
}

#[test]
fn a_range_that_cannot_be_read_fails_those_that_are_asked_for_with_it() {
    let server = Server::new(|asked| match asked.range {
        Some((start, _)) if start > 1_000_000 => (status(403, ""), true),
        _ => (asked.answer(), true),
    });
    let storage = server.open().unwrap();
    let mut bufs = [[0; 512]; 8];
    let places = (0..8).map(|at| at * 300_000);
    let mut ranges: Vec<_> = places
        .zip(bufs.iter_mut().map(|buf| &mut buf[..]))
        .collect();
    let failed = storage.read_many_at(&mut ranges).unwrap_err();
    assert!(failed.to_string().contains("403"), "{failed}");
}

#[test]
fn a_server_that_is_far_away_has_more_connections() {
    let server = Server::new(|asked| {
        std::thread::sleep(Duration::from_millis(20));
        (asked.answer(), true)
    });
    let storage = server.open().unwrap();
    assert_eq!(storage.limits().in_flight, 16);
    check(&*storage, 100_000, 1_500_000);
    let storage = server.open_with("connections=3", &Objects::new()).unwrap();
    assert_eq!(storage.limits().in_flight, 3);
}

#[test]
fn an_image_without_a_byte_is_one() {
    for answer in [status(416, "Content-Range: bytes */0\r\n"), status(200, "")] {
        let server = Server::new(move |_| (answer.clone(), true));
        let storage = server.open().unwrap();
        assert_eq!(storage.len().unwrap(), 0);
        let mut buf = [1; 10];
        storage.read_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [0; 10]);
    }
}
