//! Persistent bitmaps of qcow2: what they record against a model of bits, against QEMU's own reading
//! of them, and after crashes and failures.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{Dir, Random, bitmaps_of, dirty_ranges, set_bitmap_flags};
use bstr::BStr;
use platter::format::Bitmaps;
use platter::job::JobControl;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Event, Fault, FaultyStorage, LoggingStorage};
use platter::storage::{CacheMode, Preallocation, Storage, ZeroFlags};
use platter::{ErrorKind, Image, OpenOptions, OpenPolicy};

fn open_as(storage: Arc<dyn Storage>, writable: bool, cache: CacheMode) -> platter::Result<Image> {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable,
        cache,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options)
}

fn open(storage: Arc<dyn Storage>, writable: bool) -> platter::Result<Image> {
    open_as(storage, writable, CacheMode::Writeback)
}

fn memory(bytes: Vec<u8>) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::with_bytes("memory", bytes))
}

fn new_image(dir: &Dir, options: &str, size: u64) -> Vec<u8> {
    let size = size.to_string();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "new", &size]);
    std::fs::read(dir.path("new")).unwrap()
}

fn bitmaps(image: &Image) -> &dyn Bitmaps {
    image.bitmaps().expect("version 3 has bitmaps")
}

fn dirty(image: &Image, name: &str) -> platter::Result<Vec<(u64, u64)>> {
    let mut runs = Vec::new();
    bitmaps(image).visit_dirty(
        BStr::new(name),
        0..u64::MAX,
        &JobControl::default(),
        &mut |offset, len| {
            runs.push((offset, len));
            Ok(())
        },
    )?;
    Ok(runs)
}

/// One bit per granule.
#[derive(Clone)]
struct Bits {
    granularity: u64,
    enabled: bool,
    bits: Vec<bool>,
}

impl Bits {
    fn new(size: u64, granularity: u64) -> Self {
        Self {
            granularity,
            enabled: true,
            bits: vec![false; size.div_ceil(granularity) as usize],
        }
    }

    fn mark(&mut self, offset: u64, len: u64) {
        if len > 0 {
            let first = (offset / self.granularity) as usize;
            let last = ((offset + len - 1) / self.granularity) as usize;
            self.bits[first..=last].fill(true);
        }
    }

    fn runs(&self, size: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (index, _) in self.bits.iter().enumerate().filter(|(_, bit)| **bit) {
            let start = index as u64 * self.granularity;
            let len = self.granularity.min(size - start);
            match runs.last_mut() {
                Some((at, before)) if *at + *before == start => *before += len,
                _ => runs.push((start, len)),
            }
        }
        runs
    }
}

/// Random operations, checked against the model as they go and against QEMU at the end.
fn model(options: &str, mut size: u64, cluster: u64, seed: u64) {
    let dir = Dir::new();
    let storage = memory(new_image(&dir, options, size));
    let mut random = Random(seed);
    let mut image = open(storage.clone(), true).unwrap();
    let mut model: BTreeMap<String, Bits> = BTreeMap::new();
    for step in 0..160 {
        let offset = random.below(size);
        let len = (1 + random.below(size / 8)).min(size - offset);
        let name = format!("b{}", random.below(4));
        let list = bitmaps(&image);
        let mut record = |offset, len| {
            for bits in model.values_mut().filter(|bits| bits.enabled) {
                bits.mark(offset, len);
            }
        };
        match random.below(16) {
            0..4 => {
                image
                    .write_at(&vec![step as u8; len as usize], offset)
                    .unwrap();
                record(offset, len);
            }
            4 => {
                image
                    .write_zeroes(offset, len, ZeroFlags::MAY_UNMAP)
                    .unwrap();
                record(offset, len);
            }
            5 => {
                image
                    .format()
                    .writer()
                    .unwrap()
                    .discard(offset, len)
                    .unwrap();
                record(offset, len);
            }
            6 => {
                let start = offset - offset % cluster;
                let bytes = vec![7; cluster.min(size - start) as usize];
                let compressor = image.compressor().unwrap();
                compressor.write_compressed(&bytes, start).unwrap();
                record(start, bytes.len() as u64);
            }
            7 | 8 => {
                let granularity = 512 << random.below(9);
                match (
                    list.add(BStr::new(&name), Some(granularity), &JobControl::default()),
                    model.contains_key(&name),
                ) {
                    (Ok(()), false) => {
                        model.insert(name, Bits::new(size, granularity));
                    }
                    (Err(error), true) => assert_eq!(error.kind(), ErrorKind::Exists),
                    (other, _) => panic!("{other:?}"),
                }
            }
            9 => {
                let gone = model.remove(&name).is_some();
                assert_eq!(
                    list.remove(BStr::new(&name), &JobControl::default())
                        .is_ok(),
                    gone
                );
            }
            10 => match model.get_mut(&name) {
                Some(bits) => {
                    list.clear(BStr::new(&name), &JobControl::default())
                        .unwrap();
                    bits.bits.fill(false);
                }
                None => assert_eq!(
                    list.clear(BStr::new(&name), &JobControl::default())
                        .unwrap_err()
                        .kind(),
                    ErrorKind::NotFound
                ),
            },
            11 => {
                if let Some(bits) = model.get_mut(&name) {
                    bits.enabled = random.below(2) == 0;
                    list.set_enabled(BStr::new(&name), bits.enabled, &JobControl::default())
                        .unwrap();
                }
            }
            12 => {
                let from = format!("b{}", random.below(4));
                if let (Some(source), true) = (model.get(&from).cloned(), model.contains_key(&name))
                {
                    list.mark(
                        BStr::new(&name),
                        &mut |mark| {
                            list.visit_dirty(
                                BStr::new(&from),
                                0..u64::MAX,
                                &JobControl::default(),
                                &mut |offset, len| {
                                    mark(offset, len);
                                    Ok(())
                                },
                            )
                        },
                        &JobControl::default(),
                    )
                    .unwrap();
                    let runs = source.runs(size);
                    let target = model.get_mut(&name).unwrap();
                    runs.iter()
                        .for_each(|(offset, len)| target.mark(*offset, *len));
                }
            }
            13 => {
                size = (size / 2 + random.below(size)).clamp(1 << 20, 6 << 20) / 512 * 512;
                image
                    .format()
                    .resizer()
                    .unwrap()
                    .resize(size, Preallocation::Off)
                    .unwrap();
                for bits in model.values_mut() {
                    bits.bits
                        .resize(size.div_ceil(bits.granularity) as usize, false);
                }
            }
            14 => image.flush().unwrap(),
            _ => {
                image.close().unwrap();
                image = open(storage.clone(), true).unwrap();
            }
        }
        let list = bitmaps(&image).list().unwrap();
        assert_eq!(list.len(), model.len());
        for info in list {
            let bits = &model[&info.name.to_string()];
            assert!(
                !info.inconsistent && info.enabled == bits.enabled,
                "{info:?}"
            );
            assert_eq!(info.granularity, bits.granularity);
            let what = format!("{options}, step {step}: {}", info.name);
            assert_eq!(
                dirty(&image, &info.name.to_string()).unwrap(),
                bits.runs(size),
                "{what}"
            );
        }
    }
    image.close().unwrap();
    std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
    let check = dir.qemu_img(&["check", "image"]);
    assert_eq!(check.code, 0, "{options}: {check:?}");
    assert!(!model.is_empty());
    for (name, granularity, flags) in bitmaps_of(&dir, "image") {
        let bits = &model[&name];
        assert_eq!(granularity, bits.granularity);
        assert_eq!(flags, if bits.enabled { vec!["auto"] } else { vec![] });
        assert_eq!(
            dirty_ranges(&dir, "image", &name),
            bits.runs(size),
            "{options}: {name}"
        );
    }
}

#[test]
fn model_with_clusters_of_512() {
    model("cluster_size=512", 2 << 20, 512, 11);
}

#[test]
fn model_with_clusters_of_64k() {
    model("cluster_size=64k", 3 << 20, 65536, 12);
}

#[test]
fn model_with_lazy_refcounts() {
    model("cluster_size=4k,lazy_refcounts=on", 3 << 20, 4096, 13);
}

#[test]
fn model_with_subclusters() {
    model("cluster_size=16k,extended_l2=on", 3 << 20, 16384, 14);
}

/// What QEMU's tools recorded reads the same here.
#[test]
fn reads_what_qemu_recorded() {
    let dir = Dir::new();
    for options in ["cluster_size=512", "cluster_size=64k"] {
        new_image(&dir, options, 20 << 20);
        for args in ["-g 512", "-g 4096", "-g 1M"] {
            let mut line = vec!["bitmap", "--add"];
            line.extend(args.split(' '));
            line.extend(["new", args.split(' ').next_back().unwrap()]);
            dir.qemu_img_ok(&line);
        }
        dir.qemu_io(
            "qcow2",
            "new",
            &[
                "write 100 1",
                "write -z 3M 5M",
                "discard 10M 70k",
                "write 20971519 1",
            ],
        );
        let image = open(memory(std::fs::read(dir.path("new")).unwrap()), false).unwrap();
        for name in ["512", "4096", "1M"] {
            assert_eq!(
                dirty(&image, name).unwrap(),
                dirty_ranges(&dir, "new", name)
            );
        }
        let mut part = Vec::new();
        bitmaps(&image)
            .visit_dirty(
                BStr::new("512"),
                4 << 20..5 << 20,
                &JobControl::default(),
                &mut |offset, len| {
                    part.push((offset, len));
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(part, [(4 << 20, 1 << 20)]);
    }
}

/// A write from several threads, and changes of the list meanwhile: nothing is missed.
#[test]
fn threads_record_side_by_side() {
    let dir = Dir::new();
    let size = 8u64 << 20;
    let storage = memory(new_image(&dir, "cluster_size=4k", size));
    let image = open_as(storage.clone(), true, CacheMode::Unsafe).unwrap();
    bitmaps(&image)
        .add(BStr::new("all"), Some(512), &JobControl::default())
        .unwrap();
    std::thread::scope(|scope| {
        for n in 0..4u64 {
            let image = &image;
            scope.spawn(move || {
                for at in (n * 512..size).step_by(4 * 512 * 4) {
                    image.write_at(&[1; 512], at).unwrap();
                }
            });
        }
        for n in 0..20 {
            let name = format!("t{n}");
            bitmaps(&image)
                .add(BStr::new(&name), None, &JobControl::default())
                .unwrap();
            bitmaps(&image)
                .remove(BStr::new(&name), &JobControl::default())
                .unwrap();
        }
    });
    image.close().unwrap();
    let image = open(storage, false).unwrap();
    let runs = dirty(&image, "all").unwrap();
    let wanted: Vec<_> = (0..size).step_by(512 * 16).map(|at| (at, 2048)).collect();
    assert_eq!(runs, wanted);
}

/// Full pages, and table entries that stand for ones.
#[test]
fn all_ones() {
    let dir = Dir::new();
    let size = (64 << 20) + 512;
    let storage = memory(new_image(&dir, "cluster_size=512", size));
    let image = open(storage.clone(), true).unwrap();
    bitmaps(&image)
        .add(BStr::new("b"), Some(512), &JobControl::default())
        .unwrap();
    image.write_zeroes(0, size, ZeroFlags::MAY_UNMAP).unwrap();
    image.close().unwrap();
    std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
    assert_eq!(dirty_ranges(&dir, "image", "b"), [(0, size)]);
    assert_eq!(dir.qemu_img(&["check", "image"]).code, 0);
    // What grows behind them is clean.
    let image = open(storage.clone(), true).unwrap();
    image
        .format()
        .resizer()
        .unwrap()
        .resize(size * 2, Preallocation::Off)
        .unwrap();
    assert_eq!(dirty(&image, "b").unwrap(), [(0, size)]);
    image.close().unwrap();
    std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
    assert_eq!(dirty_ranges(&dir, "image", "b"), [(0, size)]);
}

/// An inconsistent bitmap is not touched by writes, and cannot be used but removed.
#[test]
fn inconsistent_bitmaps_stay_so() {
    let dir = Dir::new();
    new_image(&dir, "cluster_size=64k", 4 << 20);
    for name in ["good", "bad"] {
        dir.qemu_img_ok(&["bitmap", "--add", "new", name]);
    }
    set_bitmap_flags(&dir.path("new"), "bad", 3);
    let storage = memory(std::fs::read(dir.path("new")).unwrap());
    let image = open(storage.clone(), true).unwrap();
    image.write_at(&[1; 512], 0).unwrap();
    let list = bitmaps(&image);
    let broken: Vec<_> = list
        .list()
        .unwrap()
        .iter()
        .map(|b| b.inconsistent)
        .collect();
    assert_eq!(broken, [false, true]);
    for result in [
        list.clear(BStr::new("bad"), &JobControl::default()),
        list.set_enabled(BStr::new("bad"), false, &JobControl::default()),
        list.mark(BStr::new("bad"), &mut |_| Ok(()), &JobControl::default()),
        dirty(&image, "bad").map(drop),
        image
            .format()
            .resizer()
            .unwrap()
            .resize(8 << 20, Preallocation::Off),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            error.message(),
            "Bitmap 'bad' is inconsistent and cannot be used"
        );
    }
    image.close().unwrap();
    std::fs::write(dir.path("new"), storage.to_vec()).unwrap();
    assert_eq!(dirty_ranges(&dir, "new", "good"), [(0, 65536)]);
    assert_eq!(bitmaps_of(&dir, "new")[1].2, ["in-use", "auto"]);
    let image = open(storage.clone(), true).unwrap();
    bitmaps(&image)
        .remove(BStr::new("bad"), &JobControl::default())
        .unwrap();
    image.close().unwrap();
    std::fs::write(dir.path("new"), storage.to_vec()).unwrap();
    assert_eq!(dir.qemu_img(&["check", "new"]).code, 0);
}

#[test]
fn version_2_has_none() {
    let dir = Dir::new();
    let image = open(memory(new_image(&dir, "compat=0.10", 1 << 20)), true).unwrap();
    assert!(image.bitmaps().is_none());
}

/// One random change of an image with a bitmap that records since the beginning.
fn change(random: &mut Random, image: &Image, step: u64) -> platter::Result<()> {
    let size = image.len();
    let offset = random.below(size) / 512 * 512;
    let len = (512 + random.below(20_000)).min(size - offset);
    let list = bitmaps(image);
    match step % 8 {
        3 => list.add(
            BStr::new(&format!("more{step}")),
            Some(512),
            &JobControl::default(),
        ),
        5 => list.set_enabled(BStr::new("other"), step % 16 == 5, &JobControl::default()),
        6 => list.clear(BStr::new("other"), &JobControl::default()),
        7 => image.write_zeroes(offset, len, ZeroFlags::MAY_UNMAP),
        _ => image.write_at(&vec![step as u8 | 1; len as usize], offset),
    }
}

/// In whatever state: consistent metadata, and a bitmap that claims to be whole is so.
fn judge(dir: &Dir, state: &[u8], what: &str) -> bool {
    let image = open(memory(state.to_vec()), false).unwrap_or_else(|e| panic!("{what}: {e}"));
    let list = bitmaps(&image)
        .list()
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let all = list.iter().find(|bitmap| bitmap.name == "all");
    let all = all.unwrap_or_else(|| panic!("{what}: the bitmap is gone"));
    if !all.inconsistent {
        let runs = dirty(&image, "all").unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut bytes = vec![0; image.len() as usize];
        image.read_at(&mut bytes, 0).unwrap();
        for (offset, len) in runs {
            bytes[offset as usize..(offset + len) as usize].fill(0);
        }
        let missed = bytes.iter().position(|byte| *byte != 0);
        assert_eq!(missed, None, "{what}: a change was not recorded");
    }
    std::fs::write(dir.path("state"), state).unwrap();
    let check = dir.qemu_img(&["check", "-f", "qcow2", "state"]);
    assert!(check.code == 0 || check.code == 3, "{what}: {check:?}");
    !all.inconsistent
}

fn with_bitmaps(dir: &Dir, options: &str) -> Vec<u8> {
    new_image(dir, options, 300 << 10);
    dir.qemu_img_ok(&["bitmap", "--add", "-g", "512", "new", "all"]);
    dir.qemu_img_ok(&["bitmap", "--add", "-g", "4k", "new", "other"]);
    std::fs::read(dir.path("new")).unwrap()
}

fn crashes(options: &str, seed: u64) {
    let dir = Dir::new();
    let storage = Arc::new(LoggingStorage::new("log", with_bitmaps(&dir, options)));
    let mut random = Random(seed);
    for session in 0..3 {
        let image = open(storage.clone(), true).unwrap();
        for step in 0..12 {
            change(&mut random, &image, session * 12 + step).unwrap();
        }
        image.close().unwrap();
    }
    let events = storage.events();
    let count = events.len();
    let (mut whole, mut broken) = (0, 0);
    for n in 0..120 {
        let mut at = random.below(count as u64 + 1) as usize;
        if n % 2 == 0 {
            while at < count && events[at] != Event::Sync {
                at += 1;
            }
        }
        let keep = random.next();
        let state = match n % 4 {
            0 => storage.state_after(at),
            1 => storage.crash_state(at, |_| false),
            _ => storage.crash_state(at, |i| keep.rotate_left(i as u32 % 64) & 1 == 0),
        };
        let what = format!("{options}, crash {n} after {at} of {count} events");
        if judge(&dir, &state, &what) {
            whole += 1;
        } else {
            broken += 1;
        }
    }
    assert!(
        broken > 0 && whole > 0,
        "{whole} whole and {broken} broken states"
    );
    assert!(judge(&dir, &storage.state_after(count), "the end"));
}

#[test]
fn crashes_with_clusters_of_512() {
    crashes("cluster_size=512", 21);
}

#[test]
fn crashes_with_clusters_of_4k() {
    crashes("cluster_size=4k", 22);
}

#[test]
fn crashes_with_lazy_refcounts() {
    crashes("cluster_size=1k,lazy_refcounts=on", 23);
}

/// Every call that fails in turn: the error is reported or harmless, and nothing claims too much.
fn faults(calls: Calls) {
    let dir = Dir::new();
    let fresh = with_bitmaps(&dir, "cluster_size=1k");
    for nth in 0..400 {
        let memory = memory(fresh.clone());
        let storage = Arc::new(FaultyStorage::new(memory.clone()));
        let image = open(storage.clone(), true).unwrap();
        storage.set_fault(Some(Fault {
            calls,
            nth: nth * 3,
            errno: libc::EIO,
            for_good: false,
            torn: false,
        }));
        let mut random = Random(5);
        let mut failed = false;
        for step in 0..16 {
            failed |= change(&mut random, &image, step).is_err();
        }
        let closed = image.close();
        let what = format!("{calls:?} {nth}: {closed:?}");
        let whole = judge(&dir, &memory.to_vec(), &what);
        if !storage.struck() {
            assert!(whole && !failed && closed.is_ok(), "{what}");
            return;
        }
    }
    panic!("the calls do not end");
}

#[test]
fn failing_writes() {
    faults(Calls::WRITE);
}

#[test]
fn failing_reads() {
    faults(Calls::READ);
}

#[test]
fn failing_syncs() {
    faults(Calls::SYNC);
}

/// Directories and tables that lie: refused or repaired around, never followed into other data.
#[test]
fn hostile_tables() {
    let dir = Dir::new();
    let bytes = with_bitmaps(&dir, "cluster_size=64k");
    let be = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let magic = 0x2385_2875u32.to_be_bytes();
    let extension = bytes.windows(4).position(|w| w == magic).unwrap();
    let directory = be(extension + 24) as usize;
    let table = be(directory) as usize;
    let l1 = be(40);
    for (name, at, value) in [
        ("an entry that names the L1 table", table, l1),
        ("an entry past the end of the file", table, 1 << 40),
        ("an entry with reserved bits", table, 0x1fe),
        ("a table that is the header", directory, 0),
        ("a table past the end of the file", directory, 1 << 40),
        ("a table that is the L1 table", directory, l1),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        let storage = memory(bytes);
        let Ok(image) = open(storage.clone(), true) else {
            continue;
        };
        let list = bitmaps(&image);
        let _ = image.write_at(&[1; 512], 0);
        let _ = dirty(&image, "all");
        let _ = list.clear(BStr::new("all"), &JobControl::default());
        let _ = list.remove(BStr::new("all"), &JobControl::default());
        let _ = image.write_at(&[2; 70_000], 100);
        let _ = image.close();
        std::fs::write(dir.path("state"), storage.to_vec()).unwrap();
        let image = open(storage, false).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut bytes = vec![0; image.len() as usize];
        image
            .read_at(&mut bytes, 0)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = bytes.iter().find(|byte| **byte != 0).copied();
        assert!(matches!(first, None | Some(1 | 2)), "{name}");
    }
}

/// A change of a bitmap that is ended has changed nothing, and gives back what it allocated.
#[test]
fn a_change_that_is_cancelled_leaves_the_bitmap() {
    let dir = Dir::new();
    let storage = memory(new_image(&dir, "cluster_size=512", 8 << 20));
    let image = open(storage.clone(), true).unwrap();
    let control = Arc::new(JobControl::default());
    let (kept, name) = (BStr::new("kept"), BStr::new("new"));
    bitmaps(&image).add(kept, Some(512), &control).unwrap();
    image.write_at(&[1; 512], 512).unwrap();
    // Also while bits are written: the deadline of the control that is heeded passes meanwhile.
    for late in [false, true] {
        let control = Arc::new(JobControl::default());
        let ending = Arc::new(JobControl::default());
        control.heed(&ending);
        let mut ranges = |mark: &mut dyn FnMut(u64, u64)| {
            (0..8 << 20).step_by(1024).for_each(|at| mark(at, 512));
            ending.cancel();
            if late { Ok(()) } else { control.check() }
        };
        let list = bitmaps(&image);
        for outcome in [
            list.mark(kept, &mut ranges, &control),
            list.add_filled(name, 512, true, &mut ranges, &control),
            list.clear(kept, &control),
            list.remove(kept, &control),
            list.visit_dirty(kept, 0..u64::MAX, &control, &mut |_, _| Ok(())),
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert_eq!(dirty(&image, "kept").unwrap(), [(512, 512)]);
        assert_eq!(list.list().unwrap().len(), 1);
        control.heed_only(None);
        control.check().unwrap();
    }
    image.close().unwrap();
    std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
    assert_eq!(dirty_ranges(&dir, "image", "kept"), [(512, 512)]);
    assert_eq!(dir.qemu_img(&["check", "image"]).code, 0);
}

/// What is written is in the file when a close is ended; a bitmap that recorded it is not trusted.
#[test]
fn a_close_that_is_cancelled_leaves_what_was_written() {
    for options in ["compat=1.1", "lazy_refcounts=on"] {
        let dir = Dir::new();
        let storage = memory(new_image(&dir, options, 4 << 20));
        let control = JobControl::default();
        let image = open(storage.clone(), true).unwrap();
        bitmaps(&image).add(BStr::new("b"), None, &control).unwrap();
        image.write_at(&[7; 4096], 1 << 20).unwrap();
        control.cancel();
        let error = image.close_under(&control).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let image = open(storage.clone(), true).unwrap();
        assert!(bitmaps(&image).list().unwrap()[0].inconsistent);
        let mut bytes = [0; 4096];
        image.read_at(&mut bytes, 1 << 20).unwrap();
        assert_eq!(bytes, [7; 4096]);
        image.close().unwrap();
        std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
        assert_eq!(dir.qemu_img(&["check", "image"]).code, 0);
    }
}
