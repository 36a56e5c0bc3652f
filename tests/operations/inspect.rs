//! `inspect` of hostile files: it opens nothing but the file, ends soon in little memory, lists what the
//! file names and says what is wrong.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::build;
use crate::common::{Dir, Ran};
use platter::format::inspect::{Requirement, Verdict};
use platter::ops::inspect::{InspectReport, inspect, inspect_storage};
use platter::policy::{ImplicitAnswer, ImplicitFiles};
use platter::storage::{CacheMode, CallbackStorage, MemoryStorage, Storage, StorageCallbacks};
use platter::{Error, ErrorKind, Location, OpenOptions, OpenPolicy};
use proptest::prelude::*;

/// The ceiling on memory of the tool, in KiB.
const MAX_KIB: u64 = 64 << 10;

fn options(format: Option<&str>) -> OpenOptions {
    OpenOptions {
        format: format.map(str::to_owned),
        ..OpenOptions::default()
    }
}

fn of_bytes(bytes: &[u8], format: Option<&str>) -> InspectReport {
    let storage = MemoryStorage::with_bytes("upload", bytes.to_vec());
    inspect_storage(Arc::new(storage), &options(format)).expect("memory can be read")
}

fn of_file(path: &Path, format: Option<&str>) -> InspectReport {
    inspect(&Location::from_path(path), &options(format)).expect("the file can be read")
}

/// The requirements that do not pass.
fn bad(report: &InspectReport) -> Vec<&'static str> {
    let bad = report
        .requirements
        .iter()
        .filter(|found| !found.verdict.is_good());
    bad.map(|found| found.requirement.id()).collect()
}

fn reason(report: &InspectReport, requirement: Requirement) -> &str {
    let found = report
        .requirements
        .iter()
        .find(|found| found.requirement == requirement);
    &found.expect("every requirement has a verdict").reason
}

fn verdict(report: &InspectReport, requirement: Requirement) -> Verdict {
    let found = report
        .requirements
        .iter()
        .find(|found| found.requirement == requirement);
    found.expect("every requirement has a verdict").verdict
}

fn be(bytes: &mut [u8], offset: usize, value: u64, width: usize) {
    bytes[offset..offset + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
}

fn at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// A small image of each kind, made by QEMU's tool once and put into `dir`.
fn images(dir: &Dir) -> &'static [(String, Vec<u8>)] {
    static IMAGES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| make_images(&Dir::new()));
    for (name, bytes) in images {
        std::fs::write(dir.path(name), bytes).expect("an image of the test");
    }
    images
}

fn make_images(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    let make = |line: &str| {
        dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
    };
    make("create -q source.raw 2M");
    dir.qemu_io(
        "raw",
        "source.raw",
        &["write -P 1 0 100k", "write -P 2 1M 64k"],
    );
    make("convert -O qcow2 source.raw plain.qcow2");
    make("convert -c -O qcow2 source.raw packed.qcow2");
    make("convert -O qcow2 -o cluster_size=512 source.raw small.qcow2");
    make("convert -O qcow2 -o extended_l2=on source.raw extended.qcow2");
    make("convert -O qcow2 -o compat=0.10 source.raw old.qcow2");
    make("convert -O qcow2 -o compression_type=zstd -c source.raw zstd.qcow2");
    make("create -q -f qcow2 -o preallocation=metadata empty.qcow2 64M");
    make("create -q -f qcow2 empty-sparse.qcow2 100T");
    make("convert -O qcow2 source.raw snap.qcow2");
    make("snapshot -c one snap.qcow2");
    dir.qemu_io("qcow2", "snap.qcow2", &["write -P 3 0 64k"]);
    make("snapshot -c two snap.qcow2");
    make("bitmap --add snap.qcow2 b0");
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=x",
        "-f",
        "qcow2",
        "-o",
        "encrypt.key-secret=s,encrypt.format=luks,encrypt.iter-time=10",
        "crypt.qcow2",
        "2M",
    ]);
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=x",
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "disk.luks",
        "2M",
    ]);
    [
        "source.raw",
        "plain.qcow2",
        "packed.qcow2",
        "small.qcow2",
        "extended.qcow2",
        "old.qcow2",
        "zstd.qcow2",
        "empty.qcow2",
        "empty-sparse.qcow2",
        "snap.qcow2",
        "crypt.qcow2",
        "disk.luks",
    ]
    .iter()
    .map(|name| {
        let bytes = std::fs::read(dir.path(name)).expect("an image of the test");
        ((*name).to_owned(), bytes)
    })
    .collect()
}

fn format_of(name: &str) -> &str {
    match name.rsplit_once('.').expect("a suffix").1 {
        "raw" => "raw",
        "luks" => "luks",
        _ => "qcow2",
    }
}

/// A qcow2 header of 4 KiB clusters with these extensions and this backing file.
fn header(extensions: &[(u32, &[u8])], backing: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * 4096];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    be(&mut bytes, 4, 3, 4);
    be(&mut bytes, 20, 12, 4);
    be(&mut bytes, 24, 1 << 20, 8);
    be(&mut bytes, 36, 1, 4);
    be(&mut bytes, 40, 0x3000, 8);
    be(&mut bytes, 48, 0x1000, 8);
    be(&mut bytes, 56, 1, 4);
    be(&mut bytes, 96, 4, 4);
    be(&mut bytes, 100, 112, 4);
    be(&mut bytes, 0x1000, 0x2000, 8);
    let mut at = 112;
    for (kind, data) in extensions {
        be(&mut bytes, at, u64::from(*kind), 4);
        be(&mut bytes, at + 4, data.len() as u64, 4);
        bytes[at + 8..at + 8 + data.len()].copy_from_slice(data);
        at += 8 + data.len().next_multiple_of(8);
    }
    at += 8;
    if !backing.is_empty() {
        be(&mut bytes, 8, at as u64, 8);
        be(&mut bytes, 16, backing.len() as u64, 4);
        bytes[at..at + backing.len()].copy_from_slice(backing);
    }
    bytes
}

const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;

#[test]
fn good_images_pass_every_guard() {
    let dir = Dir::new();
    for (name, bytes) in images(&dir) {
        let format = format_of(name);
        for report in [
            of_file(&dir.path(name), Some(format)),
            of_bytes(bytes, Some(format)),
            of_bytes(bytes, None),
        ] {
            assert_eq!(report.format, format);
            assert!(report.passed(), "{name}: {}", report.text().unwrap());
            assert!(report.references.is_empty());
            assert_eq!(report.requirements.len(), Requirement::ALL.len());
        }
        let info = dir.qemu_img_ok(&["info", "--output=json", "-f", format, name]);
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        let report = of_bytes(bytes, Some(format));
        assert_eq!(info["virtual-size"].as_u64(), report.virtual_size, "{name}");
        assert_eq!(info["cluster-size"].as_u64(), report.cluster_size, "{name}");
        assert_eq!(
            info["encrypted"].as_bool().unwrap_or(false),
            report.encrypted,
            "{name}"
        );
    }
}

#[test]
fn every_reference_is_listed_with_its_place_and_its_kind() {
    let json = br#"json:{"driver":"nbd","host":"evil"}"#;
    for (name, words, plain) in [
        (&b"base.qcow2"[..], "a plain file name", true),
        (json, "a json: description", false),
        (b"/etc/shadow", "an absolute path", false),
        (b"../../secret", "leads to a parent directory", false),
        (b"nbd://evil/x", "of the protocol 'nbd'", false),
        (b"fat:/etc", "of the protocol 'fat'", false),
        (b"a\nb", "not printable", false),
        (b"\xff\xfe", "not printable", false),
    ] {
        let mut bytes = header(&[(BACKING_FORMAT, b"raw")], name);
        let offset = at(&bytes, 8);
        // Also with a feature that keeps the image from being opened, and of a later version.
        for (field, value, width) in [
            (72, 0, 8),
            (72, 1 << 60, 8),
            (4, 9, 4),
            (4, 1, 4),
            (100, 8, 4),
        ] {
            be(&mut bytes, field, value, width);
            let report = of_bytes(&bytes, Some("qcow2"));
            let found = &report.references[0];
            assert_eq!(
                (found.role.id(), &found.name[..], found.offset),
                ("backing-file", name, offset)
            );
            assert_eq!(found.traits().words(), words);
            assert_eq!(found.traits().is_plain(), plain);
            assert_eq!(verdict(&report, Requirement::NoBackingFile), Verdict::Fail);
            let understood = value == 0;
            let expected = match (plain, understood) {
                (false, _) => Verdict::Fail,
                (true, true) => Verdict::Pass,
                // There may be more names.
                (true, false) => Verdict::Unknown,
            };
            assert_eq!(verdict(&report, Requirement::PlainNames), expected);
            assert_eq!(report.exit_code(), 2);
            be(&mut bytes, 4, 3, 4);
            be(&mut bytes, 72, 0, 8);
            be(&mut bytes, 100, 112, 4);
        }
        let report = of_bytes(&bytes, Some("qcow2"));
        assert_eq!(report.references[0].format, Some("raw".into()));
        let mut expected = vec!["no-backing-file"];
        if !plain {
            expected.push("plain-names");
        }
        assert_eq!(bad(&report), expected, "{}", report.text().unwrap());
        // Nothing of the name reaches the terminal as it is.
        assert!(
            report
                .text()
                .unwrap()
                .lines()
                .all(|line| !line.contains('\u{1b}'))
        );
        let value: serde_json::Value = serde_json::from_str(&report.json().unwrap()).expect("JSON");
        assert_eq!(value["references"][0]["plain"], plain);
        assert_eq!(
            value["references"][0]["name-bytes"].is_string(),
            name[0] == 0xff
        );
    }
}

#[test]
fn data_files_and_formats_that_are_not_recorded() {
    let mut bytes = header(&[(DATA_FILE, b"/etc/passwd")], b"");
    be(&mut bytes, 72, 4, 8);
    let report = of_bytes(&bytes, Some("qcow2"));
    assert_eq!(bad(&report), ["no-data-file", "plain-names"]);
    assert_eq!(report.references[0].name, b"/etc/passwd");
    assert_eq!(report.references[0].offset, 120);
    // The name alone, and the bit alone.
    be(&mut bytes, 72, 0, 8);
    assert_eq!(
        verdict(&of_bytes(&bytes, None), Requirement::NoDataFile),
        Verdict::Fail
    );
    let mut bytes = header(&[], b"");
    be(&mut bytes, 72, 4, 8);
    assert_eq!(
        verdict(&of_bytes(&bytes, None), Requirement::NoDataFile),
        Verdict::Fail
    );
    // A second data file, behind a first one.
    let two: [(u32, &[u8]); 2] = [(DATA_FILE, b"plain"), (DATA_FILE, b"/etc/passwd")];
    let report = of_bytes(&header(&two, b"base"), None);
    assert_eq!(report.references.len(), 3);
    assert_eq!(
        bad(&report),
        [
            "no-backing-file",
            "backing-format",
            "no-data-file",
            "plain-names",
            "header-consistent"
        ]
    );
}

#[test]
fn what_is_not_one_format_alone() {
    let dir = Dir::new();
    let images = images(&dir);
    let qcow2 = |name: &str| {
        images
            .iter()
            .find(|(n, _)| n == name)
            .expect("it")
            .1
            .clone()
    };
    // A guest that writes a header into its raw disk.
    let mut disk = vec![0; 2 << 20];
    let plain = qcow2("plain.qcow2");
    disk[..plain.len()].copy_from_slice(&plain);
    let report = of_bytes(&disk, Some("raw"));
    assert_eq!(bad(&report), ["format-matches", "single-format"]);
    assert_eq!(
        reason(&report, Requirement::FormatMatches),
        "the contents look like qcow2, not raw"
    );
    // Another format than the one that was asked for.
    assert!(bad(&of_bytes(&disk, Some("luks"))).contains(&"format-matches"));
    assert!(bad(&of_bytes(&[0; 4096], Some("qcow2"))).contains(&"format-matches"));
    // Two signatures.
    let mut both = plain.clone();
    both[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
    assert!(bad(&of_bytes(&both, Some("qcow2"))).contains(&"single-format"));
    let mut iso = plain.clone();
    iso[0x8001..0x8006].copy_from_slice(b"CD001");
    assert_eq!(bad(&of_bytes(&iso, Some("qcow2"))), ["single-format"]);
    let mut mbr = plain.clone();
    mbr[446..512].fill(0);
    mbr[450] = 0x83;
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(bad(&of_bytes(&mbr, Some("qcow2"))).contains(&"single-format"));
    let mut vhd = plain.clone();
    vhd.extend_from_slice(b"conectix");
    vhd.resize(plain.len() + 512, 0);
    assert_eq!(bad(&of_bytes(&vhd, Some("qcow2"))), ["single-format"]);
    // A disk may hold partitions and file systems.
    let mut disk = vec![0; 1 << 20];
    disk[0x8001..0x8006].copy_from_slice(b"CD001");
    disk[450] = 0x83;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let report = of_bytes(&disk, Some("raw"));
    assert!(report.passed(), "{}", report.text().unwrap());
    assert_eq!(report.signatures, ["iso9660", "mbr"]);
}

#[test]
fn formats_without_a_driver_never_pass() {
    let descriptor =
        b"# Disk DescriptorFile\nversion=1\nCID=fffffffe\ncreateType=\"monolithicFlat\"\n\
        RW 8 FLAT \"/etc/passwd\" 0\n";
    for (bytes, format) in [
        (&descriptor[..], "vmdk"),
        (b"KDMV\x01\0\0\0", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"QED\0", "qed"),
        (b"QFI\xfb\0\0\0\x01", "qcow"),
    ] {
        for named in [None, Some(format)] {
            let report = of_bytes(bytes, named);
            assert_eq!(report.format, format);
            assert!(!report.passed());
            let supported = platter::format::registry::by_name(format).is_some();
            assert_eq!(bad(&report).contains(&"format-allowed"), !supported);
            if !supported {
                assert_eq!(verdict(&report, Requirement::NoExtents), Verdict::Unknown);
            }
        }
        assert!(bad(&of_bytes(bytes, Some("raw"))).contains(&"single-format"));
    }
    let storage = Arc::new(MemoryStorage::new("x"));
    let error = inspect_storage(storage, &options(Some("nonsense"))).expect_err("no such format");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "Could not inspect 'x': Unknown driver 'nonsense'"
    );
}

/// The requirements that pass or do not apply.
fn good(report: &InspectReport) -> Vec<Requirement> {
    let good = report
        .requirements
        .iter()
        .filter(|found| found.verdict.is_good());
    good.map(|found| found.requirement).collect()
}

#[test]
fn of_contents_that_cannot_be_understood_nothing_is_known() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "10M"]);
    let vmdk = std::fs::read(dir.path("v.vmdk")).expect("an image");
    let luks = images(&dir).iter().find(|(name, _)| name == "disk.luks");
    let luks = luks.expect("a volume").1.clone();
    let mut later = header(&[], b"");
    be(&mut later, 4, 4, 4);
    let mut feature = header(&[], b"");
    be(&mut feature, 72, 1 << 40, 8);
    let long = header(&[(0x1234, &[0; 8])], b"");
    let mut cut = long.clone();
    be(&mut cut, 116, 1 << 30, 4);
    for (what, bytes, format) in [
        ("a vmdk", &vmdk[..], "qcow2"),
        ("a vmdk", &vmdk[..], "luks"),
        ("nothing", &[], "qcow2"),
        ("nothing", &[], "luks"),
        ("zeroes", &[0; 70_000], "qcow2"),
        ("the magic alone", b"QFI\xfb", "qcow2"),
        ("another version", &later, "qcow2"),
        ("another feature", &feature, "qcow2"),
        ("a long extension", &cut, "qcow2"),
        ("half a header", &luks[..300], "luks"),
    ] {
        let report = of_bytes(bytes, Some(format));
        for requirement in good(&report) {
            // These are about the signatures and the name of the format alone.
            assert!(
                matches!(
                    requirement,
                    Requirement::FormatMatches
                        | Requirement::SingleFormat
                        | Requirement::FormatAllowed
                ),
                "{what} as {format}: {requirement:?}"
            );
        }
        for requirement in [
            Requirement::NoBackingFile,
            Requirement::NoDataFile,
            Requirement::NoExtents,
            Requirement::BackingFormat,
            Requirement::PlainNames,
        ] {
            assert_eq!(
                verdict(&report, requirement),
                Verdict::Unknown,
                "{what} as {format}: {requirement:?}"
            );
        }
        // As raw it is a disk, whatever stands in it.
        let raw = of_bytes(bytes, Some("raw"));
        assert_eq!(
            verdict(&raw, Requirement::NoBackingFile),
            Verdict::Pass,
            "{what}"
        );
    }
    let named = header(&[], b"base.qcow2");
    let mut later = named.clone();
    be(&mut later, 4, 4, 4);
    let report = of_bytes(&later, Some("qcow2"));
    assert_eq!(verdict(&report, Requirement::NoBackingFile), Verdict::Fail);
    assert_eq!(verdict(&report, Requirement::PlainNames), Verdict::Unknown);
}

#[test]
fn extensions_that_are_repeated_are_not_consistent() {
    let twice = header(&[(DATA_FILE, b"one"), (DATA_FILE, b"two")], b"");
    let report = of_bytes(&twice, Some("qcow2"));
    assert_eq!(
        verdict(&report, Requirement::HeaderConsistent),
        Verdict::Fail
    );
    assert_eq!(
        reason(&report, Requirement::HeaderConsistent),
        "the header extension for the data file name is repeated"
    );
    let names: Vec<_> = report
        .references
        .iter()
        .map(|one| one.name_text())
        .collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn a_second_version_of_luks_is_recognised() {
    let mut bytes = vec![0; 1 << 20];
    bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    let report = of_bytes(&bytes, Some("luks"));
    assert_eq!(
        reason(&report, Requirement::KnownFeatures),
        "LUKS version 2 is not supported"
    );
    assert!(!report.passed() && report.signatures == ["luks2"]);
    assert_eq!(bad(&of_bytes(&bytes, None)), ["single-format"]);
}

#[test]
fn ceilings_of_the_policy() {
    let dir = Dir::new();
    let images = images(&dir);
    let check = |name: &str, change: fn(&mut OpenPolicy), expected: &[&str]| {
        let mut options = options(Some(format_of(name)));
        change(&mut options.policy);
        let bytes = images
            .iter()
            .find(|(n, _)| n == name)
            .expect("it")
            .1
            .clone();
        let storage = MemoryStorage::with_bytes("x", bytes);
        let report = inspect_storage(Arc::new(storage), &options).expect("a report");
        assert_eq!(bad(&report), expected, "{name}: {}", report.text().unwrap());
    };
    check("plain.qcow2", |p| p.max_virtual_size = 2 << 20, &[]);
    check(
        "plain.qcow2",
        |p| p.max_virtual_size = (2 << 20) - 1,
        &["virtual-size"],
    );
    check(
        "source.raw",
        |p| p.max_virtual_size = 512,
        &["virtual-size"],
    );
    check(
        "plain.qcow2",
        |p| p.max_decompressed_bytes = 65535,
        &["decompressed-size"],
    );
    check(
        "plain.qcow2",
        |p| p.max_table_bytes = 512,
        &["header-consistent", "table-sizes"],
    );
    check(
        "disk.luks",
        |p| p.max_key_iterations = 1,
        &["key-derivation"],
    );
    check(
        "crypt.qcow2",
        |p| p.max_key_iterations = 1,
        &["key-derivation"],
    );
    check(
        "plain.qcow2",
        |p| p.formats = vec!["raw".into()],
        &["format-allowed"],
    );
}

#[test]
fn headers_that_lie() {
    let good = header(&[], b"");
    assert!(of_bytes(&good, Some("qcow2")).passed());
    for (field, value, width, expected) in [
        (20, 22, 4, &["header-consistent"][..]),
        (20, 31, 4, &["header-consistent"]),
        (24, 1 << 60, 8, &["header-consistent"]),
        (24, u64::MAX, 8, &["header-consistent", "virtual-size"]),
        (36, 1 << 22, 4, &["header-consistent"]),
        (
            36,
            u64::from(u32::MAX),
            4,
            &["header-consistent", "table-sizes"],
        ),
        (40, 0x10_0000, 8, &["header-consistent"]),
        (40, 0x1000, 8, &["header-consistent"]),
        (40, 0, 8, &["header-consistent"]),
        (48, 0x3000, 8, &["header-consistent"]),
        (
            56,
            u64::from(u32::MAX),
            4,
            &["header-consistent", "table-sizes"],
        ),
        (60, 2, 4, &["header-consistent"]),
        (60, 70_000, 4, &["header-consistent", "snapshot-count"]),
        (72, 1, 8, &["clean"]),
        (72, 2, 8, &["clean"]),
        (72, 1 << 20, 8, &["known-features"]),
        (96, 9, 4, &["header-consistent"]),
        (100, 50, 4, &["header-consistent"]),
        (104, 7, 1, &["known-features"]),
        (32, 9, 4, &["known-features"]),
        // The L2 table is the header, the L1 table, past the end, unaligned.
        (0x3000, 0x1000, 8, &["header-consistent"]),
        (0x3000, 0x3000, 8, &["header-consistent"]),
        (0x3000, 0x10_0000, 8, &["header-consistent"]),
        (0x3000, 0x2200, 8, &["header-consistent"]),
        // It is also the refcount block.
        (0x3000, 0x2000, 8, &["header-consistent"]),
    ] {
        let mut bytes = good.clone();
        be(&mut bytes, field, value, width);
        let report = of_bytes(&bytes, Some("qcow2"));
        for requirement in expected {
            assert!(
                bad(&report).contains(requirement),
                "{field} = {value:#x}: {}",
                report.text().unwrap()
            );
        }
        assert_eq!(report.exit_code(), 2);
    }
    // A file far longer than its disk.
    let storage = MemoryStorage::with_bytes("x", good);
    storage
        .set_len(100 << 20, platter::storage::Preallocation::Off)
        .expect("memory");
    let report = inspect_storage(Arc::new(storage), &options(Some("qcow2"))).expect("a report");
    assert_eq!(bad(&report), ["file-size"]);
}

/// Storage that counts what is asked of it and refuses all but reads.
fn counting(bytes: Vec<u8>) -> (CallbackStorage, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let (counter, len) = (read.clone(), bytes.len() as u64);
    let refuse = || Err(Error::new(ErrorKind::Internal, "inspect changed something"));
    let calls = StorageCallbacks {
        read: Box::new(move |buf, offset| {
            counter.fetch_add(buf.len() as u64, Ordering::Relaxed);
            let from = offset as usize;
            buf.copy_from_slice(&bytes[from..from + buf.len()]);
            Ok(())
        }),
        size: Box::new(move || Ok(len)),
        write: Some(Box::new(move |_, _| refuse())),
        flush: Some(Box::new(refuse)),
        set_size: Some(Box::new(move |_| refuse())),
        zero: Some(Box::new(move |_, _, _| refuse())),
        discard: Some(Box::new(move |_, _| refuse())),
        extent: None,
        close: None,
    };
    let storage = CallbackStorage::new("callbacks", calls, CacheMode::Writeback);
    (storage.expect("callbacks"), read)
}

#[test]
fn nothing_that_is_named_is_opened_and_reads_are_few() {
    let dir = Dir::new();
    // A name that would block whoever opens it, one that would be found, one that is not there.
    let fifo = dir.str("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );
    std::fs::write(dir.path("there"), [0; 512]).expect("a file");
    for name in [&fifo, "there", "nowhere", &dir.str("there")] {
        let mut bytes = header(
            &[(BACKING_FORMAT, b"raw"), (DATA_FILE, name.as_bytes())],
            name.as_bytes(),
        );
        be(&mut bytes, 72, 4, 8);
        // The policy would allow everything, and its callback would be asked.
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        let mut options = options(Some("qcow2"));
        options.policy = OpenPolicy::permissive();
        options.policy.implicit_files = ImplicitFiles::Ask(Arc::new(move |file| {
            list.lock().expect("a lock").push(file.name.to_owned());
            Ok(ImplicitAnswer::Open)
        }));
        let (storage, read) = counting(bytes.clone());
        let report = inspect_storage(Arc::new(storage), &options).expect("a report");
        assert_eq!(bad(&report)[..2], ["no-backing-file", "no-data-file"]);
        assert!(asked.lock().expect("a lock").is_empty());
        assert!(read.load(Ordering::Relaxed) <= 64 << 10);
        // The tool alike: it would hang on the FIFO, and a lock on the other file would be refused.
        std::fs::write(dir.path("bad.qcow2"), &bytes).expect("the image");
        let ran = limited(&dir, &["inspect", "-f", "qcow2", "bad.qcow2"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert_eq!(ran.err, "");
    }
}

#[test]
fn reads_are_bounded_whatever_the_file_claims() {
    // Tables as large as they can be, in a file that really has them.
    let mut bytes = header(&[], b"");
    be(&mut bytes, 20, 16, 4);
    be(&mut bytes, 24, 1 << 50, 8);
    be(&mut bytes, 36, 1 << 22, 4);
    be(&mut bytes, 40, 0x10_0000, 8);
    be(&mut bytes, 48, 0x1_0000, 8);
    be(&mut bytes, 56, 8, 4);
    bytes.resize((1 << 20) + (32 << 20), 0);
    // Every entry points to another table in the file, but there is no room for as many.
    for index in 0..1 << 22 {
        let offset = 0x10_0000 + (index as u64 % 512) * 0x1_0000;
        be(&mut bytes, 0x10_0000 + index * 8, offset, 8);
    }
    let (storage, read) = counting(bytes);
    let report = inspect_storage(Arc::new(storage), &options(Some("qcow2"))).expect("a report");
    assert!(bad(&report).contains(&"header-consistent"));
    assert!(read.load(Ordering::Relaxed) < 50 << 20);
}

/// Runs the tool under a limit on time, and fails the test on a hang, a signal or too much memory.
fn limited(dir: &Dir, args: &[&str]) -> Ran {
    let usage = dir.path("usage");
    let output = Command::new(build::limited())
        .arg("20")
        .arg(&usage)
        .arg(build::tool())
        .args(args)
        .current_dir(dir.root())
        .env("LC_ALL", "C")
        .output()
        .expect("the tool runs");
    let text = std::fs::read_to_string(&usage).expect("the usage of the tool");
    let mut words = text
        .split_whitespace()
        .map(|w| w.parse::<u64>().expect("a number"));
    let (memory, signal) = (
        words.next().expect("memory"),
        words.next().expect("a signal"),
    );
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(
        signal == 0 && memory <= MAX_KIB,
        "{args:?}: {memory} KiB, signal {signal}: {ran:?}"
    );
    ran
}

#[test]
fn the_tool_keeps_within_its_limits() {
    let dir = Dir::new();
    let images = images(&dir);
    let plain = images.iter().find(|(n, _)| n == "snap.qcow2");
    let plain = &plain.expect("it").1;
    let mut count = 0;
    for (size, l1_size) in [(1u64 << 60, u32::MAX), (1 << 51, 1 << 22), (0, u32::MAX)] {
        for cluster_bits in [9u64, 16, 21] {
            for tables in [1u64, 1 << 12, u64::from(u32::MAX)] {
                let mut bytes = plain.clone();
                be(&mut bytes, 20, cluster_bits, 4);
                be(&mut bytes, 24, size, 8);
                be(&mut bytes, 36, u64::from(l1_size), 4);
                be(&mut bytes, 56, tables, 4);
                be(&mut bytes, 60, 65536, 4);
                std::fs::write(dir.path("bad"), &bytes).expect("the image");
                // Huge, but not on the disk.
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(dir.path("bad"));
                file.expect("the image")
                    .set_len(1 << 40)
                    .expect("a long file");
                let ran = limited(&dir, &["inspect", "-f", "qcow2", "--output=json", "bad"]);
                assert_eq!((ran.code, &*ran.err), (2, ""));
                count += 1;
            }
        }
    }
    assert_eq!(count, 27);
}

#[test]
fn the_command_line() {
    let dir = Dir::new();
    images(&dir);
    let run = |line: &str| limited(&dir, &line.split_whitespace().collect::<Vec<_>>());
    let ran = run("inspect -f qcow2 plain.qcow2");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    assert!(
        ran.out
            .starts_with("file: plain.qcow2\nformat: qcow2\nfile size: "),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("\nverdict: pass\n"), "{}", ran.out);
    let ran = run("inspect --output=json source.raw");
    let value: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "filename",
            "format",
            "format-named",
            "file-size",
            "virtual-size",
            "encrypted",
            "signatures",
            "references",
            "guards",
            "verdict"
        ]
    );
    assert_eq!((ran.code, value["verdict"].as_str()), (0, Some("pass")));
    let ran = run("inspect -f raw plain.qcow2");
    assert_eq!(ran.code, 2);
    assert!(
        ran.out.ends_with("\nverdict: FAIL (2 guards)\n"),
        "{}",
        ran.out
    );
    assert_eq!(run("inspect --max-virtual-size 2M plain.qcow2").code, 0);
    assert_eq!(run("inspect --max-virtual-size 1M plain.qcow2").code, 2);
    for line in [
        "inspect",
        "inspect a b",
        "inspect nowhere",
        "inspect -f nonsense plain.qcow2",
        "inspect --max-virtual-size x plain.qcow2",
        "inspect --output=x plain.qcow2",
        "inspect .",
        "inspect json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"plain.qcow2\"}}}",
    ] {
        let ran = run(line);
        assert_eq!((ran.code, &*ran.out), (1, ""), "{line}: {ran:?}");
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn another_writer_is_noticed() {
    let dir = Dir::new();
    images(&dir);
    let location = Location::from_path(dir.path("plain.qcow2"));
    let mut how = options(Some("qcow2"));
    how.writable = true;
    let writer = platter::Image::open(&location, &how).expect("the image");
    let error = inspect(&location, &options(Some("qcow2"))).expect_err("it is being written to");
    assert_eq!(error.kind(), ErrorKind::Locked);
    let shared = OpenOptions {
        force_share: true,
        ..options(Some("qcow2"))
    };
    assert!(inspect(&location, &shared).is_ok());
    writer.close().expect("the image closes");
}

#[test]
fn truncated_images_of_every_length() {
    let dir = Dir::new();
    for (name, bytes) in images(&dir) {
        let lengths = (0..1024).chain((1024..bytes.len().min(300_000)).step_by(1777));
        for length in lengths {
            let report = of_bytes(&bytes[..length], Some(format_of(name)));
            assert_eq!(report.requirements.len(), Requirement::ALL.len());
            let raw = format_of(name) == "raw";
            assert!(
                raw || length >= 512 || !report.passed(),
                "{name} cut to {length}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        for format in [None, Some("raw"), Some("qcow2"), Some("luks"), Some("vmdk")] {
            let report = of_bytes(&bytes, format);
            prop_assert_eq!(report.requirements.len(), Requirement::ALL.len());
            prop_assert!(!report.text().unwrap().is_empty() && !report.json().unwrap().is_empty());
        }
    }

    #[test]
    fn flipped_bits_of_headers_never_panic(
        flips in proptest::collection::vec((0usize..400, 0u8..8), 1..20),
        tables in proptest::collection::vec((0x1000usize..0x4000, 0u8..8), 0..20),
    ) {
        let two: [(u32, &[u8]); 2] = [(BACKING_FORMAT, b"raw"), (DATA_FILE, b"x")];
        let mut bytes = header(&two, b"base");
        for (offset, bit) in flips.iter().chain(&tables) {
            bytes[*offset] ^= 1 << bit;
        }
        let report = of_bytes(&bytes, Some("qcow2"));
        prop_assert_eq!(report.requirements.len(), Requirement::ALL.len());
        prop_assert!(!report.text().unwrap().is_empty() && !report.json().unwrap().is_empty());
    }
}
