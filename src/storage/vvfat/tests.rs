//! Directories as disks, read and written as a guest would. The disk of another directory serves as what a guest has
//! written.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::DRIVER;
use crate::error::{ErrorKind, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::{Durability, LockRequest, Permissions, Storage, ZeroFlags};

type Contents = BTreeMap<String, Option<Vec<u8>>>;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn open_with(directory: &Path, options: &str, policy: &OpenPolicy) -> Result<Arc<dyn Storage>> {
    let mut given = Options::parse(options).unwrap();
    given.set("dir", directory.to_str().unwrap());
    let writable = options.contains("rw=on");
    DRIVER.open_storage(&OpenContext {
        target: StorageTarget::Unnamed,
        options: &DRIVER.check_options(&given).unwrap(),
        how: StorageOpen {
            writable,
            ..StorageOpen::default()
        },
        objects: &Objects::default(),
        policy,
        control: &Arc::new(JobControl::default()),
    })
}

fn open(directory: &Path, options: &str) -> Arc<dyn Storage> {
    open_with(directory, options, &OpenPolicy::default()).unwrap()
}

fn bytes(storage: &dyn Storage) -> Vec<u8> {
    let mut all = vec![0xaa; storage.len().unwrap() as usize];
    storage.read_at(&mut all, 0).unwrap();
    all
}

fn contents(root: &Path) -> Contents {
    let mut all = Contents::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let content = match path.is_dir() {
                true => None,
                false => Some(std::fs::read(&path).unwrap()),
            };
            all.insert(name.to_owned(), content);
            if path.is_dir() {
                pending.push(path);
            }
        }
    }
    all
}

/// Creates a few files and directories whose names recur, so that files become directories and vice versa.
fn random_tree(root: &Path, random: &mut Random) {
    let names = ["a", "b", "LONG", "a long name.text", "ä", "deep.er"];
    let mut directories = vec![root.to_owned()];
    for _ in 0..random.below(14) {
        let above = directories[random.below(directories.len() as u64) as usize].clone();
        let path = above.join(names[random.below(names.len() as u64) as usize]);
        if path.exists() {
            continue;
        }
        if random.below(3) == 0 {
            std::fs::create_dir(&path).unwrap();
            directories.push(path);
        } else {
            let len = [0, 1, 511, 512, 3000, 20_000][random.below(6) as usize];
            let byte = random.below(3) as u8 + b'0';
            std::fs::write(&path, vec![byte; len]).unwrap();
        }
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_a_guest_leaves_is_what_the_directory_holds() {
    let mut random = Random(1);
    for round in 0..60 {
        let options = [
            "floppy=on",
            "floppy=on,fat-type=12",
            "floppy=on,fat-type=16",
        ][round % 3];
        let old = directory();
        random_tree(old.path(), &mut random);
        let disk = open(old.path(), &format!("{options},rw=on"));
        // More than once, as the disk stays open.
        for step in 0..3 {
            let new = directory();
            random_tree(new.path(), &mut random);
            let wanted = bytes(&*open(new.path(), options));
            let mut at = 0;
            while at < wanted.len() {
                let len = (random.below(40_000) as usize + 1).min(wanted.len() - at);
                let piece = &wanted[at..at + len];
                let mut now = vec![0; len];
                disk.read_at(&mut now, at as u64).unwrap();
                at += len;
                if now == piece {
                    continue;
                }
                let at = at - len;
                match crate::zero::is_zero(piece) {
                    true => disk.write_zeroes(at as u64, len as u64, ZeroFlags::empty()),
                    false => disk.write_at(piece, at as u64),
                }
                .unwrap();
            }
            disk.sync(Durability::Synced).unwrap();
            assert_eq!(contents(old.path()), contents(new.path()), "{round} {step}");
            assert!(bytes(&*disk) == wanted, "{round} {step}");
        }
        drop(disk);
        let again = contents(old.path());
        bytes(&*open(old.path(), options));
        assert_eq!(contents(old.path()), again);
    }
}

#[test]
fn a_file_that_is_unchanged_or_renamed_stays_the_same_file() {
    let (old, new) = (directory(), directory());
    for (root, renamed) in [(&old, "first"), (&new, "fjrst")] {
        std::fs::write(root.path().join("before"), "kept").unwrap();
        std::fs::write(root.path().join(renamed), vec![7; 5000]).unwrap();
        std::fs::write(root.path().join("zlast"), "old").unwrap();
    }
    std::fs::write(new.path().join("zlast"), "new").unwrap();
    let inode = |name: &str| old.path().join(name).metadata().unwrap().ino();
    let (before, first, last) = (inode("before"), inode("first"), inode("zlast"));
    let disk = open(old.path(), "floppy=on,rw=on");
    disk.write_at(&bytes(&*open(new.path(), "floppy=on")), 0)
        .unwrap();
    // No change is visible before a sync.
    assert!(old.path().join("first").exists());
    disk.sync(Durability::Ordered).unwrap();
    assert_eq!((inode("before"), inode("fjrst")), (before, first));
    assert_ne!(inode("zlast"), last);
    assert_eq!(contents(old.path()), contents(new.path()));
    // What the guest wrote is read back, and the renamed file is still found.
    assert!(bytes(&*disk) == bytes(&*open(new.path(), "floppy=on")));
}

#[test]
fn damaged_file_systems_change_nothing_and_end_soon() {
    let outside = directory();
    let root = outside.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(outside.path().join("beside"), "untouched").unwrap();
    let mut random = Random(2);
    random_tree(&root, &mut random);
    std::fs::create_dir_all(root.join("a directory/another")).unwrap();
    std::fs::write(root.join("a directory/another/file"), vec![1; 9000]).unwrap();
    let there = contents(&root);
    let good = bytes(&*open(&root, "floppy=on"));
    // The boot sector, tables and directories are at the start.
    let front = 40 * 512;
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..150 {
        let mut bad = good[..front].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(front as u64) as usize;
            // Most of it is zeroes, where a change has little effect: half of the changes go to the start of a sector.
            let at = if random.below(2) == 0 {
                at
            } else {
                512 * (at % 25) + at % 96
            };
            bad[at] = [0, 1, 0xff, b'/', b'.', 2, 0x10][random.below(7) as usize];
        }
        let disk = open(&root, "floppy=on,rw=on");
        disk.write_at(&bad, 0).unwrap();
        match disk.sync(Durability::Ordered) {
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Limit),
                    "{error}"
                );
                assert_eq!(contents(&root), there, "{error}");
            }
            Ok(()) => {
                taken += 1;
                // Restored for the next round.
                disk.write_at(&good, 0).unwrap();
                disk.sync(Durability::Ordered).unwrap();
                assert_eq!(contents(&root), there);
            }
        }
        let beside = std::fs::read(outside.path().join("beside")).unwrap();
        assert_eq!(beside, b"untouched");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 2);
    }
    assert!(refused > 0 && taken > 0, "{refused} {taken}");
}

#[test]
fn a_later_flush_carries_over_what_an_earlier_one_could_not() {
    let (old, new) = (directory(), directory());
    std::fs::write(new.path().join("file"), vec![1; 2000]).unwrap();
    let wanted = bytes(&*open(new.path(), "floppy=on"));
    let disk = open(old.path(), "floppy=on,rw=on");
    // The directory first, then the table, as a guest may write them.
    disk.write_at(&wanted[19 * 512..], 19 * 512).unwrap();
    let error = disk.sync(Durability::Ordered).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(contents(old.path()), Contents::new());
    disk.write_at(&wanted[..19 * 512], 0).unwrap();
    disk.sync(Durability::Ordered).unwrap();
    assert_eq!(contents(old.path()), contents(new.path()));
}

#[test]
fn what_an_operation_did_not_finish_is_not_carried_over() {
    let (old, new) = (directory(), directory());
    std::fs::write(old.path().join("file"), "old").unwrap();
    let disk = open(old.path(), "floppy=on,rw=on");
    disk.write_at(&bytes(&*open(new.path(), "floppy=on")), 0)
        .unwrap();
    disk.ending().unwrap().abandon();
    disk.sync(Durability::Synced).unwrap();
    drop(disk);
    assert!(old.path().join("file").exists());
}

#[test]
fn nothing_that_the_disk_does_not_show_is_touched() {
    let (old, new, target) = (directory(), directory(), directory());
    std::fs::write(target.path().join("kept"), "outside").unwrap();
    std::fs::create_dir(old.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(target.path(), old.path().join("sub/link")).unwrap();
    let refused = |new: &Path| {
        let disk = open(old.path(), "floppy=on,rw=on");
        disk.write_at(&bytes(&*open(new, "floppy=on")), 0).unwrap();
        let error = disk.sync(Durability::Ordered).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        assert!(
            error.to_string().contains("sub/link' is in the way"),
            "{error}"
        );
    };
    // Its directory is removed; a file takes its name; then a directory does.
    refused(new.path());
    std::fs::create_dir(new.path().join("sub")).unwrap();
    std::fs::write(new.path().join("sub/link"), "mine").unwrap();
    refused(new.path());
    std::fs::remove_file(new.path().join("sub/link")).unwrap();
    std::fs::create_dir(new.path().join("sub/link")).unwrap();
    std::fs::write(new.path().join("sub/link/kept"), "inside").unwrap();
    refused(new.path());
    let kept = std::fs::read(target.path().join("kept")).unwrap();
    assert_eq!(kept, b"outside");
    assert!(old.path().join("sub/link").is_symlink());
}

#[test]
fn files_that_change_underneath_are_noticed() {
    for options in ["floppy=on", "floppy=on,rw=on"] {
        let root = directory();
        let path = root.path().join("file");
        for change in [
            "longer",
            "shorter",
            "rewritten",
            "replaced",
            "gone",
            "a link",
        ] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, vec![1; 3000]).unwrap();
            let disk = open(root.path(), options);
            let old = std::time::SystemTime::UNIX_EPOCH;
            match change {
                "longer" => std::fs::write(&path, vec![1; 3001]).unwrap(),
                "shorter" => std::fs::write(&path, vec![1; 10]).unwrap(),
                "rewritten" => {
                    std::fs::write(&path, vec![2; 3000]).unwrap();
                    std::fs::File::open(&path)
                        .unwrap()
                        .set_modified(old)
                        .unwrap();
                }
                "gone" => std::fs::remove_file(&path).unwrap(),
                _ => {
                    let other = root.path().join("other");
                    std::fs::write(&other, vec![1; 3000]).unwrap();
                    std::fs::rename(&other, &path).unwrap();
                    if change == "a link" {
                        std::fs::rename(&path, &other).unwrap();
                        std::os::unix::fs::symlink("other", &path).unwrap();
                    }
                }
            }
            let mut all = vec![0; disk.len().unwrap() as usize];
            let error = disk.read_at(&mut all, 0).unwrap_err();
            assert!(
                error.to_string().contains("file' has changed since"),
                "{change}: {error}"
            );
            let _ = std::fs::remove_file(root.path().join("other"));
        }
    }
}

#[test]
fn a_change_underneath_keeps_the_guest_from_writing_over_it() {
    let (old, new) = (directory(), directory());
    std::fs::write(old.path().join("file"), "first").unwrap();
    let disk = open(old.path(), "floppy=on,rw=on");
    std::fs::write(old.path().join("file"), "second, by the host").unwrap();
    disk.write_at(&bytes(&*open(new.path(), "floppy=on"))[..40 * 512], 0)
        .unwrap();
    let error = disk.sync(Durability::Ordered).unwrap_err();
    assert!(error.to_string().contains("has changed since"), "{error}");
    let there = std::fs::read(old.path().join("file")).unwrap();
    assert_eq!(there, b"second, by the host");
}

#[test]
fn one_writer_holds_a_directory_alone() {
    let root = directory();
    let writing = LockRequest {
        uses: Permissions::WRITE,
        denies: Permissions::WRITE,
    };
    let reading = LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies: Permissions::WRITE,
    };
    let readers = [
        open(root.path(), "floppy=on"),
        open(root.path(), "floppy=on"),
    ];
    let writer = open(root.path(), "floppy=on,rw=on");
    for reader in &readers {
        reader.lock(reading).unwrap();
    }
    assert_eq!(writer.lock(writing).unwrap_err().kind(), ErrorKind::Locked);
    drop(readers);
    writer.lock(writing).unwrap();
    let other = open(root.path(), "floppy=on,rw=on");
    assert_eq!(other.lock(writing).unwrap_err().kind(), ErrorKind::Locked);
    drop(writer);
    other.lock(writing).unwrap();
}

#[test]
fn limits_of_the_policy_hold() {
    let root = directory();
    for n in 0..200 {
        std::fs::write(root.path().join(format!("file {n}")), "").unwrap();
    }
    let policy = OpenPolicy {
        max_table_bytes: 4096,
        ..OpenPolicy::default()
    };
    let error = open_with(root.path(), "floppy=on", &policy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    let policy = OpenPolicy {
        max_spool_bytes: 64 << 10,
        ..OpenPolicy::default()
    };
    let disk = open_with(root.path(), "floppy=on,rw=on", &policy).unwrap();
    disk.write_at(&[1; 64 << 10], 1 << 20).unwrap();
    let error = disk.write_at(&[1], 2 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    let mut deep = root.path().to_owned();
    for _ in 0..129 {
        deep.push("d");
    }
    std::fs::create_dir_all(deep).unwrap();
    let error = open_with(root.path(), "floppy=on", &OpenPolicy::default()).unwrap_err();
    assert!(
        error.to_string().contains("lies deeper than 128"),
        "{error}"
    );
}
