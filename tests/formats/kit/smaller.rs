//! Headers that say too small a size, of damage or of another program: what the tables name behind that end stays
//! where it is when the disk before it is written.

use std::collections::BTreeSet;

use platter::format::RepairMode;
use platter::{Image, Job};

use super::sample::{Sample, formats, samples};
use super::shelf::{self, Access};

/// What the header says in the end; the last sector begins a block in every format.
const SIZE: u64 = (1 << 20) + 512;
/// Where there is data behind that.
const BEHIND: u64 = 5 << 19;
const LEN: usize = 96 << 10;

/// Puts a number in the place of another, as bytes or as sectors, wherever it stands.
fn replace(bytes: &mut [u8], old: u64, new: u64) -> bool {
    let (few, less) = (old / 512, new / 512);
    let text = |sectors: u64| format!("RW {sectors} ").into_bytes();
    let pairs = [
        (old.to_le_bytes().to_vec(), new.to_le_bytes().to_vec()),
        (old.to_be_bytes().to_vec(), new.to_be_bytes().to_vec()),
        (few.to_le_bytes().to_vec(), less.to_le_bytes().to_vec()),
        (text(few), text(less)),
    ];
    let pairs = pairs
        .into_iter()
        .filter(|(from, to)| from.len() == to.len());
    let is_vhdx = bytes.starts_with(b"vhdxfile");
    let mut any = false;
    for (from, to) in pairs {
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|it| it == from) {
            at += found;
            // Elsewhere it is a place in the file.
            let is_said = is_vhdx || to.starts_with(b"RW") || at < 512 || at + 512 >= bytes.len();
            if is_said {
                bytes[at..at + from.len()].copy_from_slice(&to);
                any = true;
            }
            at += from.len();
        }
    }
    any
}

/// Puts right the checksums of the footer of a VHD and its copy.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 512;
    for at in [0, end] {
        let footer = &mut bytes[at..at + 512];
        if footer.starts_with(b"conectix") {
            footer[64..68].fill(0);
            let sum = footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        }
    }
}

/// The files with another size in every header; None where none says one.
fn said(files: &[Vec<u8>], old: u64, new: u64) -> Option<Vec<Vec<u8>>> {
    let mut files = files.to_vec();
    // The last one is what is below.
    let own = files.len() - 1;
    let mut any = false;
    for bytes in files.iter_mut().take(own) {
        any |= replace(bytes, old, new);
        if bytes.len() >= 512 {
            seal(bytes);
        }
    }
    any.then_some(files)
}

/// Writes to the smaller disk; whether all of it succeeded.
fn write(image: &Image) -> bool {
    let end = image.len();
    let places = [640 << 10, end - 512];
    let written = places.map(|at| image.write_at(&[0x55; 512], at).is_ok());
    image.flush().is_ok() && written.iter().all(|done| *done)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// No header says a size, or the image is not opened or not written.
    Refused,
    Kept,
    Lost,
}

fn tried(sample: &Sample) -> Outcome {
    let files = shelf::created(sample);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    let len = image.len();
    image.write_at(&[0xaa; LEN], BEHIND).expect("a write");
    let before = shelf::contents(&image).expect("a read");
    image.close().expect("a close");
    let Some(smaller) = said(&shelf::bytes(&files), len, SIZE) else {
        return Outcome::Refused;
    };
    let files = shelf::memory(&smaller);
    let Ok(image) = shelf::open(sample, &files, Access::Write) else {
        return Outcome::Refused;
    };
    let is_smaller = image.len() < BEHIND;
    let done = write(&image);
    let _ = image.close();
    let image = shelf::open(sample, &files, Access::Repair).expect("it opens again");
    if let Some(checker) = image.format().checker() {
        let report = checker.check(RepairMode::All, &mut Job::new());
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        assert_eq!(report.corruptions_fixed, 0, "{}: {report:?}", sample.name);
    }
    image.close().expect("a close");
    let bytes = shelf::bytes(&files);
    let whole = said(&bytes, SIZE, len).unwrap_or(bytes);
    let files = shelf::memory(&whole);
    let image = shelf::open(sample, &files, Access::Read)
        .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    let after = shelf::contents(&image).expect("a read");
    let behind = BEHIND as usize;
    match after[behind..] == before[behind..] {
        false => Outcome::Lost,
        true if is_smaller && done => Outcome::Kept,
        true => Outcome::Refused,
    }
}

#[test]
fn what_is_behind_an_end_that_is_too_early_stays() {
    let mut kept = BTreeSet::new();
    for sample in samples().filter(|sample| !sample.is_stream) {
        match tried(sample) {
            Outcome::Refused => {}
            Outcome::Kept => drop(kept.insert(sample.format)),
            Outcome::Lost => panic!("{}: what is behind the end", sample.name),
        }
    }
    // A disk without metadata has no header that says an end.
    assert_eq!(kept, formats(|driver| driver.has_metadata));
}
