//! What formats that are only read promise: the disk that went into the image, for every way of reading
//! it; an error for damaged images; nothing for whoever would write.

use std::sync::Arc;

use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::inspect::inspect_storage;
use platter::storage::NamedStorages;
use platter::storage::Storage;
use platter::storage::memory::MemoryStorage;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Result};

use super::given::{GIVEN, Given};
use super::hostile::damage;
use super::shelf::{Shelf, contents};
use super::work::same;
use crate::common::Dir;
use crate::random::Random;

/// Damaged files of each.
const FILES: usize = 80;

/// Opens an image in memory.
pub fn open(given: &Given, bytes: &[u8], writable: bool) -> Result<Image> {
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("image", bytes.to_vec()));
    let shelf: Arc<dyn NamedStorages> = Arc::new(Shelf(vec![file]));
    let options = OpenOptions {
        writable,
        policy: OpenPolicy::permissive(),
        storages: Some(shelf),
        ..OpenOptions::default()
    };
    let image = format!("driver={},file.filename=image", given.format);
    Image::open(&Location::from_image_opts(&image)?, &options)
}

#[test]
fn every_way_of_reading_gives_the_disk() {
    for given in GIVEN {
        let (guest, bytes) = given.make();
        let image = open(given, &bytes, false).expect(given.name);
        assert_eq!(image.len(), guest.len() as u64, "{}", given.name);
        same(given.name, &contents(&image).expect(given.name), &guest);
        let read = |seed: u64| {
            let mut random = Random(seed);
            let mut buf = vec![0; 200_000];
            for _ in 0..60 {
                let from = random.below(guest.len());
                let most = [700, 5000, buf.len()][random.below(3)];
                let len = (1 + random.below(most)).min(guest.len() - from);
                let read = image.read_at(&mut buf[..len], from as u64);
                read.unwrap_or_else(|error| panic!("{}: {error}", given.name));
                same(given.name, &buf[..len], &guest[from..from + len]);
            }
        };
        std::thread::scope(|scope| {
            for seed in 1..4 {
                scope.spawn(move || read(seed));
            }
        });
    }
}

#[test]
fn conversion_gives_the_disk_and_so_does_that_of_qemu() {
    for given in GIVEN {
        let dir = Dir::new();
        let (guest, bytes) = given.make();
        let name = format!("image.{}", given.format);
        std::fs::write(dir.path(&name), bytes).expect("the image");
        let mut request = ConvertRequest::new(
            Location::from_path(dir.path(&name)),
            Location::from_path(dir.path("ours.raw")),
        );
        // The format is found.
        request.source.options.policy = OpenPolicy::permissive();
        request.target.format = Some("raw".to_owned());
        convert(&request, &mut Job::new()).expect(given.name);
        let read = |name: &str| std::fs::read(dir.path(name)).expect("a disk");
        same(given.name, &read("ours.raw"), &guest);
        if given.known_to_peer {
            dir.qemu_img_ok(&["convert", "-O", "raw", &name, "theirs.raw"]);
            same(given.name, &read("theirs.raw"), &guest);
        }
    }
}

#[test]
fn nobody_opens_them_for_writing() {
    for given in GIVEN {
        let error = open(given, &given.make().1, true).expect_err(given.name);
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{}: {error}", given.name);
    }
}

#[test]
fn inspection_finds_nothing_against_them() {
    for given in GIVEN {
        let (guest, bytes) = given.make();
        let file = Arc::new(MemoryStorage::with_bytes("image", bytes));
        let options = OpenOptions {
            format: Some(given.format.to_owned()),
            ..OpenOptions::default()
        };
        let report = inspect_storage(file, &options).expect("memory can be read");
        let bad: Vec<_> = report
            .requirements
            .iter()
            .filter(|found| !found.verdict.is_good())
            .collect();
        assert!(bad.is_empty(), "{}: {bad:?}", given.name);
        let size = report.virtual_size;
        assert_eq!(size, Some(guest.len() as u64), "{}", given.name);
        assert!(report.references.is_empty(), "{}", given.name);
    }
}

/// Reads all that can be read.
fn exercise(given: &Given, bytes: &[u8]) {
    if let Ok(image) = open(given, bytes, false) {
        let mut buf = vec![0; 300_000];
        let mut at = 0;
        while at < image.len().min(8 << 20) {
            let len = (image.len() - at).min(buf.len() as u64) as usize;
            let _ = image.read_at(&mut buf[..len], at);
            at += len as u64;
        }
        let _ = image.info();
        let _ = image.status(0, image.len().max(1));
    }
    let options = OpenOptions {
        format: Some(given.format.to_owned()),
        ..OpenOptions::default()
    };
    let file = Arc::new(MemoryStorage::with_bytes("image", bytes.to_vec()));
    inspect_storage(file, &options).expect("memory can be read");
}

#[test]
fn damaged_ones_are_refused_or_read_and_never_a_panic() {
    for given in GIVEN {
        let (_, whole) = given.make();
        let mut random = Random(given.name.len() as u64);
        for _ in 0..FILES {
            let mut bytes = whole.clone();
            damage(&mut random, &mut bytes);
            exercise(given, &bytes);
        }
        for len in (0..1024.min(whole.len())).step_by(29) {
            exercise(given, &whole[..len]);
        }
    }
}
