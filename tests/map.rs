//! `map` against `qemu-img map`: the same JSON, the same table, the same error.

mod common;

use common::Dir;
use platter::ops::map::map;
use platter::{Image, Job, Location, OpenOptions, OpenPolicy};

fn open(path: &str, format: Option<&str>) -> Image {
    let options = OpenOptions {
        format: format.map(str::to_owned),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::parse(path).unwrap(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

fn same(dir: &Dir, path: &str, format: Option<&str>) {
    let image = open(path, format);
    let report = map(&image, 0, None, &mut Job::new()).unwrap();
    let mut args = vec!["map"];
    if let Some(format) = format {
        args.extend(["-f", format]);
    }
    let mut json = args.clone();
    json.extend(["--output=json", path]);
    assert_eq!(report.json(), dir.qemu_img_ok(&json), "{path}");
    args.push(path);
    let peer = dir.qemu_img(&args);
    let (text, result) = report.text();
    assert_eq!(text, peer.out, "{path}");
    let line = result.map_or_else(|error| format!("qemu-img: {error}\n"), |()| String::new());
    assert_eq!(line, peer.err, "{path}");
}

fn qcow2(dir: &Dir, name: &str, options: &str, commands: &[&str]) -> String {
    let path = dir.str(name);
    let list = format!(
        "compat=1.1{}{options}",
        if options.is_empty() { "" } else { "," }
    );
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", &list, &path, "8M"]);
    if !commands.is_empty() {
        dir.qemu_io("qcow2", &path, commands);
    }
    path
}

const WRITES: &[&str] = &[
    "write -P 1 0 256k",
    "write -P 2 700k 3k",
    "write -z 64k 64k",
    "write -z 1000k 4k",
    "write -P 3 4M 1M",
    "write -P 4 3M 1M",
];

#[test]
fn raw_data_and_holes() {
    let dir = Dir::new();
    let path = dir.str("disk");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", &path, "8M"]);
    same(&dir, &path, Some("raw"));
    dir.qemu_io("raw", &path, &["write -P 1 1M 1M", "write -P 1 5000k 1k"]);
    same(&dir, &path, Some("raw"));
    std::fs::write(dir.path("odd"), vec![7; 1000]).unwrap();
    same(&dir, &dir.str("odd"), Some("raw"));
    std::fs::write(dir.path("empty"), []).unwrap();
    same(&dir, &dir.str("empty"), Some("raw"));
}

#[test]
fn qcow2_clusters_of_every_kind() {
    let dir = Dir::new();
    for (name, options) in [
        ("default", ""),
        ("extended", "extended_l2=on"),
        ("small", "cluster_size=512"),
        ("large", "cluster_size=2M"),
        ("lazy", "lazy_refcounts=on"),
    ] {
        let path = qcow2(&dir, name, options, WRITES);
        same(&dir, &path, None);
    }
}

#[test]
fn preallocated_metadata_shows_the_holes_of_the_file() {
    let dir = Dir::new();
    for mode in ["metadata", "falloc", "full"] {
        let options = format!("preallocation={mode}");
        let path = qcow2(&dir, mode, &options, &[]);
        same(&dir, &path, None);
        dir.qemu_io("qcow2", &path, &["write -P 1 0 100k", "write -P 1 300k 4k"]);
        same(&dir, &path, None);
    }
}

#[test]
fn an_external_data_file() {
    let dir = Dir::new();
    for raw in ["off", "on"] {
        let data = dir.str(&format!("data-{raw}"));
        let options = format!("data_file={data},data_file_raw={raw}");
        let path = qcow2(&dir, &format!("top-{raw}"), &options, WRITES);
        same(&dir, &path, None);
    }
}

#[test]
fn compressed_clusters_have_no_place() {
    let dir = Dir::new();
    std::fs::write(dir.path("source"), vec![7; 300_000]).unwrap();
    for kind in ["zlib", "zstd"] {
        let path = dir.str(kind);
        let option = format!("compression_type={kind}");
        let source = dir.str("source");
        dir.qemu_img_ok(&[
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &option, &source, &path,
        ]);
        same(&dir, &path, None);
    }
}

#[test]
fn chains_with_depths() {
    let dir = Dir::new();
    let base = qcow2(&dir, "base", "", WRITES);
    let raw = dir.str("raw");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", &raw, "1M"]);
    dir.qemu_io("raw", &raw, &["write -P 1 64k 64k"]);
    for (name, below, format, size) in [
        ("over-qcow2", base.as_str(), "qcow2", "16M"),
        ("over-raw", raw.as_str(), "raw", "4M"),
        ("shorter", base.as_str(), "qcow2", "3M"),
    ] {
        let top = dir.str(name);
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-b", below, "-F", format, &top, size,
        ]);
        same(&dir, &top, None);
        dir.qemu_io("qcow2", &top, &["write -P 9 2M 64k", "write -z 192k 64k"]);
        same(&dir, &top, None);
        let third = dir.str(&format!("{name}-3"));
        let list = "extended_l2=on";
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", list, "-b", &top, "-F", "qcow2", &third, "20M",
        ]);
        dir.qemu_io("qcow2", &third, &["write -P 9 66k 2k", "write -z 70k 2k"]);
        same(&dir, &third, None);
    }
}

#[test]
fn a_part_of_the_image() {
    let dir = Dir::new();
    let path = qcow2(&dir, "disk", "", WRITES);
    let image = open(&path, None);
    for (start, length) in [
        (100, Some(70_000)),
        (0, Some(0)),
        (3_000_000, Some(1 << 40)),
        (8 << 20, None),
        (9 << 20, Some(4)),
        (5000, None),
    ] {
        let report = map(&image, start, length, &mut Job::new()).unwrap();
        let start = start.to_string();
        let mut args = vec!["map", "--output=json", "-s", &start];
        let length = length.map(|n: u64| n.to_string());
        if let Some(length) = &length {
            args.extend(["-l", length]);
        }
        args.push(&path);
        assert_eq!(report.json(), dir.qemu_img_ok(&args), "{start} {length:?}");
    }
}
