//! A scripted server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::{Storage, registry};

/// A request as the server sees it.
pub(super) struct Asked {
    /// Its number, counted from 0.
    pub(super) number: usize,
    pub(super) target: String,
    /// The first byte and the one past the last, which is at most `LEN`.
    pub(super) range: Option<(usize, usize)>,
}

pub(super) const LEN: usize = 3_000_000;

/// The bytes of the image.
pub(super) fn data(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| ((at / 251) ^ at) as u8).collect()
}

impl Asked {
    pub(super) fn new(number: usize, text: &str) -> Self {
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

    /// The head of a correct response, and its body.
    pub(super) fn good(&self) -> (String, Vec<u8>) {
        let (start, end) = self.range.unwrap();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{LEN}\r\nETag: \"a\"\r\n",
            end - start,
            end - 1
        );
        (head, data(start..end))
    }

    pub(super) fn answer(&self) -> Vec<u8> {
        let (head, body) = self.good();
        [head.as_bytes(), b"\r\n", &body].concat()
    }

    /// A correct response without this many bytes at the end of its body.
    pub(super) fn short(&self, missing: usize) -> Vec<u8> {
        let mut answer = self.answer();
        answer.truncate(answer.len() - missing);
        answer
    }

    pub(super) fn with(&self, line: &str) -> Vec<u8> {
        let (head, body) = self.good();
        [head.as_bytes(), line.as_bytes(), b"\r\n\r\n", &body].concat()
    }
}

pub(super) fn status(code: u16, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n{lines}\r\n").into_bytes()
}

pub(super) fn whole() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n");
    [head.as_bytes(), &data(0..LEN)].concat()
}

/// What a server does with a request: what it sends, and whether it keeps the connection open.
pub(super) type Script = dyn Fn(&Asked) -> (Vec<u8>, bool) + Send + Sync;

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn new(script: impl Fn(&Asked) -> (Vec<u8>, bool) + Send + Sync + 'static) -> Self {
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

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/a", self.port)
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    pub(super) fn open(&self) -> Result<Arc<dyn Storage>> {
        self.open_with("", &Objects::new())
    }

    pub(super) fn open_with(&self, options: &str, objects: &Objects) -> Result<Arc<dyn Storage>> {
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

pub(super) fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>, script: &Script) {
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
        // The client may already have closed the connection.
        if stream.write_all(&answer).is_err() || !goes_on {
            return;
        }
    }
}

pub(super) fn open(
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
pub(super) fn check(storage: &dyn Storage, offset: usize, len: usize) {
    let mut buf = vec![1; len];
    storage.read_at(&mut buf, offset as u64).unwrap();
    let end = (offset + len).min(LEN);
    let mut expected = data(offset.min(end)..end);
    expected.resize(len, 0);
    assert!(buf == expected, "{offset} {len}");
}

pub(super) fn error<T: std::fmt::Debug>(outcome: Result<T>) -> Error {
    outcome.unwrap_err()
}
