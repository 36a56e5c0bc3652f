//! Chains as sources, and targets with a backing file.

use crate::common::Dir;
use crate::support::{refused, request, run_ok, verify, with_options};

/// base.raw ← mid.qcow2 ← top.qcow2, with every kind of cluster in each.
pub fn chain(dir: &Dir) {
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base.raw", "8M"]);
    dir.qemu_io(
        "raw",
        "base.raw",
        &["write -q -P 1 0 2M", "write -q -P 8 7M 1M"],
    );
    let overlay = |name: &str, below: &str, format: &str, size: &str| {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-b", below, "-F", format, name, size,
        ]);
    };
    overlay("mid.qcow2", "base.raw", "raw", "10M");
    dir.qemu_io(
        "qcow2",
        "mid.qcow2",
        &[
            "write -q -P 2 2M 64k",
            "write -q -z 0 128k",
            "write -q -c -P 5 4M 64k",
            "write -q -P 6 9M 4k",
        ],
    );
    overlay("top.qcow2", "mid.qcow2", "qcow2", "12M");
    dir.qemu_io(
        "qcow2",
        "top.qcow2",
        &[
            "write -q -P 3 3M 64k",
            "write -q -z 1M 64k",
            "write -q -P 1 1536k 64k",
            "write -q -P 0 1700k 1k",
            "write -q -z 7M 64k",
            "write -q -P 9 11M 512",
        ],
    );
}

#[test]
fn a_chain_becomes_one_image() {
    let dir = Dir::new();
    chain(&dir);
    for (format, compress) in [("raw", false), ("qcow2", false), ("qcow2", true)] {
        let mut request = request(&dir, "top.qcow2", "b.img", format);
        request.target.compress = compress;
        run_ok(&request);
        verify(&dir, "top.qcow2", "b.img", format);
    }
}

#[test]
fn what_the_backing_file_holds_is_not_copied() {
    let dir = Dir::new();
    chain(&dir);
    for (backing, format) in [("mid.qcow2", "qcow2"), ("base.raw", "raw")] {
        for options in [
            "",
            "compat=0.10",
            "cluster_size=4k",
            "cluster_size=1M",
            "extended_l2=on",
        ] {
            for compress in [false, true] {
                for sparse in [None, Some(0)] {
                    let mut request = with_options(&dir, "top.qcow2", "b.qcow2", "qcow2", options);
                    request.target.backing_file = Some(backing.into());
                    request.target.backing_format = Some(format.to_owned());
                    request.target.compress = compress;
                    request.tuning.sparse_size = sparse;
                    let report = run_ok(&request);
                    assert!(report.backed_bytes >= 2 << 20, "{report:?}");
                    verify(&dir, "top.qcow2", "b.qcow2", "qcow2");
                }
            }
        }
    }
}

#[test]
fn a_source_without_chain_hides_the_backing_file() {
    let dir = Dir::new();
    chain(&dir);
    dir.qemu_img_ok(&["convert", "-O", "raw", "top.qcow2", "flat.raw"]);
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "alone.qcow2", "8M"]);
    for source in ["flat.raw", "alone.qcow2"] {
        for options in ["", "compat=0.10"] {
            let mut request = with_options(&dir, source, "b.qcow2", "qcow2", options);
            request.target.backing_file = Some("base.raw".into());
            request.target.backing_format = Some("raw".to_owned());
            let report = run_ok(&request);
            assert_eq!(report.backed_bytes, 0);
            verify(&dir, source, "b.qcow2", "qcow2");
        }
    }
}

#[test]
fn a_backing_file_that_is_too_short_is_no_reason_to_lose_data() {
    let dir = Dir::new();
    chain(&dir);
    dir.qemu_img_ok(&["convert", "-O", "raw", "mid.qcow2", "short.raw"]);
    dir.qemu_img_ok(&["resize", "-q", "--shrink", "-f", "raw", "short.raw", "3M"]);
    let mut request = request(&dir, "top.qcow2", "b.qcow2", "qcow2");
    request.target.backing_file = Some("short.raw".into());
    request.target.backing_format = Some("raw".to_owned());
    run_ok(&request);
    verify(&dir, "top.qcow2", "b.qcow2", "qcow2");
}

#[test]
fn an_existing_overlay_is_filled() {
    let dir = Dir::new();
    chain(&dir);
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "mid.qcow2",
        "-F",
        "qcow2",
        "b.qcow2",
        "12M",
    ]);
    let mut request = request(&dir, "top.qcow2", "b.qcow2", "qcow2");
    request.target.backing_file = Some("mid.qcow2".into());
    request.target.backing_format = Some("qcow2".to_owned());
    request.target.exists = true;
    let report = run_ok(&request);
    assert!(report.backed_bytes > 3 << 20, "{report:?}");
    verify(&dir, "top.qcow2", "b.qcow2", "qcow2");
    request.target.is_zero = true;
    assert_eq!(
        refused(&request),
        "A target with a backing file does not hold zeroes, whatever is said of it"
    );
}

#[test]
fn backing_files_that_make_no_sense() {
    let dir = Dir::new();
    chain(&dir);
    let mut request = request(&dir, "top.qcow2", "b.qcow2", "qcow2");
    request.target.backing_file = Some("nope".into());
    assert_eq!(
        refused(&request),
        "Use of backing file requires explicit backing format"
    );
    request.target.backing_format = Some("raw".to_owned());
    let message = refused(&request);
    assert!(
        message.starts_with(&format!(
            "Could not open '{}': Could not open backing file: Could not open ",
            dir.str("b.qcow2")
        )) && message.ends_with("No such file or directory"),
        "{message}"
    );
    assert!(!dir.path("b.qcow2").exists());
    request.target.format = Some("raw".to_owned());
    assert_eq!(
        refused(&request),
        "Backing file not supported for file format 'raw'"
    );
    request.target.backing_file = None;
    assert_eq!(
        refused(&request),
        "Backing file format not supported for file format 'raw'"
    );
}
