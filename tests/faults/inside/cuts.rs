//! The operations on real files, and the power cut at any of their system calls: beside the changes that no
//! sync of a file has covered, names may be gone that no sync of their directory has. What an operation
//! has reported done is there.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use platter::storage::testing::{Log, LoggingStorage};
use platter::storage::{Durability, Preallocation, Storage, ZeroFlags};
use platter::{Error, ErrorKind, OpenOptions};

use super::super::{Files, files_of};
use super::operations::{self, DURABLE};
use super::{Operation, Rig, contents, difference, is_checked};
use crate::interpose::{Change, Watch, Watching};
use crate::random::Random;
use crate::states::{self, Crash};

/// Names that a directory may get during a run.
const NAMES: usize = 64;

/// Logs what happens to the files of a directory.
struct Recorder {
    root: PathBuf,
    log: Arc<Log>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The directory: a byte for each name that it has had, 1 where that is there.
    names: Option<Arc<LoggingStorage>>,
    /// Each name, with the place of its file in the log.
    links: Vec<(String, usize)>,
    /// By inode: the place in the log, the log of the file.
    files: BTreeMap<u64, (usize, Arc<LoggingStorage>)>,
    /// The links that are there, by name and inode.
    there: BTreeMap<(String, u64), usize>,
}

impl State {
    /// Takes note of names that have come or gone.
    fn look(&mut self, root: &Path, log: &Arc<Log>) {
        let mut gone = self.there.clone();
        for entry in std::fs::read_dir(root).expect("the directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name");
            let Ok(inode) = entry.metadata().map(|meta| meta.ino()) else {
                continue;
            };
            let key = (name, inode);
            if gone.remove(&key).is_some() {
                continue;
            }
            let next = self.files.len() + 1;
            let (file, _) = self
                .files
                .entry(inode)
                .or_insert_with(|| (next, log.file(key.0.clone(), Vec::new())));
            let link = self.links.len();
            assert!(link < NAMES);
            self.links.push((key.0.clone(), *file));
            self.there.insert(key, link);
            self.set(link, 1);
        }
        for (key, link) in gone {
            self.there.remove(&key);
            self.set(link, 0);
        }
    }

    fn set(&self, link: usize, value: u8) {
        let names = self.names.as_ref().expect("the directory's log");
        names.write_at(&[value], link as u64).expect("memory");
    }
}

impl Recorder {
    /// Of a directory whose files are durable.
    fn new(root: &Path) -> Self {
        let (log, mut state) = (Log::new(), State::default());
        let mut names = vec![0; NAMES];
        let files = files_of(root);
        names[..files.len()].fill(1);
        state.names = Some(log.file("names", names));
        for (link, (name, bytes)) in files.into_iter().enumerate() {
            let inode = root.join(&name).metadata().expect("a file").ino();
            let file = (link + 1, log.file(name.clone(), bytes));
            state.links.push((name.clone(), file.0));
            state.there.insert((name, inode), link);
            state.files.insert(inode, file);
        }
        Self {
            root: root.to_owned(),
            log,
            state: Mutex::new(state),
        }
    }

    /// The files of a directory after a crash.
    fn files(&self, crash: &Crash) -> Files {
        let state = self.state.lock().expect("no panic");
        let links = state.links.iter().zip(&crash.files[0]);
        let there = links.filter(|(_, byte)| **byte == 1);
        there
            .map(|((name, file), _)| (name.clone(), crash.files[*file].clone()))
            .collect()
    }
}

impl Watch for Recorder {
    fn changed(&self, fd: BorrowedFd<'_>, change: Change) {
        // Another description, which reads also where this one only writes or wants aligned memory.
        let file = std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let file = file.expect("an open file");
        let meta = file.metadata().expect("what it is");
        let mut state = self.state.lock().expect("no panic");
        state.look(&self.root, &self.log);
        if meta.is_dir() {
            let names = state.names.as_ref().expect("the directory's log");
            return names.sync(Durability::Synced).expect("memory");
        }
        // A file without a name is gone with the process.
        let Some((_, log)) = state.files.get(&meta.ino()) else {
            return;
        };
        let len = log.len().expect("memory");
        let done = match change {
            Change::Bytes(at, n) => {
                let mut bytes = vec![0; n as usize];
                file.read_exact_at(&mut bytes, at)
                    .expect("what was written");
                log.write_at(&bytes, at)
            }
            Change::Zero(at, n) => match len.min(at + n).checked_sub(at) {
                None | Some(0) => Ok(()),
                Some(n) => log.write_zeroes(at, n, ZeroFlags::empty()),
            },
            Change::Grow(end) if end <= len => Ok(()),
            Change::Grow(end) | Change::SetLen(end) => log.set_len(end, Preallocation::Off),
            Change::Sync => log.sync(Durability::Synced),
        };
        done.expect("memory");
    }
}

impl Rig<'_> {
    /// Makes the files of the directory these.
    fn place(&self, files: &Files) {
        let now = files_of(&self.root);
        for name in now.keys().filter(|name| !files.contains_key(*name)) {
            std::fs::remove_file(self.root.join(name)).expect("to remove a file");
        }
        for (name, bytes) in files {
            if now.get(name) != Some(bytes) {
                std::fs::write(self.root.join(name), bytes).expect("a file of the test");
            }
        }
    }

    /// What is wrong with what a power cut has left.
    fn judge_cut(&self, files: &Files, done: bool) -> Result<(), String> {
        self.place(files);
        for (name, bytes) in &self.pristine {
            match files.get(name) {
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
                let shown = contents(&image).map_err(failed)?;
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
        let same = |sector: usize| {
            let at = sector * 512..(sector * 512 + 512).min(now.contents.len());
            let of = |other: &Vec<u8>| other.get(at.clone()) == now.contents.get(at.clone());
            of(&before.contents) || of(&after.contents)
        };
        let sectors = now.contents.len().div_ceil(512);
        let lens = [before.contents.len(), after.contents.len()];
        let names = now.snapshots.len() + now.bitmaps.len();
        let sane = (0..sectors).all(same) && lens.contains(&now.contents.len());
        match sane && names <= before.snapshots.len().max(after.snapshots.len()) + 8 {
            true => Ok(()),
            false => Err(format!("it shows {}", difference(now, before, after))),
        }
    }
}

/// Cuts the power during each operation; returns the number of states.
fn run(operations: &[Operation]) -> usize {
    let (mut wrong, mut total) = (Vec::new(), 0);
    for operation in operations {
        let rig = Rig::new(operation);
        let recorder = Arc::new(Recorder::new(&rig.root));
        let watching = Watching::new(&rig.root, recorder.clone());
        let outcome = rig.run();
        drop(watching);
        let mut state = recorder.state.lock().expect("no panic");
        state.look(&rig.root, &recorder.log);
        drop(state);
        assert!(outcome.is_ok(), "{}: {outcome:?}", operation.line);
        let (log, end) = (&recorder.log, recorder.log.count());
        let mut random = Random(operation.line.len() as u64);
        let step = match super::super::every_call() {
            true => 1,
            false => end.div_ceil(4).max(1),
        };
        let mut states = 0;
        total += states::each(log, Durability::Synced, &mut random, step, |crash| {
            let done = crash.count == end;
            states += usize::from(done);
            if let Err(text) = rig.judge_cut(&recorder.files(&crash), done) {
                let Crash { count, what, .. } = crash;
                let line = operation.line;
                wrong.push(format!(
                    "`{line}`, {what} of the first {count} of {end}: {text}"
                ));
            }
        });
        // Where nothing waits for a sync at the end, there is one state.
        assert!(states > 0, "{}", operation.line);
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
