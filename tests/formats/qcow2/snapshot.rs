//! Snapshots of qcow2 images under writing threads and on storage that fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::Dir;
use platter::extent::ExtentKind;
use platter::format::{NewSnapshot, RepairMode};
use platter::job::{JobControl, Message};
use platter::object::Objects;
use platter::ops;
use platter::ops::amend::{AmendRequest, amend};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Fault, FaultyStorage, LoggingStorage};
use platter::storage::{CacheMode, Storage};
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Options};

const SIZE: usize = 1 << 20;

fn options(cache: CacheMode) -> OpenOptions {
    OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        cache,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn snapshot_contents(dir: &Dir, name: &str) -> Vec<u8> {
    let read = OpenOptions {
        writable: false,
        ..options(CacheMode::Writeback)
    };
    let mut image = Image::open(&Location::from_path(dir.path("image")), &read).unwrap();
    ops::snapshot::show(&mut image, name).unwrap();
    contents(&image)
}

/// Nothing that is written after a snapshot was made may show in it, whatever was under way.
#[test]
fn writers_do_not_reach_into_snapshots() {
    let dir = Dir::new();
    let line = "create -q -f qcow2 -o cluster_size=4k image 1M";
    dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    let image = Image::open(
        &Location::from_path(dir.path("image")),
        &options(CacheMode::Unsafe),
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        for thread in 0..3usize {
            let (image, stop) = (&image, &stop);
            scope.spawn(move || {
                let mut value = 0u8;
                while !stop.load(Ordering::Relaxed) {
                    value = value.wrapping_add(1);
                    for at in (thread * 1024..SIZE).step_by(3 * 1024) {
                        let end = (at + 1024).min(SIZE);
                        image.write_at(&vec![value; end - at], at as u64).unwrap();
                    }
                }
            });
        }
        let snapshots = image.format().snapshots().unwrap();
        let mut made = Vec::new();
        for n in 0..12 {
            let name = format!("s{n}");
            let new = NewSnapshot {
                name: name.clone().into(),
                ..NewSnapshot::default()
            };
            let id = snapshots.create(&new, &JobControl::default()).unwrap();
            let view = snapshots.view(id.as_slice().into()).unwrap();
            let mut bytes = vec![0; SIZE];
            read_view(&*view, &mut bytes);
            made.push((name, bytes));
            if n % 5 == 4 {
                snapshots
                    .apply(id.as_slice().into(), &JobControl::default())
                    .unwrap();
            }
            if n % 4 == 3 {
                snapshots
                    .delete("1".into(), &JobControl::default())
                    .unwrap_or_default();
            }
        }
        stop.store(true, Ordering::Relaxed);
        made
    });
    let left = ops::snapshot::list(&image).unwrap().snapshots;
    image.close().unwrap();
    let ran = dir.qemu_img(&["check", "image"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for (name, bytes) in made {
        if left.iter().any(|one| one.name == name) {
            assert!(snapshot_contents(&dir, &name) == bytes, "{name}");
        }
    }
}

fn read_view(view: &dyn platter::format::Format, bytes: &mut [u8]) {
    use platter::extent::ExtentKind;
    let mut at = 0;
    while at < bytes.len() {
        let extent = view.map(at as u64, (bytes.len() - at) as u64).unwrap();
        let part = &mut bytes[at..at + extent.len as usize];
        match extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                let storage = view.storage(slot).unwrap();
                storage.read_at(part, host_offset).unwrap();
            }
            _ => part.fill(0),
        }
        at += extent.len as usize;
    }
}

type Operation = fn(&Image) -> platter::Result<()>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("create", |image| {
        ops::snapshot::create(image, "new", &mut Job::new()).map(drop)
    }),
    ("apply", |image| {
        ops::snapshot::apply(image, "two", &mut Job::new())
    }),
    ("delete", |image| {
        ops::snapshot::delete(image, "one", &mut Job::new())
    }),
];

/// Every write, zeroing and sync fails in turn: the contents, and those of the snapshots, stay.
#[test]
fn a_failing_storage_loses_nothing() {
    for compat in ["compat=1.1", "compat=0.10"] {
        let dir = Dir::new();
        let create = format!("create -q -f qcow2 -o cluster_size=4k,{compat} image 1M");
        dir.qemu_img_ok(&create.split(' ').collect::<Vec<_>>());
        dir.qemu_io("qcow2", "image", &["write -P 1 0 200k"]);
        dir.qemu_img_ok(&["snapshot", "-c", "one", "image"]);
        dir.qemu_io("qcow2", "image", &["write -P 2 100k 200k"]);
        dir.qemu_img_ok(&["snapshot", "-c", "two", "image"]);
        dir.qemu_io("qcow2", "image", &["write -P 3 150k 200k"]);
        let start = std::fs::read(dir.path("image")).unwrap();
        let two = snapshot_contents(&dir, "two");
        let now = {
            let image = memory_image(&start).0;
            contents(&image)
        };
        for (what, operation) in OPERATIONS {
            let mut nth = 0;
            loop {
                let (image, memory, faulty) = memory_image(&start);
                faulty.set_fault(Some(Fault {
                    calls: Calls::WRITE | Calls::ZERO | Calls::SYNC,
                    nth,
                    errno: 28,
                    for_good: false,
                    torn: false,
                }));
                let failed = operation(&image).is_err();
                let struck = faulty.struck();
                faulty.set_fault(None);
                image.abandon();
                judge(&dir, &memory.to_vec(), &[&now, &two], &two, (what, nth));
                if !struck {
                    assert!(!failed, "{what}");
                    break;
                }
                nth += 1;
            }
            assert!(nth > 3, "{what}: {nth} calls");
        }
    }
}

fn memory_image(bytes: &[u8]) -> (Image, Arc<MemoryStorage>, Arc<FaultyStorage>) {
    let memory = Arc::new(MemoryStorage::with_bytes("image", bytes.to_vec()));
    let faulty = Arc::new(FaultyStorage::new(memory.clone()));
    let storage: Arc<dyn Storage> = faulty.clone();
    let image = Image::open_storage(storage, &options(CacheMode::Writeback)).unwrap();
    (image, memory, faulty)
}

/// The image opens for writing, is whole then, and holds what it may.
fn judge(dir: &Dir, bytes: &[u8], allowed: &[&[u8]], two: &[u8], at: (&str, u64)) {
    let (image, memory, _) = memory_image(bytes);
    let found = contents(&image);
    assert!(allowed.contains(&&found[..]), "{at:?}");
    image.write_at(&[9; 300], 170 << 10).unwrap();
    image.close().unwrap();
    std::fs::write(dir.path("image"), memory.to_vec()).unwrap();
    assert!(snapshot_contents(dir, "two") == two, "{at:?}");
    let check = OpenOptions {
        writable: false,
        for_check: true,
        ..options(CacheMode::Writeback)
    };
    let image = Image::open(&Location::from_path(dir.path("image")), &check).unwrap();
    let report = ops::check::check(&image, RepairMode::Report, &mut Job::new())
        .unwrap()
        .report;
    assert_eq!(report.check_errors, 0, "{at:?}");
    // Version 2 has no dirty bit to tell that COPIED flags were under change: they alone may lag.
    let v2 = bytes[7] == 2;
    assert!(report.corruptions == 0 || v2, "{at:?}: {report:?}");
}

/// What a check tells of an image.
fn findings(bytes: Vec<u8>) -> Vec<String> {
    let check = OpenOptions {
        writable: false,
        for_check: true,
        ..options(CacheMode::Writeback)
    };
    let memory = Arc::new(MemoryStorage::with_bytes("state", bytes));
    let image = Image::open_storage(memory, &check).unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        let (Message::Note(line) | Message::Warning(line)) = message;
        sink.lock().unwrap().push(line.to_owned());
    }));
    ops::check::check(&image, RepairMode::Report, &mut job).unwrap();
    lines.lock().unwrap().clone()
}

/// A COPIED flag that lacks costs a copy; one that is set although the refcount is not one lets
/// the guest write into a snapshot. So at no instant of a change to a version 2 image, which has
/// no dirty bit, is a flag set that should not be.
#[test]
fn no_crash_leaves_a_copied_flag_that_is_wrong() {
    let dir = Dir::new();
    let line = "create -q -f qcow2 -o compat=0.10,cluster_size=4k image 1M";
    dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    dir.qemu_io(
        "qcow2",
        "image",
        &["write -P 1 0 100k", "write -c -P 2 256k 64k"],
    );
    dir.qemu_img_ok(&["snapshot", "-c", "first", "image"]);
    dir.qemu_io("qcow2", "image", &["write -P 3 40k 100k"]);
    let bytes = std::fs::read(dir.path("image")).unwrap();
    for step in ["create", "apply", "delete"] {
        let storage = Arc::new(LoggingStorage::new("image", bytes.clone()));
        let image =
            Image::open_storage(storage.clone(), &options(CacheMode::Writethrough)).unwrap();
        let snapshots = image.format().snapshots().unwrap();
        match step {
            "create" => {
                let new = NewSnapshot {
                    name: "second".into(),
                    ..NewSnapshot::default()
                };
                snapshots.create(&new, &JobControl::default()).unwrap();
            }
            "apply" => snapshots.apply("1".into(), &JobControl::default()).unwrap(),
            _ => snapshots
                .delete("1".into(), &JobControl::default())
                .unwrap(),
        }
        let count = storage.event_count();
        assert!(count > 5, "{step}");
        for events in 0..=count {
            for subset in 0..4 {
                let state = storage.crash_state(events, |index| match subset {
                    0 => true,
                    1 => false,
                    half => index % 2 == half - 2,
                });
                for line in findings(state) {
                    let entry = line.split_once("_entry=").and_then(|(_, rest)| {
                        u64::from_str_radix(rest.split(' ').next()?, 16).ok()
                    });
                    let lacks = line.starts_with("ERROR OFLAG_COPIED")
                        && line.ends_with(" refcount=1")
                        && entry.is_some_and(|entry| entry >> 63 == 0);
                    assert!(
                        line.starts_with("Leaked cluster") || lacks,
                        "{step}: {events} of {count}, subset {subset}: {line}"
                    );
                }
            }
        }
        image.close().unwrap();
        assert_eq!(findings(storage.to_vec()), Vec::<String>::new(), "{step}");
    }
}

/// A view reads through tables and clusters of the image that it was made of.
#[test]
fn a_snapshot_that_is_read_stays() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "image", "1M"]);
    dir.qemu_io("qcow2", "image", &["write -P 1 0 1M"]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", "image"]);
    dir.qemu_img_ok(&["snapshot", "-c", "two", "image"]);
    let storage = Arc::new(MemoryStorage::with_bytes(
        "image",
        std::fs::read(dir.path("image")).unwrap(),
    ));
    let image = Image::open_storage(storage, &options(CacheMode::Writeback)).unwrap();
    let snapshots = image.format().snapshots().unwrap();
    let view = snapshots.view("1".into()).unwrap();
    let downgrade = || {
        let compat = Options::parse("compat=0.10").unwrap();
        let request = AmendRequest::new(&image, &compat, &Objects::default(), false).unwrap();
        amend(&image, &request, &mut Job::new())
    };
    assert_eq!(
        snapshots
            .delete("1".into(), &JobControl::default())
            .unwrap_err()
            .kind(),
        ErrorKind::Busy
    );
    assert_eq!(downgrade().unwrap_err().kind(), ErrorKind::Busy);
    image.write_at(&vec![2; SIZE], 0).unwrap();
    snapshots
        .delete("2".into(), &JobControl::default())
        .unwrap();
    snapshots.apply("1".into(), &JobControl::default()).unwrap();
    image.write_at(&vec![3; SIZE], 0).unwrap();
    image.flush().unwrap();
    let extent = view.map(0, SIZE as u64).unwrap();
    let ExtentKind::Data { slot, host_offset } = extent.kind else {
        panic!("{extent:?}");
    };
    let mut bytes = vec![0; extent.len as usize];
    let stored = view.storage(slot).unwrap();
    stored.read_at(&mut bytes, host_offset).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 1));
    drop(view);
    snapshots
        .delete("1".into(), &JobControl::default())
        .unwrap();
    downgrade().unwrap();
}

/// An image that shows a snapshot has its file's lock: no other handle deletes what it reads.
#[test]
fn a_handle_that_shows_a_snapshot_keeps_writers_out() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "image", "1M"]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", "image"]);
    let place = Location::from_path(dir.path("image"));
    let write = options(CacheMode::Writeback);
    let read = OpenOptions {
        writable: false,
        ..write.clone()
    };
    let mut shown = Image::open(&place, &read).unwrap();
    ops::snapshot::show(&mut shown, "one").unwrap();
    let other = Image::open(&place, &write).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Locked);
    let delete = ops::snapshot::delete(&shown, "one", &mut Job::new()).unwrap_err();
    assert_eq!(delete.kind(), ErrorKind::ReadOnly);
    drop(shown);
    let image = Image::open(&place, &write).unwrap();
    ops::snapshot::delete(&image, "one", &mut Job::new()).unwrap();
    image.close().unwrap();
}

/// Between the look at the mapping and the read of a compressed cluster a snapshot without it is
/// applied: the backing file is what is read, and no zeroes.
#[test]
fn a_compressed_cluster_that_is_gone_is_looked_up_again() {
    let dir = Dir::new();
    let base = dir.str("base");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "1M"]);
    dir.qemu_io("raw", "base", &["write -P 0xbb 0 1M"]);
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", "image",
    ]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", "image"]);
    dir.qemu_io("qcow2", "image", &["write -c -P 5 0 64k"]);
    let image = Image::open(
        &Location::from_path(dir.path("image")),
        &options(CacheMode::Writeback),
    )
    .unwrap();
    let found = image.format().map(0, 65536).unwrap();
    assert!(matches!(
        found.kind,
        ExtentKind::Encoded { compressed: true }
    ));
    image
        .format()
        .snapshots()
        .unwrap()
        .apply("1".into(), &JobControl::default())
        .unwrap();
    let mut bytes = vec![0; 65536];
    let error = image.format().read_encoded(&mut bytes, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    image.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0xbb));
    image.close().unwrap();
}

/// As above, with readers and appliers at once: what is read is one of both, never zeroes.
#[test]
fn reads_beside_applied_snapshots_see_one_of_both() {
    let dir = Dir::new();
    let base = dir.str("base");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "1M"]);
    dir.qemu_io("raw", "base", &["write -P 0xbb 0 1M"]);
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", "image",
    ]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", "image"]);
    dir.qemu_io("qcow2", "image", &["write -c -P 5 0 64k"]);
    dir.qemu_img_ok(&["snapshot", "-c", "two", "image"]);
    let image = Image::open(
        &Location::from_path(dir.path("image")),
        &options(CacheMode::Unsafe),
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut bytes = vec![0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    image.read_at(&mut bytes, 0).unwrap();
                    let first = bytes[0];
                    assert!([5, 0xbb].contains(&first), "read {first:#x}");
                    assert!(bytes.iter().all(|byte| *byte == first));
                }
            });
        }
        let snapshots = image.format().snapshots().unwrap();
        for _ in 0..100 {
            snapshots.apply("1".into(), &JobControl::default()).unwrap();
            snapshots.apply("2".into(), &JobControl::default()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    image.close().unwrap();
}

/// Ends the work of a control once some time has passed.
fn stop_after(job: &Job, time: Duration) -> std::thread::JoinHandle<()> {
    let control = job.control().clone();
    let begin = Instant::now();
    std::thread::spawn(move || {
        while begin.elapsed() < time {
            std::hint::spin_loop();
        }
        control.cancel();
    })
}

/// Ended at any moment, a change is not made, or it is; nothing is lost, and a counting that was left
/// undone is done by whoever opens the image next.
#[test]
fn a_change_that_is_stopped_leaves_no_leak_and_loses_nothing() {
    type Operation = fn(&Image, &mut Job) -> platter::Result<()>;
    let operations: [(&str, Operation); 3] = [
        ("create", |image, job| {
            ops::snapshot::create(image, "new", job).map(drop)
        }),
        ("apply", |image, job| {
            ops::snapshot::apply(image, "two", job)
        }),
        ("delete", |image, job| {
            ops::snapshot::delete(image, "one", job)
        }),
    ];
    for compat in ["compat=1.1", "compat=0.10", "lazy_refcounts=on"] {
        let dir = Dir::new();
        let create = format!("create -q -f qcow2 -o cluster_size=512,{compat} image 2M");
        dir.qemu_img_ok(&create.split(' ').collect::<Vec<_>>());
        for (name, write) in [("one", "write -P 1 0 1M"), ("two", "write -P 2 300k 1500k")] {
            dir.qemu_io("qcow2", "image", &[write]);
            dir.qemu_img_ok(&["snapshot", "-c", name, "image"]);
        }
        dir.qemu_io("qcow2", "image", &["write -P 3 150k 900k"]);
        let start = std::fs::read(dir.path("image")).unwrap();
        let two = snapshot_contents(&dir, "two");
        let now = contents(&memory_image(&start).0);
        for (what, operation) in operations {
            let mut stopped = 0;
            for n in 0..12 {
                let (image, mut memory, _) = memory_image(&start);
                let mut job = Job::new();
                if n == 0 {
                    job.control().cancel();
                }
                let stopper = stop_after(&job, Duration::from_micros(400 * n));
                let ended = operation(&image, &mut job);
                stopper.join().unwrap();
                let cancelled = ended.is_err();
                if let Err(error) = ended {
                    assert_eq!(error.kind(), ErrorKind::Cancelled, "{what}: {error:?}");
                    stopped += 1;
                }
                // The handle goes on, or the process ends.
                let closed = n % 2 == 0;
                if closed {
                    image.write_at(&[7; 700], 0).unwrap();
                    image.close().unwrap();
                    let (image, again, _) = memory_image(&memory.to_vec());
                    memory = again;
                    let mut bytes = vec![0; 700];
                    image.read_at(&mut bytes, 0).unwrap();
                    assert_eq!(bytes, [7; 700], "{what}");
                    let names = ops::snapshot::list(&image).unwrap().snapshots;
                    let has = |name: &str| names.iter().any(|one| one.name == name);
                    match what {
                        "create" => assert_eq!(has("new"), !cancelled),
                        "delete" => assert!(cancelled || !has("one")),
                        _ => {}
                    }
                    // To give back what the test wrote.
                    let old = if contents(&image)[700..] == two[700..] {
                        &two
                    } else {
                        &now
                    };
                    image.write_at(&old[..700], 0).unwrap();
                    image.close().unwrap();
                } else {
                    image.abandon();
                }
                judge(&dir, &memory.to_vec(), &[&now, &two], &two, (what, n));
                if closed {
                    let check = dir.qemu_img(&["check", "image"]);
                    assert_eq!(check.code, 0, "{compat} {what} {n}: {check:?}");
                }
            }
            assert!(stopped > 0, "{what}");
        }
    }
}
