//! Chains as sources, and targets with a backing file.

use std::os::unix::fs::MetadataExt;

use crate::common::Dir;
use crate::support::{noise, refused, request, run_ok, verify, with_options};

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

/// Formats whose clusters cannot say that they are zeroes store these only where the parent shows something else.
#[test]
fn zeroes_that_the_backing_file_shows_are_not_stored() {
    let dir = Dir::new();
    let mut disk = vec![0; 64 << 20];
    disk[..1 << 20].fill(1);
    disk[(8 << 20) + 4096..(8 << 20) + 8192].fill(2);
    std::fs::write(dir.path("base.raw"), &disk).expect("a file");
    // What the parent has is zero here, in one place whole and in one among data; and there is something new.
    disk[512 << 10..1 << 20].fill(0);
    disk[8 << 20..(8 << 20) + 8192].fill(0);
    disk[40 << 20..(40 << 20) + 4096].fill(3);
    std::fs::write(dir.path("flat.raw"), &disk).expect("a file");
    for (format, options, most) in [
        ("vpc", "", 9 << 20),
        ("vdi", "", 5 << 20),
        ("qed", "", 5 << 20),
        ("qcow", "", 3 << 20),
        ("vmdk", "", 3 << 20),
        ("vmdk", "zeroed_grain=on", 3 << 20),
        ("vhdx", "", 72 << 20),
        ("qcow2", "", 3 << 20),
        ("qcow2", "compat=0.10", 3 << 20),
    ] {
        let name = format!("{format} {options}");
        run_ok(&request(&dir, "base.raw", "base.img", format));
        let mut request = with_options(&dir, "flat.raw", "over.img", format, options);
        request.target.backing_file = Some("base.img".into());
        request.target.backing_format = Some(format.to_owned());
        run_ok(&request);
        let made = std::fs::metadata(dir.path("over.img")).expect("a file");
        assert!(made.len() <= most, "{name}: {} bytes", made.len());
        // Zeroes within what is stored are holes.
        let stored = made.blocks() * 512;
        assert!(stored <= 3 << 20, "{name}: {stored} bytes on the disk");
        let back = with_options(&dir, "over.img", "back.raw", "raw", "");
        run_ok(&back);
        let mut back = std::fs::read(dir.path("back.raw")).expect("a file");
        // A VHD may be longer, by its geometry.
        back.truncate(disk.len());
        assert!(back == disk, "{name}");
    }
}

/// Of a block of which the parent has a part, only what is new is stored.
#[test]
fn a_block_is_shared_between_a_child_and_its_parent() {
    let dir = Dir::new();
    let mut disk = noise(1, 6 << 20);
    std::fs::write(dir.path("base.raw"), &disk).expect("a file");
    run_ok(&with_options(
        &dir,
        "base.raw",
        "base.vhd",
        "vpc",
        "force_size=on",
    ));
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "base.vhd",
        "-F",
        "vpc",
        "top.qcow2",
        "6M",
    ]);
    let mut commands = Vec::new();
    for (n, at) in [1 << 20, (1 << 20) + (128 << 10), (4 << 20) + (960 << 10)]
        .into_iter()
        .enumerate()
    {
        commands.push(format!("write -q -P {} {at} 64k", n + 1));
        disk[at..at + (64 << 10)].fill(n as u8 + 1);
    }
    // Zeroes over data, which are holes.
    for (at, len) in [(3 << 20, 64 << 10), (4 << 20, 128 << 10)] {
        commands.push(format!("write -q -z {at} {len}"));
        disk[at..at + len].fill(0);
    }
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    dir.qemu_io("qcow2", "top.qcow2", &commands);
    let mut request = with_options(&dir, "top.qcow2", "top.vhd", "vpc", "force_size=on");
    request.target.backing_file = Some("base.vhd".into());
    request.target.backing_format = Some("vpc".to_owned());
    let report = run_ok(&request);
    assert_eq!(report.backed_bytes, (6 << 20) - (384 << 10), "{report:?}");
    let made = std::fs::metadata(dir.path("top.vhd")).expect("a file");
    // Three pieces of data, and what describes the disk.
    assert!(made.blocks() * 512 <= 256 << 10, "{} blocks", made.blocks());
    run_ok(&with_options(&dir, "top.vhd", "back.raw", "raw", ""));
    let back = std::fs::read(dir.path("back.raw")).expect("a file");
    let other = back.iter().zip(&disk).position(|(a, b)| a != b);
    assert_eq!((back.len(), other), (disk.len(), None));
}
