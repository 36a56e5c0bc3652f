//! Checks of images that other threads write to: what is told is of one state, or nothing is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use platter::format::{Features, RepairMode};
use platter::job::Verdict;
use platter::ops::check::{CheckOutcome, check, check_held};
use platter::{ErrorKind, Image, Job, Result};

use super::sample::{self, Sample};
use super::shelf::{self, Access};
use super::work::Change;
use crate::random::Random;

const UNIT: usize = 64 << 10;
/// Where nothing was written before.
const NEW: u64 = 40 * UNIT as u64;

/// Each sample that can be checked and written at any time, open for writing, with some data.
fn samples() -> impl Iterator<Item = (&'static Sample, Arc<Image>)> {
    sample::samples()
        .filter(|sample| !sample.is_stream && !sample.encrypted())
        .filter_map(|sample| {
            let files = shelf::created(sample);
            let image = shelf::open(sample, &files, Access::Write).expect("it opens");
            image.format().checker()?;
            image.write_at(&vec![7; 4 * UNIT], 0).expect("a write");
            Some((sample, Arc::new(image)))
        })
}

/// A job that does something once, in the middle of the work.
fn amid(mut once: impl FnMut() + Send + 'static) -> Job {
    let mut is_done = false;
    Job::new().on_progress(Box::new(move |_| {
        if !std::mem::replace(&mut is_done, true) {
            once();
        }
        Verdict::Continue
    }))
}

/// Whether a check that nobody disturbed found nothing; false where it ended because someone did.
fn is_clean(sample: &Sample, outcome: Result<CheckOutcome>) -> bool {
    match outcome {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Busy, "{}: {error}", sample.name);
            false
        }
        Ok(outcome) => {
            let report = outcome.report;
            let found = (report.corruptions, report.leaks, report.check_errors);
            assert_eq!(found, (0, 0, 0), "{}: {report:?}", sample.name);
            true
        }
    }
}

#[test]
fn a_check_ends_where_metadata_changes_and_not_where_guest_bytes_are_overwritten() {
    let (mut busy, mut clean) = (BTreeSet::new(), BTreeSet::new());
    for (sample, image) in samples() {
        for offset in [0, NEW] {
            image.write_at(&[8; 512], 0).expect("a write");
            let writer = image.clone();
            let mut job = amid(move || {
                let writer = writer.clone();
                let written = thread::spawn(move || {
                    writer.write_at(&[9; 512], offset)?;
                    writer.flush()
                });
                written.join().expect("a thread").expect("a write");
            });
            let outcome = check(&image, RepairMode::Report, &mut job);
            match (offset, is_clean(sample, outcome)) {
                (0, true) => clean.insert(sample.format),
                (NEW, false) => busy.insert(sample.format),
                _ => false,
            };
        }
        // Whoever asks again at a quiet time is told.
        let outcome = check(&image, RepairMode::Report, &mut Job::new());
        assert!(is_clean(sample, outcome), "{}", sample.name);
    }
    assert_eq!(busy, sample::formats(|driver| driver.can(Features::CHECK)));
    for format in ["parallels", "qcow2", "qed", "vdi", "vhdx", "vpc"] {
        let is_asked = sample::only().is_none_or(|it| it == format);
        assert!(!is_asked || clean.contains(format), "{format}");
    }
}

#[test]
fn changes_wait_for_a_check_that_holds_them_back_and_for_every_repair() {
    for (sample, image) in samples() {
        for repair in [RepairMode::Report, RepairMode::Leaks, RepairMode::All] {
            let threads = Arc::new(Mutex::new(Vec::new()));
            let (writer, started) = (image.clone(), threads.clone());
            let mut job = amid(move || {
                // The thread of the job would wait for itself.
                let refused = writer.write_at(&[9; 512], NEW).expect_err("a write");
                assert_eq!(refused.kind(), ErrorKind::Busy);
                let refused = writer.flush().expect_err("a flush");
                assert_eq!(refused.kind(), ErrorKind::Busy);
                let writer = writer.clone();
                let written = thread::spawn(move || writer.write_at(&[9; 512], NEW));
                started.lock().expect("threads").push(written);
            });
            let outcome = match repair {
                RepairMode::Report => check_held(&image, repair, &mut job),
                _ => check(&image, repair, &mut job),
            };
            match outcome {
                // Only what was opened for it can be repaired.
                Err(error) if sample.format == "qcow2" => {
                    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                }
                outcome => assert!(is_clean(sample, outcome), "{}", sample.name),
            }
            if sample.format != "qcow2" || repair == RepairMode::Report {
                assert!(!threads.lock().expect("threads").is_empty());
            }
            for written in threads.lock().expect("threads").drain(..) {
                written.join().expect("a thread").expect("a write");
            }
        }
    }
}

#[test]
fn a_check_beside_a_writer_never_tells_of_damage() {
    for (sample, image) in samples() {
        let stop = AtomicBool::new(false);
        let told = Arc::new(Mutex::new(Vec::new()));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(sample.name.len() as u64);
                while !stop.load(Ordering::Relaxed) {
                    let change = Change::pick(&mut random, image.len());
                    change.apply(&image).expect("a change");
                }
            });
            for round in 0..8 {
                let heard = told.clone();
                let mut job = Job::new().on_message(Box::new(move |message| {
                    heard.lock().expect("messages").push(format!("{message:?}"));
                }));
                let outcome = match round % 2 {
                    0 => check(&image, RepairMode::Report, &mut job),
                    _ => check_held(&image, RepairMode::Report, &mut job),
                };
                is_clean(sample, outcome);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let told = told.lock().expect("messages");
        assert!(told.is_empty(), "{}: {told:?}", sample.name);
    }
}
