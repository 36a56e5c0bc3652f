//! Disks of no size, which grow.

use platter::format::RepairMode;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest, TargetFormat};
use platter::ops::measure::{MeasureSource, measure};
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

/// What a new overlay takes, with nothing in it and with all of its blocks.
#[test]
fn overlays_are_measured_as_they_are_written() {
    const SIZE: u64 = 5 << 20;
    for (format, options) in [
        ("vhdx", ",block_size=1M"),
        ("vpc", ",force_size=on"),
        ("vdi", ""),
        ("vmdk", ""),
    ] {
        let dir = Dir::new();
        std::fs::write(dir.path("full"), vec![7; SIZE as usize]).expect("a source");
        let text = format!("backing_file=base,backing_fmt={format}{options}");
        let target = TargetFormat::creatable(format).expect("a format");
        let measured = |source: MeasureSource<'_>| {
            let options = Options::parse(&text).expect("options");
            let report = measure(source, target, &options, &mut Job::new());
            report.expect("a measure").0
        };
        create(&dir, format, options.trim_start_matches(','));
        std::fs::rename(dir.path("disk.img"), dir.path("base")).expect("a base");
        let policy = OpenPolicy::permissive;
        let at = |name: &str| Location::from_path(dir.path(name));
        let request = CreateRequest {
            location: at("empty"),
            format: format.to_owned(),
            size: Some(SIZE),
            options: Options::parse(&text).expect("options"),
            backing_file: None,
            backing_format: None,
            backing_unsafe: false,
            exclusive: false,
            objects: Default::default(),
            policy: policy(),
            storages: None,
        };
        let mut job = Job::new();
        let plan = CreatePlan::new(request, &mut job).expect("a plan");
        plan.run(&mut job).expect("an overlay");
        let len = |name: &str| std::fs::metadata(dir.path(name)).expect("a file").len();
        let empty = measured(MeasureSource::Size(SIZE));
        assert_eq!(empty.required, len("empty"), "{format}");

        let mut request = ConvertRequest::new(at("full"), at("over"));
        request.source.options.format = Some("raw".to_owned());
        request.target.format = Some(format.to_owned());
        request.target.options = Options::parse(&text).expect("options");
        request.target.policy = policy();
        convert(&request, &mut Job::new()).expect("a conversion");
        let source = OpenOptions {
            format: Some("raw".to_owned()),
            policy: policy(),
            ..OpenOptions::default()
        };
        let source = Image::open(&at("full"), &source).expect("a source");
        let full = measured(MeasureSource::Image(&source));
        assert_eq!(full.fully_allocated, empty.fully_allocated, "{format}");
        let written = len("over");
        assert!(written <= full.required, "{format}: {written} {full:?}");
        // Bitmaps of blocks that are here as a whole need not be there.
        let spare = if format == "vhdx" { 1 << 20 } else { 0 };
        assert!(
            full.required - written <= spare,
            "{format}: {written} {full:?}"
        );
    }
}
