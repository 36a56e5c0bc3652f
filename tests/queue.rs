//! Queues: random requests, many under way at once, on images of every make; each read must show
//! what a plain array holds, and QEMU's tools must find the image whole afterwards.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Dir, Random};
use platter::job::JobControl;
use platter::object::Objects;
use platter::queue::{Buffer, Queue, QueueOptions, Request};
use platter::secret::Secret;
use platter::storage::{CacheMode, CallbackStorage, Storage, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy};

const SIZE: u64 = 4 << 20;
const DEPTH: usize = 24;
const STEPS: u64 = 800;

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

/// Bytes of the part of an image where requests clash; requests begin and end at multiples of `GRAIN`,
/// which are seldom those of a sector.
const ARENA: u64 = 1562 * GRAIN;
const GRAIN: u64 = 128;

/// A change of a range to one byte: when it was submitted, and when its completion was taken.
struct Change {
    start: u64,
    end: u64,
    byte: u8,
    begun: u64,
    ended: Option<u64>,
    /// A discard need not change anything.
    sure: bool,
}

/// The bytes that a read which was under way from `begun` on may show at `at`.
fn possible(history: &[Change], at: u64, begun: u64) -> [bool; 256] {
    let touching = || {
        let touches = |change: &&Change| (change.start..change.end).contains(&at);
        history.iter().filter(touches)
    };
    // What ended before a later change began, which ended before the read began, is gone.
    let last = touching()
        .filter(|change| change.sure && change.ended.is_some_and(|ended| ended < begun))
        .map(|change| change.begun)
        .max()
        .unwrap_or(0);
    let mut shown = [false; 256];
    for change in touching().filter(|change| change.ended.is_none_or(|ended| ended >= last)) {
        shown[usize::from(change.byte)] = true;
    }
    shown
}

/// Random requests that overlap as they like: what is under way at once may take effect in any order,
/// what was submitted after a completion must take effect after it.
fn clash(image: Image, dir: &Dir, ring: bool) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    image.write_at(&[1; ARENA as usize], 0).unwrap();
    let image = Arc::new(image);
    let options = QueueOptions {
        ring,
        ..QueueOptions::default()
    };
    let mut queue = Queue::new(image.clone(), options).unwrap();
    let mut history = vec![Change {
        start: 0,
        end: ARENA,
        byte: 1,
        begun: 0,
        ended: Some(0),
        sure: true,
    }];
    // By token, which is also the time: the range of a read, or the place of a change in the history.
    let mut reads: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut changes: HashMap<u64, usize> = HashMap::new();
    let steps = 250;
    for now in 1..=steps {
        if now == 120 {
            drop_cache(dir);
        }
        let start = random.below(ARENA / GRAIN) * GRAIN;
        let most = if random.below(3) == 0 { 400 } else { 40 };
        let aligned = random.below(3) == 0;
        let (start, end) = if aligned {
            let start = start / 4096 * 4096;
            (
                start,
                (start + 4096 * (1 + random.below(4))).min(ARENA / 4096 * 4096),
            )
        } else {
            (start, (start + GRAIN * (1 + random.below(most))).min(ARENA))
        };
        let (start, end) = (start.min(end), end);
        let len = end - start;
        let kind = random.below(12);
        let byte = if kind < 9 { random.next() as u8 } else { 0 };
        let durable = random.below(16) == 0;
        let request = match kind {
            _ if len == 0 => Request::Flush,
            0..=3 => {
                reads.insert(now, (start, end));
                Request::Read {
                    buffer: Buffer::from(vec![0xee; len as usize]),
                    offset: start,
                }
            }
            4..=8 => {
                let mut buffer = Buffer::aligned(len as usize, byte).unwrap();
                if !aligned {
                    buffer = vec![byte; len as usize].into();
                }
                Request::Write {
                    buffer,
                    offset: start,
                    durable,
                }
            }
            9 => Request::WriteZeroes {
                offset: start,
                len,
                flags: if durable {
                    ZeroFlags::empty()
                } else {
                    ZeroFlags::MAY_UNMAP
                },
                durable: false,
            },
            10 => Request::Discard {
                offset: start,
                len,
                durable,
            },
            _ => Request::Flush,
        };
        if !matches!(request, Request::Read { .. } | Request::Flush) {
            changes.insert(now, history.len());
            history.push(Change {
                start,
                end,
                byte,
                begun: now,
                ended: None,
                sure: kind != 10,
            });
        }
        queue.submit(now, request, random.below(2) == 0);
        let all = now == steps;
        let min = if all {
            usize::MAX
        } else {
            usize::from(queue.outstanding() > DEPTH)
        };
        queue.wait(min, None).unwrap();
        while let Some(done) = queue.pop() {
            let unsupported = |kind| kind == platter::ErrorKind::Unsupported;
            let discard = changes
                .get(&done.token)
                .is_some_and(|at| !history[*at].sure);
            if let Err(error) = &done.result {
                assert!(discard && unsupported(error.kind()), "{error:?}");
            }
            if let Some(at) = changes.remove(&done.token) {
                history[at].ended = Some(now);
            } else if let Some((start, end)) = reads.remove(&done.token) {
                let bytes = done.buffer.unwrap().into_bytes().unwrap();
                for at in (start..end).step_by(GRAIN as usize) {
                    let shown = possible(&history, at, done.token);
                    let from = (at - start) as usize;
                    let to = (from + GRAIN as usize).min(bytes.len());
                    for (n, byte) in bytes[from..to].iter().enumerate() {
                        assert!(shown[usize::from(*byte)], "{byte} at {at} + {n}");
                    }
                }
            }
        }
    }
    assert!(queue.outstanding() == 0 && reads.is_empty() && changes.is_empty());
    drop(queue);
    Arc::into_inner(image).unwrap().close().unwrap();
}

fn options(cache: CacheMode, writable: bool) -> OpenOptions {
    let mut objects = Objects::new();
    objects.add_secret("s", Secret::new("x")).unwrap();
    OpenOptions {
        writable,
        cache,
        objects,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn run(make: impl Fn(&Dir), image: &str, cache: CacheMode, writable: bool) {
    // The kernel does nothing for encrypted images: there is but one way.
    let rings: &[bool] = if image.contains("key-secret") {
        &[false]
    } else {
        &[true, false]
    };
    for &ring in rings {
        let dir = Dir::new();
        make(&dir);
        let spec = image.replace("@", &dir.str(""));
        let location = Location::from_image_opts(&spec).unwrap();
        let open = || Image::open(&location, &options(cache, writable)).unwrap();
        storm(open(), &dir, ring, writable);
        if writable {
            clash(open(), &dir, ring);
        }
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

/// An image with these options, filled in part.
fn made(dir: &Dir, format: &str, make: &str, open: &str) {
    let secret = ["--object", "secret,id=s,data=x"];
    let make = make.replace('@', &dir.str(""));
    let create = ["create", "-q", "-f", format, "-o", &make, "i", "4M"];
    dir.qemu_img_ok(&[&create[..1], &secret, &create[1..]].concat());
    let spec = open.replace('@', &dir.str(""));
    let fill = ["-c", "write -P 5 1M 1M", "--image-opts", &spec];
    let ran = common::run_in(dir.root(), "qemu-io", &[&secret[..], &fill].concat());
    assert!(ran.code == 0 && !ran.out.contains("failed"), "{ran:?}");
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
    let luks = "driver=luks,key-secret=s,file.filename=@i";
    let make = |dir: &Dir| made(dir, "luks", "key-secret=s,iter-time=10", luks);
    run(make, luks, CacheMode::Unsafe, true);
    let qcow2 = "driver=qcow2,encrypt.key-secret=s,file.filename=@i";
    for options in [
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "encrypt.format=aes,encrypt.key-secret=s",
    ] {
        let make = |dir: &Dir| made(dir, "qcow2", options, qcow2);
        run(make, qcow2, CacheMode::Unsafe, true);
    }
}

#[test]
fn subclusters_and_data_files() {
    let make = |dir: &Dir| made(dir, "qcow2", "extended_l2=on,cluster_size=128k", QCOW2);
    run(make, QCOW2, CacheMode::None, true);
    let make = |dir: &Dir| made(dir, "qcow2", "data_file=@d", QCOW2);
    run(make, QCOW2, CacheMode::None, true);
}

#[test]
fn storages_of_the_caller() {
    let memory = Arc::new(platter::storage::MemoryStorage::with_bytes(
        "m",
        vec![0; SIZE as usize],
    ));
    let (read, write) = (memory.clone(), memory.clone());
    let calls = platter::storage::StorageCallbacks {
        read: Box::new(move |buf, at| read.read_at(buf, at)),
        size: Box::new(|| Ok(SIZE)),
        write: Some(Box::new(move |buf, at| write.write_at(buf, at))),
        flush: Some(Box::new(|| Ok(()))),
        set_size: None,
        zero: None,
        discard: None,
        extent: None,
        close: None,
    };
    let storage = CallbackStorage::new("callbacks", calls, CacheMode::Writeback).unwrap();
    let options = OpenOptions {
        format: Some("raw".into()),
        ..options(CacheMode::Writeback, true)
    };
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let open = || Image::open_storage(storage.clone(), &options).unwrap();
    let dir = Dir::new();
    raw(&dir);
    storm(open(), &dir, true, true);
    clash(open(), &dir, true);
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
            buffer: Buffer::aligned(65536, 0).unwrap(),
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
    snapshots.create(&snapshot, &JobControl::default()).unwrap();
    assert_eq!(queue.wait(8, None).unwrap(), 8);
    while let Some(done) = queue.pop() {
        assert_eq!(done.result.unwrap(), 65536);
    }
    drop(queue);
    Arc::into_inner(image).unwrap().close().unwrap();
    dir.qemu_img_ok(&["check", "i"]);
}

/// An image with a bitmap whose clusters are all allocated.
fn overwritable(dir: &Dir) -> Arc<Image> {
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "i", "4M"]);
    dir.qemu_io("qcow2", "i", &["write -P 5 0 4M"]);
    dir.qemu_img_ok(&["bitmap", "--add", "i", "b"]);
    let location = Location::from_image_opts(&QCOW2.replace("@", &dir.str(""))).unwrap();
    Arc::new(Image::open(&location, &options(CacheMode::None, true)).unwrap())
}

fn aligned_write(n: u64) -> Request {
    Request::Write {
        buffer: Buffer::aligned(65536, 7).unwrap(),
        offset: n << 16,
        durable: false,
    }
}

#[test]
fn a_queue_that_goes_leaves_a_whole_image_and_a_bitmap_of_all_that_may_have_changed() {
    let dir = Dir::new();
    let image = overwritable(&dir);
    image.write_at(&[7; 65536], 0).unwrap();
    let mut queue = Queue::new(image.clone(), QueueOptions::default()).unwrap();
    for n in 0..32 {
        queue.submit(n, aligned_write(n), n % 8 != 7);
    }
    drop(queue);
    let mut bytes = vec![0; 65536];
    for n in 0..64 {
        image.read_at(&mut bytes, n << 16).unwrap();
        let all = |byte| bytes.iter().all(|b| *b == byte);
        assert!(all(5) || n < 32 && all(7), "{n}");
    }
    Arc::into_inner(image).unwrap().close().unwrap();
    dir.qemu_img_ok(&["check", "i"]);
    assert_eq!(common::dirty_ranges(&dir, "i", "b"), [(0, 32 << 16)]);
}

#[test]
fn a_write_of_part_of_a_block_waits_for_those_of_the_whole() {
    let dir = Dir::new();
    let image = overwritable(&dir);
    image.write_at(&[5; 512], 0).unwrap();
    let mut queue = Queue::new(image.clone(), QueueOptions::default()).unwrap();
    for round in 0..20 {
        for n in 0..16 {
            queue.submit(n, aligned_write(n), round % 2 == 0);
        }
        // On the thread that would have to take in the ends of the others.
        for n in 0..16 {
            image.write_at(&[9; 100], (n << 16) + 65436).unwrap();
        }
        queue.wait(16, None).unwrap();
        while let Some(done) = queue.pop() {
            assert_eq!(done.result.unwrap(), 65536);
        }
        let mut bytes = vec![0; 65536];
        for n in 0..16 {
            image.read_at(&mut bytes, n << 16).unwrap();
            assert!(bytes[..65436].iter().all(|b| *b == 7), "{n}");
            let rest = &bytes[65436..];
            assert!(rest == [7; 100] || rest == [9; 100], "{n}");
        }
    }
    drop(queue);
    Arc::into_inner(image).unwrap().close().unwrap();
    dir.qemu_img_ok(&["check", "i"]);
}

#[test]
fn a_file_that_is_cut_under_its_queue_reads_as_zeroes_and_grows_again() {
    let dir = Dir::new();
    raw(&dir);
    let location = Location::from_image_opts(&format!("driver=raw,file.filename={}", dir.str("i")));
    let image = Image::open(&location.unwrap(), &options(CacheMode::None, true)).unwrap();
    let mut queue = Queue::new(Arc::new(image), QueueOptions::default()).unwrap();
    // As long as the length is known, the file is not asked.
    std::fs::File::options()
        .write(true)
        .open(dir.path("i"))
        .and_then(|file| file.set_len(1 << 20))
        .unwrap();
    for token in [0, 16, 32] {
        let read = Request::Read {
            buffer: Buffer::aligned(65536, 3).unwrap(),
            offset: (1 << 20) - 32768 + (token << 16),
        };
        queue.submit(token, read, false);
    }
    queue.submit(63, aligned_write(63), false);
    assert_eq!(queue.wait(4, None).unwrap(), 4);
    while let Some(done) = queue.pop() {
        assert_eq!(done.result.unwrap(), 65536, "{}", done.token);
    }
    assert_eq!(std::fs::metadata(dir.path("i")).unwrap().len(), 4 << 20);
}

/// Set in a process that may only write the first part of a file.
const LIMITED: &str = "PLATTER_TEST_LIMITED";

#[test]
fn an_error_of_the_kernel_comes_with_its_request() {
    if let Some(path) = std::env::var_os(LIMITED) {
        return limited(std::path::Path::new(&path));
    }
    let dir = Dir::new();
    raw(&dir);
    // 128 blocks of 512 bytes.
    let script = r#"trap "" XFSZ; ulimit -f 128; exec "$0" "$@""#;
    // Over pipes: the limit holds for a file behind standard output as well.
    let ran = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "an_error_of_the_kernel_comes_with_its_request"])
        .env(LIMITED, dir.path("i"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

fn limited(path: &std::path::Path) {
    let spec = format!("driver=raw,file.filename={}", path.display());
    let location = Location::from_image_opts(&spec).unwrap();
    for (cache, ring) in [
        (CacheMode::None, true),
        (CacheMode::None, false),
        (CacheMode::Writeback, true),
    ] {
        let image = Image::open(&location, &options(cache, true)).unwrap();
        let ring = QueueOptions {
            ring,
            ..QueueOptions::default()
        };
        let mut queue = Queue::new(Arc::new(image), ring).unwrap();
        for n in 0..8 {
            queue.submit(n, aligned_write(n), n % 2 == 0);
        }
        assert_eq!(queue.wait(8, None).unwrap(), 8);
        while let Some(done) = queue.pop() {
            let errno = done.result.map_err(|error| error.os_errno());
            let expected = if done.token == 0 {
                Ok(65536)
            } else {
                Err(Some(27))
            };
            assert_eq!(errno, expected, "{} in {cache:?}", done.token);
        }
    }
}

/// Reads of what is cached end within the call, also where they are decoded, come from another layer or
/// in pieces; `limit` is the longest.
fn read_at_once(dir: &Dir, spec: &str, limit: u64) {
    let location = Location::from_image_opts(&spec.replace('@', &dir.str(""))).unwrap();
    let image = Image::open(&location, &options(CacheMode::Writeback, false)).unwrap();
    let mut model = vec![0; SIZE as usize];
    image.read_at(&mut model, 0).unwrap();
    let mut queue = Queue::new(Arc::new(image), QueueOptions::default()).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for token in 0..300 {
        let len = 1 + random.below(limit);
        let offset = random.below(SIZE - len);
        let split = random.below(len + 1) as usize;
        let vectors = vec![
            vec![0xee; split],
            Vec::new(),
            vec![0xdd; len as usize - split],
        ];
        let buffer = vectors.into();
        queue.submit(token, Request::Read { buffer, offset }, false);
        let done = queue
            .pop()
            .unwrap_or_else(|| panic!("{len} at {offset} of {spec}"));
        let shown = done.buffer.unwrap().into_vectors().concat();
        assert_eq!(done.result.unwrap(), len);
        assert!(shown == model[offset as usize..][..len as usize]);
    }
}

#[test]
fn what_is_cached_is_read_at_once() {
    let dir = Dir::new();
    overlay(&dir);
    read_at_once(&dir, QCOW2, 40_000);
    // Longer than what it stands on, and in pieces.
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "short", "1000000"]);
    dir.qemu_io("raw", "short", &["write -P 3 0 999936"]);
    let create = [
        "create", "-q", "-f", "qcow2", "-b", "short", "-F", "raw", "o", "4M",
    ];
    dir.qemu_img_ok(&create);
    let scattered = [
        "write -P 1 900k 4k",
        "write -P 2 64k 64k",
        "write -P 4 0 64k",
    ];
    dir.qemu_io("qcow2", "o", &scattered);
    read_at_once(&dir, &QCOW2.replace("@i", "@o"), 1 << 20);
    for kind in ["zlib", "zstd"] {
        let kind = format!("compression_type={kind}");
        let convert = ["convert", "-c", "-O", "qcow2", "-o", &kind, "plain", "c"];
        dir.qemu_img_ok(&convert);
        read_at_once(&dir, &QCOW2.replace("@i", "@c"), 60_000);
    }
    let luks = "driver=luks,key-secret=s,file.filename=@i";
    made(&dir, "luks", "key-secret=s,iter-time=10", luks);
    read_at_once(&dir, luks, 100_000);
    let qcow2 = "driver=qcow2,encrypt.key-secret=s,file.filename=@i";
    for options in [
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "encrypt.format=aes,encrypt.key-secret=s",
    ] {
        made(&dir, "qcow2", options, qcow2);
        read_at_once(&dir, qcow2, 100_000);
    }
}
