//! Failures, cancelling, salvage, progress: a conversion leaves its target whole or not at all.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platter::job::{Message, Verdict};
use platter::ops::convert::convert;
use platter::storage::CacheMode;
use platter::{ErrorKind, Job};

use crate::common::Dir;
use crate::support::{DISK, disk, noise, refused, request, run, verify, with_options};

#[test]
fn a_cancelled_conversion_removes_its_target() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.target.compress = compress;
        let mut job = Job::new().on_progress(Box::new(|progress| {
            if progress.done > 4 << 20 {
                Verdict::Cancel
            } else {
                Verdict::Continue
            }
        }));
        let error = convert(&request, &mut job).expect_err("a cancelled job");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!dir.path("b.img").exists(), "{format} is still there");
    }
}

#[test]
fn an_interrupted_target_is_no_complete_image() {
    let dir = Dir::new();
    fs::write(dir.path("a.raw"), noise(1, 24 << 20)).expect("a source");
    let modes = [CacheMode::Unsafe, CacheMode::None];
    for (format, cache) in ["raw", "qcow2"]
        .map(|format| modes.map(|mode| (format, mode)))
        .concat()
    {
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.target.cache = cache;
        let mut job = Job::new();
        let control = job.control().clone();
        control.set_rate(4 << 20);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| convert(&request, &mut job).map(|_| ()));
            let deadline = Instant::now() + Duration::from_secs(30);
            while control.progress().done < 4 << 20 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            control.pause();
            // What a kill at this moment would leave behind:
            fs::copy(dir.path("b.img"), dir.path("left.img")).expect("a copy");
            control.cancel();
            assert!(running.join().expect("no panic").is_err());
        });
        let ran = dir.qemu_img(&["info", "-U", "left.img"]);
        if format == "qcow2" {
            assert!(
                ran.code != 0 || ran.out.contains("file format: raw"),
                "{ran:?}"
            );
        } else {
            let len = fs::metadata(dir.path("left.img")).expect("the copy").len();
            assert!(len < 24 << 20, "{len}");
        }
        assert!(!dir.path("b.img").exists());
    }
}

#[test]
fn the_source_cannot_be_the_target() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    let before = fs::read(dir.path("a.raw")).expect("the source");
    for share in [false, true] {
        for exists in [false, true] {
            let mut request = request(&dir, "a.raw", "a.raw", "raw");
            request.source.options.force_share = share;
            request.target.exists = exists;
            let message = refused(&request);
            assert!(message.contains("lock"), "{message}");
        }
    }
    assert!(fs::read(dir.path("a.raw")).expect("the source") == before);
}

/// A compressed image one of whose clusters does not decode.
fn damaged(dir: &Dir) -> u64 {
    fs::write(dir.path("a.raw"), crate::support::text(3, 1 << 20)).expect("a source");
    dir.qemu_img_ok(&["convert", "-c", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let file = fs::File::options()
        .write(true)
        .read(true)
        .open(dir.path("a.qcow2"))
        .expect("the image");
    let mut word = [0; 8];
    file.read_exact_at(&mut word, 40).expect("the header");
    let mut l1 = [0; 8];
    file.read_exact_at(&mut l1, u64::from_be_bytes(word))
        .expect("L1");
    let l2 = u64::from_be_bytes(l1) & 0x00ff_ffff_ffff_fe00;
    file.read_exact_at(&mut word, l2 + 3 * 8).expect("L2");
    let at = u64::from_be_bytes(word) & ((1 << 54) - 1);
    file.write_all_at(&[0xff; 64], at).expect("damage");
    3 * 65536
}

#[test]
fn unreadable_parts_fail_the_conversion_or_become_zeroes() {
    let dir = Dir::new();
    let bad = damaged(&dir);
    let mut request = request(&dir, "a.qcow2", "b.raw", "raw");
    let message = refused(&request);
    assert!(
        message.starts_with(&format!("error while reading at byte {bad}: ")),
        "{message}"
    );
    assert!(!dir.path("b.raw").exists());

    request.source.salvage = true;
    let warnings = Arc::new(AtomicU64::new(0));
    let count = warnings.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        assert!(matches!(message, Message::Warning(text)
            if text.starts_with("error while reading offset ")));
        count.fetch_add(1, Ordering::Relaxed);
    }));
    convert(&request, &mut job).expect("what can be read");
    assert_eq!(warnings.load(Ordering::Relaxed), 128);
    let mut expected = fs::read(dir.path("a.raw")).expect("the original");
    expected[bad as usize..bad as usize + 65536].fill(0);
    assert!(fs::read(dir.path("b.raw")).expect("the target") == expected);
}

#[test]
fn progress_reaches_the_end_and_never_goes_back() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    let seen = Arc::new(parking_lot_free::Log::default());
    let log = seen.clone();
    let mut job = Job::new().on_progress(Box::new(move |progress| {
        log.push(progress.done, progress.total);
        Verdict::Continue
    }));
    convert(&request(&dir, "a.raw", "b.raw", "raw"), &mut job).expect("a conversion");
    let seen = seen.take();
    assert!(seen.first().is_some_and(|(done, _)| *done == 0));
    // What is moved is the data, not the holes.
    let (done, total) = seen.last().copied().expect("reports");
    assert!(
        done == total && (5 << 20..DISK).contains(&total),
        "{done} of {total}"
    );
    assert!(seen.iter().map(|(done, _)| done).is_sorted());
}

mod parking_lot_free {
    use std::sync::Mutex;

    /// Progress reports in order.
    #[derive(Default)]
    pub struct Log(Mutex<Vec<(u64, u64)>>);

    impl Log {
        pub fn push(&self, done: u64, total: u64) {
            self.0.lock().expect("no panic").push((done, total));
        }

        pub fn take(&self) -> Vec<(u64, u64)> {
            std::mem::take(&mut self.0.lock().expect("no panic"))
        }
    }
}

#[test]
fn errors_read_like_those_of_qemu_img() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    let here = |name: &str| dir.str(name);
    for (target, format, options, compress, expected) in [
        (
            "b",
            "bogus",
            "",
            false,
            "Unknown file format 'bogus'".to_owned(),
        ),
        (
            "b",
            "raw",
            "bogus=1",
            false,
            "Invalid parameter 'bogus'".to_owned(),
        ),
        (
            "b",
            "raw",
            "",
            true,
            "Compression not supported for this file format".to_owned(),
        ),
        (
            "b",
            "qcow2",
            "preallocation=full",
            true,
            "Compression and preallocation not supported at the same time".to_owned(),
        ),
        (
            "b",
            "qcow2",
            "backing_file=a.raw",
            false,
            "Use of backing file requires explicit backing format".to_owned(),
        ),
        (
            "b",
            "qcow2",
            "backing_fmt=raw",
            false,
            format!(
                "{}: error while converting qcow2: Backing format cannot be used without backing file",
                here("b")
            ),
        ),
        (
            "b",
            "qcow2",
            "cluster_size=3",
            false,
            format!(
                "{}: error while converting qcow2: Cluster size must be a power of two between 512 and 2048k",
                here("b")
            ),
        ),
        (
            "no/b",
            "raw",
            "",
            false,
            format!(
                "{0}: error while converting raw: Could not create '{0}': No such file or directory",
                here("no/b")
            ),
        ),
    ] {
        let mut request = with_options(&dir, "a.raw", target, format, options);
        request.target.compress = compress;
        assert_eq!(refused(&request), expected);
        assert!(!dir.path(target).exists());
    }
    let mut missing = request(&dir, "nope", "b", "raw");
    let message = refused(&missing);
    assert!(message.ends_with("No such file or directory"), "{message}");
    missing = request(&dir, "a.raw", "b", "raw");
    missing.source.snapshot = Some("x".into());
    assert_eq!(
        refused(&missing),
        "Failed to load snapshot: Block format 'raw' used by device '' does not support temporarily loading internal snapshots"
    );
}

#[test]
fn a_failed_conversion_over_an_old_file_does_not_look_complete() {
    let dir = Dir::new();
    damaged(&dir);
    fs::write(dir.path("b.raw"), vec![1; 4 << 20]).expect("an old file");
    assert!(run(&request(&dir, "a.qcow2", "b.raw", "raw")).is_err());
    let left = fs::metadata(dir.path("b.raw")).map_or(0, |meta| meta.len());
    assert!(left < 1 << 20, "{left}");
}

#[test]
fn copying_inside_the_host() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for format in ["raw", "qcow2"] {
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.tuning.copy_range = true;
        let report = run(&request).expect("a conversion");
        assert!(report.offloaded_bytes > 3 << 20, "{report:?}");
        verify(&dir, "a.raw", "b.img", format);
    }
}
