//! Whole chains, layer by layer.

use std::path::Path;
use std::sync::{Arc, Mutex};

use platter::job::Verdict;
use platter::ops::convert::{ConvertRequest, convert};
use platter::policy::ImplicitFiles;
use platter::storage::CacheMode;
use platter::{Job, OpenPolicy, Options};

use crate::backing::chain;
use crate::common::Dir;
use crate::support::{check, refused, request, run_ok};

fn whole(dir: &Dir, source: &str, target: &str) -> ConvertRequest {
    let mut request = request(dir, source, target, "qcow2");
    request.target.whole_chain = true;
    request
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("a name")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// The runs of data, each with the number of layers above the one that holds it.
fn data_runs(dir: &Dir, image: &str) -> Vec<(u64, u64, u64)> {
    let text = dir.qemu_img_ok(&["map", "--output=json", image]);
    let runs: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let mut joined: Vec<(u64, u64, u64)> = Vec::new();
    // A cluster that ends in a hole of the file is listed in two parts.
    for run in runs.iter().filter(|run| run["data"] == true) {
        let number = |key: &str| run[key].as_u64().expect("a number");
        let (start, len, depth) = (number("start"), number("length"), number("depth"));
        match joined.last_mut() {
            Some(last) if (last.0 + last.1, last.2) == (start, depth) => last.1 += len,
            _ => joined.push((start, len, depth)),
        }
    }
    joined
}

#[test]
fn each_layer_keeps_its_name_and_holds_what_it_held() {
    let dir = Dir::new();
    chain(&dir);
    run_ok(&whole(&dir, "top.qcow2", "out"));
    assert_eq!(
        files(&dir.path("out")),
        ["base.qcow2", "mid.qcow2", "top.qcow2"]
    );
    for name in ["base.qcow2", "mid.qcow2", "top.qcow2"] {
        let made = format!("out/{name}");
        check(&dir, &made);
        let source = if name == "base.qcow2" {
            "base.raw"
        } else {
            name
        };
        dir.qemu_img_ok(&["compare", source, &made]);
    }
    let info = dir.qemu_img_ok(&["info", "--output=json", "out/top.qcow2"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["backing-filename"], "mid.qcow2");
    assert_eq!(info["backing-filename-format"], "qcow2");
    assert_eq!(info["virtual-size"], 12 << 20);
    assert_eq!(
        data_runs(&dir, "top.qcow2"),
        data_runs(&dir, "out/top.qcow2")
    );
}

#[test]
fn layers_of_the_same_name_are_told_apart() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("sub")).expect("a directory");
    for line in [
        "create -q -f raw sub/disk.raw 1M",
        "create -q -f qcow2 -b disk.raw -F raw sub/disk.qcow2",
        "create -q -f qcow2 -b sub/disk.qcow2 -F qcow2 disk.qcow2",
    ] {
        dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    }
    run_ok(&whole(&dir, "disk.qcow2", "out"));
    assert_eq!(
        files(&dir.path("out")),
        ["disk-2.qcow2", "disk.qcow2", "disk.qcow2.qcow2"]
    );
    dir.qemu_img_ok(&["compare", "disk.qcow2", "out/disk-2.qcow2"]);
}

#[test]
fn bitmaps_stay_with_their_layers() {
    let dir = Dir::new();
    chain(&dir);
    for (image, bitmap) in [("mid.qcow2", "a"), ("top.qcow2", "b")] {
        dir.qemu_img_ok(&["bitmap", "--add", image, bitmap]);
    }
    let mut request = whole(&dir, "top.qcow2", "out");
    request.source.bitmaps = true;
    run_ok(&request);
    for (image, bitmap) in [("out/mid.qcow2", "a"), ("out/top.qcow2", "b")] {
        let found = crate::common::bitmaps_of(&dir, image);
        assert_eq!(found.len(), 1, "{image}: {found:?}");
        assert_eq!(found[0].0, bitmap);
    }
}

#[test]
fn the_options_hold_for_every_layer_and_durable_modes_work() {
    let dir = Dir::new();
    chain(&dir);
    let mut request = whole(&dir, "top.qcow2", "out");
    request.target.options = Options::parse("cluster_size=4k").expect("options");
    request.target.cache = CacheMode::Writeback;
    // Neither may name others; those that are made name each other all the same.
    request.target.policy = OpenPolicy::default();
    request.source.options.policy = OpenPolicy {
        implicit_files: ImplicitFiles::Below(vec![dir.root().to_owned()]),
        ..OpenPolicy::default()
    };
    run_ok(&request);
    for name in files(&dir.path("out")) {
        let text = dir.qemu_img_ok(&["info", &format!("out/{name}")]);
        assert!(text.contains("cluster_size: 4096"), "{text}");
    }
}

#[test]
fn progress_runs_over_all_layers_and_never_back() {
    let dir = Dir::new();
    chain(&dir);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let mut job = Job::new().on_progress(Box::new(move |progress| {
        into.lock().expect("a lock").push(progress);
        Verdict::Continue
    }));
    convert(&whole(&dir, "top.qcow2", "out"), &mut job).expect("a conversion");
    let seen = seen.lock().expect("a lock");
    assert!(
        seen.windows(2).all(|pair| pair[0].done <= pair[1].done),
        "{seen:?}"
    );
    let last = seen.last().expect("a report");
    assert_eq!(last.done, last.total);
    assert!(
        seen.iter().all(|progress| progress.total == last.total),
        "{seen:?}"
    );
}

#[test]
fn what_cannot_be_leaves_nothing_behind() {
    let dir = Dir::new();
    chain(&dir);
    let mut raw = whole(&dir, "top.qcow2", "out");
    raw.target.format = Some("raw".to_owned());
    assert!(refused(&raw).contains("Backing file not supported for file format 'raw'"));
    assert!(!dir.path("out").exists());
    std::fs::create_dir(dir.path("there")).expect("a directory");
    let text = refused(&whole(&dir, "top.qcow2", "there"));
    assert!(text.contains("exists"), "{text}");
    assert!(dir.path("there").exists());
    let text = refused(&whole(&dir, "top.qcow2", "no/such"));
    assert!(text.contains("No such file"), "{text}");
    // The upper layer is damaged: the lower one was made and goes.
    let bytes = std::fs::read(dir.path("top.qcow2")).expect("an image");
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().expect("8 bytes")) as usize;
    let mut damaged = bytes;
    damaged[l1..l1 + 8].copy_from_slice(&0x8000_0000_0000_1234u64.to_be_bytes());
    std::fs::write(dir.path("damaged.qcow2"), damaged).expect("an image");
    refused(&whole(&dir, "damaged.qcow2", "out"));
    assert!(!dir.path("out").exists());
    // A plain disk is a chain of one.
    let mut one = whole(&dir, "base.raw", "out");
    one.target.format = Some("raw".to_owned());
    run_ok(&one);
    assert_eq!(files(&dir.path("out")), ["base.raw"]);
}
