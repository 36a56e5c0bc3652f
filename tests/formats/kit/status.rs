//! Block status: what `map` says of an image is what a program learns of any part of it, and true.

use platter::ops::map::{MapEntry, map};
use platter::{Image, Job};

use super::given::GIVEN;
use super::read_only;
use super::sample::SAMPLES;
use super::shelf::{self, Access};
use super::work::Change;
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
    for sample in SAMPLES {
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
