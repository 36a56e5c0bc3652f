//! Damaged and hostile qcow2 images: QEMU's line for what it refuses, and never a panic, a hang or
//! a write over metadata.

use std::sync::Arc;

use crate::common;
use crate::common::Dir;
use platter::storage::memory::MemoryStorage;
use platter::storage::{CacheMode, ZeroFlags};
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy};

fn options(writable: bool) -> OpenOptions {
    OpenOptions {
        format: Some("qcow2".to_owned()),
        writable,
        cache: CacheMode::Unsafe,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn put(bytes: &mut [u8], at: u64, value: u64) {
    bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_be_bytes());
}

fn get(bytes: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
}

/// Offset of the first L2 table.
fn l2(bytes: &[u8]) -> u64 {
    get(bytes, get(bytes, 40)) & 0x00ff_ffff_ffff_fe00
}

fn sample(dir: &Dir, options: &str) -> Vec<u8> {
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "sample", "4M"]);
    dir.qemu_io("qcow2", "sample", &["write -P 1 0 512k"]);
    std::fs::read(dir.path("sample")).unwrap()
}

/// The error of a header field that QEMU refuses is QEMU's.
#[test]
fn refused_headers_have_the_line_of_qemu() {
    let dir = Dir::new();
    let good = sample(&dir, "compat=1.1");
    let fields: &[(usize, &[u8])] = &[
        (4, &4u32.to_be_bytes()),
        (8, &70_000u64.to_be_bytes()),
        (20, &8u32.to_be_bytes()),
        (20, &22u32.to_be_bytes()),
        (24, &(1u64 << 62).to_be_bytes()),
        (32, &3u32.to_be_bytes()),
        (36, &0u32.to_be_bytes()),
        (36, &0x7fff_ffffu32.to_be_bytes()),
        (40, &0x30200u64.to_be_bytes()),
        (40, &0xffff_ffff_fff0_0000u64.to_be_bytes()),
        (48, &0x10200u64.to_be_bytes()),
        (56, &0u32.to_be_bytes()),
        (56, &200u32.to_be_bytes()),
        (60, &100_000u32.to_be_bytes()),
        (72, &(1u64 << 20).to_be_bytes()),
        (96, &7u32.to_be_bytes()),
        (100, &50u32.to_be_bytes()),
        (100, &70_000u32.to_be_bytes()),
        (104, &1u8.to_be_bytes()),
    ];
    for (at, value) in fields {
        let mut bytes = good.clone();
        bytes[*at..at + value.len()].copy_from_slice(value);
        std::fs::write(dir.path("bad"), &bytes).unwrap();
        let qemu = dir.qemu_img(&["map", "-f", "qcow2", "bad"]);
        assert_eq!(qemu.code, 1, "field {at}: {qemu:?}");
        let theirs = qemu
            .err
            .trim()
            .trim_start_matches("qemu-img: Could not open 'bad': ");
        let location = Location::from_path(dir.path("bad"));
        let ours = Image::open(&location, &options(false))
            .unwrap_err()
            .to_string();
        assert!(
            ours.ends_with(&format!("': {theirs}")),
            "field {at}: {ours:?}, not {theirs:?}"
        );
    }
}

#[test]
fn tables_past_the_end_are_refused_where_they_are_needed() {
    let dir = Dir::new();
    let good = sample(&dir, "compat=1.1");
    let mut bytes = good.clone();
    put(&mut bytes, 40, 0x3000_0000);
    let open = |bytes, writable| {
        let memory = Arc::new(MemoryStorage::with_bytes("bad", bytes));
        Image::open_storage(memory, &options(writable))
    };
    let image = open(bytes.clone(), false).unwrap();
    let error = image.read_at(&mut [0; 16], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(open(bytes, true).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut bytes = good.clone();
    let l1 = get(&bytes, 40);
    put(&mut bytes, l1, 1 << 63 | 0x3000_0000);
    let image = open(bytes.clone(), false).unwrap();
    let error = image.read_at(&mut [0; 16], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(open(bytes, true).unwrap_err().kind(), ErrorKind::Corrupt);
    // Two L1 entries with one L2 table, an L2 table in the refcount table: not for writing.
    let mut bytes = good;
    let reftable = get(&bytes, 48);
    put(&mut bytes, l1, 1 << 63 | reftable);
    assert_eq!(open(bytes, true).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn damaged_entries_give_the_line_of_qemu_and_mark_the_image() {
    let dir = Dir::new();
    for (create, entry, bitmap) in [
        ("compat=1.1", 1 << 63 | 0x50200, None),
        ("compat=0.10", 1 << 63 | 0x50001, None),
        ("extended_l2=on", 1 << 63 | 0x50000, Some(u64::MAX)),
    ] {
        let mut bytes = sample(&dir, create);
        let table = l2(&bytes);
        put(&mut bytes, table, entry);
        if let Some(bitmap) = bitmap {
            put(&mut bytes, table + 8, bitmap);
        }
        std::fs::write(dir.path("bad"), &bytes).unwrap();
        let args = ["-r", "-f", "qcow2", "-c", "read 0 4k", "bad"];
        let qemu = common::run_in(dir.root(), "qemu-io", &args);
        let location = Location::from_path(dir.path("bad"));
        let image = Image::open(&location, &options(false)).unwrap();
        let error = image.read_at(&mut [0; 4096], 0).unwrap_err();
        assert_eq!(error.errno(), 5);
        let line = error.to_string();
        let line = &line[line.find("qcow2: ").unwrap()..];
        assert_eq!(qemu.err.lines().next(), Some(line), "{create}");
        drop(image);
        assert_eq!(std::fs::read(dir.path("bad")).unwrap(), bytes, "read-only");

        let image = Image::open(&location, &options(true)).unwrap();
        assert!(image.write_at(&[1; 512], 0).is_err());
        let error = image.write_at(&[1; 512], 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        drop(image);
        let marked = std::fs::read(dir.path("bad")).unwrap();
        if create != "compat=0.10" {
            assert_eq!(get(&marked, 72) & 2, 2, "{create}: corrupt bit");
            assert!(Image::open(&location, &options(true)).is_err());
            assert!(Image::open(&location, &options(false)).is_ok());
        }
    }
}

/// Guest data is never written over metadata, whatever the tables say.
#[test]
fn metadata_is_never_overwritten() {
    let dir = Dir::new();
    let good = sample(&dir, "compat=1.1");
    let table = l2(&good);
    let (l1, reftable) = (get(&good, 40), get(&good, 48));
    let block = get(&good, reftable);
    for target in [l1, reftable, block, table] {
        let mut bytes = good.clone();
        put(&mut bytes, table, 1 << 63 | target);
        let memory = Arc::new(MemoryStorage::with_bytes("bad", bytes.clone()));
        let image = Image::open_storage(memory.clone(), &options(true)).unwrap();
        let error = image.write_at(&[0xff; 4096], 0).unwrap_err().to_string();
        assert!(
            error.contains("Preventing invalid write on metadata"),
            "{error}"
        );
        drop(image);
        let after = memory.to_vec();
        assert_eq!(get(&after, 72) & 2, 2, "corrupt bit");
        assert_eq!(after[96..], bytes[96..]);
    }
    // A refcount of 0 for the L1 table does not make its cluster free.
    let mut bytes = good;
    bytes[block as usize..block as usize + 128].fill(0);
    let memory = Arc::new(MemoryStorage::with_bytes("bad", bytes.clone()));
    let image = Image::open_storage(memory.clone(), &options(true)).unwrap();
    let error = image
        .write_at(&[0xff; 4096], 1 << 20)
        .unwrap_err()
        .to_string();
    assert!(error.contains("Preventing invalid allocation"), "{error}");
}

/// Flipped bits in the metadata: any result but a panic, a hang or a read error for the process.
#[test]
fn flipped_bits_do_no_harm() {
    let dir = Dir::new();
    for create in [
        "cluster_size=512",
        "cluster_size=16k,extended_l2=on",
        "compat=0.10,cluster_size=4k",
    ] {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", create, "sample", "300k",
        ]);
        dir.qemu_io(
            "qcow2",
            "sample",
            &["write -P 1 0 100k", "write -P 2 200k 64k"],
        );
        dir.qemu_img_ok(&["snapshot", "-c", "then", "sample"]);
        dir.qemu_io("qcow2", "sample", &["write -P 3 50k 20k"]);
        let good = std::fs::read(dir.path("sample")).unwrap();
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = move |end: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % end
        };
        // Bytes that are not the pattern of a data cluster are metadata.
        let spots: Vec<usize> = (0..good.len())
            .filter(|&i| (8..104).contains(&i) || !matches!(good[i], 0..=3))
            .collect();
        for _ in 0..600 {
            let mut bytes = good.clone();
            for _ in 0..=next(3) {
                let at = spots[next(spots.len() as u64) as usize];
                let at = at.saturating_sub(next(8) as usize);
                bytes[at] ^= 1 << next(8);
            }
            let open = |writable| {
                let memory = MemoryStorage::with_bytes("bad", bytes.clone());
                let memory = Arc::new(memory.limited_to(64 << 20));
                Image::open_storage(memory, &options(writable))
            };
            if let Ok(image) = open(false) {
                let mut buf = vec![0; image.len().min(1 << 20) as usize];
                let _ = image.read_at(&mut buf, 0);
                let _ = image.map(0, image.len());
            }
            if let Ok(image) = open(true) {
                let size = image.len();
                for _ in 0..12 {
                    let offset = next(size.clamp(1, 1 << 20));
                    let len = (1 + next(20_000)).min(size.saturating_sub(offset));
                    let _ = match next(4) {
                        0 => image.write_zeroes(offset, len, ZeroFlags::MAY_UNMAP),
                        1 => image.format().writer().unwrap().discard(offset, len),
                        _ => image.write_at(&vec![7; len as usize], offset),
                    };
                }
                let _ = image.close();
            }
        }
    }
}
