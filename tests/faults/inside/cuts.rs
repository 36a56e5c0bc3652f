//! The operations on real files, and the power cut at any of their system calls: beside the changes that no
//! sync of a file has covered, names may be gone that no sync of their directory has. What an operation
//! has reported done is there.

mod recorder;
mod vvfat;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platter::storage::Durability;
use platter::{Error, ErrorKind, OpenOptions};

use super::super::{Files, files_of};
use super::operations::{self, DURABLE};
use super::{Contents, Operation, Rig, difference, is_checked};
use crate::environment::given;
use crate::interpose::Watching;
use crate::random::Random;
use crate::states::{self, Crash};
use recorder::Recorder;

impl Rig<'_> {
    /// What is wrong with what a power cut has left.
    fn judge_cut(&self, files: &Files, done: bool) -> Result<(), String> {
        self.place(files, &files_of(&self.root));
        for (name, bytes) in &self.pristine {
            match files.get(name) {
                // A part of a disk, which does not open where it still names that.
                None if name.contains("-s0") && self.operation.touches.contains(&&**name) => {}
                None => return Err(format!("'{name}' is gone")),
                Some(now) if now != bytes && !self.operation.touches.contains(&name.as_str()) => {
                    return Err(format!("'{name}' has changed"));
                }
                Some(_) => {}
            }
        }
        if done {
            if let Some(name) = self.made.keys().find(|name| !files.contains_key(*name)) {
                return Err(format!("'{name}', which was made, is gone"));
            }
            self.judge_new()?;
            return self.judge_images(true);
        }
        for name in files.keys().filter(|name| self.made.contains_key(*name)) {
            if is_checked(name) {
                self.judge_begun(name)?;
            }
        }
        self.judge_changed()
    }

    /// A new image is no image before it is complete.
    fn judge_begun(&self, name: &str) -> Result<(), String> {
        let failed = |error: Error| format!("'{name}': {error:?}");
        let at = self.at();
        let options: OpenOptions = at.options(name);
        match platter::Image::open(&at.location(name), &options) {
            Err(error) if error.kind() == ErrorKind::NotAnImage => Ok(()),
            Err(error) if error.os_errno() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(image) => {
                let shown = Contents::of(&image).map_err(failed)?;
                drop(image);
                if shown != self.made[name].contents {
                    return Err(format!("'{name}' opens and is not complete"));
                }
                self.check(name)
            }
        }
    }

    /// What is changed shows what it did, or what it is to show.
    fn judge_changed(&self) -> Result<(), String> {
        for name in self.operation.touches {
            if is_checked(name) && !self.operation.damaged {
                self.check(name)?;
            }
        }
        let shown = self.shown().map_err(|error| format!("{error:?}"))?;
        // A base gets what its overlay has, piece by piece.
        let Some(now) = shown.first() else {
            return Ok(());
        };
        let (before, after) = (&self.before[0], &self.after[0]);
        let names = now.snapshots.len() + now.bitmaps.len();
        let sane = now.contents.is_between(&before.contents, &after.contents);
        match sane && names <= before.snapshots.len().max(after.snapshots.len()) + 8 {
            true => Ok(()),
            false => Err(format!("it shows {}", difference(now, before, after))),
        }
    }
}

/// The seeds of what a cut leaves: `PLATTER_CRASH_SEED` names one.
fn seeds() -> Vec<u64> {
    match given("PLATTER_CRASH_SEED") {
        Some(seed) => vec![seed],
        None => vec![0, 1],
    }
}

/// Cuts the power during each operation; returns the number of states.
fn run(operations: &[Operation]) -> usize {
    run_with(operations, &seeds(), super::super::every_call())
}

/// With each of the seeds, at every call or at some.
fn run_with(operations: &[Operation], seeds: &[u64], every: bool) -> usize {
    let (mut wrong, mut total) = (Vec::new(), 0);
    for operation in operations {
        let rig = Rig::new(operation);
        let recorder = Arc::new(Recorder::new(&rig.root));
        let watching = Watching::new(&rig.root, recorder.clone());
        let outcome = rig.run();
        drop(watching);
        recorder.look();
        assert!(outcome.is_ok(), "{}: {outcome:?}", operation.line);
        let (log, end) = (&recorder.log, recorder.log.count());
        let step = match every {
            true => 1,
            false => end.div_ceil(5).max(1),
        };
        for seed in seeds {
            let mut random = Random(seed.wrapping_add(operation.line.len() as u64));
            let mut states = 0;
            total += states::each(log, Durability::Synced, &mut random, step, |crash| {
                let done = crash.count == end;
                states += usize::from(done);
                if let Err(text) = rig.judge_cut(&recorder.files(&crash), done) {
                    let Crash { count, what, .. } = crash;
                    let line = operation.line;
                    wrong.push(format!(
                        "`{line}`, PLATTER_CRASH_SEED={seed}: {what} of the first {count} of {end}: {text}"
                    ));
                }
            });
            // Where nothing waits for a sync at the end, there is one state.
            assert!(states > 0, "{}", operation.line);
        }
    }
    let count = wrong.len();
    wrong.truncate(100);
    assert!(count == 0, "{count} failures:\n{}", wrong.join("\n"));
    total
}

#[test]
fn a_power_cut_leaves_no_new_image_or_all_of_it() {
    let states = run(operations::MAKE) + run(DURABLE);
    assert!(states > 300, "only {states} states");
}

#[test]
fn a_power_cut_leaves_names_that_lead_to_the_old_files_or_the_new_ones() {
    // What a missing sync leaves shows between two calls.
    let states = run_with(operations::NAMES, &seeds(), true);
    assert!(states > 100, "only {states} states");
}

/// Seed after seed, at every call, until `PLATTER_CRASH_MINUTES` have passed.
#[test]
#[ignore = "runs for as long as it is told: make crash"]
fn any_seed_of_power_cuts_leaves_whole_files_for_a_given_time() {
    let minutes = given("PLATTER_CRASH_MINUTES").unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut random = Random(RandomState::new().hash_one(std::process::id()));
    loop {
        let seed = given("PLATTER_CRASH_SEED").unwrap_or_else(|| random.next() >> 32);
        println!("seed {seed}");
        let kinds = [
            operations::NAMES,
            operations::MAKE,
            DURABLE,
            operations::CHAIN,
        ];
        for kind in kinds
            .into_iter()
            .chain([operations::CHANGE, operations::VMDK])
        {
            run_with(kind, &[seed], true);
        }
        if Instant::now() >= end {
            break;
        }
    }
}

#[test]
fn a_power_cut_leaves_a_chain_that_shows_the_same() {
    let states = run(operations::CHAIN);
    assert!(states > 100, "only {states} states");
}

#[test]
fn a_power_cut_leaves_an_image_as_it_was_or_as_it_is_to_be() {
    let states = run(operations::CHANGE);
    assert!(states > 300, "only {states} states");
}

#[test]
fn a_power_cut_leaves_a_vmdk_as_it_was_or_as_it_is_to_be() {
    let states = run(operations::VMDK);
    assert!(states > 60, "only {states} states");
}
