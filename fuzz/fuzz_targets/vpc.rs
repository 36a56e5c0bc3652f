//! VHD images with edits of footers, the header, the block table, bitmaps and parent locators.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::sparse::Pages;
use platter_fuzz::structures::{Case, Kind, Target};

const FOOTER: u64 = 512;

static TARGET: Target = Target::new(Kind {
    format: "vpc",
    big_endian: true,
    seal,
    more: Vec::new,
});

/// The complement of the sum of all bytes except those of the sum itself.
fn sum<const LEN: usize>(file: &mut Pages, at: u64, field: usize) {
    let mut bytes = file.get::<LEN>(at);
    bytes[field..field + 4].fill(0);
    let add = |sum: u32, byte: &u8| sum.wrapping_add(u32::from(*byte));
    let sum = !bytes.iter().fold(0, add);
    file.put(&sum.to_be_bytes(), at + field as u64);
}

/// The footers at both ends, and the headers that they name.
fn seal(file: &mut Pages) {
    for at in [0, file.len().saturating_sub(FOOTER)] {
        if &file.get(at) != b"conectix" {
            continue;
        }
        sum::<512>(file, at, 64);
        let header = u64::from_be_bytes(file.get(at + 16));
        if &file.get(header) == b"cxsparse" {
            sum::<1024>(file, header, 36);
        }
    }
}

fuzz_target!(|case: Case| TARGET.run(&case));
