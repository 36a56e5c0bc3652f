//! The client against scripted servers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::ErrorKind;
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Values;
use crate::policy::OpenPolicy;
use crate::storage::creation::Creation;
use crate::storage::driver::{CreateContext, StorageTarget};
use crate::storage::remote_file::claim;
use crate::storage::{CacheMode, Durability, Preallocation, Storage, ZeroFlags};

use super::file::Dial;
use super::link::{Connect, Link};
use super::plain::{self, Socket, open};

/// Returns the server's reply to a packet; `None` closes the connection.
type Answer = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

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

/// A server with one file that offers no extensions.
fn serve(file: &Mutex<Vec<u8>>, most: usize, request: &[u8]) -> Vec<u8> {
    let (kind, rest) = request.split_first().unwrap();
    if *kind == 1 {
        return packet(2, &3u32.to_be_bytes(), &[]);
    }
    let (id, rest) = rest.split_at(4);
    let number = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().unwrap());
    let mut file = file.lock();
    match kind {
        3 => packet(102, id, &string(b"h")),
        5 => {
            let start = (number(5) as usize).min(file.len());
            let asked = u32::from_be_bytes(rest[13..17].try_into().unwrap()) as usize;
            match (file.len() - start).min(asked).min(most) {
                0 => status(id, 1),
                len => packet(103, id, &string(&file[start..start + len])),
            }
        }
        6 => {
            let (start, data) = (number(5) as usize, &rest[17..]);
            let len = file.len().max(start + data.len());
            file.resize(len, 0);
            file[start..start + data.len()].copy_from_slice(data);
            status(id, 0)
        }
        8 => {
            let size = (file.len() as u64).to_be_bytes();
            packet(105, id, &[&1u32.to_be_bytes(), &size[..]].concat())
        }
        10 => {
            file.resize(number(9) as usize, 0);
            status(id, 0)
        }
        _ => status(id, 8),
    }
}

fn dial(answer: Arc<Answer>) -> Dial {
    dial_for(answer, None)
}

/// As [`dial`], with a limit on how long the server may be silent.
fn dial_for(answer: Arc<Answer>, timeout: Option<Duration>) -> Dial {
    Arc::new(move |control: &JobControl| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let answer = answer.clone();
        std::thread::spawn(move || {
            let mut len = [0; 4];
            while far.read_exact(&mut len).is_ok() {
                let mut request = vec![0; u32::from_be_bytes(len) as usize];
                if far.read_exact(&mut request).is_err() {
                    return;
                }
                let Some(reply) = answer(&request) else {
                    return;
                };
                // A client that has given up may be gone.
                let _ = far.write_all(&reply);
            }
        });
        let make: Connect = Box::new(move |_| Ok(Box::new(Socket(near))));
        Link::open(make, timeout, control)
    })
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn reads_and_writes_of_any_length_come_together_from_short_replies() {
    let file = Arc::new(Mutex::new(bytes(300_000)));
    let own = file.clone();
    let dial = dial(Arc::new(move |request| Some(serve(&own, 10_000, request))));
    let storage = open(&dial, true, &Arc::default()).unwrap();
    assert_eq!(storage.len().unwrap(), 300_000);
    let mut buf = vec![1; 300_010];
    storage.read_at(&mut buf, 0).unwrap();
    assert!(buf[..300_000] == bytes(300_000) && buf[300_000..] == [0; 10]);
    storage.write_at(&bytes(100_000), 299_000).unwrap();
    assert_eq!(storage.len().unwrap(), 399_000);
    let mut buf = vec![0; 1000];
    storage.read_at(&mut buf, 299_000).unwrap();
    assert_eq!(buf, bytes(1000));
    storage
        .write_zeroes(398_000, 10_000, ZeroFlags::empty())
        .unwrap();
    assert_eq!(file.lock().len(), 408_000);
    assert!(file.lock()[398_000..].iter().all(|byte| *byte == 0));
    storage.set_len(5, Preallocation::Off).unwrap();
    assert_eq!(*file.lock(), bytes(5));
    // The server cannot sync, which is reported when the file is opened.
    storage.sync(Durability::Synced).unwrap();
    assert!(storage.report().unwrap().warnings()[0].contains("does not support fsync"));
}

/// What `/dev/zero` is on a server that can copy, and how the server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Zeroes {
    Device,
    /// It refuses all copy requests but the first.
    Failing,
    Missing,
    File,
    OtherDevice,
}

/// As [`serve`], for a server that can copy; counts the bytes sent to it, and the copies.
fn serve_copying(
    zeroes: Zeroes,
    file: &Mutex<Vec<u8>>,
    (sent, copies): &(AtomicUsize, AtomicUsize),
    request: &[u8],
) -> Vec<u8> {
    let (kind, rest) = request.split_first().unwrap();
    let id = rest.get(..4).unwrap_or_default();
    let is_of_zeroes =
        |handle_at: usize| rest.get(handle_at..handle_at + 5) == Some(b"\0\0\0\x01z");
    match kind {
        1 => {
            let names = [string(b"copy-data"), string(b"1")].concat();
            packet(2, &3u32.to_be_bytes(), &names)
        }
        3 if rest.ends_with(b"/dev/zero\0\0\0\x01\0\0\0\0") => match zeroes {
            Zeroes::Missing => status(id, 2),
            _ => packet(102, id, &string(b"z")),
        },
        5 if is_of_zeroes(4) => {
            let byte = u8::from(zeroes == Zeroes::OtherDevice);
            packet(103, id, &string(&[byte; 4096]))
        }
        8 if is_of_zeroes(4) => {
            let mode = match zeroes {
                Zeroes::File => libc::S_IFREG,
                _ => libc::S_IFCHR,
            };
            packet(
                105,
                id,
                &[&4u32.to_be_bytes(), &mode.to_be_bytes()[..]].concat(),
            )
        }
        200 => {
            // The name, the handle of the zeroes, the offset in it, the length, and the handle of the file.
            let numbers = rest.get(4 + 13 + 5..).unwrap();
            let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().unwrap());
            let (len, start) = (number(8) as usize, number(21) as usize);
            if copies.fetch_add(1, Ordering::Relaxed) > 0 && zeroes == Zeroes::Failing {
                return status(id, 4);
            }
            file.lock()[start..start + len].fill(0);
            status(id, 0)
        }
        _ => {
            if *kind == 6 {
                sent.fetch_add(request.len() - 22, Ordering::Relaxed);
            }
            serve(file, 1 << 20, request)
        }
    }
}

#[test]
fn zeroes_are_copied_by_the_server_where_it_has_them() {
    const LEN: usize = 9 << 20;
    for zeroes in [
        Zeroes::Device,
        Zeroes::Failing,
        Zeroes::Missing,
        Zeroes::File,
        Zeroes::OtherDevice,
    ] {
        let file = Arc::new(Mutex::new(vec![1; LEN]));
        let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let (own, counted) = (file.clone(), counts.clone());
        let answer = move |request: &[u8]| Some(serve_copying(zeroes, &own, &counted, request));
        let storage = open(&dial(Arc::new(answer)), true, &Arc::default()).unwrap();
        let zero = |start: usize, end: usize| {
            let len = (end - start) as u64;
            let done = storage.write_zeroes(start as u64, len, ZeroFlags::empty());
            done.unwrap();
            assert!(file.lock()[start..end].iter().all(|byte| *byte == 0));
        };
        zero(1000, LEN - 1000);
        let (sent, copies) = (&counts.0, &counts.1);
        let (expected, asked) = match zeroes {
            Zeroes::Device => (0, 3),
            Zeroes::Failing => (LEN - 2000, 3),
            _ => (LEN - 2000, 0),
        };
        assert_eq!(sent.load(Ordering::Relaxed), expected, "{zeroes:?}");
        assert_eq!(copies.load(Ordering::Relaxed), asked, "{zeroes:?}");
        // A short run is sent as data, and a server that has failed to copy is not asked to again.
        zero(100, 600);
        zero(0, LEN);
        let copies = copies.load(Ordering::Relaxed);
        let asked = if zeroes == Zeroes::Device { 6 } else { asked };
        assert_eq!(copies, asked, "{zeroes:?}");
        assert_eq!(file.lock().len(), LEN);
    }
}

#[test]
fn many_threads_share_a_connection() {
    let file = Arc::new(Mutex::new(vec![0; 1 << 20]));
    let own = file.clone();
    let dial = dial(Arc::new(move |request| Some(serve(&own, 1 << 20, request))));
    let storage = open(&dial, true, &Arc::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let storage = &storage;
            scope.spawn(move || {
                let own = vec![thread as u8 + 1; 65_536];
                storage.write_at(&own, thread * 65_536).unwrap();
                let mut buf = vec![0; 65_536];
                storage.read_at(&mut buf, thread * 65_536).unwrap();
                assert!(buf == own);
            });
        }
    });
    assert!(
        file.lock()
            .chunks(65_536)
            .zip(1..)
            .all(|(part, n)| part.iter().all(|b| *b == n))
    );
}

#[test]
fn a_read_goes_on_over_a_new_connection_and_a_write_does_not() {
    let file = Arc::new(Mutex::new(bytes(100_000)));
    let reads = Arc::new(AtomicUsize::new(0));
    let (own, count) = (file.clone(), reads.clone());
    let dial = dial(Arc::new(move |request| {
        let is_data = matches!(request[0], 5 | 6);
        match is_data && count.fetch_add(1, Ordering::Relaxed) == 1 {
            true => None,
            false => Some(serve(&own, 1 << 20, request)),
        }
    }));
    let storage = open(&dial, false, &Arc::default()).unwrap();
    let mut buf = vec![0; 100_000];
    storage.read_at(&mut buf, 0).unwrap();
    assert!(buf == bytes(100_000));
    drop(storage);
    reads.store(0, Ordering::Relaxed);
    let storage = open(&dial, true, &Arc::default()).unwrap();
    let error = storage.write_at(&buf, 0).unwrap_err();
    assert!(
        error.to_string().starts_with("Connection to 'ssh://h/p': "),
        "{error}"
    );
    assert_eq!(error.file(), Some(storage.name()));
    drop(storage);
    // A file that has changed in the meantime is not read any further.
    reads.store(0, Ordering::Relaxed);
    let storage = open(&dial, false, &Arc::default()).unwrap();
    file.lock().push(0);
    let error = storage.read_at(&mut buf, 0).unwrap_err();
    assert_eq!(error.errno(), libc::ESTALE, "{error}");
    assert_eq!(error.file(), Some(storage.name()));
}

#[test]
fn servers_that_break_the_protocol_are_left_with_one_line() {
    type Break = fn(&[u8], Vec<u8>) -> Vec<u8>;
    let breaks: [(&str, Break); 7] = [
        ("a packet of 4294967295 bytes", |_, _| vec![0xff; 8]),
        ("what was not asked", |request, _| {
            status(&[9; 4], u32::from(request[0]))
        }),
        ("cut off", |request, _| {
            packet(103, &request[1..5], b"\0\0\xff\xffab")
        }),
        ("bytes of data where", |request, _| {
            packet(103, &request[1..5], &string(&vec![0; 200_000]))
        }),
        ("a packet of the type 77", |request, _| {
            packet(77, &request[1..5], &[])
        }),
        ("of another kind", |request, _| {
            packet(102, &request[1..5], &string(b"h"))
        }),
        ("what was not asked", |_, reply| {
            [reply.clone(), reply].concat()
        }),
    ];
    for (text, broken) in breaks {
        let file = Mutex::new(bytes(10));
        let dial = dial(Arc::new(move |request| {
            let reply = serve(&file, 100, request);
            Some(match request[0] {
                5 => broken(request, reply),
                _ => reply,
            })
        }));
        let storage = open(&dial, false, &Arc::default()).unwrap();
        // A duplicate reply is noticed with the next request at the latest.
        let error = (0..1000).find_map(|_| storage.read_at(&mut [0; 10], 0).err());
        let error = error.unwrap();
        assert!(error.to_string().contains(text), "{text}: {error}");
        assert_eq!(error.errno(), libc::EPROTO, "{text}");
    }
}

#[test]
fn a_file_that_ends_too_early_is_an_error() {
    let file = Arc::new(Mutex::new(bytes(10)));
    let own = file.clone();
    let dial = dial(Arc::new(move |request| Some(serve(&own, 100, request))));
    let storage = open(&dial, false, &Arc::default()).unwrap();
    file.lock().truncate(5);
    let error = storage.read_at(&mut [0; 10], 0).unwrap_err();
    assert!(
        error.to_string().contains("ends before offset 5"),
        "{error}"
    );
}

#[test]
fn a_deadline_holds_wherever_a_server_stalls() {
    for silent in [1, 3, 5, 8] {
        let file = Mutex::new(bytes(10));
        let dial = dial(Arc::new(move |request| match request[0] == silent {
            true => Some(Vec::new()),
            false => Some(serve(&file, 100, request)),
        }));
        let control = Arc::new(JobControl::default());
        control.set_deadline(Some(Duration::from_millis(60)));
        let late = open(&dial, false, &control)
            .and_then(|storage| storage.read_at(&mut [0; 10], 0))
            .unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Cancelled, "{silent}: {late}");
    }
}

#[test]
fn a_file_that_was_made_goes_whenever_the_work_ends() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum When {
        Making,
        Looking,
        LookingFails,
        NoReply,
    }
    for when in [
        When::Making,
        When::Looking,
        When::LookingFails,
        When::NoReply,
    ] {
        let control = Arc::new(JobControl::default());
        let there = Arc::new(AtomicBool::new(false));
        let (own, file) = (there.clone(), Mutex::new(Vec::new()));
        let job = control.clone();
        let dial = dial(Arc::new(move |request| {
            let id = request.get(1..5).unwrap_or_default();
            match (request[0], when) {
                (3, _) => own.store(true, Ordering::SeqCst),
                (13, _) => own.store(false, Ordering::SeqCst),
                _ => {}
            }
            match (request[0], when) {
                (13, _) => return Some(status(id, 0)),
                (8, When::LookingFails) => return Some(status(id, 4)),
                (3, When::Making | When::NoReply) | (8, When::Looking) => job.cancel(),
                _ => {}
            }
            if (request[0], when) == (3, When::NoReply) {
                return Some(Vec::new());
            }
            // Longer than it takes to notice the end of the job.
            std::thread::sleep(Duration::from_millis(150));
            Some(serve(&file, 100, request))
        }));
        let context = CreateContext {
            target: StorageTarget::Unnamed,
            options: &Values::default(),
            cache: CacheMode::Writeback,
            is_filled: false,
            objects: &Objects::new(),
            policy: &OpenPolicy::default(),
            control: &control,
        };
        let made = claim(&context, "h".into(), plain::file(&dial).unwrap());
        match made.map(Creation::new) {
            Ok(creation) => {
                assert_eq!(when, When::Making);
                creation.storage().write_at(&[1], 0).unwrap_err();
            }
            Err(error) => assert_eq!(
                error.kind() == ErrorKind::Cancelled,
                when != When::LookingFails,
                "{when:?}: {error}"
            ),
        }
        assert_eq!(
            there.load(Ordering::SeqCst),
            when == When::NoReply,
            "{when:?}"
        );
        let left = control.take_left();
        assert_eq!(left.len(), usize::from(when == When::NoReply), "{left:?}");
        assert!(left.iter().all(|line| line.ends_with("may have been made")));
    }
}

#[test]
fn a_server_that_keeps_quiet_is_given_up() {
    for silent in [1, 3, 5, 8] {
        let file = Mutex::new(bytes(10));
        let answer: Arc<Answer> = Arc::new(move |request| match request[0] == silent {
            true => Some(Vec::new()),
            false => Some(serve(&file, 100, request)),
        });
        let dial = dial_for(answer, Some(Duration::from_millis(20)));
        let found = open(&dial, false, &Arc::default())
            .and_then(|storage| storage.read_at(&mut [0; 10], 0))
            .unwrap_err();
        assert!(
            found.to_string().contains("has not answered"),
            "{silent}: {found}"
        );
    }
}

#[test]
fn a_connection_is_made_again_by_one_of_those_that_wait_for_it() {
    let (file, reads) = (Mutex::new(bytes(10)), AtomicUsize::new(0));
    // The connection is closed once all of them have sent their requests.
    let answer: Arc<Answer> = Arc::new(move |request| match request[0] {
        5 if reads.fetch_add(1, Ordering::SeqCst) == 7 => None,
        5 => Some(Vec::new()),
        _ => Some(serve(&file, 100, request)),
    });
    let (connect, dials) = (dial(answer), Arc::new(AtomicUsize::new(0)));
    let counted: Dial = {
        let dials = dials.clone();
        Arc::new(move |control| match dials.fetch_add(1, Ordering::SeqCst) {
            0 => connect(control),
            _ => Err(crate::error::Error::os(libc::ECONNREFUSED)),
        })
    };
    let storage = open(&counted, false, &Arc::default()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let found = storage.read_at(&mut [0; 10], 0).unwrap_err();
                assert!(found.to_string().contains("refused"), "{found}");
            });
        }
    });
    // One of them has tried a few times, on behalf of all.
    assert!(dials.load(Ordering::SeqCst) <= 1 + 4);
}

#[test]
fn a_connection_whose_server_owes_replies_ends_with_the_work() {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let (file, reads) = (Mutex::new(bytes(100_000)), Arc::new(AtomicUsize::new(0)));
    let control = Arc::new(JobControl::default());
    let dial = {
        let (reads, own) = (reads.clone(), control.clone());
        dial(Arc::new(move |request| {
            // Dropped with the last thread that could reply.
            let _ended = &ended;
            match request[0] {
                5 => {
                    // All slots are in use when the job is cancelled.
                    if reads.fetch_add(1, Ordering::SeqCst) == 63 {
                        own.cancel();
                    }
                    Some(Vec::new())
                }
                _ => Some(serve(&file, 1000, request)),
            }
        }))
    };
    let storage = open(&dial, false, &control).unwrap();
    drop(dial);
    std::thread::scope(|scope| {
        for at in 0..64 {
            let storage = &storage;
            scope.spawn(move || {
                let found = storage.read_at(&mut [0; 10], at * 1000).unwrap_err();
                assert_eq!(found.kind(), ErrorKind::Cancelled);
            });
        }
    });
    drop(storage);
    // Nothing is ever sent: this returns when the other end has been dropped.
    assert!(end.recv().is_err());
}
