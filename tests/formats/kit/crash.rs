//! Crashes while an image is written: what was flushed is there, and nothing is damaged.

use std::sync::Arc;

use platter::Job;
use platter::format::RepairMode;
use platter::ops::check::check;
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};

use super::sample::{SAMPLES, Sample};
use super::shelf::{self, Access, FILES};
use super::work::Change;
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
}

fn run(sample: &Sample) -> usize {
    let created = shelf::bytes(&shelf::created(sample));
    let log = Log::new();
    let files: Vec<Arc<dyn Storage>> = FILES
        .iter()
        .zip(created)
        .map(|(name, bytes)| log.file(*name, bytes) as Arc<dyn Storage>)
        .collect();
    let mut model = shelf::empty(sample);
    let mut flushes = vec![Flushed {
        at: 0,
        bytes: model.clone(),
    }];
    // Each change with the number of events before it.
    let mut changes: Vec<(usize, Change)> = Vec::new();
    let mut random = Random(sample.name.len() as u64 ^ 0xc4a5);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    for n in 0..CHANGES {
        let change = Change::pick(&mut random, sample.size);
        changes.push((log.count(), change.clone()));
        change.apply(&image).expect("a change");
        let noted = change.note(&image, &mut model, |at| shelf::base_byte(sample, at));
        noted.expect("a read");
        if n % 6 == 5 {
            image.flush().expect("a flush");
            flushes.push(Flushed {
                at: log.count(),
                bytes: model.clone(),
            });
        }
    }
    image.close().expect("a close");
    flushes.push(Flushed {
        at: log.count(),
        bytes: model,
    });
    let step = if sample.encrypted() { 6 } else { 3 };
    states::each(&log, Durability::Synced, &mut random, step, |crash| {
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
                "{}: {} of the first {} events: {text}",
                sample.name, crash.what, crash.count
            );
        }
    })
}

fn judge<'a>(
    sample: &Sample,
    files: &[Vec<u8>],
    flushed: &Flushed,
    since: impl Iterator<Item = &'a Change>,
) -> Result<(), String> {
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
    let now = shelf::contents(&image).map_err(|error| format!("cannot be read: {error}"))?;
    let mut touched = vec![false; now.len()];
    since.for_each(|change| touched[change.range()].fill(true));
    // What is being written may be torn; all else must be as it was.
    let wrong = (0..now.len()).find(|&at| !touched[at] && now[at] != flushed.bytes[at]);
    match wrong {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} is {:#x}, not {:#x} (stale bytes are {STALE:#x})",
            now[at], flushed.bytes[at]
        )),
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_flushed() {
    for sample in SAMPLES {
        let states = run(sample);
        assert!(states >= 15, "{}: only {states} states", sample.name);
    }
}
