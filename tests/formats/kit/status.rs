//! Block status: what `map` says of an image is what a program learns of any part of it, and true.

use platter::ops::map::{MapEntry, map};
use platter::{Image, Job};

use std::process::Command;

use super::given::GIVEN;
use super::sample::{PASSPHRASE, only, samples};
use super::shelf::{self, Access};
use super::work::Change;
use super::{peer, read_only};
use crate::build;
use crate::common::Dir;
use crate::random::Random;

/// Changes of each sample.
const CHANGES: usize = 40;
/// Parts of each image that are asked about.
const PARTS: usize = 200;

fn judge(name: &str, image: &Image, random: &mut Random) {
    let report = map(image, 0, None, &mut Job::new()).expect("a map");
    let entries = report.entries;
    let len = image.len();
    let mut end = 0;
    for entry in &entries {
        assert_eq!(entry.start, end, "{name}");
        end += entry.length;
    }
    assert_eq!(end, len, "{name}");
    let bytes = shelf::contents(image).expect("a read");
    for entry in &entries {
        assert!(entry.zero || entry.data, "{name}: {entry:?}");
        let range = entry.start as usize..(entry.start + entry.length) as usize;
        let is_zero = bytes[range].iter().all(|byte| *byte == 0);
        assert!(is_zero || !entry.zero, "{name}: {entry:?}");
    }
    for _ in 0..PARTS.min(len as usize) {
        let start = random.below(len as usize) as u64;
        let part = (1 + random.below(3 << 20) as u64).min(len - start);
        let entry = entries[entries.partition_point(|entry| entry.start <= start) - 1];
        let skipped = start - entry.start;
        let expected = MapEntry {
            start,
            length: (entry.length - skipped).min(part),
            offset: entry.offset.map(|host| host + skipped),
            ..entry
        };
        let whole = image.status(start, part).expect("a status");
        assert_eq!(MapEntry::new(start, &whole), expected, "{name}");
        let first = image.statuses().at(start, part).expect("a status");
        let shorter = MapEntry {
            length: first.len,
            ..expected
        };
        assert!(first.len <= expected.length, "{name}: {first:?}");
        assert_eq!(MapEntry::new(start, &first), shorter, "{name}");
    }
}

#[test]
fn a_map_and_the_status_of_any_part_agree_and_are_true() {
    for sample in samples() {
        let files = shelf::created(sample);
        let mut random = Random(sample.name.len() as u64 ^ 0x57a7);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        for _ in 0..CHANGES {
            let change = Change::pick(&mut random, sample.size);
            change.apply(&image).expect("a change");
        }
        judge(sample.name, &image, &mut random);
        image.close().expect("a close");
        let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
        judge(sample.name, &image, &mut random);
    }
    for given in GIVEN {
        let image = read_only::open(given, &given.make().1, false).expect("it opens");
        judge(given.name, &image, &mut Random(7));
    }
}

#[test]
fn a_program_in_c_learns_the_same_of_any_part_as_of_the_map() {
    let mut dirs = Vec::new();
    let mut images = Vec::new();
    for sample in samples() {
        let dir = peer::directory(sample);
        peer::create(&dir, sample);
        let image = peer::open(&dir, sample, true);
        let mut random = Random(sample.name.len() as u64 ^ 0xc57a);
        for _ in 0..CHANGES {
            let change = Change::pick(&mut random, sample.size);
            change.apply(&image).expect("a change");
        }
        image.close().expect("a close");
        images.push(peer::image_opts(&dir, sample));
        dirs.push(dir);
    }
    for given in GIVEN {
        let dir = Dir::new();
        std::fs::write(dir.path("image"), given.make().1).expect("the image");
        images.push(format!(
            "driver={},file.filename={}",
            given.format,
            dir.str("image")
        ));
        dirs.push(dir);
    }
    assert!(only().is_some() || images.len() > 55, "{}", images.len());
    let ran = Command::new(build::program("extents"))
        .arg(PASSPHRASE)
        .args(images)
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
}
