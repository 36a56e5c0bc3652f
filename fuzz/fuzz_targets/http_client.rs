//! A server that says anything to the client of HTTP: good answers, whole or in chunks, those with a fault, and bytes
//! that mean nothing. A server without a fault is understood, and what a read gives is what the server has.
#![no_main]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter_fuzz::tcp::{bytes, lose_patience, read_from, with_server};

#[derive(Arbitrary, Debug)]
struct Case {
    len: u16,
    answers: Vec<Answer>,
    reads: Vec<(u32, u16)>,
}

#[derive(Arbitrary, Debug)]
enum Answer {
    Good,
    Chunks(u16),
    Close,
    Whole,
    Status { code: u16, line: Vec<u8> },
    Cut(u16),
    Edited { at: u16, byte: u8 },
    Line(Vec<u8>),
    Bytes(Vec<u8>),
}

struct Server<'a> {
    case: &'a Case,
    len: u64,
    asked: AtomicUsize,
    /// Something was wrong, so that the client may give up.
    fault: AtomicBool,
    /// What was sent may be taken for the image.
    any_bytes: AtomicBool,
}

impl Server<'_> {
    fn serve(&self, mut stream: TcpStream) {
        let mut text = Vec::new();
        let mut byte = [0];
        loop {
            text.clear();
            while !text.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => text.push(byte[0]),
                    _ => return,
                }
            }
            let Some((answer, goes_on)) = self.answer(&String::from_utf8_lossy(&text)) else {
                return;
            };
            if self.fault.load(SeqCst) {
                lose_patience(&stream);
            }
            if stream.write_all(&answer).is_err() || !goes_on {
                return;
            }
        }
    }

    fn answer(&self, text: &str) -> Option<(Vec<u8>, bool)> {
        let range = text.split("\r\nRange: bytes=").nth(1)?;
        let (first, rest) = range.split_once('-')?;
        let last = rest.split("\r\n").next()?;
        let start: u64 = first.parse().ok()?;
        let end = last.parse::<u64>().ok()?.saturating_add(1).min(self.len);
        if self.len == 0 {
            let answer = "HTTP/1.1 416 X\r\nContent-Length: 0\r\nContent-Range: bytes */0\r\n\r\n";
            return Some((answer.as_bytes().to_vec(), true));
        }
        assert!(start < end, "nothing is asked for: {text}");
        let data = bytes(start, end);
        let head = format!(
            "HTTP/1.1 206 X\r\nContent-Range: bytes {start}-{}/{}\r\n",
            end - 1,
            self.len
        );
        let framed = format!("{head}Content-Length: {}\r\n", end - start);
        let good = [framed.as_bytes(), b"\r\n", &data].concat();
        let number = self.asked.fetch_add(1, SeqCst);
        let Some(answer) = self.case.answers.get(number) else {
            return Some((good, true));
        };
        if !matches!(answer, Answer::Good | Answer::Chunks(_) | Answer::Close) {
            self.fault.store(true, SeqCst);
        }
        Some(match answer {
            Answer::Good => (good, true),
            Answer::Close => (
                [framed.as_bytes(), b"Connection: close\r\n\r\n", &data].concat(),
                false,
            ),
            Answer::Chunks(size) => {
                let mut answer = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in data.chunks(usize::from(*size).max(64)) {
                    answer.extend(format!("{:x};x=y\r\n", chunk.len()).bytes());
                    answer.extend(chunk);
                    answer.extend(b"\r\n");
                }
                answer.extend(b"0\r\nA: b\r\n\r\n");
                (answer, true)
            }
            Answer::Whole => {
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", self.len);
                ([head.as_bytes(), &bytes(0, self.len)].concat(), true)
            }
            Answer::Status { code, line } => {
                // Lines of a head may make it one with a body.
                self.any_bytes.store(true, SeqCst);
                let head = format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n", code % 1000);
                ([head.as_bytes(), line, b"\r\n\r\n"].concat(), true)
            }
            Answer::Cut(missing) => {
                let len = good.len().saturating_sub(usize::from(*missing).max(1));
                (good[..len].to_vec(), false)
            }
            Answer::Edited { at, byte } => {
                self.any_bytes.store(true, SeqCst);
                let mut answer = good;
                let at = usize::from(*at) % answer.len();
                answer[at] = *byte;
                (answer, false)
            }
            Answer::Line(line) => {
                self.any_bytes.store(true, SeqCst);
                (
                    [framed.as_bytes(), line, b"\r\n\r\n", &data].concat(),
                    false,
                )
            }
            Answer::Bytes(bytes) => {
                self.any_bytes.store(true, SeqCst);
                (bytes.clone(), false)
            }
        })
    }
}

fuzz_target!(|case: Case| {
    let server = Server {
        len: u64::from(case.len) * 8,
        case: &case,
        asked: AtomicUsize::new(0),
        fault: AtomicBool::new(false),
        any_bytes: AtomicBool::new(false),
    };
    with_server(
        |stream| server.serve(stream),
        |port| {
            let node = format!(
                "driver=raw,file.driver=http,file.url=http://127.0.0.1:{port}/a,file.timeout=2,file.retry-timeout=0,\
                 file.connections=2"
            );
            read_from(&node, &case.reads, |at, read| match read {
                Ok(read) if !server.any_bytes.load(SeqCst) => {
                    let end = (at + read.len() as u64).min(server.len);
                    let expected = bytes(at, end.max(at));
                    assert!(read.starts_with(&expected), "other bytes at {at}");
                }
                Ok(_) => {}
                Err(error) => {
                    let clean = !server.fault.load(SeqCst) && error.errno() != libc::EADDRNOTAVAIL;
                    assert!(!clean, "a server without a fault: {error}");
                }
            });
        },
    );
});
