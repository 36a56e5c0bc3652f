//! Running the installed QEMU tools for comparison. They must be there: a missing tool fails the test.
#![allow(dead_code, reason = "each test file uses its own share of the helpers")]

pub mod vhdx;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// An error of QEMU's tools without the repetition of its beginning: the library says a thing once.
pub fn said_once(error: &str) -> String {
    let (first, rest) = error.split_once("': ").unwrap_or((error, ""));
    match rest.starts_with(&format!("{first}': ")) {
        true => rest.to_owned(),
        false => error.to_owned(),
    }
}

/// Where a disk of which nothing is said at the places that are `unsure` differs from what it should hold.
pub fn first_wrong(bytes: &[u8], wanted: &[u8], unsure: &[bool]) -> Option<usize> {
    assert_eq!(bytes.len(), wanted.len());
    // Pages are compared at once, which is what takes time.
    const PAGE: usize = 4096;
    let pages = bytes.chunks(PAGE).zip(wanted.chunks(PAGE)).enumerate();
    pages
        .filter(|(_, (page, wanted))| page != wanted)
        .flat_map(|(n, (page, _))| n * PAGE..n * PAGE + page.len())
        .find(|&at| !unsure[at] && bytes[at] != wanted[at])
}

/// Random numbers that are the same in every run (xorshift); the seed is not 0.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A fresh directory for one test, removed at its end.
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// A new directory.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of `name` in it, as text.
    pub fn str(&self, name: &str) -> String {
        self.path(name).to_str().expect("a UTF-8 path").to_owned()
    }

    /// Runs `qemu-img` in this directory.
    pub fn qemu_img<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        run_in(self.root(), "qemu-img", args)
    }

    /// Runs `qemu-img` in this directory and fails the test unless it succeeds; returns its output.
    pub fn qemu_img_ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S]) -> String {
        let ran = self.qemu_img(args);
        assert_eq!(ran.code, 0, "qemu-img {args:?}: {ran:?}");
        ran.out
    }

    /// Runs `qemu-io` with `commands` on an image of this directory; fails the test on an error.
    pub fn qemu_io(&self, format: &str, image: &str, commands: &[&str]) -> String {
        let mut args = vec!["-f", format];
        for command in commands {
            args.extend(["-c", command]);
        }
        args.push(image);
        let ran = run_in(self.root(), "qemu-io", &args);
        // qemu-io ends with 0 although a command fails; it then says so.
        assert!(
            ran.code == 0 && !ran.out.contains("failed"),
            "qemu-io {args:?}: {ran:?}"
        );
        ran.out
    }
}

/// A qcow2 image of a few KiB whose L1 entries all name one L2 table, half of whose entries name one
/// cluster: each second cluster of 64 KiB is data, 8192 runs for each of the `tables`.
pub fn shared_table_image(path: &Path, tables: u32) {
    const CLUSTER: u64 = 65536;
    let owned = 1u64 << 63;
    let mut image = vec![0u8; 4 * CLUSTER as usize];
    let put = |image: &mut Vec<u8>, at: u64, bytes: &[u8]| {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut image, 0, b"QFI\xfb\0\0\0\x03");
    put(&mut image, 20, &16u32.to_be_bytes());
    let size = u64::from(tables) * (CLUSTER / 8) * CLUSTER;
    put(&mut image, 24, &size.to_be_bytes());
    put(&mut image, 36, &tables.to_be_bytes());
    put(&mut image, 40, &(4 * CLUSTER).to_be_bytes());
    put(&mut image, 48, &CLUSTER.to_be_bytes());
    put(&mut image, 56, &1u32.to_be_bytes());
    put(&mut image, 96, &4u32.to_be_bytes());
    put(&mut image, 100, &104u32.to_be_bytes());
    put(&mut image, CLUSTER, &(2 * CLUSTER).to_be_bytes());
    put(&mut image, 2 * CLUSTER, &[0, 1].repeat(64));
    for entry in (0..CLUSTER).step_by(16) {
        let word = (owned | (2 * CLUSTER)).to_be_bytes();
        put(&mut image, 3 * CLUSTER + entry, &word);
    }
    let entry = (owned | (3 * CLUSTER)).to_be_bytes();
    image.extend(entry.repeat(tables as usize));
    let end = image.len().next_multiple_of(CLUSTER as usize);
    image.resize(end, 0);
    std::fs::write(path, image).expect("a crafted image");
}

/// Runs `program` in `directory`, in the C locale.
pub fn run_in<S: AsRef<OsStr>>(directory: &Path, program: &str, args: &[S]) -> Ran {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed for this test: {error}"));
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Dirty guest ranges (offset, length) of a bitmap of a qcow2 image, as QEMU's server exports them.
pub fn dirty_ranges(dir: &Dir, image: &str, bitmap: &str) -> Vec<(u64, u64)> {
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    let socket = dir.path("dirty.sock");
    let _ = std::fs::remove_file(&socket);
    let mut server = Command::new("qemu-nbd")
        .args(["-r", "-f", "qcow2", "-e", "3", "-t", "-B", bitmap, "-k"])
        .arg(&socket)
        .arg(image)
        .current_dir(dir.root())
        .spawn()
        .expect("qemu-nbd must be installed for this test");
    let patience = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(&socket).is_err() {
        let ended = server.try_wait().expect("the state of qemu-nbd");
        assert!(ended.is_none(), "qemu-nbd -B {bitmap} {image}: {ended:?}");
        assert!(Instant::now() < patience, "qemu-nbd does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let source = format!(
        "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}",
        socket.display()
    );
    let map = dir.qemu_img(&["map", "--output=json", "--image-opts", &source]);
    server.kill().expect("to end qemu-nbd");
    server.wait().expect("the end of qemu-nbd");
    let _ = std::fs::remove_file(&socket);
    assert_eq!(map.code, 0, "{map:?}");
    let map: serde_json::Value = serde_json::from_str(&map.out).expect("JSON");
    // What is dirty shows as an extent without data.
    let runs = map.as_array().expect("a list").iter();
    runs.filter(|run| run["data"] == false)
        .map(|run| {
            (
                run["start"].as_u64().unwrap(),
                run["length"].as_u64().unwrap(),
            )
        })
        .collect()
}

/// The bitmaps of a qcow2 image as `qemu-img info` lists them: name, granularity, flags.
pub fn bitmaps_of(dir: &Dir, image: &str) -> Vec<(String, u64, Vec<String>)> {
    let info = dir.qemu_img_ok(&["info", "--output=json", image]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let list = info["format-specific"]["data"]["bitmaps"].as_array();
    let flags = |one: &serde_json::Value| {
        let flags = one["flags"].as_array().unwrap().iter();
        flags
            .map(|flag| flag.as_str().unwrap().to_owned())
            .collect()
    };
    list.into_iter()
        .flatten()
        .map(|one| {
            (
                one["name"].as_str().unwrap().to_owned(),
                one["granularity"].as_u64().unwrap(),
                flags(one),
            )
        })
        .collect()
}

/// Sets flags in the entry of a bitmap in the directory of a qcow2 image, by hand.
pub fn set_bitmap_flags(path: &Path, bitmap: &str, flags: u32) {
    let mut bytes = std::fs::read(path).expect("an image");
    let number = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len]
            .iter()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let magic = 0x2385_2875u32.to_be_bytes();
    let extension = bytes.windows(4).position(|w| w == magic).expect("bitmaps");
    let count = number(&bytes, extension + 8, 4);
    let mut at = number(&bytes, extension + 24, 8) as usize;
    for _ in 0..count {
        let name_len = number(&bytes, at + 18, 2) as usize;
        if &bytes[at + 24..at + 24 + name_len] == bitmap.as_bytes() {
            bytes[at + 12..at + 16].copy_from_slice(&flags.to_be_bytes());
            std::fs::write(path, bytes).expect("to patch the image");
            return;
        }
        at += (24 + name_len).next_multiple_of(8);
    }
    panic!("there is no bitmap {bitmap}");
}
