//! Checks of images that are open for writing, by whoever writes to them.

use std::sync::{Arc, Mutex};

use platter::Job;
use platter::format::RepairMode;
use platter::ops::check::check;
use platter::storage::ZeroFlags;

use super::sample::{only, samples};
use super::shelf::{self, Access};

/// What is cached, and what is freed and not given back yet, is no damage.
#[test]
fn a_check_of_an_image_that_is_written_to_finds_nothing() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for sample in samples() {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("it opens");
        if image.format().checker().is_none() {
            continue;
        }
        let unit = 64 << 10;
        for round in 0..3 {
            if !sample.is_stream || round == 0 {
                image.write_at(&vec![7; 4 * unit], 0).expect("a write");
                image
                    .write_at(&[8; 512], 20 * unit as u64)
                    .expect("a write");
            }
            if !sample.is_stream {
                let zeroed = image.write_zeroes(unit as u64, unit as u64, ZeroFlags::MAY_UNMAP);
                zeroed.expect("zeroes");
                // Not every format can.
                let _ = image.discard(2 * unit as u64, unit as u64);
            }
            let told = Arc::new(Mutex::new(Vec::new()));
            let heard = told.clone();
            let mut job = Job::new().on_message(Box::new(move |message| {
                heard.lock().expect("notes").push(format!("{message:?}"));
            }));
            let found = check(&image, RepairMode::Report, &mut job).expect("a check");
            let report = found.report;
            if (report.corruptions, report.leaks, report.check_errors) != (0, 0, 0) {
                let told = told.lock().expect("notes");
                wrong.push(format!(
                    "{}, round {round}: {report:?} {told:?}",
                    sample.name
                ));
            }
        }
        checked += 1;
        image.close().expect("a close");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let all = samples().count();
    assert!(only().is_some() || checked > all / 2, "{checked} of {all}");
}
