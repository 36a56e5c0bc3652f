//! VDI images: what the tool prints and ends with, beside QEMU's.

use std::os::unix::fs::MetadataExt;

use crate::common::{Dir, Ran};
use crate::pair::{Loose, Pair, ours, words};

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f vdi empty.vdi 10M",
        "create -q -f vdi a.vdi 10M",
        "create -q -f vdi -o static=on s.vdi 3M",
        "create -q -f vdi zero.vdi 0",
        "create -q -f vdi odd.vdi 1000001",
    ]);
    pair.qemu_io("vdi", "a.vdi", &["write -P 1 5M 64k", "write -P 2 1M 2M"]);
    pair.qemu_io("vdi", "s.vdi", &["write -P 1 1M 64k"]);
    pair.qemu("create -q -f qcow2 -b a.vdi -F vdi top.qcow2");
    pair
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = Pair::new();
    for line in [
        "create -f vdi a.vdi 10M",
        "create -f vdi a.vdi 0",
        "create -f vdi a.vdi 1",
        "create -f vdi a.vdi 1000001",
        "create -q -f vdi a.vdi 1M",
        "create -f vdi -o static=on a.vdi 3M",
        "create -f vdi -o static=maybe a.vdi 3M",
        "create -f vdi -o static=on,preallocation=full a.vdi 1M",
        "create -f vdi -o preallocation=falloc a.vdi 1M",
        "create -f vdi -o block_size=64k a.vdi 1M",
        "create -f vdi a.vdi",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    // Neither leaves an image; ours leaves no empty file either.
    for line in [
        "create -f vdi -o preallocation=metadata b.vdi 1M",
        "create -f vdi b.vdi 0x1fffff8000001",
        "create -f vdi b.vdi 1P",
    ] {
        let run = |tool: crate::common::Ran| (tool.code, tool.out, tool.err);
        let theirs = run(pair.theirs().qemu_img(&words(line)));
        assert_eq!(
            run(ours(&words(line), pair.ours().root())),
            theirs,
            "{line}"
        );
        assert!(!pair.ours().path("b.vdi").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("b.vdi"));
    }
}

#[test]
fn what_is_there_is_shown_alike() {
    let pair = images();
    for image in [
        "empty.vdi",
        "a.vdi",
        "s.vdi",
        "zero.vdi",
        "odd.vdi",
        "top.qcow2",
    ] {
        for command in [
            "info",
            "info --output=json",
            "map",
            "map --output=json",
            "check",
            "check --output=json",
            "convert -O raw",
        ] {
            let line = match command {
                "convert -O raw" => format!("convert -O raw {image} out.raw"),
                _ => format!("{command} {image}"),
            };
            pair.same_but(&line, Loose::DiskSize);
        }
        if image != "zero.vdi" {
            pair.same_image("out.raw", "raw");
        }
    }
}

#[test]
fn damage_is_told_in_the_same_words() {
    let pair = images();
    for (patches, code) in [
        (&[(0x184, 1)][..], 2),
        (&[(0x200 + 4, 9)], 2),
        (&[(0x200 + 4, 77)], 2),
        (&[(0x200 + 4, 1), (0x200 + 8, 1)], 2),
        (&[(0x200, u32::MAX - 1)], 0),
    ] {
        let before = std::fs::read(pair.ours().path("a.vdi")).expect("the image");
        for (at, value) in patches {
            pair.patch("a.vdi", *at, &u32::to_le_bytes(*value));
        }
        let line = "check a.vdi";
        let theirs = pair.theirs().qemu_img(&words(line));
        let here = ours(&words(line), pair.ours().root());
        assert!(
            here.err.starts_with(&theirs.err) || code == 0,
            "{here:?} {theirs:?}"
        );
        // An index that no block could have is damage, also where theirs has nothing to say of it.
        if theirs.code == code {
            assert_eq!(here.code, theirs.code, "{patches:?}");
        }
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::write(dir.path("a.vdi"), &before).expect("the image");
        }
    }
    // A count that is wrong beside an entry that is wrong is one error more.
    for patches in [
        &[(0x204, 77)][..],
        &[(0x204, 77), (0x184, 9)],
        &[(0x204, 77), (0x184, 1)],
    ] {
        let before = std::fs::read(pair.ours().path("a.vdi")).expect("the image");
        for (at, value) in patches {
            pair.patch("a.vdi", *at, &u32::to_le_bytes(*value));
        }
        pair.same("check a.vdi");
        pair.same("check --output=json a.vdi");
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::write(dir.path("a.vdi"), &before).expect("the image");
        }
    }
    for (at, bytes) in [
        (64, &[0][..]),
        (68, &[2]),
        (0x154, &[1]),
        (0x158, &[1]),
        (0x168, &[0, 16]),
        (0x171, &[0, 0, 0, 0, 0, 8]),
        (0x170, &[1]),
        (0x180, &[1]),
        (0x183, &[0x20]),
    ] {
        let before = std::fs::read(pair.ours().path("a.vdi")).expect("the image");
        pair.patch("a.vdi", at, bytes);
        pair.same("info -f vdi a.vdi");
        pair.same("check -f vdi a.vdi");
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::write(dir.path("a.vdi"), &before).expect("the image");
        }
    }
}

#[test]
fn images_are_converted_resized_and_committed_to() {
    let pair = images();
    for options in ["", "-o static=on", "-S 0", "-W"] {
        for source in ["a.vdi", "s.vdi", "odd.vdi", "top.qcow2", "zero.vdi"] {
            let line = format!("convert {options} -O vdi {source} new.vdi");
            pair.same_but(&line, Loose::DiskSize);
            pair.theirs().qemu_img_ok(&["check", "new.vdi"]);
            pair.ours().qemu_img_ok(&["check", "new.vdi"]);
            let same = pair.ours().qemu_img(&["compare", source, "new.vdi"]);
            assert_eq!(same.code, 0, "{line}: {same:?}");
        }
    }
    let here = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), here.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    };
    run("convert -O raw a.vdi a.raw");
    run("resize a.vdi 20M");
    run("resize -f raw a.raw 20M");
    here.qemu_img_ok(&["compare", "a.vdi", "a.raw"]);
    run("resize --shrink a.vdi 4M");
    run("resize --shrink -f raw a.raw 4M");
    here.qemu_img_ok(&["compare", "a.vdi", "a.raw"]);
    here.qemu_img_ok(&["check", "a.vdi"]);
    run("resize s.vdi 5M");
    here.qemu_img_ok(&["check", "s.vdi"]);
    run("create -q -f qcow2 -b s.vdi -F vdi over.qcow2");
    here.qemu_io(
        "qcow2",
        "over.qcow2",
        &["write -P 7 4M 100k", "write -z 0 1M"],
    );
    run("convert -O raw over.qcow2 over.raw");
    run("commit over.qcow2");
    here.qemu_img_ok(&["compare", "s.vdi", "over.raw"]);
    here.qemu_img_ok(&["check", "s.vdi"]);
    let measured = run("measure -O vdi --size 10M");
    assert_eq!(
        measured,
        "required size: 1048576\nfully allocated size: 11534336\n"
    );
}

/// Runs our tool, which must end so.
fn ended(dir: &Dir, line: &str, code: i32) -> Ran {
    let ran = ours(&words(line), dir.root());
    assert_eq!(ran.code, code, "{line}: {ran:?}");
    ran
}

/// A refusal, of which the image is left as it was, or is not made.
fn refused(dir: &Dir, line: &str, parts: &[&str]) {
    let ran = ended(dir, line, 1);
    for part in parts {
        assert!(ran.err.contains(part), "{line}: no '{part}': {}", ran.err);
    }
}

#[test]
fn a_differencing_image_is_made_and_finds_its_parent() {
    let dir = Dir::new();
    let run = |line: &str| ended(&dir, line, 0).out;
    dir.qemu_img_ok(&["create", "-q", "-f", "vdi", "base.vdi", "5M"]);
    dir.qemu_io("vdi", "base.vdi", &["write -P 1 0 5M"]);
    assert_eq!(
        run("create -f vdi -b base.vdi -F vdi top.vdi"),
        "Formatting 'top.vdi', fmt=vdi size=5242880 backing_file=base.vdi backing_fmt=vdi static=off\n"
    );
    let header = |at: usize| std::fs::read(dir.path("top.vdi")).expect("it")[at..at + 4].to_vec();
    assert_eq!(header(0x4c), [4, 0, 0, 0]);
    let parent = std::fs::read(dir.path("base.vdi")).expect("the parent");
    let top = std::fs::read(dir.path("top.vdi")).expect("the image");
    assert_eq!(top[0x1a8..0x1c8], parent[0x188..0x1a8]);
    run("compare base.vdi top.vdi");
    // What a write leaves of its block is the parent's.
    run("convert -O raw base.vdi model");
    for (file, format) in [("top.vdi", "vdi"), ("model", "raw")] {
        run(&format!(
            "bench -q -w --pattern 7 -c 1 -s 4096 -o 1050624 -f {format} {file}"
        ));
    }
    let same = || run("compare -F raw top.vdi model");
    same();
    run("check top.vdi");
    let map = run("map --output=json top.vdi");
    assert!(map.contains("\"depth\": 1"), "{map}");
    // Growing and shrinking.
    run("resize -q top.vdi 7M");
    run("resize -q -f raw model 7M");
    same();
    run("resize -q --shrink top.vdi 4608k");
    run("resize -q --shrink -f raw model 4608k");
    same();
    // Another one below it, then a parent that holds something else, with and without the data.
    run("create -q -f vdi -b top.vdi -F vdi leaf.vdi");
    run("compare -F raw leaf.vdi model");
    run("rebase -b base.vdi -F vdi leaf.vdi");
    run("compare -F raw leaf.vdi model");
    run("rebase -u -b top.vdi -F vdi leaf.vdi");
    run("compare -F raw leaf.vdi model");
    // What is above goes down.
    run("bench -q -w --pattern 9 -c 1 -s 65536 -o 0 -f vdi leaf.vdi");
    run("bench -q -w --pattern 9 -c 1 -s 65536 -o 0 -f raw model");
    run("commit -q leaf.vdi");
    same();
    run("commit -q top.vdi");
    let base = run("info base.vdi");
    assert!(base.contains("virtual size: 5 MiB"), "{base}");
    dir.qemu_img_ok(&["check", "base.vdi"]);
    run("resize -q --shrink base.vdi 4608k");
    dir.qemu_img_ok(&["compare", "base.vdi", "model"]);
    // Alone.
    run("create -q -f vdi -b base.vdi -F vdi alone.vdi");
    run("rebase -b '' alone.vdi");
    dir.qemu_img_ok(&["compare", "alone.vdi", "model"]);
}

#[test]
fn a_difference_is_converted_to_over_its_parent() {
    let dir = Dir::new();
    let run = |line: &str| ended(&dir, line, 0).out;
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "base.qcow2", "5M"]);
    dir.qemu_io("qcow2", "base.qcow2", &["write -P 1 0 5M"]);
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "base.qcow2",
        "-F",
        "qcow2",
        "top.qcow2",
        "6M",
    ]);
    dir.qemu_io(
        "qcow2",
        "top.qcow2",
        &[
            "write -P 2 1100k 64k",
            "write -z 3M 1M",
            "write -z 4352k 64k",
        ],
    );
    run("convert -O vdi base.qcow2 base.vdi");
    run("convert -O vdi -B base.vdi -F vdi top.qcow2 top.vdi");
    run("compare top.qcow2 top.vdi");
    run("check top.vdi");
    let held = std::fs::metadata(dir.path("top.vdi")).expect("it").len();
    assert!(held <= 5 << 20, "{held}");
    // Layer by layer.
    run("convert --chain -O vdi top.qcow2 layers");
    run("compare top.qcow2 layers/top.vdi");
    let top = run("info --backing-chain layers/top.vdi");
    assert!(top.contains("layers/base.vdi"), "{top}");
    run("convert --chain -O qcow2 layers/top.vdi back");
    dir.qemu_img_ok(&["compare", "top.qcow2", "back/top.qcow2"]);
}

#[test]
fn a_parent_that_would_not_be_found_is_refused() {
    let dir = Dir::new();
    let run = |line: &str| ended(&dir, line, 0).out;
    std::fs::create_dir(dir.path("sub")).expect("a directory");
    std::fs::create_dir(dir.path("Snapshots")).expect("a directory");
    run("create -q -f vdi sub/base.vdi 3M");
    run("create -q -f vdi other.vdi 3M");
    run("create -q -f raw raw.img 3M");
    std::os::unix::fs::symlink("sub/base.vdi", dir.path("link.vdi")).expect("a link");
    let remedy = "Keep the image and its parent in one directory";
    for line in [
        "create -f vdi -b sub/base.vdi -F vdi top.vdi",
        "create -f vdi -b link.vdi -F vdi top.vdi",
        "convert -O vdi -B sub/base.vdi -F vdi other.vdi top.vdi",
    ] {
        refused(&dir, line, &["by the UUID", "would not find", remedy]);
        assert!(!dir.path("top.vdi").exists(), "{line}");
    }
    for (line, part) in [
        ("create -f vdi -b raw.img -F raw top.vdi", "is a VDI image"),
        (
            "create -f vdi -b other.vdi -F vdi -o static=on top.vdi",
            "fixed VDI image",
        ),
        ("create -f vdi -b missing.vdi -F vdi top.vdi", "missing.vdi"),
        (
            "create -f vdi -u -b missing.vdi -F vdi top.vdi 3M",
            "has to be opened",
        ),
        ("create -f vdi -F vdi top.vdi 3M", "without backing file"),
        (
            "create -f vdi -b other.vdi top.vdi",
            "without backing format",
        ),
    ] {
        refused(&dir, line, &[part]);
        assert!(!dir.path("top.vdi").exists(), "{line}");
    }
    // Where the product has children, the parent is found.
    run("create -q -f vdi -b ../other.vdi -F vdi Snapshots/top.vdi");
    run("compare other.vdi Snapshots/top.vdi");
    let before = std::fs::read(dir.path("Snapshots/top.vdi")).expect("the image");
    refused(
        &dir,
        "rebase -b ../sub/base.vdi -F vdi Snapshots/top.vdi",
        &["would not find", remedy],
    );
    assert_eq!(
        std::fs::read(dir.path("Snapshots/top.vdi")).expect("the image"),
        before
    );
    // What nobody vouches for is not looked at.
    run("create -q -f vdi -u -b sub/base.vdi -F vdi far.vdi 3M");
    refused(&dir, "map far.vdi", &["which no image has in"]);
    run("map --image-opts driver=vdi,file.filename=far.vdi,backing.file.filename=sub/base.vdi");
    // A copy has the same UUID; one that the image replaces does not count.
    std::fs::copy(dir.path("other.vdi"), dir.path("copy.vdi")).expect("a copy");
    refused(
        &dir,
        "create -f vdi -b other.vdi -F vdi top.vdi",
        &["both", "other.vdi", "copy.vdi", "Move the file"],
    );
    run("create -q -f vdi -b other.vdi -F vdi copy.vdi");
    run("compare other.vdi copy.vdi");
    // One without a UUID has no children.
    let mut bytes = std::fs::read(dir.path("other.vdi")).expect("the parent");
    bytes[0x188..0x198].fill(0);
    std::fs::write(dir.path("nil.vdi"), bytes).expect("a parent");
    refused(
        &dir,
        "create -f vdi -b nil.vdi -F vdi top.vdi",
        &["has no UUID"],
    );
    refused(
        &dir,
        "rebase -u -b nil.vdi -F vdi copy.vdi",
        &["has no UUID"],
    );
}

/// What a write copies of the parent into its block takes no more space than it does there.
#[test]
fn holes_of_the_parent_stay_holes() {
    let dir = Dir::new();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    run("create -q -f vdi base.vdi 4M");
    run("create -q model 4M");
    for (name, format) in [("base.vdi", "vdi"), ("model", "raw")] {
        run(&format!(
            "bench -q -w --pattern 5 -c 1 -s 4096 -o 1M -f {format} {name}"
        ));
    }
    run("create -q -f vdi -b base.vdi -F vdi top.vdi");
    for (name, format) in [("top.vdi", "vdi"), ("model", "raw")] {
        run(&format!(
            "bench -q -w --pattern 6 -c 1 -s 4096 -o 1536k -f {format} {name}"
        ));
    }
    run("compare -F raw top.vdi model");
    run("check top.vdi");
    let made = std::fs::metadata(dir.path("top.vdi")).expect("the image");
    assert!(made.blocks() * 512 <= 64 << 10, "{} blocks", made.blocks());
}
