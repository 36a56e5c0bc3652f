//! Block devices. Needs root and loop devices, so it runs on request: `cargo test -- --ignored`.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Dir;
use platter::storage::file::{self, FileCreate, FileOpen, FileStorage};
use platter::storage::{CacheMode, Durability, Preallocation, Storage, ZeroFlags, set_len_or_fit};

/// A loop device over a file, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, args: &[&str]) -> Self {
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .args(args)
            .arg(file)
            .output()
            .expect("losetup must be installed for this test");
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

const LEN: u64 = 8 << 20;

fn open(path: &Path, cache: CacheMode) -> FileStorage {
    let options = FileOpen {
        writable: true,
        cache,
        ..FileOpen::default()
    };
    file::open(path, &options).unwrap()
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_device_reads_back_what_was_written_in_every_mode() {
    let dir = Dir::new();
    for sector in ["512", "4096"] {
        let backing = dir.path("disk");
        std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
        let device = Loop::over(&backing, &["--sector-size", sector]);
        let mut model = vec![0xee; LEN as usize];
        for (n, cache) in [
            CacheMode::None,
            CacheMode::Writeback,
            CacheMode::Writethrough,
            CacheMode::Directsync,
            CacheMode::Unsafe,
        ]
        .into_iter()
        .enumerate()
        {
            let storage = open(&device.0, cache);
            assert_eq!(storage.driver(), "host_device");
            assert_eq!(storage.len().unwrap(), LEN);
            let base = n << 20;
            for (at, len) in [(1, 5), (511, 2000), (8192, 4096), (100_001, 300_000)] {
                let bytes = vec![n as u8 + 1; len];
                storage.write_at(&bytes, (base + at) as u64).unwrap();
                model[base + at..base + at + len].copy_from_slice(&bytes);
            }
            for (at, len, flags) in [
                (600, 100, ZeroFlags::empty()),
                (110_000, 50_000, ZeroFlags::MAY_UNMAP),
                (200_000, 12_345, ZeroFlags::empty()),
                (262_144, 65_536, ZeroFlags::empty()),
            ] {
                let start = base + at;
                storage
                    .write_zeroes(start as u64, len as u64, flags)
                    .unwrap();
                model[start..start + len].fill(0);
            }
            storage.sync(Durability::Synced).unwrap();
            let mut got = vec![0; LEN as usize + 100];
            storage.read_at(&mut got, 0).unwrap();
            assert!(got[..LEN as usize] == model, "{cache:?} {sector}");
            assert_eq!(got[LEN as usize..], [0; 100]);
            assert!(storage.write_at(&[1; 10], LEN - 5).is_err());
            let run = storage.extent(0, u64::MAX / 2).unwrap();
            assert_eq!((run.len, run.zero), (LEN, false));
        }
    }
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_device_keeps_its_length() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
    let device = Loop::over(&backing, &[]);
    let made = file::create(&device.0, &FileCreate::default()).unwrap();
    assert!(!made.new && made.file.limits().fixed_len);
    let mut first = [9; 1024];
    made.file.read_at(&mut first, 0).unwrap();
    assert_eq!(first[..512], [0; 512]);
    assert_eq!(first[512..], [0xee; 512]);
    let text = |result: platter::Result<()>| result.unwrap_err().to_string();
    set_len_or_fit(&made.file, 1 << 20, Preallocation::Off).unwrap();
    assert_eq!(
        text(set_len_or_fit(&made.file, LEN + 512, Preallocation::Off)),
        "Cannot grow device files"
    );
    assert_eq!(
        text(set_len_or_fit(&made.file, 1 << 20, Preallocation::Falloc)),
        "Unsupported preallocation mode 'falloc'"
    );
    assert_eq!(
        text(made.file.set_len(1 << 20, Preallocation::Off)),
        "Cannot resize device files"
    );
    made.file.discard(4096, 1 << 20).unwrap();
    drop(made);
    drop(device);

    let device = Loop::over(&backing, &["-r"]);
    let options = FileOpen {
        writable: true,
        ..FileOpen::default()
    };
    assert_eq!(
        text(file::open(&device.0, &options).map(drop)),
        "The device is not writable: Permission denied"
    );
    assert!(file::open(&device.0, &FileOpen::default()).is_ok());
}
