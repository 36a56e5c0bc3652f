//! `bitmap`, and bitmaps under the other commands: what is recorded and stored is the same.

use crate::common::{bitmaps_of, dirty_ranges, set_bitmap_flags};
use crate::pair::{Loose, Pair, ours, words};

/// Both images have the same bitmaps with the same bits, and ours is clean.
#[track_caller]
fn same_bitmaps(pair: &Pair, image: &str) {
    let check = pair.ours().qemu_img(&["check", image]);
    assert_eq!(check.code, 0, "{image}: {check:?}");
    let own = ours(&["check", image], pair.ours().root());
    assert_eq!(own.code, 0, "{image}: {own:?}");
    let list = bitmaps_of(pair.ours(), image);
    assert_eq!(list, bitmaps_of(pair.theirs(), image), "{image}");
    for (name, _, flags) in list {
        if !flags.iter().any(|flag| flag == "in-use") {
            assert_eq!(
                dirty_ranges(pair.ours(), image, &name),
                dirty_ranges(pair.theirs(), image, &name),
                "{image}: {name}"
            );
        }
    }
}

fn set_flags(pair: &Pair, image: &str, bitmap: &str, flags: u32) {
    for dir in [pair.ours(), pair.theirs()] {
        set_bitmap_flags(&dir.path(image), bitmap, flags);
    }
}

/// As [`Pair::same`] where QEMU's message has the name of a node, and ours that of the file.
fn same_but_node(pair: &Pair, line: &str) {
    let theirs = pair.theirs().qemu_img(&words(line));
    let own = ours(&words(line), pair.ours().root());
    let without = |text: &str| {
        let mut parts = text.split('\'').map(str::to_owned).collect::<Vec<_>>();
        // Of three quoted names the node's is the last.
        let at = parts.len() - 2;
        parts[at] = "X".to_owned();
        if let Some(at) = text.find("'#block").or_else(|| text.find("to '")) {
            return format!("{} {}", &text[..at.min(20)], parts.last().unwrap());
        }
        parts.join("'")
    };
    assert_eq!(own.code, theirs.code, "{line}: {own:?} {theirs:?}");
    assert_eq!(
        without(&own.err).split(' ').next_back(),
        without(&theirs.err).split(' ').next_back(),
        "{line}: {own:?} {theirs:?}"
    );
    for text in [&own.err, &theirs.err] {
        assert!(text.contains("Operation add on bitmap"), "{text}");
    }
}

#[test]
fn every_action() {
    let pair = Pair::new();
    for (image, options) in [
        ("a.qcow2", "-o cluster_size=64k"),
        ("small.qcow2", "-o cluster_size=512"),
        ("large.qcow2", "-o cluster_size=2M"),
        ("lazy.qcow2", "-o lazy_refcounts=on"),
        ("sub.qcow2", "-o extended_l2=on"),
    ] {
        pair.qemu(&format!("create -q -f qcow2 {options} {image} 10M"));
        for line in [
            "--add I b0",
            "--add -g 4k I fine",
            "--add --granularity=2M --disable I coarse",
        ] {
            pair.same(&format!("bitmap {}", line.replace('I', image)));
        }
        pair.qemu_io(
            "qcow2",
            image,
            &[
                "write 5000 1",
                "write 1M 70k",
                "discard 4M 1M",
                "write -z 9M 10k",
            ],
        );
        same_bitmaps(&pair, image);
        for line in [
            "--merge fine I coarse",
            "--add --disable I empty",
            "--add --merge coarse --merge b0 -g 32k I both",
            "--disable I b0",
            "--clear --enable I fine",
            "--merge both --merge empty I fine",
            "--merge fine I fine",
            "--remove I empty",
            "--clear --disable --enable I coarse",
            "--add --remove --add --clear I x",
            "--remove I both",
        ] {
            pair.same(&format!("bitmap {}", line.replace('I', image)));
        }
        same_bitmaps(&pair, image);
        for name in ["x", "fine", "coarse", "b0"] {
            pair.same(&format!("bitmap --remove -f qcow2 {image} {name}"));
        }
        same_bitmaps(&pair, image);
    }
}

#[test]
fn from_another_image() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 10M",
        "create -q -f qcow2 -o cluster_size=1k b.qcow2 10M",
        "create -q -f qcow2 big.qcow2 20M",
        "bitmap --add -g 512 a.qcow2 from",
        "bitmap --add b.qcow2 to",
        "bitmap --add big.qcow2 to",
    ]);
    pair.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write 100 1", "write 3M 1M", "write 10485759 1"],
    );
    for line in [
        "bitmap --merge from -b a.qcow2 b.qcow2 to",
        "bitmap --merge from -b a.qcow2 -F qcow2 b.qcow2 to",
        "bitmap --add --merge from --source-file=a.qcow2 --source-format=qcow2 -g 2k b.qcow2 t2",
        "bitmap --merge from -b a.qcow2 big.qcow2 to",
        "bitmap --merge nope -b a.qcow2 b.qcow2 to",
        "bitmap --merge from -b nope b.qcow2 to",
        "bitmap --merge from -b a.qcow2 -F bogus b.qcow2 to",
        "bitmap --image-opts --add driver=qcow2,file.filename=b.qcow2 zz",
    ] {
        pair.same(line);
    }
    same_bitmaps(&pair, "b.qcow2");
    same_bitmaps(&pair, "big.qcow2");
}

#[test]
fn refusals() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 10M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 10M",
        "create -q -f raw r.raw 10M",
        "bitmap --add a.qcow2 b0",
        "bitmap --add a.qcow2 broken",
        "bitmap --add a.qcow2 off",
    ]);
    set_flags(&pair, "a.qcow2", "broken", 3);
    set_flags(&pair, "a.qcow2", "off", 0);
    let long = "x".repeat(1024);
    for line in [
        "bitmap",
        "bitmap a.qcow2 b0",
        "bitmap -g 512 a.qcow2 b0",
        "bitmap -F qcow2 a.qcow2 b0",
        "bitmap -b x a.qcow2 b0",
        "bitmap --clear -g 512",
        "bitmap --clear -F raw",
        "bitmap --clear -b raw",
        "bitmap --clear -g 512 a.qcow2 b0",
        "bitmap --clear -F qcow2 a.qcow2 b0",
        "bitmap --clear -b a.qcow2 a.qcow2 b0",
        "bitmap --clear -b a.qcow2 -g 512 -F x a.qcow2 b0",
        "bitmap --clear",
        "bitmap --clear a.qcow2",
        "bitmap --clear a.qcow2 b0 c",
        "bitmap --clear -f qcow2 --image-opts a.qcow2 b0",
        "bitmap --clear -f qcow2 --image-opts",
        "bitmap --clear -f bogus a.qcow2 b0",
        "bitmap --clear nope b0",
        "bitmap --merge",
        "bitmap --add=x a.qcow2 b0",
        "bitmap -g 0 --clear a.qcow2 b0",
        "bitmap -g -1 --add a.qcow2 b1",
        "bitmap -g foo --add a.qcow2 b1",
        "bitmap -g 8E --add a.qcow2 b1",
        "bitmap -g 1000 --add a.qcow2 b1",
        "bitmap -g 1000 --add a.qcow2 b0",
        "bitmap -g 256 --add a.qcow2 b1",
        "bitmap -g 4G --add a.qcow2 b1",
        "bitmap --add a.qcow2 b0",
        "bitmap --add a.qcow2 broken",
        "bitmap --add a.qcow2 ''",
        "bitmap --add -g 3 a.qcow2 ''",
        "bitmap --remove a.qcow2 nope",
        "bitmap --clear a.qcow2 nope",
        "bitmap --enable a.qcow2 nope",
        "bitmap --disable a.qcow2 nope",
        "bitmap --merge b0 a.qcow2 nope",
        "bitmap --merge nope a.qcow2 b0",
        "bitmap --merge nope a.qcow2 no",
        "bitmap --clear a.qcow2 broken",
        "bitmap --enable a.qcow2 broken",
        "bitmap --disable a.qcow2 broken",
        "bitmap --merge broken a.qcow2 b0",
        "bitmap --merge b0 a.qcow2 broken",
        "bitmap --merge nope a.qcow2 broken",
        "bitmap --merge broken a.qcow2 nope",
        "bitmap --add --disable --merge nope a.qcow2 part",
        "bitmap --remove v2.qcow2 b0",
        "bitmap --merge b0 v2.qcow2 b0",
        "bitmap --clear -f raw r.raw b0",
        "bitmap --remove r.raw b0",
        "bitmap --add -f raw r.raw ''",
        "bitmap --merge b0 -b r.raw a.qcow2 b0",
        "bitmap --merge b0 -b v2.qcow2 a.qcow2 b0",
        "bitmap --merge b0 -b a.qcow2 a.qcow2 b0",
    ] {
        pair.same(line);
    }
    for line in [
        "bitmap --add -f raw r.raw b0".to_owned(),
        "bitmap --add v2.qcow2 b0".to_owned(),
        format!("bitmap --add a.qcow2 {long}"),
    ] {
        same_but_node(&pair, &line);
    }
    same_bitmaps(&pair, "a.qcow2");
    pair.same("bitmap --remove a.qcow2 broken");
    same_bitmaps(&pair, "a.qcow2");
}

#[test]
fn too_large_for_the_disk() {
    let pair = Pair::with(&["create -q -f qcow2 -o cluster_size=2M a.qcow2 1P"]);
    same_but_node(&pair, "bitmap --add -g 128k a.qcow2 b");
    pair.same("bitmap --add -g 256k a.qcow2 b");
    pair.same("bitmap --merge b a.qcow2 b");
    assert_eq!(
        bitmaps_of(pair.ours(), "a.qcow2"),
        bitmaps_of(pair.theirs(), "a.qcow2")
    );
}

#[test]
fn resize() {
    for cluster in ["512", "64k"] {
        let pair = Pair::with(&[
            &format!("create -q -f qcow2 -o cluster_size={cluster} a.qcow2 3M"),
            "bitmap --add -g 512 a.qcow2 fine",
            "bitmap --add --disable -g 1M a.qcow2 coarse",
            "bitmap --add -g 512 a.qcow2 all",
        ]);
        pair.qemu_io("qcow2", "a.qcow2", &["write -z 0 3M"]);
        pair.qemu("bitmap --clear a.qcow2 fine");
        pair.qemu_io("qcow2", "a.qcow2", &["write 0 1k", "write 2M 1M"]);
        pair.qemu("bitmap --merge fine a.qcow2 coarse");
        for size in [
            "3147264",
            "40M",
            "--shrink 2097664",
            "--shrink 1M",
            "1049088",
            "20M",
        ] {
            pair.same(&format!("resize a.qcow2 {size}"));
            same_bitmaps(&pair, "a.qcow2");
        }
        set_flags(&pair, "a.qcow2", "coarse", 1);
        pair.same("resize a.qcow2 30M");
        pair.same("resize --shrink a.qcow2 1M");
        same_bitmaps(&pair, "a.qcow2");
    }
}

#[test]
fn snapshots_are_not_applied_over_bitmaps() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 3M",
        "snapshot -c one a.qcow2",
        "bitmap --add --disable a.qcow2 b",
    ]);
    for line in [
        "snapshot -a one a.qcow2",
        "snapshot -a nope a.qcow2",
        "snapshot -c two a.qcow2",
        "snapshot -d one a.qcow2",
    ] {
        pair.same(line);
    }
    pair.same("bitmap --remove a.qcow2 b");
    pair.same("snapshot -a two a.qcow2");
}

#[test]
fn commit_and_rebase() {
    let pair = Pair::with(&[
        "create -q -f qcow2 base.qcow2 8M",
        "create -q -f qcow2 other.qcow2 8M",
    ]);
    pair.qemu_io("qcow2", "base.qcow2", &["write -P 9 5M 1M"]);
    for line in [
        "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
        "bitmap --add base.qcow2 b",
        "bitmap --add -g 4k top.qcow2 t",
    ] {
        pair.qemu(line);
    }
    pair.qemu_io("qcow2", "other.qcow2", &["write -P 5 6M 64k"]);
    pair.qemu_io(
        "qcow2",
        "top.qcow2",
        &["write -P 1 0 64k", "write -P 2 3M 200k", "write -z 5M 1M"],
    );
    pair.same("commit top.qcow2");
    same_bitmaps(&pair, "base.qcow2");
    same_bitmaps(&pair, "top.qcow2");
    pair.same("rebase -b other.qcow2 -F qcow2 top.qcow2");
    // How much of a copied piece is written differs: all that changed must be dirty.
    for dir in [pair.ours(), pair.theirs()] {
        let dirty = dirty_ranges(dir, "top.qcow2", "t");
        assert!(
            dirty
                .iter()
                .any(|(at, len)| *at <= 6 << 20 && at + len >= (6 << 20) + 65536)
        );
    }
}

#[test]
fn convert_copies_them() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 4M",
        "bitmap --add -g 4k a.qcow2 fine",
        "bitmap --add -g 256k a.qcow2 coarse",
        "bitmap --add a.qcow2 off",
        "create -q -f qcow2 empty.qcow2 4M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 4M",
        "create -q a.raw 4M",
        "create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2",
    ]);
    pair.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write -P 7 5000 1", "write -P 8 1M 64k"],
    );
    pair.qemu("bitmap --disable a.qcow2 off");
    pair.qemu("snapshot -c snap a.qcow2");
    for options in [
        "a.qcow2",
        "-c a.qcow2",
        "-o cluster_size=4k a.qcow2",
        "-o extended_l2=on a.qcow2",
        "-o data_file=data.raw a.qcow2",
        "-o preallocation=metadata a.qcow2",
        "-l snap a.qcow2",
        "empty.qcow2",
        "top.qcow2",
        "-W -m 4 a.qcow2",
        "-t none -T none a.qcow2",
    ] {
        pair.same(&format!("convert --bitmaps -O qcow2 {options} out.qcow2"));
        same_bitmaps(&pair, "out.qcow2");
        let direct = ["compare", "a.qcow2", "out.qcow2"];
        if !options.contains("empty") {
            assert_eq!(pair.ours().qemu_img(&direct).code, 0, "{options}");
        }
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::remove_file(dir.path("out.qcow2")).unwrap();
        }
    }
    let key = "--object secret,id=s,data=123456";
    pair.same(&format!(
        "convert {key} --bitmaps -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a.qcow2 enc.qcow2"
    ));
    assert_eq!(bitmaps_of(pair.ours(), "enc.qcow2").len(), 3);
    assert_eq!(
        bitmaps_of(pair.ours(), "enc.qcow2"),
        bitmaps_of(pair.theirs(), "enc.qcow2")
    );
    pair.all_same(&[
        "convert --bitmaps -O raw a.qcow2 y",
        "convert --bitmaps a.raw y",
        "convert --bitmaps -O qcow2 a.raw y",
        "convert --bitmaps -O qcow2 v2.qcow2 y",
        "convert --bitmaps -O qcow2 -o compat=0.10 a.qcow2 y",
        "convert --bitmaps -O qcow2 -o compat=v2 empty.qcow2 y",
        "convert --bitmaps -O qcow2 a.qcow2 a.qcow2 y",
        "convert --bitmaps -n -O qcow2 a.qcow2 v2.qcow2",
        "convert --bitmaps -n -O raw a.qcow2 a.raw",
        "convert --skip-broken-bitmaps -O qcow2 a.qcow2 y",
    ]);
}

#[test]
fn convert_into_an_image_that_exists() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 4M",
        "bitmap --add -g 4k a.qcow2 fine",
        "bitmap --add --disable a.qcow2 off",
        "create -q -f qcow2 none.qcow2 4M",
        "create -q -f qcow2 other.qcow2 4M",
        "bitmap --add other.qcow2 own",
        "create -q -f qcow2 taken.qcow2 4M",
        "bitmap --add -g 8k taken.qcow2 fine",
        "create -q -f qcow2 big.qcow2 8M",
    ]);
    pair.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write -P 7 5000 1", "write -P 8 1M 64k"],
    );
    for target in ["none.qcow2", "other.qcow2"] {
        pair.same(&format!("convert --bitmaps -n -O qcow2 a.qcow2 {target}"));
    }
    same_bitmaps(&pair, "none.qcow2");
    same_bitmaps(&pair, "other.qcow2");
    for target in ["taken.qcow2", "big.qcow2"] {
        pair.same(&format!("convert --bitmaps -n -O qcow2 a.qcow2 {target}"));
        let kept = bitmaps_of(pair.ours(), target);
        assert!(kept.iter().all(|(_, granularity, _)| *granularity == 8192));
    }
}

#[test]
fn convert_and_broken_ones() {
    let pair = Pair::with(&[
        "create -q -f qcow2 a.qcow2 4M",
        "bitmap --add a.qcow2 b1",
        "bitmap --add a.qcow2 b2",
        "bitmap --add a.qcow2 b3",
    ]);
    set_flags(&pair, "a.qcow2", "b1", 3);
    set_flags(&pair, "a.qcow2", "b3", 1);
    pair.same("convert --bitmaps -O qcow2 a.qcow2 y");
    assert!(!pair.ours().path("y").exists());
    pair.same("convert --bitmaps --skip-broken-bitmaps -O qcow2 a.qcow2 y");
    same_bitmaps(&pair, "y");
    pair.same_but(
        "convert -q -p --bitmaps --skip-broken-bitmaps -O qcow2 a.qcow2 z",
        Loose::Progress,
    );
    same_bitmaps(&pair, "z");
    pair.same("measure -O qcow2 a.qcow2");
    pair.same("measure -O qcow2 --output=json -o cluster_size=1k a.qcow2");
    pair.same("info a.qcow2");
}
