//! The check: QEMU's words, and what has one cure is repaired.

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::{Image, Job, Location, OpenOptions, OpenPolicy};

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
