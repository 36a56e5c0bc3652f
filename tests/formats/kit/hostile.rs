//! Damaged files: an error or an image, never a panic, whatever is done with it.

use std::sync::Arc;

use platter::Job;
use platter::OpenOptions;
use platter::format::RepairMode;
use platter::ops::check::check;
use platter::ops::inspect::inspect_storage;
use platter::storage::Storage;

use super::sample::{Sample, only, samples};
use super::shelf::{self, Access};
use super::work::Change;
use crate::random::Random;

/// Damaged files of each sample.
const FILES: usize = 60;

/// The files of a sample with data in it.
fn filled(sample: &Sample) -> Vec<Vec<u8>> {
    filled_by(sample, 7, 8)
}

/// So many changes were made to it.
fn filled_by(sample: &Sample, seed: u64, changes: usize) -> Vec<Vec<u8>> {
    let files = shelf::created(sample);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    let mut random = Random(seed);
    for _ in 0..changes {
        let change = Change::pick(&mut random, sample.size);
        change.apply(&image).expect("a change");
    }
    image.close().expect("a close");
    shelf::bytes(&files)
}

/// Flips, overwrites or cuts off a little, mostly where the header and the first tables are.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let near = [128, 4096, 300_000, usize::MAX][random.below(4)].min(bytes.len());
        let at = random.below(near);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes[at] = 0xff,
            2 => bytes[at] = 0,
            3 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            4 => {
                let from = random.below(bytes.len());
                let len = random.below(600).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
}

/// Does with the image what can be done with one.
fn exercise(sample: &Sample, files: &[Vec<u8>]) {
    if let Ok(image) = shelf::open(sample, &shelf::memory(files), Access::Read) {
        let mut buf = vec![0; 64 << 10];
        let mut at = 0;
        while at < image.len().min(8 << 20) {
            let len = (image.len() - at).min(buf.len() as u64) as usize;
            let _ = image.read_at(&mut buf[..len], at);
            at += len as u64;
        }
        let _ = image.info();
    }
    if let Ok(image) = shelf::open(sample, &shelf::memory(files), Access::Check) {
        let _ = check(&image, RepairMode::Report, &mut Job::new());
    }
    if let Ok(image) = shelf::open(sample, &shelf::memory(files), Access::Write) {
        let len = image.len();
        if len >= 4096 {
            let _ = image.write_at(&[0x5a; 4096], (len / 2).min(1 << 20));
            let _ = image.discard(0, 4096);
        }
        let _ = image.close();
    }
    let options = OpenOptions {
        format: Some(sample.format.to_owned()),
        ..OpenOptions::default()
    };
    let file = shelf::memory(files).swap_remove(0);
    inspect_storage(file, &options).expect("memory can be read");
}

#[test]
fn damaged_files_are_refused_or_read_and_never_a_panic() {
    for sample in samples() {
        // Deriving a key is all that takes time there, and the header is what can be damaged.
        let count = if sample.encrypted() { FILES / 4 } else { FILES };
        let whole = filled(sample);
        let mut random = Random(sample.name.len() as u64);
        for _ in 0..count {
            let mut files = whole.clone();
            damage(&mut random, &mut files[0]);
            exercise(sample, &files);
        }
    }
}

#[test]
fn files_cut_off_anywhere_in_the_first_sectors_never_panic() {
    for sample in samples() {
        let whole = filled(sample);
        let step = if sample.encrypted() { 97 } else { 13 };
        for len in (0..1024).step_by(step) {
            let mut files = whole.clone();
            files[0].truncate(len);
            exercise(sample, &files);
        }
    }
}

/// Opens for a check and makes one; what is left is None where the image or its check is refused.
fn left_by_check(
    sample: &Sample,
    files: &[Arc<dyn Storage>],
    mode: RepairMode,
) -> Option<(u64, u64, u64)> {
    let access = match mode {
        RepairMode::Report => Access::Check,
        _ => Access::Repair,
    };
    let image = shelf::open(sample, files, access).ok()?;
    image.format().checker()?;
    let done = check(&image, mode, &mut Job::new()).ok();
    image.close().ok()?;
    let report = done?.report;
    Some((report.check_errors, report.corruptions, report.leaks))
}

/// The last block of the file is there in part.
#[test]
fn a_repair_loses_no_more_than_what_was_cut_off() {
    let mut kept = std::collections::BTreeSet::new();
    for sample in samples().filter(|sample| !sample.encrypted() && !sample.is_stream) {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        let disk: Vec<u8> = (0..image.len())
            .map(|at| (at / 512 % 251) as u8 + 1)
            .collect();
        image.write_at(&disk, 0).expect("a write");
        image.close().expect("a close");
        // More than that may be a table, and all that it names.
        let cut = 512;
        let mut files = shelf::bytes(&files);
        // A descriptor is nothing without any of its bytes.
        let Some(len) = files[0].len().checked_sub(cut) else {
            continue;
        };
        files[0].truncate(len);
        let files = shelf::memory(&files);
        if left_by_check(sample, &files, RepairMode::All) != Some((0, 0, 0)) {
            continue;
        }
        let opened = shelf::open(sample, &files, Access::Read);
        let Ok(left) = opened.and_then(|image| shelf::contents(&image)) else {
            continue;
        };
        let lost = left.iter().zip(&disk).filter(|(is, was)| is != was).count();
        assert!(lost <= cut, "{}: {lost} bytes for {cut}", sample.name);
        kept.insert(sample.format);
    }
    for format in ["parallels", "qed", "vdi", "vhdx", "vmdk"] {
        let is_asked = only().is_none_or(|it| it == format);
        assert!(!is_asked || kept.contains(format), "{format} of {kept:?}");
    }
}

#[test]
fn a_file_that_was_cut_off_and_repaired_is_clean() {
    let mut repaired = 0;
    for sample in samples().filter(|sample| !sample.encrypted()) {
        let whole = filled_by(sample, 3, 4);
        let mut random = Random(11);
        for n in 0..60 {
            let mut files = whole.clone();
            let most = files[0].len().min([40 << 10, usize::MAX][n % 2]);
            let len = match n {
                0 => 23551,
                _ => random.below(most + 1),
            };
            files[0].truncate(len);
            let files = shelf::memory(&files);
            if left_by_check(sample, &files, RepairMode::All) != Some((0, 0, 0)) {
                continue;
            }
            repaired += 1;
            let again = left_by_check(sample, &files, RepairMode::Report);
            assert_eq!(again, Some((0, 0, 0)), "{}, cut {n}", sample.name);
        }
    }
    assert!(
        only().is_some() || repaired > 100,
        "only {repaired} files were repaired"
    );
}
