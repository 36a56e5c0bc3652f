//! `dd`: blocks of images, and of pipes at both ends.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::common::{Dir, Ran};
use crate::pair::{Pair, ours, ours_command, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 1M",
        "create -q -f qcow2 snap.qcow2 1M",
    ]);
    pair.qemu_io("qcow2", "a.qcow2", &["write -P 5 0 128k", "write 700k 3k"]);
    pair.file("r.raw", &bytes(300_000));
    pair
}

/// Bytes without a period that any block has, and a run of zeroes.
fn bytes(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|n| (n * n / 7 % 253) as u8 + 1).collect();
    for byte in bytes.iter_mut().skip(len / 3).take(len / 4) {
        *byte = 0;
    }
    bytes
}

/// Runs ours with `input` on a pipe as its standard input; its standard output comes back.
fn piped(dir: &Dir, line: &str, input: &[u8]) -> (Ran, Vec<u8>) {
    let mut child = ours_command(&words(line), dir.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may end without having read everything.
            let _ = stdin.write_all(input);
        });
        stdout.read_to_end(&mut out).expect("its output");
    });
    let output = child.wait_with_output().expect("its end");
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::new(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (ran, out)
}

#[track_caller]
fn refused(dir: &Dir, line: &str, input: &[u8], text: &str) {
    let (ran, out) = piped(dir, line, input);
    assert_eq!(ran.code, 1, "{line}: {ran:?}");
    assert!(ran.err.contains(text), "{line}: {ran:?}");
    assert!(out.is_empty(), "{line}");
    assert!(!dir.path("x").exists(), "{line}");
}

/// What a disk of these bytes holds: whole sectors.
fn disk(bytes: &[u8]) -> Vec<u8> {
    let mut disk = bytes.to_vec();
    disk.resize(bytes.len().next_multiple_of(512), 0);
    disk
}

#[test]
fn copies_are_the_same() {
    let pair = images();
    for (number, line) in [
        "if=r.raw",
        "if=a.qcow2",
        "-f qcow2 if=a.qcow2",
        "-f raw if=a.qcow2",
        "-U if=a.qcow2",
        "--image-opts if=driver=qcow2,file.filename=a.qcow2",
        "if=r.raw bs=3",
        "if=r.raw bs=1M",
        "if=r.raw bs=2147483647",
        "if=r.raw bs=1.5k count=2",
        "if=r.raw bs=0x200 count=1",
        "if=r.raw bs=+1k count=+3",
        "if=r.raw bs=1 count=010",
        "if=r.raw bs=1b count=0x10",
        "if=r.raw count=0",
        "if=r.raw count=9223372036854775807",
        "if=r.raw skip=586",
        "if=r.raw bs=300032 skip=1",
        "if=r.raw bs=99990 skip=3",
        "if=a.qcow2 bs=100 skip=17",
        "if=a.qcow2 bs=100 count=1000",
        "if=r.raw if=a.qcow2",
        "if=/dev/null",
        "if=a.qcow2 -O qcow2 bs=4k skip=3",
        "if=r.raw -O qcow2",
        "if=r.raw -O qcow2 bs=1k count=7",
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("x{number}");
        pair.same(&format!("dd {line} of={target}"));
        if line.contains("-O qcow2") {
            pair.same_image(&target, "qcow2");
        } else {
            let read = |dir: &Dir| std::fs::read(dir.path(&target)).expect("a target");
            assert!(read(pair.ours()) == read(pair.theirs()), "{line}");
        }
    }
}

#[test]
fn mistakes_are_the_same() {
    images().all_same(&[
        "dd foo if=r.raw of=x",
        "dd foo=1 if=r.raw of=x",
        "dd if=r.raw of=x conv=fdatasync",
        "dd if r.raw",
        "dd =x",
        "dd if=r.raw of=x bs=",
        "dd if=r.raw of=x bs=0",
        "dd if=r.raw of=x bs=-1",
        "dd if=r.raw of=x bs=1kB",
        "dd if=r.raw of=x bs=2147483648",
        "dd if=r.raw of=x count=",
        "dd if=r.raw of=x count=1k",
        "dd if=r.raw of=x count=3.5",
        "dd if=r.raw of=x count=-1",
        "dd if=r.raw of=x count=99999999999999999999",
        "dd if=r.raw of=x skip=-1",
        "dd if=r.raw of=x skip=k",
        "dd if=nope of=x",
        "dd if= of=x",
        "dd if=. of=x",
        "dd if=foo:x of=x",
        "dd if=r.raw of=",
        "dd if=r.raw of=.",
        "dd if=r.raw of=/nonexistent/x",
        "dd if=r.raw of=foo:x",
        "dd if=r.raw of=json:{}",
        "dd -O bogus if=r.raw of=x",
        "dd -O bogus if=nope of=x",
        "dd -O luks if=r.raw of=x",
        "dd -f bogus if=r.raw of=x",
        "dd -f qcow2 if=r.raw of=x",
        "dd --image-opts -f raw if=driver=raw,file.filename=r.raw of=x",
        "dd -t none if=r.raw of=x",
        "dd --bogus",
        "dd -O",
    ]);
}

/// `qemu-img dd` counts the blocks of `count=` from the beginning of the input, so that with `skip=`
/// it copies fewer than asked for, or none. Its manual and dd(1) say otherwise.
#[test]
fn count_counts_behind_what_is_skipped() {
    let pair = images();
    let content = bytes(300_000);
    for (skip, count, size) in [(1, 1, 100_000), (2, 1, 100_000), (1, 9, 200_000)] {
        let line = format!("dd if=r.raw of=x bs=100000 skip={skip} count={count}");
        let ran = ours(&words(&line), pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
        let wanted = &content[skip * 100_000..][..size];
        assert!(
            std::fs::read(pair.ours().path("x")).unwrap() == disk(wanted),
            "{line}"
        );
    }
}

/// `qemu-img dd` says so too, but makes an empty disk and ends with 0.
#[test]
fn a_skip_past_the_end_makes_nothing() {
    let pair = images();
    for skip in ["587", "9223372036854775807"] {
        let ran = ours(
            &words(&format!("dd if=r.raw of=x skip={skip}")),
            pair.ours().root(),
        );
        assert_eq!(ran.code, 1);
        assert_eq!(
            ran.err,
            "qemu-img: r.raw: cannot skip to specified offset\n"
        );
        assert!(!pair.ours().path("x").exists());
    }
    let content = bytes(1000);
    refused(
        pair.ours(),
        "dd bs=1 skip=1001 of=x",
        &content,
        "cannot skip",
    );
}

/// `qemu-img dd if=X of=X` destroys X.
#[test]
fn a_file_is_not_copied_onto_itself() {
    let pair = images();
    let dir = pair.ours();
    std::fs::hard_link(dir.path("r.raw"), dir.path("link")).unwrap();
    std::os::unix::fs::symlink("r.raw", dir.path("soft")).unwrap();
    for line in [
        "dd if=r.raw of=r.raw",
        "dd if=r.raw of=./r.raw",
        "dd if=r.raw of=link",
        "dd if=soft of=r.raw bs=1k count=1",
        "dd -n if=r.raw of=soft",
    ] {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 1, "{line}");
        assert!(ran.err.contains("onto itself"), "{line}: {ran:?}");
        assert!(std::fs::read(dir.path("r.raw")).unwrap() == bytes(300_000));
    }
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(dir.path("link"))
        .unwrap();
    let status = ours_command(&words("dd if=r.raw"), dir.root())
        .stdout(file)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(std::fs::read(dir.path("r.raw")).unwrap() == bytes(300_000));
}

#[test]
fn pipes_at_both_ends() {
    let pair = images();
    let dir = pair.ours();
    let content = bytes(3_000_001);
    let (ran, out) = piped(dir, "dd", &content);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(out == disk(&content));

    for (line, wanted) in [
        ("dd if=- of=-", &content[..]),
        ("dd if=/dev/stdin of=/dev/stdout", &content),
        (
            "dd -f raw -O raw bs=1000 skip=3 count=7",
            &content[3000..10_000],
        ),
        ("dd bs=1000 skip=2990", &content[2_990_000..]),
        ("dd isize=3000001", &content),
        ("dd isize=70000 bs=1 skip=1", &content[1..70_000]),
        ("dd bs=1 count=600", &content[..600]),
        ("convert -O raw /dev/stdin /dev/stdout", &content),
        (
            "convert -S 0 -m 1 -f raw -O raw /dev/stdin /dev/stdout",
            &content,
        ),
    ] {
        let (ran, out) = piped(dir, line, &content);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        assert!(out == disk(wanted), "{line}");
    }
    let (ran, out) = piped(dir, "dd osize=3100160", &content);
    assert_eq!((ran.code, out.len()), (0, 3_100_160));
    assert!(out[..content.len()] == content[..]);
    assert!(out[content.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn from_a_pipe_into_a_file() {
    let pair = images();
    let dir = pair.ours();
    let content = bytes(2_500_000);
    std::fs::write(dir.path("content"), &content).unwrap();
    for (number, (line, size)) in [
        ("dd", 2_500_096),
        ("dd osize=5M", 5 << 20),
        ("dd -O qcow2 isize=2500000", 2_500_096),
        ("dd -O qcow2 osize=4M", 4 << 20),
        ("dd -O qcow2 osize=4M isize=2500000", 4 << 20),
        ("convert -O raw /dev/stdin", 2_500_096),
        ("convert -O qcow2 -o size=3M /dev/stdin", 3 << 20),
        ("convert -c -O qcow2 -o size=3M /dev/stdin", 3 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("x{number}");
        let operand = if line.starts_with("dd") { "of=" } else { "" };
        let (ran, _) = piped(dir, &format!("{line} {operand}{name}"), &content);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        let info = dir.qemu_img_ok(&["info", "--output=json", &name]);
        assert!(
            info.contains(&format!("\"virtual-size\": {size}")),
            "{line}: {info}"
        );
        let compared = dir.qemu_img(&["compare", "-f", "raw", "content", &name]);
        assert_eq!(compared.code, 0, "{line}: {compared:?}");
        if line.contains("qcow2") {
            dir.qemu_img_ok(&["check", &name]);
        }
    }
    let raw = dir.path("x0");
    use std::os::unix::fs::MetadataExt;
    let taken = raw.metadata().unwrap().blocks() * 512;
    assert!(taken < 2_400_000, "zeroes take no space: {taken}");
}

#[test]
fn into_an_image_that_exists() {
    let pair = images();
    let dir = pair.ours();
    let content = bytes(100_000);
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "t.qcow2", "1M"]);
    dir.qemu_io("qcow2", "t.qcow2", &["write -P 9 0 1M"]);
    let (ran, _) = piped(dir, "dd -n -O qcow2 of=t.qcow2", &content);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    dir.qemu_img_ok(&["convert", "-O", "raw", "t.qcow2", "t.raw"]);
    let mut wanted = vec![9; 1 << 20];
    wanted[..disk(&content).len()].copy_from_slice(&disk(&content));
    assert!(std::fs::read(dir.path("t.raw")).unwrap() == wanted);
    for line in [
        "dd -n -O qcow2 of=t.qcow2",
        "dd -n -O qcow2 osize=2M of=t.qcow2",
    ] {
        let (ran, _) = piped(dir, line, &bytes(1_048_577));
        assert_eq!(ran.code, 1, "{line}");
        assert_eq!(
            ran.err,
            "qemu-img: output file is smaller than input file\n"
        );
    }
}

#[test]
fn a_snapshot_of_an_image() {
    let pair = images();
    let dir = pair.ours();
    dir.qemu_io("qcow2", "snap.qcow2", &["write -P 7 0 64k"]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", "snap.qcow2"]);
    dir.qemu_io("qcow2", "snap.qcow2", &["write -P 8 0 64k"]);
    let (ran, out) = piped(dir, "dd -l one if=snap.qcow2 bs=1k count=2", b"");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(out, vec![7; 2048]);
    let ran = ours(&words("dd -l two if=snap.qcow2 of=x"), dir.root());
    assert_eq!(
        ran.err,
        "qemu-img: Failed to load snapshot: Can't find snapshot\n"
    );
}

#[test]
fn what_a_stream_cannot_be() {
    let pair = images();
    let dir = pair.ours();
    let content = bytes(5000);
    let image = std::fs::read(dir.path("a.qcow2")).unwrap();
    for (line, input, text) in [
        (
            "dd -O qcow2 of=x",
            &content,
            "give that of the input or of the output",
        ),
        (
            "convert -O qcow2 /dev/stdin x",
            &content,
            "give the option 'size'",
        ),
        (
            "dd isize=5001 of=x",
            &content,
            "ended after 5000 of 5001 bytes",
        ),
        ("dd -O qcow2 isize=1M of=x", &content, "ended after 5000"),
        ("dd osize=4999 of=x", &content, "longer than the 4999 bytes"),
        (
            "dd -O qcow2 osize=4k of=x",
            &content,
            "longer than the 4096 bytes",
        ),
        ("dd isize=5000 osize=4999 of=x", &content, "longer"),
        ("dd of=x", &image, "looks like a qcow2 image"),
        ("dd -f qcow2 of=x", &image, "format 'qcow2' cannot be"),
        ("dd -l one of=x", &content, "a snapshot cannot be"),
        (
            "dd -O qcow2 if=r.raw",
            &content,
            "takes the format raw only",
        ),
        (
            "convert -O qcow2 r.raw /dev/stdout",
            &content,
            "format 'qcow2' cannot be",
        ),
        (
            "convert -c -O raw r.raw /dev/stdout",
            &content,
            "Compression not supported",
        ),
        (
            "convert -O raw r.raw /dev/stdin x",
            &content,
            "read in order",
        ),
        (
            "dd if=r.raw osize=4k of=x",
            &content,
            "longer than the 4096",
        ),
        (
            "dd if=r.raw isize=1M of=x",
            &content,
            "fewer than the 1048576",
        ),
    ] {
        refused(dir, line, input, text);
    }
    let (ran, out) = piped(dir, "dd -f raw", &image);
    assert_eq!(ran.code, 0);
    assert!(out == image, "named raw, its bytes are copied as they are");
}

#[test]
fn the_other_end_goes_away() {
    let pair = images();
    let dir = pair.ours();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "big.raw", "8M"]);
    for line in ["dd if=big.raw", "convert -O raw big.raw /dev/stdout"] {
        let mut child = ours_command(&words(line), dir.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {err}");
        assert!(
            err.ends_with("Could not write to '/dev/stdout': Broken pipe\n"),
            "{line}: {err}"
        );
    }
    let ran = ours(&words("dd if=big.raw of=/dev/full"), dir.root());
    assert!(ran.code == 1 && ran.err.contains("No space left on device"));
    for line in ["dd if=big.raw of=/dev/null", "convert big.raw /dev/null"] {
        assert_eq!(ours(&words(line), dir.root()).code, 0, "{line}");
    }
}

#[test]
fn a_signal_ends_the_wait_for_a_pipe() {
    let dir = Dir::new();
    for line in ["dd of=x", "convert -O raw /dev/stdin x"] {
        let mut child = ours_command(&words(line), dir.root())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&[1; 3 << 20]).unwrap();
        while !dir.path("x").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        let killed = std::process::Command::new("kill").arg(&pid).status();
        assert!(killed.unwrap().success());
        assert!(!child.wait().unwrap().success(), "{line}");
        assert!(!dir.path("x").exists(), "{line}");
    }
}

#[test]
fn named_pipes_wait_for_their_other_end() {
    let pair = images();
    let dir = pair.ours();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path("pipe"))
        .status();
    assert!(made.unwrap().success());
    let content = bytes(400_000);
    std::thread::scope(|scope| {
        let out = scope.spawn(|| std::fs::read(dir.path("pipe")).unwrap());
        let ran = ours(&words("dd if=r.raw of=pipe"), dir.root());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(out.join().unwrap() == disk(&bytes(300_000)));
    });
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(dir.path("pipe"), &content).unwrap());
        let ran = ours(&words("dd if=pipe of=y.raw"), dir.root());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    });
    assert!(std::fs::read(dir.path("y.raw")).unwrap() == disk(&content));
}

#[test]
fn a_stream_that_is_the_target_is_refused_before_it_is_emptied() {
    let dir = Dir::new();
    std::fs::write(dir.path("a"), vec![7; 1 << 20]).unwrap();
    for line in [
        "dd if=/dev/stdin of=a",
        "dd if=/dev/fd/0 of=b",
        "convert -O raw /dev/stdin a",
        "convert -O qcow2 /dev/stdin b",
        "convert -n -O raw /dev/stdin a",
    ] {
        std::fs::remove_file(dir.path("b")).ok();
        std::fs::hard_link(dir.path("a"), dir.path("b")).unwrap();
        let output = ours_command(&words(line), dir.root())
            .stdin(std::fs::File::open(dir.path("a")).unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        assert_eq!(
            std::fs::read(dir.path("a")).unwrap(),
            vec![7; 1 << 20],
            "{line}"
        );
    }
}
