//! `convert --checksum sha256`: the digest of what the guest sees, whatever is read and written.

use std::process::{Command, Stdio};

use crate::build;
use crate::common::{Dir, Ran};
use crate::given::GIVEN;
use crate::pair::{ours, piped};

fn sum(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut tool = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum");
    let mut input = tool.stdin.take().expect("a pipe");
    input.write_all(bytes).expect("to write");
    drop(input);
    let out = tool.wait_with_output().expect("sha256sum").stdout;
    String::from_utf8_lossy(&out)
        .split(' ')
        .next()
        .expect("a sum")
        .to_owned()
}

/// A disk with data, holes, and zeroes among the data.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 12 << 20];
    let mut state = 3u32;
    for byte in &mut disk[(2 << 20) + 512..6 << 20] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    disk[3 << 20..(3 << 20) + 100_000].fill(0);
    disk[9 << 20..(9 << 20) + 300_000].fill(0x41);
    disk
}

fn run(dir: &Dir, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    ours(&words, dir.root())
}

#[track_caller]
fn sums(dir: &Dir, line: &str, expected: &str) {
    let ran = run(dir, line);
    assert_eq!(
        (ran.code, &*ran.err, &*ran.out),
        (0, "", &*format!("sha256: {expected}\n")),
        "{line}"
    );
}

#[test]
fn the_digest_has_a_line_of_its_own_behind_the_progress() {
    let dir = crate::common::Dir::new();
    std::fs::write(dir.path("a.raw"), [7; 4096]).expect("a file");
    let line = "convert -p --checksum sha256 -O raw a.raw b.raw";
    let ran = crate::pair::ours(&crate::pair::words(line), dir.root());
    let digest = ran.out.lines().last().expect("a line");
    assert!(
        digest.starts_with("sha256: ") && digest.len() == 72,
        "{ran:?}"
    );
}

#[test]
fn the_sum_is_that_of_the_disk_whatever_it_becomes() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), disk()).expect("a file");
    let expected = sum(&disk());
    dir.qemu_img_ok(&["convert", "-O", "qcow2", "raw", "a.qcow2"]);
    dir.qemu_img_ok(&["convert", "-c", "-O", "qcow2", "raw", "c.qcow2"]);
    for source in ["raw", "a.qcow2", "c.qcow2"] {
        for target in [
            "-O raw",
            "-O qcow2",
            "-c -O qcow2",
            "-S 0 -O raw",
            "-W -m 8 -O qcow2",
            "-m 1 -O vmdk",
            "-O vmdk -o subformat=streamOptimized",
            "-C -O raw",
        ] {
            sums(
                &dir,
                &format!("convert --checksum sha256 {target} {source} out"),
                &expected,
            );
            std::fs::remove_file(dir.path("out")).expect("a file");
        }
    }
    dir.qemu_img_ok(&["create", "-f", "qcow2", "out", "12M"]);
    sums(
        &dir,
        "convert --checksum sha256 -n -O qcow2 a.qcow2 out",
        &expected,
    );
    sums(
        &dir,
        "convert --checksum sha256 -n -c -O qcow2 a.qcow2 out",
        &expected,
    );
    let twice = sum(&[disk(), disk()].concat());
    sums(
        &dir,
        "convert --checksum sha256 -O qcow2 a.qcow2 c.qcow2 both",
        &twice,
    );
}

/// Every format that is written, with options of creation.
const WRITTEN: [(&str, &str); 18] = [
    ("raw", ""),
    ("qcow2", " -o extended_l2=on"),
    ("qcow", ""),
    ("qcow", " -c"),
    ("qed", ""),
    ("parallels", ""),
    ("vdi", ""),
    ("vdi", " -o static=on"),
    ("vpc", " -o force_size=on"),
    ("vpc", " -o subformat=fixed,force_size=on"),
    ("vhdx", ""),
    ("vhdx", " -o subformat=fixed"),
    ("vmdk", ""),
    ("vmdk", " -o subformat=monolithicFlat"),
    ("vmdk", " -o subformat=twoGbMaxExtentSparse"),
    ("vmdk", " -o subformat=twoGbMaxExtentFlat"),
    ("vmdk", " -o subformat=streamOptimized"),
    ("vmdk", " -o zeroed_grain=on"),
];

#[test]
fn every_format_is_summed_as_the_target_and_as_the_source() {
    let dir = Dir::new();
    let mut disk = disk();
    disk.truncate(3 << 20);
    std::fs::write(dir.path("raw"), &disk).expect("a file");
    let expected = sum(&disk);
    for (n, (format, options)) in WRITTEN.into_iter().enumerate() {
        for line in [
            format!("-f raw -O {format}{options} raw {n}.{format}"),
            format!("-f {format} -O raw {n}.{format} back"),
        ] {
            sums(
                &dir,
                &format!("convert --checksum sha256 {line}"),
                &expected,
            );
        }
    }
    let secret = "--object secret,id=s,data=secret";
    let luks = "driver=luks,key-secret=s,file.filename=luks";
    for line in [
        format!("{secret} -f raw -O luks -o key-secret=s,iter-time=10 raw luks"),
        format!("{secret} --image-opts -O raw {luks} back"),
    ] {
        sums(
            &dir,
            &format!("convert --checksum sha256 {line}"),
            &expected,
        );
    }
    for (n, given) in GIVEN.iter().enumerate() {
        let (guest, image) = given.make();
        let name = format!("given-{n}.{}", given.format);
        std::fs::write(dir.path(&name), image).expect("a file");
        let line = format!(
            "convert --checksum sha256 -f {} -O raw {name} back",
            given.format
        );
        sums(&dir, &line, &sum(&guest));
    }
}

#[test]
fn what_the_backing_file_holds_is_part_of_it() {
    let dir = Dir::new();
    std::fs::write(dir.path("base"), disk()).expect("a file");
    dir.qemu_img_ok(&[
        "create",
        "-f",
        "qcow2",
        "-b",
        "base",
        "-F",
        "raw",
        "top.qcow2",
    ]);
    dir.qemu_io(
        "qcow2",
        "top.qcow2",
        &["write -P 0x77 1M 300k", "write -z 4M 1M"],
    );
    let mut changed = disk();
    changed[1 << 20..(1 << 20) + (300 << 10)].fill(0x77);
    changed[4 << 20..5 << 20].fill(0);
    let expected = sum(&changed);
    for options in ["", "-c "] {
        let line =
            format!("convert --checksum sha256 {options}-O qcow2 -B base -F raw top.qcow2 out");
        sums(&dir, &line, &expected);
    }
    sums(
        &dir,
        "convert --checksum sha256 --chain -O qcow2 top.qcow2 chain",
        &expected,
    );
}

#[test]
fn a_disk_that_goes_to_stdout_keeps_its_sum_apart() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), disk()).expect("a file");
    let out = Command::new(build::tool())
        .args(["convert", "--checksum", "sha256", "raw", "/dev/stdout"])
        .current_dir(dir.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the tool");
    assert!(out.status.success(), "{:?}", out.status);
    assert!(out.stdout == disk());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(text, format!("sha256: {}\n", sum(&disk())));
}

#[test]
fn of_a_compressed_file_both_sums_are_taken() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), disk()).expect("a file");
    for (tool, name) in [("xz", "raw.xz"), ("gzip", "raw.gz")] {
        let packed = Command::new(tool)
            .args(["-1", "-c"])
            .arg(dir.path("raw"))
            .output();
        let packed = packed.expect("the tool").stdout;
        std::fs::write(dir.path(name), &packed).expect("a file");
        let ran = run(
            &dir,
            &format!("convert --decompress --checksum sha256 {name} out"),
        );
        let expected = format!(
            "sha256: {}\ncontainer-sha256: {}\n",
            sum(&disk()),
            sum(&packed)
        );
        assert_eq!((ran.code, &*ran.out), (0, &*expected), "{ran:?}");
        // What is kept in a temporary file comes through a pipe but once, too.
        let line = "convert --decompress --checksum sha256 -O qcow2 /dev/stdin out.qcow2";
        let ran = piped(line, dir.root(), &dir.path(name));
        assert_eq!(String::from_utf8_lossy(&ran.stdout), expected, "{ran:?}");
    }
    // Images are unpacked into a temporary file, or in parts: xz of several blocks.
    dir.qemu_img_ok(&["convert", "-O", "qcow2", "raw", "a.qcow2"]);
    let mut both = (Vec::new(), Vec::new());
    for (tool, name) in [
        ("gzip -1 -c", "a.gz"),
        ("xz -1 --block-size=1MiB -c", "a.xz"),
    ] {
        let packing = format!("{tool} a.qcow2 > {name}");
        let mut packing = Command::new("sh")
            .args(["-c", &packing])
            .current_dir(dir.root())
            .spawn();
        assert!(packing.as_mut().expect("sh").wait().expect("sh").success());
        let packed = std::fs::read(dir.path(name)).expect("a file");
        let expected = format!(
            "sha256: {}\ncontainer-sha256: {}\n",
            sum(&disk()),
            sum(&packed)
        );
        both.0.extend(disk());
        both.1.extend(packed);
        for target in ["-O vmdk", "--chain -O qcow2"] {
            let line = format!("convert --decompress --checksum sha256 {target} {name} {name}.out");
            let ran = run(&dir, &line);
            assert_eq!((ran.code, &*ran.out), (0, &*expected), "{ran:?}");
            let made = dir.path(&format!("{name}.out"));
            let _ = std::fs::remove_file(&made).or_else(|_| std::fs::remove_dir_all(&made));
        }
    }
    let ran = run(
        &dir,
        "convert --decompress --checksum sha256 -O qcow2 a.gz a.xz both",
    );
    let expected = format!(
        "sha256: {}\ncontainer-sha256: {}\n",
        sum(&both.0),
        sum(&both.1)
    );
    assert_eq!((ran.code, &*ran.out), (0, &*expected), "{ran:?}");
    let ran = run(&dir, "convert --checksum md4 raw out");
    assert!(
        ran.code == 1 && ran.err.contains("Unknown checksum 'md4'"),
        "{ran:?}"
    );
}

#[test]
fn both_sums_are_taken_wherever_the_filter_stands_that_decompresses() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), disk()).expect("a file");
    dir.qemu_img_ok(&["convert", "-O", "qcow2", "raw", "a.qcow2"]);
    let packing = "gzip -1 -k raw a.qcow2; xz -1 -k --block-size=1MiB raw; xz -1 -k raw.gz";
    let packed = Command::new("sh")
        .args(["-c", packing])
        .current_dir(dir.root())
        .status();
    assert!(packed.expect("sh").success());
    let base = r#"json:{"driver":"raw","file":{"driver":"decompress","file":{"driver":"file","filename":"raw.gz"}}}"#;
    let bare = r#"json:{"driver":"decompress","file":{"driver":"file","filename":"raw.xz"}}"#;
    let made = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        base,
        "-F",
        "raw",
        "top.qcow2",
    ];
    assert_eq!(ours(&made, dir.root()).code, 0);
    let opts = "--image-opts";
    for (source, file) in [
        (
            &[opts, "driver=decompress,file.filename=raw.gz"][..],
            "raw.gz",
        ),
        (&[opts, "driver=decompress,file.filename=raw.xz"], "raw.xz"),
        (
            &[
                opts,
                "driver=raw,file.driver=decompress,file.file.filename=raw.gz",
            ],
            "raw.gz",
        ),
        (
            &[
                opts,
                "driver=qcow2,file.driver=decompress,file.file.filename=a.qcow2.gz",
            ],
            "a.qcow2.gz",
        ),
        (
            &[
                opts,
                "driver=throttle,throttle-group=t,file.driver=decompress,file.file.filename=raw.xz",
                "--object",
                "throttle-group,id=t",
            ],
            "raw.xz",
        ),
        // Compressed twice: the file is that which lies there.
        (
            &[
                opts,
                "driver=decompress,file.driver=decompress,file.file.filename=raw.gz.xz",
            ],
            "raw.gz.xz",
        ),
        (&["-f", "raw", base], "raw.gz"),
        (&[bare], "raw.xz"),
        // The base is copied as well.
        (&["-f", "qcow2", "top.qcow2"], "raw.gz"),
        (&["--chain", "-f", "qcow2", "top.qcow2"], "raw.gz"),
    ] {
        let mut words = vec!["convert", "--checksum", "sha256", "-O", "qcow2"];
        words.extend(source);
        words.push("out");
        let ran = ours(&words, dir.root());
        let container = sum(&std::fs::read(dir.path(file)).expect("a file"));
        let expected = format!("sha256: {}\ncontainer-sha256: {container}\n", sum(&disk()));
        assert_eq!((ran.code, &*ran.out), (0, &*expected), "{source:?} {ran:?}");
        let made = dir.path("out");
        let removed = std::fs::remove_file(&made).or_else(|_| std::fs::remove_dir_all(&made));
        removed.expect("a target");
    }
    // The target stands on the base, which is not read.
    let words = [
        "convert",
        "--checksum",
        "sha256",
        "-O",
        "qcow2",
        "-f",
        "qcow2",
        "-B",
        base,
        "-F",
        "raw",
        "top.qcow2",
        "out",
    ];
    let ran = ours(&words, dir.root());
    let expected = format!("sha256: {}\n", sum(&disk()));
    assert_eq!((ran.code, &*ran.out), (0, &*expected), "{ran:?}");
}
