//! Sources, requests and verdicts that the tests share.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use platter::ops::convert::{ConvertReport, ConvertRequest, convert};
use platter::{Job, Location, OpenPolicy, Options, Result};

use crate::common::Dir;

/// Guest bytes of [`disk`]: no multiple of any cluster size above 512.
pub const DISK: u64 = (21 << 20) + 1536;

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Text that compresses.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 32);
    let mut line = seed;
    while bytes.len() < len {
        bytes.extend_from_slice(format!("line {line} of the file\n").as_bytes());
        line += 7;
    }
    bytes.truncate(len);
    bytes
}

/// Writes a raw disk with data, noise, zeroes that are stored, and holes.
pub fn disk(path: &Path) {
    let file = File::create(path).expect("a new file");
    file.set_len(DISK).expect("its length");
    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).expect("a write");
    put(0, &text(1, 300 << 10));
    put(1 << 20, &noise(2, 3 << 20));
    put((5 << 20) + 512, &text(3, 1000));
    put((5 << 20) + 20480, &noise(4, 4096));
    put(6 << 20, &vec![0; 1 << 20]);
    put((6 << 20) + 70000, &text(5, 5));
    put(9 << 20, &text(6, 2 << 20));
    // Stored zeroes of all lengths between single sectors of data.
    for n in 0..64u64 {
        let at = (14 << 20) + n * (n + 1) / 2 * 512;
        put(at, &noise(n, 512));
    }
    put(DISK - 700, &text(7, 700));
}

/// A request with everything allowed, as the command line does.
pub fn request(dir: &Dir, source: &str, target: &str, format: &str) -> ConvertRequest {
    let mut request = ConvertRequest::new(
        Location::from_path(dir.path(source)),
        Location::from_path(dir.path(target)),
    );
    request.target.format = Some(format.to_owned());
    request.target.policy = OpenPolicy::permissive();
    request.source.options.policy = OpenPolicy::permissive();
    request
}

/// As [`request`], with `-o` options.
pub fn with_options(
    dir: &Dir,
    source: &str,
    target: &str,
    format: &str,
    options: &str,
) -> ConvertRequest {
    let mut request = request(dir, source, target, format);
    if !options.is_empty() {
        request.target.options = Options::parse(options).expect("an option list");
    }
    request
}

/// Runs the request.
pub fn run(request: &ConvertRequest) -> Result<ConvertReport> {
    convert(request, &mut Job::new())
}

/// Runs the request; fails the test unless it succeeds.
pub fn run_ok(request: &ConvertRequest) -> ConvertReport {
    run(request).unwrap_or_else(|error| {
        panic!(
            "{:?} to {:?}: {error:?}",
            request.source.options.format, request.target.options
        )
    })
}

/// The message of the failure of the request.
pub fn refused(request: &ConvertRequest) -> String {
    run(request).expect_err("a refusal").to_string()
}

/// `qemu-img` must find both images identical, and the second clean.
pub fn verify(dir: &Dir, source: &str, target: &str, format: &str) {
    let ran = dir.qemu_img(&["compare", "-F", format, source, target]);
    assert!(
        ran.out.contains("Images are identical."),
        "{target}: {ran:?}"
    );
    if format == "qcow2" {
        check(dir, target);
    }
}

/// `qemu-img check` must find neither errors nor leaks.
pub fn check(dir: &Dir, image: &str) {
    let ran = dir.qemu_img(&["check", "-f", "qcow2", image]);
    assert_eq!(ran.code, 0, "{image}: {ran:?}");
}
