//! Disks in parts of 2 GiB: parts come when the disk grows and go when it shrinks.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use platter::ops::map::map;
use platter::policy::{ImplicitAnswer, ImplicitFiles};
use platter::storage::Preallocation;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy};

use super::open;
use crate::common::Dir;

const GIB: u64 = 1 << 30;

fn create(dir: &Dir, kind: &str, name: &str, size: &str) {
    let options = format!("subformat=twoGbMaxExtent{kind}");
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "-o", &options, name, size]);
}

/// The names of the files of the directory that begin so.
fn files(dir: &Dir, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.root()).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a name"));
    let mut names: Vec<_> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort();
    names
}

fn byte(image: &Image, offset: u64) -> u8 {
    let mut read = [99];
    image.read_at(&mut read, offset).expect("a read");
    read[0]
}

#[test]
fn a_disk_in_parts_grows_by_parts_and_qemu_reads_it() {
    for kind in ["Sparse", "Flat"] {
        let dir = Dir::new();
        create(&dir, kind, "p.vmdk", "1M");
        let image = open(&dir, "p.vmdk", true).expect("it opens");
        image.write_at(&[1; 512], 0).expect("a write");
        // Within the part, to its end, beyond, and by several at once.
        let sizes = [3 << 20, 2 * GIB, 2 * GIB + 512, 3 * GIB, 9 * GIB + 1024];
        let ends = sizes.map(|len| {
            image.resize(len, Preallocation::Off).expect("another size");
            assert_eq!(image.len(), len);
            assert_eq!(byte(&image, len - 1), 0);
            image.write_at(&[2; 1024], len - 1024).expect("a write");
            len - 1
        });
        // Across the end of a part.
        image.write_at(&[3; 4096], 4 * GIB - 1000).expect("a write");
        let shown = image.children().len();
        assert_eq!(shown, 6, "{kind}: the descriptor and five parts");
        image.close().expect("an end");

        let image = open(&dir, "p.vmdk", false).expect("it opens again");
        assert_eq!(image.children().len(), shown);
        for end in ends {
            assert_eq!(byte(&image, end), 2, "{kind}: {end}");
        }
        assert_eq!(byte(&image, 0), 1);
        assert_eq!(byte(&image, 4 * GIB - 1000), 3);
        assert_eq!(byte(&image, 4 * GIB + 3095), 3);
        assert_eq!(byte(&image, 4 * GIB + 3096), 0);
        drop(image);
        let letter = kind[..1].to_ascii_lowercase();
        let parts = (1..=5).map(|n| format!("p-{letter}00{n}.vmdk"));
        let all: Vec<_> = parts.chain(["p.vmdk".to_owned()]).collect();
        assert_eq!(files(&dir, "p"), all);
        if kind == "Sparse" {
            dir.qemu_img_ok(&["check", "p.vmdk"]);
        }
        dir.qemu_img_ok(&["convert", "-O", "qcow2", "p.vmdk", "back.qcow2"]);
        assert_eq!(dir.qemu_img(&["compare", "p.vmdk", "back.qcow2"]).code, 0);
        // As one that QEMU's tool makes of that size.
        create(&dir, kind, "q.vmdk", &(9 * GIB + 1024).to_string());
        let extents = |name: &str| {
            let text = std::fs::read(dir.path(name)).expect("a descriptor");
            let text = String::from_utf8(text).expect("a text");
            let lines = text.lines().filter(|line| line.starts_with("RW "));
            lines.collect::<Vec<_>>().join("\n").replace("\"q-", "\"p-")
        };
        assert_eq!(extents("p.vmdk"), extents("q.vmdk"));
        let qemu = dir.qemu_io("vmdk", "p.vmdk", &["write -P 7 8G 1M", "read -P 7 8G 1M"]);
        assert!(!qemu.contains("ailed"), "{qemu}");
    }
}

#[test]
fn what_is_mapped_names_the_part_that_its_offset_is_of() {
    let dir = Dir::new();
    create(&dir, "Flat", "p.vmdk", "3G");
    let image = open(&dir, "p.vmdk", true).expect("it opens");
    for at in [0, 2 * GIB + 65536] {
        image.write_at(&[1; 65536], at).expect("a write");
    }
    let report = map(&image, 0, None, &mut Job::new()).expect("a map");
    let mut zeroes = Vec::new();
    for run in &report.entries {
        let file = report.files[0].of(run.slot).to_string();
        let part = if run.start < 2 * GIB { "1" } else { "2" };
        assert!(
            file.ends_with(&format!("/p-f00{part}.vmdk")),
            "{run:?}: {file}"
        );
        assert_eq!(run.offset, Some(run.start % (2 * GIB)));
        if run.zero {
            zeroes.push(part);
        }
    }
    zeroes.dedup();
    assert_eq!(zeroes, ["1", "2"]);
}

#[test]
fn parts_that_a_shorter_disk_does_without_are_removed() {
    for kind in ["Sparse", "Flat"] {
        let dir = Dir::new();
        create(&dir, kind, "p.vmdk", "5G");
        let image = open(&dir, "p.vmdk", true).expect("it opens");
        for at in [0, 2 * GIB - 512, 2 * GIB, 3 * GIB, 5 * GIB - 512] {
            image.write_at(&[5; 512], at).expect("a write");
        }
        for (len, parts) in [(4 * GIB, 2), (2 * GIB + 512, 2), (2 * GIB, 1), (GIB, 1)] {
            image.resize(len, Preallocation::Off).expect("another size");
            assert_eq!((image.len(), image.children().len()), (len, 1 + parts));
            assert_eq!(files(&dir, "p-").len(), parts, "{kind}: {len}");
        }
        // They come back empty.
        image.resize(5 * GIB, Preallocation::Off).expect("a size");
        for at in [2 * GIB - 512, 2 * GIB, 3 * GIB, 5 * GIB - 512] {
            assert_eq!(byte(&image, at), 0, "{kind}: {at}");
        }
        image.write_at(&[6; 512], 3 * GIB).expect("a write");
        image.close().expect("an end");
        let image = open(&dir, "p.vmdk", false).expect("it opens again");
        assert_eq!((byte(&image, 0), byte(&image, 3 * GIB)), (5, 6));
        assert_eq!(files(&dir, "p-").len(), 3);
        drop(image);
        if kind == "Sparse" {
            dir.qemu_img_ok(&["check", "p.vmdk"]);
        }
        let info = dir.qemu_img_ok(&["info", "p.vmdk"]);
        assert!(info.contains("(5368709120 bytes)"), "{info}");
    }
}

#[test]
fn space_is_allocated_in_parts_that_are_added() {
    for kind in ["Sparse", "Flat"] {
        let dir = Dir::new();
        create(&dir, kind, "p.vmdk", "2147418112");
        let image = open(&dir, "p.vmdk", true).expect("it opens");
        let len = 2 * GIB + (3 << 20);
        image.resize(len, Preallocation::Falloc).expect("a size");
        assert_eq!(byte(&image, len - 1), 0);
        let letter = kind[..1].to_ascii_lowercase();
        let part = dir.path(&format!("p-{letter}002.vmdk"));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&part.metadata().expect("a part"));
        assert!(blocks * 512 >= 3 << 20, "{kind}: {blocks}");
        image.close().expect("an end");
        let image = open(&dir, "p.vmdk", false).expect("it opens again");
        assert_eq!(byte(&image, len - 1), 0);
        drop(image);
        if kind == "Sparse" {
            dir.qemu_img_ok(&["check", "p.vmdk"]);
        }
    }
}

#[test]
fn what_a_longer_parent_holds_does_not_show_in_parts_that_are_added() {
    for zeroed in ["off", "on"] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "base.vmdk", "5G"]);
        let writes = ["write -P 8 0 1M", "write -P 8 2047M 2M", "write -P 8 3G 1M"];
        dir.qemu_io("vmdk", "base.vmdk", &writes);
        let options = format!("subformat=twoGbMaxExtentSparse,zeroed_grain={zeroed}");
        let create = ["create", "-q", "-f", "vmdk", "-o", &options];
        let backing = ["-b", "base.vmdk", "-F", "vmdk", "over.vmdk", "1M"];
        dir.qemu_img_ok(&[&create[..], &backing].concat());
        let image = open(&dir, "over.vmdk", true).expect("it opens");
        image.resize(4 * GIB, Preallocation::Off).expect("a size");
        image.close().expect("an end");
        let image = open(&dir, "over.vmdk", false).expect("it opens again");
        assert_eq!(byte(&image, 0), 8);
        for at in [1 << 20, 2047 << 20, 2 * GIB, 3 * GIB, 4 * GIB - 1] {
            assert_eq!(byte(&image, at), 0, "{zeroed}: {at}");
        }
    }
}

#[test]
fn a_file_in_the_way_of_a_new_part_is_left_alone() {
    let dir = Dir::new();
    create(&dir, "Sparse", "p.vmdk", "1M");
    let before = std::fs::read(dir.path("p.vmdk")).expect("a descriptor");
    for in_the_way in ["p-s002.vmdk", "p-s003.vmdk"] {
        std::fs::write(dir.path(in_the_way), b"somebody's").expect("a file");
        let image = open(&dir, "p.vmdk", true).expect("it opens");
        let error = image
            .resize(5 * GIB, Preallocation::Off)
            .expect_err("a file is in the way");
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        assert!(error.to_string().contains(in_the_way), "{error}");
        assert_eq!((image.len(), image.children().len()), (1 << 20, 2));
        image.close().expect("an end");
        let left = std::fs::read(dir.path(in_the_way)).expect("a file");
        assert_eq!(left, b"somebody's");
        std::fs::remove_file(dir.path(in_the_way)).expect("to remove it");
        assert_eq!(files(&dir, "p"), ["p-s001.vmdk", "p.vmdk"]);
        let now = std::fs::read(dir.path("p.vmdk")).expect("a descriptor");
        assert!(now == before, "the descriptor changed");
    }
}

#[test]
fn a_policy_is_asked_before_a_part_is_made() {
    let dir = Dir::new();
    create(&dir, "Flat", "p.vmdk", "1M");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = asked.clone();
    let open = |implicit_files| {
        let options = OpenOptions {
            format: Some("vmdk".to_owned()),
            writable: true,
            policy: OpenPolicy {
                implicit_files,
                ..OpenPolicy::permissive()
            },
            ..OpenOptions::default()
        };
        Image::open(&Location::from_path(dir.path("p.vmdk")), &options).expect("it opens")
    };
    let image = open(ImplicitFiles::Ask(Arc::new(move |file| {
        let name = file.name.to_string();
        let known = name == "p-f001.vmdk";
        names.lock().expect("a lock").push(name);
        Ok(match known {
            true => ImplicitAnswer::Open,
            false => ImplicitAnswer::Deny,
        })
    })));
    let error = image
        .resize(3 * GIB, Preallocation::Off)
        .expect_err("it is denied");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let seen = asked.lock().expect("a lock").clone();
    assert_eq!(seen, ["p-f001.vmdk", "p-f002.vmdk"]);
    assert_eq!(files(&dir, "p-"), ["p-f001.vmdk"]);
    image.close().expect("an end");

    let image = open(ImplicitFiles::Below(vec![dir.root().to_owned()]));
    image.resize(3 * GIB, Preallocation::Off).expect("a size");
    image.close().expect("an end");
    assert_eq!(files(&dir, "p-").len(), 2);
}

#[test]
fn a_part_has_the_permissions_of_the_one_before() {
    let dir = Dir::new();
    create(&dir, "Sparse", "p.vmdk", "1M");
    let mode = |name: &str| {
        let meta = dir.path(name).metadata().expect("a part");
        meta.permissions().mode() & 0o777
    };
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.path("p-s001.vmdk"), private).expect("a mode");
    let image = open(&dir, "p.vmdk", true).expect("it opens");
    image.resize(3 * GIB, Preallocation::Off).expect("a size");
    image.close().expect("an end");
    assert_eq!(mode("p-s002.vmdk"), 0o600);
}

#[test]
fn only_a_file_that_is_a_part_and_nothing_else_is_removed() {
    let dir = Dir::new();
    create(&dir, "Flat", "p.vmdk", "9G");
    // One has another name, one is a link, one holds something behind the part.
    std::fs::hard_link(dir.path("p-f005.vmdk"), dir.path("kept")).expect("a name");
    std::fs::rename(dir.path("p-f004.vmdk"), dir.path("moved")).expect("a name");
    symlink("moved", dir.path("p-f004.vmdk")).expect("a link");
    let part = dir.path("p-f003.vmdk");
    let long = std::fs::File::options().append(true).open(part);
    let long = long.expect("a part");
    long.set_len(2 * GIB + 4096).expect("a length");
    let image = open(&dir, "p.vmdk", true).expect("it opens");
    image.resize(GIB, Preallocation::Off).expect("a size");
    image.close().expect("an end");
    let names = ["p-f001.vmdk", "p-f003.vmdk", "p-f004.vmdk", "p-f005.vmdk"];
    assert_eq!(files(&dir, "p-"), names);
    assert!(dir.path("moved").is_file() && dir.path("kept").is_file());
}

#[test]
fn parts_are_added_only_where_their_names_follow() {
    let dir = Dir::new();
    for (name, words) in [
        ("odd.vmdk", "has no number"),
        ("q-s000.vmdk", "has that extent already"),
    ] {
        create(&dir, "Sparse", "p.vmdk", "3G");
        let text = std::fs::read_to_string(dir.path("p.vmdk")).expect("a descriptor");
        let text = text
            .replace("p-s002.vmdk", name)
            .replace("p-s001.vmdk", "q-s001.vmdk");
        std::fs::write(dir.path("p.vmdk"), text).expect("a descriptor");
        std::fs::rename(dir.path("p-s001.vmdk"), dir.path("q-s001.vmdk")).expect("a part");
        std::fs::rename(dir.path("p-s002.vmdk"), dir.path(name)).expect("a part");
        let image = open(&dir, "p.vmdk", true).expect("it opens");
        image.resize(4 * GIB, Preallocation::Off).expect("a size");
        let error = image
            .resize(5 * GIB, Preallocation::Off)
            .expect_err("no names");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(image.len(), 4 * GIB);
    }
}
