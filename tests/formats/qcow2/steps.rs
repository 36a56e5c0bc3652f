//! The steps that fault injection knows by name are passed where QEMU's own code passes them, as its
//! `blkdebug` showed for each of these operations.

use std::sync::Arc;

use crate::common::Dir;
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::FaultyStorage;
use platter::storage::{CacheMode, Preallocation, Step, Storage};
use platter::{Image, OpenOptions, OpenPolicy};

/// An image that QEMU's tools made, 4 MiB with these options after these changes.
fn image(options: &str, commands: &[&str]) -> (Image, Arc<FaultyStorage>) {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, "new", "4M"]);
    for command in commands {
        if let Some(command) = command.strip_prefix("img ") {
            dir.qemu_img_ok(&command.split(' ').collect::<Vec<_>>());
        } else {
            dir.qemu_io("qcow2", "new", &[command]);
        }
    }
    let bytes = std::fs::read(dir.path("new")).unwrap();
    let memory = Arc::new(MemoryStorage::with_bytes("new", bytes));
    let faulty = Arc::new(FaultyStorage::new(memory));
    let storage: Arc<dyn Storage> = faulty.clone();
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        cache: CacheMode::Writeback,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open_storage(storage, &options).unwrap();
    assert_eq!(faulty.take_steps(), [Step::ReftableLoad]);
    (image, faulty)
}

fn assert_passed(faulty: &FaultyStorage, expected: &[&str]) {
    let passed = faulty.take_steps();
    let mut names: Vec<_> = passed.iter().map(|step| step.name()).collect();
    let mut expected = expected.to_vec();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn reads() {
    let mut buf = vec![0; 65536];
    let (plain, steps) = image("compat=1.1", &["write 0 128k"]);
    plain.read_at(&mut buf, 0).unwrap();
    assert_passed(&steps, &["l2_load", "read_aio"]);
    plain.read_at(&mut buf, 2 << 20).unwrap();
    assert_passed(&steps, &[]);
    let (compressed, steps) = image("compat=1.1", &["write -c 0 64k"]);
    compressed.read_at(&mut buf, 0).unwrap();
    assert_passed(&steps, &["l2_load", "read_compressed"]);
}

#[test]
fn writes() {
    let data = vec![1; 65536];
    let (held, steps) = image("compat=1.1", &["write 0 128k"]);
    held.write_at(&data, 0).unwrap();
    assert_passed(&steps, &["l2_load", "write_aio"]);
    let (empty, steps) = image("compat=1.1", &[]);
    empty.write_at(&data, 0).unwrap();
    empty.flush().unwrap();
    let allocating = [
        "l1_update",
        "l2_update",
        "l2_load",
        "l2_alloc_write",
        "write_aio",
        "refblock_load",
        "refblock_update_part",
        "refblock_alloc",
        "cluster_alloc",
    ];
    assert_passed(&steps, &allocating);
    let (shared, steps) = image("compat=1.1", &["write 0 128k", "img snapshot -c one new"]);
    shared.write_at(&data[..4096], 4096).unwrap();
    shared.flush().unwrap();
    let mut copying = allocating.to_vec();
    copying.extend(["l2_alloc_cow_read", "read_aio", "cow_read", "cow_write"]);
    copying.push("cluster_free");
    assert_passed(&steps, &copying);
}

#[test]
fn a_larger_refcount_structure_and_a_larger_l1_table() {
    let (small, steps) = image("cluster_size=512,refcount_bits=64", &[]);
    small.write_at(&vec![1; 1 << 20], 0).unwrap();
    small.flush().unwrap();
    let passed = steps.take_steps();
    for step in [Step::RefblockAllocWrite, Step::RefblockAllocHookup] {
        assert!(passed.contains(&step), "{passed:?}");
    }
    small.resize(64 << 20, Preallocation::Off).unwrap();
    let passed = steps.take_steps();
    for step in [
        Step::L1GrowAllocTable,
        Step::L1GrowWriteTable,
        Step::L1GrowActivateTable,
    ] {
        assert!(passed.contains(&step), "{passed:?}");
    }
}

#[test]
fn shrinking_and_snapshots() {
    let (large, steps) = image("cluster_size=512", &["write 3M 64k"]);
    large.resize(1 << 20, Preallocation::Off).unwrap();
    large.flush().unwrap();
    let passed = steps.take_steps();
    for step in [
        Step::L1ShrinkWriteTable,
        Step::L1ShrinkFreeL2Clusters,
        Step::L1Update,
        Step::ClusterFree,
    ] {
        assert!(passed.contains(&step), "{passed:?}");
    }
}
