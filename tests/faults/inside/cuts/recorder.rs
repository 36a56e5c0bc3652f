//! What happens to the files and directories below a directory, in one log: what a power cut leaves of it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use platter::storage::testing::{Log, LoggingStorage};
use platter::storage::{Durability, Preallocation, Storage, ZeroFlags};

use crate::Files;
use crate::interpose::{Change, Watch};
use crate::states::Crash;

/// Names that a directory may get during a run.
const NAMES: usize = 64;

/// Logs the changes. Each directory has a storage of its own, a byte for each name that it has had: 0, or one more
/// than the place in the log of the file or directory that the name leads to. So each entry is there or not by itself until the directory is
/// synced; one that gets another file, as by a rename, leads to the old one or the new one.
pub struct Recorder {
    root: PathBuf,
    pub log: Arc<Log>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By inode: the place in the log, the log of the contents.
    nodes: BTreeMap<u64, (usize, Arc<LoggingStorage>)>,
    /// By the place in the log.
    directories: BTreeMap<usize, Directory>,
}

#[derive(Default)]
struct Directory {
    /// All that it has had.
    names: Vec<String>,
    /// By the number of the name: the inode and place of what it leads to.
    there: BTreeMap<usize, (u64, u8)>,
}

impl Directory {
    fn number(&mut self, name: String) -> usize {
        let known = self.names.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            assert!(self.names.len() <= NAMES, "too many names");
            self.names.len() - 1
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |number| self.there.get(&number).map_or(0, |(_, place)| place + 1);
        (0..NAMES).map(byte).collect()
    }
}

impl State {
    /// Takes note of what has come or gone in a directory, and below it.
    fn look(&mut self, path: &Path, inode: u64, log: &Arc<Log>) {
        let (place, storage) = self.nodes[&inode].clone();
        let mut now = BTreeMap::new();
        let mut below = Vec::new();
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name");
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            let node = self.node(meta.ino(), meta.is_dir(), &name, log);
            let directory = self.directories.get_mut(&place).expect("a directory");
            now.insert(directory.number(name), (meta.ino(), node));
            if meta.is_dir() {
                below.push((entry.path(), meta.ino()));
            }
        }
        let directory = self.directories.get_mut(&place).expect("a directory");
        let before = std::mem::replace(&mut directory.there, now);
        let now = &directory.there;
        let bytes = directory.bytes();
        let changed = (0..NAMES).filter(|number| before.get(number) != now.get(number));
        for number in changed {
            // A rename within a directory is one change: what went is where it was, or under the other name.
            let other = match before.get(&number).filter(|_| !now.contains_key(&number)) {
                Some(gone) => now.iter().find(|(_, there)| *there == gone),
                None => None,
            };
            let other = other.map_or(number, |(other, _)| *other);
            let range = number.min(other)..number.max(other) + 1;
            let part = &bytes[range.clone()];
            storage.write_at(part, range.start as u64).expect("memory");
        }
        for (path, inode) in below {
            self.look(&path, inode, log);
        }
    }

    /// The place of a file or directory in the log.
    fn node(&mut self, inode: u64, is_directory: bool, name: &str, log: &Arc<Log>) -> u8 {
        let next = self.nodes.len();
        let (place, _) = self.nodes.entry(inode).or_insert_with(|| {
            let bytes = if is_directory {
                vec![0; NAMES]
            } else {
                Vec::new()
            };
            (next, log.file(name.to_owned(), bytes))
        });
        if is_directory {
            self.directories.entry(*place).or_default();
        }
        u8::try_from(*place).expect("not so many files")
    }

    /// Adds a directory that is durable, behind all that is below it.
    fn begin(&mut self, path: &Path, inode: u64, log: &Arc<Log>) {
        let mut directory = Directory::default();
        for entry in std::fs::read_dir(path).expect("the directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name");
            let meta = entry.metadata().expect("what it is");
            if meta.is_dir() {
                self.begin(&entry.path(), meta.ino(), log);
            } else {
                let bytes = std::fs::read(entry.path()).expect("a file of the test");
                let file = (self.nodes.len(), log.file(name.clone(), bytes));
                self.nodes.insert(meta.ino(), file);
            }
            let place = self.nodes[&meta.ino()].0 as u8;
            let number = directory.number(name);
            directory.there.insert(number, (meta.ino(), place));
        }
        let place = self.nodes.len();
        let names = log.file("directory".to_owned(), directory.bytes());
        self.nodes.insert(inode, (place, names));
        self.directories.insert(place, directory);
    }

    /// Adds the files below a directory of the log after a crash.
    fn files(&self, crash: &Crash, place: usize, above: &str, files: &mut Files) {
        let names = self.directories[&place].names.iter();
        for (name, byte) in names.zip(&crash.files[place]) {
            let name = format!("{above}{name}");
            let Some(place) = usize::from(*byte).checked_sub(1) else {
                continue;
            };
            if self.directories.contains_key(&place) {
                self.files(crash, place, &format!("{name}/"), files);
            } else {
                files.insert(name, crash.files[place].clone());
            }
        }
    }
}

fn inode(path: &Path) -> u64 {
    path.metadata().expect("a file").ino()
}

impl Recorder {
    /// Of a directory in which everything is durable.
    pub fn new(root: &Path) -> Self {
        let (log, mut state) = (Log::new(), State::default());
        state.begin(root, inode(root), &log);
        Self {
            root: root.to_owned(),
            log,
            state: Mutex::new(state),
        }
    }

    /// Takes note of the names that have come or gone.
    pub fn look(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.look(&self.root, inode(&self.root), &self.log);
    }

    /// The files after a crash.
    pub fn files(&self, crash: &Crash) -> Files {
        let mut files = Files::new();
        let state = self.state.lock().expect("no panic");
        let (root, _) = state.nodes[&inode(&self.root)];
        state.files(crash, root, "", &mut files);
        files
    }
}

impl Watch for Recorder {
    fn changed(&self, fd: BorrowedFd<'_>, change: Change) {
        // Another description, which reads also where this one only writes or wants aligned memory.
        let file = std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let file = file.expect("an open file");
        let meta = file.metadata().expect("what it is");
        self.look();
        let state = self.state.lock().expect("no panic");
        // A file without a name is gone with the process.
        let Some((_, log)) = state.nodes.get(&meta.ino()) else {
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
