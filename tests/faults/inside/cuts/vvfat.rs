//! A directory that a disk is written to: each of its files is what it was or what it is to be.

use std::path::Path;
use std::sync::Arc;

use platter::ops::convert::{ConvertRequest, convert};
use platter::storage::{CacheMode, Durability};
use platter::{Job, Location, OpenPolicy};

use super::recorder::Recorder;
use super::seeds;
use crate::interpose::Watching;
use crate::random::Random;
use crate::states::{self, Crash};
use crate::{Files, files_of};

fn fill(directory: &Path, files: &[(&str, u8, usize)]) {
    for (name, byte, len) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, vec![*byte; *len]).expect("a file of the test");
    }
}

/// Converts one plain disk to another, durably; the target is there unless it is a file.
fn copy(from: &str, to: &str) {
    let location = |name: &str| Location::parse(name).expect("a location");
    let mut request = ConvertRequest::new(location(from), location(to));
    request.source.options.format = Some("raw".to_owned());
    request.source.options.policy = OpenPolicy::permissive();
    request.target.format = Some("raw".to_owned());
    request.target.exists = to.starts_with("fat:");
    request.target.cache = CacheMode::Writeback;
    request.target.policy = OpenPolicy::permissive();
    request.tuning.parallel = Some(1);
    convert(&request, &mut Job::new()).expect("to convert");
}

/// What is wrong with the directory.
fn judge(now: &Files, before: &Files, after: &Files, done: bool) -> Result<(), String> {
    // What was made aside goes at the next use.
    let now = |name: &String| now.get(name);
    for name in before.keys().chain(after.keys()) {
        let right = now(name) == after.get(name) || !done && now(name) == before.get(name);
        if !right {
            return Err(format!("'{name}' has {:?} bytes", now(name).map(Vec::len)));
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_leaves_each_file_of_a_directory_as_it_was_or_as_it_is_to_be() {
    let other = tempfile::tempdir().expect("a directory");
    let new = other.path().join("new");
    let kept = ("kept", 1, 9000);
    let inner = ("sub/kept", 2, 100);
    let changed = [
        ("changed", 3, 5000),
        ("sub/changed", 4, 700),
        ("more/new", 5, 3000),
    ];
    fill(&new, &[kept, inner]);
    fill(&new, &changed);
    let disk = other.path().join("disk.raw");
    let disk = disk.to_str().expect("UTF-8");
    copy(&format!("fat:floppy:{}", new.display()), disk);

    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a directory");
    let root = dir.path().canonicalize().expect("a path");
    let old = root.join("old");
    fill(
        &old,
        &[kept, inner, ("changed", 6, 4000), ("sub/changed", 7, 800)],
    );
    fill(&old, &[("gone", 8, 600), ("less/gone", 9, 10)]);
    let before = files_of(&root);
    let recorder = Arc::new(Recorder::new(&root));
    let watching = Watching::new(&root, recorder.clone());
    copy(disk, &format!("fat:floppy:rw:{}", old.display()));
    drop(watching);
    recorder.look();
    let after = files_of(&root);
    let expected = files_of(&new).into_iter();
    let expected: Files = expected
        .map(|(name, bytes)| (format!("old/{name}"), bytes))
        .collect();
    assert_eq!(after, expected);

    let (log, end) = (&recorder.log, recorder.log.count());
    let mut count = 0;
    for seed in seeds() {
        count += states::each(log, Durability::Synced, &mut Random(seed), 1, |crash| {
            let done = crash.count == end;
            if let Err(text) = judge(&recorder.files(&crash), &before, &after, done) {
                let Crash { count, what, .. } = crash;
                panic!("PLATTER_CRASH_SEED={seed}: {what} of the first {count} of {end}: {text}");
            }
        });
    }
    assert!(count > 100, "only {count} states");
}
