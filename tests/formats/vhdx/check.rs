//! Damage that a check finds, and what a repair makes of it.

use platter::format::{CheckReport, RepairMode};
use platter::ops::check::check;
use platter::{ErrorKind, Image, Job, Location, OpenOptions};

use crate::common::Dir;

use super::{HEADERS, contents, contents_by_peer, create, entry, open, options, seal, set_entry};

/// Four blocks of data, of which the file is changed then.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> Dir {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 6 << 20, "block_size=1M", None).expect("an image");
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    for block in 0..4u64 {
        image
            .write_at(&[block as u8 + 1; 1 << 20], block << 20)
            .expect("a write");
    }
    image.close().expect("a close");
    let mut file = std::fs::read(dir.path("a.vhdx")).expect("the image");
    change(&mut file);
    std::fs::write(dir.path("a.vhdx"), file).expect("the image");
    dir
}

fn checked(dir: &Dir, repair: RepairMode) -> CheckReport {
    let options = OpenOptions {
        for_check: true,
        ..options(repair != RepairMode::Report)
    };
    let image = Image::open(&Location::from_path(dir.path("a.vhdx")), &options).expect("it opens");
    check(&image, repair, &mut Job::new())
        .expect("a check")
        .report
}

/// A crash while the table moved leaves a copy that names its old place, which is given to others later.
#[test]
fn copies_of_the_region_table_become_equal_before_anything_changes() {
    const TABLES: [usize; 2] = [192 << 10, 256 << 10];
    // Its second entry stands in other words in the second copy.
    let differ = |file: &mut Vec<u8>| {
        file.copy_within(TABLES[0]..TABLES[0] + (64 << 10), TABLES[1]);
        let table = &mut file[TABLES[1]..TABLES[1] + (64 << 10)];
        table[16 + 31] = 0;
        table[40_000] = 7;
        seal(table);
    };
    let equal = |dir: &Dir| {
        let file = std::fs::read(dir.path("a.vhdx")).expect("the image");
        file[TABLES[0]..TABLES[1]] == file[TABLES[1]..TABLES[1] + (64 << 10)]
    };
    let dir = damaged(differ);
    assert!(!equal(&dir));
    checked(&dir, RepairMode::Report);
    assert!(!equal(&dir));
    checked(&dir, RepairMode::All);
    assert!(equal(&dir));
    let dir = damaged(differ);
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image.write_at(&[9; 512], 0).expect("a write");
    assert!(equal(&dir));
    image.close().expect("a close");
    assert_eq!(
        contents_by_peer(&dir, "a.vhdx")[..1024],
        [[9; 512], [1; 512]].concat()
    );
}

#[test]
fn blocks_that_share_their_place_are_parted() {
    let dir = damaged(|file| {
        let first = entry(file, 0);
        set_entry(file, 2, first);
    });
    assert_eq!(checked(&dir, RepairMode::Report).corruptions, 1);
    let error = open(&dir.path("a.vhdx"), true).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let report = checked(&dir, RepairMode::All);
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 1));
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image.write_at(&[9; 512], 0).expect("a write");
    image.close().expect("a close");
    let read = contents_by_peer(&dir, "a.vhdx");
    assert_eq!(
        (read[0], read[512], read[1 << 20], read[2 << 20]),
        (9, 1, 2, 1)
    );
}

#[test]
fn a_block_past_the_end_and_an_unknown_state_become_zeroes() {
    let dir = damaged(|file| {
        set_entry(file, 1, (500 << 20) | 6);
        set_entry(file, 3, 5);
    });
    assert_eq!(checked(&dir, RepairMode::Report).corruptions, 2);
    let image = open(&dir.path("a.vhdx"), false).expect("it opens");
    let mut bytes = [0; 512];
    image
        .read_at(&mut bytes, 2 << 20)
        .expect("a read of a good block");
    for block in [1, 3] {
        let error = image
            .read_at(&mut bytes, block << 20)
            .expect_err("a damaged block");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    drop(image);
    let report = checked(&dir, RepairMode::All);
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 2));
    let read = contents_by_peer(&dir, "a.vhdx");
    assert_eq!(
        (read[0], read[1 << 20], read[2 << 20], read[3 << 20]),
        (1, 0, 3, 0)
    );
}

#[test]
fn a_damaged_copy_of_a_header_costs_nothing_and_is_written_anew() {
    for at in HEADERS.into_iter().chain([192 << 10, 256 << 10]) {
        let dir = damaged(|file| file[at + 100] ^= 1);
        let image = open(&dir.path("a.vhdx"), false).expect("it opens");
        assert_eq!(contents(&image)[..3], [1; 3]);
        drop(image);
        assert_eq!(checked(&dir, RepairMode::Report).corruptions, 0);
        checked(&dir, RepairMode::All);
        let file = std::fs::read(dir.path("a.vhdx")).expect("the image");
        let len = if at < 192 << 10 { 4096 } else { 64 << 10 };
        let mut copy = file[at..at + len].to_vec();
        super::seal(&mut copy);
        assert!(copy == file[at..at + len], "the copy at {at}");
        dir.qemu_img_ok(&["check", "-f", "vhdx", "a.vhdx"]);
    }
}

#[test]
fn a_block_over_metadata_is_never_written() {
    let dir = damaged(|file| set_entry(file, 1, (2 << 20) | 6));
    let error = open(&dir.path("a.vhdx"), true).expect_err("a refusal");
    assert!(error.to_string().contains("overlaps with"), "{error}");
    assert_eq!(checked(&dir, RepairMode::Report).corruptions, 1);
}
