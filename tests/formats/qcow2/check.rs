//! The consistency check of qcow2 against `qemu-img check`: same lines, same numbers.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::Dir;
use platter::Job;
use platter::format::CheckReport;
use platter::format::qcow2::check;
use platter::format::qcow2::disk::ImageHeader;
use platter::job::Message;
use platter::storage::{FileOpen, Storage};
use serde_json::Value;

/// Lines and numbers of our check.
fn ours(path: &Path) -> platter::error::Result<(Vec<String>, CheckReport)> {
    let storage = platter::storage::file::open(path, &FileOpen::default())?;
    let header = ImageHeader::read(&storage)?;
    header.header.validate(true)?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        if let Message::Note(line) = message {
            sink.lock().unwrap().extend(line.lines().map(str::to_owned));
        }
    }));
    let report = check::check(&storage, &header, &mut job)?;
    let lines = lines.lock().unwrap().clone();
    Ok((lines, report))
}

/// Compares both checks of the image; `what` names the case.
fn same(dir: &Dir, image: &str, what: &str) {
    let ran = dir.qemu_img(&["check", "-f", "qcow2", "--output=json", image]);
    let theirs: Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{what}: {ran:?}"));
    let number = |key: &str| theirs[key].as_u64().unwrap_or(0);
    let expected = CheckReport {
        check_errors: number("check-errors"),
        corruptions: number("corruptions"),
        leaks: number("leaks"),
        corruptions_fixed: 0,
        leaks_fixed: 0,
        image_end_offset: theirs["image-end-offset"].as_u64(),
        total_clusters: theirs["total-clusters"].as_u64(),
        allocated_clusters: number("allocated-clusters"),
        fragmented_clusters: number("fragmented-clusters"),
        compressed_clusters: number("compressed-clusters"),
        ..CheckReport::default()
    };
    let (lines, report) = ours(&dir.path(image)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let told: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| !line.starts_with("qemu-img: "))
        .map(
            |line| match line.starts_with("Use qemu-img amend to increase") {
                true => WIDER,
                false => line,
            },
        )
        .collect();
    assert_eq!(lines, told, "{what}");
    assert_eq!(report, expected, "{what}");
}

/// What the library says where `qemu-img` names commands of its own.
const WIDER: &str = "A larger width of its refcounts makes the image whole, and so does a copy where it \
                     cannot be opened for writing";

/// An image file in memory, to be damaged.
struct Victim<'a> {
    dir: &'a Dir,
    bytes: Vec<u8>,
}

impl<'a> Victim<'a> {
    fn load(dir: &'a Dir) -> Self {
        let bytes = std::fs::read(dir.path("good")).unwrap();
        same(dir, "good", "good");
        Self { dir, bytes }
    }

    fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn l1(&self) -> u64 {
        self.word(40)
    }

    fn reftable(&self) -> u64 {
        self.word(48)
    }

    fn refblock(&self) -> u64 {
        self.word(self.reftable())
    }

    fn l2(&self, index: u64) -> u64 {
        self.word(self.l1() + 8 * index) & 0x00ff_ffff_ffff_fe00
    }

    /// Checks a copy with each of `words` put at its offset.
    fn hurt(&self, what: &str, words: &[(u64, u64)]) {
        self.hurt_bytes(what, |bytes| {
            for &(at, word) in words {
                let at = at as usize;
                bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
            }
        });
    }

    fn hurt_bytes(&self, what: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes.clone();
        damage(&mut bytes);
        std::fs::write(self.dir.path("bad"), &bytes).unwrap();
        same(self.dir, "bad", what);
    }

    /// Checks a copy with a 16-bit refcount changed.
    fn recount(&self, what: &str, cluster: u64, count: u16) {
        let at = (self.refblock() + 2 * cluster) as usize;
        self.hurt_bytes(what, |bytes| {
            bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        });
    }
}

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const FAR: u64 = 0x1000_0000;

fn create(dir: &Dir, options: &str, size: &str, writes: &[&str]) {
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "good", size]);
    dir.qemu_io("qcow2", "good", writes);
}

#[test]
fn damaged_tables() {
    let dir = Dir::new();
    create(
        &dir,
        "cluster_size=4k",
        "4M",
        &[
            "write -P 1 0 16k",
            "write -P 2 64k 8k",
            "write -c -P 3 128k 4k",
            "write -c -P 3 132k 4k",
            "write -P 3 136k 4k",
            "write -z 200k 8k",
            "write -P 3 2M 4k",
            "write -z 2M 4k",
        ],
    );
    let v = Victim::load(&dir);
    let (l1, l2, rt, rb) = (v.l1(), v.l2(0), v.reftable(), v.refblock());
    let first = v.word(l2);
    let comp = v.word(l2 + 8 * 32);
    v.recount("leak", 5, 3);
    v.recount("leak past the end", 20, 1);
    v.recount("missing", 5, 0);
    v.recount("L2 table missing", l2 >> 12, 0);
    v.recount("L2 table twice", l2 >> 12, 2);
    v.recount("refcount block missing", rb >> 12, 0);
    for (what, entry) in [
        ("unaligned", first | 0x200),
        ("reserved", first | 2),
        ("reserved high", first | 1 << 60),
        ("far", COPIED | FAR),
        ("farthest", COPIED | 0x00ff_ffff_ffff_f000),
        ("twice", v.word(l2 + 8)),
        ("no copied", first & !COPIED),
        ("copied alone", COPIED),
        ("into the header", 0x200),
        ("onto the L2 table", COPIED | l2),
        ("zero", first | 1),
        ("zero unaligned", first | 0x201),
        ("zero no copied", (first | 1) & !COPIED),
        ("all at once", FAR | 0x202),
        ("reserved alone", 2),
    ] {
        v.hurt(what, &[(l2, entry)]);
    }
    for (what, entry) in [
        ("copied", comp | COPIED),
        ("copied unaligned", (comp + 21) | COPIED),
        ("far", comp | 0x10_0000_0000),
        ("longer", comp | 7 << 58),
        ("farthest", comp | ((1 << 58) - 1)),
        ("everything", COMPRESSED | COPIED | (COMPRESSED - 1)),
    ] {
        v.hurt(&format!("compressed {what}"), &[(l2 + 8 * 32, entry)]);
    }
    let table = v.word(l1);
    for (what, entry) in [
        ("unaligned", table | 0x200),
        ("reserved", table | 2),
        ("no copied", table & !COPIED),
        ("far", COPIED | FAR),
        ("far unaligned", COPIED | FAR | 0x200),
        ("all at once", FAR | 0x202),
        ("at the end", COPIED | v.bytes.len() as u64 & !0xfff),
        ("copied alone", COPIED),
        ("reserved alone", 2),
        ("none", 0),
    ] {
        v.hurt(&format!("L1 {what}"), &[(l1, entry)]);
    }
    v.hurt("L1 twice", &[(l1 + 8, table)]);
    for (what, entry) in [
        ("unaligned", rb + 0x200),
        ("reserved", 2),
        ("reserved block", rb | 2),
        ("far", FAR),
        ("twice", rb),
        ("to data", first & 0xf_f000),
    ] {
        v.hurt(&format!("refcount table {what}"), &[(rt + 8, entry)]);
    }
    v.hurt("no refcount block", &[(rt, 0)]);
    v.hurt("refcount block unaligned", &[(rt, rb + 0x200)]);
    v.hurt("refcount block far", &[(rt, rb + FAR)]);
    v.hurt("refcount block elsewhere", &[(rt, 0x6000)]);
    v.hurt("L1 table far", &[(40, FAR)]);
    v.hurt("L1 table at the header", &[(40, 0)]);
    v.hurt("refcount table far", &[(48, FAR)]);
    v.hurt("refcount table at the header", &[(48, 0)]);
    v.hurt("dirty", &[(72, 1)]);
    v.hurt("corrupt", &[(72, 2)]);
    for cut in [1, 0x800, 0x1000, 0x1800, 0x3000, 0x6001] {
        v.hurt_bytes(&format!("cut by {cut}"), |bytes| {
            bytes.truncate(bytes.len() - cut);
        });
    }
    v.hurt_bytes("longer", |bytes| bytes.resize(bytes.len() + 0x3456, 0));
    v.hurt_bytes("long refcount table", |bytes| bytes[59] = 2);
    v.hurt_bytes("no refcount table", |bytes| bytes[59] = 0);
    v.hurt_bytes("long L1 table", |bytes| bytes[38] = 0x40);
}

#[test]
fn damaged_subclusters() {
    let dir = Dir::new();
    create(
        &dir,
        "cluster_size=16k,extended_l2=on",
        "4M",
        &[
            "write -P 1 0 16k",
            "write -P 2 64k 512",
            "write -c -P 3 128k 16k",
            "write -z 256k 16k",
            "write -z 0 512",
        ],
    );
    let v = Victim::load(&dir);
    let l2 = v.l2(0);
    let first = v.word(l2);
    let none = first & !COPIED;
    for (what, words) in [
        ("both bits", vec![(8, u64::MAX)]),
        ("bit 0", vec![(0, first | 1)]),
        ("bits without offset", vec![(16 * 20 + 8, 1)]),
        ("zero bits without offset", vec![(16 * 20 + 8, 1 << 32)]),
        ("offset without bits", vec![(8, 0)]),
        ("compressed with bits", vec![(16 * 8 + 8, 1)]),
        ("compressed with zero bits", vec![(16 * 8 + 8, 1 << 32)]),
        (
            "zero unaligned",
            vec![(0, first | 0x200), (8, 0xffff_ffff << 32)],
        ),
        ("no bits unaligned", vec![(0, first | 0x200), (8, 0)]),
        ("data unaligned", vec![(0, first | 0x200)]),
        ("all at once", vec![(0, FAR | 0x202), (8, u64::MAX)]),
        ("zero no copied", vec![(0, none), (8, 0xffff_ffff << 32)]),
        ("no bits no copied", vec![(0, none), (8, 0)]),
    ] {
        let words: Vec<_> = words
            .into_iter()
            .map(|(at, word)| (l2 + at, word))
            .collect();
        v.hurt(what, &words);
    }
}

#[test]
fn damaged_data_file_images_and_version_2() {
    let dir = Dir::new();
    create(
        &dir,
        &format!("cluster_size=4k,data_file={}", dir.str("data")),
        "4M",
        &["write -P 1 0 16k", "write -z 64k 4k"],
    );
    let v = Victim::load(&dir);
    let l2 = v.l2(0);
    for (what, entry) in [
        ("elsewhere", COPIED | 0x5000),
        ("unaligned", COPIED | 0x5200),
        ("far", COPIED | 0x5_0000_0000),
        ("no copied", 0x1000),
        ("compressed", COMPRESSED | 0x1000),
    ] {
        v.hurt(what, &[(l2 + 8, entry)]);
    }
    create(
        &dir,
        "cluster_size=4k,compat=0.10",
        "4M",
        &["write -P 1 0 16k", "write -c -P 3 128k 4k"],
    );
    let v = Victim::load(&dir);
    let l2 = v.l2(0);
    v.hurt("version 2 zero", &[(l2, 1)]);
    v.hurt("version 2 zero with offset", &[(l2, v.word(l2) | 1)]);
}

#[test]
fn narrow_refcounts_overflow() {
    let dir = Dir::new();
    create(
        &dir,
        "cluster_size=4k,refcount_bits=1",
        "16M",
        &[
            "write -P 1 0 16k",
            "write -P 1 3M 8k",
            "write -c -P 5 3080k 4k",
        ],
    );
    let v = Victim::load(&dir);
    let l2 = v.l2(0);
    let twice = v.word(l2 + 8);
    v.hurt("twice", &[(l2, twice)]);
    v.hurt("three times", &[(l2, twice), (l2 + 16, twice)]);
    v.hurt("L1 to the header", &[(v.l1() + 16, COPIED)]);
}

#[test]
fn damaged_snapshots() {
    let dir = Dir::new();
    create(
        &dir,
        "cluster_size=4k",
        "4M",
        &[
            "write -P 1 0 16k",
            "write -c -P 3 2M 4k",
            "write -c -P 4 2052k 4k",
        ],
    );
    dir.qemu_img_ok(&["snapshot", "-c", "one", "good"]);
    dir.qemu_io("qcow2", "good", &["write -P 1 0 4k"]);
    dir.qemu_img_ok(&["snapshot", "-c", "two", "good"]);
    dir.qemu_io("qcow2", "good", &["write -P 1 4k 4k"]);
    let v = Victim::load(&dir);
    let table = v.word(64);
    let l1 = v.word(table);
    let l2 = v.word(l1) & 0x00ff_ffff_ffff_fe00;
    let second = v.word(table + 8) & 0xffff_ffff;
    v.hurt("L1 unaligned", &[(table, l1 + 0x200)]);
    v.hurt("L1 far", &[(table, FAR)]);
    for entries in [0u64, 0x40_0001, 0x1000_0000, 100_000] {
        v.hurt("L1 entries", &[(table + 8, entries << 32 | second)]);
    }
    v.hurt("L1 copied", &[(l1, v.word(l1) | COPIED)]);
    v.hurt("L1 reserved", &[(l1, v.word(l1) | 2)]);
    v.hurt("L2 unaligned", &[(l2, 0x5200)]);
    v.hurt("L2 copied", &[(l2, v.word(l2) | COPIED)]);
    v.hurt_bytes("long ID", |bytes| {
        bytes[table as usize + 12..table as usize + 14].copy_from_slice(&[0xea, 0x60]);
    });
    v.hurt_bytes("one too many", |bytes| bytes[63] = 3);
    v.hurt("table far", &[(64, FAR)]);
    v.hurt("table is the L1 table", &[(64, v.l1())]);
}

#[test]
fn damaged_bitmaps() {
    let dir = Dir::new();
    create(&dir, "cluster_size=64k", "4M", &["write -P 1 0 128k"]);
    dir.qemu_img_ok(&["bitmap", "--add", "-g", "512", "good", "b0"]);
    dir.qemu_img_ok(&["bitmap", "--add", "good", "b1"]);
    dir.qemu_io("qcow2", "good", &["write -P 1 0 16k"]);
    let v = Victim::load(&dir);
    let magic = 0x2385_2875u32.to_be_bytes();
    let at = v.bytes.windows(4).position(|w| w == magic).unwrap() as u64;
    let directory = v.word(at + 24);
    let table = v.word(directory);
    v.hurt("table far", &[(directory, FAR)]);
    v.hurt("bits far", &[(table, FAR)]);
    v.hurt("bits on the L1 table", &[(table, v.l1())]);
    v.recount("table twice", table >> 16, 2);
}

#[test]
fn images_of_every_kind_are_clean_alike() {
    let dir = Dir::new();
    for (options, writes) in [
        ("cluster_size=512", ["write 0 300k", "write -c 1M 128k"]),
        ("cluster_size=2M", ["write 0 3M", "write -z 8M 2M"]),
        (
            "cluster_size=1k,refcount_bits=64",
            ["write 5k 70k", "discard 8k 9k"],
        ),
        (
            "cluster_size=4k,refcount_bits=8,compression_type=zstd",
            ["write -c 0 64k", "write 6k 3k"],
        ),
        ("preallocation=metadata", ["write 0 1M", "write 9M 64k"]),
        ("lazy_refcounts=on", ["write 0 1M", "discard 128k 256k"]),
    ] {
        create(&dir, options, "16M", &writes);
        same(&dir, "good", options);
    }
}

#[test]
fn random_damage() {
    let dir = Dir::new();
    let mut seed = std::env::var("PLATTER_SEED").map_or(1, |text| text.parse().unwrap());
    let mut random = move |limit: usize| {
        seed = u64::wrapping_add(
            u64::wrapping_mul(seed, 6_364_136_223_846_793_005),
            1_442_695_040_888_963_407,
        );
        (seed >> 33) as usize % limit
    };
    for options in ["cluster_size=4k", "cluster_size=16k,extended_l2=on"] {
        create(
            &dir,
            options,
            "4M",
            &[
                "write -P 1 0 64k",
                "write -c -P 3 2M 16k",
                "write -z 3M 64k",
            ],
        );
        dir.qemu_img_ok(&["snapshot", "-c", "one", "good"]);
        dir.qemu_io("qcow2", "good", &["write -P 1 0 20k"]);
        let v = Victim::load(&dir);
        let tables = [v.l1(), v.l2(0), v.l2(1), v.reftable(), v.refblock()];
        for case in 0..30 {
            let mut bytes = v.bytes.clone();
            let mut told = Vec::new();
            for _ in 0..=random(3) {
                let table = tables[random(tables.len())] as usize;
                let span = [24, 300][random(2)];
                let at = table + random(span);
                let bit = 1u8 << random(8);
                if let Some(byte) = bytes.get_mut(at).filter(|_| table != 0) {
                    *byte ^= bit;
                    told.push((at, bit));
                }
            }
            std::fs::write(dir.path("bad"), &bytes).unwrap();
            same(&dir, "bad", &format!("{options} {case} {told:x?}"));
        }
    }
}

#[test]
fn hostile_images_end_soon() {
    let dir = Dir::new();
    create(&dir, "cluster_size=512", "64G", &["write 0 1k"]);
    let mut bytes = std::fs::read(dir.path("good")).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = word(&bytes, 40) as usize;
    let entries = u32::from_be_bytes(bytes[36..40].try_into().unwrap()) as usize;
    let table = word(&bytes, l1);
    for at in 0..entries.min(bytes.len() / 8 - l1 / 8) {
        bytes[l1 + 8 * at..l1 + 8 * at + 8].copy_from_slice(&table.to_be_bytes());
    }
    std::fs::write(dir.path("bad"), &bytes).unwrap();
    let (lines, report) = ours(&dir.path("bad")).unwrap();
    assert!(report.corruptions > 0 && lines.len() <= 200_002);
}

#[test]
fn rebuilt_refcounts_are_right() {
    use platter::storage::{Durability, FileStorage};
    let dir = Dir::new();
    for options in [
        "cluster_size=4k",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=64k,refcount_bits=64",
    ] {
        create(
            &dir,
            options,
            "4M",
            &["write -P 1 0 1M", "write -c -P 3 2M 64k"],
        );
        let mut bytes = std::fs::read(dir.path("good")).unwrap();
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let block = word(word(48));
        bytes[79] = 1;
        bytes[block..block + 200].fill(0);
        std::fs::write(dir.path("dirty"), &bytes).unwrap();
        let options = FileOpen {
            writable: true,
            ..FileOpen::default()
        };
        let storage: FileStorage =
            platter::storage::file::open(&dir.path("dirty"), &options).unwrap();
        let mut header = ImageHeader::read(&storage).unwrap();
        check::rebuild_refcounts(&storage, &mut header, Durability::Synced, &Arc::default())
            .unwrap();
        assert_eq!(ImageHeader::read(&storage).unwrap(), header);
        drop(storage);
        same(&dir, "dirty", "rebuilt");
        let ran = dir.qemu_img(&["check", "-f", "qcow2", "dirty"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        dir.qemu_img_ok(&["compare", "good", "dirty"]);
        // Real damage is left alone.
        bytes[79] = 1;
        let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap()) as usize;
        bytes[l1 + 7] |= 2;
        std::fs::write(dir.path("dirty"), &bytes).unwrap();
        let storage = platter::storage::file::open(&dir.path("dirty"), &options_rw()).unwrap();
        assert!(
            check::rebuild_refcounts(&storage, &mut header, Durability::Synced, &Arc::default())
                .is_err()
        );
        let mut now = vec![0; bytes.len()];
        storage.read_at(&mut now, 0).unwrap();
        assert!(now == bytes);
    }
}

fn options_rw() -> FileOpen {
    FileOpen {
        writable: true,
        ..FileOpen::default()
    }
}
