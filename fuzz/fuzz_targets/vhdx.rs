//! VHDX images with edits of headers, region tables, the log, metadata and the block table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::sparse::Pages;
use platter_fuzz::structures::{Case, Kind, Target};

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a log that are looked through, and the longest entry that is sealed.
const LOG: u64 = 1 << 20;

static TARGET: Target = Target::new(Kind {
    format: "vhdx",
    big_endian: false,
    seal,
    more: Vec::new,
});

fn crc(file: &mut Pages, at: u64, len: usize) {
    let mut bytes = vec![0; len];
    file.read(&mut bytes, at);
    bytes[4..8].fill(0);
    file.put(&crc32c::crc32c(&bytes).to_le_bytes(), at + 4);
}

/// Headers, region tables and the entries of the logs that the headers name.
fn seal(file: &mut Pages) {
    for at in HEADERS {
        let log = u64::from_le_bytes(file.get(at + 72));
        for at in (0..LOG).step_by(4096).map(|from| log.saturating_add(from)) {
            let len = u64::from(u32::from_le_bytes(file.get(at.saturating_add(8))));
            if &file.get(at) == b"loge" && (64..=LOG).contains(&len) {
                crc(file, at, len as usize);
            }
        }
        crc(file, at, 4096);
    }
    for at in REGIONS {
        crc(file, at, 64 << 10);
    }
}

fuzz_target!(|case: Case| TARGET.run(&case));
