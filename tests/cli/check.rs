//! `check`: reports, findings and exit codes.

use crate::pair::{Loose, Pair, ours};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q a.raw 1M",
        "create -q -f qcow2 b.qcow2 4M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 4M",
        "create -q -f qcow2 -o extended_l2=on e.qcow2 4M",
        "create -q -f qcow2 -o refcount_bits=1 r1.qcow2 4M",
        "create -q -f qcow2 -o refcount_bits=64 r64.qcow2 4M",
        "create -q -f qcow2 -o cluster_size=512 s.qcow2 4M",
        "create -q -f qcow2 -o preallocation=metadata p.qcow2 4M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 4M",
        "create -q -f qcow2 -o lazy_refcounts=on lazy.qcow2 4M",
        "create -q -f qcow2 -b a.raw -F raw o.qcow2",
        "create -q -f qcow2 zero.qcow2 0",
    ]);
    for image in [
        "b.qcow2",
        "v2.qcow2",
        "e.qcow2",
        "r1.qcow2",
        "r64.qcow2",
        "s.qcow2",
    ] {
        pair.qemu_io("qcow2", image, &["write -P 1 0 100k", "write -P 2 3M 64k"]);
    }
    pair.qemu("convert -c -O qcow2 b.qcow2 c.qcow2");
    pair
}

#[test]
fn clean_images() {
    let pair = images();
    let mut lines = Vec::new();
    for image in [
        "b.qcow2",
        "v2.qcow2",
        "e.qcow2",
        "r1.qcow2",
        "r64.qcow2",
        "s.qcow2",
        "p.qcow2",
        "d.qcow2",
        "lazy.qcow2",
        "o.qcow2",
        "zero.qcow2",
        "c.qcow2",
        "./b.qcow2",
    ] {
        for options in [
            "",
            "--output=json",
            "-q",
            "-q --output=json",
            "-f qcow2",
            "-U",
            "-T none",
            "-T writethrough",
        ] {
            lines.push(format!("check {options} {image}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn snapshots_and_bitmaps() {
    let pair = images();
    let theirs = pair.theirs();
    theirs.qemu_img_ok(&["snapshot", "-c", "one", "b.qcow2"]);
    theirs.qemu_io(
        "qcow2",
        "b.qcow2",
        &["write -P 5 0 64k", "write -P 6 2M 64k"],
    );
    theirs.qemu_img_ok(&["snapshot", "-c", "two", "b.qcow2"]);
    theirs.qemu_img_ok(&["bitmap", "--add", "b.qcow2", "dirty"]);
    std::fs::copy(theirs.path("b.qcow2"), pair.ours().path("b.qcow2")).expect("a copy");
    pair.all_same(&["check b.qcow2", "check --output=json b.qcow2"]);
}

/// The host offset of the cluster that a table entry at `offset` holds.
fn entry(pair: &Pair, image: &str, offset: u64) -> u64 {
    let bytes = std::fs::read(pair.ours().path(image)).expect("the image");
    let at = usize::try_from(offset).expect("an offset");
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & 0x00ff_ffff_ffff_fe00
}

#[test]
fn leaks() {
    let pair = images();
    // The cluster of guest offset 0 loses its only reference.
    let l1 = entry(&pair, "b.qcow2", 40);
    let l2 = entry(&pair, "b.qcow2", l1);
    pair.patch("b.qcow2", l2, &[0; 8]);
    let ran = pair.same("check b.qcow2");
    assert_eq!(ran.code, 3);
    pair.all_same(&["check --output=json b.qcow2", "check -q b.qcow2"]);
}

#[test]
fn corruptions() {
    let pair = images();
    // A cluster in use whose refcount says that it is free.
    let table = entry(&pair, "b.qcow2", 48);
    let block = entry(&pair, "b.qcow2", table);
    let l1 = entry(&pair, "b.qcow2", 40);
    let l2 = entry(&pair, "b.qcow2", l1);
    let data = entry(&pair, "b.qcow2", l2);
    pair.patch("b.qcow2", block + 2 * (data / 65536), &[0; 2]);
    let ran = pair.same("check b.qcow2");
    assert_eq!(ran.code, 2);
    pair.all_same(&["check --output=json b.qcow2", "check -q b.qcow2"]);

    // Two guest clusters share one host cluster.
    let l1 = entry(&pair, "v2.qcow2", 40);
    let l2 = entry(&pair, "v2.qcow2", l1);
    let first = (entry(&pair, "v2.qcow2", l2) | 1 << 63).to_be_bytes();
    pair.patch("v2.qcow2", l2 + 8, &first);
    pair.all_same(&["check v2.qcow2", "check --output=json v2.qcow2"]);

    // An unaligned data cluster.
    let l1 = entry(&pair, "r64.qcow2", 40);
    let l2 = entry(&pair, "r64.qcow2", l1);
    let data = (entry(&pair, "r64.qcow2", l2) + 0x200) | 1 << 63;
    pair.patch("r64.qcow2", l2, &data.to_be_bytes());
    pair.all_same(&["check r64.qcow2", "check --output=json r64.qcow2"]);

    // An L2 table behind the end of the file.
    let l1 = entry(&pair, "e.qcow2", 40);
    pair.patch("e.qcow2", l1, &((1u64 << 40) | 1 << 63).to_be_bytes());
    pair.all_same(&["check e.qcow2", "check --output=json e.qcow2"]);
}

#[test]
fn formats_without_a_check() {
    let pair = images();
    for line in [
        "check a.raw",
        "check -f raw b.qcow2",
        "check --output=json a.raw",
        "check -q a.raw",
    ] {
        assert_eq!(pair.same(line).code, 63, "{line}");
    }
}

#[test]
fn errors() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -u -b nope.raw -F raw missing.qcow2 1M");
    pair.directory("dir");
    pair.file("empty", b"");
    pair.all_same(&[
        "check",
        "check b.qcow2 s.qcow2",
        "check nope",
        "check ''",
        "check dir",
        "check foo:x",
        "check -f bogus a.raw",
        "check -f qcow2 a.raw",
        "check -f qcow2 empty",
        "check missing.qcow2",
        "check -r x a.raw",
        "check -r",
        "check -r leaks -U b.qcow2",
        "check --output zz b.qcow2",
        "check -T bogus b.qcow2",
        "check -T bogus nope",
        "check -T bogus -r x --output zz b.qcow2",
        "check -T bogus -f raw --image-opts nope",
        "check --image-opts -f raw b.qcow2",
        "check --image-opts driver=qcow2,file.filename=b.qcow2",
        "check --output=json --image-opts driver=qcow2,file.filename=b.qcow2",
    ]);
}

#[test]
fn a_repair_that_finds_nothing() {
    let pair = images();
    pair.all_same(&["check -r all -f raw a.raw", "check -r all a.raw"]);
}

#[test]
fn untrusted_checks_the_one_file() {
    let pair = images();
    let dir = pair.ours().root();
    assert_eq!(
        ours(&["check", "--untrusted", "b.qcow2"], dir),
        pair.same_but("check b.qcow2", Loose::Exact)
    );
}
