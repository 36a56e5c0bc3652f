//! The check: QEMU's words, and what has one cure is repaired.

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::storage::Preallocation;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy};

use super::{contents, open};
use crate::common::Dir;

fn image_of(dir: &Dir) -> Vec<u8> {
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "10M"]);
    dir.qemu_io(
        "vmdk",
        "v.vmdk",
        &["write -P 1 0 64k", "write -P 2 1M 128k"],
    );
    std::fs::read(dir.path("v.vmdk")).expect("an image")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Where the entry of a grain stands, in the table that counts.
fn entry(bytes: &[u8], grain: usize) -> usize {
    let directory = word(bytes, 56) as usize * 512;
    word(bytes, directory) as usize * 512 + grain * 4
}

/// Corruptions found, corruptions repaired, and the notes.
fn checked(dir: &Dir, repair: RepairMode) -> (u64, u64, Vec<String>) {
    let options = OpenOptions {
        writable: repair != RepairMode::Report,
        for_check: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::from_path(dir.path("v.vmdk")), &options).expect("it opens");
    let notes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = notes.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        if let platter::job::Message::Note(note) = message {
            seen.lock().expect("a lock").push(note.clone());
        }
    }));
    let report = check(&image, repair, &mut job).expect("a check").report;
    image.close().expect("an end");
    let notes = notes.lock().expect("a lock").clone();
    (report.corruptions, report.corruptions_fixed, notes)
}

#[test]
fn a_clean_image_has_nothing_to_say() {
    let dir = Dir::new();
    image_of(&dir);
    assert_eq!(checked(&dir, RepairMode::Report), (0, 0, Vec::new()));
}

#[test]
fn what_points_nowhere_is_cleared_and_what_is_shared_is_parted() {
    let dir = Dir::new();
    let mut bytes = image_of(&dir);
    let (first, third) = (entry(&bytes, 0), entry(&bytes, 17));
    let past: [u8; 4] = 0x10_0000u32.to_le_bytes();
    let second = entry(&bytes, 2);
    bytes[second..second + 4].copy_from_slice(&past);
    let copied: [u8; 4] = bytes[first..first + 4].try_into().expect("4 bytes");
    bytes[third..third + 4].copy_from_slice(&copied);
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let (found, _, notes) = checked(&dir, RepairMode::Report);
    // Two entries, the first of which the copy of the table does not have.
    assert_eq!(found, 3, "{notes:?}");
    assert!(
        notes[0].contains("cluster offset for sector 256 points after EOF"),
        "{notes:?}"
    );
    let (left, fixed, _) = checked(&dir, RepairMode::All);
    assert_eq!((left, fixed), (0, 3));
    assert_eq!(checked(&dir, RepairMode::Report).0, 0);
    let image = open(&dir, "v.vmdk", true).expect("it opens");
    let guest = contents(&image);
    assert!(guest[..65536].iter().all(|byte| *byte == 1));
    // The copy of the table has the grain that was lost.
    assert!(guest[17 << 16..18 << 16].iter().all(|byte| *byte == 2));
    image.close().expect("an end");
    dir.qemu_img_ok(&["check", "v.vmdk"]);
}

/// Both tables say that two entries have one grain.
#[test]
fn a_grain_of_two_entries_is_parted() {
    let dir = Dir::new();
    let mut bytes = image_of(&dir);
    let redundant = word(&bytes, word(&bytes, 48) as usize * 512) as usize * 512;
    let first = entry(&bytes, 0);
    let copied: [u8; 4] = bytes[first..first + 4].try_into().expect("4 bytes");
    for table in [first, redundant] {
        bytes[table + 17 * 4..table + 18 * 4].copy_from_slice(&copied);
    }
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let (left, fixed, notes) = checked(&dir, RepairMode::All);
    assert_eq!((left, fixed), (0, 1), "{notes:?}");
    let image = open(&dir, "v.vmdk", true).expect("it opens");
    // Each has its own copy now.
    image.write_at(&[7], 0).expect("a write");
    assert_eq!(contents(&image)[17 << 16], 1);
    image.close().expect("an end");
    dir.qemu_img_ok(&["check", "v.vmdk"]);
}

/// What was lost of the tables that count is in the others: entries that point nowhere, into metadata or to
/// the grain of another entry, whichever of the two comes first.
#[test]
fn entries_are_taken_from_the_redundant_table_where_it_alone_can_be_right() {
    let dir = Dir::new();
    let whole = image_of_two_tables(&dir);
    let image = open(&dir, "v.vmdk", false).expect("it opens");
    let before = contents(&image);
    drop(image);
    let second = word(&whole, entry(&whole, 1));
    for damage in [u32::MAX, 1 << 20, 3, second] {
        let mut bytes = whole.clone();
        let at = entry(&whole, 0);
        bytes[at..at + 4].copy_from_slice(&damage.to_le_bytes());
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        assert_eq!(checked(&dir, RepairMode::Report).0, 1, "{damage}");
        let (left, fixed, notes) = checked(&dir, RepairMode::All);
        assert_eq!((left, fixed), (0, 1), "{damage}: {notes:?}");
        let image = open(&dir, "v.vmdk", false).expect("it opens");
        assert!(contents(&image) == before, "{damage}");
        dir.qemu_img_ok(&["check", "v.vmdk"]);
    }
}

#[test]
fn tables_that_differ_and_may_both_be_right_are_left_alone() {
    let dir = Dir::new();
    let whole = image_of_two_tables(&dir);
    // A grain that the one table has and the other has not.
    let redundant = word(&whole, word(&whole, 48) as usize * 512) as usize * 512;
    for table in [entry(&whole, 0), redundant] {
        let mut bytes = whole.clone();
        bytes[table..table + 4].fill(0);
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        let (left, fixed, notes) = checked(&dir, RepairMode::All);
        assert_eq!((left, fixed), (1, 0), "{notes:?}");
        assert!(notes[0].contains("nothing tells which of both is right"));
        assert!(std::fs::read(dir.path("v.vmdk")).expect("an image") == bytes);
        // An image that was not closed was being written: what counts is what was flushed.
        bytes[72] = 1;
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        let (left, fixed, notes) = checked(&dir, RepairMode::All);
        assert_eq!((left, fixed), (0, 1), "{notes:?}");
    }
}

#[test]
fn the_redundant_tables_follow_those_that_count() {
    let dir = Dir::new();
    let mut bytes = image_of(&dir);
    let redundant = word(&bytes, word(&bytes, 48) as usize * 512) as usize * 512;
    bytes[redundant + 16 * 4] ^= 1;
    bytes[72] = 1;
    let id = |image: Image| image.format().parent_id();
    let before = id(open(&dir, "v.vmdk", false).expect("it opens"));
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let (found, _, notes) = checked(&dir, RepairMode::Report);
    assert_eq!(found, 1);
    assert!(notes[0].contains("the redundant copy of grain table 0 differs"));
    assert_eq!(checked(&dir, RepairMode::All).1, 1);
    assert_eq!(checked(&dir, RepairMode::Report).0, 0);
    // The contents are the same: overlays still know their parent.
    let repaired = open(&dir, "v.vmdk", false).expect("it opens");
    assert_eq!(id(repaired), before);
    let bytes = std::fs::read(dir.path("v.vmdk")).expect("an image");
    assert_eq!(bytes[72], 0, "it counts as closed");
}

/// Nobody compares what the tables have behind the end of the disk, until the disk reaches it.
#[test]
fn growth_writes_the_redundant_tables_behind_the_end_anew() {
    let dir = Dir::new();
    let mut bytes = image_of(&dir);
    let image = open(&dir, "v.vmdk", false).expect("it opens");
    let (len, before) = (image.len(), contents(&image));
    drop(image);
    let behind = len.div_ceil(64 << 10) as usize + 2;
    let redundant = word(&bytes, word(&bytes, 48) as usize * 512) as usize * 512;
    let stale = redundant + behind * 4;
    bytes[stale..stale + 4].copy_from_slice(&128_u32.to_le_bytes());
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    assert_eq!(checked(&dir, RepairMode::Report).0, 0);
    let image = open(&dir, "v.vmdk", true).expect("it opens");
    image
        .resize(len + (1 << 20), platter::storage::Preallocation::Off)
        .expect("to grow");
    image.close().expect("an end");
    assert_eq!(checked(&dir, RepairMode::Report), (0, 0, Vec::new()));
    let image = open(&dir, "v.vmdk", false).expect("it opens");
    let after = contents(&image);
    assert!(after[..before.len()] == before[..]);
    assert!(after[before.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn metadata_that_ends_past_all_places_leaves_no_room_for_grains() {
    let dir = Dir::new();
    let whole = image_of(&dir);
    for sectors in [1 << 32, u64::MAX / 512, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[64..72].copy_from_slice(&u64::to_le_bytes(sectors));
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        let error = open(&dir, "v.vmdk", true).expect_err("metadata that is not there");
        assert!(error.to_string().contains("File truncated"), "{error}");
    }
    let mut bytes = whole;
    bytes[64..72].copy_from_slice(&u64::to_le_bytes(1 << 32));
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path("v.vmdk"))
        .expect("the image");
    file.set_len(1 << 41).expect("a sparse file");
    let image = open(&dir, "v.vmdk", true).expect("it opens");
    let error = image.write_at(&[3; 512], 5 << 20).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let _ = image.close();
}

#[test]
fn a_directory_in_the_place_of_the_header_or_the_descriptor_is_refused() {
    let dir = Dir::new();
    let whole = image_of(&dir);
    let header = (0_u64, "header");
    let descriptor = [(1, "descriptor"), (20, "descriptor")];
    // A redundant directory at 0 is none.
    let cases = [
        (48, descriptor.to_vec()),
        (56, [&[header], &descriptor[..]].concat()),
    ];
    for (field, places) in cases {
        for (sector, what) in places {
            let mut bytes = whole.clone();
            bytes[field..field + 8].copy_from_slice(&sector.to_le_bytes());
            std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
            for writable in [false, true] {
                let error = open(&dir, "v.vmdk", writable).expect_err("a refusal");
                assert!(
                    error.to_string().ends_with(what),
                    "{field} {sector}: {error}"
                );
            }
        }
    }
}

/// What is written to such a directory would be the end of entries that count.
#[test]
fn a_redundant_directory_in_the_place_of_the_other_is_none() {
    for apart in [0_u64, 1] {
        let dir = Dir::new();
        // A directory of two sectors.
        dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "8G"]);
        let mut bytes = std::fs::read(dir.path("v.vmdk")).expect("an image");
        let primary = u64::from(word(&bytes, 56));
        bytes[48..56].copy_from_slice(&(primary + apart).to_le_bytes());
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        let clean = (0, 0, Vec::new());
        assert_eq!(checked(&dir, RepairMode::Report), clean, "{apart}");
        assert_eq!(checked(&dir, RepairMode::All), clean, "{apart}");
        // The same place in each of the two sectors.
        let places = [0, 128 * (32 << 20)];
        let holds = |image: &Image| {
            places.map(|at| {
                let mut byte = [0];
                image.read_at(&mut byte, at).expect("a read");
                byte[0]
            })
        };
        for (n, len) in [(1, 8_u64 << 30), (2, 20 << 30)] {
            let image = open(&dir, "v.vmdk", true).expect("it opens");
            image.resize(len, Preallocation::Off).expect("it grows");
            for at in places.iter().rev() {
                image.write_at(&[n], *at).expect("a write");
            }
            image.close().expect("an end");
            let image = open(&dir, "v.vmdk", false).expect("it opens again");
            assert_eq!(holds(&image), [n; 2], "{apart}");
            assert_eq!(checked(&dir, RepairMode::Report), clean, "{apart} {len}");
        }
    }
}

/// An image of two tables.
fn image_of_two_tables(dir: &Dir) -> Vec<u8> {
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "64M"]);
    let image = open(dir, "v.vmdk", true).expect("it opens");
    image.write_at(&[1; 200_000], 0).expect("a write");
    image.write_at(&[2; 200_000], 40 << 20).expect("a write");
    image.close().expect("an end");
    std::fs::read(dir.path("v.vmdk")).expect("an image")
}

#[test]
fn what_a_crash_left_in_the_redundant_directory_alone_goes_with_the_repair() {
    let dir = Dir::new();
    let mut bytes = image_of_two_tables(&dir);
    let primary = word(&bytes, 56) as usize * 512;
    bytes[primary + 4..primary + 8].fill(0);
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let (found, _, notes) = checked(&dir, RepairMode::Report);
    assert_eq!(found, 1, "{notes:?}");
    // It was not closed.
    bytes[72] = 1;
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    assert_eq!(checked(&dir, RepairMode::Report).0, 0);
    let (left, fixed, notes) = checked(&dir, RepairMode::All);
    assert_eq!((left, fixed), (0, 1), "{notes:?}");
    assert_eq!(checked(&dir, RepairMode::Report), (0, 0, Vec::new()));
    let bytes = std::fs::read(dir.path("v.vmdk")).expect("an image");
    assert_eq!(bytes[72], 0, "it counts as closed");
}

/// Entries of a table that stands in the place of something else mean nothing: to repair one would be to
/// write over that. Where the other copy is whole, the table is made again from that, in a new place; where
/// neither is, both are left alone.
#[test]
fn a_table_in_the_place_of_something_else_is_made_from_its_copy_or_left_alone() {
    let dir = Dir::new();
    let whole = image_of_two_tables(&dir);
    let image = open(&dir, "v.vmdk", false).expect("it opens");
    let before = contents(&image);
    drop(image);
    let [redundant, primary] = [48, 56].map(|field| word(&whole, field) as usize * 512);
    let table = word(&whole, primary);
    let grain = word(&whole, entry(&whole, 0));
    // The descriptor, the directories, the other table, the first grain, the end of the file.
    let ends = (whole.len() / 512) as u32;
    let sectors = [redundant, primary].map(|at| (at / 512) as u32);
    let others = [1, 20, sectors[0], sectors[1], table, grain, ends];
    let damaged = |directories: &[usize], sector: u32| {
        let mut bytes = whole.clone();
        for directory in directories {
            bytes[directory + 4..directory + 8].copy_from_slice(&sector.to_le_bytes());
        }
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        bytes
    };
    for sector in others {
        for directory in [primary, redundant] {
            damaged(&[directory], sector);
            let what = format!("directory at {directory}, table at sector {sector}");
            let (found, _, notes) = checked(&dir, RepairMode::Report);
            assert!(found > 0, "{what}");
            let (left, fixed, _) = checked(&dir, RepairMode::All);
            assert_eq!((left, fixed), (0, found), "{what}: {notes:?}");
            assert_eq!(checked(&dir, RepairMode::Report).0, 0, "{what}");
            let image = open(&dir, "v.vmdk", false).expect("it opens");
            assert!(contents(&image) == before, "{what}");
            dir.qemu_img_ok(&["check", "v.vmdk"]);
        }
        let bytes = damaged(&[primary, redundant], sector);
        let (left, _, notes) = checked(&dir, RepairMode::All);
        assert!(left > 0, "sector {sector}: {notes:?}");
        let after = std::fs::read(dir.path("v.vmdk")).expect("an image");
        if sector != table {
            // The mark of an extent that is open is all that may change.
            let changed = (0..bytes.len()).find(|at| *at != 72 && after[*at] != bytes[*at]);
            assert_eq!(
                (changed, after.len()),
                (None, bytes.len()),
                "sector {sector}"
            );
        }
    }
}

/// The grains of a product may stand at any sector, but not in each other.
#[test]
fn a_grain_that_overlaps_another_by_a_part_is_found() {
    let dir = Dir::new();
    let bytes = image_of_two_tables(&dir);
    for (grain, found_as) in [(0, true), (4, false)] {
        let at = entry(&bytes, grain);
        // The last grain of a row has space behind it.
        let place = match found_as {
            true => word(&bytes, at) + 1,
            false => (bytes.len() / 512) as u32 + 3,
        };
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&place.to_le_bytes());
        if !found_as {
            changed.resize(changed.len() + (131 << 9), 0);
        }
        std::fs::write(dir.path("v.vmdk"), &changed).expect("an image");
        let (_, _, notes) = checked(&dir, RepairMode::Report);
        let overlaps = notes.iter().any(|note| note.contains("overlaps another"));
        assert_eq!(overlaps, found_as, "{notes:?}");
    }
}
