//! The worked examples of QEMU's manual pages, run as printed where 10.0.2 allows it.

use crate::pair::{Loose, Pair, ours, words};

/// "Construct a thin image called diff.qcow2 that contains just the differences": as printed, both
/// lines are refused since QEMU asks for the backing format; with it they do what the page says.
#[test]
fn a_thin_image_of_the_differences_by_rebase() {
    let pair = Pair::with(&["create -q base.img 8M"]);
    pair.qemu_io("raw", "base.img", &["write -P 1 0 4M"]);
    pair.qemu("convert -O raw base.img modified.img");
    pair.qemu_io(
        "raw",
        "modified.img",
        &["write -P 2 1M 64k", "write -P 3 6M 10k"],
    );

    let ran = pair.same("create -f qcow2 -b modified.img diff.qcow2");
    assert!(ran.code == 1 && ran.err.contains("without backing format"));
    pair.same("create -f qcow2 -b modified.img -F raw diff.qcow2");
    let ran = pair.same("rebase -b base.img diff.qcow2");
    assert!(ran.code == 1 && ran.err.contains("backing format must be specified"));
    pair.same("rebase -b base.img -F raw diff.qcow2");

    // "At this point, modified.img can be discarded."
    let root = pair.ours().root().to_owned();
    assert_eq!(
        ours(&words("compare modified.img diff.qcow2"), &root).out,
        "Images are identical.\n"
    );
    for dir in [pair.ours(), pair.theirs()] {
        std::fs::remove_file(dir.path("modified.img")).unwrap();
    }
    pair.same("map --output=json -f qcow2 diff.qcow2");
    pair.same_image("diff.qcow2", "qcow2");
    let thin = pair.ours().path("diff.qcow2").metadata().unwrap().len();
    assert!(thin < 1 << 20, "just the differences: {thin}");
}

/// "To enumerate information about each disk image in the above chain, starting from top to base."
#[test]
fn a_chain_of_snapshots_listed() {
    let pair = Pair::with(&["create -q -f qcow2 base.qcow2 10M"]);
    pair.qemu_io("qcow2", "base.qcow2", &["write 0 1M"]);
    pair.same("create -f qcow2 -b base.qcow2 -F qcow2 snap1.qcow2");
    pair.same("create -f qcow2 -b snap1.qcow2 -F qcow2 snap2.qcow2");
    let ran = pair.same_but("info --backing-chain snap2.qcow2", Loose::DiskSize);
    let names: Vec<&str> = ran
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("image: "))
        .collect();
    assert_eq!(names, ["snap2.qcow2", "snap1.qcow2", "base.qcow2"]);
    pair.same_but(
        "info --backing-chain --output=json snap2.qcow2",
        Loose::DiskSize,
    );
    pair.same_but("info snap2.qcow2", Loose::DiskSize);
}

/// The overlay that is committed: into its backing file, and into one further down with `-b`.
#[test]
fn overlays_committed() {
    let pair = Pair::with(&["create -q -f qcow2 base.qcow2 4M"]);
    pair.qemu_io("qcow2", "base.qcow2", &["write -P 1 0 1M"]);
    pair.same("create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2");
    pair.same("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2");
    pair.qemu_io("qcow2", "mid.qcow2", &["write -P 2 512k 64k"]);
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 3 2M 64k"]);
    assert_eq!(pair.same("commit top.qcow2").out, "Image committed.\n");
    pair.same("map --output=json top.qcow2");
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 4 3M 64k"]);
    pair.same("commit -b base.qcow2 top.qcow2");
    pair.same_image("base.qcow2", "qcow2");
    pair.same("compare base.qcow2 top.qcow2");
}

/// The listing of `map`: what an overlay holds itself, and what its backing file holds.
#[test]
fn the_listing_of_map() {
    let pair = Pair::with(&["create -q -f qcow2 backing.qcow2 2M"]);
    pair.qemu_io("qcow2", "backing.qcow2", &["write 1M 64k"]);
    pair.qemu("create -q -f qcow2 -b backing.qcow2 -F qcow2 overlay.qcow2");
    pair.qemu_io("qcow2", "overlay.qcow2", &["write 0 128k"]);
    let ran = pair.same("map -f qcow2 --output=human overlay.qcow2");
    assert_eq!(
        ran.out,
        "Offset          Length          Mapped to       File\n\
         0               0x20000         0x50000         overlay.qcow2\n\
         0x100000        0x10000         0x50000         backing.qcow2\n"
    );
    pair.same("map -f qcow2 --output=json overlay.qcow2");
}

/// The rest of what the pages show, in their order.
#[test]
fn the_other_lines() {
    let pair = Pair::with(&["create -q -f qcow2 src.qcow2 3M"]);
    pair.qemu_io("qcow2", "src.qcow2", &["write -P 5 0 100k"]);
    for line in [
        "create -f qcow2 -o ?",
        "create -f qcow2 -o preallocation=metadata test.qcow2 4G",
        "create -f qcow2 -o backing_file=src.qcow2,backing_fmt=qcow2 over.qcow2",
        "convert -f qcow2 -O raw src.qcow2 out.raw",
        "convert -c -O qcow2 src.qcow2 packed.qcow2",
        "convert -O qcow2 -o backing_file=src.qcow2,backing_fmt=qcow2 over.qcow2 copy.qcow2",
        "compare -f qcow2 -F raw src.qcow2 out.raw",
        "compare -s src.qcow2 out.raw",
        "check src.qcow2",
        "snapshot -c first src.qcow2",
        "convert -l snapshot.name=first -O raw src.qcow2 first.raw",
        "convert -l first -O raw src.qcow2 first.raw",
        "snapshot -d first src.qcow2",
        "snapshot -l src.qcow2",
        "measure --size 10G -O qcow2",
        "measure --output json -O qcow2 src.qcow2",
        "dd -f qcow2 -O raw bs=4k count=10 if=src.qcow2 of=part.raw",
        "resize --preallocation=off src.qcow2 +1M",
        "resize --shrink src.qcow2 2M",
        "rebase -u -b '' over.qcow2",
    ] {
        pair.same(line);
    }
    for (name, format) in [
        ("out.raw", "raw"),
        ("first.raw", "raw"),
        ("part.raw", "raw"),
        ("packed.qcow2", "qcow2"),
        ("test.qcow2", "qcow2"),
        ("src.qcow2", "qcow2"),
    ] {
        pair.same_image(name, format);
    }
}
