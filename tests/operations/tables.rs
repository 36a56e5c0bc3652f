//! Lower tables over storages whose requests wait: they are asked for together, not one after the other.

use std::path::Path;
use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::ops::compare::{Comparison, compare};
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest, TargetFormat};
use platter::ops::map::{MapEntry, map, visit};
use platter::ops::measure::{MeasureSource, measure};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::GatheringStorage;
use platter::storage::{NamedStorages, Storage, StorageOpen};
use platter::{Error, Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use crate::common::Dir;

/// As many requests as the storage likes.
const IN_FLIGHT: u32 = 8;
/// An image with many tables.
#[derive(Clone, Copy)]
struct Case {
    format: &'static str,
    creation: &'static str,
    /// A table, or a page of one, is for so many MiB of the guest.
    span: u64,
    /// How many of them there are, with data in each.
    tables: u64,
    /// How often who needs all of them waits.
    few: u64,
    checks: bool,
}

/// Tables of 2 MiB of the guest each, between the data.
const TABLES: Case = Case {
    format: "qcow2",
    creation: "cluster_size=4k",
    span: 2,
    tables: 128,
    few: 8,
    checks: true,
};

fn options(format: &str) -> OpenOptions {
    OpenOptions {
        format: Some(format.to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

/// The image of a case: 64 KiB of data for each table.
fn image(dir: &Dir, case: Case) -> String {
    let raw = dir.path("raw");
    let file = std::fs::File::create(&raw).expect("a file");
    file.set_len((case.tables * case.span) << 20)
        .expect("its length");
    for n in 0..case.tables {
        let data = [n as u8 | 1; 64 << 10];
        std::os::unix::fs::FileExt::write_all_at(&file, &data, (n * case.span) << 20)
            .expect("data");
    }
    let path = dir.str(&format!("image.{}", case.format));
    let raw = raw.to_str().expect("UTF-8");
    let mut args = vec!["convert", "-m1", "-f", "raw", "-O", case.format];
    if !case.creation.is_empty() {
        args.extend(["-o", case.creation]);
    }
    args.extend([raw, path.as_str()]);
    dir.qemu_img_ok(&args);
    path
}

/// The file of that path, whose requests wait.
fn far_file(path: &str) -> Arc<GatheringStorage> {
    file(path, IN_FLIGHT)
}

fn file(path: &str, in_flight: u32) -> Arc<GatheringStorage> {
    let bytes = std::fs::read(path).expect("the image");
    let memory = MemoryStorage::with_bytes("far", bytes);
    Arc::new(GatheringStorage::new(Arc::new(memory), in_flight))
}

fn far(path: &str, options: &OpenOptions) -> (Image, Arc<GatheringStorage>) {
    let storage = far_file(path);
    let image = Image::open_storage(storage.clone(), options).expect("it opens");
    (image, storage)
}

/// The same where no request waits; without the holes of the file, which are in neither.
fn near(path: &str, format: &str) -> Image {
    Image::open_storage(file(path, 1), &options(format)).expect("it opens")
}

fn runs(image: &Image) -> Vec<MapEntry> {
    map(image, 0, None, &mut Job::new()).expect("a map").entries
}

/// The runs up to an error, or up to one of them that `until` ends at.
fn runs_until(image: &Image, until: u64) -> (Vec<MapEntry>, Result<()>) {
    let mut found = Vec::new();
    let ended = visit(image, 0, None, &mut Job::new(), &mut |run| {
        found.push(*run);
        match run.start + run.length >= until {
            true => Err(Error::invalid("enough")),
            false => Ok(()),
        }
    });
    (found, ended)
}

/// Waits of `work` on the image at `path`.
fn waits<R>(
    path: &str,
    options: &OpenOptions,
    work: impl FnOnce(&Image) -> R,
) -> (R, u64, Arc<GatheringStorage>) {
    let (image, storage) = far(path, options);
    let before = storage.reads();
    let result = work(&image);
    let waits = storage.reads() - before;
    (result, waits, storage)
}

/// `map`, `measure`, `compare`, `convert` and, where the format has it, `check` of an image with many tables wait a few
/// times for them.
fn few_waits(case: Case) {
    let Case { format, few, .. } = case;
    let dir = Dir::new();
    let path = image(&dir, case);
    let expected = runs(&near(&path, format));
    let options = options(format);

    let (found, times, _) = waits(&path, &options, runs);
    assert!(found == expected, "{format}");
    let count = found.len() as u64;
    assert!(count > case.tables, "{format}: {count} runs");
    assert!(times <= few, "{format}: map waited {times} times");

    let measured = |image: &Image| {
        let target = TargetFormat::find("qcow2").expect("a format");
        let source = MeasureSource::Image(image);
        measure(source, target, &Options::default(), &mut Job::new()).expect("a measure")
    };
    let (found, times, _) = waits(&path, &options, measured);
    assert_eq!(found, measured(&near(&path, format)), "{format}");
    assert!(times <= few, "{format}: measure waited {times} times");

    // Each MiB of data is a read.
    let data = expected.iter().filter(|run| run.data);
    let data: u64 = data.map(|run| run.length.div_ceil(1 << 20)).sum();
    let compared = |image: &Image| {
        let report = compare(image, &near(&path, format), true, &mut Job::new());
        report.expect("a comparison").result
    };
    let (found, times, _) = waits(&path, &options, compared);
    assert_eq!(found, Comparison::Identical, "{format}");
    let most = data + few;
    assert!(
        times <= most,
        "{format}: compare waited {times} times, not {most}"
    );
    let times = waits_of_conversion(&dir, format, &path);
    // Opening waits too.
    let most = most + 8;
    assert!(
        times <= most,
        "{format}: convert waited {times} times, not {most}"
    );

    if case.checks {
        let options = OpenOptions {
            for_check: true,
            ..options
        };
        let checked = |image: &Image| check(image, RepairMode::Report, &mut Job::new());
        let (outcome, times, _) = waits(&path, &options, checked);
        let outcome = outcome.expect("a check");
        assert_eq!(outcome.exit_code(), 0, "{format}: {}", outcome.text());
        // Tables, and what counts.
        let most = 2 * few;
        assert!(
            times <= most,
            "{format}: check waited {times} times, not {most}"
        );
    }
}

/// The storage behind all names that end so.
#[derive(Debug)]
struct Shelf(&'static str, Arc<GatheringStorage>);

impl NamedStorages for Shelf {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        name.ends_with(self.0)
            .then(|| Ok(self.1.clone() as Arc<dyn Storage>))
    }
}

fn waits_of_conversion(dir: &Dir, format: &str, path: &str) -> u64 {
    let storage = far_file(path);
    let target = Location::from_path(dir.path("copy.raw"));
    let mut request = ConvertRequest::new(Location::from_path("far"), target);
    request.source.options = OpenOptions {
        storages: Some(Arc::new(Shelf("far", storage.clone()))),
        ..options(format)
    };
    request.target.format = Some("raw".to_owned());
    request.target.policy = OpenPolicy::permissive();
    convert(&request, &mut Job::new()).expect("a conversion");
    dir.qemu_img_ok(&["compare", "-f", "raw", "-F", "raw", "raw", "copy.raw"]);
    storage.reads()
}

#[test]
fn tables_of_qcow2_are_asked_for_together() {
    few_waits(TABLES);
    for creation in [
        "cluster_size=4k,refcount_bits=64",
        "cluster_size=4k,compat=0.10",
        "cluster_size=4k,extended_l2=off,lazy_refcounts=on",
    ] {
        few_waits(Case { creation, ..TABLES });
    }
    few_waits(Case {
        creation: "cluster_size=16k,extended_l2=on",
        // Sixteen slices of each table.
        span: 4,
        ..TABLES
    });
}

#[test]
fn tables_of_qed_are_asked_for_together() {
    few_waits(Case {
        format: "qed",
        creation: "cluster_size=4k,table_size=2",
        span: 4,
        ..TABLES
    });
}

#[test]
fn tables_of_qcow_are_asked_for_together() {
    few_waits(Case {
        format: "qcow",
        creation: "",
        ..TABLES
    });
}

#[test]
fn pages_of_tables_of_blocks_are_asked_for_together() {
    for (format, creation, span) in [
        ("vdi", "", 4 << 10),
        ("parallels", "cluster_size=64k", 256),
        ("vpc", "force_size=on", 8 << 10),
        ("vhdx", "block_size=1M", 512),
    ] {
        few_waits(Case {
            format,
            creation,
            span,
            tables: 64,
            checks: format != "vpc",
            ..TABLES
        });
    }
}

#[test]
fn tables_of_vmdk_are_asked_for_together() {
    few_waits(Case {
        format: "vmdk",
        creation: "",
        span: 32,
        // Which stand in a row, and are read by 64 KiB anyway.
        tables: 1024,
        few: 16,
        checks: true,
    });
}

#[test]
fn tables_below_an_overlay_are_asked_for_together() {
    let dir = Dir::new();
    let path = image(&dir, TABLES);
    let overlay = dir.str("overlay");
    dir.qemu_img_ok(&[
        "create", "-f", "qcow2", "-b", &path, "-F", "qcow2", &overlay,
    ]);
    // Both layers hold something, in turns.
    let writes: Vec<String> = (0..10).map(|n| format!("write {}M 8k", n * 20)).collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    dir.qemu_io("qcow2", "overlay", &writes);
    let location = Location::parse(&overlay).expect("a path");
    let local = Image::open(&location, &options("qcow2")).expect("it opens");
    let expected = runs(&local);
    let storage = far_file(&path);
    let options = OpenOptions {
        storages: Some(Arc::new(Shelf("image.qcow2", storage.clone()))),
        ..options("qcow2")
    };
    let image = Image::open(&location, &options).expect("it opens");
    let before = storage.reads();
    assert!(runs(&image) == expected);
    let times = storage.reads() - before;
    assert!(times <= TABLES.few, "map waited {times} times");
}

/// Every part of a differencing disk has sectors of its own beside those of its parent.
#[test]
fn sector_bitmaps_are_asked_for_together() {
    // What one bitmap, or a page of one, is for.
    for (format, creation, span) in [("vpc", "", 2 << 20), ("vhdx", "block_size=1M", 16 << 20)] {
        let dir = Dir::new();
        let len = 64 * span;
        let create = |name: &str, backing: Option<&str>| {
            let mut chosen = Options::new();
            if !creation.is_empty() {
                chosen.parse_into(creation).expect("options");
            }
            let request = CreateRequest {
                location: Location::from_path(dir.path(name)),
                format: format.to_owned(),
                size: backing.is_none().then_some(len),
                options: chosen,
                backing_file: backing.map(Into::into),
                backing_format: backing.map(|_| format.to_owned()),
                backing_unsafe: false,
                exclusive: false,
                objects: platter::object::Objects::default(),
                policy: OpenPolicy::permissive(),
                storages: None,
            };
            let plan = CreatePlan::new(request, &mut Job::new()).expect("a plan");
            plan.run(&mut Job::new()).expect("a disk");
            let options = OpenOptions {
                writable: true,
                ..options(format)
            };
            Image::open(&Location::from_path(dir.path(name)), &options).expect("it opens")
        };
        let base = create("base", None);
        for at in (0..len).step_by(span as usize) {
            base.write_at(&[1; 8192], at + 65536).expect("data below");
        }
        base.close().expect("the parent");
        let top = create("top", Some("base"));
        for at in (0..len).step_by(span as usize) {
            top.write_at(&[2; 4096], at).expect("data above");
        }
        top.close().expect("the disk");

        let location = Location::from_path(dir.path("top"));
        let local = Image::open(&location, &options(format)).expect("it opens");
        let expected = runs(&local);
        assert!(expected.len() as u64 > 2 * len / span, "{}", expected.len());
        let opened = || {
            let storage = far_file(&dir.str("top"));
            let options = OpenOptions {
                storages: Some(Arc::new(Shelf("top", storage.clone()))),
                ..options(format)
            };
            let image = Image::open(&location, &options).expect("it opens");
            let before = storage.reads();
            (image, storage, before)
        };
        let (image, storage, before) = opened();
        assert!(runs(&image) == expected, "{format}");
        let times = storage.reads() - before;
        assert!(times <= 8, "{format}: map waited {times} times");

        let (image, storage, before) = opened();
        let report = compare(&image, &local, true, &mut Job::new());
        assert_eq!(report.expect("a comparison").result, Comparison::Identical);
        // The data of each part.
        let most = len / span + 8;
        let times = storage.reads() - before;
        assert!(
            times <= most,
            "{format}: compare waited {times} times, not {most}"
        );
    }
}

#[test]
fn a_short_read_asks_for_no_table_but_its_own() {
    let dir = Dir::new();
    let path = image(&dir, TABLES);
    let (far, storage) = far(&path, &options("qcow2"));
    for at in [8 << 20, 128 << 20, 64 << 20] {
        let before = storage.reads();
        far.read_at(&mut [0; 4096], at).expect("a read");
        assert_eq!(storage.reads() - before, 2, "a table and the data");
    }
    assert_eq!(storage.together(), 0);
}

/// The image, and where its L1 table has the entry for 32 MiB.
fn with_entry_for_32_mib(dir: &Dir) -> (String, usize) {
    let path = image(dir, TABLES);
    let bytes = std::fs::read(&path).expect("the image");
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().expect("8 bytes"));
    (path, l1 as usize + 16 * 8)
}

fn put(path: &str, at: usize, entry: u64) {
    let mut bytes = std::fs::read(path).expect("the image");
    bytes[at..][..8].copy_from_slice(&entry.to_be_bytes());
    std::fs::write(path, bytes).expect("the image");
}

#[test]
fn a_table_past_the_end_of_the_file_is_refused_where_it_is_needed() {
    let dir = Dir::new();
    let (path, entry) = with_entry_for_32_mib(&dir);
    let expected = runs(&near(&path, "qcow2"));
    put(&path, entry, 1 << 40);
    let (far, storage) = far(&path, &options("qcow2"));
    let (found, ended) = runs_until(&far, u64::MAX);
    let error = ended.expect_err("no such table").to_string();
    assert!(error.contains("past the end of the file"), "{error}");
    let before = expected.iter().filter(|run| run.start < 32 << 20).count();
    assert!(found.len() >= before - 1, "{} of {before}", found.len());
    assert!(storage.together() > 1);
}

#[test]
fn a_table_that_is_no_table_does_not_mark_an_image_that_does_not_need_it() {
    let dir = Dir::new();
    let (path, entry) = with_entry_for_32_mib(&dir);
    put(&path, entry, 1 << 63 | 0x1200);
    let writable = OpenOptions {
        writable: true,
        ..options("qcow2")
    };
    let (far, storage) = far(&path, &writable);
    let (_, ended) = runs_until(&far, 16 << 20);
    assert_eq!(ended.expect_err("enough").to_string(), "enough");
    far.write_at(&[7; 512], 0).expect("the image is not marked");
    let mut flags = [0; 8];
    storage.read_at(&mut flags, 72).expect("the header");
    assert_eq!(u64::from_be_bytes(flags) & 2, 0, "no corrupt bit");
    // Who needs it does meet it.
    far.read_at(&mut [0; 512], 32 << 20).expect_err("no table");
}

#[test]
fn a_table_that_cannot_be_read_fails_who_needs_it_and_costs_the_others_little() {
    let dir = Dir::new();
    let (path, entry) = with_entry_for_32_mib(&dir);
    let bytes = std::fs::read(&path).expect("the image");
    let word = u64::from_be_bytes(bytes[entry..][..8].try_into().expect("8 bytes"));
    let table = word & 0x00ff_ffff_ffff_fe00;
    let (far, storage) = far(&path, &options("qcow2"));
    storage.refuse(table..table + 512);
    let before = storage.reads();
    let (_, ended) = runs_until(&far, 30 << 20);
    assert_eq!(ended.expect_err("enough").to_string(), "enough");
    let times = storage.reads() - before;
    // One alone for each table, and no more than twice.
    assert!(times <= 2 * 16, "{times} reads");
    let (_, ended) = runs_until(&far, u64::MAX);
    assert_eq!(ended.expect_err("no table").errno(), libc::EIO);
}
