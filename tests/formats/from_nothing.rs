//! Disks of no size, which grow.

use platter::format::RepairMode;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::Preallocation;
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};

use crate::common::Dir;

const SIZE: u64 = (3 << 20) + 512;

/// A format, options of a new image, and whether QEMU's tools check it.
const KINDS: &[(&str, &str, bool)] = &[
    ("raw", "", false),
    ("qcow2", "", true),
    ("qcow2", "compat=0.10,cluster_size=512", true),
    ("qcow2", "extended_l2=on", true),
    ("qed", "", true),
    ("parallels", "", true),
    ("vdi", "", true),
    ("vdi", "static=on", true),
    ("vhdx", "", true),
    ("vhdx", "subformat=fixed", true),
    ("vpc", "", false),
    ("vpc", "subformat=fixed", false),
    ("vmdk", "", true),
    ("vmdk", "zeroed_grain=on", true),
    ("vmdk", "subformat=monolithicFlat", true),
    ("vmdk", "subformat=twoGbMaxExtentSparse", true),
    ("vmdk", "subformat=twoGbMaxExtentFlat", true),
    ("vmdk", "subformat=vmfs", true),
];

fn create(dir: &Dir, format: &str, options: &str) {
    let request = CreateRequest {
        location: Location::from_path(dir.path("disk.img")),
        format: format.to_owned(),
        size: Some(0),
        options: match options {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        },
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: Default::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)
        .and_then(|plan| plan.run(&mut job))
        .unwrap_or_else(|error| panic!("{format} {options}: {error}"));
}

fn open(dir: &Dir, format: &str) -> Image {
    let options = OpenOptions {
        format: Some(format.to_owned()),
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(dir.path("disk.img")), &options).expect("it opens")
}

fn check(image: &Image, label: &str) {
    if let Some(checker) = image.format().checker() {
        let report = checker.check(RepairMode::Report, &mut Job::new());
        let report = report.expect("a check");
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{label}");
    }
}

#[test]
fn every_format_that_grows_does_so_from_nothing() {
    for (format, options, peer_checks) in KINDS {
        // Not all have space that can be allocated ahead.
        let modes = match *format {
            "qed" | "parallels" => &[Preallocation::Off][..],
            "vdi" | "vhdx" | "vpc" if options.is_empty() => &[Preallocation::Off],
            _ => &[Preallocation::Off, Preallocation::Full],
        };
        for preallocation in modes.iter().copied() {
            let label = format!("{format} {options} {preallocation:?}");
            let dir = Dir::new();
            create(&dir, format, options);
            let image = open(&dir, format);
            assert_eq!(image.len(), 0, "{label}");
            check(&image, &label);
            image
                .resize(SIZE, preallocation)
                .unwrap_or_else(|error| panic!("{label}: {error}"));
            let mut model = vec![0; SIZE as usize];
            for (at, byte) in [(0, 1), (1_000_007, 2), (SIZE as usize - 700, 3)] {
                image.write_at(&[byte; 700], at as u64).expect("a write");
                model[at..at + 700].fill(byte);
            }
            image.close().expect("a close");
            let image = open(&dir, format);
            assert_eq!(image.len(), SIZE, "{label}");
            let mut shown = vec![9; SIZE as usize];
            image.read_at(&mut shown, 0).expect("a read");
            assert!(shown == model, "{label}");
            check(&image, &label);
            drop(image);
            std::fs::write(dir.path("model"), &model).expect("a model");
            let compared = dir.qemu_img(&["compare", "-f", format, "disk.img", "model"]);
            assert_eq!(compared.code, 0, "{label}: {compared:?}");
            if *peer_checks {
                dir.qemu_img_ok(&["check", "-f", format, "disk.img"]);
            }
        }
    }
}
