//! Damaged and malicious images, of qcow2 here, of all formats in `samples.rs`: every command ends soon, in little memory, with one clear
//! line and the right exit code.

#[path = "../cli/build.rs"]
mod build;
#[path = "../common/mod.rs"]
mod common;
#[path = "../formats/kit/given/mod.rs"]
#[allow(dead_code, reason = "what QEMU's tools read is the matter elsewhere")]
mod given;
mod reports;
#[path = "../formats/kit/sample.rs"]
#[allow(dead_code, reason = "images are made by the tool here")]
mod sample;
mod samples;
mod seal;
mod tables;

use std::cell::RefCell;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dir, Ran};
use platter::ops::convert::{ConvertRequest, convert};

/// Far above what any of these may take on a busy machine, far below for ever.
const SECONDS: &str = "60";
/// The ceiling on processor time, in milliseconds: unlike the time that passes, it does not grow with what else runs.
const MAX_CPU: u64 = 1000;
/// The ceiling on memory, in KiB.
const MAX_KIB: u64 = 64 << 10;

/// How a command under limits ended.
struct Ended {
    ran: Ran,
    /// The signal that ended it, or 0.
    signal: u64,
    /// The most memory that it had, in KiB.
    kib: u64,
    /// Its processor time, in milliseconds.
    cpu: u64,
}

impl Ended {
    /// What it took too much of, if anything.
    fn excess(&self, max_cpu: u64) -> Option<String> {
        let Self { kib, cpu, .. } = self;
        (*kib > MAX_KIB || *cpu > max_cpu).then(|| format!("took {kib} KiB and {cpu} ms"))
    }
}

/// One directory with a small valid image of every kind, and the original to compare with.
struct Bench {
    dir: Dir,
    problems: RefCell<Vec<String>>,
}

impl Bench {
    fn new() -> Self {
        let dir = Dir::new();
        let make = |args: &str| {
            let args: Vec<&str> = args.split_whitespace().collect();
            dir.qemu_img_ok(&args);
        };
        make("create -q source.raw 2M");
        dir.qemu_io(
            "raw",
            "source.raw",
            &[
                "write -P 1 0 100k",
                "write -P 2 1M 64k",
                "write -P 3 1999k 1k",
            ],
        );
        make("convert -O qcow2 source.raw plain.qcow2");
        make("convert -c -O qcow2 source.raw packed.qcow2");
        make("convert -O qcow2 -o cluster_size=512 source.raw small.qcow2");
        make("convert -O qcow2 -o extended_l2=on source.raw extended.qcow2");
        make("convert -O qcow2 -o compat=0.10 source.raw old.qcow2");
        make("convert -O qcow2 source.raw snap.qcow2");
        make("snapshot -c one snap.qcow2");
        make("bitmap --add snap.qcow2 b0");
        Self {
            dir,
            problems: RefCell::default(),
        }
    }

    fn bytes(&self, image: &str) -> Vec<u8> {
        std::fs::read(self.dir.path(image)).expect("an image of the test")
    }

    /// Runs every command on `bytes`; `what` names the damage in a failure.
    fn try_all(&self, what: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path("bad.qcow2"), bytes).expect("the damaged image");
        for (args, codes) in [
            (&["info", "-f", "qcow2", "bad.qcow2"][..], &[0, 1][..]),
            (&["check", "-f", "qcow2", "bad.qcow2"], &[0, 1, 2, 3]),
            (&["map", "-f", "qcow2", "bad.qcow2"], &[0, 1]),
            (&["convert", "-f", "qcow2", "bad.qcow2", "out.raw"], &[0, 1]),
            (
                &[
                    "compare",
                    "-f",
                    "qcow2",
                    "-F",
                    "raw",
                    "bad.qcow2",
                    "source.raw",
                ],
                &[0, 1, 2, 3, 4],
            ),
        ] {
            if let Err(problem) = self.try_one(args, codes) {
                let line = args.join(" ");
                self.problems
                    .borrow_mut()
                    .push(format!("{what}: {line}: {problem}"));
            }
        }
    }

    /// Runs one command and says what is wrong with how it ended.
    fn try_one(&self, args: &[&str], codes: &[i32]) -> Result<(), String> {
        let ran = self.run(args)?;
        let wrong = |text: &str| Err(format!("{text}: {ran:?}"));
        if !codes.contains(&ran.code) {
            return wrong("unexpected exit code");
        }
        let failed = match args[0] {
            "check" => ran.code == 1,
            "compare" => ran.code > 1,
            _ => ran.code != 0,
        };
        let messages = ran
            .err
            .lines()
            .filter(|line| line.starts_with("qemu-img: ") && !line.contains(": warning: "))
            // As QEMU's tool, check says first what it found and then that it failed.
            .filter(|line| !(args[0] == "check" && line.starts_with("qemu-img: ERROR ")));
        if messages.count() != usize::from(failed) {
            return wrong("not one message");
        }
        if ran.err.contains("panic") || ran.err.contains("Internal error") {
            return wrong("a defect");
        }
        // Besides the one line, what exactly is wrong, what can be done, and that an image is corrupt.
        let others = ran.err.lines().filter(|line| {
            ![
                "qemu-img: ",
                "qcow2: ",
                "'bad.qcow2': ",
                "You can force-remove ",
                "Some clusters may be leaked, ",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        });
        if args[0] != "check" && others.count() > 0 {
            return wrong("other lines");
        }
        if args[0] == "convert" {
            let out = self.dir.path("out.raw");
            let exists = out.exists();
            let _ = std::fs::remove_file(out);
            if exists == failed {
                return wrong("a target that should not be, or none");
            }
        }
        Ok(())
    }

    /// Runs the tool under the limits.
    fn run(&self, args: &[&str]) -> Result<Ran, String> {
        let ended = self.run_for(SECONDS, args);
        let excess = ended.excess(MAX_CPU);
        let ran = ended.ran;
        match (ended.signal, excess) {
            (0, None) => Ok(ran),
            (0, Some(excess)) => Err(format!("{excess}: {ran:?}")),
            (9, _) => Err(format!("not done after {SECONDS} s")),
            _ => Err(format!("killed: {ran:?}")),
        }
    }

    /// Runs the tool for so long at most.
    fn run_for(&self, seconds: &str, args: &[&str]) -> Ended {
        self.run_within(None, seconds, args)
    }

    /// As [`Bench::run_for`], with so many KiB of memory at most.
    fn run_within(&self, kib: Option<u64>, seconds: &str, args: &[&str]) -> Ended {
        let name = self.dir.path("qemu-img");
        if !name.exists() {
            std::os::unix::fs::symlink(build::tool(), &name).expect("a link to the tool");
        }
        let usage = self.dir.path("usage");
        let limit = kib.map(|kib| ("LIMITED_DATA_KIB", kib.to_string()));
        let output = Command::new(build::limited())
            .envs(limit)
            .arg(seconds)
            .arg(&usage)
            .arg(&name)
            .args(args)
            .current_dir(self.dir.root())
            .env("LC_ALL", "C")
            .output()
            .expect("the tool runs");
        let text = std::fs::read_to_string(&usage).expect("the usage of the tool");
        let mut words = text
            .split_whitespace()
            .map(|word| word.parse::<u64>().expect("a number"));
        let mut word = || words.next().expect("three numbers");
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let (kib, signal, cpu) = (word(), word(), word());
        Ended {
            ran,
            signal,
            kib,
            cpu,
        }
    }

    /// Runs every command on a copy of a crafted image, each for a second: they may take for ever, but
    /// not all memory.
    fn every_command(&self, image: &str, most_kib: u64) {
        self.commands((EVERY_COMMAND, "1"), image, most_kib);
    }

    /// These commands, each for so many seconds.
    fn commands(&self, (commands, seconds): (&str, &str), image: &str, most_kib: u64) {
        let line = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in commands.lines().map(str::trim).map(line) {
            let copy = Command::new("cp")
                .args(["--sparse=always", image, "w.qcow2"])
                .current_dir(self.dir.root())
                .status();
            assert!(copy.expect("cp").success());
            let args: Vec<&str> = line.iter().map(String::as_str).collect();
            let Ended {
                ran, kib, signal, ..
            } = self.run_for(seconds, &args);
            let out = self.dir.path("o.qcow2");
            let _ = std::fs::remove_file(out);
            let bad = kib > most_kib || ![0, 9].contains(&signal) || ran.err.contains("panic");
            if bad {
                let start: String = ran.err.chars().take(200).collect();
                self.problems.borrow_mut().push(format!(
                    "{image}: {args:?}: {kib} KiB, signal {signal}: {start}"
                ));
            }
        }
    }
}

/// Every command, on `w.qcow2`.
const EVERY_COMMAND: &str = "info w.qcow2
    info --output=json w.qcow2
    check w.qcow2
    check -r all w.qcow2
    map w.qcow2
    map --output=json w.qcow2
    measure -O qcow2 w.qcow2
    compare w.qcow2 w.qcow2
    compare -s w.qcow2 w.qcow2
    convert -O qcow2 w.qcow2 o.qcow2
    dd if=w.qcow2 of=o.qcow2 -O qcow2 bs=1M count=10
    snapshot -l w.qcow2
    snapshot -c new w.qcow2
    snapshot -a 1 w.qcow2
    snapshot -d 1 w.qcow2
    bitmap --add w.qcow2 new
    bitmap --clear w.qcow2 b0
    bitmap --merge b0 w.qcow2 b1
    resize w.qcow2 +1M
    amend -o lazy_refcounts=on w.qcow2
    amend -o compat=0.10 w.qcow2
    rebase -u -b base.qcow2 -F qcow2 w.qcow2
    rebase -b source.raw -F raw w.qcow2
    commit w.qcow2
    create -f qcow2 -b w.qcow2 -F qcow2 o.qcow2
    bench -c 10 w.qcow2
    inspect w.qcow2";

impl Drop for Bench {
    /// Fails the test that found problems, with all of them.
    fn drop(&mut self) {
        let problems = self.problems.borrow();
        if !problems.is_empty() && !std::thread::panicking() {
            let shown = problems.iter().take(40).cloned().collect::<Vec<_>>();
            panic!("{} problems:\n{}", problems.len(), shown.join("\n"));
        }
    }
}

fn be(bytes: &mut [u8], offset: usize, value: u64, width: usize) {
    bytes[offset..offset + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
}

fn at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The offset bits of a table entry.
fn offset_of(entry: u64) -> usize {
    usize::try_from(entry & 0x00ff_ffff_ffff_fe00).expect("an offset")
}

/// A fixed sequence of numbers that look random.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

#[test]
fn truncated_files() {
    let bench = Bench::new();
    for image in [
        "plain.qcow2",
        "packed.qcow2",
        "extended.qcow2",
        "snap.qcow2",
    ] {
        let bytes = bench.bytes(image);
        let mut lengths = vec![
            0, 1, 3, 4, 7, 8, 23, 24, 71, 72, 99, 100, 103, 104, 111, 112, 130,
        ];
        lengths.extend([511, 512, 513, 4096, 65535, 65536, 65537]);
        lengths.extend((1..24).map(|part| bytes.len() * part / 24));
        lengths.extend([bytes.len() - 1, bytes.len() - 512]);
        for length in lengths {
            bench.try_all(
                &format!("{image} cut to {length}"),
                &bytes[..length.min(bytes.len())],
            );
        }
    }
}

#[test]
fn every_byte_of_the_header() {
    let bench = Bench::new();
    for image in ["plain.qcow2", "snap.qcow2"] {
        let bytes = bench.bytes(image);
        for offset in 0..136 {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[offset] ^= flip;
                bench.try_all(&format!("{image} byte {offset} ^ {flip:#x}"), &bad);
            }
        }
    }
}

#[test]
fn flipped_bits_in_tables() {
    let bench = Bench::new();
    let mut sequence = Sequence(42);
    for image in [
        "plain.qcow2",
        "packed.qcow2",
        "small.qcow2",
        "extended.qcow2",
        "old.qcow2",
        "snap.qcow2",
    ] {
        let bytes = bench.bytes(image);
        let l1 = offset_of(at(&bytes, 40));
        let l2 = offset_of(at(&bytes, l1));
        let table = offset_of(at(&bytes, 48));
        let block = offset_of(at(&bytes, table));
        for (name, start, span) in [
            ("L1 table", l1, 16),
            ("L2 table", l2, 256),
            ("refcount table", table, 16),
            ("refcount block", block, 32),
        ] {
            for _ in 0..20 {
                let mut bad = bytes.clone();
                let offset = start + sequence.below(span);
                let bit = sequence.below(8);
                bad[offset] ^= 1 << bit;
                bench.try_all(&format!("{image} {name} offset {offset} bit {bit}"), &bad);
            }
        }
        // Anywhere: compressed data, snapshot tables, bitmap directories, padding.
        for _ in 0..20 {
            let mut bad = bytes.clone();
            for _ in 0..16 {
                let offset = sequence.below(bad.len());
                bad[offset] ^= 1 << sequence.below(8);
            }
            bench.try_all(&format!("{image} random flips"), &bad);
        }
    }
}

#[test]
fn absurd_headers() {
    let bench = Bench::new();
    for image in ["plain.qcow2", "snap.qcow2"] {
        let bytes = bench.bytes(image);
        // Offset in the header, width, name.
        for (offset, width, field) in [
            (4, 4, "version"),
            (8, 8, "backing_file_offset"),
            (16, 4, "backing_file_size"),
            (20, 4, "cluster_bits"),
            (24, 8, "size"),
            (32, 4, "crypt_method"),
            (36, 4, "l1_size"),
            (40, 8, "l1_table_offset"),
            (48, 8, "refcount_table_offset"),
            (56, 4, "refcount_table_clusters"),
            (60, 4, "nb_snapshots"),
            (64, 8, "snapshots_offset"),
            (72, 8, "incompatible_features"),
            (80, 8, "compatible_features"),
            (88, 8, "autoclear_features"),
            (96, 4, "refcount_order"),
            (100, 4, "header_length"),
            (104, 1, "compression_type"),
            (112, 4, "extension type"),
            (116, 4, "extension length"),
        ] {
            let top = if width == 8 {
                u64::MAX
            } else {
                (1 << (8 * width)) - 1
            };
            for value in [
                0,
                1,
                2,
                7,
                8,
                9,
                16,
                21,
                22,
                31,
                32,
                63,
                64,
                511,
                512,
                513,
                0x1_0000,
                0x2_0000,
                0x1_0001,
                1 << 20,
                1 << 24,
                1 << 25,
                0x7fff_ffff,
                1 << 31,
                1 << 32,
                1 << 40,
                1 << 55,
                1 << 56,
                1 << 60,
                1 << 62,
                i64::MAX as u64,
                1 << 63,
                top.saturating_sub(511),
                top,
            ] {
                if value > top {
                    continue;
                }
                let mut bad = bytes.clone();
                be(&mut bad, offset, value, width);
                bench.try_all(&format!("{image} {field} = {value:#x}"), &bad);
            }
        }
    }
}

#[test]
fn huge_sizes_that_the_tables_seem_to_hold() {
    let bench = Bench::new();
    let bytes = bench.bytes("plain.qcow2");
    for (size, l1_size) in [
        (1u64 << 60, u32::MAX),
        (1 << 60, 1 << 22),
        (1 << 50, 1 << 21),
        (1 << 51, 1 << 22),
        (1 << 44, 1 << 15),
        (1 << 62, 1 << 22),
        (i64::MAX as u64, 1 << 22),
        (0, u32::MAX),
    ] {
        for cluster_bits in [9u64, 16, 21] {
            let mut bad = bytes.clone();
            be(&mut bad, 20, cluster_bits, 4);
            be(&mut bad, 24, size, 8);
            be(&mut bad, 36, u64::from(l1_size), 4);
            bench.try_all(
                &format!("size {size:#x}, L1 {l1_size:#x}, {cluster_bits} bits"),
                &bad,
            );
        }
    }
}

#[test]
fn references_that_loop_or_overlap() {
    let bench = Bench::new();
    for image in [
        "plain.qcow2",
        "snap.qcow2",
        "small.qcow2",
        "extended.qcow2",
        "packed.qcow2",
    ] {
        let bytes = bench.bytes(image);
        let l1 = offset_of(at(&bytes, 40));
        let l2 = offset_of(at(&bytes, l1));
        let table = offset_of(at(&bytes, 48));
        let block = offset_of(at(&bytes, table));
        let copied = 1u64 << 63;
        let end = bytes.len() as u64;
        let targets = [
            0,
            0x200,
            0x1_0000,
            l1 as u64,
            l2 as u64,
            table as u64,
            block as u64,
            end & !0xffff,
            1 << 40,
            (1 << 56) - 0x1_0000,
            0x1_0200,
        ];
        for target in targets {
            for (name, offset) in [
                ("L1 entry", l1),
                ("L2 entry", l2),
                ("refcount table entry", table),
                ("L1 offset", 40),
                ("refcount table offset", 48),
                ("snapshot table offset", 64),
            ] {
                let flags = if name.ends_with("entry") && name != "refcount table entry" {
                    copied
                } else {
                    0
                };
                let mut bad = bytes.clone();
                be(&mut bad, offset, target | flags, 8);
                if name == "snapshot table offset" {
                    be(&mut bad, 60, 3, 4);
                }
                bench.try_all(&format!("{image} {name} -> {target:#x}"), &bad);
            }
        }
        // Every entry of the L2 table is the L2 table.
        let mut bad = bytes.clone();
        for entry in 0..32 {
            be(&mut bad, l2 + entry * 8, l2 as u64 | copied, 8);
        }
        bench.try_all(&format!("{image} L2 table of itself"), &bad);
        // A compressed cluster at the end of the file, and far behind it.
        for start in [end - 1, end, 1 << 40, (1 << 54) - 1] {
            let mut bad = bytes.clone();
            be(&mut bad, l2, (1 << 62) | (0xff << 54) | start, 8);
            bench.try_all(&format!("{image} compressed at {start:#x}"), &bad);
        }
    }
}

#[test]
fn decompression_bombs_and_rubbish() {
    let bench = Bench::new();
    let bytes = bench.bytes("packed.qcow2");
    let l2 = offset_of(at(&bytes, offset_of(at(&bytes, 40))));
    let data = usize::try_from(at(&bytes, l2) & ((1 << 54) - 1)).expect("an offset");
    for rubbish in [0x00, 0xff, 0x78, 0x28] {
        let mut bad = bytes.clone();
        bad[data..data + 64].fill(rubbish);
        bench.try_all(&format!("compressed data of {rubbish:#x}"), &bad);
    }
}

/// Images that name themselves or each other as backing or data file.
#[test]
fn chains_that_refer_to_themselves() {
    let bench = Bench::new();
    let make = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        bench.dir.qemu_img_ok(&args);
    };
    // QEMU's tool makes only those circles that it does not see.
    make("create -q -f qcow2 -u -b bad.qcow2 -F qcow2 self.qcow2 2M");
    bench.try_all("its own backing file", &bench.bytes("self.qcow2"));
    make("create -q -f qcow2 -u -b bad.qcow2 -F qcow2 other.qcow2 2M");
    make("create -q -f qcow2 -u -b other.qcow2 -F qcow2 self.qcow2 2M");
    bench.try_all("a circle of two", &bench.bytes("self.qcow2"));
    make("create -q -f qcow2 -u -b ./../nowhere/./bad.qcow2 -F qcow2 self.qcow2 2M");
    bench.try_all(
        "a backing file that is not there",
        &bench.bytes("self.qcow2"),
    );
    make("create -q -f qcow2 -u -b json:{} -F qcow2 self.qcow2 2M");
    bench.try_all("an empty description", &bench.bytes("self.qcow2"));

    make("create -q -f qcow2 -o data_file=data.raw self.qcow2 2M");
    let mut bytes = bench.bytes("self.qcow2");
    let name = bytes
        .windows(8)
        .position(|w| w == b"data.raw")
        .expect("the name of the data file");
    bytes[name..name + 8].copy_from_slice(b"bad.qcow");
    std::os::unix::fs::symlink("bad.qcow2", bench.dir.path("bad.qcow")).expect("a link");
    bench.try_all("its own data file", &bytes);
}

#[test]
fn a_very_long_chain() {
    let bench = Bench::new();
    for number in 0..300 {
        let backing = format!("chain{}.qcow2", number + 1);
        let name = if number == 0 {
            "bad.qcow2".to_owned()
        } else {
            format!("chain{number}.qcow2")
        };
        bench.dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-u", "-b", &backing, "-F", "qcow2", &name, "2M",
        ]);
    }
    bench
        .dir
        .qemu_img_ok(&["create", "-q", "-f", "qcow2", "chain300.qcow2", "2M"]);
    bench.try_all("a chain of 301 images", &bench.bytes("bad.qcow2"));
}

#[test]
fn snapshots_with_endless_names() {
    let bench = Bench::new();
    let mut bytes = bench.bytes("plain.qcow2");
    let count = 2000u64;
    let length = (40 + 2 * 65535u64).next_multiple_of(8);
    let table = (bytes.len() as u64).next_multiple_of(1 << 16);
    be(&mut bytes, 60, count, 4);
    be(&mut bytes, 64, table, 8);
    let path = bench.dir.path("long.qcow2");
    let file = std::fs::File::create(&path).expect("the image");
    file.write_all_at(&bytes, 0).expect("the image");
    // A name is a hole: the file takes little space.
    for index in 0..count {
        let mut entry = [0; 40];
        entry[12..16].fill(0xff);
        file.write_all_at(&entry, table + index * length)
            .expect("the image");
    }
    file.set_len(table + count * length).expect("the image");
    for args in [
        &["info", "-f", "qcow2", "long.qcow2"][..],
        &["map", "-f", "qcow2", "long.qcow2"],
        &["snapshot", "-l", "long.qcow2"],
        &["inspect", "-f", "qcow2", "long.qcow2"],
    ] {
        let ran = bench.run(args).expect("it ends in time and memory");
        assert!(
            ran.code <= 2 && !ran.err.contains("panic"),
            "{args:?}: {ran:?}"
        );
    }
    let ran = bench.run(&["info", "-f", "qcow2", "long.qcow2"]);
    let ran = ran.expect("it ends in time and memory");
    assert!(ran.err.contains("Snapshot table is too big"), "{ran:?}");
}

/// Header, refcounts, and room for tables from the fourth cluster on.
fn crafted(cluster_bits: u32, tables: u32) -> Vec<u8> {
    let cluster = 1u64 << cluster_bits;
    let mut image = vec![0u8; 4 * cluster as usize];
    let size = u64::from(tables) * (cluster / 8) * cluster;
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (at, value, width) in [
        (20, u64::from(cluster_bits), 4),
        (24, size, 8),
        (36, u64::from(tables), 4),
        (40, 3 * cluster, 8),
        (48, cluster, 8),
        (56, 1, 4),
        (96, 4, 4),
        (100, 104, 4),
        (cluster as usize, 2 * cluster, 8),
    ] {
        be(&mut image, at, value, width);
    }
    for count in 0..64 {
        be(&mut image, 2 * cluster as usize + 2 * count, 1, 2);
    }
    image
}

/// As [`crafted`] with clusters of 64 KiB, an L1 table and full L2 tables: `entry` gives the entries.
fn with_tables(tables: u32, entry: impl Fn(u64) -> u64) -> Vec<u8> {
    let mut image = crafted(16, tables);
    for table in 0..u64::from(tables) {
        let word = (1 << 63) | (4 + table) << 16;
        be(&mut image, (3 << 16) + 8 * table as usize, word, 8);
    }
    for index in 0..u64::from(tables) * 8192 {
        image.extend(entry(index).to_be_bytes());
    }
    image
}

#[test]
fn a_table_that_is_used_again_and_again() {
    let bench = Bench::new();
    let path = bench.dir.path("shared.qcow2");
    common::shared_table_image(&path, 131_072);
    bench.every_command("shared.qcow2", MAX_KIB);

    // The runs are there at once, and nobody keeps them.
    for form in ["json", "human"] {
        let mut child = Command::new(build::tool())
            .args(["map", "--output", form])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let mut out = child.stdout.take().expect("its output");
        let mut some = vec![0; 4 << 20];
        out.read_exact(&mut some).expect("runs without end");
        let status = format!("/proc/{}/status", child.id());
        let status = std::fs::read_to_string(status).expect("the state of the tool");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        child.kill().expect("to end the tool");
        child.wait().expect("the end of the tool");
        assert!(peak.is_some_and(|kib| kib < MAX_KIB), "{form}: {peak:?}");
        let full = std::fs::File::options().write(true).open("/dev/full");
        let ran = Command::new(build::tool())
            .args(["map", "--output", form])
            .arg(&path)
            .stdout(full.expect("/dev/full"))
            .output()
            .expect("the tool runs");
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(
            err.contains("standard output: No space left on device"),
            "{err}"
        );
        assert_eq!(
            (ran.status.code(), err.lines().count()),
            (Some(1), 1),
            "{err}"
        );
    }
}

#[test]
fn errors_without_end() {
    let bench = Bench::new();
    let image = with_tables(40, |_| 1 << 63 | 0x50200);
    std::fs::write(bench.dir.path("errors.qcow2"), image).expect("the image");
    bench.every_command("errors.qcow2", MAX_KIB);
}

/// What looks at a table of blocks without changing it.
const OF_BLOCKS: &str = "info w.qcow2
    check w.qcow2
    map --output=json w.qcow2
    inspect w.qcow2";

#[test]
fn clusters_strewn_over_a_huge_file() {
    let bench = Bench::new();
    let image = with_tables(24, |index| 1 << 63 | (1024 + index * 512) << 16);
    let path = bench.dir.path("strewn.qcow2");
    std::fs::write(&path, image).expect("the image");
    let file = std::fs::File::options().write(true).open(&path);
    let length = (1024 + 24 * 8192 * 512) << 16;
    file.and_then(|file| file.set_len(length))
        .expect("a sparse file");
    bench.every_command("strewn.qcow2", MAX_KIB);
}

#[test]
fn bitmaps_with_millions_of_runs() {
    const CLUSTER: u64 = 1 << 21;
    let bench = Bench::new();
    let mut image = crafted(21, 1);
    let mut directory = Vec::new();
    for name in [b"b0", b"b1"] {
        directory.extend((6 * CLUSTER).to_be_bytes());
        directory.extend(64u32.to_be_bytes());
        directory.extend(0u32.to_be_bytes());
        directory.extend([1, 9, 0, 2, 0, 0, 0, 0]);
        directory.extend(name);
        directory.resize(directory.len().next_multiple_of(8), 0);
    }
    be(&mut image, 88, 1, 8);
    be(&mut image, 104, 0x2385_2875, 4);
    be(&mut image, 108, 24, 4);
    be(&mut image, 112, 2, 4);
    be(&mut image, 120, directory.len() as u64, 8);
    be(&mut image, 128, 5 * CLUSTER, 8);
    let path = bench.dir.path("bits.qcow2");
    let file = std::fs::File::create(&path).expect("the image");
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).expect("the image");
    write(&image, 0);
    write(&directory, 5 * CLUSTER);
    write(&(7 * CLUSTER).to_be_bytes().repeat(64), 6 * CLUSTER);
    write(&vec![0x55; CLUSTER as usize], 7 * CLUSTER);
    bench.every_command("bits.qcow2", MAX_KIB);

    // Copying them takes a minute, unless the work is ended before.
    let target = platter::Location::from_path(bench.dir.path("copy.qcow2"));
    let mut request = ConvertRequest::new(platter::Location::from_path(&path), target);
    request.source.options.format = Some("qcow2".to_owned());
    request.target.format = Some("qcow2".to_owned());
    request.source.bitmaps = true;
    let mut job = platter::Job::new();
    job.control().set_deadline(Some(Duration::from_millis(300)));
    let begin = Instant::now();
    let error = convert(&request, &mut job).expect_err("the deadline");
    assert_eq!(error.kind(), platter::ErrorKind::Cancelled, "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{error:?}");
    assert!(!bench.dir.path("copy.qcow2").exists());
}

/// Lists of names take what they say, a few times over, and formats limit them.
#[test]
fn long_lists_of_names() {
    let bench = Bench::new();
    let mut bytes = bench.bytes("plain.qcow2");
    let count = 60u64;
    let length = (40 + 2 * 65535u64).next_multiple_of(8);
    let table = (bytes.len() as u64).next_multiple_of(1 << 16);
    be(&mut bytes, 60, count, 4);
    be(&mut bytes, 64, table, 8);
    let file = std::fs::File::create(bench.dir.path("names.qcow2")).expect("the image");
    file.write_all_at(&bytes, 0).expect("the image");
    for index in 0..count {
        let mut entry = [0; 40];
        entry[12..16].fill(0xff);
        file.write_all_at(&entry, table + index * length)
            .expect("the image");
    }
    file.set_len(table + count * length).expect("the image");
    let names = (count * length) >> 10;
    bench.every_command("names.qcow2", MAX_KIB + 9 * names);
    // What they are shown as is never in memory as a whole: escaped it is six times as long.
    let bare = bench.run_for(SECONDS, &["info", "plain.qcow2"]).kib;
    for args in [
        &["info"][..],
        &["info", "--output=json"],
        &["snapshot", "-l"],
    ] {
        let Ended { ran, kib, .. } = bench.run_for(SECONDS, &[args, &["names.qcow2"]].concat());
        assert_eq!(ran.code, 0, "{args:?}");
        assert!(ran.out.len() as u64 > (3 * names) << 10, "{args:?}");
        assert!(
            kib < bare + names * 2 + (4 << 10),
            "{args:?}: {kib} KiB for {names} KiB of names"
        );
    }
}

/// An image of small tables with so many snapshots that share one L1 table.
fn many_snapshots(count: u32) -> Vec<u8> {
    let mut image = crafted(16, 1);
    be(&mut image, 60, u64::from(count), 4);
    let table = image.len() as u64;
    be(&mut image, 64, table, 8);
    for n in 1..=count {
        let (id, name) = (n.to_string(), format!("n{n}"));
        let mut entry = vec![0; 64];
        be(&mut entry, 0, 3 << 16, 8);
        be(&mut entry, 8, 1, 4);
        be(&mut entry, 12, id.len() as u64, 2);
        be(&mut entry, 14, name.len() as u64, 2);
        be(&mut entry, 36, 24, 4);
        be(&mut entry, 48, 8192 << 16, 8);
        entry.extend(id.bytes().chain(name.bytes()));
        entry.resize(entry.len().next_multiple_of(8), 0);
        image.extend(entry);
    }
    image.resize(image.len().next_multiple_of(1 << 16), 0);
    image
}

/// An image with so many bitmaps that share one table.
fn many_bitmaps(count: u32) -> Vec<u8> {
    let mut image = crafted(16, 1);
    let mut directory = Vec::new();
    for n in 0..count {
        let name = format!("b{n}");
        let mut entry = vec![0; 24];
        be(&mut entry, 0, 6 << 16, 8);
        be(&mut entry, 8, 1, 4);
        entry[16..18].copy_from_slice(&[1, 16]);
        be(&mut entry, 18, name.len() as u64, 2);
        entry.extend(name.bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        directory.extend(entry);
    }
    be(&mut image, 88, 1, 8);
    be(&mut image, 104, 0x2385_2875, 4);
    be(&mut image, 108, 24, 4);
    be(&mut image, 112, u64::from(count), 4);
    be(&mut image, 120, directory.len() as u64, 8);
    be(&mut image, 128, 7 << 16, 8);
    image.resize(7 << 16, 0);
    image.extend(directory);
    image.resize(image.len().next_multiple_of(1 << 16), 0);
    image
}

/// An image whose header has as many extensions as there is room for.
fn many_extensions() -> Vec<u8> {
    let mut image = crafted(21, 1);
    for at in (104..(2 << 20) - 64).step_by(8) {
        be(&mut image, at, 0x1122_3344, 4);
    }
    image
}

/// The commands that look at all of an image's lists, and those that change them.
const OF_LISTS: &str = "info w.qcow2
    info --output=json w.qcow2
    check w.qcow2
    check -r all w.qcow2
    map w.qcow2
    snapshot -l w.qcow2
    snapshot -c new w.qcow2
    bitmap --add w.qcow2 new
    bitmap --clear w.qcow2 b0
    amend -o compat=0.10 w.qcow2
    resize w.qcow2 +1M
    resize w.qcow2 +4T
    inspect w.qcow2";

/// What follows an image may be more than there is: that is an error, and not the end of the process.
#[test]
fn a_lack_of_memory_is_one_line_and_never_an_abort() {
    let bench = Bench::new();
    let long = {
        let mut image = crafted(16, 1);
        let (count, table) = (60u64, image.len() as u64);
        let length = (40 + 2 * 65535u64).next_multiple_of(8);
        be(&mut image, 60, count, 4);
        be(&mut image, 64, table, 8);
        for _ in 0..count {
            let mut entry = vec![0; length as usize];
            entry[12..16].fill(0xff);
            image.extend(entry);
        }
        image
    };
    // The tool itself takes some, which differs from build to build.
    let least = (100..).step_by(100).find(|kib| {
        let args = ["info", "plain.qcow2"];
        bench.run_within(Some(*kib), SECONDS, &args).ran.code == 0
    });
    let least = least.expect("memory that is enough for a small image");
    let mut lacking = 0;
    for (what, image) in [
        ("snapshots", many_snapshots(30_000)),
        ("bitmaps", many_bitmaps(30_000)),
        ("extensions", many_extensions()),
        ("long names", long),
    ] {
        for line in OF_LISTS.lines().map(str::trim) {
            let args: Vec<&str> = line.split(' ').collect();
            for kib in [least, least + 2000, least + 11_000] {
                std::fs::write(bench.dir.path("w.qcow2"), &image).expect("the image");
                let Ended { ran, signal, .. } = bench.run_within(Some(kib), SECONDS, &args);
                let lacks = ran.err.contains("Cannot allocate memory");
                lacking += u32::from(lacks);
                let errors = ran
                    .err
                    .lines()
                    .filter(|line| line.starts_with("qemu-img: "));
                let errors = errors.filter(|line| !line.starts_with("qemu-img: ERROR "));
                if signal != 0 || lacks && (ran.code == 0 || errors.count() != 1) {
                    let start: String = ran.err.chars().take(300).collect();
                    bench.problems.borrow_mut().push(format!(
                        "{what}, {kib} KiB: {line}: code {}, signal {signal}: {start}",
                        ran.code
                    ));
                }
                if !lacks {
                    break;
                }
            }
        }
    }
    assert!(lacking > 40, "only {lacking} commands lacked memory");
}

/// The work of a change does not grow with the square of the number of bitmaps.
#[test]
fn a_change_among_many_bitmaps_is_soon_done() {
    let bench = Bench::new();
    let image = many_bitmaps(60_000);
    for args in [
        &["bitmap", "--clear", "w.qcow2", "b7"][..],
        &["bitmap", "--remove", "w.qcow2", "b59999"],
        &["bitmap", "--add", "w.qcow2", "new"],
    ] {
        std::fs::write(bench.dir.path("w.qcow2"), &image).expect("the image");
        let Ended {
            ran, signal, cpu, ..
        } = bench.run_for(SECONDS, args);
        assert_eq!((ran.code, signal), (0, 0), "{args:?}: {ran:?}");
        assert!(cpu < 5 * MAX_CPU, "{args:?}: {cpu} ms");
    }
}
