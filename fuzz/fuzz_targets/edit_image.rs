//! A valid image of each sample with a few edits: opened, read, repaired. A repair that reports
//! success leaves an image that opens and is clean.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::format::RepairMode;
use platter::storage::Storage;
use platter::{Image, Location, OpenOptions, OpenPolicy};
use platter_fuzz::kit::sample::{SAMPLES, Sample, objects};
use platter_fuzz::kit::shelf::{self, Access, Shelf};
use platter_fuzz::kit::work::Change;
use platter_fuzz::random::Random;
use platter_fuzz::{check_image, inspect_file, look_at, policy};

#[derive(Arbitrary, Debug)]
enum Edit {
    /// Another byte.
    Byte { at: u32, value: u8 },
    /// A big-endian number where formats like to have one: at a multiple of its size.
    Number { at: u16, wide: bool, value: u64 },
    /// A number that the file holds elsewhere: pointers that meet.
    Copy { from: u16, to: u16 },
    /// One bit.
    Bit { at: u16, bit: u8 },
    /// The file ends here.
    Cut { at: u32 },
}

#[derive(Arbitrary, Debug)]
struct Case {
    sample: u8,
    edits: Vec<Edit>,
}

/// The files of each sample, with data in them.
fn filled(sample: usize) -> &'static [Vec<u8>] {
    static FILLED: [OnceLock<Vec<Vec<u8>>>; SAMPLES.len()] =
        [const { OnceLock::new() }; SAMPLES.len()];
    FILLED[sample].get_or_init(|| {
        let sample = &SAMPLES[sample];
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        let mut random = Random(3);
        for _ in 0..4 {
            let change = Change::pick(&mut random, sample.size);
            change.apply(&image).expect("a change");
        }
        image.close().expect("a close");
        shelf::bytes(&files)
    })
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    let mut put = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    match *edit {
        Edit::Byte { at, value } => put(at as usize % len.max(1), &[value]),
        Edit::Number {
            at,
            wide: true,
            value,
        } => put(at as usize * 8, &value.to_be_bytes()),
        Edit::Number { at, value, .. } => put(at as usize * 4, &(value as u32).to_be_bytes()),
        Edit::Copy { from, to } => {
            let (from, to) = (from as usize * 8, to as usize * 8);
            if from.max(to) + 8 <= len {
                bytes.copy_within(from..from + 8, to);
            }
        }
        Edit::Bit { at, bit } => {
            if let Some(byte) = bytes.get_mut(at as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Edit::Cut { at } => bytes.truncate(at as usize),
    }
}

fn open(
    sample: &Sample,
    files: &[Arc<dyn Storage>],
    writable: bool,
    for_check: bool,
) -> platter::Result<Image> {
    let options = OpenOptions {
        writable,
        for_check,
        objects: objects(),
        policy: OpenPolicy {
            implicit_files: OpenPolicy::permissive().implicit_files,
            ..policy()
        },
        storages: Some(Arc::new(Shelf(files.to_vec()))),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(&sample.image_opts(shelf::FILES[0]))?;
    Image::open(&location, &options)
}

fuzz_target!(|case: Case| {
    let at = case.sample as usize % SAMPLES.len();
    let sample = &SAMPLES[at];
    let mut bytes = filled(at).to_vec();
    case.edits
        .iter()
        .take(16)
        .for_each(|edit| apply(edit, &mut bytes[0]));
    if let Ok(image) = open(sample, &shelf::memory(&bytes), false, false) {
        look_at(&image);
    }
    inspect_file(shelf::memory(&bytes).swap_remove(0), Some(sample.format));
    let files = shelf::memory(&bytes);
    let Ok(image) = open(sample, &files, true, true) else {
        return;
    };
    if image.format().checker().is_none() {
        return;
    }
    let code = check_image(&image, RepairMode::All);
    let closed = image.close();
    if code == Some(0) && closed.is_ok() {
        let image = open(sample, &files, false, true).expect("what was repaired opens");
        assert_eq!(
            check_image(&image, RepairMode::Report),
            Some(0),
            "what was repaired is clean"
        );
    }
});
