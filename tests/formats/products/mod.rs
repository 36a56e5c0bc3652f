//! Images that other products have made.

use std::path::Path;
use std::process::Command;

use platter::image::{Image, OpenOptions};
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::inspect::inspect;
use platter::{Job, Location, OpenPolicy};

use crate::common::Dir;

/// Unpacks one into the directory.
pub fn unpack(dir: &Dir, name: &str) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/products");
    let packed = std::fs::File::open(packed.join(format!("{name}.zst"))).expect("test data");
    let bytes = zstd::stream::decode_all(packed).expect("test data");
    std::fs::write(dir.path(name), bytes).expect("a file");
}

/// Unpacks one of those that stand beside, packed with bzip2.
pub fn unpack_bzip2(dir: &Dir, name: &str) {
    let packed = format!("{}/tests/images/{name}.bz2", env!("CARGO_MANIFEST_DIR"));
    let unpacked = Command::new("bzip2").args(["-dc", &packed]).output();
    let unpacked = unpacked.expect("bzip2");
    assert!(unpacked.status.success(), "{unpacked:?}");
    std::fs::write(dir.path(name), unpacked.stdout).expect("an image");
}

#[test]
fn sample_images_read_as_qemu_reads_them() {
    for (name, format, len) in [
        ("simple-dmg.dmg", "dmg", 1_799_168),
        ("simple-pattern.cloop", "cloop", 1 << 20),
        ("empty.bochs", "bochs", 1_032_192),
        ("parallels-v1", "parallels", 2 << 20),
    ] {
        let dir = Dir::new();
        unpack_bzip2(&dir, name);
        // Whether the format is named or found.
        for named in [None, Some(format.to_owned())] {
            let options = OpenOptions {
                format: named,
                policy: OpenPolicy::permissive(),
                ..OpenOptions::default()
            };
            let image = Image::open(&Location::from_path(dir.path(name)), &options).expect(name);
            assert_eq!((image.format_name(), image.len()), (format, len));
            assert!(image.warnings().is_empty(), "{name}");
            let mut ours = vec![1; len as usize];
            image.read_at(&mut ours, 0).expect(name);
            dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", name, "theirs.raw"]);
            let theirs = std::fs::read(dir.path("theirs.raw")).expect("a disk");
            assert!(ours == theirs, "{name}");
            // What the names promise.
            match name {
                "simple-dmg.dmg" => assert_eq!(ours[512..520], *b"EFI PART"),
                "empty.bochs" => assert!(ours.iter().all(|byte| *byte == 0)),
                _ => assert!(ours.iter().any(|byte| *byte != 0), "{name}"),
            }
        }
    }
}

#[test]
fn what_they_hold_is_what_qemu_reads() {
    let dir = Dir::new();
    for name in ["ext2.vhd", "ext2.vmdk"] {
        unpack(&dir, name);
        let mut request = ConvertRequest::new(
            Location::from_path(dir.path(name)),
            Location::from_path(dir.path("ours.raw")),
        );
        request.source.options.policy = OpenPolicy::permissive();
        request.target.format = Some("raw".to_owned());
        convert(&request, &mut Job::new()).expect("a conversion");
        dir.qemu_img_ok(&["convert", "-O", "raw", name, "theirs.raw"]);
        let read = |name: &str| std::fs::read(dir.path(name)).expect("a disk");
        assert!(read("ours.raw") == read("theirs.raw"), "{name}");
        // The mark of the file system that the name promises.
        assert_eq!(read("ours.raw")[1080..1082], [0x53, 0xef], "{name}");
    }
}

#[test]
fn dmg_images_in_every_compression_are_read() {
    let dir = Dir::new();
    for packing in ["adc", "bzip2", "lzfse", "lzma"] {
        let name = format!("hfsplus-{packing}.dmg");
        unpack(&dir, &name);
        let options = OpenOptions {
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let location = Location::from_path(dir.path(&name));
        let image = Image::open(&location, &options).expect(&name);
        assert_eq!((image.format_name(), image.len()), ("dmg", 3836 * 512));
        assert!(image.warnings().is_empty(), "{name}");
        let mut disk = vec![0; 3836 * 512];
        image.read_at(&mut disk, 0).expect(&name);
        // The marks of both partition tables and of the file system.
        assert_eq!(disk[512..520], *b"EFI PART", "{name}");
        assert_eq!(disk[3835 * 512..][..8], *b"EFI PART", "{name}");
        assert_eq!(disk[40 * 512 + 1024..][..2], *b"H+", "{name}");
    }
}

#[test]
fn a_disk_without_its_parent_tells_whose_it_is_and_is_not_read() {
    let dir = Dir::new();
    let name = "fat-differential.vhd";
    unpack(&dir, name);
    let location = Location::from_path(dir.path(name));
    let report = inspect(&location, &OpenOptions::default()).expect("a report");
    let names: Vec<_> = report
        .references
        .iter()
        .map(|found| found.name_text())
        .collect();
    assert_eq!(
        names,
        [
            "fat-parent.vhd",
            r"C:\Projects\dfvfs\test_data\fat-parent.vhd"
        ]
    );
    let verdicts = report
        .requirements
        .iter()
        .filter(|found| !found.verdict.is_good());
    let failed: Vec<_> = verdicts.map(|found| found.requirement.id()).collect();
    assert_eq!(failed, ["no-backing-file", "plain-names"]);
    let trusting = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let error = Image::open(&location, &trusting).expect_err("the parent is not here");
    assert!(error.to_string().contains("fat-parent.vhd"), "{error}");
    let alone = OpenOptions {
        metadata_only: true,
        backing: false,
        ..trusting
    };
    let image = Image::open(&location, &alone).expect("metadata alone");
    assert_eq!(image.len(), 4 << 20);
}
