//! The reports of `check` against those of `qemu-img check`: text, JSON and exit code.

use std::sync::{Arc, Mutex};

use crate::common::Dir;
use platter::format::RepairMode;
use platter::job::Message;
use platter::ops::check::check;
use platter::{Image, Job, Location, OpenOptions, OpenPolicy};

fn same(dir: &Dir, path: &str) {
    let options = OpenOptions {
        for_check: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::parse(path).unwrap(), &options).unwrap();
    let notes = Arc::new(Mutex::new(String::new()));
    let log = notes.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        let (Message::Note(line) | Message::Warning(line)) = message;
        log.lock().unwrap().push_str(&format!("{line}\n"));
    }));
    let outcome = check(&image, RepairMode::Report, &mut job);
    let text = dir.qemu_img(&["check", path]);
    match outcome {
        Ok(outcome) => {
            assert_eq!(outcome.exit_code(), text.code, "{path}: {outcome:?}");
            assert_eq!(outcome.text(), text.out, "{path}");
            assert_eq!(*notes.lock().unwrap(), text.err, "{path}");
            let json = dir.qemu_img(&["check", "--output=json", path]);
            assert_eq!(outcome.json(), json.out, "{path}");
        }
        Err(error) => assert_eq!(format!("qemu-img: {error}\n"), text.err, "{path}"),
    }
}

fn qcow2(dir: &Dir, name: &str, options: &str) -> String {
    let path = dir.str(name);
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", options, &path, "8M"]);
    path
}

#[test]
fn sound_images() {
    let dir = Dir::new();
    for (name, options) in [
        ("default", "compat=1.1"),
        ("v2", "compat=0.10"),
        ("extended", "extended_l2=on"),
        ("small", "cluster_size=512"),
        ("wide", "refcount_bits=64"),
        ("narrow", "refcount_bits=1"),
        ("meta", "preallocation=metadata"),
    ] {
        let path = qcow2(&dir, name, options);
        same(&dir, &path);
        dir.qemu_io(
            "qcow2",
            &path,
            &["write -P 1 3M 1M", "write -P 2 100k 200k", "write 7M 1k"],
        );
        same(&dir, &path);
    }
    std::fs::write(dir.path("source"), vec![7; 300_000]).unwrap();
    let (source, packed) = (dir.str("source"), dir.str("packed"));
    dir.qemu_img_ok(&[
        "convert", "-c", "-f", "raw", "-O", "qcow2", &source, &packed,
    ]);
    same(&dir, &packed);
    let empty = dir.str("empty");
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", &empty, "0"]);
    same(&dir, &empty);
    same(&dir, &source);
}

/// Rewrites entries of the first L2 table.
fn edit_l2(path: &str, edit: impl Fn(&mut [u64])) {
    let mut bytes = std::fs::read(path).unwrap();
    let be64 = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = be64(&bytes, 40) as usize;
    let l2 = (be64(&bytes, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let mut entries: Vec<u64> = (0..16).map(|i| be64(&bytes, l2 + i * 8)).collect();
    edit(&mut entries);
    for (i, entry) in entries.iter().enumerate() {
        bytes[l2 + i * 8..l2 + i * 8 + 8].copy_from_slice(&entry.to_be_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn leaks_and_corruptions() {
    let dir = Dir::new();
    let make = |name: &str| {
        let path = qcow2(&dir, name, "compat=1.1");
        dir.qemu_io("qcow2", &path, &["write -P 1 0 1M"]);
        path
    };
    let leaks = make("leaks");
    edit_l2(&leaks, |entries| entries[..3].fill(0));
    same(&dir, &leaks);
    let shared = make("shared");
    edit_l2(&shared, |entries| entries[4] = entries[5]);
    same(&dir, &shared);
    let free = make("free");
    edit_l2(&free, |entries| entries[4] += 64 << 16);
    same(&dir, &free);
    let askew = make("askew");
    edit_l2(&askew, |entries| entries[4] |= 0x200);
    same(&dir, &askew);
}
