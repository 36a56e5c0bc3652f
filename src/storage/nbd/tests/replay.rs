//! Changes replayed on another connection never overwrite newer ones, and a failed flush is not forgotten.

use std::sync::Barrier;
use std::sync::mpsc::{Receiver, channel};

use super::*;

const DELAY: &str = ",reconnect-delay=20";
/// A read at this offset is answered once the second connection is established.
const STALLS: u64 = 64 << 10;

/// The contents of an export.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    /// How many of the next writes are refused, and leave garbage in their ranges.
    spoils: AtomicUsize,
}

impl Disk {
    /// Carries out a request; None at the end of the connection.
    fn serve_one(&self, peer: &mut Peer, before: impl FnOnce(Command, u64)) -> Option<()> {
        let (request, data) = peer.request()?;
        before(request.command, request.offset);
        let range = request.offset as usize..(request.offset + request.len) as usize;
        let mut bytes = self.bytes.lock();
        let spoils = |left: usize| left.checked_sub(1);
        match request.command {
            Command::READ => {
                let data = bytes[range].to_vec();
                peer.data(&request, request.offset, true, &data);
                return Some(());
            }
            Command::WRITE => {
                if self
                    .spoils
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, spoils)
                    .is_ok()
                {
                    bytes[range].fill(0xdd);
                    peer.simple(&request, 5, b"");
                    return Some(());
                }
                bytes[range].copy_from_slice(&data);
            }
            Command::WRITE_ZEROES => bytes[range].fill(0),
            other => assert_eq!(other, Command::FLUSH),
        }
        peer.simple(&request, 0, b"");
        Some(())
    }

    fn serve(&self, peer: &mut Peer) {
        while self.serve_one(peer, |_, _| {}).is_some() {}
    }

    /// The contents at the beginning.
    fn start(&self) -> Vec<u8> {
        self.bytes.lock()[..2048].to_vec()
    }
}

/// A server whose first connection is busy until there is a second one.
struct Lanes {
    fake: Fake,
    disk: Arc<Disk>,
    stalls: Mutex<Receiver<()>>,
}

impl Lanes {
    fn new(second: impl Fn(&Disk, &mut Peer) + Send + Sync + 'static) -> Self {
        let disk = Arc::new(Disk {
            bytes: Mutex::new(vec![0xee; SIZE as usize]),
            spoils: AtomicUsize::new(0),
        });
        let served = disk.clone();
        let (tell, stalls) = channel();
        let tell = Mutex::new(tell);
        let both = Barrier::new(2);
        let each = move |number: usize, peer: &mut Peer| match number {
            0 => {
                let before = |command, offset| {
                    if (command, offset) == (Command::READ, STALLS) {
                        tell.lock().send(()).unwrap();
                        both.wait();
                    }
                };
                while served.serve_one(peer, before).is_some() {}
            }
            1 => {
                both.wait();
                second(&served, peer);
            }
            _ => served.serve(peer),
        };
        Self {
            fake: at_once(Duration::from_millis(200), each),
            disk,
            stalls: Mutex::new(stalls),
        }
    }

    fn open(&self, control: &Arc<JobControl>) -> NbdStorage {
        self.fake.open(DELAY, control).unwrap()
    }

    /// Reads the beginning while the first connection is busy.
    fn read_on_another(&self, storage: &NbdStorage) -> Result<Vec<u8>> {
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| storage.read_at(&mut [0; 512], STALLS));
            let wait = Duration::from_secs(60);
            self.stalls.lock().recv_timeout(wait).unwrap();
            let read = start(storage);
            stalled.join().unwrap().unwrap();
            read
        })
    }
}

/// The contents at the beginning, read through a storage.
fn start(storage: &NbdStorage) -> Result<Vec<u8>> {
    let mut buf = vec![0; 2048];
    storage.read_at(&mut buf, 0).map(|()| buf)
}

/// Overwrites the beginning several times; returns the resulting contents.
fn change_over_and_over(storage: &NbdStorage) -> Vec<u8> {
    storage.write_at(&[1; 1536], 0).unwrap();
    storage.write_at(&[2; 512], 512).unwrap();
    storage.write_zeroes(0, 512, ZeroFlags::empty()).unwrap();
    storage.write_at(&[3; 512], 1536).unwrap();
    [[0; 512], [2; 512], [1; 512], [3; 512]].concat()
}

#[test]
fn what_is_made_again_in_part_puts_nothing_older_back() {
    for carried_out in 0..4 {
        let lanes = Lanes::new(move |disk, peer| {
            for _ in 0..carried_out {
                disk.serve_one(peer, |_, _| {}).unwrap();
            }
            // One more was sent, but gets no reply.
            peer.request().unwrap();
        });
        let storage = lanes.open(&Arc::default());
        let newest = change_over_and_over(&storage);
        assert!(lanes.read_on_another(&storage).unwrap() == newest);
        storage.sync(Durability::Synced).unwrap();
        assert!(lanes.disk.start() == newest, "{carried_out}");
    }
}

#[test]
fn a_cancel_while_changes_are_made_again_leaves_nothing_older() {
    let half = Arc::new(Barrier::new(2));
    let there = half.clone();
    let lanes = Lanes::new(move |disk, peer| {
        disk.serve_one(peer, |_, _| {}).unwrap();
        there.wait();
        while peer.request().is_some() {}
    });
    let control = Arc::new(JobControl::default());
    let (kept, given_up) = (lanes.open(&Arc::default()), lanes.open(&control));
    let newest = change_over_and_over(&kept);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| lanes.read_on_another(&given_up));
        half.wait();
        control.cancel();
        let error = read.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
    assert!(start(&kept).unwrap() == newest);
    kept.sync(Durability::Synced).unwrap();
    assert!(lanes.disk.start() == newest);
}

#[test]
fn what_the_server_spoils_while_it_gets_changes_again_is_seen_by_nobody() {
    // Spoil one of the three writes on the second connection, or all of them and one on the first.
    for spoiled in [1, 4] {
        let lanes = Lanes::new(move |disk, peer| {
            disk.spoils.store(spoiled, Ordering::Release);
            disk.serve(peer);
        });
        let storage = lanes.open(&Arc::default());
        let newest = change_over_and_over(&storage);
        let mut read = lanes.read_on_another(&storage);
        if spoiled > 1 {
            assert_eq!(read.unwrap_err().errno(), libc::EIO);
            lanes.disk.spoils.store(1, Ordering::Release);
            storage.sync(Durability::Synced).unwrap_err();
            read = start(&storage);
        }
        assert!(read.unwrap() == newest, "{spoiled}");
        storage.sync(Durability::Synced).unwrap();
        assert!(lanes.disk.start() == newest, "{spoiled}");
    }
}

#[test]
fn what_is_written_through_is_not_written_over_by_what_was_there_before() {
    let offer = Offer {
        flags: Offer::default().flags | TransmissionFlags::SEND_FUA,
        ..Offer::default()
    };
    let fake = Fake::new(vec![
        (offer, |peer| {
            done(peer, Command::WRITE, 0, &[1; 2048]);
            done(peer, Command::WRITE, 4096, &[2; 512]);
            done(peer, Command::WRITE, 512, &[3; 512]);
            done(peer, Command::WRITE_ZEROES, 1536, &[]);
            done(peer, Command::WRITE, 4096, &[4; 512]);
            peer.request();
        }),
        (offer, |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            done(peer, Command::WRITE, 1024, &[1; 512]);
            serve(peer);
        }),
    ]);
    let control = Arc::default();
    let later = fake.open(DELAY, &control).unwrap();
    let through = fake
        .open_as(DELAY, CacheMode::Writethrough, &control)
        .unwrap();
    later.write_at(&[1; 2048], 0).unwrap();
    later.write_at(&[2; 512], 4096).unwrap();
    through.write_at(&[3; 512], 512).unwrap();
    through.write_zeroes(1536, 512, ZeroFlags::empty()).unwrap();
    through.write_at(&[4; 512], 4096).unwrap();
    later.sync(Durability::Synced).unwrap();
    drop((later, through));
    fake.end();
}

/// Fails the first flush, and nothing else.
fn fails_to_flush_once(peer: &mut Peer) {
    let mut error = 5;
    while let Some((request, _)) = peer.request() {
        match request.command {
            Command::FLUSH => peer.simple(&request, std::mem::take(&mut error), b""),
            _ => peer.simple(&request, 0, b""),
        }
    }
}

#[test]
fn a_flush_that_failed_is_an_error_of_every_later_one() {
    let offer = Offer {
        size: 1 << 30,
        ..Offer::default()
    };
    type Flush = fn(&NbdStorage) -> Result<()>;
    let flushes: [(CacheMode, &str, Flush); 5] = [
        // Explicit flushes, and flushes caused by writes.
        (CacheMode::Writeback, "", |one| one.sync(Durability::Synced)),
        (CacheMode::Writeback, DELAY, |one| {
            one.sync(Durability::Synced)
        }),
        (CacheMode::Writethrough, "", |one| {
            one.write_at(&[2; 512], 512)
        }),
        (CacheMode::Writethrough, DELAY, |one| {
            one.write_at(&[2; 512], 512)
        }),
        (CacheMode::Writeback, DELAY, |one| {
            one.write_at(&vec![3; 100 << 20], 0)
        }),
    ];
    for (cache, more, flush) in flushes {
        let fake = Fake::one(offer, fails_to_flush_once);
        let control = Arc::default();
        let other = fake.open(more, &control).unwrap();
        let one = fake.open_as(more, cache, &control).unwrap();
        other.write_at(&[1; 512], 0).unwrap();
        assert_eq!(flush(&one).unwrap_err().errno(), libc::EIO);
        for storage in [&one, &other, &other] {
            let error = storage.sync(Durability::Synced).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("An earlier flush has failed"), "{text}");
            assert_eq!(error.errno(), libc::EIO);
        }
        drop((one, other));
        fake.end();
    }
}
