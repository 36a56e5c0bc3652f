//! Crashes and failing storages: whatever remains of a qcow2 image is valid and holds all that a
//! flush has made durable. QEMU's tools judge here; `tests/crash` judges far more states by itself.

use std::sync::Arc;

use crate::common::{Dir, Random, first_wrong};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Event, Fault, FaultyStorage, LoggingStorage};
use platter::storage::{CacheMode, Storage, ZeroFlags};
use platter::{Image, OpenOptions, OpenPolicy};

fn open(storage: Arc<dyn Storage>, writable: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable,
        cache: CacheMode::Writeback,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options)
}

/// An image made by QEMU: with `snapshot`, half full and with a snapshot of that.
fn make(dir: &Dir, options: &str, size: u64, snapshot: bool) -> Vec<u8> {
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        "new",
        &size.to_string(),
    ]);
    if snapshot {
        dir.qemu_io("qcow2", "new", &[&format!("write -P 0x77 0 {}", size / 2)]);
        dir.qemu_img_ok(&["snapshot", "-c", "then", "new"]);
    }
    std::fs::read(dir.path("new")).unwrap()
}

fn contents(image: &Image) -> platter::Result<Vec<u8>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// What the bytes of an image are after a step, as far as it is certain.
#[derive(Clone)]
struct Model {
    bytes: Vec<u8>,
    /// A change of the byte was under way or failed.
    unsure: Vec<bool>,
}

impl Model {
    fn agree(&self, bytes: &[u8]) -> Result<(), usize> {
        first_wrong(bytes, &self.bytes, &self.unsure).map_or(Ok(()), Err)
    }
}

/// One random change; returns its range and what it leaves there if it succeeds.
fn change(
    random: &mut Random,
    image: &Image,
    cluster: u64,
) -> (std::ops::Range<usize>, Vec<u8>, platter::Result<()>) {
    let size = image.len();
    let offset = random.below(size) / 512 * 512;
    let len = (1 + random.below(cluster * 3)).min(size - offset);
    let range = offset as usize..(offset + len) as usize;
    let fill = random.next() as u8 | 1;
    match random.below(10) {
        0..6 => {
            let bytes = vec![fill; len as usize];
            let done = image.write_at(&bytes, offset);
            (range, bytes, done)
        }
        6..8 => {
            let flags = if fill & 2 == 0 {
                ZeroFlags::MAY_UNMAP
            } else {
                ZeroFlags::empty()
            };
            let done = image.write_zeroes(offset, len, flags);
            (range, vec![0; len as usize], done)
        }
        8 => {
            let start = offset / cluster * cluster;
            let len = cluster.min(size - start);
            let range = start as usize..(start + len) as usize;
            let done = image.format().writer().unwrap().discard(start, len);
            (range, vec![0; len as usize], done)
        }
        _ => {
            let start = offset / cluster * cluster;
            let len = cluster.min(size - start);
            let range = start as usize..(start + len) as usize;
            let bytes = vec![fill; len as usize];
            let compressor = image.compressor().unwrap();
            let done = compressor.write_compressed(&bytes, start);
            (range, bytes, done)
        }
    }
}

/// Leaks may remain, errors may not.
fn judge(dir: &Dir, bytes: &[u8], what: &str) {
    std::fs::write(dir.path("state"), bytes).unwrap();
    let check = dir.qemu_img(&["check", "-f", "qcow2", "state"]);
    assert!(check.code == 0 || check.code == 3, "{what}: {check:?}");
}

fn crash(options: &str, size: u64, cluster: u64, snapshot: bool, seed: u64) {
    let dir = Dir::new();
    let storage = Arc::new(LoggingStorage::new(
        "log",
        make(&dir, options, size, snapshot),
    ));
    let image = open(storage.clone(), true).unwrap();
    let mut random = Random(seed);
    let mut model = Model {
        bytes: contents(&image).unwrap(),
        unsure: vec![false; size as usize],
    };
    // The number of events at which each state of the model holds: what a flush made durable,
    // unsure of what changed since.
    let mut states = vec![(0, model.clone())];
    for n in 0..160 {
        let before = storage.event_count();
        let (range, bytes, done) = change(&mut random, &image, cluster);
        done.unwrap();
        model.bytes[range.clone()].copy_from_slice(&bytes);
        let (_, last) = states.last().unwrap();
        let mut since = last.clone();
        since.unsure[range].fill(true);
        states.push((before, since));
        if n % 8 == 7 {
            image.flush().unwrap();
            states.push((storage.event_count(), model.clone()));
        }
    }
    image.close().unwrap();
    let events = storage.events();
    let count = events.len();
    for n in 0..220 {
        // More often right behind a barrier's neighbourhood than anywhere.
        let mut at = random.below(count as u64 + 1) as usize;
        if n % 2 == 0 {
            while at < count && events[at] != Event::Sync {
                at += 1;
            }
        }
        let keep = random.next();
        let state = match n % 5 {
            0 => storage.state_after(at),
            1 => storage.crash_state(at, |_| false),
            _ => storage.crash_state(at, |i| keep.rotate_left(i as u32 % 64) & 1 == 0),
        };
        let what = format!("{options}, crash {n} after {at} of {count} events");
        let (_, expected) = states.iter().rev().find(|(from, _)| *from <= at).unwrap();
        let reopened = open(
            Arc::new(MemoryStorage::with_bytes("state", state.clone())),
            false,
        );
        let read = contents(&reopened.unwrap_or_else(|e| panic!("{what}: {e}")));
        let read = read.unwrap_or_else(|e| panic!("{what}: {e}"));
        if let Err(byte) = expected.agree(&read) {
            panic!("{what}: byte {byte} was lost");
        }
        judge(&dir, &state, &what);
    }
}

#[test]
fn crashes_with_clusters_of_512() {
    crash(
        "cluster_size=512,refcount_bits=64",
        200 << 10,
        512,
        false,
        1,
    );
}

#[test]
fn crashes_with_clusters_of_4k() {
    crash("cluster_size=4k", 1 << 20, 4096, false, 2);
}

#[test]
fn crashes_with_subclusters() {
    crash("cluster_size=16k,extended_l2=on", 1 << 20, 16384, false, 3);
}

#[test]
fn crashes_with_a_snapshot() {
    crash("cluster_size=1k", 300 << 10, 1024, true, 4);
}

#[test]
fn crashes_of_version_2() {
    crash("cluster_size=2k,compat=0.10", 300 << 10, 2048, true, 5);
}

/// The same changes with each call failing once in turn.
fn faults(options: &str, size: u64, cluster: u64, calls: Calls, torn: bool) {
    let dir = Dir::new();
    let fresh = make(&dir, options, size, true);
    let mut nth = 0;
    loop {
        let memory = Arc::new(MemoryStorage::with_bytes("image", fresh.clone()));
        let storage = Arc::new(FaultyStorage::new(memory.clone()));
        let image = open(storage.clone(), true).unwrap();
        let mut model = Model {
            bytes: contents(&image).unwrap(),
            unsure: vec![false; size as usize],
        };
        storage.set_fault(Some(Fault {
            calls,
            nth,
            errno: 5,
            for_good: false,
            torn,
        }));
        let mut random = Random(77);
        for n in 0..60 {
            let (range, bytes, done) = change(&mut random, &image, cluster);
            match done {
                Ok(()) => {
                    model.bytes[range.clone()].copy_from_slice(&bytes);
                    model.unsure[range].fill(false);
                }
                Err(_) => model.unsure[range].fill(true),
            }
            if n % 10 == 9 {
                // Tried again later, unless what failed was a sync.
                let _ = image.flush();
            }
        }
        let what = format!("{options}, {calls:?} {nth}");
        let struck = storage.struck();
        storage.set_fault(None);
        let read = contents(&image).unwrap_or_else(|e| panic!("{what}: {e}"));
        if let Err(byte) = model.agree(&read) {
            panic!("{what}: byte {byte} is wrong while open");
        }
        let closed = image.close();
        let state = memory.to_vec();
        judge(&dir, &state, &what);
        if closed.is_ok() {
            let again = open(Arc::new(MemoryStorage::with_bytes("state", state)), false).unwrap();
            if let Err(byte) = model.agree(&contents(&again).unwrap()) {
                panic!("{what}: byte {byte} was lost");
            }
        } else {
            // Only a failed sync leaves doubt for good: everything else was tried again.
            assert!(struck && calls == Calls::SYNC, "{what}: {closed:?}");
        }
        if !struck {
            assert!(nth > 0, "{what}: no call was counted");
            return;
        }
        nth += 1 + nth / 24;
    }
}

#[test]
fn failing_writes() {
    faults("cluster_size=1k", 200 << 10, 1024, Calls::WRITE, false);
}

#[test]
fn torn_writes() {
    faults("cluster_size=4k", 400 << 10, 4096, Calls::WRITE, true);
}

#[test]
fn failing_reads() {
    faults("cluster_size=1k", 200 << 10, 1024, Calls::READ, false);
}

#[test]
fn failing_zeroes_and_discards() {
    let calls = Calls::ZERO | Calls::DISCARD | Calls::SET_LEN;
    faults("cluster_size=1k", 200 << 10, 1024, calls, false);
}

#[test]
fn failing_syncs() {
    faults("cluster_size=4k", 200 << 10, 4096, Calls::SYNC, false);
}
