//! Images that another process holds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use platter::{Image, Location, OpenOptions, OpenPolicy};

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

fn images() -> Pair {
    Pair::with(&[
        "create -q -f qcow2 lk.qcow2 1M",
        "create -q lk.raw 1M",
        "create -q -f qcow2 -b lk.qcow2 -F qcow2 top.qcow2",
        "create -q free.raw 1M",
    ])
}

fn held(args: &[&str]) -> (Pair, [Holder; 2]) {
    let pair = images();
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

/// How an image is held: format, name, and whether for writing.
const HOLDS: &[(&str, &str, bool)] = &[
    ("qcow2", "lk.qcow2", true),
    ("qcow2", "lk.qcow2", false),
    ("raw", "lk.raw", true),
    ("raw", "lk.raw", false),
];

fn open(path: std::path::PathBuf, format: &str, writable: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        format: Some(format.to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(path), &options)
}

/// QEMU's tool and ours meet an image that this library holds as QEMU's tool meets one that
/// `qemu-io` holds.
#[test]
fn the_library_holds_an_image_as_qemu_does() {
    for (format, name, writable) in HOLDS {
        let pair = images();
        let read_only = if *writable { &[][..] } else { &["-r"] };
        let args = [read_only, &["-f", format, name]].concat();
        let _theirs = Holder::new(pair.theirs().root(), &args);
        let _ours = open(pair.ours().path(name), format, *writable).expect("a free image");
        for line in LINES {
            let words = crate::pair::words(line);
            let expected = pair.theirs().qemu_img(&words);
            let theirs = pair.ours().qemu_img(&words);
            let ours = crate::pair::ours(&words, pair.ours().root());
            for (who, ran) in [("QEMU's tool", theirs), ("ours", ours)] {
                assert_eq!(
                    (ran.code, &ran.err),
                    (expected.code, &expected.err),
                    "{who}, {name} held, writable {writable}: {line}"
                );
            }
            for dir in [pair.theirs(), pair.ours()] {
                for new in ["out.raw", "over.qcow2"] {
                    let _ = std::fs::remove_file(dir.path(new));
                }
            }
        }
    }
}

/// Two handles of one process exclude each other as two of `qemu-io` do.
#[test]
fn two_threads_exclude_each_other_as_two_processes_do() {
    for (format, name, first) in HOLDS {
        for second in [true, false] {
            let pair = images();
            let mode = |writable| if writable { &[][..] } else { &["-r"] };
            let args = [mode(*first), &["-f", format, name]].concat();
            let _theirs = Holder::new(pair.theirs().root(), &args);
            let args = [mode(second), &["-f", format, "-c", "length", name]].concat();
            let expected = crate::common::run_in(pair.theirs().root(), "qemu-io", &args);
            let path = pair.ours().path(name);
            let _held = open(path.clone(), format, *first).expect("a free image");
            let opened = std::thread::scope(|scope| {
                let other = scope.spawn(|| open(path, format, second));
                other.join().expect("no panic")
            });
            let what = format!("{name}: {first}, then {second}");
            match opened {
                Ok(_) => assert_eq!(expected.code, 0, "{what}: {expected:?}"),
                Err(error) => {
                    let line = error.to_string();
                    let reason = line.rsplit(": ").next().expect("a reason");
                    assert!(
                        expected.err.contains(reason),
                        "{what}: {line}, {expected:?}"
                    );
                }
            }
        }
    }
}
