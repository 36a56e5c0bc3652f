//! Changing the size of qcow2 images: contents against a model, structure by `qemu-img check`.

use std::path::Path;
use std::sync::Arc;

use crate::common::Dir;
use platter::format::RepairMode;
use platter::object::Objects;
use platter::ops::amend::{AmendRequest, amend};
use platter::ops::check::check;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::memory::MemoryStorage;
use platter::storage::slice::SliceStorage;
use platter::storage::testing::{Calls, Fault, FaultyStorage, LoggingStorage};
use platter::storage::{CacheMode, NamedStorages, Preallocation, Storage, StorageOpen};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};

fn open(dir: &Dir) -> Image {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        cache: CacheMode::Unsafe,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(dir.path("image")), &options).unwrap()
}

fn judge(dir: &Dir, model: &[u8], what: &str) {
    std::fs::write(dir.path("model.raw"), model).unwrap();
    let compare = dir.qemu_img(&[
        "compare",
        "-s",
        "-f",
        "raw",
        "-F",
        "qcow2",
        "model.raw",
        "image",
    ]);
    let same = compare.code == 0 || compare.out.contains("block status mismatch");
    assert!(same, "{what}: {compare:?}");
    let compare = dir.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "model.raw", "image"]);
    assert_eq!(compare.code, 0, "{what}: {compare:?}");
    assert!(
        !compare.out.contains("size mismatch"),
        "{what}: {compare:?}"
    );
    let check = dir.qemu_img(&["check", "image"]);
    assert_eq!(check.code, 0, "{what}: {check:?}");
}

/// Grows and shrinks with data at every border, and goes on writing afterwards.
fn resize(options: &str, sizes: &[u64]) {
    let dir = Dir::new();
    let options = options.replace("data_file=data", &format!("data_file={}", dir.str("data")));
    let first = sizes[0].to_string();
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-o", &options, "image", &first,
    ]);
    let mut model = vec![0; sizes[0] as usize];
    for (n, &size) in sizes.iter().enumerate() {
        let image = open(&dir);
        let old = model.len() as u64;
        image
            .format()
            .resizer()
            .unwrap()
            .resize(size, Preallocation::Off)
            .unwrap();
        assert_eq!(image.len(), size);
        model.resize(size as usize, 0);
        let border = old.min(size);
        for offset in [0, border / 2, border.saturating_sub(3000), size - 2000] {
            let fill = 1 + n as u8;
            let len = 2000.min(size - offset);
            image.write_at(&vec![fill; len as usize], offset).unwrap();
            model[offset as usize..(offset + len) as usize].fill(fill);
        }
        image.close().unwrap();
        judge(&dir, &model, &format!("{options} to {size}"));
    }
}

#[test]
fn grows_and_shrinks() {
    let sizes = [
        1 << 20,
        5 << 20,
        (3 << 20) + 512,
        512 << 10,
        (40 << 20) + 1024,
        1 << 20,
    ];
    resize("cluster_size=64k", &sizes);
    resize("cluster_size=4k", &sizes);
    resize("cluster_size=4k,compat=0.10", &sizes);
    resize("cluster_size=16k,extended_l2=on", &sizes);
    resize("data_file=data", &sizes);
    resize("data_file=data,data_file_raw=on", &sizes);
    resize("cluster_size=2M", &sizes);
}

/// With clusters of 512 bytes the L1 table and the refcount table move several times.
#[test]
fn tables_move_while_the_image_grows() {
    let sizes = [100 << 10, 3 << 20, 30 << 20, 60 << 20, 1 << 20, 20 << 20];
    resize("cluster_size=512", &sizes);
    resize("cluster_size=512,refcount_bits=64", &sizes);
    resize("cluster_size=1k,refcount_bits=1,lazy_refcounts=on", &sizes);
}

/// More data than the refcount table of a new image can count.
#[test]
fn the_refcount_table_grows() {
    for options in [
        "cluster_size=512,refcount_bits=64",
        "cluster_size=512",
        "cluster_size=1k,refcount_bits=32",
    ] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "image", "24M"]);
        let image = open(&dir);
        let mut model = vec![0; 24 << 20];
        for (n, part) in model.chunks_mut(96 << 10).enumerate() {
            part.fill(1 + (n % 200) as u8);
            image.write_at(part, n as u64 * (96 << 10)).unwrap();
        }
        image.close().unwrap();
        judge(&dir, &model, options);
    }
}

#[test]
fn new_space_can_be_preallocated() {
    for options in [
        "cluster_size=64k",
        "cluster_size=32k,extended_l2=on",
        "data_file=data",
    ] {
        for mode in [
            Preallocation::Metadata,
            Preallocation::Falloc,
            Preallocation::Full,
        ] {
            let dir = Dir::new();
            let all = options.replace("data_file=data", &format!("data_file={}", dir.str("data")));
            dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", &all, "image", "1M"]);
            let image = open(&dir);
            let mut model = vec![9; 1 << 20];
            image.write_at(&model, 0).unwrap();
            image
                .format()
                .resizer()
                .unwrap()
                .resize(4 << 20, mode)
                .unwrap();
            model.resize(4 << 20, 0);
            image.close().unwrap();
            judge(&dir, &model, &format!("{options} {mode:?}"));
            let map = dir.qemu_img_ok(&["map", "--output=json", "image"]);
            assert!(
                !map.contains("\"present\": false"),
                "{options} {mode:?}: {map}"
            );
        }
    }
}

/// A snapshot keeps its contents and its size while the image shrinks and grows.
#[test]
fn snapshots_survive_a_resize() {
    for options in ["cluster_size=64k", "cluster_size=512"] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "image", "2M"]);
        dir.qemu_io("qcow2", "image", &["write -P 3 0 2M"]);
        dir.qemu_img_ok(&["snapshot", "-c", "then", "image"]);
        let image = open(&dir);
        image
            .format()
            .resizer()
            .unwrap()
            .resize(300 << 10, Preallocation::Off)
            .unwrap();
        image.write_at(&[4; 5000], 1000).unwrap();
        image
            .format()
            .resizer()
            .unwrap()
            .resize(4 << 20, Preallocation::Off)
            .unwrap();
        image.write_at(&[5; 5000], 3 << 20).unwrap();
        image.close().unwrap();
        let mut model = vec![0; 4 << 20];
        model[..300 << 10].fill(3);
        model[1000..6000].fill(4);
        model[3 << 20..(3 << 20) + 5000].fill(5);
        judge(&dir, &model, options);
        dir.qemu_img_ok(&["snapshot", "-a", "then", "image"]);
        judge(&dir, &vec![3; 2 << 20], options);
    }
}

/// Version 2 records no size with a snapshot.
#[test]
fn version_2_with_snapshots_keeps_its_size() {
    let dir = Dir::new();
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "compat=0.10",
        "image",
        "2M",
    ]);
    dir.qemu_img_ok(&["snapshot", "-c", "then", "image"]);
    let image = open(&dir);
    let error = image
        .format()
        .resizer()
        .unwrap()
        .resize(4 << 20, Preallocation::Off)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Can't resize a v2 image which has snapshots")
    );
}

fn open_storage(storage: Arc<dyn Storage>, writable: bool) -> Image {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options).unwrap()
}

/// What the image shows; the check finds no error and, where `tight`, no leak.
fn contents(bytes: &[u8], tight: bool, what: &str) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::with_bytes("state", bytes.to_vec()));
    let image = open_storage(storage, false);
    let report = check(&image, RepairMode::Report, &mut Job::new()).unwrap();
    let report = report.report;
    assert_eq!(report.corruptions + report.check_errors, 0, "{what}");
    assert!(
        !tight || report.leaks == 0,
        "{what}: {} leaks",
        report.leaks
    );
    let mut all = vec![0; image.len() as usize];
    image.read_at(&mut all, 0).unwrap();
    all
}

/// Whatever interrupts the growth of an overlay, a longer base never shows behind the old end.
#[test]
fn a_crash_while_an_overlay_grows_does_not_show_the_base() {
    const OLD: usize = (50 << 10) + 512;
    const NEW: usize = 200 << 10;
    for options in [
        "cluster_size=4k",
        "cluster_size=4k,compat=0.10",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=512",
    ] {
        let dir = Dir::new();
        let (base, old) = (dir.str("base"), OLD.to_string());
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "150000"]);
        dir.qemu_io("raw", "base", &["write -P 0xbb 0 150016"]);
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", "-o", options, "image", &old,
        ]);
        let bytes = std::fs::read(dir.path("image")).unwrap();
        let mut after = vec![0xbb; OLD];
        after.resize(NEW, 0);
        for by_amend in [false, true] {
            let log = Arc::new(LoggingStorage::new("image", bytes.clone()));
            let image = open_storage(log.clone(), true);
            if by_amend {
                let size = Options::parse(&format!("size={NEW}")).unwrap();
                let request = AmendRequest::new(&image, &size, &Objects::default(), false).unwrap();
                amend(&image, &request, &mut Job::new()).unwrap();
            } else {
                image.resize(NEW as u64, Preallocation::Off).unwrap();
            }
            image.close().unwrap();
            let mut random = 1u64;
            for count in 0..=log.event_count() {
                for subset in 0..5 {
                    let seed = random;
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                    let state = log.crash_state(count, |event| {
                        subset == 0 || (seed >> (20 + event % 40)) & 1 == 1
                    });
                    let what = format!("{options}, amend {by_amend}, {count} events, {subset}");
                    let shown = contents(&state, false, &what);
                    let right = shown == after || shown[..] == after[..OLD];
                    assert!(right, "{what}: {} bytes show the base", shown.len());
                    let again = Arc::new(MemoryStorage::with_bytes("image", state));
                    let image = open_storage(again.clone(), true);
                    image.resize(NEW as u64, Preallocation::Off).unwrap();
                    image.close().unwrap();
                    let grown = contents(&again.to_vec(), false, &what);
                    assert!(grown == after, "{what}: grown again");
                }
            }
            let end = contents(&log.to_vec(), true, options);
            assert!(end == after, "{options}: in the end");
        }
    }
}

/// A growth that fails gives back the clusters of the table that it was about to use.
#[test]
fn a_failed_growth_leaks_nothing() {
    let dir = Dir::new();
    let options = "cluster_size=512";
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "image", "1M"]);
    dir.qemu_io("qcow2", "image", &["write -P 7 0 300k"]);
    let bytes = std::fs::read(dir.path("image")).unwrap();
    let mut usable = 0;
    for nth in 0.. {
        let memory = Arc::new(MemoryStorage::with_bytes("image", bytes.clone()));
        let faulty = Arc::new(FaultyStorage::new(memory.clone()));
        let image = open_storage(faulty.clone(), true);
        image.write_at(&[8; 4096], 500 << 10).unwrap();
        faulty.set_fault(Some(Fault {
            calls: Calls::WRITE | Calls::ZERO,
            nth,
            errno: libc::EIO,
            for_good: false,
            torn: false,
        }));
        let grown = image.resize(40 << 20, Preallocation::Off);
        let struck = faulty.struck();
        faulty.set_fault(None);
        if !struck {
            grown.unwrap();
            break;
        }
        // Where nobody knows what the header names, nothing is written any more.
        if image.flush().is_ok() && image.write_at(&[8; 512], 0).is_ok() {
            usable += 1;
            image.close().unwrap();
            contents(&memory.to_vec(), true, &format!("call {nth}"));
        } else {
            image.abandon();
        }
    }
    assert!(
        usable > 1,
        "the new table is never in use when a call fails"
    );
}

/// Grows by a resize or by an amendment.
fn grow(image: &Image, size: u64, mode: Preallocation, by_amend: bool) {
    if by_amend {
        let size = Options::parse(&format!("size={size}")).unwrap();
        let request = AmendRequest::new(image, &size, &Objects::default(), false).unwrap();
        amend(image, &request, &mut Job::new()).unwrap();
    } else {
        image.resize(size, mode).unwrap();
    }
}

#[test]
fn a_raw_data_file_is_the_guest_itself_after_every_growth() {
    let ways = [
        (Preallocation::Off, false),
        (Preallocation::Off, true),
        (Preallocation::Metadata, false),
        (Preallocation::Falloc, false),
        (Preallocation::Full, false),
    ];
    for options in ["cluster_size=64k", "cluster_size=16k,extended_l2=on"] {
        let dir = Dir::new();
        let data = dir.str("data");
        let options = format!("{options},data_file={data},data_file_raw=on");
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", &options, "image", "100000",
        ]);
        // To the peer too, a raw data file ends with the image from now on.
        let mut model = vec![0; 100_352];
        for (n, (mode, by_amend)) in ways.into_iter().cycle().take(10).enumerate() {
            let what = format!("{options} {mode:?} {by_amend} {n}");
            let image = open(&dir);
            let old = model.len();
            // What lies behind the end is not the guest's, and does not become so.
            let file = std::fs::OpenOptions::new().append(true).open(&data);
            std::io::Write::write_all(&mut file.unwrap(), &[0xee; 300_000]).unwrap();
            model.resize(old + 200 * 1024 + 512, 0);
            grow(&image, model.len() as u64, mode, by_amend);
            assert!(std::fs::read(&data).unwrap() == model, "{what}: raw view");
            image
                .write_at(&[1 + n as u8; 2000], old as u64 - 700)
                .unwrap();
            model[old - 700..old + 1300].fill(1 + n as u8);
            image.close().unwrap();
            assert!(std::fs::read(&data).unwrap() == model, "{what}: written");
            judge(&dir, &model, &what);
            let map = dir.qemu_img_ok(&["map", "--output=json", "image"]);
            // Subclusters may have their place and no data.
            for line in map.lines() {
                let number = |key: &str| {
                    let rest = line.split(key).nth(1).unwrap();
                    rest.split([',', '}']).next().unwrap().trim().to_owned()
                };
                assert_eq!(number("\"start\":"), number("\"offset\":"), "{what}");
            }
            if n % 3 == 2 {
                let image = open(&dir);
                model.truncate(model.len() / 2 / 512 * 512);
                image
                    .resize(model.len() as u64, Preallocation::Off)
                    .unwrap();
                image.close().unwrap();
                assert!(std::fs::read(&data).unwrap() == model, "{what}: cut");
                judge(&dir, &model, &what);
            }
        }
    }
}

#[test]
fn a_data_file_ends_where_the_image_ends_and_shows_nothing_that_was_cut_off() {
    for options in ["cluster_size=64k", "cluster_size=16k,extended_l2=on"] {
        let dir = Dir::new();
        let data = dir.str("data");
        let all = format!("{options},data_file={data}");
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", &all, "image", "512k"]);
        let mut model = vec![0; 512 << 10];
        let sizes = [1 << 20, 300 << 10, 300_544, 900_096, 10 << 10, 2 << 20];
        for (n, size) in sizes.into_iter().enumerate() {
            let what = format!("{options} to {size}");
            let image = open(&dir);
            // All is written, so that all there is could come back.
            model.fill(0x10 + n as u8);
            image.write_at(&model, 0).unwrap();
            image.resize(size, Preallocation::Off).unwrap();
            model.resize(size as usize, 0);
            assert_eq!(std::fs::metadata(&data).unwrap().len(), size, "{what}");
            image.write_at(&[9; 100], size - 100).unwrap();
            model[size as usize - 100..].fill(9);
            image.close().unwrap();
            assert_eq!(std::fs::metadata(&data).unwrap().len(), size, "{what}");
            judge(&dir, &model, &what);
        }
    }
}

/// A storage whose length is given, as a device's, over memory.
fn device(bytes: &Arc<MemoryStorage>, len: u64) -> Arc<dyn Storage> {
    Arc::new(SliceStorage::new(bytes.clone(), 0, Some(len)).unwrap())
}

/// One file of the caller's own, under the name `/device`.
#[derive(Debug)]
struct Device(Arc<dyn Storage>);

impl NamedStorages for Device {
    fn find(&self, name: &Path, _how: &StorageOpen) -> Option<platter::Result<Arc<dyn Storage>>> {
        (name == Path::new("/device")).then(|| Ok(self.0.clone()))
    }
}

#[test]
fn a_device_that_is_smaller_than_the_image_is_no_data_file() {
    const LEN: u64 = 2 << 20;
    let dir = Dir::new();
    let memory = Arc::new(MemoryStorage::with_bytes(
        "/device",
        vec![0xee; LEN as usize],
    ));
    let storages: Arc<dyn NamedStorages> = Arc::new(Device(device(&memory, LEN)));
    let create = |size: u64, options: &str| {
        let options = format!("data_file=/device{options}");
        let request = CreateRequest {
            location: Location::from_path(dir.path("image")),
            format: "qcow2".to_owned(),
            size: Some(size),
            options: Options::parse(&options).unwrap(),
            backing_file: None,
            backing_format: None,
            backing_unsafe: false,
            exclusive: false,
            objects: Objects::default(),
            policy: OpenPolicy::permissive(),
            storages: Some(storages.clone()),
        };
        CreatePlan::new(request, &mut Job::new()).and_then(|plan| plan.run(&mut Job::new()))
    };
    let modes = ["metadata", "falloc", "full"].map(|mode| format!(",preallocation={mode}"));
    for options in ["", ",data_file_raw=on"]
        .into_iter()
        .chain(modes.iter().map(String::as_str))
    {
        let error = create(LEN + 512, options).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("Could not resize image: Cannot grow device files"),
            "{text}"
        );
        assert!(!dir.path("image").exists(), "{options}");
        create(LEN, options).unwrap();
        std::fs::remove_file(dir.path("image")).unwrap();
    }
    let open = |writable| {
        let options = OpenOptions {
            writable,
            policy: OpenPolicy::permissive(),
            storages: Some(storages.clone()),
            ..OpenOptions::default()
        };
        Image::open(&Location::from_path(dir.path("image")), &options)
    };
    for options in ["", ",data_file_raw=on"] {
        create(LEN - 4096, options).unwrap();
        let mut model = vec![0; LEN as usize - 4096];
        let image = open(true).unwrap();
        // To the last byte of the image, and nothing behind it.
        image
            .write_zeroes(0, model.len() as u64, Default::default())
            .unwrap();
        let tail = model.len() - 100;
        image.write_at(&[7; 100], tail as u64).unwrap();
        model[tail..].fill(7);
        for mode in [Preallocation::Off, Preallocation::Full] {
            let error = image.resize(LEN + 512, mode).unwrap_err();
            assert_eq!(error.to_string(), "Cannot grow device files");
        }
        let size = Options::parse("size=3M").unwrap();
        let request = AmendRequest::new(&image, &size, &Objects::default(), false).unwrap();
        assert!(amend(&image, &request, &mut Job::new()).is_err());
        assert_eq!(image.len(), model.len() as u64);
        image.resize(LEN, Preallocation::Off).unwrap();
        model.resize(LEN as usize, 0);
        let mut all = vec![1; LEN as usize];
        image.read_at(&mut all, 0).unwrap();
        assert!(all == model, "{options}");
        image.resize(1 << 20, Preallocation::Off).unwrap();
        image.resize(LEN, Preallocation::Off).unwrap();
        model[1 << 20..].fill(0);
        image.read_at(&mut all, 0).unwrap();
        assert!(all == model, "{options}");
        image.close().unwrap();
        if options.contains("raw") {
            assert!(memory.to_vec() == model, "{options}: raw view");
        }
        // A device that has become smaller is good for reading alone.
        let smaller = OpenOptions {
            writable: true,
            policy: OpenPolicy::permissive(),
            storages: Some(Arc::new(Device(device(&memory, 1 << 20)))),
            ..OpenOptions::default()
        };
        let location = Location::from_path(dir.path("image"));
        let error = Image::open(&location, &smaller).unwrap_err();
        assert!(error.to_string().contains("fewer than"), "{error}");
        let read_only = OpenOptions {
            writable: false,
            ..smaller
        };
        Image::open(&location, &read_only).unwrap();
    }
}

/// Where the space that is to be reserved runs out, the image is what it was.
#[test]
fn a_growth_that_finds_no_space_leaves_the_old_size() {
    const LEN: u64 = 2 << 20;
    for options in [
        "cluster_size=64k",
        "cluster_size=4k",
        "cluster_size=512",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,lazy_refcounts=on",
    ] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "image", "1M"]);
        dir.qemu_io("qcow2", "image", &["write -P 7 100k 100k"]);
        let bytes = std::fs::read(dir.path("image")).unwrap();
        let before = contents(&bytes, true, options);
        for mode in [
            Preallocation::Metadata,
            Preallocation::Falloc,
            Preallocation::Full,
        ] {
            let what = format!("{options} {mode:?}");
            let mut container = bytes.clone();
            container.resize(LEN as usize, 0);
            let memory = Arc::new(MemoryStorage::with_bytes("image", container));
            let image = open_storage(device(&memory, LEN), true);
            let error = image.resize(8 << 20, mode).unwrap_err();
            assert_eq!(error.errno(), libc::ENOSPC, "{what}: {error}");
            assert_eq!(image.len(), 1 << 20, "{what}");
            // It is still good for writing, and for growing as far as there is space.
            image.write_at(&[8; 512], 0).unwrap();
            image.flush().unwrap();
            let mut model = before.clone();
            model[..512].fill(8);
            if !options.contains("lazy") {
                // Under the dirty bit refcounts come late.
                assert!(contents(&memory.to_vec(), true, &what) == model, "{what}");
            }
            image.resize(1200 << 10, mode).unwrap();
            image.close().unwrap();
            model.resize(1200 << 10, 0);
            assert!(contents(&memory.to_vec(), true, &what) == model, "{what}");
        }
    }
}

/// The same, whichever call it is that fails.
#[test]
fn a_preallocation_that_fails_anywhere_leaks_nothing() {
    let dir = Dir::new();
    let options = "cluster_size=4k";
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-o", options, "image", "100k",
    ]);
    let bytes = std::fs::read(dir.path("image")).unwrap();
    for mode in [Preallocation::Metadata, Preallocation::Full] {
        for nth in 0.. {
            let memory = Arc::new(MemoryStorage::with_bytes("image", bytes.clone()));
            let faulty = Arc::new(FaultyStorage::new(memory.clone()));
            let image = open_storage(faulty.clone(), true);
            faulty.set_fault(Some(Fault {
                calls: Calls::WRITE | Calls::ZERO,
                nth,
                errno: libc::ENOSPC,
                for_good: false,
                torn: false,
            }));
            let grown = image.resize(4 << 20, mode);
            let struck = faulty.struck();
            faulty.set_fault(None);
            if !struck {
                grown.unwrap();
                break;
            }
            let what = format!("{mode:?}, call {nth}");
            if grown.is_ok() || image.flush().is_err() {
                // The very last writes, or nobody knows what the header names.
                image.abandon();
                contents(&memory.to_vec(), false, &what);
                continue;
            }
            assert_eq!(image.len(), 100 << 10, "{what}");
            image.close().unwrap();
            let after = memory.to_vec();
            assert_eq!(contents(&after, true, &what).len(), 100 << 10);
            // The space that it had taken is given back.
            assert!(after.len() <= bytes.len() + (32 << 10), "{what}");
        }
    }
}

/// A shrink that is ended at any moment has the old size and all its data, or the new size; the next
/// change of the size frees what it has left behind.
#[test]
fn a_shrink_that_is_stopped_is_completed_by_the_next_change_of_size() {
    for options in ["", "data_file=data", "extended_l2=on,cluster_size=16k"] {
        let dir = Dir::new();
        let options = options.replace("data_file=data", &format!("data_file={}", dir.str("data")));
        let options = if options.contains("cluster_size") {
            options
        } else {
            format!("cluster_size=512,{options}")
        };
        let mut stopped = 0;
        for n in 0..8u64 {
            let create = [
                "create",
                "-q",
                "-f",
                "qcow2",
                "-o",
                options.trim_end_matches(','),
            ];
            dir.qemu_img_ok(&[&create[..], &["image", "4M"]].concat());
            let image = open(&dir);
            image.write_at(&vec![5; 4 << 20], 0).unwrap();
            let job = Job::new();
            let (control, late) = (job.control().clone(), job.control().clone());
            let time = std::time::Duration::from_micros(300 * n);
            if n == 0 {
                control.cancel();
            }
            let stopper = std::thread::spawn(move || {
                let begin = std::time::Instant::now();
                while begin.elapsed() < time {
                    std::hint::spin_loop();
                }
                late.cancel();
            });
            let ended = image.resize_under(&control, 1 << 20, Preallocation::Off);
            stopper.join().unwrap();
            let len = image.len() as usize;
            assert!(
                len == 1 << 20 || ended.is_err() && len == 4 << 20,
                "{options} {n}"
            );
            stopped += u32::from(ended.is_err());
            if let Err(error) = ended {
                assert_eq!(error.kind(), platter::ErrorKind::Cancelled, "{error:?}");
            }
            image.close().unwrap();
            judge(&dir, &vec![5; len], &options);
            let image = open(&dir);
            image.resize(512 << 10, Preallocation::Off).unwrap();
            image.resize(4 << 20, Preallocation::Off).unwrap();
            image.close().unwrap();
            let mut model = vec![5; 512 << 10];
            model.resize(4 << 20, 0);
            judge(&dir, &model, &options);
            // 512 KiB, and tables.
            let used = std::fs::metadata(dir.path("image")).unwrap().len();
            assert!(used < 1 << 20, "{options} {n}: {used}");
        }
        assert!(stopped > 0, "{options}");
    }
}
