//! The first qcow: damage and its repair, compressed clusters, names.

use std::sync::Arc;

use platter::format::{BackingRef, CheckReport, RepairMode};
use platter::storage::memory::MemoryStorage;
use platter::storage::{Preallocation, Storage};
use platter::{Error, ErrorKind, Image, Job, OpenOptions, OpenPolicy};

use crate::random::Random;

const CLUSTER: usize = 512;
/// Entries of a table, which takes one cluster.
const ENTRIES: usize = 64;
/// Where the upper table stands, of a disk of three tables.
const L1: usize = 48;
const SIZE: usize = 3 * ENTRIES * CLUSTER;

const fn cluster(number: u64) -> u64 {
    number * CLUSTER as u64
}

const fn at(table: usize, index: usize) -> usize {
    table * CLUSTER + index * 8
}

/// A cluster of `byte`, compressed.
fn packed(byte: u8) -> Vec<u8> {
    use std::io::Write;
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(&[byte; CLUSTER]).expect("memory");
    encoder.finish().expect("memory")
}

fn packed_word(host: u64, len: usize) -> u64 {
    1 << 63 | (len as u64) << 54 | host
}

/// Two tables in clusters 1 and 2, which name clusters 3 to 5 as they are, and two compressed ones in cluster 6.
fn made(entries: &[(usize, u64)], clusters: usize) -> Arc<dyn Storage> {
    let mut bytes = vec![0; clusters * CLUSTER];
    for number in 3..clusters {
        bytes[number * CLUSTER..(number + 1) * CLUSTER].fill(number as u8);
    }
    let (first, second) = (packed(0x66), packed(0x67));
    assert!(first.len() + second.len() < CLUSTER);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x01");
    put(24, &(SIZE as u64).to_be_bytes());
    put(32, &[9, 6]);
    put(40, &(L1 as u64).to_be_bytes());
    put(6 * CLUSTER, &first);
    put(6 * CLUSTER + first.len(), &second);
    let host = cluster(6);
    let own = [
        (L1, cluster(1)),
        (L1 + 8, cluster(2)),
        (at(1, 0), cluster(3)),
        (at(1, 1), cluster(4)),
        (at(2, 0), cluster(5)),
        (at(2, 1), packed_word(host, first.len())),
        (
            at(2, 2),
            packed_word(host + first.len() as u64, second.len()),
        ),
    ];
    for (at, value) in own.iter().chain(entries) {
        put(*at, &value.to_be_bytes());
    }
    Arc::new(MemoryStorage::with_bytes("image.qcow", bytes))
}

fn options(writable: bool, for_check: bool) -> OpenOptions {
    OpenOptions {
        format: Some("qcow".to_owned()),
        writable,
        for_check,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(storage: &Arc<dyn Storage>) -> Result<Image, Error> {
    Image::open_storage(storage.clone(), &options(true, false))
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
    let checker = image.format().checker().expect("a check");
    checker.check(mode, &mut Job::new()).expect("a check")
}

fn clean(image: &Image) {
    let report = check(image, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{report:?}");
}

#[test]
fn damage_is_counted_and_repaired() {
    for (entries, clusters, corruptions, leaks) in [
        (&[][..], 7, 0, 0),
        // Nothing names them. What follows the upper table counts as its own, up to a whole sector.
        (&[], 9, 0, 2),
        (&[(at(1, 0), 0)], 7, 0, 1),
        (&[(L1, 0)], 7, 0, 2),
        // Not aligned, outside, in the header.
        (&[(at(1, 0), cluster(3) + 8)], 7, 1, 1),
        (&[(at(1, 0), cluster(400))], 7, 1, 1),
        (&[(at(1, 0), 1 << 62)], 7, 1, 1),
        (&[(at(1, 0), 1)], 7, 1, 1),
        // Named twice; a table; compressed bytes.
        (&[(at(1, 0), cluster(4))], 7, 1, 1),
        (&[(at(1, 0), cluster(2))], 7, 1, 1),
        (&[(at(1, 5), cluster(6))], 7, 2, 0),
        // Compressed: no length, behind the end, where something else stands.
        (&[(at(2, 5), 1 << 63 | 6 << 9)], 7, 1, 0),
        (&[(at(2, 5), 1 << 63 | 100 << 54 | 7 << 9)], 7, 1, 0),
        (&[(at(2, 5), 1 << 63 | 100 << 54 | 5 << 9)], 7, 1, 0),
        // A table whose place is none, that is named twice, or that is something else.
        (&[(L1, cluster(1) + 8)], 7, 1, 2),
        (&[(L1, cluster(7))], 7, 1, 2),
        (&[(L1, 1 << 63)], 7, 1, 2),
        (&[(L1, cluster(2))], 7, 1, 2),
        (&[(L1, cluster(2)), (at(2, 5), cluster(400))], 7, 2, 2),
    ] {
        let storage = made(entries, clusters);
        let image = open_to_check(&storage);
        let report = check(&image, RepairMode::Report);
        let found = (report.corruptions, report.leaks);
        assert_eq!(found, (corruptions, leaks), "{entries:x?}");
        let report = check(&image, RepairMode::All);
        let left = (report.corruptions, report.leaks);
        assert_eq!(left, (0, 0), "{entries:x?}");
        clean(&image);
        image.close().expect("a close");
        let image = open(&storage).expect("it opens again");
        clean(&image);
        // What nothing speaks against is still there.
        let mut bytes = [0; 3 * CLUSTER];
        image
            .read_at(&mut bytes, (ENTRIES * CLUSTER) as u64)
            .expect("a read");
        let seen = [bytes[0], bytes[CLUSTER], bytes[3 * CLUSTER - 1]];
        assert_eq!(seen, [5, 0x66, 0x67], "{entries:x?}");
        // No gap is left where all that can move is as large.
        let used = 1 + 1 + report.allocated_clusters;
        assert!(storage.len().expect("a length") <= cluster(used + 2));
    }
}

/// The header may say too little of the disk: by a few clusters, or by whole tables.
#[test]
fn a_repair_of_leaks_keeps_what_stands_behind_the_end_of_the_disk() {
    let whole = read(&open_to_check(&made(&[], 8)));
    for size in [65 * CLUSTER, 64 * CLUSTER] {
        // Cluster 7 is nobody's.
        let storage = made(&[], 8);
        let put = |size: usize| storage.write_at(&(size as u64).to_be_bytes(), 24);
        put(size).expect("a write");
        let image = open_to_check(&storage);
        let leaks = check(&image, RepairMode::Report).leaks;
        assert_eq!(leaks, u64::from(size > 64 * CLUSTER));
        let report = check(&image, RepairMode::Leaks);
        assert_eq!((report.leaks, report.leaks_fixed), (0, leaks));
        image.close().expect("a close");
        put(SIZE).expect("a write");
        assert!(read(&open_to_check(&storage)) == whole, "{size}");
    }
}

#[test]
fn a_name_behind_the_end_of_the_file_is_damage_and_taken_out() {
    let storage = made(&[], 7);
    let place = [
        0x2800_0000_u64.to_be_bytes(),
        4_u64.rotate_right(32).to_be_bytes(),
    ]
    .concat();
    storage.write_at(&place, 8).expect("a write");
    let before = read(&open_to_check(&storage));
    let image = open_to_check(&storage);
    let found = check(&image, RepairMode::Report);
    assert_eq!((found.corruptions, found.leaks), (1, 0), "{found:?}");
    let left = check(&image, RepairMode::All);
    assert_eq!((left.corruptions, left.corruptions_fixed), (0, 1));
    image
        .write_at(&[1; CLUSTER], 8 * CLUSTER as u64)
        .expect("a write");
    clean(&image);
    image.close().expect("a close");
    assert_eq!(storage.len().expect("a length"), cluster(8));
    let after = read(&open_to_check(&storage));
    assert!(after[..8 * CLUSTER] == before[..8 * CLUSTER]);
    let mut header = [1; 16];
    storage.read_at(&mut header, 8).expect("a read");
    assert_eq!(header, [0; 16]);
}

/// What is written goes behind it, so that all of a cluster is lost.
#[test]
fn a_part_of_a_cluster_at_the_end_that_nothing_names_is_a_leak() {
    let storage = made(&[], 7);
    storage
        .set_len(cluster(7) + 255, Preallocation::Off)
        .expect("to grow");
    let image = open_to_check(&storage);
    assert_eq!(check(&image, RepairMode::Report).leaks, 1);
    assert_eq!(check(&image, RepairMode::Leaks).leaks, 0);
    image.close().expect("a close");
    assert_eq!(storage.len().expect("a length"), cluster(7));
    let image = open(&storage).expect("it opens");
    image
        .write_at(&[1; 4 * CLUSTER], 8 * CLUSTER as u64)
        .expect("a write");
    clean(&image);
    image.close().expect("a close");
}

#[test]
fn a_damaged_table_is_neither_read_through_nor_written() {
    for (entries, place) in [
        ([(at(1, 0), cluster(3) + 8)], 0),
        ([(at(1, 0), cluster(400))], 0),
        ([(at(1, 0), 1 << 63 | 100 << 54 | 7 << 9)], 0),
        ([(L1, cluster(800))], 0),
        ([(L1 + 16, 4097)], 2 * (ENTRIES * CLUSTER) as u64),
    ] {
        let storage = made(&entries, 7);
        let image = open(&storage).expect("it opens");
        let error = image.read_at(&mut [0; 512], place).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        // New clusters would go where lost ones were.
        let error = image.write_at(&[1; 512], cluster(9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let flags = platter::storage::ZeroFlags::empty();
        let error = image.write_zeroes(place, 512, flags).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        image.close().expect("a close");
        assert_eq!(storage.len().unwrap(), cluster(7));
    }
    // An entry that leads to a table: what is there is not overwritten.
    for place in [cluster(2), cluster(1)] {
        let storage = made(&[(at(1, 0), place)], 7);
        let image = open(&storage).expect("it opens");
        let error = image.write_at(&[1; 512], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn compressed_bytes_that_do_not_decode_are_told_with_their_place() {
    let storage = made(&[(at(2, 1), packed_word(cluster(6) + 1, 9))], 7);
    let image = open(&storage).expect("it opens");
    let place = ((ENTRIES + 1) * CLUSTER) as u64;
    let error = image.read_at(&mut [0; 64], place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.offset(), Some(cluster(6) + 1));
}

/// Writes of all kinds, compressed ones among them, and checks of the leaks that those leave.
#[test]
fn random_changes_are_those_of_a_model() {
    let mut random = Random(5);
    let storage = made(&[], 7);
    let mut image = open(&storage).expect("it opens");
    let mut model = read(&image);
    for round in 0..12 {
        for _ in 0..40 {
            let byte = random.next() as u8;
            match random.below(4) {
                0 => {
                    let compress = image.compressor().expect("a compressor");
                    let place = random.below(SIZE / CLUSTER) * CLUSTER;
                    compress
                        .write_compressed(&[byte; CLUSTER], place as u64)
                        .expect("a write");
                    model[place..place + CLUSTER].fill(byte);
                }
                1 => {
                    let len = random.below(3 * CLUSTER) + 1;
                    let place = random.below(SIZE - len);
                    let flags = platter::storage::ZeroFlags::MAY_UNMAP;
                    image
                        .write_zeroes(place as u64, len as u64, flags)
                        .expect("zeroes");
                    model[place..place + len].fill(0);
                }
                _ => {
                    let len = random.below(3 * CLUSTER) + 1;
                    let place = random.below(SIZE - len);
                    image
                        .write_at(&vec![byte; len], place as u64)
                        .expect("a write");
                    model[place..place + len].fill(byte);
                }
            }
        }
        assert!(read(&image) == model, "round {round}");
        image.close().expect("a close");
        if round % 3 == 2 {
            let image = open_to_check(&storage);
            let before = check(&image, RepairMode::Report);
            assert_eq!(before.corruptions, 0);
            let after = check(&image, RepairMode::Leaks);
            assert_eq!((after.leaks, after.leaks_fixed), (0, before.leaks));
            assert!(read(&image) == model, "round {round}");
            image.close().expect("a close");
        }
        image = open(&storage).expect("it opens again");
        assert!(read(&image) == model, "round {round}");
    }
}

#[test]
fn a_cluster_with_a_place_keeps_it_when_it_is_written_compressed() {
    let storage = made(&[], 7);
    let image = open(&storage).expect("it opens");
    image.write_at(&[1; CLUSTER], 0).expect("a write");
    let len = storage.len().expect("the length");
    let compress = image.compressor().expect("a compressor");
    compress
        .write_compressed(&[2; CLUSTER], 0)
        .expect("a write");
    image.close().expect("a close");
    assert_eq!(storage.len().expect("the length"), len);
    let image = open_to_check(&storage);
    let report = check(&image, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (0, 0));
    assert!(read(&image).starts_with(&[2; CLUSTER]));
}

#[test]
fn another_name_takes_the_place_of_the_old_one() {
    // The upper table of this image stands right behind the header: there is room for no name.
    let storage = made(&[], 7);
    let image = open(&storage).expect("it opens");
    let change = image.format().backing_change().expect("it can change");
    let named = |name: &str| BackingRef {
        name: name.into(),
        format: None,
    };
    let error = change.set_backing(Some(&named("b")), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("of 0 bytes"), "{error}");
    let long = "n".repeat(1024);
    let error = change.set_backing(Some(&named(&long)), None).unwrap_err();
    assert_eq!(error.to_string(), "Backing file name too long");
    clean(&image);
    assert_eq!(image.format().parent(), None);
}
