//! Logs that a writer left behind.

use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::ops::inspect::inspect_storage;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};
use platter::{ErrorKind, Image, Job, Location, OpenOptions};

use crate::common::Dir;
use crate::common::vhdx::{LOG, crashed};
use crate::random::Random;
use crate::states;

use super::{HEADERS, contents, contents_by_peer, create, open, open_replayed, options, seal};

fn model() -> Vec<u8> {
    let mut model = vec![0; 8 << 20];
    model[..64 << 10].fill(5);
    model[3 << 20..(3 << 20) + (64 << 10)].fill(6);
    model
}

fn open_to_repair(dir: &Dir) -> Image {
    let options = OpenOptions {
        for_check: true,
        ..options(true)
    };
    Image::open(&Location::from_path(dir.path("a.vhdx")), &options)
        .expect("it opens to be repaired")
}

#[test]
fn an_open_to_read_is_refused() {
    let dir = Dir::new();
    crashed(&dir);
    let error = open(&dir.path("a.vhdx"), false).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    let hint = format!("A repair of '{}' replays the log", dir.str("a.vhdx"));
    assert_eq!(error.hints(), [hint]);
}

#[test]
fn a_replay_in_memory_changes_nothing_in_the_file() {
    let dir = Dir::new();
    crashed(&dir);
    let before = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let image = open_replayed(&dir.path("a.vhdx")).expect("it opens");
    assert_eq!(contents(&image), model());
    image.close().expect("a close");
    assert!(std::fs::read(dir.path("a.vhdx")).expect("the image") == before);
}

#[test]
fn opening_for_writing_and_repairing_carry_the_log_out() {
    let dir = Dir::new();
    crashed(&dir);
    let image = open(&dir.path("a.vhdx"), true).expect("it opens to be written");
    assert_eq!(contents(&image), model());
    image.close().expect("a close");
    assert_eq!(contents_by_peer(&dir, "a.vhdx"), model());
    for repair in [RepairMode::Leaks, RepairMode::All] {
        crashed(&dir);
        let image = open_to_repair(&dir);
        let report = check(&image, repair, &mut Job::new())
            .expect("a check")
            .report;
        assert_eq!((report.corruptions_fixed, report.corruptions), (1, 0));
        drop(image);
        assert_eq!(contents_by_peer(&dir, "a.vhdx"), model());
    }
    let image = open_to_repair(&dir);
    let report = check(&image, RepairMode::All, &mut Job::new())
        .expect("a check")
        .report;
    assert_eq!((report.corruptions_fixed, report.corruptions), (0, 0));
}

#[test]
fn a_log_of_a_longer_file_and_one_whose_entry_is_damaged_are_told_apart() {
    let dir = Dir::new();
    crashed(&dir);
    let whole = std::fs::read(dir.path("a.vhdx")).expect("the image");
    // Cut off: the entry says how long the file was.
    let mut file = whole.clone();
    file.truncate(whole.len() - (1 << 20));
    std::fs::write(dir.path("a.vhdx"), &file).expect("the image");
    let error = open(&dir.path("a.vhdx"), true).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("it was cut off"), "{error}");
    // An entry with a wrong byte is none.
    let mut file = whole;
    let mut entries = (LOG..LOG + (1 << 20)).step_by(4096);
    let last = entries
        .rfind(|at| file[*at..].starts_with(b"loge"))
        .expect("an entry");
    file[last + 5000] ^= 1;
    std::fs::write(dir.path("a.vhdx"), &file).expect("the image");
    let image = open(&dir.path("a.vhdx"), false).expect("it opens");
    let mut bytes = [9; 512];
    image.read_at(&mut bytes, 3 << 20).expect("a read");
    assert_eq!(bytes, [0; 512]);
}

#[test]
fn entries_within_entries_end_the_search() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 8 << 20, "log_size=16M", None).expect("an image");
    let mut file = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let guid = [7; 16];
    for at in HEADERS {
        file[at + 48..at + 64].copy_from_slice(&guid);
        seal(&mut file[at..at + 4096]);
    }
    // Each sector is the beginning of an entry of many descriptors.
    for at in (LOG..LOG + (16 << 20)).step_by(4096) {
        let sector = &mut file[at..at + 4096];
        sector[..4].copy_from_slice(b"loge");
        sector[8..12].copy_from_slice(&(16u32 << 20).to_le_bytes());
        sector[16..24].copy_from_slice(&1u64.to_le_bytes());
        sector[24..28].copy_from_slice(&500_000u32.to_le_bytes());
        sector[32..48].copy_from_slice(&guid);
        for descriptor in sector[64..].chunks_exact_mut(32) {
            descriptor[..4].copy_from_slice(b"zero");
            descriptor[8..16].copy_from_slice(&4096u64.to_le_bytes());
            descriptor[16..24].copy_from_slice(&(64u64 << 20).to_le_bytes());
            descriptor[24..32].copy_from_slice(&1u64.to_le_bytes());
        }
    }
    std::fs::write(dir.path("a.vhdx"), &file).expect("the image");
    let begun = std::time::Instant::now();
    let opened = open(&dir.path("a.vhdx"), false);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    drop(opened);
    let storage = Arc::new(MemoryStorage::with_bytes("a.vhdx", file));
    inspect_storage(storage, &options(false)).expect("memory can be read");
}

/// Whatever a power cut leaves of a log that was written here, QEMU's tools repair to the same.
#[test]
fn qemu_replays_what_was_logged_here() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 6 << 20, "block_size=1M", None).expect("an image");
    let log = Log::new();
    let bytes = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let file: Arc<dyn Storage> = log.file("a.vhdx", bytes);
    let image = Image::open_storage(file, &options(true)).expect("it opens");
    for round in 0..3u64 {
        for block in [round, round + 3] {
            let bytes = vec![round as u8 + 1; 70_000];
            image
                .write_at(&bytes, block * (1 << 20) + 1000)
                .expect("a write");
        }
        image.discard(0, 1 << 20).expect("a discard");
        image.flush().expect("a flush");
    }
    image.close().expect("a close");
    let mut random = Random(0x7f3d);
    let mut looked_at = 0;
    let states = states::each(&log, Durability::Synced, &mut random, 3, |crash| {
        std::fs::write(dir.path("c.vhdx"), &crash.files[0]).expect("a file");
        let image = open_replayed(&dir.path("c.vhdx")).expect("it opens");
        let ours = contents(&image);
        drop(image);
        looked_at += 1;
        if looked_at % 5 == 0 {
            let ran = dir.qemu_img(&["check", "-q", "-r", "all", "-f", "vhdx", "c.vhdx"]);
            assert_eq!(ran.code, 0, "{} of {}: {ran:?}", crash.what, crash.count);
            assert!(
                contents_by_peer(&dir, "c.vhdx") == ours,
                "{} of {}",
                crash.what,
                crash.count
            );
        }
    });
    assert!(states > 20, "only {states} states");
}
