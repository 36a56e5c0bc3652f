//! Images that another process holds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::pair::Pair;

/// A `qemu-io` that holds an image until it is dropped.
struct Holder {
    child: Child,
    stdin: ChildStdin,
}

impl Holder {
    fn new(directory: &Path, args: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io must be installed for this test");
        let mut stdin = child.stdin.take().expect("a pipe");
        // Its answer shows that the image is open.
        stdin.write_all(b"length\n").expect("to write to qemu-io");
        let mut answer = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        while !answer.contains("MiB") {
            answer.clear();
            let read = out.read_line(&mut answer).expect("to read from qemu-io");
            assert_ne!(read, 0, "qemu-io ended");
        }
        Self { child, stdin }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.stdin.write_all(b"quit\n");
        let _ = self.child.wait();
    }
}

fn held(args: &[&str]) -> (Pair, [Holder; 2]) {
    let pair = Pair::with(&[
        "create -q -f qcow2 lk.qcow2 1M",
        "create -q lk.raw 1M",
        "create -q -f qcow2 -b lk.qcow2 -F qcow2 top.qcow2",
        "create -q free.raw 1M",
    ]);
    let holders = [pair.theirs(), pair.ours()].map(|dir| Holder::new(dir.root(), args));
    (pair, holders)
}

const LINES: &[&str] = &[
    "info lk.qcow2",
    "info -U lk.qcow2",
    "info --output=json lk.qcow2",
    "map lk.qcow2",
    "map -U lk.qcow2",
    "check lk.qcow2",
    "check -U lk.qcow2",
    "compare lk.qcow2 free.raw",
    "compare free.raw lk.qcow2",
    "compare -U free.raw lk.qcow2",
    "convert lk.qcow2 out.raw",
    "convert -U lk.qcow2 out.raw",
    "convert -O qcow2 free.raw lk.qcow2",
    "convert -n -O qcow2 free.raw lk.qcow2",
    "create lk.qcow2 1M",
    "create -f qcow2 lk.qcow2 1M",
    "create -f qcow2 -b lk.qcow2 -F qcow2 over.qcow2",
    "map top.qcow2",
    "map -U top.qcow2",
    "check top.qcow2",
    "info top.qcow2",
    "info -b top.qcow2",
    "convert top.qcow2 out.raw",
    "info lk.raw",
    "info -U lk.raw",
    "map lk.raw",
    "map -U lk.raw",
    "compare lk.raw free.raw",
    "convert lk.raw out.raw",
    "convert -U lk.raw out.raw",
    "convert free.raw lk.raw",
    "convert -n free.raw lk.raw",
    "create lk.raw 1M",
];

#[test]
fn a_writer_holds_a_qcow2_image() {
    let (pair, _holders) = held(&["-f", "qcow2", "lk.qcow2"]);
    pair.all_same(LINES);
}

#[test]
fn a_reader_holds_a_qcow2_image() {
    let (pair, _holders) = held(&["-r", "-f", "qcow2", "lk.qcow2"]);
    pair.all_same(LINES);
}

#[test]
fn a_writer_holds_a_raw_image() {
    let (pair, _holders) = held(&["-f", "raw", "lk.raw"]);
    pair.all_same(LINES);
}

#[test]
fn a_reader_holds_a_raw_image() {
    let (pair, _holders) = held(&["-r", "-f", "raw", "lk.raw"]);
    pair.all_same(LINES);
}

#[test]
fn nothing_is_created_over_a_raw_disk_in_use() {
    // QEMU's tool finds the other writer too late, and removes the disk.
    let pair = Pair::with(&["create -q lk.raw 1M"]);
    let dir = pair.ours();
    dir.qemu_io("raw", "lk.raw", &["write -P 7 0 64k"]);
    let before = std::fs::read(dir.path("lk.raw")).expect("the disk");
    let _holder = Holder::new(dir.root(), &["-f", "raw", "lk.raw"]);
    for args in [
        &["create", "-q", "-f", "qcow2", "lk.raw", "1M"][..],
        &["convert", "-O", "qcow2", "free.raw", "lk.raw"],
    ] {
        dir.qemu_img_ok(&["create", "-q", "free.raw", "1M"]);
        let ran = crate::pair::ours(args, dir.root());
        assert_eq!(ran.code, 1, "{args:?}");
        assert!(
            ran.err
                .contains("Failed to get shared \"write\" lock\nIs another process"),
            "{ran:?}"
        );
        let after = std::fs::read(dir.path("lk.raw")).expect("the disk");
        assert!(before == after, "{args:?} changed the disk");
    }
}
