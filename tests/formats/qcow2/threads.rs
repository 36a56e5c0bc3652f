//! Many threads on one qcow2 image: disjoint and overlapping ranges at once, then QEMU's verdict.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Dir, Random};
use platter::storage::{CacheMode, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy};

const THREADS: u64 = 4;

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

fn create(options: &str, size: u64) -> Dir {
    let dir = Dir::new();
    let size = size.to_string();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "base", &size]);
    dir.qemu_io("qcow2", "base", &["write -P 0xb5 0 2M"]);
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-o", options, "image", &size,
    ]);
    dir.qemu_io("qcow2", "image", &["write -P 0x11 1M 1M"]);
    dir.qemu_img_ok(&["snapshot", "-c", "then", "image"]);
    dir
}

/// Each thread owns every fourth block of 3 KiB, so that clusters are shared by threads.
fn disjoint(options: &str, cluster: u64) {
    const BLOCK: u64 = 3 << 10;
    let size = THREADS * BLOCK * 500;
    let dir = create(options, size);
    let image = open(&dir);
    let mut model = vec![0; size as usize];
    image.read_at(&mut model, 0).unwrap();
    let stop = AtomicBool::new(false);
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                image.flush().unwrap();
                std::thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (image, model) = (&image, &model);
                scope.spawn(move || {
                    let mut random = Random(thread + 1);
                    let mut mine = model.clone();
                    for _ in 0..3000 {
                        let block = random.below(500) * THREADS + thread;
                        let at = random.below(BLOCK);
                        let len = 1 + random.below(BLOCK - at);
                        let offset = block * BLOCK + at;
                        let range = offset as usize..(offset + len) as usize;
                        match random.below(10) {
                            0..5 => {
                                let fill = random.next() as u8;
                                image.write_at(&vec![fill; len as usize], offset).unwrap();
                                mine[range].fill(fill);
                            }
                            5..7 => {
                                let flags = ZeroFlags::from_bits_truncate(random.below(2) as u32);
                                image.write_zeroes(offset, len, flags).unwrap();
                                mine[range].fill(0);
                            }
                            _ => {
                                let mut bytes = vec![0; len as usize];
                                image.read_at(&mut bytes, offset).unwrap();
                                assert!(bytes == mine[range], "thread {thread} at {offset}");
                            }
                        }
                    }
                    mine
                })
            })
            .collect();
        let parts = workers.into_iter().map(|w| w.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        flusher.join().unwrap();
        parts
    });
    for (at, byte) in model.iter_mut().enumerate() {
        *byte = parts[(at as u64 / BLOCK % THREADS) as usize][at];
    }
    image.close().unwrap();
    std::fs::write(dir.path("model.raw"), &model).unwrap();
    let compare = dir.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "model.raw", "image"]);
    assert_eq!(compare.code, 0, "{options}, cluster {cluster}: {compare:?}");
    let check = dir.qemu_img(&["check", "image"]);
    assert_eq!(check.code, 0, "{options}: {check:?}");
}

/// All threads change the same few clusters; each sector holds what one of them wrote.
fn overlapping(options: &str, cluster: u64) {
    let size = cluster * 24;
    let dir = create(options, size.max(2 << 20));
    let image = open(&dir);
    let size = image.len();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let image = &image;
            scope.spawn(move || {
                let mut random = Random(thread + 11);
                for n in 0..2500 {
                    let offset = random.below(size.min(cluster * 24)) / 512 * 512;
                    let len = 512 * (1 + random.below(cluster * 2 / 512));
                    let len = len.min(size - offset);
                    match random.below(12) {
                        0..5 => {
                            // Bytes say who wrote them, so that a strange one shows.
                            let fill = 0x40 + thread as u8;
                            image.write_at(&vec![fill; len as usize], offset).unwrap();
                        }
                        5 => image
                            .write_zeroes(offset, len, ZeroFlags::MAY_UNMAP)
                            .unwrap(),
                        6 => image.write_zeroes(offset, len, ZeroFlags::empty()).unwrap(),
                        7 => image
                            .format()
                            .writer()
                            .unwrap()
                            .discard(offset, len)
                            .unwrap(),
                        8 => {
                            let start = offset / cluster * cluster;
                            let len = cluster.min(size - start);
                            let bytes = vec![0x40 + thread as u8; len as usize];
                            let compressor = image.compressor().unwrap();
                            compressor.write_compressed(&bytes, start).unwrap();
                        }
                        9 if n % 20 == 0 => image.flush().unwrap(),
                        _ => {
                            let mut bytes = vec![0; len as usize];
                            image.read_at(&mut bytes, offset).unwrap();
                            // A read may see half of a write that is under way in the same
                            // cluster, as with any file; but no byte that nobody wrote.
                            let foreign = bytes.iter().find(|byte| {
                                !([0, 0x11, 0xb5].contains(*byte) || (0x40..0x44).contains(*byte))
                            });
                            assert!(foreign.is_none(), "{options}: a foreign byte {foreign:x?}");
                        }
                    }
                }
            });
        }
    });
    let mut before = vec![0; size as usize];
    image.read_at(&mut before, 0).unwrap();
    image.close().unwrap();
    std::fs::write(dir.path("model.raw"), &before).unwrap();
    let compare = dir.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "model.raw", "image"]);
    assert_eq!(compare.code, 0, "{options}: {compare:?}");
    let check = dir.qemu_img(&["check", "image"]);
    assert_eq!(check.code, 0, "{options}: {check:?}");
}

#[test]
fn disjoint_in_large_clusters() {
    disjoint("cluster_size=64k", 65536);
}

#[test]
fn disjoint_in_small_clusters() {
    disjoint("cluster_size=1k", 1024);
}

#[test]
fn disjoint_in_subclusters() {
    disjoint("cluster_size=64k,extended_l2=on", 65536);
}

#[test]
fn disjoint_in_version_2() {
    disjoint("cluster_size=4k,compat=0.10", 4096);
}

#[test]
fn overlapping_in_large_clusters() {
    overlapping("cluster_size=64k", 65536);
}

#[test]
fn overlapping_in_small_clusters() {
    overlapping("cluster_size=2k", 2048);
}

#[test]
fn overlapping_in_subclusters() {
    overlapping("cluster_size=32k,extended_l2=on", 32768);
}

#[test]
fn overlapping_in_version_2() {
    overlapping("cluster_size=8k,compat=0.10", 8192);
}
