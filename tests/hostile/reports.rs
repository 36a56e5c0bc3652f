//! Reports of so many runs that a text of them all has no room in memory: an error, and not the end of the
//! process.

use std::process::Command;

use platter::error::Result;
use platter::extent::StorageSlot;
use platter::ops::bitmap::DirtyReport;
use platter::ops::map::{MAX_RUNS, MapEntry, MapReport};

use crate::build;
use crate::common::Dir;

/// Where the runs have room, and a text of them has none.
const KIB: &str = "114688";

/// Runs a test of this program by itself, in little memory.
fn run_in_little_memory(test: &str) {
    let dir = Dir::new();
    let program = std::env::current_exe().expect("the path of the test");
    let output = Command::new(build::limited())
        .arg("60")
        .arg(dir.path("usage"))
        .arg(program)
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .env("LIMITED_DATA_KIB", KIB)
        .output()
        .expect("the test runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}{err}");
}

fn is_a_lack_of_memory<T>(made: Result<T>) {
    let error = made.map(drop).expect_err("a report that has no room");
    assert_eq!(error.errno(), libc::ENOMEM, "{error}");
}

#[test]
fn a_report_that_has_no_room_is_an_error() {
    run_in_little_memory("reports::reports_in_little_memory");
}

#[test]
#[ignore = "runs in little memory, by the test above"]
fn reports_in_little_memory() {
    let entry = MapEntry {
        start: u64::MAX,
        length: u64::MAX,
        depth: 0,
        present: true,
        zero: false,
        data: true,
        unknown: false,
        compressed: false,
        offset: Some(u64::MAX),
        slot: StorageSlot::MAIN,
    };
    let report = MapReport {
        entries: vec![entry; MAX_RUNS],
        files: Vec::new(),
    };
    is_a_lack_of_memory(report.json());
    is_a_lack_of_memory(report.text());
    drop(report);
    let report = DirtyReport {
        ranges: vec![(u64::MAX, u64::MAX); 4 * MAX_RUNS],
    };
    is_a_lack_of_memory(report.json());
    is_a_lack_of_memory(report.text());
}
