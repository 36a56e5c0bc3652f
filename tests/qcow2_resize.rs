//! Changing the size of qcow2 images: contents against a model, structure by `qemu-img check`.

mod common;

use std::sync::Arc;

use common::Dir;
use platter::format::RepairMode;
use platter::ops::amend::{AmendRequest, amend};
use platter::ops::check::check;
use platter::secret::Secrets;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Fault, FaultyStorage, LoggingStorage};
use platter::storage::{CacheMode, Preallocation, Storage};
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
        image.format().resize(size, Preallocation::Off).unwrap();
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
            image.format().resize(4 << 20, mode).unwrap();
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
            .resize(300 << 10, Preallocation::Off)
            .unwrap();
        image.write_at(&[4; 5000], 1000).unwrap();
        image.format().resize(4 << 20, Preallocation::Off).unwrap();
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
                let request = AmendRequest::new(&image, &size, &Secrets::default(), false).unwrap();
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
