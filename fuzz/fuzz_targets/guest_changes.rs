//! Any changes of guest bytes, against a plain array.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter_fuzz::kit::sample::SAMPLES;
use platter_fuzz::kit::shelf::{self, Access};
use platter_fuzz::kit::work::{Change, same};

#[derive(Arbitrary, Debug)]
enum Step {
    Write { at: u32, len: u32, byte: u8 },
    Zero { at: u32, len: u32, unmap: bool },
    Discard { at: u32, len: u32 },
    Flush,
    Reopen,
}

#[derive(Arbitrary, Debug)]
struct Case {
    sample: u8,
    steps: Vec<Step>,
}

fuzz_target!(|case: Case| {
    let sample = &SAMPLES[case.sample as usize % SAMPLES.len()];
    let range = |at: u32, len: u32| {
        let start = u64::from(at) % sample.size;
        start..(start + 1 + u64::from(len) % (256 << 10)).min(sample.size)
    };
    let files = shelf::created(sample);
    let mut model = shelf::empty(sample);
    let mut image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
    for step in case.steps.iter().take(40) {
        let change = match *step {
            Step::Write { at, len, byte } => {
                let range = range(at, len);
                let bytes = vec![byte; (range.end - range.start) as usize];
                Change::Write(range.start, bytes)
            }
            Step::Zero { at, len, unmap } => Change::Zero(range(at, len), unmap),
            Step::Discard { at, len } => Change::Discard(range(at, len)),
            Step::Flush => {
                image.flush().expect("a flush");
                continue;
            }
            Step::Reopen => {
                image.close().expect("a close");
                image = shelf::open(sample, &files, Access::Write).expect("it opens again");
                continue;
            }
        };
        change.apply(&image).expect("a change");
        let noted = change.note(&image, &mut model, |at| shelf::base_byte(sample, at));
        noted.expect("a read");
    }
    same(
        sample.name,
        &shelf::contents(&image).expect("a read"),
        &model,
    );
    image.close().expect("a close");
});
