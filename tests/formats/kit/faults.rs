//! Each call of the files fails in turn: an error comes up, and nothing that was there is lost.

use std::sync::Arc;

use platter::storage::testing::{Calls, Fault, FaultyStorage};
use platter::storage::{Storage, ZeroFlags};

use super::sample::{Sample, only, samples};
use super::shelf::{self, Access, FILES};
use super::work::{Change, same};
use crate::common::first_wrong;
use crate::random::Random;

/// Files of memory with these bytes, the first of which can be made to fail.
fn faulty(files: &[Vec<u8>]) -> (Arc<FaultyStorage>, Vec<Arc<dyn Storage>>) {
    faulty_at(0, files)
}

fn faulty_at(at: usize, files: &[Vec<u8>]) -> (Arc<FaultyStorage>, Vec<Arc<dyn Storage>>) {
    let mut files = shelf::memory(files);
    let failing = Arc::new(FaultyStorage::new(files[at].clone()));
    files[at] = failing.clone();
    (failing, files)
}

fn fault(calls: Calls, nth: u64, errno: i32) -> Fault {
    Fault {
        calls,
        nth,
        errno,
        for_good: false,
        torn: false,
    }
}

/// A creation that a failing call ends leaves an empty file, as it was before.
fn creation(sample: &Sample) {
    let step = if sample.encrypted() { 5 } else { 1 };
    let mut nth = 0;
    loop {
        let (first, files) = faulty(&[Vec::new(), Vec::new(), shelf::base(sample)]);
        assert_eq!(files.len(), FILES.len());
        first.set_fault(Some(fault(Calls::CHANGES, nth, libc::ENOSPC)));
        let made = shelf::create(sample, &files);
        let struck = first.struck();
        first.set_fault(None);
        match made {
            Ok(()) => {
                let image = shelf::open(sample, &files, Access::Read).expect("it opens");
                let read = shelf::contents(&image).expect("a read");
                if sample.zeroes_when_new {
                    same(sample.name, &read, &shelf::empty(sample));
                }
            }
            Err(error) => {
                assert!(struck, "{}: {error}", sample.name);
                assert_eq!(files[0].len().expect("a length"), 0, "{}", sample.name);
            }
        }
        if !struck {
            return;
        }
        nth += step;
        assert!(nth < 10_000, "{}: creation does not end", sample.name);
    }
}

/// The files of an image with some data.
fn written(sample: &Sample) -> Vec<Vec<u8>> {
    let files = shelf::created(sample);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    image.write_at(&[0x3c; 200_000], 100_000).expect("a write");
    image.close().expect("a close");
    shelf::bytes(&files)
}

/// Changes of which one fails: the image opens again and holds what was flushed before, and what no
/// change has touched since.
fn changes(sample: &Sample, calls: Calls, errno: i32) {
    let whole = written(sample);
    let before = {
        let image = shelf::open(sample, &shelf::memory(&whole), Access::Read).expect("it opens");
        shelf::contents(&image).expect("a read")
    };
    let mut random = Random(sample.name.len() as u64);
    let plan: Vec<Change> = (0..6)
        .map(|_| Change::pick(&mut random, sample.size))
        .collect();
    let mut touched = vec![false; before.len()];
    plan.iter()
        .for_each(|change| touched[change.range()].fill(true));
    let step = if sample.encrypted() { 7 } else { 1 };
    let mut nth = 0;
    loop {
        let (first, files) = faulty(&whole);
        let image = shelf::open(sample, &files, Access::Write).expect("it opens");
        first.set_fault(Some(fault(calls, nth, errno)));
        let mut failed = false;
        for change in &plan {
            failed |= change.apply(&image).is_err();
        }
        failed |= image.flush().is_err();
        failed |= image.close().is_err();
        let struck = first.struck();
        first.set_fault(None);
        assert!(struck || !failed, "{}: nothing failed", sample.name);
        let image = shelf::open(sample, &files, Access::Check)
            .unwrap_or_else(|error| panic!("{}: call {nth} of {calls:?}: {error}", sample.name));
        let now = shelf::contents(&image).expect("a read");
        let wrong = first_wrong(&now, &before, &touched);
        assert_eq!(wrong, None, "{}: call {nth} of {calls:?}", sample.name);
        if !struck {
            return;
        }
        nth += step;
        assert!(nth < 10_000, "{}: the changes do not end", sample.name);
    }
}

#[test]
fn a_creation_that_fails_says_so() {
    for sample in samples() {
        creation(sample);
    }
}

#[test]
fn a_failing_call_harms_nothing_that_was_there() {
    for sample in samples() {
        changes(sample, Calls::CHANGES, libc::ENOSPC);
        changes(sample, Calls::SYNC, libc::EIO);
        changes(sample, Calls::READ, libc::EIO);
    }
}

/// How many errors there were of a file whose calls of a kind all fail; each tells its name.
fn failures(sample: &Sample, whole: &[Vec<u8>], at: usize, calls: Calls) -> usize {
    let (failing, files) = faulty_at(at, whole);
    let image = shelf::open(sample, &files, Access::Write).expect("it opens");
    failing.set_fault(Some(Fault {
        for_good: true,
        ..fault(calls, 0, libc::EIO)
    }));
    let done = [
        shelf::contents(&image).map(drop),
        image.write_at(&[0x77; 70_000], 250_000),
        image.write_zeroes(1 << 20, 70_000, ZeroFlags::empty()),
        image.flush(),
        image.close(),
    ];
    let failed = done.into_iter().filter_map(Result::err);
    let failed = failed.filter(|error| error.os_errno() == Some(libc::EIO));
    let told = failed.inspect(|error| {
        let of = format!("{}: {calls:?} of {}: {error}", sample.name, FILES[at]);
        match error.file() {
            Some(name) => assert_eq!(name, FILES[at], "{of}"),
            // An image that keeps to an earlier failure.
            None => assert!(error.to_string().contains("'image'"), "{of}"),
        }
    });
    told.count()
}

#[test]
fn a_failing_call_of_any_file_names_that_file() {
    let mut named = 0;
    for sample in samples() {
        let whole = written(sample);
        let used = [true, sample.has_data_file(), sample.overlay];
        for at in (0..FILES.len()).filter(|&at| used[at]) {
            let count = |calls| failures(sample, &whole, at, calls);
            let counts = [Calls::READ, Calls::CHANGES, Calls::SYNC].map(count);
            named += counts.iter().sum::<usize>();
        }
    }
    let all = samples().count();
    assert!(only().is_some() || named > 2 * all, "{named}");
}
