//! A server that says anything to the client of SFTP: good replies, short ones, those with a fault, and bytes that mean
//! nothing. A server without a fault is understood, and what a read gives is what was written.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::storage::Durability;
use platter::storage::testing::sftp_over;
use platter_fuzz::tcp::{PATIENCE, SHORT};

/// The longest file.
const MOST: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Case {
    len: u16,
    turns: Vec<Turn>,
    calls: Vec<Call>,
}

/// What is done with a request: most are good.
#[derive(Arbitrary, Debug)]
struct Turn {
    weight: u8,
    act: Act,
}

#[derive(Arbitrary, Debug)]
enum Act {
    /// No more bytes of a read than that.
    Short(u16),
    Status {
        code: u32,
        text: Vec<u8>,
    },
    Packet {
        kind: u8,
        rest: Vec<u8>,
    },
    OtherId(u32),
    Length(i32),
    Edited {
        at: u16,
        byte: u8,
    },
    Twice,
    Bytes(Vec<u8>),
    End,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Read { at: u32, len: u16 },
    Write { at: u32, len: u16 },
    Len(u32),
    Sync,
}

fn packet(kind: u8, id: &[u8], rest: &[u8]) -> Vec<u8> {
    let len = 1 + id.len() as u32 + rest.len() as u32;
    [&len.to_be_bytes(), &[kind][..], id, rest].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn status(id: &[u8], code: u32) -> Vec<u8> {
    packet(101, id, &code.to_be_bytes())
}

/// What a good server replies.
fn reply(file: &mut Vec<u8>, request: &[u8], most: usize) -> Vec<u8> {
    let (kind, rest) = request.split_first().expect("a request");
    if *kind == 1 {
        return packet(2, &3u32.to_be_bytes(), &[]);
    }
    let (id, rest) = rest.split_at(4);
    let number = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().expect("a number"));
    match kind {
        3 => packet(102, id, &string(b"h")),
        5 => {
            let start = (number(5) as usize).min(file.len());
            let asked = u32::from_be_bytes(rest[13..17].try_into().expect("a number")) as usize;
            match (file.len() - start).min(asked).min(most) {
                0 => status(id, 1),
                len => packet(103, id, &string(&file[start..start + len])),
            }
        }
        6 => {
            let (start, data) = (number(5) as usize, &rest[17..]);
            if start + data.len() > MOST {
                return status(id, 4);
            }
            let len = file.len().max(start + data.len());
            file.resize(len, 0);
            file[start..start + data.len()].copy_from_slice(data);
            status(id, 0)
        }
        8 => {
            let size = (file.len() as u64).to_be_bytes();
            packet(105, id, &[&1u32.to_be_bytes(), &size[..]].concat())
        }
        4 => status(id, 0),
        10 if number(9) as usize > MOST => status(id, 4),
        10 => {
            file.resize(number(9) as usize, 0);
            status(id, 0)
        }
        _ => status(id, 8),
    }
}

fn serve(case: &Case, mut stream: UnixStream, fault: &AtomicBool) -> Option<()> {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut file = vec![7; usize::from(case.len)];
    let mut turns = case.turns.iter();
    let mut len = [0; 4];
    loop {
        stream.read_exact(&mut len).ok()?;
        let mut request = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut request).ok()?;
        let turn = turns.next().filter(|turn| turn.weight >= 160);
        let most = match turn.map(|turn| &turn.act) {
            Some(Act::Short(most)) => usize::from(*most).max(1),
            _ => usize::MAX,
        };
        let mut good = reply(&mut file, &request, most);
        let act = match turn.map(|turn| &turn.act) {
            None | Some(Act::Short(_)) => {
                stream.write_all(&good).ok()?;
                continue;
            }
            Some(act) => act,
        };
        fault.store(true, SeqCst);
        let _ = stream.set_read_timeout(Some(SHORT));
        let id = request.get(1..5).unwrap_or(&[0; 4]).to_vec();
        let sent = match act {
            Act::Status { code, text } => packet(
                101,
                &id,
                &[&code.to_be_bytes()[..], &string(text), &string(b"")].concat(),
            ),
            Act::Packet { kind, rest } => packet(*kind, &id, rest),
            Act::OtherId(id) => {
                good[5..9].copy_from_slice(&id.to_be_bytes());
                good
            }
            Act::Length(by) => {
                let len = u32::from_be_bytes(good[..4].try_into().ok()?);
                good[..4].copy_from_slice(&len.wrapping_add_signed(*by).to_be_bytes());
                good
            }
            Act::Edited { at, byte } => {
                let at = usize::from(*at) % good.len();
                good[at] = *byte;
                good
            }
            Act::Twice => [good.clone(), good].concat(),
            Act::Bytes(bytes) => bytes.clone(),
            Act::Short(_) | Act::End => return None,
        };
        stream.write_all(&sent).ok()?;
    }
}

/// What the file holds as long as nothing was wrong.
fn play(case: &Case, socket: UnixStream, fault: &AtomicBool) {
    let control = Arc::default();
    let is_clean = || !fault.load(SeqCst);
    let storage = match sftp_over(socket, &control) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(!is_clean(), "a server without a fault: {error}");
            return;
        }
    };
    let mut file = vec![7; usize::from(case.len)];
    for call in case.calls.iter().take(12) {
        let place = |at: u32| at as usize % (MOST / 2);
        let done = match call {
            Call::Read { at, len } => {
                let at = place(*at);
                let mut buf = vec![0xa4; usize::from(*len)];
                let done = storage.read_at(&mut buf, at as u64);
                if done.is_ok() && is_clean() {
                    let mut expected = file.get(at..).unwrap_or_default().to_vec();
                    expected.resize(buf.len(), 0);
                    assert!(buf == expected, "other bytes at {at}");
                }
                done
            }
            Call::Write { at, len } => {
                let at = place(*at);
                let data = vec![at as u8 | 1; usize::from(*len)];
                if !data.is_empty() && file.len() < at + data.len() {
                    file.resize(at + data.len(), 0);
                }
                if !data.is_empty() {
                    file[at..at + data.len()].copy_from_slice(&data);
                }
                storage.write_at(&data, at as u64)
            }
            Call::Len(len) => {
                let len = place(*len);
                file.resize(len, 0);
                storage.set_len(len as u64, platter::storage::Preallocation::Off)
            }
            Call::Sync => storage.sync(Durability::Synced),
        };
        if let Err(error) = done
            && is_clean()
            && !matches!(call, Call::Sync)
        {
            panic!("a server without a fault: {call:?}: {error}");
        }
    }
}

fuzz_target!(|case: Case| {
    let (near, far) = UnixStream::pair().expect("a pair");
    let fault = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&case, far, &fault));
        play(&case, near, &fault);
    });
});
