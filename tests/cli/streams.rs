//! Images that come through a pipe, and of which the file is read but once.

use std::process::{Command, Output};

use crate::common::Dir;
use crate::pair::{ours, ours_command, piped, words};

/// A disk with data in the first grain table, in the third, and in the short grain at its end.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; (70 << 20) + 512];
    disk[100_000..400_000].fill(1);
    for (n, byte) in disk[65 << 20..66 << 20].iter_mut().enumerate() {
        *byte = (n * n / 91) as u8;
    }
    disk[70 << 20..].fill(9);
    disk
}

const STREAM: &str = "-f raw -O vmdk -o subformat=streamOptimized r.raw";

/// Streams of that disk: of QEMU, ours in a file, ours through a pipe, each with its length.
fn images() -> (Dir, Vec<(&'static str, usize)>) {
    let dir = Dir::new();
    std::fs::write(dir.path("r.raw"), disk()).expect("a file");
    dir.qemu_img_ok(&words(&format!("convert {STREAM} theirs.vmdk")));
    let ran = ours(&words(&format!("convert {STREAM} ours.vmdk")), dir.root());
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let ran = ours_command(&words(&format!("convert {STREAM} /dev/stdout")), dir.root())
        .output()
        .expect("the tool");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    std::fs::write(dir.path("passed.vmdk"), &ran.stdout).expect("a file");
    let names = ["theirs.vmdk", "ours.vmdk", "passed.vmdk"];
    let lens = names.map(|name| std::fs::metadata(dir.path(name)).expect("a file").len() as usize);
    (dir, names.into_iter().zip(lens).collect())
}

fn through_pipe(dir: &Dir, line: &str, input: &str) -> Output {
    piped(line, dir.root(), &dir.path(input))
}

#[track_caller]
fn refused(dir: &Dir, line: &str, input: &str, expected: &str) {
    let out = through_pipe(dir, line, input);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{line}: {text}");
    assert!(
        text.contains(expected) && text.lines().count() == 1,
        "{line}: {text}"
    );
    assert!(!dir.path("out").exists(), "{line}");
}

#[test]
fn a_stream_of_vmdk_is_read_as_it_comes() {
    let (dir, images) = images();
    let whole = disk();
    let ways = [
        ("convert -O raw /dev/stdin out", "raw"),
        ("convert -f vmdk -O qcow2 /dev/stdin out", "qcow2"),
        ("convert -S 0 -O raw /dev/stdin out", "raw"),
        ("convert -c -W -m 4 -O qcow2 /dev/stdin out", "qcow2"),
        (
            "convert -O vmdk -o subformat=streamOptimized /dev/stdin out",
            "vmdk",
        ),
        ("dd bs=64k of=out", "raw"),
    ];
    for (name, _) in &images {
        // One that comes from a pipe goes there in every way.
        let some = if *name == "passed.vmdk" {
            ways.len()
        } else {
            2
        };
        for (line, target) in &ways[..some] {
            let out = through_pipe(&dir, line, name);
            assert!(
                out.status.success() && out.stderr.is_empty(),
                "{line}: {out:?}"
            );
            dir.qemu_img_ok(&words(&format!("compare -f raw -F {target} r.raw out")));
            std::fs::remove_file(dir.path("out")).expect("a file");
        }
        // A part of it, of which the end need not come.
        let out = through_pipe(&dir, "dd bs=64k skip=1 count=3 of=out", name);
        assert!(out.status.success(), "{out:?}");
        let part = std::fs::read(dir.path("out")).expect("a file");
        assert!(part == whole[64 << 10..256 << 10]);
        std::fs::remove_file(dir.path("out")).expect("a file");
    }
    // From one pipe into another, with the checksum of what the guest sees.
    let line = "convert --checksum sha256 -O raw /dev/stdin out";
    let sum = |out: &Output| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.split_whitespace()
            .find(|word| word.len() == 64)
            .map(str::to_owned)
    };
    let of_disk = Command::new("sha256sum").arg(dir.path("r.raw")).output();
    let of_disk = sum(&of_disk.expect("sha256sum"));
    assert!(of_disk.is_some());
    for (name, _) in &images {
        assert_eq!(sum(&through_pipe(&dir, line, name)), of_disk);
    }
    let out = through_pipe(&dir, "dd", "passed.vmdk");
    assert!(out.status.success() && out.stdout == whole);
    let line = "convert -O vmdk -o subformat=streamOptimized /dev/stdin /dev/stdout";
    let out = through_pipe(&dir, line, "theirs.vmdk");
    assert!(out.status.success(), "{:?}", out.stderr);
    let same = std::fs::read(dir.path("passed.vmdk"))
        .expect("a file")
        .len();
    assert_eq!(out.stdout.len(), same);
}

#[test]
fn what_does_not_come_is_told_and_leaves_nothing() {
    let (dir, images) = images();
    for (name, len) in images {
        let whole = std::fs::read(dir.path(name)).expect("a file");
        // Within the header, the descriptor, the first grains, and the last one.
        for cut in [100, 1000, 200_000, len / 2] {
            std::fs::write(dir.path("cut"), &whole[..cut]).expect("a file");
            for line in ["convert -f vmdk -O raw /dev/stdin out", "dd -f vmdk of=out"] {
                refused(&dir, line, "cut", "/dev/stdin");
            }
        }
        // A grain that was lost on the way.
        let mut damaged = whole.clone();
        let first = whole
            .chunks(512)
            .skip(128)
            .position(|sector| sector.starts_with(&[128, 0]));
        let first = (128 + first.expect("the second grain")) * 512;
        damaged[first + 12..first + 40].fill(0x55);
        std::fs::write(dir.path("cut"), &damaged).expect("a file");
        refused(&dir, "convert -O qcow2 /dev/stdin out", "cut", "is damaged");
    }
}

#[test]
fn what_cannot_be_read_in_order_is_refused() {
    let (dir, _) = images();
    dir.qemu_img_ok(&words("convert -f raw -O vmdk r.raw sparse.vmdk"));
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 r.raw a.qcow2"));
    for (line, input, expected) in [
        ("convert /dev/stdin out", "sparse.vmdk", "it is no stream"),
        (
            "convert /dev/stdin out",
            "a.qcow2",
            "looks like a qcow2 image",
        ),
        ("convert -f qcow2 /dev/stdin out", "a.qcow2", "cannot be"),
        (
            "convert -f vmdk /dev/stdin out",
            "a.qcow2",
            "not in VMDK format",
        ),
        (
            "convert -l x -f vmdk /dev/stdin out",
            "ours.vmdk",
            "a snapshot cannot be",
        ),
    ] {
        refused(&dir, line, input, expected);
    }
}
