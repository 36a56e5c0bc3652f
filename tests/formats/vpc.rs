//! VHD: which size counts, footers that are lost, disks of other products, damage.

use std::sync::{Arc, Mutex};

use crate::common::Dir;
use crate::random::Random;
use crate::states;
use platter::format::{CheckReport, NewParent, RepairMode};
use platter::job::Message;
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::inspect::inspect_storage;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::Log;
use platter::storage::{Durability, Preallocation, Storage};
use platter::{Error, ErrorKind, Image, Job, OpenOptions, OpenPolicy};

fn options(writable: bool) -> OpenOptions {
    OpenOptions {
        format: Some("vpc".to_owned()),
        writable,
        for_check: writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(storage: &Arc<dyn Storage>, writable: bool) -> Result<Image, Error> {
    Image::open_storage(storage.clone(), &options(writable))
}

fn memory(bytes: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::with_bytes("image.vhd", bytes.to_vec()))
}

fn bytes_of(storage: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; storage.len().expect("a length") as usize];
    storage.read_at(&mut bytes, 0).expect("a read");
    bytes
}

fn read(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

/// One check: the report and the lines.
fn check(image: &Image, mode: RepairMode) -> (CheckReport, Vec<String>) {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        let (Message::Note(line) | Message::Warning(line)) = message;
        sink.lock().unwrap().push(line.to_owned());
    }));
    let checker = image.format().checker().expect("a check");
    let report = checker.check(mode, &mut job).expect("a check");
    drop(job);
    let lines = lines.lock().unwrap().clone();
    (report, lines)
}

fn clean(image: &Image) {
    let (report, lines) = check(image, RepairMode::Report);
    assert_eq!(report, CheckReport::default(), "{lines:?}");
}

/// What QEMU's tool makes of these options, with blocks 0 and 2 of four in use; and what the guest sees.
fn made(options: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "vpc", "-o", options, "a.vhd", "7M"]);
    dir.qemu_io("vpc", "a.vhd", &["write -P 3 4M 64k", "write -P 1 0 1M"]);
    dir.qemu_img_ok(&["convert", "-f", "vpc", "-O", "raw", "a.vhd", "a.raw"]);
    (
        std::fs::read(dir.path("a.vhd")).expect("the image"),
        std::fs::read(dir.path("a.raw")).expect("the disk"),
    )
}

/// Lets the checksum at `sum` fit `bytes`.
fn fix(bytes: &mut [u8], sum: usize) {
    bytes[sum..sum + 4].fill(0);
    let total: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[sum..sum + 4].copy_from_slice(&(!total).to_be_bytes());
}

#[test]
fn either_footer_will_do_and_the_first_write_makes_both_whole() {
    let (whole, model) = made("force_size=on");
    let end = whole.len() - 512;
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let of_a_fixed_disk: Damage<'_> = &|bytes| {
        bytes[0x3f] = 2;
        fix(&mut bytes[..512], 0x40);
    };
    let cases: [Damage<'_>; 5] = [
        of_a_fixed_disk,
        &|bytes| bytes[0x50] ^= 1,
        &|bytes| bytes[..512].fill(0),
        &|bytes| bytes[end + 0x50] ^= 1,
        &|bytes| bytes.truncate(end),
    ];
    for (n, damage) in cases.iter().enumerate() {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        let storage = memory(&bytes);
        let image = open(&storage, false).expect("it opens");
        assert_eq!(read(&image), model, "{n}");
        drop(image);
        let image = open(&storage, true).expect("it opens");
        let (report, _) = check(&image, RepairMode::Report);
        let expected = if n < 3 { (1, 0) } else { (0, 1) };
        assert_eq!((report.corruptions, report.leaks), expected, "{n}");
        image.write_at(&[1; 512], 0).expect("a write");
        image.close().expect("a close");
        let now = bytes_of(&storage);
        assert_eq!(now[..512], now[now.len() - 512..], "{n}");
        assert_eq!(now.len(), whole.len(), "{n}");
        let image = open(&storage, true).expect("it opens again");
        clean(&image);
        assert_eq!(read(&image), model);
    }
    let mut bytes = whole.clone();
    of_a_fixed_disk(&mut bytes);
    bytes[end + 0x50] ^= 1;
    let refused = open(&memory(&bytes), false).expect_err("a refusal");
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let mut bytes = whole.clone();
    bytes[0x50] ^= 1;
    bytes[end + 0x50] ^= 1;
    let refused = open(&memory(&bytes), false).expect_err("a refusal");
    assert!(
        refused.to_string().ends_with("Incorrect header checksum"),
        "{refused}"
    );
}

#[test]
fn the_size_counts_that_the_program_meant() {
    let (whole, _) = made("force_size=on");
    let size_of = |creator: &[u8], cylinders: u16, options: &OpenOptions| {
        let mut bytes = whole.clone();
        bytes[0x1c..0x20].copy_from_slice(creator);
        bytes[0x38..0x3c].copy_from_slice(&[0, cylinders as u8, 4, 17]);
        let last = bytes.len() - 512;
        let mut footer = bytes[..512].to_vec();
        fix(&mut footer, 0x40);
        bytes[..512].copy_from_slice(&footer);
        bytes[last..].copy_from_slice(&footer);
        Image::open_storage(memory(&bytes), options)
            .expect("it opens")
            .len()
    };
    let plain = options(false);
    let by_geometry = 100 * 4 * 17 * 512;
    for creator in [b"vpc ", b"qemu"] {
        assert_eq!(size_of(creator, 100, &plain), by_geometry);
        // A geometry without cylinders says nothing.
        assert_eq!(size_of(creator, 0, &plain), 7 << 20);
    }
    for creator in [
        b"win ", b"qem2", b"d2v\0", b"tap\0", b"vbox", b"????", b"plat",
    ] {
        assert_eq!(size_of(creator, 100, &plain), 7 << 20);
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let (whole, _) = made("force_size=on");
    let cases: &[(usize, &[u8], &str)] = &[
        (0xd, &[2], "Unsupported VPC image (version 2.0)"),
        (0x3f, &[6], "Unsupported VPC image (disk type 6)"),
        (0x17, &[7], "Invalid header magic"),
        (0x220, &[0, 0x30, 0, 0], "Invalid block size 3145728"),
        (0x220, &[0; 4], "Invalid block size 0"),
        (0x21c, &[0, 0, 0, 1], "Page table too small"),
        (
            0x21c,
            &[0x40, 0, 0, 0],
            "Max Table Entries too large (1073741824)",
        ),
        (0x210, &[1], "The file ends within the table of blocks"),
        (0x216, &[2], "The table of blocks overlaps the headers"),
        (0x200, b"x", "Invalid header magic"),
    ];
    for (at, patch, line) in cases {
        let mut bytes = whole.clone();
        bytes[*at..at + patch.len()].copy_from_slice(patch);
        if *at < 512 {
            fix(&mut bytes[..512], 0x40);
        } else {
            fix(&mut bytes[512..1536], 0x24);
        }
        // The other footer must not stand in for this one.
        let end = bytes.len() - 512;
        bytes[end..].fill(0);
        let error = open(&memory(&bytes), false).expect_err("a refusal");
        assert!(error.to_string().ends_with(line), "{error}");
    }
    let error = open(&memory(&[0; 4096]), false).expect_err("a refusal");
    assert!(error.to_string().ends_with("invalid VPC image"), "{error}");
}

#[test]
fn disks_grow_and_shrink_without_gaps() {
    for options in ["force_size=on", "subformat=fixed,force_size=on"] {
        let (whole, mut model) = made(options);
        let storage = memory(&whole);
        let image = open(&storage, true).expect("it opens");
        let resize = |len: u64| {
            let resizer = image.format().resizer().expect("a resizer");
            resizer
                .resize(len, Preallocation::Off)
                .expect("another size");
        };
        for len in [
            9 << 20,
            5_000_192,
            5_000_704,
            70 << 20,
            1 << 20,
            512,
            3 << 20,
        ] {
            resize(len as u64);
            model.resize(len, 0);
            assert!(read(&image) == model, "{options}: {len}");
            let at = len / 3;
            image.write_at(&[7; 100], at as u64).expect("a write");
            model[at..at + 100].fill(7);
        }
        image.close().expect("a close");
        let bytes = bytes_of(&storage);
        let dir = Dir::new();
        std::fs::write(dir.path("a.vhd"), bytes).expect("a file");
        dir.qemu_img_ok(&["convert", "-f", "vpc", "-O", "raw", "a.vhd", "a.raw"]);
        let theirs = std::fs::read(dir.path("a.raw")).expect("the disk");
        assert!(theirs == model, "{options}");
        let image = open(&storage, true).expect("it opens again");
        assert!(read(&image) == model);
        if image.format().checker().is_some() {
            clean(&image);
        }
    }
}

/// The entries of the table, in a disk that QEMU's tool made.
const TABLE: usize = 1536;

#[test]
fn repair_gives_each_block_a_place_of_its_own() {
    let (whole, model) = made("force_size=on");
    let entry = |bytes: &[u8], n: usize| {
        let at = TABLE + n * 4;
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    let set = |bytes: &mut Vec<u8>, n: usize, word: u32| {
        bytes[TABLE + n * 4..TABLE + n * 4 + 4].copy_from_slice(&word.to_be_bytes());
    };
    let block = 2 << 20;
    let twice = |bytes: &mut Vec<u8>, model: &mut Vec<u8>| {
        let word = entry(bytes, 0);
        set(bytes, 1, word);
        model.copy_within(0..block, block);
    };
    let outside = |bytes: &mut Vec<u8>, _: &mut Vec<u8>| set(bytes, 1, 1 << 20);
    let headers = |bytes: &mut Vec<u8>, _: &mut Vec<u8>| set(bytes, 1, 1);
    let unused = |bytes: &mut Vec<u8>, model: &mut Vec<u8>| {
        set(bytes, 2, u32::MAX);
        model[2 * block..3 * block].fill(0);
    };
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>, &mut Vec<u8>);
    let cases: [(Damage<'_>, (u64, u64)); 4] = [
        (&twice, (1, 0)),
        (&outside, (1, 0)),
        (&headers, (1, 0)),
        (&unused, (0, 1)),
    ];
    for (n, (damage, counts)) in cases.into_iter().enumerate() {
        let (mut bytes, mut model) = (whole.clone(), model.clone());
        damage(&mut bytes, &mut model);
        let storage = memory(&bytes);
        let image = open(&storage, true).expect("it opens");
        let (report, lines) = check(&image, RepairMode::Report);
        assert_eq!((report.corruptions, report.leaks), counts, "{n}: {lines:?}");
        let (report, _) = check(&image, RepairMode::All);
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{n}");
        clean(&image);
        assert!(read(&image) == model, "{n}");
        image.close().expect("a close");
        let again = open(&storage, true).expect("it opens again");
        clean(&again);
        assert!(read(&again) == model, "{n}");
    }
}

#[test]
fn the_footer_of_a_fixed_disk_is_checked_and_repaired() {
    let (whole, model) = made("subformat=fixed,force_size=on");
    let end = whole.len() - 512;
    clean(&open(&memory(&whole), true).expect("it opens"));
    clean(&open(&memory(&whole[..end + 511]), true).expect("it opens"));
    // Not the field that says what kind of disk it is, nor those that say how large.
    for at in [0x20, 0x40, 0x43, 0x50] {
        let mut bytes = whole.clone();
        bytes[end + at] ^= 1;
        let storage = memory(&bytes);
        let refused = open(&storage, false).expect_err("a refusal");
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        let image = open(&storage, true).expect("it opens for a check");
        for (mode, left) in [
            (RepairMode::Report, 1),
            (RepairMode::Leaks, 1),
            (RepairMode::All, 0),
        ] {
            let (report, lines) = check(&image, mode);
            assert_eq!((report.corruptions, report.leaks), (left, 0), "{lines:?}");
            assert!(!lines.is_empty());
        }
        clean(&image);
        image.close().expect("a close");
        let found = bytes_of(&storage);
        assert!(found[..end] == whole[..end]);
        assert_eq!(found == whole, (0x40..0x44).contains(&at));
        assert!(read(&open(&storage, false).expect("it opens again")) == model);
    }
    // The disk would end elsewhere: that is no matter of the checksum.
    for at in [0x35, 0x3f] {
        let mut bytes = whole.clone();
        bytes[end + at] ^= 1;
        open(&memory(&bytes), true).expect_err("a refusal");
    }
}

#[test]
fn what_stands_between_a_fixed_disk_and_its_footer_is_given_up() {
    let (whole, model) = made("subformat=fixed,force_size=on");
    let end = whole.len() - 512;
    // As an interrupted growth leaves it.
    let mut longer = whole.clone();
    longer.resize(whole.len() + (1 << 20), 0);
    longer.extend_from_slice(&whole[end..]);
    let log = Log::new();
    let file: Arc<dyn Storage> = log.file("image.vhd".to_owned(), longer);
    let image = Image::open_storage(file, &options(true)).expect("it opens");
    let (report, lines) = check(&image, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (0, 1), "{lines:?}");
    let (report, _) = check(&image, RepairMode::Leaks);
    assert_eq!((report.leaks, report.leaks_fixed), (0, 1));
    clean(&image);
    image.close().expect("a close");
    let mut random = Random(0x6a9);
    let mut seen = 0;
    states::each(&log, Durability::Synced, &mut random, 1, |crash| {
        let file = &crash.files[0];
        let image = open(&memory(file), true).expect("it opens");
        assert!(read(&image) == model, "{} of {}", crash.what, crash.count);
        if crash.count == log.count() {
            assert!(*file == whole);
        }
        seen += 1;
    });
    assert!(seen > 2, "{seen}");
    // A disk that is larger by its geometry has its end there.
    let (mut bytes, _) = made("subformat=fixed");
    let end = bytes.len() - 512;
    let shorter = (end as u64 - 512).to_be_bytes();
    bytes[end + 0x30..end + 0x38].copy_from_slice(&shorter);
    fix(&mut bytes[end..], 0x40);
    clean(&open(&memory(&bytes), true).expect("it opens"));
}

#[test]
fn data_between_a_fixed_disk_and_its_footer_is_not_cut_off() {
    let (mut bytes, _) = made("subformat=fixed,force_size=on");
    let end = bytes.len() - 512;
    // The disk was 1 MiB longer, and its footer says too little.
    let footer = bytes[end..].to_vec();
    bytes.truncate(end);
    bytes.resize(end + (1 << 20), 0);
    bytes[end + 700_000] = 1;
    bytes.extend_from_slice(&footer);
    let storage = memory(&bytes);
    let image = open(&storage, true).expect("it opens");
    for mode in [RepairMode::Report, RepairMode::Leaks, RepairMode::All] {
        let (report, lines) = check(&image, mode);
        assert_eq!((report.leaks, report.leaks_fixed), (1, 0), "{lines:?}");
        assert!(lines[0].contains("there is data in it"), "{lines:?}");
    }
    for len in [512, end as u64 + 512, 2 << 20, 8 << 20] {
        let error = image
            .resize(len, Preallocation::Off)
            .expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    drop(image);
    assert!(bytes_of(&storage) == bytes);
}

/// Guest data that the shrink gave up stands between the disk and its footer then.
#[test]
fn a_shrink_that_a_power_cut_ends_leaves_nothing_that_a_repair_does_not_give_back() {
    let (mut whole, model) = made("subformat=fixed,force_size=on");
    let end = whole.len() - 512;
    whole[end - 4096..end].fill(9);
    let len = 1 << 20;
    let log = Log::new();
    let file: Arc<dyn Storage> = log.file("image.vhd".to_owned(), whole.clone());
    let image = Image::open_storage(file, &options(true)).expect("it opens");
    image.resize(len, Preallocation::Off).expect("a shrink");
    image.close().expect("a close");
    let mut random = Random(0x51a);
    let mut leaks = 0;
    states::each(&log, Durability::Synced, &mut random, 1, |crash| {
        let storage = memory(&crash.files[0]);
        let image = open(&storage, true).expect("it opens");
        let now = image.len();
        assert!(now == len || now == end as u64, "{now}");
        let (report, lines) = check(&image, RepairMode::Leaks);
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{lines:?}");
        leaks += report.leaks_fixed;
        image.close().expect("a close");
        let bytes = bytes_of(&storage);
        assert_eq!(bytes.len() as u64, now + 512);
        assert!(bytes[..len as usize] == model[..len as usize]);
        // What says that a shrink was under way is gone.
        assert!(now > len || bytes[len as usize + 0x55..].iter().all(|byte| *byte == 0));
    });
    assert!(leaks > 0);
}

/// The file gets longer, and the footer at its end is in the middle then: it was the only good one.
#[test]
fn a_repair_of_a_disk_that_was_cut_off_leaves_a_footer_at_any_instant() {
    let (whole, model) = made("force_size=on");
    let end = whole.len() - 512;
    let mut bytes = whole[..end - (1 << 20)].to_vec();
    bytes.extend(&whole[end..]);
    bytes[..512].fill(0);
    let log = Log::new();
    let file: Arc<dyn Storage> = log.file("image.vhd".to_owned(), bytes);
    let image = open(&file, true).expect("it opens");
    let (report, lines) = check(&image, RepairMode::All);
    assert_eq!(report.corruptions, 0, "{lines:?}");
    assert!(report.corruptions_fixed > 1, "{lines:?}");
    image.close().expect("a close");
    let mut random = Random(0xf007);
    let mut seen = 0;
    states::each(&log, Durability::Synced, &mut random, 2, |crash| {
        seen += 1;
        let at = format!("{} of {}", crash.what, crash.count);
        let storage = memory(&crash.files[0]);
        let image = open(&storage, true).unwrap_or_else(|error| panic!("{at}: {error}"));
        let (report, lines) = check(&image, RepairMode::All);
        assert_eq!(report.corruptions, 0, "{at}: {lines:?}");
        let mut seen = read(&image);
        // The footer that stood where the rest of the block is to be is a part of it now.
        seen[1 << 20..(1 << 20) + 512].fill(0);
        assert!(seen == model, "{at}");
    });
    assert!(seen > 5, "only {seen} states");
}

#[test]
fn a_disk_of_two_sizes_does_not_grow_over_data_behind_the_smaller_one() {
    for subformat in ["fixed", "dynamic"] {
        let (mut bytes, _) = made(&format!("subformat={subformat}"));
        let end = bytes.len() - 512;
        // One cylinder less: by the other number there is more of the disk.
        let footers = match subformat {
            "fixed" => vec![end],
            _ => vec![0, end],
        };
        for at in footers {
            bytes[at + 0x39] -= 1;
            fix(&mut bytes[at..at + 512], 0x40);
        }
        let storage = memory(&bytes);
        let more = OpenOptions {
            driver_options: platter::Options::parse("force_size_calc=current_size")
                .expect("an option"),
            ..options(true)
        };
        let image = Image::open_storage(storage.clone(), &more).expect("it opens");
        let whole = image.len();
        image.write_at(&[7; 512], whole - 512).expect("a write");
        image.close().expect("a close");
        let before = bytes_of(&storage);
        let image = open(&storage, true).expect("it opens");
        assert!(image.len() < whole, "{subformat}");
        for len in [whole, 16 << 20] {
            let error = image
                .resize(len, Preallocation::Off)
                .expect_err("a refusal");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(&whole.to_string()), "{error}");
        }
        drop(image);
        if subformat == "fixed" {
            assert!(bytes_of(&storage) == before);
        }
        // Opened by the size that is right there is nothing behind, and zeroes are no data.
        let image = Image::open_storage(storage.clone(), &more).expect("it opens");
        image.write_at(&[0; 512], whole - 512).expect("a write");
        image.close().expect("a close");
        let image = open(&storage, true).expect("it opens");
        image
            .resize(16 << 20, Preallocation::Off)
            .expect("it grows");
        assert_eq!(image.len(), 16 << 20);
        clean(&image);
    }
}

#[test]
fn data_stands_where_storage_likes_it_and_bitmaps_say_that_it_is_there() {
    let dir = Dir::new();
    let location = platter::Location::from_path(dir.path("a.vhd"));
    let request = platter::ops::create::CreateRequest {
        location: location.clone(),
        format: "vpc".to_owned(),
        size: Some(10 << 20),
        options: platter::Options::new(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: platter::object::Objects::new(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    platter::ops::create::CreatePlan::new(request, &mut job)
        .and_then(|plan| plan.run(&mut job))
        .expect("a new image");
    let image = Image::open(&location, &options(true)).expect("it opens");
    image.write_at(&[9; 512], 5 << 20).expect("a write");
    image.write_at(&[9; 512], 0).expect("a write");
    image.close().expect("a close");
    let bytes = std::fs::read(dir.path("a.vhd")).expect("the image");
    let mut blocks = 0;
    for entry in bytes[TABLE..TABLE + 24].chunks_exact(4) {
        let word = u32::from_be_bytes(entry.try_into().expect("four bytes"));
        if word != u32::MAX {
            let at = word as usize * 512;
            assert_eq!(bytes[at..at + 512], [0xff; 512]);
            assert_eq!((at + 512) % 4096, 0);
            blocks += 1;
        }
    }
    assert_eq!(blocks, 2);
    assert_eq!(bytes[..512], bytes[bytes.len() - 512..]);
}

fn create(dir: &Dir, name: &str, size: Option<u64>, backing: Option<&str>) -> Result<(), Error> {
    let request = platter::ops::create::CreateRequest {
        location: platter::Location::from_path(dir.path(name)),
        format: "vpc".to_owned(),
        size,
        options: platter::Options::new(),
        backing_file: backing.map(Into::into),
        backing_format: backing.map(|_| "vpc".to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: platter::object::Objects::new(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    platter::ops::create::CreatePlan::new(request, &mut job)?.run(&mut job)
}

fn open_path(dir: &Dir, name: &str, writable: bool) -> Result<Image, Error> {
    let location = platter::Location::from_path(dir.path(name));
    Image::open(&location, &options(writable))
}

#[test]
fn a_chain_of_differencing_disks_is_made_read_and_written() {
    let dir = Dir::new();
    create(&dir, "base.vhd", Some(5 << 20), None).expect("a base");
    let base = open_path(&dir, "base.vhd", true).expect("it opens");
    let mut model = vec![0; base.len() as usize];
    let write = |image: &Image, model: &mut Vec<u8>, at: usize, len: usize, byte: u8| {
        image
            .write_at(&vec![byte; len], at as u64)
            .expect("a write");
        model[at..at + len].fill(byte);
    };
    write(&base, &mut model, 1_000_000, 2_000_000, 1);
    base.close().expect("a close");
    for (n, name) in ["a b.vhd", "d\u{e9}.vhd"].iter().enumerate() {
        let parent = ["base.vhd", "a b.vhd"][n];
        create(&dir, name, None, Some(parent)).expect("a child");
        let image = open_path(&dir, name, true).expect("it opens");
        assert!(read(&image) == model);
        // Within sectors, over the border of blocks, and what is there already.
        write(&image, &mut model, 1_000_100, 300, 3 + n as u8);
        write(&image, &mut model, (2 << 20) - 700, 1500, 5 + n as u8);
        write(&image, &mut model, 4_500_000 + n * 512, 1024, 7 + n as u8);
        let flags = platter::storage::ZeroFlags::MAY_UNMAP;
        image
            .write_zeroes(1_200_007, 500_000, flags)
            .expect("zeroes");
        model[1_200_007..1_700_007].fill(0);
        assert!(read(&image) == model);
        image.close().expect("a close");
        let image = open_path(&dir, name, true).expect("it opens again");
        assert!(read(&image) == model);
        clean(&image);
    }
    // Another disk in the place of the parent is refused.
    std::fs::rename(dir.path("a b.vhd"), dir.path("kept")).expect("another name");
    create(&dir, "a b.vhd", None, Some("base.vhd")).expect("another child");
    let error = open_path(&dir, "d\u{e9}.vhd", false).expect_err("a refusal");
    assert!(
        error
            .to_string()
            .contains("is not the parent that was recorded"),
        "{error}"
    );
    std::fs::rename(dir.path("kept"), dir.path("a b.vhd")).expect("the old name");
    let image = open_path(&dir, "d\u{e9}.vhd", true).expect("it opens");
    // A name that the parent gets later.
    std::fs::copy(dir.path("a b.vhd"), dir.path("moved.vhd")).expect("a copy");
    let changer = image.format().backing_change().expect("it has a parent");
    let named = platter::format::BackingRef {
        name: "moved.vhd".into(),
        format: Some("vpc".into()),
    };
    let parent = image.backing().expect("the parent").format();
    let parent = NewParent {
        id: parent.parent_id(),
        ..NewParent::default()
    };
    changer
        .set_backing(Some(&named), Some(&parent))
        .expect("another name");
    image.close().expect("a close");
    std::fs::remove_file(dir.path("a b.vhd")).expect("the old parent");
    let image = open_path(&dir, "d\u{e9}.vhd", true).expect("it opens");
    assert!(read(&image) == model);
    clean(&image);
    let changer = image.format().backing_change().expect("it has a parent");
    changer.make_empty().expect("an empty disk");
    let parent = image.backing().expect("the parent");
    assert!(read(&image) == read(parent));
    // The names that came later stand where blocks were before them.
    let (report, lines) = check(&image, RepairMode::Report);
    assert_eq!(report.corruptions, 0, "{lines:?}");
}

/// When the parent was changed, as a child records it.
fn parent_time(dir: &Dir, name: &str) -> u32 {
    let file = std::fs::read(dir.path(name)).expect("a disk");
    let header = u64::from_be_bytes(file[0x10..0x18].try_into().expect("eight bytes")) as usize;
    let at = header + 0x38;
    u32::from_be_bytes(file[at..at + 4].try_into().expect("four bytes"))
}

/// When a file was last changed, in seconds since the year 2000.
fn changed(dir: &Dir, name: &str) -> u32 {
    let changed = std::fs::metadata(dir.path(name)).and_then(|file| file.modified());
    let unix = changed
        .expect("a time")
        .duration_since(std::time::UNIX_EPOCH);
    (unix.expect("a year after 1970").as_secs() - 946_684_800) as u32
}

/// Makes a file one that was last changed then.
fn set_changed(dir: &Dir, name: &str, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(946_684_800 + seconds);
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path(name))
        .expect("a file");
    file.set_modified(time).expect("another time");
}

#[test]
fn a_child_records_when_its_parent_was_changed() {
    let dir = Dir::new();
    for (name, seconds) in [("base.vhd", 77), ("other.vhd", 800_000_000)] {
        create(&dir, name, Some(5 << 20), None).expect("a base");
        set_changed(&dir, name, seconds);
    }
    assert_eq!(parent_time(&dir, "base.vhd"), 0);
    create(&dir, "child.vhd", None, Some("base.vhd")).expect("a child");
    assert_eq!(parent_time(&dir, "child.vhd"), 77);

    // Whatever happens to the time of the parent, its UUID counts.
    set_changed(&dir, "base.vhd", 99);
    let image = open_path(&dir, "child.vhd", true).expect("it opens");
    assert!(image.warnings().is_empty());
    image.write_at(&[5; 700], 900).expect("a write");
    clean(&image);
    image.close().expect("a close");
    assert_eq!(parent_time(&dir, "child.vhd"), 77);

    // A parent that is not there is the recorded one under another name.
    rebase(&dir, "child.vhd", Some("gone.vhd"), true).expect("another name");
    assert_eq!(parent_time(&dir, "child.vhd"), 77);
    rebase(&dir, "child.vhd", Some("base.vhd"), true).expect("another name");
    assert_eq!(parent_time(&dir, "child.vhd"), 99);
    rebase(&dir, "child.vhd", Some("other.vhd"), false).expect("another parent");
    assert_eq!(parent_time(&dir, "child.vhd"), 800_000_000);
    rebase(&dir, "child.vhd", None, false).expect("no parent");
    assert_eq!(parent_time(&dir, "child.vhd"), 0);
    rebase(&dir, "child.vhd", Some("base.vhd"), false).expect("a parent");
    assert_eq!(parent_time(&dir, "child.vhd"), 99);

    let location = |name: &str| platter::Location::from_path(dir.path(name));
    let mut request = ConvertRequest::new(location("child.vhd"), location("new.vhd"));
    request.source.options = options(false);
    request.target.format = Some("vpc".to_owned());
    request.target.backing_file = Some("base.vhd".into());
    request.target.backing_format = Some("vpc".to_owned());
    request.target.policy = options(false).policy;
    convert(&request, &mut Job::new()).expect("a conversion over a base");
    assert_eq!(parent_time(&dir, "new.vhd"), 99);

    let request = CommitRequest {
        location: location("child.vhd"),
        options: options(false),
        base: None,
        keep: true,
    };
    let before = read(&open_path(&dir, "child.vhd", false).expect("it opens"));
    commit(&request, &mut Job::new()).expect("a commit");
    assert_ne!(changed(&dir, "base.vhd"), 99);
    assert_eq!(parent_time(&dir, "child.vhd"), changed(&dir, "base.vhd"));
    let image = open_path(&dir, "child.vhd", true).expect("it opens");
    assert!(read(&image) == before);
    clean(&image);
}

fn rebase(dir: &Dir, name: &str, backing: Option<&str>, name_only: bool) -> Result<(), Error> {
    let request = platter::ops::rebase::RebaseRequest {
        location: platter::Location::from_path(dir.path(name)),
        options: options(false),
        backing: backing.map(Into::into),
        backing_format: backing.map(|_| "vpc".to_owned()),
        backing_cache: platter::storage::CacheMode::Writeback,
        share_backing: false,
        name_only,
        compress: false,
    };
    platter::ops::rebase::rebase(&request, &mut Job::new())
}

#[test]
fn a_disk_loses_its_parent_and_gets_another_one() {
    let dir = Dir::new();
    for (name, byte) in [("base.vhd", 1), ("other.vhd", 2)] {
        create(&dir, name, Some(9 << 20), None).expect("a base");
        let base = open_path(&dir, name, true).expect("it opens");
        base.write_at(&vec![byte; 3_000_000], 700_000)
            .expect("a write");
        base.close().expect("a close");
    }
    create(&dir, "a.vhd", None, Some("base.vhd")).expect("a child");
    let image = open_path(&dir, "a.vhd", true).expect("it opens");
    // Blocks of which it has a part, over data and over nothing.
    for at in [1_000_100, 3_500_000, 7_000_000] {
        image.write_at(&[9; 5000], at).expect("a write");
    }
    image.close().expect("a close");
    let model = read(&open_path(&dir, "a.vhd", false).expect("it opens"));
    let shows = |what: &str| {
        let image = open_path(&dir, "a.vhd", true).expect("it opens");
        assert!(read(&image) == model, "{what}");
        let (report, lines) = check(&image, RepairMode::Report);
        assert_eq!(report.corruptions, 0, "{what}: {lines:?}");
        image.backing().is_some()
    };
    rebase(&dir, "a.vhd", None, false).expect("no parent");
    assert!(!shows("without a parent"));
    // For other programs too.
    std::fs::write(dir.path("a.raw"), &model).expect("a file");
    dir.qemu_img_ok(&["compare", "-f", "vpc", "-F", "raw", "a.vhd", "a.raw"]);
    // What is written now counts for programs that look at bitmaps.
    rebase(&dir, "a.vhd", None, false).expect("nothing to do");
    rebase(&dir, "a.vhd", Some("other.vhd"), false).expect("another parent");
    assert!(shows("over another parent"));
    rebase(&dir, "a.vhd", Some("base.vhd"), false).expect("the first parent");
    assert!(shows("over the first parent"));
    // The name alone: what the parent showed is gone, and never more than that.
    rebase(&dir, "a.vhd", None, true).expect("no parent");
    let alone = open_path(&dir, "a.vhd", false).expect("it opens");
    let bytes = read(&alone);
    let mut pairs = bytes.iter().zip(&model);
    assert!(pairs.all(|(here, before)| here == before || *here == 0));
    assert!(bytes[1_000_100..1_005_100].iter().all(|byte| *byte == 9));
    drop(alone);
    rebase(&dir, "a.vhd", Some("base.vhd"), true).expect("the parent");
    assert!(
        open_path(&dir, "a.vhd", false)
            .expect("it opens")
            .backing()
            .is_some()
    );
    let error = rebase(&dir, "a.vhd", Some("a.raw"), false).expect_err("a refusal");
    assert!(!error.to_string().is_empty());
}

#[test]
fn a_parent_that_is_no_vhd_or_is_not_there_is_refused() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain"), vec![0; 1 << 20]).expect("a file");
    let error = create(&dir, "a.vhd", None, Some("plain")).expect_err("a refusal");
    assert!(!dir.path("a.vhd").exists(), "{error}");
    create(&dir, "base.vhd", Some(1 << 20), None).expect("a base");
    create(&dir, "a.vhd", None, Some("base.vhd")).expect("a child");
    std::fs::remove_file(dir.path("base.vhd")).expect("the base");
    assert!(open_path(&dir, "a.vhd", false).is_err());
}

/// Where the first name of the parent is recorded in the header.
const LOCATOR: usize = 512 + 0x240;

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// A disk over a parent, of which the first block is in use as a whole.
fn child(dir: &Dir) -> Vec<u8> {
    create(dir, "base.vhd", Some(5 << 20), None).expect("a base");
    create(dir, "a.vhd", None, Some("base.vhd")).expect("a child");
    let image = open_path(dir, "a.vhd", true).expect("it opens");
    image.write_at(&vec![7; 2 << 20], 0).expect("a write");
    image.close().expect("a close");
    std::fs::read(dir.path("a.vhd")).expect("the image")
}

#[test]
fn a_name_of_the_parent_in_the_place_of_other_metadata_is_refused() {
    let dir = Dir::new();
    let whole = child(&dir);
    let name = number(&whole, LOCATOR + 20) as u32;
    let cases = [
        (512 + 0x14, name, "The table of blocks"),
        (LOCATOR + 20, 0, "The footer"),
        (LOCATOR + 20, 1024, "The header"),
        (LOCATOR + 20, TABLE as u32, "The table of blocks"),
    ];
    for (at, value, what) in cases {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        fix(&mut bytes[512..1536], 0x24);
        std::fs::write(dir.path("a.vhd"), &bytes).expect("a file");
        for writable in [false, true] {
            let error = open_path(&dir, "a.vhd", writable).expect_err("a refusal");
            let line = format!("{what} overlaps a name of the parent");
            assert!(error.to_string().contains(&line), "{error}");
        }
    }
}

#[test]
fn repair_moves_a_block_that_reaches_over_a_name_of_the_parent() {
    let dir = Dir::new();
    let mut bytes = child(&dir);
    let (len, old) = (number(&bytes, LOCATOR + 8), number(&bytes, LOCATOR + 20));
    let place = number(&bytes, TABLE) * 512 + 512 + 8192;
    bytes.copy_within(old..old + len, place);
    bytes[LOCATOR + 20..LOCATOR + 24].copy_from_slice(&(place as u32).to_be_bytes());
    fix(&mut bytes[512..1536], 0x24);
    std::fs::write(dir.path("a.vhd"), &bytes).expect("a file");
    let verdict = inspect_storage(memory(&bytes), &options(false)).expect("it can be read");
    let found = format!("{verdict:?}");
    assert!(
        found.contains("block 0 stands over a name of the parent"),
        "{found}"
    );
    let image = open_path(&dir, "a.vhd", true).expect("it opens");
    let model = read(&image);
    // Neither the name nor a bitmap over it is written.
    for at in [0, 1 << 20, 4 << 20] {
        let error = image.write_at(&[9; 512], at).expect_err("a refusal");
        let line = format!("{:#}", error);
        assert!(line.contains("check the image first"), "{line}");
    }
    let (report, lines) = check(&image, RepairMode::Report);
    assert_eq!(report.corruptions, 1, "{lines:?}");
    let (report, lines) = check(&image, RepairMode::All);
    assert_eq!(report.corruptions, 0, "{lines:?}");
    image.write_at(&[9; 65536], 0).expect("a write");
    image.close().expect("a close");
    let now = std::fs::read(dir.path("a.vhd")).expect("the image");
    assert!(now[place..place + len] == bytes[place..place + len]);
    let image = open_path(&dir, "a.vhd", true).expect("it opens again");
    assert!(read(&image)[65536..] == model[65536..]);
    let (report, lines) = check(&image, RepairMode::Report);
    assert_eq!(report.corruptions, 0, "{lines:?}");
}

#[test]
fn a_disk_that_loses_its_parent_keeps_nothing_of_the_room_of_its_names() {
    let dir = Dir::new();
    for backing in [None, Some("base.vhd")] {
        let mut bytes = child(&dir);
        // The last name says that it reaches to the end of the file, and further.
        let names = (0..8).map(|at| LOCATOR + 24 * at + 8);
        let last = names.rev().find(|len| number(&bytes, *len) > 0);
        let last = last.expect("a name");
        bytes[last..last + 4].copy_from_slice(&(100_u32 << 20).to_be_bytes());
        fix(&mut bytes[512..1536], 0x24);
        std::fs::write(dir.path("a.vhd"), &bytes).expect("a file");
        let image = open_path(&dir, "a.vhd", true).expect("it opens");
        let model = read(&image);
        let (report, lines) = check(&image, RepairMode::All);
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{lines:?}");
        image.close().expect("a close");
        rebase(&dir, "a.vhd", backing, false).expect("a rebase");
        let image = open_path(&dir, "a.vhd", false).expect("it opens again");
        assert!(read(&image) == model);
        let (report, lines) = check(&image, RepairMode::Report);
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{lines:?}");
        drop(image);
        for name in ["a.vhd", "base.vhd"] {
            std::fs::remove_file(dir.path(name)).expect("a file");
        }
    }
}

#[test]
fn an_emptied_disk_keeps_a_name_of_a_kind_that_is_not_known_and_leaks_nothing() {
    const NAME: usize = 64 << 10;
    let dir = Dir::new();
    let mut bytes = child(&dir);
    let footer = bytes.split_off(bytes.len() - 512);
    let (old_end, free) = (bytes.len(), LOCATOR + 24 * 5);
    assert_eq!(number(&bytes, free + 8), 0);
    bytes.extend(std::iter::repeat_n(b'x', NAME));
    bytes.extend(footer);
    bytes[free..free + 4].copy_from_slice(b"Xyz ");
    bytes[free + 4..free + 8].copy_from_slice(&(NAME as u32).to_be_bytes());
    bytes[free + 8..free + 12].copy_from_slice(&(NAME as u32).to_be_bytes());
    bytes[free + 20..free + 24].copy_from_slice(&(old_end as u32).to_be_bytes());
    fix(&mut bytes[512..1536], 0x24);
    std::fs::write(dir.path("a.vhd"), &bytes).expect("a file");
    let request = platter::ops::commit::CommitRequest {
        location: platter::Location::from_path(dir.path("a.vhd")),
        options: options(false),
        base: None,
        keep: false,
    };
    platter::ops::commit::commit(&request, &mut Job::new()).expect("a commit");
    let now = std::fs::read(dir.path("a.vhd")).expect("the image");
    assert!(now[old_end..][..NAME].iter().all(|byte| *byte == b'x'));
    let image = open_path(&dir, "a.vhd", true).expect("it opens");
    clean(&image);
    let model = read(&image);
    image.write_at(&[9; 512], 3 << 20).expect("a write");
    // What a block would fit into in front of the last one is given back all the same.
    let (report, _) = check(&image, RepairMode::Report);
    assert_eq!((report.corruptions, report.leaks), (0, 1));
    let (report, lines) = check(&image, RepairMode::All);
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{lines:?}");
    image.close().expect("a close");
    let image = open_path(&dir, "a.vhd", true).expect("it opens again");
    clean(&image);
    assert!(read(&image)[..3 << 20] == model[..3 << 20]);
}

#[test]
fn a_child_that_is_cut_off_within_its_names_is_refused_and_else_repaired() {
    let dir = Dir::new();
    let whole = child(&dir);
    let base = std::fs::read(dir.path("base.vhd")).expect("the base");
    let mut refused = 0;
    for len in (2048..8192).step_by(512) {
        std::fs::write(dir.path("a.vhd"), &whole[..len]).expect("a file");
        std::fs::write(dir.path("base.vhd"), &base).expect("a file");
        let image = match open_path(&dir, "a.vhd", true) {
            Ok(image) => image,
            Err(error) => {
                refused += 1;
                let line = format!("{error:#}");
                assert!(len < whole.len() && line.contains("past the end"), "{line}");
                continue;
            }
        };
        let (report, lines) = check(&image, RepairMode::All);
        image.close().expect("a close");
        if report.corruptions > 0 {
            continue;
        }
        let image = open_path(&dir, "a.vhd", true).expect("it opens again");
        image.write_at(&[5; 1], 0).expect("a write");
        image.close().expect("a close");
        let image = open_path(&dir, "a.vhd", true).expect("it opens again");
        let (report, now) = check(&image, RepairMode::Report);
        assert_eq!(report, CheckReport::default(), "{len}: {lines:?} {now:?}");
    }
    assert!(refused > 0, "no name was cut off");
}

/// What a program sees that goes by this footer, and by the bitmaps of dynamic disks too; None where it is
/// damaged.
fn seen_elsewhere(file: &[u8], footer: &[u8], base: &[u8]) -> Option<(bool, Vec<u8>)> {
    let mut whole = footer.to_vec();
    fix(&mut whole, 0x40);
    if !footer.starts_with(b"conectix") || whole != footer {
        return None;
    }
    let is_child = number(footer, 0x3c) == 4;
    let header = &file[number(footer, 0x14)..];
    let (table, block) = (number(header, 0x14), number(header, 0x20));
    let mut seen = match is_child {
        true => base.to_vec(),
        false => vec![0; base.len()],
    };
    for (index, place) in seen.chunks_mut(block).enumerate() {
        let at = number(file, table + index * 4);
        if at == u32::MAX as usize {
            continue;
        }
        let bitmap = &file[at * 512..][..512];
        let data = &file[at * 512 + 512..];
        for (n, sector) in place.chunks_mut(512).enumerate() {
            if bitmap[n / 8] & (0x80 >> (n % 8)) != 0 {
                sector.copy_from_slice(&data[n * 512..][..sector.len()]);
            }
        }
    }
    Some((is_child, seen))
}

#[test]
fn a_disk_that_loses_its_parent_is_the_old_one_or_the_new_one_for_every_reader() {
    let dir = Dir::new();
    create(&dir, "base.vhd", Some(5 << 20), None).expect("a base");
    let base = open_path(&dir, "base.vhd", true).expect("it opens");
    base.write_at(&vec![1; 4 << 20], 0).expect("a write");
    base.close().expect("a close");
    let below = read(&open_path(&dir, "base.vhd", false).expect("it opens"));
    create(&dir, "a.vhd", None, Some("base.vhd")).expect("a child");
    let image = open_path(&dir, "a.vhd", true).expect("it opens");
    for at in [1_000_100, 3_500_000] {
        image.write_at(&[9; 5000], at).expect("a write");
    }
    image.close().expect("a close");
    let old = read(&open_path(&dir, "a.vhd", false).expect("it opens"));
    let bytes = std::fs::read(dir.path("a.vhd")).expect("the image");
    let log = Log::new();
    let file: Arc<dyn Storage> = log.file(dir.str("a.vhd"), bytes);
    let image = Image::open_storage(file, &options(true)).expect("it opens");
    let change = image.format().backing_change().expect("a change");
    change.set_backing(None, None).expect("no parent");
    image.close().expect("a close");
    let last = log.count();
    let mut new = None;
    let mut states_of = [0, 0];
    let mut random = Random(0x7e5d);
    // The last state comes first: it tells what the new disk is.
    for pass in 0..2 {
        states::each(&log, Durability::Synced, &mut random, 1, |crash| {
            let file = &crash.files[0];
            let at = format!("{} of {}", crash.what, crash.count);
            let end = &file[file.len() / 512 * 512 - 512..];
            let footers = [&file[..512], end];
            let seen = footers.map(|footer| seen_elsewhere(file, footer, &below));
            if pass == 0 {
                if crash.count == last
                    && let Some((false, seen)) = &seen[0]
                {
                    new = Some(seen.clone());
                }
                return;
            }
            let new = new.as_ref().expect("the new disk");
            assert!(seen[0].is_some(), "{at}");
            for (is_child, seen) in seen.iter().flatten() {
                assert!(
                    seen == if *is_child { &old } else { new },
                    "{at}: {is_child}"
                );
            }
            let is_child = seen[0].as_ref().is_some_and(|(is_child, _)| *is_child);
            states_of[usize::from(is_child)] += 1;
            if is_child {
                return;
            }
            // What is written then is there for those who look at bitmaps.
            let disk = memory(file);
            let image = open(&disk, true).expect("it opens");
            assert!(read(&image) == *new, "{at}");
            let mut model = new.clone();
            for place in [1_000_500, 1_500_000, 3_600_000] {
                image.write_at(&[5; 3000], place).expect("a write");
                model[place as usize..][..3000].fill(5);
            }
            image.close().expect("a close");
            let file = bytes_of(&disk);
            let (_, seen) = seen_elsewhere(&file, &file[..512], &below).expect("a footer");
            assert!(seen == model, "{at}: after a write");
        });
    }
    assert!(states_of.iter().all(|count| *count > 2), "{states_of:?}");
}

#[test]
fn what_is_written_in_place_is_there_for_those_who_look_at_bitmaps() {
    let (mut bytes, mut model) = made("subformat=dynamic");
    let bitmap = number(&bytes, TABLE) * 512;
    // As if the last two thirds of the first block had never been written.
    bytes[bitmap + 170..bitmap + 512].fill(0);
    let storage = memory(&bytes);
    let image = open(&storage, true).expect("it opens");
    for at in [1 << 20, (1 << 20) + 300] {
        image.write_at(&[7; 700], at).expect("a write");
        model[at as usize..][..700].fill(7);
    }
    image.close().expect("a close");
    let file = bytes_of(&storage);
    let below = vec![0; model.len()];
    let (is_child, seen) = seen_elsewhere(&file, &file[..512], &below).expect("a footer");
    assert!(!is_child && seen == model);
}

/// Writes the names of the parent of a child anew: each with its code, in 512 bytes of the room of the old ones.
fn name_parent(file: &mut [u8], own: &str, names: &[(&[u8; 4], Vec<u8>)]) {
    let header = u64::from_be_bytes(file[0x10..0x18].try_into().expect("eight bytes")) as usize;
    let room = header + 0x240 + 16;
    let room = u64::from_be_bytes(file[room..room + 8].try_into().expect("eight bytes"));
    let entries = header + 0x240..header + 0x300;
    file[entries.clone()].fill(0);
    for (n, (code, bytes)) in names.iter().enumerate() {
        let at = room + n as u64 * 512;
        let entry = &mut file[entries.start + n * 24..][..24];
        entry[..4].copy_from_slice(&code[..]);
        entry[4..8].copy_from_slice(&512_u32.to_be_bytes());
        entry[8..12].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        entry[16..24].copy_from_slice(&at.to_be_bytes());
        file[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    let field = &mut file[header + 0x40..header + 0x240];
    field.fill(0);
    for (unit, place) in own.encode_utf16().zip(field.chunks_exact_mut(2)) {
        place.copy_from_slice(&unit.to_be_bytes());
    }
    fix(&mut file[header..header + 1024], 0x24);
}

#[test]
fn names_of_the_parent_are_read_in_every_code_and_tried_in_their_order() {
    let utf16 = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let dir = Dir::new();
    create(&dir, "base.vhd", Some(5 << 20), None).expect("a base");
    create(&dir, "a.vhd", None, Some("base.vhd")).expect("a child");
    let child = std::fs::read(dir.path("a.vhd")).expect("a disk");
    let names: [(&[u8; 4], Vec<u8>); 7] = [
        (b"Wi2k", br"C:\old\k.vhd".to_vec()),
        (b"W2ku", utf16("C:\\d\u{e9}\\\u{1f4be}.vhd")),
        (b"Wi2r", br".\old\r.vhd".to_vec()),
        // An alias of Mac OS, and what is not known, are no names.
        (b"Mac ", b"alias".to_vec()),
        (b"XyZ1", b"x.vhd".to_vec()),
        (b"W2ru", utf16("..\\d\u{e9}\\u.vhd")),
        (b"MacX", b"file:///images/m%20x.vhd".to_vec()),
    ];
    let own = "h\u{e9}ader.vhd";
    let shown = |count: usize| {
        let mut file = child.clone();
        name_parent(&mut file, own, &names[..count]);
        let options = OpenOptions {
            metadata_only: true,
            backing: false,
            ..options(false)
        };
        std::fs::write(dir.path("named.vhd"), file).expect("a disk");
        let location = platter::Location::from_path(dir.path("named.vhd"));
        let image = Image::open(&location, &options).expect("it opens");
        let parent = image.format().parent().expect("a parent");
        let names: Vec<_> = parent
            .names
            .iter()
            .map(|name| name.name.to_string())
            .collect();
        (names, parent.first().map(|first| first.name.to_string()))
    };
    let absolute = ["C:\\d\u{e9}\\\u{1f4be}.vhd", r"C:\old\k.vhd"];
    let old = r".\old\r.vhd";
    let relative = "..\\d\u{e9}\\u.vhd";
    let all = [
        "/images/m x.vhd",
        relative,
        old,
        absolute[0],
        absolute[1],
        own,
    ];
    assert_eq!(
        shown(7),
        (all.map(String::from).to_vec(), Some(all[0].into()))
    );
    // Relative names come before those of a drive, which lead nowhere here.
    let first = |count: usize| shown(count).1.expect("a name");
    assert_eq!(first(6), "../d\u{e9}/u.vhd");
    assert_eq!(first(5), "./old/r.vhd");
    assert_eq!(first(2), own);
    assert_eq!(shown(2).0, [absolute[0], absolute[1], own]);
    assert_eq!(shown(0).0, [own]);

    // What is not there is passed over, and a name of another program leads to the parent as well.
    std::fs::create_dir(dir.path("old")).expect("a directory");
    std::fs::rename(dir.path("base.vhd"), dir.path("old/r.vhd")).expect("another place");
    let image = open_path(&dir, "named.vhd", false);
    assert_eq!(
        image.expect_err("no name leads there").kind(),
        ErrorKind::NotFound
    );
    shown(7);
    let image = open_path(&dir, "named.vhd", false).expect("it opens");
    assert!(image.backing().is_some());
}

#[test]
fn a_disk_is_probed_by_the_footer_that_the_policy_lets_count() {
    let (dynamic, model) = made("force_size=on");
    let (fixed, of_fixed) = made("subformat=fixed,force_size=on");
    let last = dynamic.len() - 512;
    let front_lost = [&vec![0; 512][..], &dynamic[512..]].concat();
    let end_lost = [&dynamic[..last], &[0; 512]].concat();
    let dir = Dir::new();
    for (what, bytes, model, by_front) in [
        ("both", &dynamic, &model, true),
        ("in front alone", &end_lost, &model, true),
        ("at the end alone", &front_lost, &model, false),
        ("fixed", &fixed, &of_fixed, false),
    ] {
        std::fs::write(dir.path("probed"), bytes).expect("a disk");
        let format = |probe_footers: bool| {
            let options = OpenOptions {
                policy: OpenPolicy {
                    probe_footers,
                    ..OpenPolicy::permissive()
                },
                ..OpenOptions::default()
            };
            let location = platter::Location::from_path(dir.path("probed"));
            let image = Image::open(&location, &options).expect(what);
            (image.format_name().to_owned(), read(&image))
        };
        let (name, shown) = format(true);
        assert_eq!(name, "vpc", "{what}");
        assert!(shown == *model, "{what}");
        let (name, shown) = format(false);
        match by_front {
            true => assert!(name == "vpc" && shown == *model, "{what}: {name}"),
            false => assert!(name == "raw" && shown == *bytes, "{what}: {name}"),
        }
    }
}
