//! Queues: random requests, many under way at once, on images of every make; each read must show
//! what a plain array holds, and QEMU's tools must find the image whole afterwards.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::Dir;
use platter::queue::{Buffer, Queue, QueueOptions, Request};
use platter::secret::{Secret, Secrets};
use platter::storage::{CacheMode, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy};

const SIZE: u64 = 4 << 20;
const DEPTH: usize = 24;
const STEPS: u64 = 800;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A request under way: its range, and what a read must show.
struct Away {
    start: u64,
    end: u64,
    expected: Option<Vec<u8>>,
}

/// Lets the next reads miss the page cache.
fn drop_cache(dir: &Dir) {
    let script = "for f in *; do sync $f; dd if=$f iflag=nocache count=0 status=none; done";
    let status = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(dir.root())
        .status()
        .expect("a shell");
    assert!(status.success());
}

fn settle(queue: &mut Queue, away: &mut HashMap<u64, Away>, min: usize) {
    queue.wait(min, None).unwrap();
    while let Some(done) = queue.pop() {
        let entry = away.remove(&done.token).expect("a token that was given");
        let len = done.result.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(len, entry.end - entry.start);
        if let Some(expected) = entry.expected {
            let shown = done.buffer.expect("the buffer").into_vectors().concat();
            assert!(shown == expected, "{}..{}", entry.start, entry.end);
        }
    }
}

/// Random requests; ranges under way never overlap one that writes.
fn storm(image: Image, dir: &Dir, ring: bool, writable: bool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut model = vec![0; SIZE as usize];
    image.read_at(&mut model, 0).unwrap();
    let image = Arc::new(image);
    let options = QueueOptions {
        depth: DEPTH as u32,
        ring,
        ..QueueOptions::default()
    };
    let mut queue = Queue::new(image.clone(), options).unwrap();
    let mut away: HashMap<u64, Away> = HashMap::new();
    for token in 0..STEPS {
        if token % 200 == 0 {
            drop_cache(dir);
        }
        let start = random.below(SIZE);
        let most = if random.below(4) == 0 { 200_000 } else { 9000 };
        let end = (start + 1 + random.below(most)).min(SIZE);
        let kind = if writable { random.below(10) } else { 0 };
        let conflict = |entry: &Away| {
            entry.start < end && start < entry.end && (kind > 3 || entry.expected.is_none())
        };
        while away.len() >= DEPTH || away.values().any(conflict) {
            settle(&mut queue, &mut away, 1);
        }
        let range = start as usize..end as usize;
        let len = end - start;
        let durable = random.below(8) == 0;
        let mut expected = None;
        let request = match kind {
            0..=3 => {
                expected = Some(model[range.clone()].to_vec());
                let split = random.below(len + 1) as usize;
                let buffer: Buffer = if random.below(2) == 0 {
                    vec![0xee; range.len()].into()
                } else {
                    vec![
                        vec![0xee; split],
                        Vec::new(),
                        vec![0xdd; range.len() - split],
                    ]
                    .into()
                };
                Request::Read {
                    buffer,
                    offset: start,
                }
            }
            4..=7 => {
                let byte = random.next() as u8;
                model[range.clone()].fill(byte);
                Request::Write {
                    buffer: vec![byte; range.len()].into(),
                    offset: start,
                    durable,
                }
            }
            8 => {
                model[range.clone()].fill(0);
                Request::WriteZeroes {
                    offset: start,
                    len,
                    flags: if durable {
                        ZeroFlags::MAY_UNMAP
                    } else {
                        ZeroFlags::empty()
                    },
                    durable,
                }
            }
            _ => {
                let entry = Away {
                    start: 0,
                    end: 0,
                    expected: None,
                };
                away.insert(token, entry);
                queue.submit(token, Request::Flush, false);
                continue;
            }
        };
        away.insert(
            token,
            Away {
                start,
                end,
                expected,
            },
        );
        queue.submit(token, request, random.below(2) == 0);
    }
    while !away.is_empty() {
        settle(&mut queue, &mut away, usize::MAX);
    }
    assert_eq!(queue.outstanding(), 0);
    drop(queue);
    let mut shown = vec![0; SIZE as usize];
    image.read_at(&mut shown, 0).unwrap();
    assert!(shown == model);
    Arc::into_inner(image)
        .expect("the queue is gone")
        .close()
        .unwrap();
}

fn options(cache: CacheMode, writable: bool) -> OpenOptions {
    let mut secrets = Secrets::new();
    secrets.add("s", Secret::new("x")).unwrap();
    OpenOptions {
        writable,
        cache,
        secrets,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn run(make: impl Fn(&Dir), image: &str, cache: CacheMode, writable: bool) {
    for ring in [true, false] {
        let dir = Dir::new();
        make(&dir);
        let spec = image.replace("@", &dir.str(""));
        let location = Location::from_image_opts(&spec).unwrap();
        let opened = Image::open(&location, &options(cache, writable)).unwrap();
        storm(opened, &dir, ring, writable);
        if image.contains("driver=qcow2") {
            dir.qemu_img_ok(&[
                "check",
                "--object",
                "secret,id=s,data=x",
                "--image-opts",
                &spec,
            ]);
        }
    }
}

fn raw(dir: &Dir) {
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "i", "4M"]);
    dir.qemu_io("raw", "i", &["write -P 5 1M 1M"]);
}

/// An overlay with data and zeroes over a compressed base.
fn overlay(dir: &Dir) {
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "plain", "4M"]);
    dir.qemu_io("raw", "plain", &["write -P 7 0 3M", "write -P 9 700k 100k"]);
    dir.qemu_img_ok(&["convert", "-c", "-O", "qcow2", "plain", "base"]);
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        "base",
        "-F",
        "qcow2",
        "i",
    ]);
    dir.qemu_io("qcow2", "i", &["write -P 1 1M 600k", "write -z 2M 300k"]);
}

fn luks(dir: &Dir) {
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=x",
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "i",
        "4M",
    ]);
}

fn encrypted(dir: &Dir) {
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=x",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "i",
        "4M",
    ]);
}

const QCOW2: &str = "driver=qcow2,file.filename=@i";

#[test]
fn raw_images() {
    let image = "driver=raw,file.filename=@i";
    run(raw, image, CacheMode::Writeback, true);
    run(raw, image, CacheMode::None, true);
    run(raw, image, CacheMode::Writeback, false);
}

#[test]
fn qcow2_over_a_compressed_base() {
    run(overlay, QCOW2, CacheMode::Writeback, true);
    run(overlay, QCOW2, CacheMode::None, true);
    run(overlay, QCOW2, CacheMode::Writeback, false);
}

#[test]
fn encrypted_images() {
    let image = "driver=luks,key-secret=s,file.filename=@i";
    run(luks, image, CacheMode::Unsafe, true);
    let image = "driver=qcow2,encrypt.key-secret=s,file.filename=@i";
    run(encrypted, image, CacheMode::Unsafe, true);
}

#[test]
fn several_queues_on_one_image() {
    let dir = Dir::new();
    overlay(&dir);
    let location = Location::from_image_opts(&QCOW2.replace("@", &dir.str(""))).unwrap();
    let image = Image::open(&location, &options(CacheMode::Unsafe, true)).unwrap();
    let image = Arc::new(image);
    std::thread::scope(|scope| {
        for n in 0..4u64 {
            let image = image.clone();
            scope.spawn(move || {
                let mut queue = Queue::new(image, QueueOptions::default()).unwrap();
                let mut random = Random(n + 1);
                let byte = n as u8 + 1;
                // Each has every fourth block of 3000 bytes: they share clusters.
                for _ in 0..200 {
                    let offset = (random.below(300) * 4 + n) * 3000;
                    let write = Request::Write {
                        buffer: vec![byte; 3000].into(),
                        offset,
                        durable: false,
                    };
                    queue.submit(0, write, false);
                    queue.wait(1, None).unwrap();
                    assert_eq!(queue.pop().unwrap().result.unwrap(), 3000);
                    let read = Request::Read {
                        buffer: vec![0; 3000].into(),
                        offset,
                    };
                    queue.submit(1, read, false);
                    assert_eq!(queue.wait(1, Some(Duration::from_secs(60))).unwrap(), 1);
                    let bytes = queue.pop().unwrap().buffer.unwrap().into_bytes().unwrap();
                    assert!(bytes.iter().all(|b| *b == byte));
                }
            });
        }
    });
    Arc::into_inner(image).unwrap().close().unwrap();
    dir.qemu_img_ok(&["check", "i"]);
}

/// What runs under way in the kernel is seen to have ended also by those who wait for it on the thread
/// that would have to look.
#[test]
fn a_snapshot_waits_for_requests_whose_end_nobody_has_looked_at() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "i", "4M"]);
    dir.qemu_io("qcow2", "i", &["write -P 5 0 4M"]);
    let location = Location::from_image_opts(&QCOW2.replace("@", &dir.str(""))).unwrap();
    let image = Arc::new(Image::open(&location, &options(CacheMode::None, true)).unwrap());
    image.write_at(&[5; 4096], 0).unwrap();
    let mut queue = Queue::new(image.clone(), QueueOptions::default()).unwrap();
    for token in 0..8 {
        let read = Request::Read {
            buffer: Buffer::aligned(65536, 0),
            offset: token << 16,
        };
        // The kernel has not even been told of the last one.
        queue.submit(token, read, token > 3);
    }
    let snapshot = platter::format::NewSnapshot {
        name: "s".into(),
        date_sec: 0,
        date_nsec: 0,
    };
    let snapshots = image.format().snapshots().unwrap();
    snapshots.create(&snapshot).unwrap();
    assert_eq!(queue.wait(8, None).unwrap(), 8);
    while let Some(done) = queue.pop() {
        assert_eq!(done.result.unwrap(), 65536);
    }
    drop(queue);
    Arc::into_inner(image).unwrap().close().unwrap();
    dir.qemu_img_ok(&["check", "i"]);
}
