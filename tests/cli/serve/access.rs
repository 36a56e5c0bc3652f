//! Bytes both ways.

use super::{Served, done, images, libnbd, same_file};
use crate::common::Dir;

#[test]
fn every_tool_reads_the_same_bytes_from_every_format() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    for (format, file) in images(&dir) {
        let served = Served::ours(&dir, &["-r", "-f", format, file]);
        let uri = served.uri("");
        done(&dir, "nbdcopy", &[&uri, "copy.raw"]);
        same_file(&dir.path("copy.raw"), &dir.path("a.raw"));
        // Without structured replies, and on one connection.
        done(
            &dir,
            "nbdcopy",
            &["--synchronous", "--connections=1", &uri, "one.raw"],
        );
        same_file(&dir.path("one.raw"), &dir.path("a.raw"));
        dir.qemu_img_ok(&["compare", "-f", "raw", "-F", "raw", "a.raw", &uri]);
        dir.qemu_img_ok(&["convert", "-f", "raw", "-O", "raw", &uri, "qemu.raw"]);
        same_file(&dir.path("qemu.raw"), &dir.path("a.raw"));
        served.end();
    }
}

#[test]
fn every_tool_writes_bytes_that_stay() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for (format, options) in [
        ("raw", ""),
        ("qcow2", "cluster_size=64k"),
        ("qcow2", "extended_l2=on"),
        ("vmdk", "subformat=monolithicSparse"),
    ] {
        let file = format!("w.{format}");
        for writer in ["nbdcopy", "qemu-img"] {
            let mut create = vec!["create", "-q", "-f", format];
            if !options.is_empty() {
                create.extend(["-o", options]);
            }
            create.extend([&file, "24M"]);
            dir.qemu_img_ok(&create);
            let served = Served::ours(&dir, &["-f", format, &file]);
            let uri = served.uri("");
            match writer {
                "nbdcopy" => done(&dir, "nbdcopy", &["--flush", "a.raw", &uri]),
                _ => dir.qemu_img_ok(&["convert", "-n", "-f", "raw", "-O", "raw", "a.raw", &uri]),
            };
            dir.qemu_img_ok(&["compare", "-f", "raw", "-F", "raw", "a.raw", &uri]);
            served.end();
            dir.qemu_img_ok(&["compare", "-f", "raw", "-F", format, "a.raw", &file]);
            if format == "qcow2" {
                dir.qemu_img_ok(&["check", "-f", "qcow2", &file]);
            }
        }
    }
}

#[test]
fn single_requests_do_what_they_do_through_qemus_server() {
    let dir = Dir::new();
    let requests = [
        "write -P 5 1000 3000",
        "write -z 64k 128k",
        "write -z -u 1M 64k",
        "write -f -P 6 3M 1",
        "discard 5M 1M",
        "aio_write -P 7 6M 2M",
        "aio_write -P 8 8M 100",
        "aio_flush",
        "flush",
        "read -P 5 1000 3000",
        "read -P 0 64k 128k",
        "read -P 6 3M 1",
        "read -P 7 6M 2M",
    ];
    for (format, file) in [("raw", "a.raw"), ("qcow2", "b.qcow2"), ("qcow2", "f.qcow2")] {
        let results = [true, false].map(|ours| {
            images(&dir);
            let args = ["-f", format, file];
            let served = match ours {
                true => Served::ours(&dir, &args),
                false => Served::theirs(&dir, &[&args[..], &["--discard=unmap"]].concat()),
            };
            let out = dir.qemu_io("raw", &served.uri(""), &requests);
            served.end();
            assert!(!out.contains("failed"), "{out}");
            dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", file, "after.raw"]);
            std::fs::read(dir.path("after.raw")).expect("the bytes")
        });
        assert!(results[0] == results[1], "{file}");
        if format == "qcow2" {
            dir.qemu_img_ok(&["check", "-f", "qcow2", file]);
        }
    }
}

#[test]
fn a_window_a_snapshot_and_a_temporary_overlay() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(
        &dir,
        &["-r", "-f", "raw", "-o", "5M", "--size", "100k", "a.raw"],
    );
    let read = [
        "-r",
        "-f",
        "raw",
        "-c",
        "read -P 2 0 100k",
        "-c",
        "length",
        &served.uri(""),
    ];
    let out = done(&dir, "qemu-io", &read);
    assert!(out.contains("100 KiB") && !out.contains("failed"), "{out}");
    served.end();

    dir.qemu_img_ok(&["snapshot", "-c", "s1", "b.qcow2"]);
    dir.qemu_io("qcow2", "b.qcow2", &["write -P 77 0 1M"]);
    let served = Served::ours(&dir, &["-l", "s1", "-f", "qcow2", "b.qcow2"]);
    let uri = served.uri("");
    dir.qemu_img_ok(&["compare", "-f", "raw", "-F", "raw", "a.raw", &uri]);
    served.end();

    let before = std::fs::read(dir.path("c.qcow2")).expect("an image");
    for args in [
        &["-s", "-f", "qcow2", "c.qcow2"][..],
        &["-s", "c.qcow2"],
        &["-s", "--image-opts", "driver=qcow2,file.filename=c.qcow2"],
    ] {
        let served = Served::ours(&dir, args);
        let uri = served.uri("");
        let out = dir.qemu_io(
            "raw",
            &uri,
            &["write -P 9 1M 1M", "read -P 9 1M 1M", "read -P 1 0 1M"],
        );
        assert!(!out.contains("failed"), "{out}");
        served.end();
        assert!(before == std::fs::read(dir.path("c.qcow2")).expect("an image"));
    }
}

#[test]
fn an_encrypted_image_is_served_by_its_secret() {
    let dir = Dir::new();
    images(&dir);
    let secret = "secret,id=s,data=pass";
    let create =
        "create -q --object secret,id=s,data=pass -f luks -o key-secret=s,iter-time=10 l.luks 24M";
    dir.qemu_img_ok(&create.split(' ').collect::<Vec<_>>());
    let image = "driver=luks,key-secret=s,file.filename=l.luks";
    let served = Served::ours(&dir, &["--object", secret, "--image-opts", image]);
    dir.qemu_img_ok(&[
        "convert",
        "-n",
        "-f",
        "raw",
        "-O",
        "raw",
        "a.raw",
        &served.uri(""),
    ]);
    served.end();
    let compare = [
        "compare",
        "--object",
        secret,
        "--image-opts",
        image,
        "driver=raw,file.filename=a.raw",
    ];
    dir.qemu_img_ok(&compare);
}
