//! `-n`: the target is there already.

use crate::common::Dir;
use crate::support::{DISK, disk, refused, request, run_ok, verify};

fn garbage(dir: &Dir, name: &str, format: &str, options: &str, size: u64) {
    let size = size.to_string();
    let mut args = vec!["create", "-q", "-f", format, name, &size];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    dir.qemu_img_ok(&args);
    dir.qemu_io(format, name, &["write -q -P 0xa5 0 20M"]);
}

#[test]
fn what_was_there_is_replaced_also_by_zeroes() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for (format, options) in [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "cluster_size=4k"),
        ("qcow2", "compat=0.10"),
        ("qcow2", "extended_l2=on"),
    ] {
        for sparse in [None, Some(0), Some(1 << 20)] {
            garbage(&dir, "b.img", format, options, DISK);
            let mut request = request(&dir, "a.raw", "b.img", format);
            request.target.exists = true;
            request.tuning.sparse_size = sparse;
            run_ok(&request);
            verify(&dir, "a.raw", "b.img", format);
        }
    }
}

#[test]
fn compressed_into_an_existing_image() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "b.qcow2", &DISK.to_string()]);
    let mut request = request(&dir, "a.raw", "b.qcow2", "qcow2");
    request.target.exists = true;
    request.target.compress = true;
    run_ok(&request);
    verify(&dir, "a.raw", "b.qcow2", "qcow2");
}

#[test]
fn a_target_known_to_be_zero_is_left_alone_where_zero() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for format in ["raw", "qcow2"] {
        dir.qemu_img_ok(&["create", "-q", "-f", format, "b.img", &DISK.to_string()]);
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.target.exists = true;
        request.target.is_zero = true;
        run_ok(&request);
        verify(&dir, "a.raw", "b.img", format);
    }
}

#[test]
fn a_longer_target_keeps_its_length_and_its_end() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    for format in ["raw", "qcow2"] {
        garbage(&dir, "b.img", format, "", 32 << 20);
        dir.qemu_io(format, "b.img", &["write -q -P 0x77 30M 2M"]);
        let mut request = request(&dir, "a.raw", "b.img", format);
        request.target.exists = true;
        let report = run_ok(&request);
        assert_eq!(report.virtual_size, 32 << 20);
        dir.qemu_io(format, "b.img", &["read -q -P 0x77 30M 2M"]);
        dir.qemu_img_ok(&[
            "resize",
            "-q",
            "--shrink",
            "-f",
            format,
            "b.img",
            &DISK.to_string(),
        ]);
        verify(&dir, "a.raw", "b.img", format);
    }
}

#[test]
fn refusals() {
    let dir = Dir::new();
    disk(&dir.path("a.raw"));
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "b.raw", "1M"]);
    let mut request = request(&dir, "a.raw", "b.raw", "raw");
    request.target.exists = true;
    assert_eq!(refused(&request), "output file is smaller than input file");
    request.target.compress = true;
    assert_eq!(
        refused(&request),
        "Compression not supported for this file format"
    );
    request.target.compress = false;
    request.target.location = platter::Location::from_path(dir.path("nope"));
    let message = refused(&request);
    assert!(message.starts_with("Could not open "), "{message}");
    assert!(message.ends_with("No such file or directory"), "{message}");
    assert!(!dir.path("nope").exists());
}
