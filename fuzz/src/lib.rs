//! What the fuzz targets share: the samples of the tests of formats, and what is done with an image.

#[path = "../../tests/formats/vmdk/by_hand.rs"]
pub mod by_hand;
pub mod edits;
pub mod kit;
#[path = "../../src/codec/container/packers.rs"]
pub mod packers;
pub mod parallels;
#[path = "../../tests/crash/random.rs"]
pub mod random;
pub mod sparse;
pub mod structures;
pub mod tcp;

use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::ops::inspect::inspect_storage;
use platter::storage::Storage;
use platter::{Image, Job, OpenOptions, OpenPolicy};

/// Guest bytes that are read from one image.
const READ: u64 = 1 << 20;

/// Tables and clusters of fuzzed images are kept small: what takes long there finds nothing more.
pub fn policy() -> OpenPolicy {
    OpenPolicy {
        max_table_bytes: 4 << 20,
        max_cache_bytes: 1 << 20,
        max_key_iterations: 10_000,
        ..OpenPolicy::strict()
    }
}

/// Reads the image from both ends, and all that is known about it.
pub fn look_at(image: &Image) {
    let mut buf = vec![0; 64 << 10];
    let len = image.len();
    for start in [0, len.saturating_sub(READ / 2)] {
        let mut at = start;
        while at < len.min(start.saturating_add(READ / 2)) {
            let part = (len - at).min(buf.len() as u64) as usize;
            let _ = image.read_at(&mut buf[..part], at);
            at += part as u64;
        }
    }
    let mut at = 0;
    for _ in 0..1000 {
        if at >= len {
            break;
        }
        match image.map(at, len - at) {
            Ok(run) => at += run.extent.len,
            Err(_) => break,
        }
    }
    let _ = image.info();
}

/// Checks an open image.
pub fn check_image(image: &Image, mode: RepairMode) -> Option<i32> {
    let outcome = check(image, mode, &mut Job::new()).ok()?;
    let _ = (outcome.text(), outcome.json());
    Some(outcome.exit_code())
}

/// Inspects a file, and prints what was found.
pub fn inspect_file(file: Arc<dyn Storage>, format: Option<&str>) {
    let options = OpenOptions {
        format: format.map(str::to_owned),
        policy: policy(),
        ..OpenOptions::default()
    };
    if let Ok(report) = inspect_storage(file, &options) {
        let _ = (report.text(), report.json());
    }
}
