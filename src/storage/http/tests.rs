//! The client against servers that keep to a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::body::Body;
use super::head::{ContentRange, Framing, Head};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::{HostRule, OpenPolicy};
use crate::secret::Secret;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::{Storage, registry};

/// A request as its server sees it.
struct Asked {
    /// Its number, from 0 on.
    number: usize,
    target: String,
    /// The first byte and the one behind the last, of [`DATA`] at most.
    range: Option<(usize, usize)>,
}

const LEN: usize = 3_000_000;

/// The bytes of the image.
fn data(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| ((at / 251) ^ at) as u8).collect()
}

impl Asked {
    fn new(number: usize, text: &str) -> Self {
        let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let range = text.split("\r\nRange: bytes=").nth(1).map(|rest| {
            let (first, rest) = rest.split_once('-').unwrap();
            let last = rest.split("\r\n").next().unwrap();
            let end: usize = last.parse().unwrap();
            (first.parse().unwrap(), (end + 1).min(LEN))
        });
        Self {
            number,
            target,
            range,
        }
    }

    /// The head of a good answer, and its body.
    fn good(&self) -> (String, Vec<u8>) {
        let (start, end) = self.range.unwrap();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{LEN}\r\nETag: \"a\"\r\n",
            end - start,
            end - 1
        );
        (head, data(start..end))
    }

    fn answer(&self) -> Vec<u8> {
        let (head, body) = self.good();
        [head.as_bytes(), b"\r\n", &body].concat()
    }

    /// A good answer of which so many bytes of the body are missing.
    fn short(&self, missing: usize) -> Vec<u8> {
        let mut answer = self.answer();
        answer.truncate(answer.len() - missing);
        answer
    }

    fn with(&self, line: &str) -> Vec<u8> {
        let (head, body) = self.good();
        [head.as_bytes(), line.as_bytes(), b"\r\n\r\n", &body].concat()
    }
}

fn status(code: u16, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n{lines}\r\n").into_bytes()
}

fn whole() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n");
    [head.as_bytes(), &data(0..LEN)].concat()
}

/// What a server does with a request: what it sends, and whether it goes on with the connection.
type Script = dyn Fn(&Asked) -> (Vec<u8>, bool) + Send + Sync;

struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(script: impl Fn(&Asked) -> (Vec<u8>, bool) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let thread = std::thread::spawn({
            let (asked, stop) = (asked.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (asked, script) = (asked.clone(), script.clone());
                    std::thread::spawn(move || serve(stream.unwrap(), &asked, &*script));
                }
            }
        });
        Self {
            port,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/a", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    fn open(&self) -> Result<Arc<dyn Storage>> {
        self.open_with("", &Objects::new())
    }

    fn open_with(&self, options: &str, objects: &Objects) -> Result<Arc<dyn Storage>> {
        open(
            &self.url(),
            options,
            objects,
            &OpenPolicy::default(),
            &Arc::default(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>, script: &Script) {
    loop {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                _ => return,
            }
        }
        let text = String::from_utf8(text).unwrap();
        let number = {
            let mut asked = asked.lock();
            asked.push(text.clone());
            asked.len() - 1
        };
        let (answer, goes_on) = script(&Asked::new(number, &text));
        // A client that has had enough may be gone.
        if stream.write_all(&answer).is_err() || !goes_on {
            return;
        }
    }
}

fn open(
    url: &str,
    options: &str,
    objects: &Objects,
    policy: &OpenPolicy,
    control: &Arc<JobControl>,
) -> Result<Arc<dyn Storage>> {
    let driver = registry::find("http").unwrap();
    let mut given = Options::new();
    if !options.is_empty() {
        given = Options::parse(options)?;
    }
    given.set("url", url);
    driver.open_storage(&OpenContext {
        target: StorageTarget::Unnamed,
        options: &driver.check_options(&given)?,
        how: StorageOpen::default(),
        objects,
        policy,
        control,
    })
}

#[track_caller]
fn check(storage: &dyn Storage, offset: usize, len: usize) {
    let mut buf = vec![1; len];
    storage.read_at(&mut buf, offset as u64).unwrap();
    let end = (offset + len).min(LEN);
    let mut expected = data(offset.min(end)..end);
    expected.resize(len, 0);
    assert!(buf == expected, "{offset} {len}");
}

fn error<T: std::fmt::Debug>(outcome: Result<T>) -> Error {
    outcome.unwrap_err()
}

#[test]
fn heads_are_taken_apart_at_every_cut_and_those_that_lie_are_refused() {
    let text = b"HTTP/1.1 206 P\r\nContent-Length: 5\r\ncontent-range: bytes 5-9/20\r\nETag: \"x\"\r\nRetry-After: 7\r\n\r\nhello";
    let (head, len) = Head::parse(text).unwrap().unwrap();
    assert_eq!(len, text.len() - 5);
    assert_eq!((head.status, head.framing), (206, Framing::Length(5)));
    let range = ContentRange {
        part: Some((5, 10)),
        whole: Some(20),
    };
    assert_eq!(head.range, Some(range));
    assert_eq!(head.retry_after, Some(Duration::from_secs(7)));
    assert!(head.keep);
    for end in 0..len {
        assert!(Head::parse(&text[..end]).unwrap().is_none(), "{end}");
    }
    for (lines, keep, framing) in [
        ("HTTP/1.0 200 A\r\n\r\n", false, Framing::Close),
        (
            "HTTP/1.0 200 A\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            true,
            Framing::Length(1),
        ),
        (
            "HTTP/1.1 200 A\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
            false,
            Framing::Length(1),
        ),
        (
            "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
            Framing::Chunked,
        ),
        ("HTTP/1.1 204 A\r\n\r\n", true, Framing::Length(0)),
    ] {
        let (head, _) = Head::parse(lines.as_bytes()).unwrap().unwrap();
        assert_eq!((head.keep, head.framing), (keep, framing), "{lines}");
    }
    for lines in [
        "220 ftp server\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 A\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 5-4/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 0-9/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: lines 0-1/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 0-18446744073709551615/*\r\n\r\n",
    ] {
        assert!(Head::parse(lines.as_bytes()).is_err(), "{lines}");
    }
    assert!(Head::parse(&b"HTTP/1.1 200 A\r\nx: ".repeat(5000)).is_err());
}

#[test]
fn chunks_are_joined_at_every_cut_and_broken_ones_are_refused() {
    fn read(text: &[u8], step: usize) -> Result<(Vec<u8>, bool)> {
        let mut body = Body::new(Framing::Chunked);
        let mut out = Vec::new();
        for mut piece in text.chunks(step) {
            while !piece.is_empty() && !body.has_ended() {
                let direct = (body.direct() as usize).min(piece.len());
                out.extend_from_slice(&piece[..direct]);
                body.took(direct as u64);
                piece = &piece[direct..];
                piece = &piece[body.skip(piece)?..];
            }
        }
        Ok((out, body.has_ended()))
    }
    let text = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n";
    for step in 1..=text.len() {
        assert_eq!(
            read(text, step).unwrap(),
            (b"hello!".to_vec(), true),
            "{step}"
        );
    }
    assert!(!read(&text[..text.len() - 1], 4).unwrap().1);
    for bad in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "1\r\nab\r\n",
        "fffffffffffffffff\r\n",
    ] {
        assert!(read(bad.as_bytes(), 3).is_err(), "{bad}");
    }
    assert!(read(&[b'1'; 5000], 100).is_err());
    assert!(
        read(
            &[b"0\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat(),
            999
        )
        .is_err()
    );
}

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
fn servers_without_ranges_are_refused_or_taken_whole() {
    for chunked in [false, true] {
        let server = Server::new(move |asked| match (chunked, asked.number) {
            // The first one that counts is cut.
            (false, 1 | 2) => (whole()[..LEN / 2].to_vec(), false),
            (false, _) => (whole(), true),
            (true, _) => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for piece in data(0..LEN).chunks(100_000) {
                    answer.extend(format!("{:x}\r\n", piece.len()).bytes());
                    answer.extend_from_slice(piece);
                    answer.extend(b"\r\n");
                }
                answer.extend(b"0\r\n\r\n");
                (answer, true)
            }
        });
        let found = error(server.open());
        assert_eq!(found.kind(), ErrorKind::Unsupported);
        assert_eq!(
            found.to_string(),
            "Server does not support 'range' (byte ranges)."
        );
        assert!(found.hints()[0].contains("'spool'"));
        let storage = server.open_with("spool=on", &Objects::new()).unwrap();
        check(&*storage, 0, LEN);
        check(&*storage, LEN - 5, 10);
    }
    let policy = OpenPolicy {
        max_spool_bytes: 1000,
        ..OpenPolicy::default()
    };
    let server = Server::new(|_| (whole(), true));
    let found = error(open(
        &server.url(),
        "spool=on",
        &Objects::new(),
        &policy,
        &Arc::default(),
    ));
    assert_eq!(found.kind(), ErrorKind::Limit);
    // Whether the end was cut off cannot be told.
    let server = Server::new(|_| (b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec(), false));
    let found = error(server.open_with("spool=on", &Objects::new())).to_string();
    assert!(
        found.contains("a part could not be told from all"),
        "{found}"
    );
}

#[test]
fn servers_without_ranges_are_read_in_order_where_that_is_asked_for() {
    let none = Objects::new();
    // The second answer begins with other bytes where `false` stands, and lies about nothing else.
    for (same, cut) in [
        (true, LEN / 2),
        (false, LEN / 2),
        (true, 10),
        (true, LEN - 1),
    ] {
        let server = Server::new(move |asked| match asked.number {
            0 => (whole()[..cut + 40].to_vec(), false),
            1 if !same => {
                let mut answer = whole();
                let len = answer.len();
                answer[len - LEN + 1000] ^= 1;
                (answer, true)
            }
            _ => (whole(), true),
        });
        let storage = server.open_with("stream=on", &none).unwrap();
        assert_eq!(storage.len().unwrap(), LEN as u64);
        if !same {
            let found = error(storage.read_at(&mut vec![0; LEN], 0));
            assert!(
                found.to_string().ends_with("is not what it was before"),
                "{found}"
            );
            continue;
        }
        check(&*storage, 0, 512);
        std::thread::scope(|scope| {
            for at in (0..LEN).step_by(400_000) {
                let storage = &storage;
                scope.spawn(move || check(&**storage, at, 400_000));
            }
        });
        check(&*storage, LEN - 5, 10);
        assert_eq!(server.asked().len(), 2);
        assert!(!server.asked()[1].contains("Range:"));
    }
}

#[test]
fn what_went_by_long_ago_is_an_error_with_a_remedy() {
    let len = 70 << 20;
    let server = Server::new(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
        ([head.as_bytes(), &vec![7; len]].concat(), true)
    });
    let storage = server.open_with("stream=on", &Objects::new()).unwrap();
    let mut buf = [0; 100];
    storage.read_at(&mut buf, len as u64 - 100).unwrap();
    assert_eq!(buf, [7; 100]);
    // The first 16 MiB are kept, and the last 48.
    for (at, is_kept) in [(0, true), (16, false), (20, false), (23, true), (16, false)] {
        let read = storage.read_at(&mut buf, at << 20);
        assert_eq!(read.is_ok(), is_kept, "{at}");
        if let Err(found) = read {
            assert!(found.to_string().contains("went by already"), "{found}");
            assert!(found.hints()[0].contains("'spool'"));
        }
    }
    let found = error(server.open_with("stream=on,spool=on", &Objects::new()));
    assert_eq!(
        found.to_string(),
        "'spool' and 'stream' are mutually exclusive"
    );
    let server = Server::new(|_| {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        (text.as_bytes().to_vec(), true)
    });
    let found = error(server.open_with("stream=on", &Objects::new()));
    assert!(
        found.to_string().contains("does not tell how long"),
        "{found}"
    );
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
fn redirects_are_followed_once_and_looked_for_again_when_they_fail() {
    let server = Server::new(|asked| match asked.target.as_str() {
        "/a" if asked.number < 3 => (status(302, "Location: /one?key=k\r\n"), true),
        "/a" => (status(307, "Location: two\r\n"), true),
        "/one?key=k" if asked.number > 2 => (status(404, ""), true),
        _ => (asked.answer(), true),
    });
    let storage = server.open().unwrap();
    check(&*storage, 0, 2 << 20);
    check(&*storage, 2 << 20, 1 << 19);
    check(&*storage, 0, 2 << 20);
    let targets: Vec<_> = server
        .asked()
        .iter()
        .map(|text| Asked::new(0, text).target)
        .collect();
    let expected = [
        "/a",
        "/one?key=k",
        "/one?key=k",
        "/one?key=k",
        "/a",
        "/two",
        "/two",
    ];
    assert_eq!(targets, expected);
    let server = Server::new(|_| (status(301, "Location: /a\r\n"), true));
    let found = error(server.open()).to_string();
    assert_eq!(found, "Maximum (10) redirects followed");
    for (to, text) in [
        ("ftp://h/x", "which is no URL of HTTP"),
        (
            "file:///etc/passwd",
            "The server sends on to what is no URL",
        ),
        ("http://h/a b", "The server sends on to what is no URL"),
    ] {
        let server = Server::new(move |_| (status(302, &format!("Location: {to}\r\n")), true));
        let found = error(server.open()).to_string();
        assert!(found.contains(text), "{found}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn the_policy_is_asked_for_every_hop() {
    let server = Server::new(|_| {
        (
            status(302, "Location: https://127.0.0.1:1/a?secret\r\n"),
            true,
        )
    });
    let policy = OpenPolicy {
        protocols: vec!["http".to_owned()],
        ..OpenPolicy::default()
    };
    let found = error(open(
        &server.url(),
        "",
        &Objects::new(),
        &policy,
        &Arc::default(),
    ));
    assert_eq!(found.kind(), ErrorKind::Denied);
    assert_eq!(
        found.to_string(),
        "The open policy does not allow the protocol 'https'"
    );
}

#[test]
fn what_an_image_names_leads_to_hosts_that_the_policy_names() {
    let other = Server::new(|asked| (asked.answer(), true));
    let next = other.url();
    let server = Server::new(move |_| (status(302, &format!("Location: {next}\r\n")), true));
    let try_open = |hosts: &[String], named_by_image: bool| {
        let hosts = hosts.iter().map(|host| HostRule::parse(host).unwrap());
        let policy = OpenPolicy {
            implicit_hosts: hosts.collect(),
            ..OpenPolicy::permissive()
        };
        let driver = registry::find("http").unwrap();
        let mut given = Options::new();
        given.set("url", server.url());
        driver.open_storage(&OpenContext {
            target: StorageTarget::Unnamed,
            options: &driver.check_options(&given)?,
            how: StorageOpen {
                named_by_image,
                ..StorageOpen::default()
            },
            objects: &Objects::new(),
            policy: &policy,
            control: &Arc::default(),
        })
    };
    let [own, next] = [&server, &other].map(|server| format!("127.0.0.1:{}", server.port));
    let domain = "*.example.org".to_owned();
    let found = error(try_open(std::slice::from_ref(&domain), true));
    assert_eq!(found.kind(), ErrorKind::Denied);
    assert_eq!(
        found.to_string(),
        format!("The open policy does not allow images to name the server '{own}'")
    );
    assert!(server.asked().is_empty());
    let found = error(try_open(std::slice::from_ref(&own), true)).to_string();
    assert!(found.ends_with(&format!("the server '{next}'")), "{found}");
    assert!(other.asked().is_empty());
    try_open(&[own, next], true).unwrap();
    // What the caller names itself is not asked about.
    try_open(&[domain], false).unwrap();
}

#[test]
fn who_asks_is_told_to_the_server_of_the_url_alone() {
    let other = Server::new(|asked| (asked.answer(), true));
    let port = other.port;
    let server = Server::new(move |asked| {
        let to = format!("Location: http://127.0.0.1:{port}/b\r\n");
        match asked.target.as_str() {
            "/a" => (status(302, "Location: /c\r\n"), true),
            _ => (status(302, &to), true),
        }
    });
    let mut objects = Objects::new();
    objects.add_secret("p", Secret::new("s3cret")).unwrap();
    objects.add_secret("k", Secret::new("key=42\n")).unwrap();
    objects
        .add_secret("h", Secret::new("X-Token: abc\nx-other:  d\n"))
        .unwrap();
    let options = "username=joe,password-secret=p,cookie-secret=k,headers-secret=h";
    let storage = server.open_with(options, &objects).unwrap();
    check(&*storage, 0, 1000);
    for text in server.asked() {
        for line in [
            "Authorization: Basic am9lOnMzY3JldA==",
            "Cookie: key=42",
            "X-Token: abc",
            "x-other: d",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
    }
    for text in other.asked() {
        for word in ["Authorization", "Cookie", "oken", "other"] {
            assert!(!text.contains(word), "{text}");
        }
    }
    assert!(!format!("{storage:?}").contains("am9lOn"));
    objects.add_secret("t", Secret::new("tok\n")).unwrap();
    let server = Server::new(|asked| (asked.answer(), true));
    server.open_with("bearer-secret=t", &objects).unwrap();
    assert!(server.asked()[0].contains("\r\nAuthorization: Bearer tok\r\n"));
    objects.add_secret("bad", Secret::new("a\r\nb")).unwrap();
    for (options, text) in [
        (
            "bearer-secret=t,username=joe",
            "A user and 'bearer-secret' are mutually exclusive",
        ),
        (
            "cookie-secret=bad",
            "The value of the header 'Cookie' has a control character",
        ),
        (
            "headers-secret=bad",
            "The secret of 'headers-secret' has a line that is not 'NAME: VALUE'",
        ),
        ("password-secret=none", "No secret with id 'none'"),
        (
            "cookie=a,cookie-secret=k",
            "curl driver cannot handle both cookie and cookie secret",
        ),
        (
            "readahead=100",
            "HTTP_READAHEAD_SIZE 100 is not a multiple of 512",
        ),
        (
            "timeout=20000",
            "timeout parameter is too large or negative",
        ),
        (
            "connections=0",
            "Parameter 'connections' expects a number from 1 to 16",
        ),
    ] {
        assert_eq!(error(server.open_with(options, &objects)).to_string(), text);
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
    // The gate is closed for this one's first request after the opening.
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

#[test]
fn as_many_requests_are_in_flight_as_there_are_connections() {
    // No answer comes before four requests are there.
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
