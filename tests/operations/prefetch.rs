//! What is brought near lies in the page cache before anybody reads it, and the rest does not.

use std::path::Path;
use std::time::{Duration, Instant};

use platter::job::JobControl;
use platter::{Image, Location, OpenOptions};

use crate::common::{Dir, run_in};

const MIB: u64 = 1 << 20;

/// Takes a file out of the page cache, as far as the kernel likes.
fn forget(dir: &Dir, name: &str) {
    let of = format!("of={name}");
    let args = [
        of.as_str(),
        "oflag=nocache",
        "conv=notrunc,fdatasync",
        "count=0",
        "status=none",
    ];
    let ran = run_in(dir.root(), "dd", &args);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Bytes of a file in the page cache.
fn near(dir: &Dir, name: &str) -> u64 {
    let ran = run_in(dir.root(), "fincore", &["-n", "-b", "-o", "RES", name]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().parse().expect("a number")
}

#[test]
fn what_is_brought_near_is_in_the_page_cache() {
    if !Path::new("/usr/bin/fincore").exists() {
        eprintln!("LEFT OUT: no fincore (package util-linux)");
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("a.raw"), vec![7; 32 << 20]).expect("a disk");
    dir.qemu_img_ok(&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"]);
    for name in ["a.raw", "b.qcow2"] {
        let image = Image::open(
            &Location::from_path(dir.path(name)),
            &OpenOptions::default(),
        )
        .expect("the image");
        forget(&dir, name);
        let before = near(&dir, name);
        if before > MIB {
            eprintln!("LEFT OUT: the file system keeps {name} in memory");
            return;
        }
        // A range with both ends within the file.
        let (at, len) = (12 * MIB, 8 * MIB);
        image
            .prefetch(at, len, &JobControl::default())
            .expect("a hint");
        let deadline = Instant::now() + Duration::from_secs(60);
        while near(&dir, name) < before + len {
            assert!(
                Instant::now() < deadline,
                "{name}: {} of {len}",
                near(&dir, name)
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        // The kernel may read a little more than it is asked for.
        assert!(near(&dir, name) < before + len + 8 * MIB, "{name}");
    }
}
