//! VDI images: what the tool prints and ends with, beside QEMU's.

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
        "create -f vdi -o help",
        "create -f vdi -o help a.vdi",
        "create -f vdi -b x.vdi a.vdi 1M",
        "create -f vdi -F raw a.vdi 1M",
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
    for (at, bytes) in [
        (64, &[0][..]),
        (68, &[2]),
        (0x154, &[1]),
        (0x158, &[1]),
        (0x168, &[0, 16]),
        (0x171, &[0, 0, 0, 0, 0, 8]),
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
