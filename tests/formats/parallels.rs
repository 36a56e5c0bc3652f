//! Parallels: the format extension, both magics, images that were not closed, damage and its repair.

use std::sync::Arc;

use md5::{Digest, Md5};
use platter::format::{CheckReport, RepairMode};
use platter::image::{Image, OpenOptions};
use platter::storage::memory::MemoryStorage;
use platter::storage::{Preallocation, Storage};
use platter::{Error, ErrorKind, Job, Location, OpenPolicy};

use crate::common::Dir;
use crate::products::unpack_bzip2;

const CLUSTER: usize = 64 << 10;
const CLEAN: u32 = 0x312e_3276;
const OPEN: u32 = 0x746f_6e59;
/// Closed by a program that does not know the format extension.
const OLD: u32 = 0;
const NECESSARY: u64 = 1;
const TRANSIT: u64 = 2;

/// A section of the format extension.
fn section(kind: u64, flags: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A dirty bitmap of a disk of 1 MiB, one bit for 64 KiB, whose bits stand in that cluster of the file.
fn bitmap(flags: u64, cluster: u64) -> Vec<u8> {
    bitmap_of(7, flags, cluster * 128)
}

/// As [`bitmap`], with an ID of these bytes and that entry of its table.
fn bitmap_of(id: u8, flags: u64, entry: u64) -> Vec<u8> {
    let mut data = 2048_u64.to_le_bytes().to_vec();
    data.extend([id; 16]);
    data.extend(128_u32.to_le_bytes());
    data.extend(1_u32.to_le_bytes());
    data.extend(entry.to_le_bytes());
    section(0x2038_5fae_252c_b34a, flags, &data)
}

/// A disk of 1 MiB: clusters 1 to 3 of the file hold its first three; 4 is the format extension with these
/// sections, 5 the bits of a bitmap.
fn made(sections: &[Vec<u8>], in_use: u32) -> Vec<u8> {
    let mut bytes = vec![0; 6 * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"WithouFreSpacExt");
    for (at, value) in [
        (16, 2_u32),
        (20, 16),
        (24, 4),
        (28, 128),
        (32, 16),
        (36, 2048),
        (44, in_use),
        (48, 128),
        (56, 4 * 128),
        (64, 1),
        (68, 2),
        (72, 3),
    ] {
        put(at, &value.to_le_bytes());
    }
    for number in 1..4 {
        put(number * CLUSTER, &[number as u8; CLUSTER]);
    }
    let sections = sections.concat();
    put(4 * CLUSTER, &0xab23_4cef_23dc_ea87_u64.to_le_bytes());
    put(4 * CLUSTER + 24, &sections);
    put(5 * CLUSTER, &[0x0f]);
    seal(&mut bytes);
    bytes
}

/// Puts the checksum of the extension right.
fn seal(bytes: &mut [u8]) {
    let extension = &mut bytes[4 * CLUSTER..5 * CLUSTER];
    let sum = Md5::digest(&extension[24..]);
    extension[8..24].copy_from_slice(&sum);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn memory(bytes: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::with_bytes("image", bytes.to_vec()))
}

fn all(storage: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; storage.len().expect("a length") as usize];
    storage.read_at(&mut bytes, 0).expect("a read");
    bytes
}

fn options(writable: bool, for_check: bool) -> OpenOptions {
    OpenOptions {
        format: Some("parallels".to_owned()),
        writable,
        for_check,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(storage: &Arc<dyn Storage>, writable: bool) -> Result<Image, Error> {
    Image::open_storage(storage.clone(), &options(writable, false))
}

fn refused(storage: &Arc<dyn Storage>, writable: bool) -> Error {
    match open(storage, writable) {
        Ok(_) => panic!("it is taken"),
        Err(error) => error,
    }
}

fn checked(storage: &Arc<dyn Storage>, repair: RepairMode) -> CheckReport {
    let writable = repair != RepairMode::Report;
    let image = Image::open_storage(storage.clone(), &options(writable, true)).expect("it opens");
    let checker = image.format().checker().expect("a check");
    let report = checker.check(repair, &mut Job::new()).expect("a check");
    image.close().expect("a close");
    report
}

fn guest(storage: &Arc<dyn Storage>) -> Vec<u8> {
    let image = open(storage, false).expect("it opens");
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

fn write(storage: &Arc<dyn Storage>, bytes: &[u8], at: u64) {
    let image = open(storage, true).expect("it opens");
    image.write_at(bytes, at).expect("a write");
    image.close().expect("a close");
}

/// What QEMU's tools make of an image.
fn peer_agrees(storage: &Arc<dyn Storage>) {
    let dir = Dir::new();
    std::fs::write(dir.path("a.hdd"), all(storage)).expect("a file");
    dir.qemu_img_ok(&["check", "-f", "parallels", "a.hdd"]);
    dir.qemu_img_ok(&["convert", "-f", "parallels", "-O", "raw", "a.hdd", "a.raw"]);
    let seen = std::fs::read(dir.path("a.raw")).expect("a disk");
    assert!(seen == guest(storage));
}

#[test]
fn dirty_bitmaps_are_dropped_by_the_first_change_and_by_nothing_before() {
    let storage = memory(&made(&[bitmap(0, 5)], CLEAN));
    let before = all(&storage);
    open(&storage, true)
        .expect("it opens")
        .close()
        .expect("a close");
    assert!(all(&storage) == before);
    assert_eq!(
        checked(&storage, RepairMode::Report),
        checked(&storage, RepairMode::All)
    );
    assert_eq!(checked(&storage, RepairMode::Report).leaks, 0);
    assert!(all(&storage) == before);

    let image = open(&storage, true).expect("it opens");
    image.write_at(&[9; 512], 512 << 10).expect("a write");
    image.flush().expect("a flush");
    let bytes = all(&storage);
    assert_eq!((word(&bytes, 44), word(&bytes, 56)), (OPEN, 0));
    image.close().expect("a close");
    let bytes = all(&storage);
    assert_eq!((word(&bytes, 44), word(&bytes, 56)), (CLEAN, 0));
    assert_eq!(guest(&storage)[512 << 10..][..512], [9; 512]);
    peer_agrees(&storage);
}

fn dirty(image: &Image, name: &str, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let report = platter::ops::bitmap::dirty(image, name, range).expect("the bits");
    report
        .ranges
        .into_iter()
        .map(|(at, len)| (at >> 10, len >> 10))
        .collect()
}

#[test]
fn dirty_bitmaps_are_read_while_nobody_writes() {
    let name = |id: &str| format!("{0}{0}{0}{0}-{0}{0}-{0}{0}-{0}{0}-{0}{0}{0}{0}{0}{0}", id);
    let (some, all, none) = (name("07"), name("08"), name("09"));
    let sections = [
        bitmap(0, 5),
        bitmap_of(8, 0, 1),
        bitmap_of(9, 0, 0),
        // Its bits are not in the file.
        bitmap_of(10, 0, 1 << 40),
    ];
    let mut bytes = made(&sections, CLEAN);
    // Bits behind the end of the disk mean nothing.
    bytes[5 * CLUSTER..][..3].copy_from_slice(&[0b1000_0111, 0x81, 0xff]);
    let storage = memory(&bytes);
    let image = open(&storage, false).expect("it opens");
    let bitmaps = image.bitmaps().expect("bitmaps");
    let list = bitmaps.list().expect("a list");
    let names: Vec<_> = list.iter().map(|bitmap| bitmap.name.to_string()).collect();
    assert_eq!(names[..3], [&*some, &*all, &*none]);
    assert!(list.iter().all(|bitmap| bitmap.granularity == 64 << 10));
    assert_eq!(
        dirty(&image, &some, 0..1 << 20),
        [(0, 192), (448, 128), (960, 64)]
    );
    assert_eq!(
        dirty(&image, &some, 1000..500_000 & !1023),
        [(0, 191), (448, 40)]
    );
    assert_eq!(dirty(&image, &all, 0..u64::MAX), [(0, 1024)]);
    assert_eq!(dirty(&image, &none, 0..1 << 20), []);
    for lost in [&names[3], "x"] {
        platter::ops::bitmap::dirty(&image, lost, 0..1 << 20).expect_err("no bits");
    }
    let control = platter::job::JobControl::default();
    let error = bitmaps
        .clear(some.as_bytes().into(), &control)
        .expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // Whoever may write drops them, and others did.
    assert!(open(&storage, true).expect("it opens").bitmaps().is_none());
    let storage = memory(&made(&sections, OLD));
    let image = open(&storage, false).expect("it opens");
    assert_eq!(
        image.bitmaps().expect("bitmaps").list().expect("a list"),
        []
    );
    let twice = memory(&made(&[bitmap(0, 5), bitmap(0, 5)], CLEAN));
    let error = refused(&twice, false).to_string();
    assert!(
        error.contains(&format!("Bitmap already exists: {some}")),
        "{error}"
    );
}

#[test]
fn what_is_necessary_keeps_the_image_from_being_changed() {
    for sections in [
        vec![bitmap(NECESSARY, 5)],
        vec![bitmap(0, 5), section(0x77, NECESSARY | TRANSIT, b"x")],
    ] {
        let storage = memory(&made(&sections, CLEAN));
        let error = refused(&storage, true);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(guest(&storage)[CLUSTER], 2);
        // Somebody has changed the image since who did not know of it.
        let storage = memory(&made(&sections, OLD));
        write(&storage, &[9], 0);
    }
}

#[test]
fn what_is_in_transit_stays_where_it_is_whatever_changes() {
    let sections = [bitmap(0, 5), section(0x77, TRANSIT, b"somewhere else")];
    let mut bytes = made(&sections, CLEAN);
    // Something that only the unknown section knows of.
    bytes.extend(vec![0xab; CLUSTER]);
    let storage = memory(&bytes);
    let image = open(&storage, true).expect("it opens");
    let error = image
        .resize(2 << 20, Preallocation::Off)
        .expect_err("it is for that size");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    image.close().expect("a close");
    assert!(all(&storage) == bytes);
    write(&storage, &[9; 3 * CLUSTER], 512 << 10);
    let now = all(&storage);
    assert!(now[4 * CLUSTER..7 * CLUSTER] == bytes[4 * CLUSTER..]);
    assert_eq!((word(&now, 44), word(&now, 56)), (OLD, 4 * 128));
    assert_eq!(checked(&storage, RepairMode::All).leaks, 0);
    assert_eq!(all(&storage).len(), 10 * CLUSTER);
    assert_eq!(
        guest(&storage)[512 << 10..][..3 * CLUSTER],
        [9; 3 * CLUSTER]
    );
}

#[test]
fn a_damaged_extension_is_told_and_dropped_by_repair() {
    for (at, value) in [
        (4 * CLUSTER, 1),
        (4 * CLUSTER + 8, 1),
        (4 * CLUSTER + 60, 9),
    ] {
        let mut bytes = made(&[bitmap(0, 5)], CLEAN);
        bytes[at] ^= value;
        let storage = memory(&bytes);
        for writable in [false, true] {
            let error = refused(&storage, writable);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        let report = checked(&storage, RepairMode::All);
        assert_eq!((report.corruptions_fixed, report.corruptions), (1, 0));
        let now = all(&storage);
        assert_eq!((word(&now, 44), word(&now, 56)), (CLEAN, 0));
        peer_agrees(&storage);
        // Who closed the image so may have written over the extension, as QEMU's tools do.
        bytes[44..48].copy_from_slice(&OLD.to_le_bytes());
        let storage = memory(&bytes);
        assert_eq!(guest(&storage)[0], 1);
        write(&storage, &[9], 0);
        peer_agrees(&storage);
    }
}

#[test]
fn sections_that_say_more_than_there_is_are_damage() {
    let mut sections = vec![bitmap(0, 5); 4];
    sections[0][24..32].copy_from_slice(&4096_u64.to_le_bytes());
    sections[1][48..52].copy_from_slice(&100_u32.to_le_bytes());
    sections[2][52..56].copy_from_slice(&2_u32.to_le_bytes());
    sections[3][16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    for section in sections {
        let storage = memory(&made(&[section], CLEAN));
        let error = refused(&storage, false);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn a_cluster_that_is_one_of_the_extension_gets_a_place_of_its_own() {
    for (entry, cluster) in [(64, 4_u32), (72, 5)] {
        let mut bytes = made(&[bitmap(0, 5)], CLEAN);
        bytes[entry..entry + 4].copy_from_slice(&cluster.to_le_bytes());
        let storage = memory(&bytes);
        let before = guest(&storage);
        let report = checked(&storage, RepairMode::All);
        assert_eq!((report.corruptions_fixed, report.corruptions), (1, 0));
        assert!(guest(&storage) == before);
        let now = all(&storage);
        assert_eq!((word(&now, 44), word(&now, 56)), (CLEAN, 4 * 128));
        assert!(now[4 * CLUSTER..6 * CLUSTER] == bytes[4 * CLUSTER..]);
    }
}

/// The same disk with a table that counts sectors; the clusters begin behind the table.
fn older() -> Vec<u8> {
    let mut bytes = made(&[], CLEAN);
    bytes.truncate(4 * CLUSTER);
    bytes[..16].copy_from_slice(b"WithoutFreeSpace");
    // Only the lower half of the size counts.
    bytes[40] = 1;
    bytes[48..64].fill(0);
    let mut moved = bytes[..512].to_vec();
    moved.extend(&bytes[CLUSTER..]);
    for number in 0..3 {
        let sector = 1 + 128 * number as u32;
        moved[64 + 4 * number..][..4].copy_from_slice(&sector.to_le_bytes());
    }
    moved
}

#[test]
fn tables_of_sectors_are_read_written_and_grown() {
    let storage = memory(&older());
    assert_eq!(guest(&storage).len(), 1 << 20);
    assert_eq!(guest(&storage)[2 * CLUSTER..][..2], [3, 3]);
    peer_agrees(&storage);
    write(&storage, &[9; 70_000], 500_000);
    peer_agrees(&storage);
    // The table has no room in front of the clusters any more.
    let before = guest(&storage);
    let image = open(&storage, true).expect("it opens");
    image
        .resize(64 << 20, Preallocation::Off)
        .expect("a resize");
    image.close().expect("a close");
    let now = guest(&storage);
    assert!(now[..1 << 20] == before && now[1 << 20..].iter().all(|byte| *byte == 0));
    assert_eq!(checked(&storage, RepairMode::Report).corruptions, 0);
    peer_agrees(&storage);
}

/// A disk whose header has the clusters begin at that sector, but whose table names some in front of it.
fn with_start(bytes: &[u8], start: u32, in_use: u32) -> Arc<dyn Storage> {
    let mut bytes = bytes.to_vec();
    bytes[44..48].copy_from_slice(&in_use.to_le_bytes());
    bytes[48..52].copy_from_slice(&start.to_le_bytes());
    memory(&bytes)
}

#[test]
fn clusters_in_front_of_the_start_that_the_header_says_are_clusters() {
    let mut newer = made(&[], CLEAN);
    newer[56] = 0;
    newer[57] = 0;
    newer.truncate(4 * CLUSTER);
    for (bytes, starts) in [
        // Within the clusters, at the end of the file, in the middle of a cluster, behind the end.
        (&newer, [256, 384, 512, 257, 4096]),
        (&older(), [129, 257, 385, 200, 4096]),
    ] {
        let before = guest(&memory(bytes));
        for start in starts {
            let wrong = |in_use| with_start(bytes, start, in_use);
            let is = |storage: &Arc<dyn Storage>, text: &str| {
                assert!(guest(storage)[..1 << 20] == before, "{start}: {text}");
            };
            let storage = wrong(CLEAN);
            is(&storage, "read");
            let found = checked(&storage, RepairMode::Report);
            assert_eq!(
                (found.corruptions, found.leaks),
                (1, 0),
                "{start}: {found:?}"
            );
            let found = checked(&storage, RepairMode::All);
            assert_eq!(
                (found.corruptions, found.corruptions_fixed),
                (0, 1),
                "{start}"
            );
            is(&storage, "repaired");
            assert_eq!(
                checked(&storage, RepairMode::Report).corruptions,
                0,
                "{start}"
            );
            peer_agrees(&storage);
            // Made whole by whoever opens it to write, and not closed since.
            let storage = wrong(OPEN);
            write(&storage, &before[900_000..900_512], 900_000);
            is(&storage, "written");
            peer_agrees(&storage);
            // The table grows over what the header gives it, where clusters stand.
            for size in [3 << 20, 4 << 30, 40 << 30] {
                let storage = wrong(CLEAN);
                let image = open(&storage, true).expect("it opens");
                image.resize(size, Preallocation::Off).expect("a resize");
                image.write_at(&before[..512], 0).expect("a write");
                image.close().expect("a close");
                let image = open(&storage, false).expect("it opens");
                let mut now = vec![0; 1 << 20];
                image.read_at(&mut now, 0).expect("a read");
                assert!(now == before, "{start}: grown to {size}");
            }
            let storage = wrong(CLEAN);
            let image = open(&storage, true).expect("it opens");
            image
                .resize(128 << 10, Preallocation::Off)
                .expect("a resize");
            image.close().expect("a close");
            assert!(guest(&storage) == before[..128 << 10], "{start}: shrunk");
        }
    }
}

#[test]
fn what_is_packed_stays_behind_the_start_that_the_header_says() {
    // Room for seven clusters between the table and what the header says, as after a larger table.
    let mut bytes = made(&[], CLEAN);
    bytes[56..64].fill(0);
    bytes.truncate(4 * CLUSTER);
    let first = 8 * CLUSTER;
    bytes.splice(CLUSTER..CLUSTER, vec![0; first - CLUSTER]);
    bytes[48..52].copy_from_slice(&(first as u32 / 512).to_le_bytes());
    for entry in bytes[64..64 + 4 * 16].chunks_mut(4) {
        let moved = match u32::from_le_bytes(entry.try_into().expect("four bytes")) {
            0 => 0,
            cluster => cluster + 7,
        };
        entry.copy_from_slice(&moved.to_le_bytes());
    }
    let storage = memory(&bytes);
    assert_eq!(checked(&storage, RepairMode::Report).corruptions, 0);
    let before = guest(&storage);
    let step = CLUSTER as u64;
    // The last size has no cluster left that was written.
    for size in [12 * step, 4 << 30, 3 * step, 40 << 30, step, 2 * step] {
        let image = open(&storage, true).expect("it opens");
        image.resize(size, Preallocation::Off).expect("a resize");
        image.close().expect("a close");
        let found = checked(&storage, RepairMode::Report);
        assert_eq!(
            (found.corruptions, found.leaks),
            (0, 0),
            "{size}: {found:?}"
        );
        if size < 1 << 30 {
            peer_agrees(&storage);
        }
        let image = open(&storage, false).expect("it opens");
        let mut now = vec![0; CLUSTER];
        image.read_at(&mut now, 0).expect("a read");
        assert!(now == before[..CLUSTER], "{size}");
    }
}

#[test]
fn a_disk_does_not_grow_over_clusters_behind_its_end() {
    let mut bytes = made(&[], CLEAN);
    // The disk ends within the second cluster, the table with the third.
    bytes[36..44].copy_from_slice(&129_u64.to_le_bytes());
    bytes[56..64].fill(0);
    bytes.truncate(4 * CLUSTER);
    let storage = memory(&bytes);
    let image = open(&storage, true).expect("it opens");
    let error = image
        .resize(1 << 20, Preallocation::Off)
        .expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    image.close().expect("a close");
    assert!(all(&storage) == bytes);
}

#[test]
fn a_disk_of_another_product_reads_as_qemu_reads_it() {
    let dir = Dir::new();
    unpack_bzip2(&dir, "parallels-v1");
    let storage = memory(&std::fs::read(dir.path("parallels-v1")).expect("an image"));
    peer_agrees(&storage);
    write(&storage, &[9; 70_000], 1 << 20);
    peer_agrees(&storage);
}

#[test]
fn what_is_left_of_a_cluster_that_was_cut_off_is_kept() {
    let mut bytes = made(&[], CLEAN);
    bytes[56] = 0;
    bytes[57] = 0;
    bytes.truncate(3 * CLUSTER + 1024);
    let storage = memory(&bytes);
    let report = checked(&storage, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (1, 0));
    let report = checked(&storage, RepairMode::All);
    assert_eq!((report.corruptions_fixed, report.corruptions), (1, 0));
    let now = guest(&storage);
    assert_eq!(now[2 * CLUSTER..][1020..1028], [3, 3, 3, 3, 0, 0, 0, 0]);
    peer_agrees(&storage);
}

#[test]
fn an_image_that_was_not_closed_is_made_whole_when_it_is_opened_for_writing() {
    let mut bytes = made(&[], OPEN);
    // No cluster stands there; the second stands where the first does.
    bytes[64 + 28..][..4].copy_from_slice(&99_u32.to_le_bytes());
    bytes[68..72].copy_from_slice(&1_u32.to_le_bytes());
    let storage = memory(&bytes);
    let image = open(&storage, true).expect("it opens");
    assert_eq!(image.warnings().len(), 1, "{:?}", image.warnings());
    image.close().expect("a close");
    assert_eq!(word(&all(&storage), 44), CLEAN);
    let now = guest(&storage);
    assert_eq!((now[0], now[CLUSTER], now[7 * CLUSTER]), (1, 1, 0));
    assert_eq!(checked(&storage, RepairMode::Report).corruptions, 0);
}

#[test]
fn space_is_taken_ahead_where_that_is_asked_for_and_goes_back() {
    let dir = Dir::new();
    for mode in ["falloc", "truncate"] {
        dir.qemu_img_ok(&["create", "-q", "-f", "parallels", "a.hdd", "8M"]);
        let name = dir.str("a.hdd");
        let name =
            format!("driver=parallels,prealloc-mode={mode},prealloc-size=4M,file.filename={name}");
        let location = Location::from_image_opts(&name).expect("a location");
        let open = OpenOptions {
            format: None,
            ..options(true, false)
        };
        let image = Image::open(&location, &open).expect("it opens");
        image.write_at(&[7; 512], 0).expect("a write");
        let len = || std::fs::metadata(dir.path("a.hdd")).expect("a file").len();
        assert_eq!(len(), 6 << 20, "{mode}");
        image.close().expect("a close");
        assert_eq!(len(), 2 << 20, "{mode}");
        dir.qemu_img_ok(&["check", "a.hdd"]);
    }
    let name = format!(
        "driver=parallels,prealloc-mode=other,file.filename={}",
        dir.str("a.hdd")
    );
    let location = Location::from_image_opts(&name).expect("a location");
    let open = OpenOptions {
        format: None,
        ..options(false, false)
    };
    let error = Image::open(&location, &open).expect_err("an unknown word");
    assert!(
        error
            .to_string()
            .ends_with("invalid parameter value: other"),
        "{error}"
    );
}
