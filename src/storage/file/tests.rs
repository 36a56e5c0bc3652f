use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::error::ErrorKind;
use crate::storage::creation::{Creation, NewStorage};
use crate::storage::modes::Permissions;
use crate::storage::{CopyOutcome, SyncPlan};

const MODES: [CacheMode; 5] = [
    CacheMode::None,
    CacheMode::Writeback,
    CacheMode::Writethrough,
    CacheMode::Directsync,
    CacheMode::Unsafe,
];

fn writable(cache: CacheMode) -> FileOpen {
    FileOpen {
        writable: true,
        cache,
        ..FileOpen::default()
    }
}

fn new_file(path: &Path, cache: CacheMode) -> FileStorage {
    let options = FileCreate {
        cache,
        // A file system that supports these hints would allocate more than is written.
        extent_size_hint: 0,
        ..FileCreate::default()
    };
    made(path, &options)
}

/// A new or emptied file.
fn made(path: &Path, options: &FileCreate) -> FileStorage {
    claim(path, options).unwrap().empty().unwrap();
    open(path, &writable(options.cache)).unwrap()
}

/// Bytes that depend on their position.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1)
        .collect()
}

#[test]
fn every_cache_mode_reads_back_what_odd_ranges_wrote() {
    for cache in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = new_file(&path, cache);
        let mut model: Vec<u8> = Vec::new();
        let ranges = [
            (0, 1),
            (1, 511),
            (512, 4096),
            (100, 700),
            (5000, 1),
            (4095, 2),
            (9000, 3333),
            (4096, 8192),
            (1 << 20, 77),
            (3, (1 << 20) + 5000),
            (12288, 0),
            (0, 3 << 20),
        ];
        for (n, (at, len)) in ranges.into_iter().enumerate() {
            let bytes = pattern(n as u64, len);
            file.write_at(&bytes, at as u64).unwrap();
            if len > 0 && model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].copy_from_slice(&bytes);
            assert_eq!(
                file.len().unwrap(),
                model.len() as u64,
                "{cache:?} {at} {len}"
            );
        }
        assert_eq!(std::fs::read(&path).unwrap(), model, "{cache:?}");
        for (at, len) in [(0, 1), (511, 2), (1, 70000), (4096, 4096), (1000, 4 << 20)] {
            let mut got = vec![0xaa; len];
            file.read_at(&mut got, at as u64).unwrap();
            let mut want = model[at..model.len().min(at + len)].to_vec();
            want.resize(len, 0);
            assert!(got == want, "{cache:?} {at} {len}");
        }
        let mut past = [7; 100];
        file.read_at(&mut past, 100 << 20).unwrap();
        assert_eq!(past, [0; 100]);
        file.sync(Durability::Synced).unwrap();
    }
}

#[test]
fn vectors_of_any_shape() {
    for cache in MODES {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(&dir.path().join("f"), cache);
        // Some of them are empty.
        let parts: Vec<Vec<u8>> = (0..1500).map(|n| pattern(n, n as usize % 13)).collect();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut want = parts.concat();
        let len = want.len() as u64;
        want.resize(20000, 0);
        for at in [4093, 4096] {
            file.write_vectored_at(&slices, at).unwrap();
            assert_eq!(file.len().unwrap(), at + len);
            let mut got = vec![vec![9; 1000]; 20];
            got.insert(0, Vec::new());
            let mut slices: Vec<_> = got.iter_mut().map(|part| IoSliceMut::new(part)).collect();
            file.read_vectored_at(&mut slices, at).unwrap();
            assert!(got.concat() == want, "{cache:?}");
        }
    }
}

#[test]
fn neighbours_in_one_block_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = new_file(&path, CacheMode::None);
    const LEN: usize = 24 << 10;
    const PIECE: usize = 96;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for piece in (thread..LEN / PIECE).step_by(4) {
                    let bytes = pattern((piece * PIECE) as u64, PIECE);
                    file.write_at(&bytes, (piece * PIECE) as u64).unwrap();
                }
            });
        }
    });
    assert!(std::fs::read(&path).unwrap() == pattern(0, LEN));
}

#[test]
fn growing_by_zeroes_never_cuts_off_an_append() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = new_file(&path, cache);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let file = &file;
                scope.spawn(move || {
                    for n in 0..50u64 {
                        let at = (n * 4 + thread) * 1000;
                        if thread % 2 == 0 {
                            file.write_zeroes(at, 1000, ZeroFlags::MAY_UNMAP).unwrap();
                        } else {
                            file.write_at(&pattern(at, 1000), at).unwrap();
                        }
                    }
                });
            }
        });
        let got = std::fs::read(&path).unwrap();
        assert_eq!(got.len(), 200_000);
        for (n, piece) in got.chunks(1000).enumerate() {
            let want = if n % 2 == 0 {
                vec![0; 1000]
            } else {
                pattern(n as u64 * 1000, 1000)
            };
            assert!(piece == want, "{cache:?} piece {n}");
        }
    }
}

#[test]
fn zeroing_in_each_way() {
    for cache in MODES {
        for flags in [
            ZeroFlags::empty(),
            ZeroFlags::MAY_UNMAP,
            ZeroFlags::NO_FALLBACK,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            let file = new_file(&path, cache);
            file.write_at(&pattern(0, 100_000), 0).unwrap();
            file.write_zeroes(1000, 50_001, flags).unwrap();
            file.write_zeroes(90_000, 30_000, flags).unwrap();
            file.write_zeroes(200_000, 7, flags).unwrap();
            let mut want = pattern(0, 90_000);
            want[1000..51_001].fill(0);
            want.resize(200_007, 0);
            assert!(std::fs::read(&path).unwrap() == want, "{cache:?} {flags:?}");
        }
    }
}

#[test]
fn a_hole_that_was_filled_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = new_file(&path, CacheMode::Writeback);
    file.set_len(1 << 20, Preallocation::Off).unwrap();
    file.write_at(&[1; 4096], 512 << 10).unwrap();
    let hole = file.extent(64 << 10, 1 << 20).unwrap();
    assert_eq!((hole.zero, hole.len), (true, 448 << 10));
    let again = file.extent(128 << 10, 4096).unwrap();
    assert_eq!((again.zero, again.len), (true, 4096));
    // Through another handle of this process.
    let other = open(&path, &writable(CacheMode::Writeback)).unwrap();
    other.write_at(&[2; 4096], 128 << 10).unwrap();
    assert!(!file.extent(128 << 10, 4096).unwrap().zero);
    let past = file.extent(2 << 20, 10).unwrap();
    assert_eq!((past.zero, past.allocated, past.len), (true, false, 10));
    file.discard(512 << 10, 4096).unwrap();
    assert!(file.extent(512 << 10, 4096).unwrap().zero);
}

#[test]
fn lengths_and_preallocation() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(&dir.path().join("f"), cache);
        file.set_len(300 << 10, Preallocation::Off).unwrap();
        assert_eq!(file.allocated_size(), Some(4096));
        file.set_len(512 << 10, Preallocation::Falloc).unwrap();
        file.set_len((1 << 20) + 5, Preallocation::Full).unwrap();
        assert_eq!(file.len().unwrap(), (1 << 20) + 5);
        assert!(file.allocated_size().unwrap() >= 728 << 10);
        let error = file.set_len(2 << 20, Preallocation::Metadata).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Unsupported preallocation mode: metadata"
        );
        assert!(file.set_len(5, Preallocation::Falloc).is_err());
        file.set_len(5, Preallocation::Off).unwrap();
        assert_eq!(file.len().unwrap(), 5);
    }
}

#[test]
fn copies_stay_right_past_the_end_of_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let source = new_file(&dir.path().join("a"), CacheMode::Writeback);
    let target_path = dir.path().join("b");
    let target = new_file(&target_path, CacheMode::Writeback);
    source.write_at(&pattern(0, 10_000), 0).unwrap();
    target.write_at(&[9; 30_000], 0).unwrap();
    if source.copy_range(5000, &target, 100, 8000).unwrap() == CopyOutcome::Done {
        let mut want = vec![9; 30_000];
        want[100..5100].copy_from_slice(&pattern(0, 10_000)[5000..]);
        want[5100..8100].fill(0);
        assert!(std::fs::read(&target_path).unwrap() == want);
    }
    // Twice: that it is not possible is remembered, and remains an outcome rather than an error.
    for _ in 0..2 {
        if source.reflink_range(0, &target, 4096, 4096).unwrap() == CopyOutcome::Done {
            let got = std::fs::read(&target_path).unwrap();
            assert!(got[4096..8192] == pattern(0, 4096));
        }
        assert_eq!(
            source.reflink_range(1, &target, 0, 4096).unwrap(),
            CopyOutcome::NotPossible
        );
    }
}

#[test]
fn locks_of_two_handles_conflict_as_between_processes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    drop(new_file(&path, CacheMode::Writeback));
    let first = open(&path, &writable(CacheMode::Writeback)).unwrap();
    let all = Permissions::CONSISTENT_READ | Permissions::WRITE | Permissions::RESIZE;
    let guarded = Permissions::WRITE | Permissions::RESIZE;
    first
        .lock(LockRequest {
            uses: all,
            denies: guarded,
        })
        .unwrap();
    let second = open(&path, &writable(CacheMode::Writeback)).unwrap();
    let reader = LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies: guarded,
    };
    let error = second.lock(reader).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.to_string(), "Failed to get shared \"write\" lock");
    assert_eq!(
        error.hints(),
        [format!(
            "Is another process using the image [{}]?",
            path.display()
        )]
    );
    let writer = LockRequest {
        uses: all,
        denies: Permissions::empty(),
    };
    assert_eq!(
        second.lock(writer).unwrap_err().to_string(),
        "Failed to get \"write\" lock"
    );
    // A claim takes no lock and changes nothing.
    claim(&path, &FileCreate::default()).unwrap();
    first.lock(LockRequest::default()).unwrap();
    second.lock(reader).unwrap();
    first.lock(reader).unwrap();
    assert!(first.lock(writer).is_err());
    // The refused change left the reader's locks in place.
    let third = open(&path, &writable(CacheMode::Writeback)).unwrap();
    assert!(third.lock(writer).is_err());
}

#[test]
fn opening_names_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let text = |path: &Path| open(path, &FileOpen::default()).unwrap_err().to_string();
    assert_eq!(
        text(Path::new("")),
        "The 'file' block driver requires a file name"
    );
    let missing = dir.path().join("nope");
    assert_eq!(
        text(&missing),
        format!(
            "Could not open '{}': No such file or directory",
            missing.display()
        )
    );
    let name = dir.path().display();
    let wrong_type = format!("'file' driver requires '{name}' to be a regular file");
    assert_eq!(text(dir.path()), wrong_type);
    let error = open(dir.path(), &writable(CacheMode::Writeback)).unwrap_err();
    assert_eq!(error.to_string(), wrong_type);
    assert_eq!(
        claim(dir.path(), &FileCreate::default())
            .unwrap_err()
            .to_string(),
        format!("Could not create '{name}': Is a directory")
    );
    let fifo = dir.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let wrong_type = format!(
        "'file' driver requires '{}' to be a regular file",
        fifo.display()
    );
    assert_eq!(text(&fifo), wrong_type);
    assert_eq!(
        claim(&fifo, &FileCreate::default())
            .unwrap_err()
            .to_string(),
        wrong_type
    );
    let device = FileOpen {
        driver: Some("file"),
        ..FileOpen::default()
    };
    assert!(open(Path::new("/dev/null"), &device).is_err());
    let null = open(Path::new("/dev/null"), &FileOpen::default()).unwrap();
    assert_eq!((null.driver(), null.len().unwrap()), ("host_device", 0));
}

fn creation(path: &Path) -> Creation {
    Creation::new(Box::new(claim(path, &FileCreate::default()).unwrap()))
}

#[test]
fn creating_keeps_mode_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    let link = dir.path().join("link");
    std::fs::write(&real, b"old").unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let mut new = creation(&link);
    assert_eq!(std::fs::read(&real).unwrap(), b"old");
    new.empty().unwrap();
    assert!(new.storage().is_empty().unwrap());
    new.keep();
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(link.symlink_metadata().unwrap().is_symlink());

    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink("made", &dangling).unwrap();
    let new = creation(&dangling);
    assert!(dir.path().join("made").exists());
    drop(new);
    assert!(!dir.path().join("made").exists());
}

#[test]
fn what_an_operation_did_not_finish_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    std::fs::write(&old, b"old").unwrap();
    let before = old.metadata().unwrap().modified().unwrap();
    // Not begun: unchanged.
    drop(creation(&old));
    assert_eq!(std::fs::read(&old).unwrap(), b"old");
    assert_eq!(old.metadata().unwrap().modified().unwrap(), before);
    drop(creation(&new));
    assert!(!new.exists());
    // Begun: a new file is removed, an existing one stays, empty.
    for path in [&old, &new] {
        let mut begun = creation(path);
        begun.empty().unwrap();
        begun.storage().write_at(b"half", 0).unwrap();
    }
    assert_eq!(std::fs::read(&old).unwrap(), b"");
    assert!(!new.exists());
    // A file that has taken the name in the meantime belongs to somebody else.
    let begun = creation(&new);
    std::fs::rename(&new, dir.path().join("moved")).unwrap();
    std::fs::write(&new, b"other").unwrap();
    drop(begun);
    assert_eq!(std::fs::read(&new).unwrap(), b"other");
    // Completed: it stays.
    let mut done = creation(&old);
    done.empty().unwrap();
    done.storage().write_at(b"whole", 0).unwrap();
    done.keep();
    assert_eq!(std::fs::read(&old).unwrap(), b"whole");
}

#[test]
fn room_is_judged_without_changing_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"old").unwrap();
    let new = creation(&path);
    new.check_room(1 << 30).unwrap();
    let error = new.check_room(u64::MAX).unwrap_err();
    assert_eq!(error.os_errno(), Some(libc::EFBIG));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

#[test]
fn descriptors_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"hello").unwrap();
    let read_only = || std::fs::File::open(&path).unwrap();
    let error = open_fd(read_only().into(), "fd", &writable(CacheMode::Writeback)).unwrap_err();
    assert!(error.to_string().contains("not open for writing"));
    let append = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)
        .unwrap();
    assert!(open_fd(append.into(), "fd", &writable(CacheMode::Writeback)).is_err());
    let file = open_fd(read_only().into(), "fd", &FileOpen::default()).unwrap();
    assert_eq!(file.name(), "fd");
    assert_eq!(
        file.write_at(b"x", 0).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    let mut got = [1; 8];
    file.read_at(&mut got, 0).unwrap();
    assert_eq!(&got, b"hello\0\0\0");
}

#[test]
fn space_reserved_for_a_write_changes_neither_length_nor_contents() {
    let dir = tempfile::tempdir().unwrap();
    let file = new_file(&dir.path().join("f"), CacheMode::Writeback);
    file.write_at(&pattern(1, 4096), 0).unwrap();
    file.hint_write(0, 1 << 20);
    file.hint_write(1 << 30, 1 << 20);
    assert_eq!(file.len().unwrap(), 4096);
    let mut bytes = vec![1; 8192];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..4096], pattern(1, 4096));
    assert_eq!(bytes[4096..], [0; 4096]);
}

/// A sync may be skipped only if nothing has changed since the last one.
#[test]
fn every_change_asks_for_a_sync() {
    type Change = fn(&FileStorage) -> Result<()>;
    let changes: [(&str, Change); 6] = [
        ("write", |file| file.write_at(&[1; 100], 4096)),
        ("write of parts", |file| {
            file.write_vectored_at(&[IoSlice::new(&[2; 10]), IoSlice::new(&[3; 10])], 100)
        }),
        ("zeroes", |file| {
            file.write_zeroes(4096, 8192, ZeroFlags::MAY_UNMAP)
        }),
        ("growth", |file| file.set_len(1 << 20, Preallocation::Off)),
        ("full growth", |file| {
            file.set_len(2 << 20, Preallocation::Full)
        }),
        ("shrinking", |file| file.set_len(4096, Preallocation::Off)),
    ];
    for cache in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = new_file(&path, cache);
        assert!(!file.is_synced(), "a new file in {cache:?}");
        for (what, change) in changes {
            let synced = || {
                file.sync(Durability::Synced).unwrap();
                file.is_synced() == (cache != CacheMode::Unsafe)
            };
            assert!(synced(), "before {what} in {cache:?}");
            change(&file).unwrap();
            let through = cache.write_through() && !what.contains("growth") && what != "shrinking";
            assert!(
                through || !file.is_synced(),
                "{what} in {cache:?} is not durable yet"
            );
            assert!(synced(), "after {what} in {cache:?}");
        }
        let again = open(&path, &writable(cache)).unwrap();
        assert!(!again.is_synced(), "opened again in {cache:?}");
        again.sync(Durability::Synced).unwrap();
        file.write_at(&[4], 0).unwrap();
        assert!(!again.is_synced(), "another handle's write in {cache:?}");
    }
}

#[test]
fn a_sync_that_failed_in_the_kernel_fails_all_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let file = new_file(&dir.path().join("f"), CacheMode::Writeback);
    assert_eq!(file.sync_plan(Durability::Ordered), SyncPlan::Nothing);
    assert_eq!(file.sync_plan(Durability::Synced), SyncPlan::DataSync);
    let lease = file.lease_sync().unwrap();
    // Another sync has to wait, so that it learns the outcome of this one.
    assert!(file.lease_sync().is_none());
    assert_eq!(file.sync_plan(Durability::Synced), SyncPlan::Call);
    file.note_sync(0).unwrap();
    drop(lease);
    file.sync(Durability::Synced).unwrap();
    file.write_at(&[1], 0).unwrap();
    assert_eq!(file.sync_plan(Durability::Synced), SyncPlan::DataSync);
    let lease = file.lease_sync().unwrap();
    assert_eq!(
        file.note_sync(libc::EIO).unwrap_err().os_errno(),
        Some(libc::EIO)
    );
    drop(lease);
    assert!(file.lease_sync().is_none());
    assert_eq!(file.sync_plan(Durability::Synced), SyncPlan::Call);
    for later in [file.sync(Durability::Synced), file.note_sync(0)] {
        assert_eq!(later.unwrap_err().os_errno(), Some(libc::EIO));
    }
}

#[test]
fn ranges_are_lent_within_the_file_and_not_to_caches_that_write_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = new_file(&path, CacheMode::Writeback);
    file.write_at(&pattern(1, 8192), 0).unwrap();
    assert!(file.lease(0, 8192).is_some());
    assert!(file.lease(0, 8193).is_none() && file.lease(8192, 1).is_none());
    assert!(file.lease(u64::MAX, 2).is_none() && file.lease(4096, 0).is_none());
    for cache in [CacheMode::Writethrough, CacheMode::Directsync] {
        let file = new_file(&dir.path().join("g"), cache);
        file.write_at(&pattern(1, 8192), 0).unwrap();
        assert!(file.lease(0, 4096).is_none(), "{cache:?}");
    }
}

#[test]
fn an_emptied_file_stays_locked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, [1; 8192]).unwrap();
    let made = claim(&path, &FileCreate::default()).unwrap();
    let writer = LockRequest {
        uses: Permissions::WRITE | Permissions::RESIZE,
        denies: Permissions::RESIZE,
    };
    made.storage().lock(writer).unwrap();
    assert!(!made.is_made());
    made.empty().unwrap();
    // Emptying opened and closed another descriptor: the remaining one still holds its locks.
    let second = claim(&path, &FileCreate::default()).unwrap();
    let refused = second.storage().lock(writer).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    made.storage().write_at(&[2; 65536], 0).unwrap();
    drop(made);
    assert_eq!(std::fs::read(&path).unwrap(), [2; 65536]);
}

/// A storage over a duplicate of the descriptor.
fn over(file: &std::fs::File, locking: Locking) -> FileStorage {
    let options = FileOpen {
        locking,
        ..writable(CacheMode::Writeback)
    };
    open_fd(file.try_clone().unwrap().into(), "f", &options).unwrap()
}

const ALL: Permissions = Permissions::all();
const CHANGES: Permissions = Permissions::WRITE.union(Permissions::RESIZE);

const WRITER: LockRequest = LockRequest {
    uses: ALL,
    denies: CHANGES,
};
const READER: LockRequest = LockRequest {
    uses: Permissions::CONSISTENT_READ,
    denies: CHANGES,
};
const DISK: LockRequest = LockRequest {
    uses: Permissions::CONSISTENT_READ.union(Permissions::WRITE),
    denies: Permissions::empty(),
};

#[test]
fn storages_over_one_descriptor_exclude_each_other_as_two_processes_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    drop(new_file(&path, CacheMode::Writeback));
    std::fs::hard_link(&path, dir.path().join("g")).unwrap();
    let open_again = |name: &str| {
        let mut how = std::fs::OpenOptions::new();
        how.read(true).write(true);
        how.open(dir.path().join(name)).unwrap()
    };
    let file = open_again("f");
    let reopened = open_again("g");
    // The same open file description, and another one by another name.
    for other in [&file, &reopened] {
        for (first, second, goes) in [
            (WRITER, WRITER, false),
            (WRITER, READER, false),
            (WRITER, DISK, false),
            (READER, WRITER, false),
            (READER, READER, true),
            (READER, DISK, false),
            (DISK, DISK, true),
            (DISK, READER, false),
            (DISK, LockRequest::default(), true),
        ] {
            let (a, b) = (over(&file, Locking::Auto), over(other, Locking::Auto));
            a.lock(first).unwrap();
            let second = b.lock(second);
            assert_eq!(second.is_ok(), goes, "{first:?} {second:?}");
            if let Err(error) = second {
                assert_eq!(error.kind(), ErrorKind::Locked);
                assert!(!error.hints().is_empty());
            }
            drop(a);
            b.lock(WRITER).unwrap();
        }
    }
    // A storage that takes no locks does not conflict.
    let a = over(&file, Locking::Auto);
    a.lock(WRITER).unwrap();
    over(&file, Locking::Off).lock(WRITER).unwrap();
    over(&file, Locking::Auto).lock(READER).unwrap_err();
}

#[test]
fn what_a_duplicate_gives_up_another_one_keeps() {
    use crate::sys::lock::held_by_other;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    drop(new_file(&path, CacheMode::Writeback));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let looker = std::fs::File::open(&path).unwrap();
    let held =
        || [100, 101, 103, 201, 203].map(|byte| held_by_other(looker.as_fd(), byte).unwrap());
    let (a, b) = (over(&file, Locking::Auto), over(&file, Locking::Auto));
    a.lock(READER).unwrap();
    b.lock(READER).unwrap();
    drop(b);
    assert_eq!(held(), [true, false, false, true, true]);
    // A refused change does not release anything either.
    let b = over(&file, Locking::Auto);
    b.lock(WRITER).unwrap_err();
    assert_eq!(held(), [true, false, false, true, true]);
    drop((a, b));
    // The caller's own descriptor is still open.
    assert_eq!(held(), [false; 5]);
    // A reader with its own open file description leaves nothing behind.
    let again = std::fs::File::open(&path).unwrap();
    let (a, b) = (
        over(&file, Locking::Auto),
        open_fd(again.try_clone().unwrap().into(), "f", &FileOpen::default()).unwrap(),
    );
    a.lock(READER).unwrap();
    b.lock(READER).unwrap();
    drop(b);
    drop(a);
    assert_eq!(held(), [false; 5]);
}

#[test]
fn many_threads_share_a_file_and_one_alone_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    drop(new_file(&path, CacheMode::Writeback));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let writers = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let storage = over(&file, Locking::Auto);
                    if storage.lock(WRITER).is_ok() {
                        assert_eq!(writers.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        writers.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        storage.lock(READER).unwrap();
                    }
                }
            });
        }
    });
    over(&file, Locking::Auto).lock(WRITER).unwrap();
}
