//! `info` of qcow2 images against `qemu-img info --output=json`.

use crate::common::Dir;
use platter::ops::info::info;
use platter::{Location, OpenOptions, OpenPolicy};

fn same(dir: &Dir, image: &str) {
    let path = dir.str(image);
    let theirs = dir.qemu_img_ok(&["info", "--output=json", &path]);
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let report = info(&Location::from_path(&path), &options, false).unwrap();
    assert_eq!(report.json().unwrap(), theirs, "{image}");
    let theirs = dir.qemu_img_ok(&["info", &path]);
    assert_eq!(report.text().unwrap(), theirs, "{image}");
}

#[test]
fn images_of_every_kind() {
    let dir = Dir::new();
    let data = dir.str("data");
    for (n, options) in [
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on,refcount_bits=1",
        "compression_type=zstd,cluster_size=2M",
        "extended_l2=on,refcount_bits=64",
        &format!("data_file={data}"),
        &format!("data_file={data},data_file_raw=on"),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("i{n}");
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, &name, "10M"]);
        same(&dir, &name);
    }
}

#[test]
fn snapshots_bitmaps_and_backing_file() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "10M"]);
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top", "20M",
    ]);
    same(&dir, "top");
    dir.qemu_img_ok(&["snapshot", "-c", "first", "top"]);
    dir.qemu_img_ok(&["snapshot", "-c", "second one", "top"]);
    dir.qemu_img_ok(&["bitmap", "--add", "-g", "512", "top", "b0"]);
    dir.qemu_img_ok(&["bitmap", "--add", "--disable", "top", "b1"]);
    same(&dir, "top");
}

#[test]
fn encrypted_images_without_their_secret() {
    let dir = Dir::new();
    for (name, options) in [
        ("aes", "encrypt.format=aes,encrypt.key-secret=s"),
        (
            "luks",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        ),
        (
            "essiv",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,\
             encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
        ),
    ] {
        dir.qemu_img_ok(&[
            "create",
            "-q",
            "--object",
            "secret,id=s,data=secret",
            "-f",
            "qcow2",
            "-o",
            options,
            name,
            "1M",
        ]);
        same(&dir, name);
    }
}
