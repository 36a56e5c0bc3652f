//! Files that become longer and never shorter: what cannot be cut off stays, and is never taken for new.

use std::sync::Arc;

use platter::format::RepairMode;
use platter::image::ImageStorage;
use platter::ops::check::check;
use platter::storage::{Preallocation, Storage};
use platter::{ErrorKind, Job};

use super::model;
use super::sample::{SAMPLES, Sample, samples};
use super::shelf::{self, Access};
use super::work::same;

/// A format whose images only grow, and one of it without a byte.
fn container() -> Arc<dyn Storage> {
    let qed = SAMPLES.iter().find(|sample| sample.name == "qed");
    let empty = Sample {
        size: 0,
        ..*qed.expect("a sample")
    };
    let image = shelf::open(&empty, &shelf::created(&empty), Access::Write);
    Arc::new(ImageStorage::new(image.expect("the container opens")))
}

/// A new image in such files.
fn created(sample: &Sample) -> Vec<Arc<dyn Storage>> {
    let mut files = shelf::nothing(sample);
    for file in files.iter_mut().take(2) {
        *file = container();
    }
    shelf::create(sample, &files).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    let refused = files[0].check_shrink(0).expect_err("it only grows");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    if !sample.zeroes_when_new {
        shelf::wipe(&image);
    }
    image.close().expect("a close");
    files
}

/// Nothing is damaged, and what cannot be given back keeps no repair from its end.
fn repair(sample: &Sample, files: &[Arc<dyn Storage>]) {
    let image = shelf::open(sample, files, Access::Repair).expect("it opens for a repair");
    if image.format().checker().is_some() {
        let report = check(&image, RepairMode::All, &mut Job::new())
            .expect("a check")
            .report;
        let found = (report.corruptions_fixed, report.check_errors);
        assert_eq!(found, (0, 0), "{}: {report:?}", sample.name);
    }
    image.close().expect("a close");
}

#[test]
fn changes_are_read_again() {
    for sample in samples() {
        model::run(sample, &created(sample), 100);
    }
}

/// Where the format itself needs a shorter file it is refused, and nothing is lost.
#[test]
fn sizes_change_and_what_is_cut_off_never_comes_back() {
    for sample in samples().filter(|sample| !sample.keeps_size) {
        let files = created(sample);
        let mut model = shelf::empty(sample);
        for (times, parts) in [(1, 1), (1, 3), (2, 1), (1, 2), (3, 1)] {
            let len = sample.size * times / parts / sample.sector * sample.sector;
            let image = shelf::open(sample, &files, Access::Write).expect("it opens");
            if len < image.len() && !sample.shrinks {
                continue;
            }
            model.fill(0xA5);
            image.write_at(&model, 0).expect("a write");
            let resizer = image.format().resizer().expect("another size");
            let off = Preallocation::Off;
            match resizer.resize_above(len, off, &image, &Default::default()) {
                Ok(()) => {
                    let old = model.len();
                    model.resize(image.len() as usize, 0);
                    if !sample.zeroes_when_new {
                        let grown = old.min(model.len());
                        let zeroes = &model[grown..];
                        image.write_at(zeroes, grown as u64).expect("a write");
                    }
                }
                Err(error) => {
                    let is_shrink = len < image.len();
                    assert!(is_shrink, "{} to {len}: {error}", sample.name);
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", sample.name);
                }
            }
            let now = shelf::contents(&image).expect("a read");
            same(sample.name, &now, &model);
            image.close().expect("a close");
            repair(sample, &files);
            let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
            let now = shelf::contents(&image).expect("a read");
            same(sample.name, &now, &model);
        }
    }
}

/// An overlay that is emptied, and written again.
#[test]
fn what_was_given_up_is_not_seen_again() {
    for sample in samples().filter(|sample| sample.overlay) {
        let files = created(sample);
        let mut model = shelf::empty(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("it opens");
        image
            .write_at(&vec![0xA5; model.len()], 0)
            .expect("a write");
        let Some(overlay) = image.format().backing_change() else {
            continue;
        };
        overlay.make_empty().expect("an empty one");
        for at in (0..model.len() as u64).step_by(200_000) {
            image.write_at(&[7; 100], at).expect("a write");
            let end = model.len().min(at as usize + 100);
            model[at as usize..end].fill(7);
        }
        let now = shelf::contents(&image).expect("a read");
        same(sample.name, &now, &model);
        image.close().expect("a close");
        repair(sample, &files);
        let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
        let now = shelf::contents(&image).expect("a read");
        same(sample.name, &now, &model);
    }
}
