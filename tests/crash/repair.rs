//! `check -r` on a crashed image, itself interrupted anywhere.

use std::sync::Arc;

use platter::format::RepairMode;
use platter::storage::Storage;
use platter::storage::testing::Log;

use crate::random::Random;
use crate::replay::Run;
use crate::rig::{self, Access, FILES};
use crate::states::{self, Crash};

/// Repairs a state in both modes: nothing is left to repair, nothing else has changed, and the same
/// is true except for leaks wherever the repair is interrupted.
///
/// The state is judged as one behind `count` events.
pub fn run(run: &Run<'_>, crash: &Crash, count: usize) -> Result<(), String> {
    for mode in [RepairMode::Leaks, RepairMode::All] {
        repair(run, crash, count, mode).map_err(|text| format!("{mode:?}: {text}"))?;
    }
    Ok(())
}

fn repair(run: &Run<'_>, crash: &Crash, count: usize, mode: RepairMode) -> Result<(), String> {
    let log = Log::new();
    let files: Vec<Arc<dyn Storage>> = FILES
        .iter()
        .zip(&crash.files)
        .map(|(name, bytes)| log.file(*name, bytes.clone()) as Arc<dyn Storage>)
        .collect();
    let fail = |error: platter::Error| format!("{error:?}");
    let image = run.open(&files, Access::Repair).map_err(fail)?;
    let before = run.read(&*image)?;
    let dirty = image.info().map_err(fail)?.dirty == Some(true);
    match rig::check(&*image, mode) {
        // Late refcounts need more than a repair of leaks, which says so.
        Err(error) if mode == RepairMode::Leaks && dirty && error.errno() == libc::EIO => {}
        checked => drop(checked.map_err(fail)?),
    }
    let (after, notes) = rig::check(&*image, RepairMode::Report).map_err(fail)?;
    image.close().map_err(fail)?;
    drop(image);
    let left = after.corruptions + after.check_errors + after.leaks;
    if mode == RepairMode::All && left != 0 || !dirty && after.leaks != 0 {
        return Err(format!("left {after:?} {notes:?}"));
    }
    let mut outcome = Ok(());
    let mut random = Random(crash.count as u64);
    let drive = run.config.drive();
    states::each_on(drive, &log, run.durability, &mut random, 1, |again| {
        if outcome.is_err() {
            return;
        }
        let what = format!("{} of the first {} events", again.what, again.count);
        outcome = interrupted(run, count, &before, &again)
            .map_err(|text| format!("interrupted, {what}: {text}"));
    });
    outcome
}

fn interrupted(
    run: &Run<'_>,
    count: usize,
    before: &[Option<u64>],
    again: &Crash,
) -> Result<(), String> {
    let image = run
        .open(&rig::memory(&again.files), Access::Check)
        .map_err(|error| format!("does not open: {error:?}"))?;
    run.judge(&*image)?;
    if run.read(&*image)? != before {
        return Err("the contents have changed".to_owned());
    }
    run.check_snapshots(&*image, count)
}
