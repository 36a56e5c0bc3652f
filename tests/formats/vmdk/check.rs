//! The check: QEMU's words, and what has one cure is repaired.

use platter::format::RepairMode;
use platter::ops::check::check;
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
    // Two entries, and the copy of the table that does not have them.
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
    assert!(guest[17 << 16..18 << 16].iter().all(|byte| *byte == 1));
    // Each has its own copy now.
    image.write_at(&[7], 0).expect("a write");
    assert_eq!(contents(&image)[17 << 16], 1);
    image.close().expect("an end");
    dir.qemu_img_ok(&["check", "v.vmdk"]);
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

/// An image of two tables, the second of which stands behind the grains.
#[test]
fn metadata_that_ends_past_all_places_leaves_no_room_for_grains() {
    let dir = Dir::new();
    let whole = image_of(&dir);
    for sectors in [1 << 32, u64::MAX / 512, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[64..72].copy_from_slice(&u64::to_le_bytes(sectors));
        std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
        let image = open(&dir, "v.vmdk", true).expect("it opens");
        let error = image.write_at(&[3; 512], 5 << 20).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let _ = image.close();
    }
}

fn image_of_two_tables(dir: &Dir) -> Vec<u8> {
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "64M"]);
    let image = open(dir, "v.vmdk", true).expect("it opens");
    image.write_at(&[1; 200_000], 0).expect("a write");
    image.write_at(&[2; 200_000], 40 << 20).expect("a write");
    image.close().expect("an end");
    std::fs::read(dir.path("v.vmdk")).expect("an image")
}

/// Entries of a table that stands in the place of something else mean nothing: to repair one would be to
/// write over that.
#[test]
fn a_table_in_the_place_of_something_else_is_found_and_left_alone() {
    let dir = Dir::new();
    let whole = image_of_two_tables(&dir);
    let [redundant, primary] = [48, 56].map(|field| word(&whole, field) as usize * 512);
    let table = word(&whole, primary);
    let grain = word(&whole, entry(&whole, 0));
    for directory in [primary, redundant] {
        // The descriptor, the directories, the other table, the first grain, the end of the file.
        let ends = (whole.len() / 512) as u32;
        let sectors = [redundant, primary].map(|at| (at / 512) as u32);
        let others = [1, 20, sectors[0], sectors[1], table, grain, ends];
        for sector in others {
            let mut bytes = whole.clone();
            bytes[directory + 4..directory + 8].copy_from_slice(&sector.to_le_bytes());
            std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
            let what = format!("directory at {directory}, table at sector {sector}");
            let (found, _, notes) = checked(&dir, RepairMode::Report);
            assert!(found > 0, "{what}");
            let (left, ..) = checked(&dir, RepairMode::All);
            assert!(left > 0, "{what}: {notes:?}");
            let after = std::fs::read(dir.path("v.vmdk")).expect("an image");
            // The mark of an extent that is open is all that may change.
            let changed = (0..bytes.len()).find(|at| *at != 72 && after[*at] != bytes[*at]);
            assert_eq!((changed, after.len()), (None, bytes.len()), "{what}");
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
