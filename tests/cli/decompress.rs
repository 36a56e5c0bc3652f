//! Compressed files as sources: `convert --decompress`, and `driver=decompress` in every command that reads.

use std::process::Command;

use crate::common::{Dir, Ran};
use crate::nbd::server::{self as nbd_server, nbdkit_is_missing};
use crate::pair::{ours, piped};
use crate::site::Serves as _;
use crate::{ftp, http, ssh};

/// The tools, each with the ending of its files.
const TOOLS: [(&str, &str); 5] = [
    ("bzip2", "bz2"),
    ("gzip", "gz"),
    ("lz4", "lz4"),
    ("xz", "xz"),
    ("zstd", "zst"),
];

/// A disk with data, holes, and an odd tail.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 9 << 20];
    let mut state = 1u32;
    for byte in &mut disk[3 << 20..5 << 20] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = b"0123456789abcdef"[(state >> 28) as usize];
    }
    disk[(9 << 20) - 1] = 7;
    disk
}

/// Packs a file with the real tool.
fn pack(dir: &Dir, tool: &str, arguments: &[&str], from: &str, to: &str) {
    let out = Command::new(tool)
        .args(arguments)
        .arg("-c")
        .arg(dir.path(from))
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(out.status.success(), "{tool}: {out:?}");
    std::fs::write(dir.path(to), out.stdout).expect("a file");
}

fn images() -> Dir {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), disk()).expect("a file");
    dir.qemu_img_ok(&["convert", "-O", "qcow2", "raw", "a.qcow2"]);
    for (tool, ending) in TOOLS {
        for name in ["raw", "a.qcow2"] {
            pack(&dir, tool, &["-1"], name, &format!("{name}.{ending}"));
        }
    }
    dir
}

fn run(dir: &Dir, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    ours(&words, dir.root())
}

fn done(dir: &Dir, line: &str) -> Ran {
    let ran = run(dir, line);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}: {ran:?}");
    ran
}

#[test]
fn every_kind_becomes_every_format() {
    let dir = images();
    for (tool, ending) in TOOLS {
        for name in ["raw", "a.qcow2"] {
            for (option, format) in [
                ("", "raw"),
                ("=auto", "qcow2"),
                (&*format!("={tool}"), "raw"),
            ] {
                let line = format!("convert --decompress{option} -O {format} {name}.{ending} out");
                done(&dir, &line);
                let same = dir.qemu_img(&["compare", "-f", "raw", "-F", format, "raw", "out"]);
                assert_eq!(same.code, 0, "{line}: {same:?}");
                std::fs::remove_file(dir.path("out")).expect("a file");
            }
        }
    }
    // Holes stay holes.
    done(&dir, "convert --decompress raw.xz out");
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(dir.path("out")).expect("a file").blocks();
    assert!(blocks * 512 < 3 << 20, "{blocks} blocks");
    // Blocks and frames by themselves.
    pack(&dir, "xz", &["-1", "--block-size=1MiB"], "raw", "blocks.xz");
    pack(&dir, "zstd", &["-1", "-B1M", "-T2"], "raw", "blocks.zst");
    let twice = [
        std::fs::read(dir.path("raw.zst")),
        std::fs::read(dir.path("raw.zst")),
    ];
    let twice: Vec<u8> = twice
        .into_iter()
        .flat_map(|bytes| bytes.expect("a file"))
        .collect();
    std::fs::write(dir.path("twice.zst"), twice).expect("a file");
    for name in ["blocks.xz", "blocks.zst"] {
        done(&dir, &format!("convert --decompress {name} out"));
        assert!(
            std::fs::read(dir.path("out")).expect("a file") == disk(),
            "{name}"
        );
    }
    done(&dir, "convert --decompress -O qcow2 twice.zst out");
    done(&dir, "convert -O raw out both");
    assert!(std::fs::read(dir.path("both")).expect("a file") == [disk(), disk()].concat());
}

#[test]
fn a_pipe_is_unpacked_as_it_comes() {
    let dir = images();
    for (_, ending) in TOOLS {
        let line = "convert --decompress /dev/stdin out";
        let out = piped(line, dir.root(), &dir.path(&format!("raw.{ending}")));
        assert!(out.status.success(), "{ending}: {out:?}");
        assert!(
            std::fs::read(dir.path("out")).expect("a file") == disk(),
            "{ending}"
        );
        std::fs::remove_file(dir.path("out")).expect("a file");
    }
    // What is no plain disk is kept in a temporary file, whether its format is named or not; so is a disk for a
    // target that needs its length.
    for line in [
        "convert --decompress /dev/stdin out",
        "convert --decompress -f qcow2 -O qcow2 -c /dev/stdin out",
        "convert --decompress --salvage /dev/stdin out",
    ] {
        let out = piped(line, dir.root(), &dir.path("a.qcow2.xz"));
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{line}: {out:?}"
        );
        dir.qemu_img_ok(&["compare", "-f", "raw", "raw", "out"]);
        std::fs::remove_file(dir.path("out")).expect("a file");
    }
    let line = "convert --decompress -O qcow2 /dev/stdin out";
    let out = piped(line, dir.root(), &dir.path("raw.gz"));
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    dir.qemu_img_ok(&["compare", "-f", "raw", "raw", "out"]);
    std::fs::remove_file(dir.path("out")).expect("a file");
    // Within bounds, and nothing is left where it is no image of that format, or damaged.
    for (line, input, expected) in [
        (
            "convert --decompress --max-spool 1M /dev/stdin out",
            "a.qcow2.gz",
            "(1048576 bytes)",
        ),
        (
            "convert --decompress -f qcow2 /dev/stdin out",
            "raw.gz",
            "not in qcow2 format",
        ),
        (
            "convert --decompress -f qcow2 /dev/stdin out",
            "cut.gz",
            "near offset",
        ),
        (
            "convert -f qcow2 /dev/stdin out",
            "a.qcow2",
            "read in order",
        ),
    ] {
        if input == "cut.gz" {
            let whole = std::fs::read(dir.path("a.qcow2.gz")).expect("a file");
            std::fs::write(dir.path(input), &whole[..whole.len() - 3]).expect("a file");
        }
        let out = piped(line, dir.root(), &dir.path(input));
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let is_refused = !out.status.success() && text.contains(expected);
        assert!(is_refused && text.lines().count() <= 2, "{line}: {text}");
        assert!(!dir.path("out").exists());
    }
}

#[test]
fn every_command_that_reads_takes_the_driver() {
    let dir = images();
    for (_, ending) in TOOLS {
        let image =
            format!("driver=qcow2,file.driver=decompress,file.file.filename=a.qcow2.{ending}");
        let info = done(&dir, &format!("info --image-opts {image}"));
        assert!(info.out.contains("virtual size: 9 MiB"), "{info:?}");
        assert!(info.out.contains("file format: qcow2"), "{info:?}");
        // Of what is found there when no format is named.
        let guessed = format!("driver=decompress,file.filename=a.qcow2.{ending}");
        let info = done(&dir, &format!("info --image-opts {guessed}"));
        assert!(info.out.contains("file format: qcow2"), "{info:?}");
        done(&dir, &format!("check --image-opts {image}"));
        let map = done(&dir, &format!("map --output=json --image-opts {image}"));
        let theirs = dir.qemu_img_ok(&["map", "--output=json", "a.qcow2"]);
        assert_eq!(map.out.lines().count(), theirs.lines().count(), "{map:?}");
        let json = format!("json:{{'driver':'decompress','file':'raw.{ending}'}}");
        let json = json
            .replace("'file':'", "'file':{'filename':'")
            .replace("'}", "'}}");
        let json = json.replace('\'', "\"");
        let same = done(&dir, &format!("compare a.qcow2 {json}"));
        assert!(same.out.contains("identical"), "{same:?}");
        let measured = done(&dir, &format!("measure -O qcow2 {json}"));
        let theirs = dir.qemu_img_ok(&["measure", "-O", "qcow2", "-f", "raw", "raw"]);
        // How much is required depends on the holes that are known.
        assert_eq!(measured.out.lines().last(), theirs.lines().last());
        done(&dir, &format!("dd if={json} of=part bs=1M skip=3 count=2"));
        assert!(std::fs::read(dir.path("part")).expect("a file") == disk()[3 << 20..5 << 20]);
        std::fs::remove_file(dir.path("part")).expect("a file");
        let ran = run(&dir, &format!("resize --image-opts {guessed} +1M"));
        assert!(
            ran.code == 1 && ran.err.contains("can only be read"),
            "{ran:?}"
        );
    }
}

/// As `--decompress` and as a node of its own; `there` describes a file that a server has.
#[track_caller]
fn is_unpacked_from(dir: &Dir, name: &str, there: &str, url: Option<&str>) {
    let format = if name.starts_with("raw") {
        "raw"
    } else {
        "qcow2"
    };
    let node = format!("--image-opts driver={format},file.driver=decompress,{there}");
    let mut lines = vec![
        format!("convert -O raw {node} out"),
        format!("convert -O qcow2 {node} out"),
    ];
    if let Some(url) = url {
        lines.push(format!("convert --decompress -O raw {url} out"));
        lines.push(format!("convert --decompress -O qcow2 {url} out"));
    }
    for line in lines {
        done(dir, &line);
        let same = dir.qemu_img(&["compare", "-f", "raw", "raw", "out"]);
        assert_eq!(same.code, 0, "{line}: {same:?}");
        std::fs::remove_file(dir.path("out")).expect("a file");
    }
}

#[test]
fn files_on_servers_are_unpacked_as_those_here_are() {
    let names = || {
        let of_tool = |(_, ending)| [format!("raw.{ending}"), format!("a.qcow2.{ending}")];
        TOOLS.into_iter().flat_map(of_tool)
    };
    // A server that rounds what it exports up to sectors adds zeroes, which no compressed file has.
    if !nbdkit_is_missing() {
        let dir = images();
        for (n, name) in names().enumerate() {
            let args = ["-r".to_owned(), "file".to_owned(), dir.str(&name)];
            let server = nbd_server::Server::nbdkit(&dir, &format!("s{n}"), &args);
            let url = server.url("");
            let there = format!(
                "file.file.driver=nbd,file.file.path={}",
                dir.str(&format!("s{n}.sock"))
            );
            is_unpacked_from(&dir, &name, &there, Some(&url));
        }
    }
    if let Some(site) = http::site() {
        let dir = images();
        for name in names() {
            std::fs::copy(dir.path(&name), site.dir.path(&name)).expect("a file");
            let url = site.server.url(&name);
            let there = |url: &str| format!("file.file.driver=http,file.file.url={url}");
            is_unpacked_from(&dir, &name, &there(&url), Some(&url));
            // Without ranges the file is kept here.
            let url = site.server.url(&format!("norange/{name}"));
            let there = format!("{},file.file.spool=on", there(&url));
            let node = format!("file.driver=decompress,{there}");
            is_unpacked_from(&dir, &name, &there, None);
            if name.starts_with("raw") {
                let node = node.replace("spool", "stream");
                let line = format!("convert -O raw --image-opts driver=raw,{node} out");
                done(&dir, &line);
                assert!(
                    std::fs::read(dir.path("out")).expect("a file") == disk(),
                    "{line}"
                );
                std::fs::remove_file(dir.path("out")).expect("a file");
            }
            let ran = run(&dir, &format!("convert --decompress {url} out"));
            assert!(ran.code == 1 && ran.err.contains("byte ranges"), "{ran:?}");
            assert!(!dir.path("out").exists(), "{name}");
        }
    }
    if let Some(site) = ftp::site() {
        let dir = images();
        for name in names() {
            std::fs::copy(dir.path(&name), site.dir.path(&name)).expect("a file");
            let url = site.server.url(&name);
            let there = format!("file.file.driver=ftp,file.file.url={url}");
            is_unpacked_from(&dir, &name, &there, Some(&url));
        }
    }
    if !ssh::server::sshd_is_missing() {
        let dir = images();
        let server = ssh::server::Server::new(&dir);
        let (root, port) = (dir.root().display(), server.port);
        for name in names() {
            let url = server.url(&name);
            let there = [
                "driver=ssh,file.file.server.host=127.0.0.1",
                &format!("server.port={port}"),
                &format!("path={root}/{name}"),
                "user=root,file.file.host-key-check.mode=none",
                &format!("identity={root}/id"),
            ]
            .map(|option| format!("file.file.{option}"))
            .join(",");
            is_unpacked_from(&dir, &name, &there, Some(&url));
        }
    }
}

#[test]
fn without_the_option_a_compressed_file_is_a_plain_disk() {
    let dir = images();
    for (tool, ending) in TOOLS {
        let ran = done(&dir, &format!("convert raw.{ending} out"));
        assert_eq!(ran.out, "");
        let packed = std::fs::read(dir.path(&format!("raw.{ending}"))).expect("a file");
        let out = std::fs::read(dir.path("out")).expect("a file");
        assert!(out.starts_with(&packed) && out.len() - packed.len() < 512);
        let found = run(&dir, &format!("inspect raw.{ending}"));
        assert!(found.out.contains(tool), "{found:?}");
    }
}

#[test]
fn what_is_damaged_or_cut_leaves_no_target() {
    let dir = images();
    for (tool, ending) in TOOLS {
        let whole = std::fs::read(dir.path(&format!("raw.{ending}"))).expect("a file");
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        for byte in &mut damaged[middle..middle + 64] {
            *byte ^= 0x5a;
        }
        for (what, bytes) in [
            ("damaged", &damaged[..]),
            ("cut", &whole[..whole.len() - 3]),
        ] {
            std::fs::write(dir.path("bad"), bytes).expect("a file");
            for format in ["raw", "qcow2"] {
                let ran = run(&dir, &format!("convert --decompress -O {format} bad out"));
                assert_eq!(ran.code, 1, "{tool} {what} {format}: {ran:?}");
                let named = ran.err.contains("'bad'") && ran.err.contains("near offset");
                assert!(
                    named && ran.err.lines().count() == 1,
                    "{tool} {what}: {ran:?}"
                );
                assert!(!dir.path("out").exists(), "{tool} {what} {format}");
            }
        }
    }
    let ran = run(&dir, "convert --decompress raw out");
    assert!(
        ran.code == 1 && ran.err.contains("no file of any of"),
        "{ran:?}"
    );
    let ran = run(&dir, "convert --decompress=rar raw.xz out");
    assert!(
        ran.code == 1 && ran.err.contains("Unknown compression 'rar'"),
        "{ran:?}"
    );
    let ran = run(&dir, "convert --decompress=gzip raw.xz out");
    assert!(
        ran.code == 1 && ran.err.contains("gzip data is damaged"),
        "{ran:?}"
    );
    let ran = run(&dir, "convert --decompress missing.xz out");
    assert!(ran.code == 1 && ran.err.contains("No such file"), "{ran:?}");
}

#[test]
fn the_temporary_file_is_bounded() {
    let dir = images();
    let line = "convert --decompress --max-spool 1M -O qcow2 a.qcow2.gz out";
    let ran = run(&dir, line);
    assert!(
        ran.code == 1 && ran.err.contains("(1048576 bytes)"),
        "{ran:?}"
    );
    assert!(ran.err.contains("--max-spool"), "{ran:?}");
    assert!(!dir.path("out").exists());
    done(&dir, &line.replace("1M", "16M"));
    // A plain disk needs none.
    done(&dir, "convert --decompress --max-spool 0 raw.gz out");
    done(
        &dir,
        "convert --decompress --max-spool 0 -O qcow2 raw.xz out",
    );
}

#[test]
fn parts_are_read_without_a_temporary_file() {
    let dir = images();
    pack(
        &dir,
        "xz",
        &["-1", "--block-size=300KiB"],
        "a.qcow2",
        "blocks.xz",
    );
    // Frames that say how long they are, as tools for random access write them.
    let image = std::fs::read(dir.path("a.qcow2")).expect("a file");
    for (tool, ending, arguments) in [
        ("zstd", "zst", &["-1"][..]),
        ("lz4", "lz4", &["-1", "--content-size"]),
    ] {
        let mut frames = Vec::new();
        for part in image.chunks(700_001) {
            std::fs::write(dir.path("part"), part).expect("a file");
            pack(&dir, tool, arguments, "part", "part.packed");
            frames.extend(std::fs::read(dir.path("part.packed")).expect("a file"));
        }
        std::fs::write(dir.path(&format!("blocks.{ending}")), frames).expect("a file");
    }
    for ending in ["xz", "zst", "lz4"] {
        let line = format!("convert --decompress --max-spool 0 -O raw blocks.{ending} out");
        done(&dir, &line);
        assert!(
            std::fs::read(dir.path("out")).expect("a file") == disk(),
            "{ending}"
        );
        let image =
            format!("driver=qcow2,file.driver=decompress,file.file.filename=blocks.{ending}");
        done(&dir, &format!("check --image-opts {image}"));
    }
    // A part that is damaged is named, and only where it is read.
    let mut bad = std::fs::read(dir.path("blocks.xz")).expect("a file");
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(dir.path("bad.xz"), bad).expect("a file");
    let ran = run(&dir, "convert --decompress --max-spool 0 bad.xz never");
    let is_named =
        ran.err.contains("'bad.xz'") && ran.err.contains("xz data is damaged near offset");
    assert!(ran.code == 1 && is_named, "{ran:?}");
    assert!(!dir.path("never").exists());
}

/// Bytes of the frame of zstd: more than is unpacked in one go.
const LONG: usize = 300 * BLOCK;

/// The largest block of zstd.
const BLOCK: usize = 128 << 10;

/// A frame of zstd with a window of so many bits, which holds one letter many times.
fn zstd_with_window(log: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    for n in 1..=LONG / BLOCK {
        let is_last = u32::from(n == LONG / BLOCK);
        let block = (BLOCK as u32) << 3 | 1 << 1 | is_last;
        frame.extend_from_slice(&block.to_le_bytes()[..3]);
        frame.push(b'a');
    }
    frame
}

#[test]
fn the_memory_of_decoders_is_bounded_and_the_bound_can_be_raised() {
    let dir = images();
    for (log, enough) in [(27, "256M"), (28, "512M"), (29, "1G")] {
        std::fs::write(dir.path("long.zst"), zstd_with_window(log)).expect("a file");
        let line = "convert --decompress long.zst out";
        if log > 27 {
            let ran = run(&dir, line);
            assert!(
                ran.code == 1 && ran.err.contains("(268435456 bytes)"),
                "{ran:?}"
            );
            assert!(ran.err.contains("convert --max-decoder"), "{ran:?}");
            assert!(!dir.path("out").exists(), "{log}");
        }
        done(
            &dir,
            &format!("convert --max-decoder {enough} --decompress long.zst out"),
        );
        let out = std::fs::read(dir.path("out")).expect("a file");
        assert!(
            out.len() == LONG && out.iter().all(|byte| *byte == b'a'),
            "{log}"
        );
        std::fs::remove_file(dir.path("out")).expect("a file");
        // As a node of its own too.
        let image = "driver=raw,file.driver=decompress,file.file.filename=long.zst";
        done(
            &dir,
            &format!("convert --max-decoder {enough} --image-opts {image} out"),
        );
        std::fs::remove_file(dir.path("out")).expect("a file");
    }
    let line = "convert --max-decoder 1M --decompress raw.xz out";
    let ran = run(&dir, line);
    assert!(
        ran.code == 1 && ran.err.contains("convert --max-decoder"),
        "{ran:?}"
    );
    done(&dir, &line.replace("1M", "64M"));
    let ran = run(&dir, "convert --max-decoder much --decompress raw.xz out");
    assert!(
        ran.code == 1 && ran.err.contains("memory of decoders"),
        "{ran:?}"
    );
}

/// What was wrong first is said, however often the file is asked again.
#[test]
fn the_first_reason_is_not_lost() {
    let dir = Dir::new();
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    });
    let noise: Vec<u8> = noise.take(5 << 20).collect();
    std::fs::write(dir.path("text"), noise).expect("a file");
    for (tool, ending) in TOOLS {
        let name = format!("text.{ending}");
        pack(&dir, tool, &["-1"], "text", &name);
        let whole = std::fs::read(dir.path(&name)).expect("a file");
        let mut bad = whole.clone();
        bad[whole.len() / 2] ^= 0x55;
        for (what, bytes) in [("bad", &bad[..]), ("cut", &whole[..whole.len() / 2])] {
            std::fs::write(dir.path(&name), bytes).expect("a file");
            let ran = run(&dir, &format!("convert --decompress {name} out"));
            assert!(
                ran.code == 1 && !ran.err.contains("before"),
                "{tool} {what}: {ran:?}"
            );
            if what == "cut" {
                assert!(ran.err.contains("it ends too early"), "{tool}: {ran:?}");
            }
        }
    }
}
