//! A server that says anything to the client of FTP: good replies and transfers, those with a fault, and bytes that
//! mean nothing. A server without a fault is understood, and what a read gives is what the server has.
#![no_main]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter_fuzz::tcp::{bytes, lose_patience, read_from, with_server};

#[derive(Arbitrary, Debug)]
struct Case {
    len: u16,
    turns: Vec<Turn>,
    reads: Vec<(u32, u16)>,
}

/// What is done with a command: most are good.
#[derive(Arbitrary, Debug)]
struct Turn {
    weight: u8,
    act: Act,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Lines(Vec<u8>),
    Unknown,
    Code(u16, Vec<u8>),
    Bytes(Vec<u8>),
    Send { from: u32, len: u32 },
    End,
}

struct Server<'a> {
    case: &'a Case,
    len: u64,
    asked: AtomicUsize,
    fault: AtomicBool,
    any_bytes: AtomicBool,
}

fn line(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

impl Server<'_> {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut passive: Option<TcpListener> = None;
        let mut start: u64 = 0;
        let mut text = "HELLO".to_owned();
        loop {
            let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
            let number = self.asked.fetch_add(1, SeqCst);
            let turn = self
                .case
                .turns
                .get(number)
                .filter(|turn| turn.weight >= 160);
            let mut range = (start, self.len);
            let mut before = Vec::new();
            match turn.map(|turn| &turn.act) {
                None => {}
                // Every reply may have lines before its last one.
                Some(Act::Lines(text)) if verb != "RETR" => {
                    let text = text.escape_ascii().to_string();
                    let code = usual(verb);
                    before = format!("{code}-{text}\r\n {text}\r\n").into_bytes();
                }
                Some(Act::Lines(_)) => {}
                Some(act) => {
                    self.fault.store(true, SeqCst);
                    lose_patience(&stream);
                    let bytes = match act {
                        Act::Unknown => b"500 What?\r\n".to_vec(),
                        Act::Code(code, text) => {
                            [format!("{:03} ", code % 1000).as_bytes(), text, b"\r\n"].concat()
                        }
                        Act::Bytes(bytes) => bytes.clone(),
                        Act::Send { from, len } if verb == "RETR" => {
                            self.any_bytes.store(true, SeqCst);
                            let from = u64::from(*from) % (self.len + 1);
                            range = (from, from + u64::from(*len) % (1 << 20));
                            Vec::new()
                        }
                        Act::Send { .. } | Act::Lines(_) => Vec::new(),
                        Act::End => return None,
                    };
                    if !bytes.is_empty() {
                        // It may be what names another length, or another place to begin.
                        self.any_bytes.store(true, SeqCst);
                        stream.write_all(&bytes).ok()?;
                        text = line(&mut stream)?;
                        continue;
                    }
                }
            }
            stream.write_all(&before).ok()?;
            let answer = match verb {
                "EPSV" | "PASV" => {
                    let listener = TcpListener::bind("127.0.0.1:0").ok()?;
                    let port = listener.local_addr().ok()?.port();
                    passive = Some(listener);
                    match verb {
                        "EPSV" => format!("229 x (|||{port}|)"),
                        _ => format!("227 x (9,9,9,9,{},{})", port / 256, port % 256),
                    }
                }
                "REST" => {
                    start = argument.parse().expect("a number");
                    assert!(start < self.len || self.any_bytes.load(SeqCst));
                    "350 x".to_owned()
                }
                "RETR" => {
                    start = 0;
                    stream.write_all(b"150 x\r\n").ok()?;
                    let (mut to, _) = passive.take()?.accept().ok()?;
                    let sent = to.write_all(&bytes(range.0, range.1.max(range.0)));
                    drop(to);
                    match sent {
                        Ok(()) => "226 x".to_owned(),
                        Err(_) => "426 x".to_owned(),
                    }
                }
                "SIZE" => format!("213 {}", self.len),
                verb => format!("{} x", usual(verb)),
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
            text = line(&mut stream)?;
        }
    }
}

/// The code that is usual.
fn usual(verb: &str) -> u16 {
    match verb {
        "HELLO" => 220,
        "USER" => 331,
        "PASS" => 230,
        "SIZE" | "MDTM" => 213,
        "EPSV" => 229,
        "PASV" => 227,
        "REST" => 350,
        _ => 200,
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
        |stream| {
            let _ = server.serve(stream);
        },
        |port| {
            let node = format!(
                "driver=raw,file.driver=ftp,file.url=ftp://127.0.0.1:{port}/a,file.timeout=1,file.retry-timeout=0,\
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
