//! Amending qcow2 images: a crash or a failing call at any point leaves an image that opens, checks
//! without an error, and shows what it did, in its snapshots too.

use std::sync::Arc;

use crate::common::Dir;
use platter::format::RepairMode;
use platter::job::Job;
use platter::object::Objects;
use platter::ops::amend::{AmendRequest, amend};
use platter::ops::check::check;
use platter::ops::snapshot;
use platter::storage::Storage;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Fault, FaultyStorage, LoggingStorage};
use platter::{ErrorKind, Image, OpenOptions, OpenPolicy, Options};

fn open(storage: Arc<dyn Storage>, writable: bool, for_check: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable,
        for_check,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options)
}

fn change(image: &Image, options: &str, job: &mut Job) -> platter::Result<()> {
    let options = Options::parse(options)?;
    let request = AmendRequest::new(image, &options, &Objects::default(), false)?;
    amend(image, &request, job)
}

/// One kind of image, with snapshots, shared tables, and zero clusters of every kind.
fn make(dir: &Dir, options: &str, backing: bool) -> Vec<u8> {
    let base = dir.str("base");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "256k"]);
    dir.qemu_io("raw", "base", &["write -P 0xbb 0 256k"]);
    let mut args = vec!["create", "-q", "-f", "qcow2", "-o", options];
    if backing {
        args.extend(["-b", &base, "-F", "raw"]);
    }
    args.extend(["new", "256k"]);
    dir.qemu_img_ok(&args);
    dir.qemu_io(
        "qcow2",
        "new",
        &[
            "write -P 1 0 80k",
            "write -c -P 2 96k 16k",
            "write -z 8k 8k",
            "write -z -u 20k 8k",
        ],
    );
    dir.qemu_img_ok(&["snapshot", "-c", "one", "new"]);
    dir.qemu_img_ok(&["snapshot", "-c", "two", "new"]);
    dir.qemu_io(
        "qcow2",
        "new",
        &[
            "write -P 3 60k 12k",
            "write -z 30k 8k",
            "write -z 130k 9k",
            "write -P 4 200k 4k",
        ],
    );
    dir.qemu_img_ok(&["snapshot", "-c", "three", "new"]);
    dir.qemu_io("qcow2", "new", &["write -z 0 4k", "write -P 5 240k 16k"]);
    std::fs::read(dir.path("new")).unwrap()
}

/// What the guest sees now and in each snapshot.
fn contents(bytes: &[u8]) -> platter::Result<Vec<Vec<u8>>> {
    let storage = || Arc::new(MemoryStorage::with_bytes("state", bytes.to_vec()));
    let mut image = open(storage(), false, false)?;
    let list = snapshot::list(&image)?.snapshots;
    let mut all = Vec::new();
    for id in std::iter::once(None).chain(list.iter().map(|one| Some(&one.id))) {
        if let Some(id) = id {
            image = open(storage(), false, false)?;
            image.load_snapshot(id)?;
        }
        let mut bytes = vec![0; image.len() as usize];
        image.read_at(&mut bytes, 0)?;
        all.push(bytes);
    }
    Ok(all)
}

/// Leaks may remain, errors may not; and the contents are those expected.
fn judge(bytes: &[u8], expected: &[Vec<u8>], what: &str) {
    let found = contents(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(found == expected, "{what}: other contents");
    let storage = Arc::new(MemoryStorage::with_bytes("state", bytes.to_vec()));
    let image = open(storage, false, true).unwrap_or_else(|error| panic!("{what}: {error}"));
    let notes = Arc::new(std::sync::Mutex::new(String::new()));
    let kept = notes.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        kept.lock().unwrap().push_str(&format!("{message:?}\n"));
    }));
    let outcome = check(&image, RepairMode::Report, &mut job);
    let report = outcome
        .unwrap_or_else(|error| panic!("{what}: {error}"))
        .report;
    if image.format().info().unwrap().dirty == Some(true) {
        // Refcounts and flags are put in order before the next write.
        let again = Arc::new(MemoryStorage::with_bytes("state", bytes.to_vec()));
        let reopened = open(again.clone(), true, false);
        let closed = reopened.and_then(Image::close);
        closed.unwrap_or_else(|error| panic!("{what}: {error}"));
        return judge(&again.to_vec(), expected, &format!("{what}, reopened"));
    }
    assert_eq!(
        (report.corruptions, report.check_errors),
        (0, 0),
        "{what}: {}",
        notes.lock().unwrap()
    );
}

fn judge_by_qemu(dir: &Dir, bytes: &[u8], what: &str) {
    if bytes[79] & 1 != 0 && bytes[7] == 3 {
        return; // the dirty bit
    }
    std::fs::write(dir.path("state"), bytes).unwrap();
    let check = dir.qemu_img(&["check", "-f", "qcow2", "state"]);
    assert!(check.code == 0 || check.code == 3, "{what}: {check:?}");
}

const STEPS: [&str; 6] = [
    "refcount_bits=64",
    "refcount_bits=8",
    "lazy_refcounts=on",
    "compat=0.10,refcount_bits=16",
    "compat=1.1",
    "refcount_bits=32,lazy_refcounts=off",
];

const IMAGES: [(&str, bool); 4] = [
    ("cluster_size=1k", false),
    ("cluster_size=1k,lazy_refcounts=on", true),
    ("cluster_size=512,refcount_bits=32", true),
    ("cluster_size=16k", true),
];

#[test]
fn a_crash_at_any_instant_leaves_a_whole_image() {
    let mut states = 0;
    for (options, backing) in IMAGES {
        let dir = Dir::new();
        let mut bytes = make(&dir, options, backing);
        let expected = contents(&bytes).unwrap();
        for step in STEPS {
            let storage = Arc::new(LoggingStorage::new("log", bytes));
            let image = open(storage.clone(), true, false).unwrap();
            change(&image, step, &mut Job::new()).unwrap();
            image.close().unwrap();
            let count = storage.event_count();
            let what = |at: usize| format!("{options} {step}, {at} of {count} events");
            let mut seed = 0x9E37_79B9_7F4A_7C15u64;
            for at in 0..=count {
                judge(&storage.state_after(at), &expected, &what(at));
                let pending = storage.pending(at);
                // Some of what no barrier made durable is lost.
                for _ in 0..pending.len().min(3) {
                    seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                    let state = storage.crash_state(at, |i| seed >> (20 + i % 40) & 1 == 0);
                    judge(&state, &expected, &format!("{}, some lost", what(at)));
                    states += 1;
                }
                if at % 37 == 0 {
                    judge_by_qemu(&dir, &storage.state_after(at), &what(at));
                }
                states += 1;
            }
            bytes = storage.to_vec();
            judge_by_qemu(&dir, &bytes, &what(count));
        }
    }
    assert!(states > 1000, "only {states} states");
}

#[test]
fn a_call_that_fails_leaves_a_whole_image() {
    for (options, backing) in [IMAGES[0], IMAGES[3]] {
        let dir = Dir::new();
        let mut bytes = make(&dir, options, backing);
        let expected = contents(&bytes).unwrap();
        for step in [
            "refcount_bits=64",
            "compat=0.10,refcount_bits=16",
            "compat=1.1",
        ] {
            let all = Calls::CHANGES | Calls::SYNC | Calls::READ;
            for (nth, torn) in (0..).flat_map(|nth| [(nth, false), (nth, true)]) {
                let memory = Arc::new(MemoryStorage::with_bytes("image", bytes.clone()));
                let storage = Arc::new(FaultyStorage::new(memory.clone()));
                let image = open(storage.clone(), true, false).unwrap();
                storage.set_fault(Some(Fault {
                    calls: all,
                    nth,
                    errno: 5,
                    for_good: false,
                    torn,
                }));
                let changed = change(&image, step, &mut Job::new());
                let struck = storage.struck();
                storage.set_fault(None);
                let closed = image.close();
                let what = format!("{options} {step}, call {nth}, torn: {torn}");
                judge(&memory.to_vec(), &expected, &what);
                if !struck {
                    changed.unwrap_or_else(|error| panic!("{what}: {error}"));
                    closed.unwrap_or_else(|error| panic!("{what}: {error}"));
                    judge_by_qemu(&dir, &memory.to_vec(), &what);
                    bytes = memory.to_vec();
                    break;
                }
            }
        }
    }
}

#[test]
fn a_cancelled_change_leaves_a_whole_image() {
    for step in ["refcount_bits=64", "compat=0.10"] {
        let dir = Dir::new();
        let bytes = make(&dir, "cluster_size=1k", true);
        let expected = contents(&bytes).unwrap();
        for ticks in 0.. {
            let memory = Arc::new(MemoryStorage::with_bytes("image", bytes.clone()));
            let image = open(memory.clone(), true, false).unwrap();
            let mut left = ticks;
            let mut job = Job::new();
            job = job.on_progress(Box::new(move |_| {
                left -= 1;
                if left < 0 {
                    platter::job::Verdict::Cancel
                } else {
                    platter::job::Verdict::Continue
                }
            }));
            let changed = change(&image, step, &mut job);
            image.close().unwrap();
            judge(
                &memory.to_vec(),
                &expected,
                &format!("{step}, {ticks} ticks"),
            );
            match changed {
                Ok(()) => {
                    assert!(ticks > 1, "{step}: progress is never reported");
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            }
        }
    }
}

#[test]
fn an_amended_image_can_be_used_at_once() {
    for (options, backing) in IMAGES {
        let dir = Dir::new();
        let memory = Arc::new(MemoryStorage::with_bytes(
            "image",
            make(&dir, options, backing),
        ));
        let image = open(memory.clone(), true, false).unwrap();
        let mut expected = contents(&memory.to_vec()).unwrap();
        for (n, step) in STEPS.into_iter().enumerate() {
            change(&image, step, &mut Job::new()).unwrap_or_else(|error| panic!("{step}: {error}"));
            let fill = 0x40 + n as u8;
            let at = n * 9000 + 300;
            image.write_at(&vec![fill; 70_000], at as u64).unwrap();
            expected[0][at..at + 70_000].fill(fill);
            image
                .write_zeroes(180 << 10, 32 << 10, platter::storage::ZeroFlags::MAY_UNMAP)
                .unwrap();
            expected[0][180 << 10..212 << 10].fill(0);
            image.flush().unwrap();
            judge(&memory.to_vec(), &expected, &format!("{options} {step}"));
        }
        image.close().unwrap();
        judge(&memory.to_vec(), &expected, options);
        judge_by_qemu(&dir, &memory.to_vec(), options);
    }
}
