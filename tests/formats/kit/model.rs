//! Random changes against a plain array of bytes.

use platter::Job;
use platter::format::RepairMode;
use platter::ops::check::check;

use super::sample::{Sample, samples};
use super::shelf::{self, Access};
use super::work::{Change, same};
use crate::random::Random;

/// Changes of each sample.
const CHANGES: usize = 250;

fn run(sample: &Sample) {
    let files = shelf::created(sample);
    let mut model = shelf::empty(sample);
    let mut random = Random(sample.name.len() as u64 ^ 0x51ab);
    let mut image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    same(
        sample.name,
        &shelf::contents(&image).expect("a read"),
        &model,
    );
    for n in 0..CHANGES {
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
            image = shelf::open(sample, &files, Access::Write).expect("it opens again");
            same(
                sample.name,
                &shelf::contents(&image).expect("a read"),
                &model,
            );
        }
    }
    image.close().expect("a close");
    clean(sample, &files);
}

/// Nothing is damaged or leaked, for formats that can be checked.
fn clean(sample: &Sample, files: &[std::sync::Arc<dyn platter::storage::Storage>]) {
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
        run(sample);
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
