//! `compare` against `qemu-img compare`: the same lines and the same exit codes.

use crate::common::Dir;
use platter::ops::compare::{compare, exit_code};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy};

fn open(path: &str, format: &str) -> Image {
    let options = OpenOptions {
        format: Some(format.to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::parse(path).unwrap(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

/// Compares both ways round, strictly and not.
fn same(dir: &Dir, a: (&str, &str), b: (&str, &str)) {
    for strict in [false, true] {
        for (a, b) in [(a, b), (b, a)] {
            one(dir, a, b, strict);
        }
    }
}

fn one(dir: &Dir, a: (&str, &str), b: (&str, &str), strict: bool) {
    let outcome = compare(&open(a.0, a.1), &open(b.0, b.1), strict, &mut Job::new());
    let mut args = vec!["compare", "-f", a.1, "-F", b.1, a.0, b.0];
    if strict {
        args.push("-s");
    }
    let peer = dir.qemu_img(&args);
    let what = format!("{args:?}: {outcome:?}");
    assert_eq!(exit_code(&outcome), peer.code, "{what}");
    match outcome {
        Ok(report) => assert_eq!(report.text(), peer.out, "{what}"),
        Err(error) => {
            let line = format!("qemu-img: {error}\n");
            assert!(peer.err.ends_with(&line), "{what}\n{}", peer.err);
        }
    }
}

fn make(dir: &Dir, name: &str, format: &str, size: &str, commands: &[&str]) -> String {
    let path = dir.str(name);
    dir.qemu_img_ok(&["create", "-q", "-f", format, &path, size]);
    if !commands.is_empty() {
        dir.qemu_io(format, &path, commands);
    }
    path
}

#[test]
fn sizes_and_tails() {
    let dir = Dir::new();
    let one = make(&dir, "1", "raw", "1M", &[]);
    let two = make(&dir, "2", "raw", "2M", &[]);
    let tail = make(&dir, "tail", "raw", "4M", &["write -P 1 1100k 1k"]);
    let data = make(&dir, "data", "raw", "1M", &["write -P 1 700 1"]);
    let empty = make(&dir, "empty", "qcow2", "0", &[]);
    for a in [&one, &two, &tail, &data] {
        for b in [&one, &two, &tail, &data] {
            same(&dir, (a, "raw"), (b, "raw"));
        }
        same(&dir, (a, "raw"), (&empty, "qcow2"));
    }
}

#[test]
fn the_first_difference_wins() {
    let dir = Dir::new();
    let a = make(&dir, "a", "raw", "64M", &["write -P 1 0 64M"]);
    for at in [
        "33554431", "33554432", "1049087", "0", "67108863", "5000000",
    ] {
        let name = format!("b{at}");
        let b = make(&dir, &name, "qcow2", "64M", &["write -P 1 0 64M"]);
        let early = format!("write -P 2 {at} 1");
        dir.qemu_io("qcow2", &b, &[&early, "write -P 3 67108863 1"]);
        one(&dir, (&a, "raw"), (&b, "qcow2"), false);
        one(&dir, (&b, "qcow2"), (&a, "raw"), false);
    }
}

#[test]
fn zeroes_however_they_are_stored() {
    let dir = Dir::new();
    let images = [
        make(&dir, "none", "qcow2", "1M", &[]),
        make(&dir, "zero", "qcow2", "1M", &["write -z 128k 64k"]),
        make(&dir, "bytes", "qcow2", "1M", &["write -P 0 128k 64k"]),
        make(&dir, "all", "qcow2", "1M", &["write -z 0 1M"]),
        make(&dir, "data", "qcow2", "1M", &["write -P 1 128k 64k"]),
        make(&dir, "late", "qcow2", "1M", &["write -P 1 512k 64k"]),
    ];
    let raw = make(&dir, "raw", "raw", "1M", &[]);
    for a in &images {
        for b in &images {
            same(&dir, (a, "qcow2"), (b, "qcow2"));
        }
        same(&dir, (a, "qcow2"), (&raw, "raw"));
    }
}

#[test]
fn compressed_against_plain() {
    let dir = Dir::new();
    let source: Vec<u8> = (0..3_000_000u32)
        .flat_map(|n| (n / 7).to_le_bytes())
        .collect();
    std::fs::write(dir.path("source"), source).unwrap();
    let raw = dir.str("source");
    for kind in ["zlib", "zstd"] {
        let packed = dir.str(kind);
        let option = format!("compression_type={kind}");
        dir.qemu_img_ok(&[
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &option, &raw, &packed,
        ]);
        same(&dir, (&raw, "raw"), (&packed, "qcow2"));
        dir.qemu_io("qcow2", &packed, &["write -P 9 7654321 1"]);
        one(&dir, (&raw, "raw"), (&packed, "qcow2"), false);
    }
}

#[test]
fn an_overlay_and_its_backing_file() {
    let dir = Dir::new();
    let base = make(&dir, "base", "qcow2", "8M", &["write -P 1 0 5M"]);
    let top = dir.str("top");
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &top,
    ]);
    same(&dir, (&base, "qcow2"), (&top, "qcow2"));
    dir.qemu_io("qcow2", &top, &["write -P 2 4321k 1k"]);
    one(&dir, (&base, "qcow2"), (&top, "qcow2"), false);
}

#[test]
fn damage_is_told_with_its_own_exit_code() {
    let dir = Dir::new();
    std::fs::write(dir.path("source"), vec![7; 300_032]).unwrap();
    let raw = dir.str("source");
    let packed = dir.str("packed");
    dir.qemu_img_ok(&["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &packed]);
    let mut bytes = std::fs::read(&packed).unwrap();
    let be64 = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = be64(&bytes, 40) as usize;
    let l2 = (be64(&bytes, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    // The third cluster's compressed bytes.
    let host = (be64(&bytes, l2 + 16) & ((1 << 54) - 1)) as usize;
    bytes[host..host + 8].fill(0xff);
    std::fs::write(&packed, &bytes).unwrap();
    one(&dir, (&raw, "raw"), (&packed, "qcow2"), false);
    one(&dir, (&packed, "qcow2"), (&raw, "raw"), false);
    // An L2 table that lies askew.
    bytes[l1..l1 + 8].copy_from_slice(&0x8000_0000_0005_0200u64.to_be_bytes());
    std::fs::write(&packed, &bytes).unwrap();
    one(&dir, (&raw, "raw"), (&packed, "qcow2"), false);
    one(&dir, (&packed, "qcow2"), (&raw, "raw"), true);
}
