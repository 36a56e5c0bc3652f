//! Random changes against a plain array of bytes.

use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::storage::Storage;
use platter::storage::memory::MemoryStorage;
use platter::storage::slice::SliceStorage;
use platter::{ErrorKind, Job};

use super::sample::{Sample, samples};
use super::shelf::{self, Access};
use super::work::{Change, same};
use crate::random::Random;

/// Changes of each sample.
const CHANGES: usize = 250;

/// Changes the new image that is in `files`, and compares what is read.
pub fn run(sample: &Sample, files: &[Arc<dyn Storage>], changes: usize) {
    let mut model = shelf::empty(sample);
    let mut random = Random(sample.name.len() as u64 ^ 0x51ab);
    let mut image = shelf::open(sample, files, Access::Write).expect("the new image opens");
    same(
        sample.name,
        &shelf::contents(&image).expect("a read"),
        &model,
    );
    for n in 0..changes {
        let change = Change::pick(&mut random, sample.size);
        change.apply(&image).expect("a change");
        let noted = change.note(&image, &mut model, |at| shelf::base_byte(sample, at));
        noted.expect("a read");
        if n % 20 == 7 {
            image.flush().expect("a flush");
        }
        if n % 50 == 49 {
            same(
                sample.name,
                &shelf::contents(&image).expect("a read"),
                &model,
            );
            image.close().expect("a close");
            image = shelf::open(sample, files, Access::Write).expect("it opens again");
            same(
                sample.name,
                &shelf::contents(&image).expect("a read"),
                &model,
            );
        }
    }
    image.close().expect("a close");
    clean(sample, files);
}

/// Nothing is damaged or leaked, for formats that can be checked.
pub fn clean(sample: &Sample, files: &[Arc<dyn Storage>]) {
    let image = shelf::open(sample, files, Access::Check).expect("it opens for a check");
    if image.format().checker().is_none() {
        return;
    }
    let outcome = check(&image, RepairMode::Report, &mut Job::new()).expect("a check");
    let report = outcome.report;
    assert_eq!(
        (report.corruptions, report.leaks, report.check_errors),
        (0, 0, 0),
        "{}: {report:?}",
        sample.name
    );
}

#[test]
fn what_was_written_is_read_also_by_the_next_who_opens() {
    for sample in samples() {
        run(sample, &shelf::created(sample), CHANGES);
    }
}

#[test]
fn a_new_image_reads_as_zeroes_or_as_what_is_below() {
    for sample in samples() {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Read).expect("the new image opens");
        same(
            sample.name,
            &shelf::contents(&image).expect("a read"),
            &shelf::empty(sample),
        );
        drop(image);
        clean(sample, &files);
    }
}

/// What is cut off never comes back.
#[test]
fn what_grows_reads_as_zeroes() {
    for sample in samples() {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        let mut model = shelf::empty(sample);
        let whole = vec![0xA5; sample.size as usize];
        image.write_at(&whole, 0).expect("a write");
        let short = (sample.size / 3 / sample.sector * sample.sector) as usize;
        let off = platter::storage::Preallocation::Off;
        let Some(resizer) = image.format().resizer() else {
            assert!(sample.keeps_size, "{}", sample.name);
            continue;
        };
        let (short, sizes) = match sample.shrinks {
            true => (short, vec![short as u64, sample.size]),
            false => (whole.len(), vec![sample.size + short as u64]),
        };
        for len in sizes {
            let done = resizer.resize_above(len, off, &image, &Default::default());
            done.expect("another size");
        }
        model.resize(image.len() as usize, 0);
        model[..short].fill(0xA5);
        model[short..].fill(0);
        if !sample.zeroes_when_new {
            assert_ne!(
                &shelf::contents(&image).expect("a read")[short..],
                &whole[short..]
            );
            image
                .write_at(&model[short..], short as u64)
                .expect("a write");
        }
        same(
            sample.name,
            &shelf::contents(&image).expect("a read"),
            &model,
        );
        image.close().expect("a close");
        let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
        same(
            sample.name,
            &shelf::contents(&image).expect("a read"),
            &model,
        );
        drop(image);
        clean(sample, &files);
    }
}

/// Other sizes, each by who opens the image anew.
#[test]
fn what_is_resized_again_and_again_stays_whole() {
    for sample in samples().filter(|sample| !sample.keeps_size) {
        let files = shelf::created(sample);
        let mut model = shelf::empty(sample);
        let mut random = Random(sample.name.len() as u64 ^ 0x9e51);
        let off = platter::storage::Preallocation::Off;
        for (times, parts) in [(5, 1), (1, 2), (3, 1), (2, 3), (1, 3), (8, 1), (1, 1)] {
            let len = sample.size * times / parts / sample.sector * sample.sector;
            let image = shelf::open(sample, &files, Access::Write).expect("it opens");
            if len < image.len() && !sample.shrinks {
                continue;
            }
            let Some(resizer) = image.format().resizer() else {
                panic!("{} keeps its size", sample.name);
            };
            let done = resizer.resize_above(len, off, &image, &Default::default());
            done.unwrap_or_else(|error| panic!("{} to {len}: {error}", sample.name));
            let old = model.len();
            model.resize(image.len() as usize, 0);
            let grown = old.min(model.len());
            if !sample.zeroes_when_new {
                let zeroes = &model[grown..];
                image.write_at(zeroes, grown as u64).expect("a write");
            }
            // At both ends and somewhere between.
            let last = model.len() - sample.sector as usize;
            for at in [0, random.below(last), last] {
                let at = at / sample.sector as usize * sample.sector as usize;
                let bytes = vec![random.next() as u8; sample.sector as usize];
                image.write_at(&bytes, at as u64).expect("a write");
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            image.close().expect("a close");
            clean(sample, &files);
            let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
            let now = shelf::contents(&image).expect("a read");
            same(sample.name, &now, &model);
        }
    }
}

/// A device keeps what was there before, and its length: the image has to find its own all the same.
#[test]
fn what_is_made_on_a_longer_device_opens_again() {
    let mut made = std::collections::BTreeSet::new();
    for sample in samples().filter(|sample| sample.second.is_none()) {
        let files = shelf::nothing(sample);
        let len = 3 * sample.size + (24 << 20);
        let memory = MemoryStorage::with_bytes("device", vec![0xee; len as usize]);
        let device = SliceStorage::new(Arc::new(memory), 0, Some(len)).expect("a part");
        let files: Vec<Arc<dyn Storage>> = std::iter::once(Arc::new(device) as Arc<dyn Storage>)
            .chain(files.into_iter().skip(1))
            .collect();
        if shelf::create(sample, &files).is_err() {
            continue;
        }
        let open = |access| {
            shelf::open(sample, &files, access)
                .unwrap_or_else(|error| panic!("{}: {error}", sample.name))
        };
        let image = open(Access::Write);
        let mut model = shelf::empty(sample);
        // A raw disk shows what the device holds, as does one of which every block has its place.
        let fixed = ["static=on", "subformat=fixed"];
        let is_fixed = fixed.iter().any(|word| sample.options.contains(word));
        if !sample.zeroes_when_new || sample.format == "raw" || is_fixed {
            shelf::wipe(&image);
        }
        match image.write_at(&[0x5a; 4096], 0) {
            // What grows at the end of its file alone cannot.
            Err(error) if error.kind() == ErrorKind::NoSpace => continue,
            done => done.expect("a write"),
        }
        made.insert(sample.format);
        model[..4096].fill(0x5a);
        image.close().expect("a close");
        let mut now = shelf::contents(&open(Access::Read)).expect("a read");
        // Some are as long as their device.
        now.truncate(sample.size as usize);
        same(sample.name, &now, &model);
        clean(sample, &files);
    }
    for format in [
        "raw",
        "qcow2",
        "qcow",
        "luks",
        "vdi",
        "vpc",
        "vhdx",
        "parallels",
    ] {
        let is_of_this_run = samples().any(|sample| sample.format == format);
        assert!(made.contains(format) || !is_of_this_run, "{format}");
    }
}
