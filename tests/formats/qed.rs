//! QED: damage and its repair, images that were not closed, names, growth.

use std::sync::{Arc, Mutex};

use platter::format::{BackingRef, CheckReport, RepairMode};
use platter::job::Message;
use platter::ops::commit::{CommitRequest, commit};
use platter::storage::memory::MemoryStorage;
use platter::storage::{Preallocation, Storage};
use platter::{Error, ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy};

use crate::common::Dir;
use crate::random::Random;

const CLUSTER: usize = 4096;
/// Entries of a table of one cluster.
const ENTRIES: usize = 512;
/// Feature bit: the backing file is raw.
const NO_PROBING: u64 = 4;

/// An image that is built by hand: clusters of 4 KiB, tables of one; the upper table stands in cluster 1.
struct Made {
    features: u64,
    compatible: u64,
    autoclear: u64,
    size: u64,
    name: &'static str,
    /// Clusters of the file.
    clusters: usize,
    /// The place of entries, and what stands there.
    entries: Vec<(usize, u64)>,
}

/// Where an entry of the table in that cluster stands.
const fn at(table: usize, index: usize) -> usize {
    table * CLUSTER + index * 8
}

const fn cluster(number: u64) -> u64 {
    number * CLUSTER as u64
}

impl Made {
    /// Two tables in clusters 2 and 3, which name clusters 4 to 7.
    fn new() -> Self {
        Self {
            features: 0,
            compatible: 0,
            autoclear: 0,
            size: 3 * (ENTRIES * CLUSTER) as u64,
            name: "",
            clusters: 8,
            entries: vec![
                (at(1, 0), cluster(2)),
                (at(1, 1), cluster(3)),
                (at(2, 0), cluster(4)),
                (at(2, 1), cluster(5)),
                (at(2, 2), 1),
                (at(3, 0), cluster(6)),
                (at(3, 7), cluster(7)),
            ],
        }
    }

    fn with(entries: &[(usize, u64)]) -> Self {
        let mut made = Self::new();
        made.entries.extend(entries);
        made
    }

    fn storage(&self) -> Arc<dyn Storage> {
        let mut bytes = vec![0; self.clusters * CLUSTER];
        for number in 4..self.clusters {
            bytes[number * CLUSTER..(number + 1) * CLUSTER].fill(number as u8);
        }
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QED\0");
        for (at, value) in [(4, 4096_u32), (8, 1), (12, 1)] {
            put(at, &value.to_le_bytes());
        }
        let features = self.features | u64::from(!self.name.is_empty());
        for (at, value) in [
            (16, features),
            (24, self.compatible),
            (32, self.autoclear),
            (40, cluster(1)),
            (48, self.size),
        ] {
            put(at, &value.to_le_bytes());
        }
        put(56, &64_u32.to_le_bytes());
        put(60, &(self.name.len() as u32).to_le_bytes());
        put(64, self.name.as_bytes());
        for (at, value) in &self.entries {
            put(*at, &value.to_le_bytes());
        }
        Arc::new(MemoryStorage::with_bytes("image.qed", bytes))
    }
}

fn options(writable: bool, for_check: bool) -> OpenOptions {
    OpenOptions {
        format: Some("qed".to_owned()),
        writable,
        for_check,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(storage: &Arc<dyn Storage>, writable: bool) -> Result<Image, Error> {
    Image::open_storage(storage.clone(), &options(writable, false))
}

/// Without its backing file.
fn open_alone(storage: &Arc<dyn Storage>) -> Image {
    let options = OpenOptions {
        backing: false,
        ..options(true, false)
    };
    Image::open_storage(storage.clone(), &options).expect("it opens")
}

fn open_to_check(storage: &Arc<dyn Storage>) -> Image {
    Image::open_storage(storage.clone(), &options(true, true)).expect("it opens")
}

fn read(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

fn check(image: &Image, mode: RepairMode) -> CheckReport {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        let (Message::Note(line) | Message::Warning(line)) = message;
        sink.lock().unwrap().push(line.to_owned());
    }));
    let checker = image.format().checker().expect("a check");
    checker.check(mode, &mut job).expect("a check")
}

fn clean(image: &Image) {
    let report = check(image, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{report:?}");
}

fn features(storage: &Arc<dyn Storage>) -> u64 {
    field(storage, 16)
}

fn field(storage: &Arc<dyn Storage>, at: u64) -> u64 {
    let mut bytes = [0; 8];
    storage.read_at(&mut bytes, at).expect("a read");
    u64::from_le_bytes(bytes)
}

#[test]
fn damage_is_counted_and_repaired() {
    for (entries, corruptions, leaks) in [
        (&[][..], 0, 0),
        // Not aligned, outside, in the header.
        (&[(at(2, 0), cluster(4) + 512)], 1, 1),
        (&[(at(2, 0), cluster(400))], 1, 1),
        (&[(at(2, 0), u64::MAX << 12)], 1, 1),
        // Named twice; a table.
        (&[(at(2, 0), cluster(5))], 1, 1),
        (&[(at(2, 0), cluster(3))], 1, 1),
        (&[(at(2, 0), cluster(1))], 1, 1),
        // A table of which nobody knows where it is, that is named twice, or that is something else.
        (&[(at(1, 0), cluster(2) + 8)], 1, 3),
        (&[(at(1, 0), cluster(800))], 1, 3),
        (&[(at(1, 0), 1)], 1, 3),
        (&[(at(1, 0), cluster(3))], 1, 3),
        (&[(at(1, 2), cluster(1))], 1, 0),
        // Nothing names them any more.
        (&[(at(2, 0), 0)], 0, 1),
        (&[(at(1, 0), 0)], 0, 3),
    ] {
        let storage = Made::with(entries).storage();
        let image = open_to_check(&storage);
        let report = check(&image, RepairMode::Report);
        let found = (report.corruptions, report.leaks);
        assert_eq!(found, (corruptions, leaks), "{entries:?}");
        let report = check(&image, RepairMode::All);
        let left = (report.corruptions, report.leaks);
        assert_eq!(left, (0, 0), "{entries:?}");
        let fixed = (report.corruptions_fixed, report.leaks_fixed);
        assert_eq!(fixed, (corruptions, leaks), "{entries:?}");
        clean(&image);
        image.close().expect("a close");
        let image = open(&storage, true).expect("it opens again");
        clean(&image);
        assert_eq!(features(&storage), 0);
        // What nothing speaks against is still there.
        let whole = 3 * ENTRIES * CLUSTER;
        let bytes = read(&image);
        assert_eq!(bytes.len(), whole);
        if !entries.iter().any(|(place, _)| *place == at(1, 0)) {
            assert_eq!(bytes[CLUSTER], 5, "{entries:?}");
        }
        assert_eq!(bytes[ENTRIES * CLUSTER], 6, "{entries:?}");
        assert_eq!(bytes[(ENTRIES + 7) * CLUSTER], 7, "{entries:?}");
    }
}

/// The header may say too little of the disk: by a few clusters, or by whole tables.
#[test]
fn a_repair_of_leaks_keeps_what_is_named_behind_the_end_of_the_disk() {
    let made = |size: u64, clusters| Made {
        size,
        clusters,
        ..Made::new()
    };
    let whole = Made::new().size;
    let disk = read(&open_to_check(&Made::new().storage()));
    for size in [(ENTRIES + 2) * CLUSTER, ENTRIES * CLUSTER] {
        // Clusters 8 and 9 are nobody's.
        for (clusters, leaks) in [(8, 0), (10, 2)] {
            let storage = made(size as u64, clusters).storage();
            let image = open_to_check(&storage);
            for mode in [RepairMode::Report, RepairMode::Leaks, RepairMode::All] {
                let report = check(&image, mode);
                assert_eq!((report.leaks, report.corruptions), (leaks, 0), "{report:?}");
                assert_eq!(report.allocated_clusters, 4, "{size}");
            }
            image.close().expect("a close");
            // With the size that is right all of it is there.
            storage.write_at(&whole.to_le_bytes(), 48).expect("a write");
            assert!(read(&open_to_check(&storage)) == disk);
        }
    }
}

#[test]
fn a_table_without_clusters_that_stands_where_another_does_is_unlinked() {
    let mut made = Made::with(&[(at(1, 2), cluster(3))]);
    made.entries.retain(|(place, _)| *place < at(3, 0));
    made.clusters = 6;
    let storage = made.storage();
    let image = open_to_check(&storage);
    let guest = read(&image);
    assert_ne!(check(&image, RepairMode::Report).corruptions, 0);
    let report = check(&image, RepairMode::All);
    assert_eq!((report.leaks, report.corruptions), (0, 0), "{report:?}");
    image.close().expect("a close");
    let image = open_to_check(&storage);
    clean(&image);
    assert!(read(&image) == guest);
}

/// The header may say too little of the disk: by a few clusters, or by whole tables.
#[test]
fn a_disk_does_not_grow_over_clusters_that_are_named_behind_its_end() {
    for size in [(ENTRIES + 2) * CLUSTER, 2 * CLUSTER, ENTRIES * CLUSTER] {
        let made = Made {
            size: size as u64,
            ..Made::new()
        };
        let storage = made.storage();
        let mut before = vec![0; 8 * CLUSTER];
        storage.read_at(&mut before, 0).expect("a read");
        let image = open_alone(&storage);
        let error = image
            .resize(Made::new().size, Preallocation::Off)
            .expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        image.close().expect("a close");
        let mut after = vec![0; 8 * CLUSTER];
        storage.read_at(&mut after, 0).expect("a read");
        assert!(after == before, "{size}");
    }
}

/// The header may say too little of the disk: by a few clusters, or by whole tables.
#[test]
fn a_write_keeps_what_is_named_behind_the_end_of_the_disk() {
    let whole = Made::new().size;
    let disk = read(&open_to_check(&Made::new().storage()));
    let sizes = [(ENTRIES + 2) * CLUSTER, ENTRIES * CLUSTER];
    // The file may end with a part of a cluster that nothing names.
    for (size, more) in sizes.into_iter().zip([109, 0]) {
        let made = Made {
            size: size as u64,
            ..Made::new()
        };
        let storage = made.storage();
        let len = storage.len().expect("a length") + more;
        storage.set_len(len, Preallocation::Off).expect("to grow");
        let image = open_alone(&storage);
        let (first, last) = (7 * CLUSTER, size - CLUSTER);
        for at in [first, last] {
            image.write_at(&[0x77; 512], at as u64).expect("a write");
        }
        image.close().expect("a close");
        let image = open_to_check(&storage);
        clean(&image);
        image.close().expect("a close");
        storage.write_at(&whole.to_le_bytes(), 48).expect("a write");
        let after = read(&open_to_check(&storage));
        for (number, (is, was)) in after.chunks(CLUSTER).zip(disk.chunks(CLUSTER)).enumerate() {
            let is_written = [first, last].contains(&(number * CLUSTER));
            assert!(is_written || is == was, "{size}: cluster {number}");
        }
    }
}

/// The header may say too little of the disk: by a few clusters, by whole tables, or nothing at all.
#[test]
fn a_commit_leaves_what_is_named_behind_the_end_of_the_disk() {
    let dir = Dir::new();
    let whole = Made::new().size;
    let made = |size: u64| Made {
        size,
        name: "base.raw",
        features: NO_PROBING,
        ..Made::new()
    };
    let bytes_of = |size| {
        let storage = made(size).storage();
        let mut bytes = vec![0; storage.len().expect("a length") as usize];
        storage.read_at(&mut bytes, 0).expect("a read");
        bytes
    };
    for size in [(ENTRIES + 2) * CLUSTER, ENTRIES * CLUSTER, 0] {
        std::fs::write(dir.path("base.raw"), vec![0; whole as usize]).expect("a base");
        std::fs::write(dir.path("o.qed"), bytes_of(size as u64)).expect("an overlay");
        let request = CommitRequest {
            location: Location::from_path(dir.path("o.qed")),
            options: options(true, false),
            base: None,
            keep: false,
        };
        commit(&request, &mut Job::new()).expect("a commit");
        let mut after = std::fs::read(dir.path("o.qed")).expect("the overlay");
        let image = Image::open(&request.location, &options(false, true)).expect("it opens");
        clean(&image);
        image.close().expect("a close");
        // With the size that is right all of it is there.
        after[48..56].copy_from_slice(&whole.to_le_bytes());
        assert!(after == bytes_of(whole), "{size}");
    }
}

#[test]
fn a_damaged_table_is_neither_read_through_nor_written() {
    for (entries, place) in [
        ([(at(2, 0), cluster(4) + 512)], 0),
        ([(at(2, 0), cluster(400))], 0),
        ([(at(1, 0), cluster(800))], 0),
        ([(at(1, 2), 4097)], 2 * (ENTRIES * CLUSTER) as u64),
    ] {
        let storage = Made::with(&entries).storage();
        let image = open(&storage, true).expect("it opens");
        let error = image.read_at(&mut [0; 512], place).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        // New clusters could go where there are some that cannot be seen.
        let free = (9 * CLUSTER) as u64;
        let error = image.write_at(&[1; 512], free).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let error = image
            .write_zeroes(place, 512, platter::storage::ZeroFlags::empty())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        image.close().expect("a close");
        assert_eq!(storage.len().unwrap(), cluster(8));
    }
    // An entry that leads to a table: what is there is not overwritten.
    let storage = Made::with(&[(at(2, 0), cluster(3))]).storage();
    let image = open(&storage, true).expect("it opens");
    let error = image.write_at(&[1; 512], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn an_image_that_was_not_closed_is_repaired_before_it_is_changed() {
    let made = |entries: &[(usize, u64)]| Made {
        features: 2,
        autoclear: 4,
        ..Made::with(entries)
    };
    // To read it nothing changes.
    let storage = made(&[(at(2, 0), cluster(400))]).storage();
    let image = open(&storage, false).expect("it opens");
    image.read_at(&mut [0; 512], cluster(1)).expect("a read");
    image.close().expect("a close");
    assert_eq!((features(&storage), field(&storage, 32)), (2, 4));
    for entries in [
        &[(at(2, 0), cluster(400))][..],
        &[(at(2, 0), 0)],
        &[(at(1, 0), cluster(3))],
        &[],
    ] {
        let storage = made(entries).storage();
        let image = open(&storage, true).expect("it opens");
        clean(&image);
        image.write_at(&[7; 100], 5).expect("a write");
        assert_eq!(features(&storage) & 2, 2);
        image.flush().expect("a flush");
        image.flush().expect("a flush with nothing to write");
        assert_eq!(features(&storage), 0);
        assert_eq!(field(&storage, 32), 0);
        image.write_at(&[7; 100], 900_000).expect("a write");
        assert_eq!(features(&storage), 2);
        image.close().expect("a close");
        assert_eq!(features(&storage), 0);
    }
}

#[test]
fn random_changes_and_growth_are_those_of_a_model() {
    let mut random = Random(11);
    let storage = Made::new().storage();
    let image = open(&storage, true).expect("it opens");
    let mut model = read(&image);
    for round in 0..6_u64 {
        for _ in 0..60 {
            let len = random.below(3 * CLUSTER) + 1;
            let place = random.below(model.len() - len);
            let byte = random.next() as u8;
            image
                .write_at(&vec![byte; len], place as u64)
                .expect("a write");
            model[place..place + len].fill(byte);
        }
        let len = model.len() as u64 + 512 * (round * 700 + 3);
        let resizer = image.format().resizer().expect("a resizer");
        resizer
            .resize(len, Preallocation::Off)
            .expect("a larger size");
        model.resize(len as usize, 0);
        assert!(read(&image) == model, "round {round}");
        clean(&image);
        if round % 2 == 0 {
            image.flush().expect("a flush");
        }
    }
    let resizer = image.format().resizer().expect("a resizer");
    let refused = resizer.resize(512, Preallocation::Off).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    image.close().expect("a close");
    let image = open(&storage, true).expect("it opens again");
    assert!(read(&image) == model);
    clean(&image);
}

#[test]
fn a_new_backing_name_never_takes_the_place_of_the_old_one() {
    let storage = Made::new().storage();
    let long = "x".repeat(1023);
    let mut old = (0, 0);
    let named = |name: &str, format: Option<&str>| BackingRef {
        name: name.into(),
        format: format.map(Into::into),
    };
    for name in ["a.raw", &long, "b.qed", &long, "c"] {
        let image = open_alone(&storage);
        let change = image.format().backing_change().expect("backing files");
        change
            .set_backing(Some(&named(name, Some("raw"))), None)
            .expect("a name");
        let place = field(&storage, 56);
        let (start, len) = (place & 0xffff_ffff, place >> 32);
        assert!(start >= old.1 || start + len <= old.0, "{name}");
        old = (start, start + len);
        assert_eq!(features(&storage) & 5, 5);
        let parent = image.format().parent().expect("a parent");
        assert_eq!(parent.first().expect("a name").name, name);
        let error = change
            .set_backing(Some(&named(&"y".repeat(1024), None)), None)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        image.close().expect("a close");
    }
    let image = open_alone(&storage);
    let change = image.format().backing_change().expect("backing files");
    change
        .set_backing(Some(&named("d", None)), None)
        .expect("a name");
    assert_eq!(features(&storage) & 5, 1);
    change.set_backing(None, None).expect("no name");
    assert_eq!(features(&storage) & 5, 0);
    image.close().expect("a close");
    let strange = Made {
        compatible: 8,
        ..Made::new()
    };
    let image = open(&strange.storage(), true).expect("it opens");
    let change = image.format().backing_change().expect("backing files");
    let error = change.set_backing(None, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
