//! `commit`: what goes down, what is left above.

use std::os::unix::fs::MetadataExt;

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

/// base 1M ← mid 1M ← top 2M, each with data and zeroes of its own.
fn chain() -> Pair {
    let pair = Pair::with(&[
        "create -q base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw mid.qcow2",
        "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 2M",
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 1 0 1M"]);
    fill(&pair);
    pair
}

fn fill(pair: &Pair) {
    pair.qemu_io(
        "qcow2",
        "mid.qcow2",
        &[
            "write -P 3 256k 64k",
            "write -P 4 600k 10k",
            "write -z 700k 100k",
        ],
    );
    pair.qemu_io(
        "qcow2",
        "top.qcow2",
        &[
            "write -P 2 0 64k",
            "write -z 128k 64k",
            "write -P 5 1500k 30k",
            "write -P 6 610k 1k",
        ],
    );
}

fn same_chain(pair: &Pair) {
    pair.same_image("base.raw", "raw");
    pair.same_image("mid.qcow2", "qcow2");
    pair.same_image("top.qcow2", "qcow2");
}

/// The layers of the map, in runs as long as they can be.
fn map(dir: &Dir, image: &str) -> Vec<(u64, u64)> {
    let text = dir.qemu_img_ok(&["map", "--output=json", image]);
    let runs: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let mut layers: Vec<(u64, u64)> = Vec::new();
    for run in runs {
        let start = run["start"].as_u64().expect("an offset");
        let depth = run["depth"].as_u64().expect("a depth");
        if layers.last().is_none_or(|last| last.1 != depth) {
            layers.push((start, depth));
        }
    }
    layers
}

#[test]
fn into_the_image_below() {
    let pair = chain();
    pair.same("commit top.qcow2");
    same_chain(&pair);
    assert_eq!(
        map(pair.ours(), "top.qcow2"),
        map(pair.theirs(), "top.qcow2")
    );
    // Once more, and one further down.
    fill(&pair);
    pair.same("commit -q top.qcow2");
    pair.same("commit -f qcow2 -t none mid.qcow2");
    same_chain(&pair);
    let len = |dir: &Dir| std::fs::metadata(dir.path("top.qcow2")).expect("top").len();
    assert!(len(pair.ours()) <= len(pair.theirs()));
}

#[test]
fn into_any_image_of_the_chain_and_keeping() {
    for line in [
        "commit -b base.raw top.qcow2",
        "commit -b ./base.raw top.qcow2",
        "commit --base=mid.qcow2 top.qcow2",
        "commit -d top.qcow2",
        "commit -d -b base.raw -t unsafe top.qcow2",
        "commit -t writethrough top.qcow2",
        "commit -t directsync top.qcow2",
        "commit -r 100M top.qcow2",
        "commit --image-opts driver=qcow2,file.filename=top.qcow2",
        "commit --image-opts -b base.raw driver=qcow2,file.filename=top.qcow2",
    ] {
        let pair = chain();
        pair.same(line);
        same_chain(&pair);
        assert_eq!(
            map(pair.ours(), "top.qcow2"),
            map(pair.theirs(), "top.qcow2"),
            "{line}"
        );
        fill(&pair);
        same_chain(&pair);
    }
}

#[test]
fn past_a_layer_that_records_what_its_parent_is() {
    // QEMU's tool does not commit into Parallels.
    for format in ["vdi", "vhdx", "vpc", "vmdk", "qed", "qcow", "raw", "qcow2"] {
        // Another format records a name alone.
        let pair = Pair::with(&[
            &format!("create -q -f {format} base 4M"),
            &format!("create -q -f qcow2 -b base -F {format} mid"),
            "create -q -f qcow2 -b mid -F qcow2 top",
        ]);
        pair.qemu_io("qcow2", "top", &["write -P 7 0 64k", "write -P 8 3M 64k"]);
        pair.same("commit -f qcow2 -b base -d top");
        for dir in [pair.ours(), pair.theirs()] {
            for (format, name) in [(format, "base"), ("qcow2", "mid"), ("qcow2", "top")] {
                let seen = ["read -P 7 0 64k", "read -P 0 64k 2M", "read -P 8 3M 64k"];
                dir.qemu_io(format, name, &seen);
            }
        }
    }
    // Its own would have to be told, and is another one then for what is in between.
    for format in ["vmdk", "vhdx", "vpc", "vdi"] {
        let dir = Dir::new();
        for line in [
            format!("create -q -f {format} base 4M"),
            format!("create -q -f {format} -b base -F {format} mid"),
            format!("create -q -f {format} -b mid -F {format} top"),
            format!("bench -q -w -c 4 -f {format} top"),
        ] {
            assert_eq!(ours(&words(&line), dir.root()).code, 0, "{format}: {line}");
        }
        let read = |name: &str| {
            let line = format!("convert -f {format} -O raw {name} {name}.raw");
            assert_eq!(ours(&words(&line), dir.root()).code, 0, "{format}: {name}");
            std::fs::read(dir.path(&format!("{name}.raw"))).unwrap()
        };
        let before = ["top", "mid", "base"].map(read);
        let line = format!("commit -f {format} -b base -d top");
        let ran = ours(&words(&line), dir.root());
        assert_eq!(ran.code, 1, "{format}: {ran:?}");
        let why =
            "is known to the layer above it by what it holds; commit one layer after the other";
        assert!(ran.err.contains(why), "{format}: {ran:?}");
        assert!(before == ["top", "mid", "base"].map(read), "{format}");
        for line in [
            format!("commit -f {format} top"),
            format!("commit -f {format} mid"),
        ] {
            assert_eq!(ours(&words(&line), dir.root()).code, 0, "{format}: {line}");
        }
        assert!(before.first() == ["base"].map(read).first(), "{format}");
    }
}

#[test]
fn progress() {
    let pair = chain();
    pair.same_but("commit -p top.qcow2", Loose::Progress);
    fill(&pair);
    pair.same("commit -p -q top.qcow2");
    same_chain(&pair);
}

#[test]
fn other_layouts() {
    for options in [
        "compat=0.10",
        "cluster_size=512",
        "extended_l2=on,cluster_size=16k",
        "lazy_refcounts=on",
        "refcount_bits=1",
        "compression_type=zstd",
        "cluster_size=2M",
    ] {
        let pair = Pair::with(&[
            &format!("create -q -f qcow2 -o {options} base.qcow2 3M"),
            &format!("create -q -f qcow2 -o {options} -b base.qcow2 -F qcow2 top.qcow2 5M"),
        ]);
        pair.qemu_io("qcow2", "base.qcow2", &["write -P 1 100k 2M"]);
        pair.qemu_io(
            "qcow2",
            "top.qcow2",
            &[
                "write -P 2 1M 700k",
                "write -c -P 3 2M 2M",
                "write -z 300k 500k",
                "write -P 4 4999k 1k",
            ],
        );
        pair.same("commit top.qcow2");
        pair.same_image("base.qcow2", "qcow2");
        pair.same_image("top.qcow2", "qcow2");
        assert_eq!(
            map(pair.ours(), "top.qcow2"),
            map(pair.theirs(), "top.qcow2"),
            "{options}"
        );
    }
}

/// Zeroes that the overlay holds as data hide what the base has, and take no space where it has
/// nothing.
#[test]
fn zeroes_among_data() {
    for (format, sparse) in [("raw", true), ("qcow2", true), ("qcow2", false)] {
        let pair = Pair::with(&[
            &format!("create -q -f {format} base 8M"),
            &format!("create -q -f qcow2 -b base -F {format} top.qcow2"),
        ]);
        if !sparse {
            pair.qemu_io(format, "base", &["write -P 1 1M 1M", "write -P 2 5000k 3k"]);
        }
        let small: Vec<_> = (0..64)
            .map(|n| format!("write -P 7 {} 4k", n * (128 << 10) + (n % 16) * 4096))
            .collect();
        let mut writes: Vec<_> = small.iter().map(String::as_str).collect();
        writes.extend(["write -P 0 1200k 600k", "write -P 0 5001k 1k"]);
        pair.qemu_io("qcow2", "top.qcow2", &writes);
        pair.same("commit top.qcow2");
        pair.same_image("base", format);
        pair.same_image("top.qcow2", "qcow2");
        let blocks = std::fs::metadata(pair.ours().path("base"))
            .expect("the base")
            .blocks();
        assert!(
            !sparse || blocks * 512 < 1 << 20,
            "{format}: {blocks} blocks"
        );
    }
}

#[test]
fn an_overlay_with_a_snapshot_keeps_it() {
    let pair = chain();
    pair.qemu("snapshot -c s top.qcow2");
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 9 0 128k"]);
    let before = pair.ours().qemu_img_ok(&["snapshot", "-l", "top.qcow2"]);
    pair.same("commit top.qcow2");
    pair.same_image("base.raw", "raw");
    pair.same_image("mid.qcow2", "qcow2");
    assert_eq!(
        pair.ours().qemu_img_ok(&["snapshot", "-l", "top.qcow2"]),
        before
    );
    pair.qemu("snapshot -a s top.qcow2");
    pair.same("compare top.qcow2 top.qcow2");
    let (ours, theirs) = (pair.ours().str("top.qcow2"), pair.theirs().str("top.qcow2"));
    pair.ours().qemu_img_ok(&["compare", &ours, &theirs]);
    pair.ours().qemu_img_ok(&["check", "top.qcow2"]);
}

#[test]
fn a_base_with_a_backing_file_longer_than_itself() {
    let pair = Pair::with(&[
        "create -q low.raw 2M",
        "create -q -f qcow2 -b low.raw -F raw base.qcow2 1M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 2M",
    ]);
    pair.qemu_io("raw", "low.raw", &["write -P 1 0 2M"]);
    pair.qemu_io("qcow2", "top.qcow2", &["write -P 2 1800k 64k"]);
    pair.same("commit top.qcow2");
    pair.same_image("base.qcow2", "qcow2");
    pair.same_image("top.qcow2", "qcow2");
}

#[test]
fn errors() {
    let pair = chain();
    pair.qemu("create -q -f qcow2 -u -b nope.raw -F raw missing.qcow2 1M");
    pair.all_same(&[
        "commit",
        "commit a b",
        "commit nope",
        "commit base.raw",
        "commit -f raw base.raw",
        "commit -b nope top.qcow2",
        "commit -b top.qcow2 top.qcow2",
        "commit -b '' top.qcow2",
        "commit -t bogus top.qcow2",
        "commit -t bogus nope",
        "commit -r xx top.qcow2",
        "commit -r -1 top.qcow2",
        "commit --image-opts -f raw top.qcow2",
        "commit -f raw top.qcow2",
        "commit -f bogus top.qcow2",
        "commit missing.qcow2",
        "commit -z top.qcow2",
    ]);
    same_chain(&pair);
}

#[test]
fn a_guessed_raw_base_gets_no_header_of_another_format() {
    let pair = Pair::with(&["create -q base.raw 1M"]);
    // No format is recorded for the base.
    pair.qemu("create -q -f qcow2 -b base.raw -F raw top.qcow2");
    pair.qemu("rebase -u -b base.raw -F raw top.qcow2");
    for dir in [pair.theirs(), pair.ours()] {
        let mut bytes = std::fs::read(dir.path("top.qcow2")).expect("top");
        let at = bytes
            .windows(4)
            .position(|w| w == [0xe2, 0x79, 0x2a, 0xca])
            .expect("the format");
        bytes[at..at + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        std::fs::write(dir.path("top.qcow2"), bytes).expect("top");
    }
    pair.file("magic", b"QFI\xfb\0\0\0\x03");
    pair.qemu_io("qcow2", "top.qcow2", &["write -s magic 0 512"]);
    let ran = pair.same("commit top.qcow2");
    assert_eq!(ran.code, 1);
}

#[test]
fn untrusted_opens_no_chain() {
    let pair = chain();
    let ran = ours(
        &["commit", "--untrusted", "-f", "qcow2", "top.qcow2"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1);
    same_chain(&pair);
}
