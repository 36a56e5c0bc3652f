//! Parallels images: what the tool prints and ends with, beside QEMU's.

#[path = "../common/bundle.rs"]
#[allow(dead_code, reason = "tests of formats use more of it")]
mod bundle;

use bundle::{MIXED, Made};

use crate::pair::{Loose, Pair, ours, words};

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f parallels empty.hdd 10M",
        "create -q -f parallels a.hdd 10M",
        "create -q -f parallels zero.hdd 0",
        "create -q -f parallels odd.hdd 1000001",
        "create -q -f parallels -o cluster_size=64k small.hdd 1M",
    ]);
    pair.qemu_io(
        "parallels",
        "a.hdd",
        &["write -P 1 5M 64k", "write -P 2 1M 2M"],
    );
    pair.qemu_io("parallels", "small.hdd", &["write -P 1 0 192k"]);
    pair.qemu("create -q -f qcow2 -b a.hdd -F parallels top.qcow2");
    pair
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = Pair::new();
    for line in [
        "create -f parallels b.hdd 10M",
        "create -f parallels b.hdd 0",
        "create -f parallels b.hdd 1000001",
        "create -f parallels -o cluster_size=1000 b.hdd 10M",
        "create -f parallels -o cluster_size=64k b.hdd 10M",
        "create -f parallels -o preallocation=falloc b.hdd 1M",
        "create -f parallels b.hdd",
        "create -f parallels -o help",
        "create -f parallels -b x.raw -F raw b.hdd 1M",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    pair.same_image("b.hdd", "parallels");
    // Neither leaves an image; ours leaves no empty file either.
    for line in [
        "create -f parallels -o preallocation=metadata c.hdd 1M",
        "create -f parallels -o cluster_size=0 c.hdd 1M",
        "create -f parallels -o cluster_size=512 c.hdd 2T",
        "create -f parallels c.hdd 1E",
    ] {
        let run = |tool: crate::common::Ran| (tool.code, tool.out, tool.err);
        let theirs = run(pair.theirs().qemu_img(&words(line)));
        let here = run(ours(&words(line), pair.ours().root()));
        assert_eq!(here, theirs, "{line}");
        assert!(!pair.ours().path("c.hdd").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("c.hdd"));
    }
}

#[test]
fn what_is_there_is_shown_alike() {
    let pair = images();
    for image in [
        "empty.hdd",
        "a.hdd",
        "zero.hdd",
        "odd.hdd",
        "small.hdd",
        "top.qcow2",
    ] {
        for command in [
            "info",
            "info --output=json",
            "map",
            "map --output=json",
            "check",
            "check --output=json",
        ] {
            pair.same_but(&format!("{command} {image}"), Loose::DiskSize);
        }
        pair.same_but(&format!("convert -O raw {image} out.raw"), Loose::DiskSize);
        if image != "zero.hdd" {
            pair.same_image("out.raw", "raw");
        }
    }
}

#[test]
fn damage_is_told_in_the_same_words() {
    let pair = images();
    let before = std::fs::read(pair.ours().path("small.hdd")).expect("the image");
    for (at, value) in [
        (28, 0_u32),
        (28, 1 << 28),
        (32, u32::MAX),
        (44, 0x746f_6e59),
        (44, 0x312e_3276),
        (48, 0),
        (48, 1),
        (48, 0x1000),
        (52, 1),
        (64, 2),
        (68, 0),
        (72, 0),
        (56, 9),
        (56, 0x180),
    ] {
        for line in [
            "info -f parallels small.hdd",
            "check -f parallels small.hdd",
            "check --output=json -f parallels small.hdd",
        ] {
            for dir in [pair.ours(), pair.theirs()] {
                std::fs::write(dir.path("small.hdd"), &before).expect("the image");
            }
            pair.patch("small.hdd", at, &value.to_le_bytes());
            if at == 56 {
                // The format extension counts as up to date.
                pair.patch("small.hdd", 44, b"v2.1");
            }
            pair.same(line);
        }
    }
    // QEMU's tool ends in an assertion here.
    for dir in [pair.ours(), pair.theirs()] {
        std::fs::write(dir.path("small.hdd"), &before).expect("the image");
    }
    pair.patch("small.hdd", 64, &256_u32.to_le_bytes());
    let line = "check small.hdd";
    let ran = ours(&words(line), pair.ours().root());
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.starts_with("ERROR cluster 0 is outside image\n"),
        "{ran:?}"
    );
    pair.same("check -r all small.hdd");
    pair.same("check small.hdd");
    pair.same_but("convert -O raw small.hdd out.raw", Loose::DiskSize);
    pair.same_image("out.raw", "raw");
}

#[test]
fn images_are_converted_and_resized() {
    let pair = images();
    for options in ["", "-o cluster_size=64k", "-S 0", "-W"] {
        for source in ["a.hdd", "odd.hdd", "top.qcow2", "zero.hdd"] {
            let line = format!("convert {options} -O parallels {source} new.hdd");
            pair.same_but(&line, Loose::DiskSize);
            pair.theirs().qemu_img_ok(&["check", "new.hdd"]);
            pair.ours().qemu_img_ok(&["check", "new.hdd"]);
            let same = pair.ours().qemu_img(&["compare", source, "new.hdd"]);
            assert_eq!(same.code, 0, "{line}: {same:?}");
        }
    }
    pair.same("convert -c -O parallels a.hdd no.hdd");
    let here = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), here.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    run("convert -O raw small.hdd a.raw");
    for size in ["20M", "2G", "40M"] {
        // The table of the second size does not fit in front of the data.
        let shrink = if size == "40M" { "--shrink " } else { "" };
        run(&format!("resize {shrink}small.hdd {size}"));
        run(&format!("resize {shrink}-f raw a.raw {size}"));
        here.qemu_img_ok(&["compare", "small.hdd", "a.raw"]);
        here.qemu_img_ok(&["check", "small.hdd"]);
    }
}

#[test]
fn a_bundle_is_a_disk_to_every_command_that_reads() {
    let made = Made::new(MIXED);
    let root = made.dir.root();
    let run = |line: &str| ours(&words(line), root);
    std::fs::write(made.dir.path("model.raw"), &made.model).expect("a model");
    let info = run("info disk.hdd");
    assert_eq!(info.code, 0, "{info:?}");
    for line in [
        "file format: parallels",
        "virtual size: 4 MiB (4194304 bytes)",
    ] {
        assert!(info.out.contains(line), "{info:?}");
    }
    let map = run("map --output=json disk.hdd");
    assert_eq!(map.code, 0, "{map:?}");
    let map: Vec<serde_json::Value> = serde_json::from_str(&map.out).expect("JSON");
    let at = |key: &str, at: usize| map[at][key].as_u64();
    let ends = |n: usize| Some(at("start", n)? + at("length", n)?);
    assert!(
        (1..map.len()).all(|n| at("start", n) == ends(n - 1)),
        "{map:?}"
    );
    assert_eq!(ends(map.len() - 1), Some(4 << 20));
    for line in [
        "check disk.hdd",
        "compare disk.hdd model.raw",
        "convert -O qcow2 disk.hdd new.qcow2",
        "compare disk.hdd new.qcow2",
        "measure -O qcow2 disk.hdd",
        "inspect disk.hdd",
    ] {
        let ran = run(line);
        let code = if line.starts_with("inspect") {
            ran.code & !2
        } else {
            ran.code
        };
        assert_eq!(code, 0, "{line}: {ran:?}");
    }
    let seen = made
        .dir
        .qemu_img(&words("compare -f qcow2 -F raw new.qcow2 model.raw"));
    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn whoever_would_write_to_a_bundle_is_told_that_it_is_read_only() {
    let made = Made::new(MIXED);
    let root = made.dir.root();
    std::fs::write(made.dir.path("model.raw"), &made.model).expect("a model");
    for line in [
        "resize disk.hdd 8M",
        "check -r all disk.hdd",
        "convert -n -f raw -O parallels model.raw disk.hdd",
    ] {
        let ran = ours(&words(line), root);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains("read-only"), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
}

#[test]
fn an_image_without_bitmaps_has_none_to_copy() {
    let pair = images();
    pair.all_same(&[
        "measure -O qcow2 a.hdd",
        "measure -O qcow2 --output=json small.hdd",
        "measure -O qcow2 -o compat=0.10 small.hdd",
        "measure -O raw a.hdd",
        "measure -O qcow2 top.qcow2",
        "convert --bitmaps -O raw small.hdd out.raw",
        "convert --bitmaps --skip-broken-bitmaps -O qcow2 small.hdd out.qcow2",
        "bitmap --remove small.hdd b",
    ]);
    pair.same("convert --bitmaps -O qcow2 small.hdd new.qcow2");
    pair.same_image("new.qcow2", "qcow2");
}
