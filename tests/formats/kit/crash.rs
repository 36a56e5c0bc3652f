//! Crashes while an image is written: what was flushed is there, and nothing is damaged.

use std::sync::Arc;

use platter::Job;
use platter::format::RepairMode;
use platter::ops::check::check;
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};

use super::sample::{Sample, samples};
use super::shelf::{self, Access, FILES};
use super::work::Change;
use crate::common::first_wrong;
use crate::random::Random;
use crate::states::{self, STALE};

/// Changes of each sample.
const CHANGES: usize = 24;

/// What the guest may see after a crash: for each byte what the last flush made durable, and what
/// has been written since.
#[derive(Clone)]
struct Flushed {
    /// Events that had happened when the flush ended.
    at: usize,
    bytes: Vec<u8>,
    /// What nothing is promised of: it was discarded.
    undefined: Vec<bool>,
}

/// Changes the image and looks at what a power cut leaves; `failing` is the number of the sync that
/// fails. Returns the number of states, or None where there is no such sync.
fn run(sample: &Sample, created: &[Vec<u8>], failing: Option<usize>, step: usize) -> Option<usize> {
    let log = Log::new();
    let files: Vec<Arc<dyn Storage>> = FILES
        .iter()
        .zip(created.to_vec())
        .map(|(name, bytes)| log.file(*name, bytes) as Arc<dyn Storage>)
        .collect();
    let mut model = shelf::empty(sample);
    let mut undefined = vec![false; model.len()];
    let mut flushes = vec![Flushed {
        at: 0,
        bytes: model.clone(),
        undefined: undefined.clone(),
    }];
    // Each change with the number of events before it.
    let mut changes: Vec<(usize, Change)> = Vec::new();
    let mut random = Random(sample.name.len() as u64 ^ 0xc74d);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    if let Some(nth) = failing {
        log.fail_sync(nth);
    }
    for n in 0..CHANGES {
        let change = Change::pick(&mut random, sample.size);
        changes.push((log.count(), change.clone()));
        match change.apply(&image) {
            Ok(()) if sample.discards_to_host && matches!(change, Change::Discard(_)) => {
                undefined[change.range()].fill(true);
            }
            Ok(()) => {
                undefined[change.range()].fill(false);
                let noted = change.note(&image, &mut model, |at| shelf::base_byte(sample, at));
                noted.expect("a read");
            }
            Err(error) => assert!(log.has_failed(), "{}: {error}", sample.name),
        }
        if n % 6 == 5 {
            let flushed = image.flush();
            assert_eq!(flushed.is_err(), log.has_failed(), "{}", sample.name);
            if flushed.is_ok() {
                flushes.push(Flushed {
                    at: log.count(),
                    bytes: model.clone(),
                    undefined: undefined.clone(),
                });
            }
        }
    }
    let closed = image.close();
    assert_eq!(closed.is_err(), log.has_failed(), "{}", sample.name);
    if closed.is_ok() {
        flushes.push(Flushed {
            at: log.count(),
            bytes: model,
            undefined,
        });
    }
    if failing.is_some() && !log.has_failed() {
        return None;
    }
    let states = states::each(&log, Durability::Synced, &mut random, step, |crash| {
        let judged = crash.judge(|count| {
            let flushed = flushes.iter().rfind(|flush| flush.at <= count);
            let flushed = flushed.expect("the state at the beginning");
            let since = changes
                .iter()
                .filter(|(at, _)| (flushed.at..=count).contains(at))
                .map(|(_, change)| change);
            judge(sample, &crash.files, flushed, since)
        });
        if let Err(text) = judged {
            panic!(
                "{}: {} of the first {} events, sync {failing:?} fails: {text}",
                sample.name, crash.what, crash.count
            );
        }
    });
    Some(states)
}

/// The guest bytes of files that a crash has left; the image must be whole.
pub fn whole(sample: &Sample, files: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let image = shelf::open(sample, &shelf::memory(files), Access::Check)
        .map_err(|error| format!("does not open: {error}"))?;
    if image.format().checker().is_some() {
        let outcome = check(&image, RepairMode::Report, &mut Job::new())
            .map_err(|error| format!("cannot be checked: {error}"))?;
        let report = outcome.report;
        // Refcounts of a dirty image are rebuilt before the next write.
        let dirty = image.info().map_err(|error| error.to_string())?.dirty == Some(true);
        if report.check_errors > 0 || report.corruptions > 0 && !dirty {
            return Err(format!("{report:?}"));
        }
    }
    shelf::contents(&image).map_err(|error| format!("cannot be read: {error}"))
}

fn judge<'a>(
    sample: &Sample,
    files: &[Vec<u8>],
    flushed: &Flushed,
    since: impl Iterator<Item = &'a Change>,
) -> Result<(), String> {
    let now = whole(sample, files)?;
    let mut touched = flushed.undefined.clone();
    since.for_each(|change| touched[change.range()].fill(true));
    // What is being written may be torn; all else must be as it was.
    match first_wrong(&now, &flushed.bytes, &touched) {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} is {:#x}, not {:#x} (stale bytes are {STALE:#x})",
            now[at], flushed.bytes[at]
        )),
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_flushed() {
    for sample in samples() {
        let created = shelf::bytes(&shelf::created(sample));
        let step = if sample.encrypted() { 6 } else { 3 };
        let states = run(sample, &created, None, step).unwrap();
        assert!(states >= 15, "{}: only {states} states", sample.name);
    }
}

/// The kernel drops what it could not write, tells of it once, and calls the next sync a success.
#[test]
fn after_a_sync_that_failed_none_succeeds_and_what_was_flushed_before_stays() {
    for sample in samples() {
        let created = shelf::bytes(&shelf::created(sample));
        let step = if sample.encrypted() { 48 } else { 24 };
        let syncs = (0..).map_while(|nth| run(sample, &created, Some(nth), step));
        let runs = syncs.count();
        assert!(runs >= 4, "{}: only {runs} syncs", sample.name);
    }
}
