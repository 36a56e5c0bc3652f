//! `rebase`: the guest sees what it saw, on another backing file.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours};

/// Three bases that share some data and differ in some, of different lengths.
fn bases() -> Pair {
    let pair = Pair::with(&[
        "create -q old.raw 2M",
        "create -q new.raw 3M",
        "create -q short.raw 300k",
        "create -q -f qcow2 old.qcow2 2M",
        "create -q -f qcow2 -b old.qcow2 -F qcow2 mid.qcow2 3M",
    ]);
    pair.qemu_io(
        "raw",
        "old.raw",
        &["write -P 1 0 1M", "write -P 2 1600k 100k"],
    );
    pair.qemu_io("raw", "new.raw", &["write -P 1 0 512k", "write -P 7 1M 2M"]);
    pair.qemu_io("raw", "short.raw", &["write -P 1 100k 200k"]);
    pair.qemu_io(
        "qcow2",
        "old.qcow2",
        &["write -P 1 0 1M", "write -z 1M 512k"],
    );
    pair.qemu_io(
        "qcow2",
        "mid.qcow2",
        &["write -P 3 512k 64k", "write -P 4 2500k 100k"],
    );
    pair
}

fn overlay(pair: &Pair, options: &str, base: &str, format: &str, size: &str) {
    pair.qemu(&format!(
        "create -q -f qcow2 -o {options} -b {base} -F {format} top.qcow2 {size}"
    ));
    pair.qemu_io(
        "qcow2",
        "top.qcow2",
        &["write -P 9 128k 70k", "write -z 400k 200k"],
    );
    for dir in [pair.theirs(), pair.ours()] {
        dir.qemu_img_ok(&["convert", "-O", "raw", "top.qcow2", "seen.raw"]);
    }
}

/// Our overlay shows what it showed before, is whole, and says the same of itself as theirs.
#[track_caller]
fn unchanged(pair: &Pair) {
    for dir in [pair.ours(), pair.theirs()] {
        dir.qemu_img_ok(&["compare", "-F", "raw", "top.qcow2", "seen.raw"]);
    }
    pair.same_image("top.qcow2", "qcow2");
}

fn allocated(dir: &Dir) -> u64 {
    let text = dir.qemu_img_ok(&["map", "--output=json", "top.qcow2"]);
    let runs: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let own = runs
        .iter()
        .filter(|run| run["depth"] == 0 && run["present"] == true);
    own.map(|run| run["length"].as_u64().expect("a length"))
        .sum()
}

#[test]
fn from_any_base_to_any() {
    for (base, format) in [
        ("old.raw", "raw"),
        ("short.raw", "raw"),
        ("mid.qcow2", "qcow2"),
    ] {
        for line in [
            "rebase -b new.raw -F raw top.qcow2",
            "rebase -b short.raw -F raw top.qcow2",
            "rebase -b mid.qcow2 -F qcow2 top.qcow2",
            "rebase -b old.qcow2 -F qcow2 -f qcow2 -t none -T unsafe top.qcow2",
            "rebase -b '' top.qcow2",
            "rebase -b '' -c top.qcow2",
            "rebase -c -q -U -b new.raw -F raw top.qcow2",
            "rebase --image-opts -b new.raw -F raw driver=qcow2,file.filename=top.qcow2",
        ] {
            let pair = bases();
            overlay(&pair, "cluster_size=64k", base, format, "2500k");
            pair.same(line);
            unchanged(&pair);
            // Nothing more is copied than theirs copies.
            assert!(
                allocated(pair.ours()) <= allocated(pair.theirs()),
                "{base}: {line}"
            );
        }
    }
}

#[test]
fn other_layouts() {
    for options in [
        "compat=0.10",
        "cluster_size=512",
        "extended_l2=on,cluster_size=16k",
        "lazy_refcounts=on",
        "cluster_size=2M",
        "compression_type=zstd",
    ] {
        for line in [
            "rebase -b new.raw -F raw top.qcow2",
            "rebase -b short.raw -F raw top.qcow2",
            "rebase -c -b '' top.qcow2",
        ] {
            if options.contains("extended_l2") && line.contains("-c") {
                continue;
            }
            let pair = bases();
            overlay(&pair, options, "mid.qcow2", "qcow2", "3500k");
            pair.same(line);
            unchanged(&pair);
        }
    }
}

/// Ours alone: QEMU's tool lets the new backing file show through an image of version 2, and gives
/// up on compressing where some subclusters are there already.
#[test]
fn where_theirs_fails() {
    let show = |pair: &Pair| {
        let dir = pair.ours();
        dir.qemu_img_ok(&["compare", "-F", "raw", "top.qcow2", "seen.raw"]);
        dir.qemu_img_ok(&["check", "top.qcow2"]);
    };
    for options in ["compat=0.10", "compat=1.1", "extended_l2=on"] {
        let pair = bases();
        pair.qemu(&format!("create -q -f qcow2 -o {options} top.qcow2 2M"));
        pair.qemu_io("qcow2", "top.qcow2", &["write -P 9 128k 70k"]);
        let dir = pair.ours();
        dir.qemu_img_ok(&["convert", "-O", "raw", "top.qcow2", "seen.raw"]);
        let args = ["rebase", "-b", "new.raw", "-F", "raw", "top.qcow2"];
        assert_eq!(ours(&args, dir.root()).code, 0);
        show(&pair);
    }
    let pair = bases();
    overlay(
        &pair,
        "extended_l2=on,cluster_size=16k",
        "mid.qcow2",
        "qcow2",
        "3500k",
    );
    assert_eq!(
        ours(&["rebase", "-c", "-b", "", "top.qcow2"], pair.ours().root()).code,
        0
    );
    show(&pair);
}

#[test]
fn what_both_chains_share_is_not_copied() {
    let pair = bases();
    overlay(&pair, "cluster_size=64k", "mid.qcow2", "qcow2", "3M");
    let before = allocated(pair.ours());
    pair.same("rebase -b old.qcow2 -F qcow2 top.qcow2");
    unchanged(&pair);
    // The two clusters of mid.qcow2 that hold data of its own, and its last partial ones.
    assert!(allocated(pair.ours()) <= before + 5 * 65536);
}

/// The recipe of the manual: what differs between two images becomes an overlay.
#[test]
fn the_diff_of_two_images() {
    let pair = Pair::with(&["create -q -f qcow2 base.img 4M"]);
    pair.qemu_io("qcow2", "base.img", &["write -P 1 0 3M"]);
    for dir in [pair.theirs(), pair.ours()] {
        std::fs::copy(dir.path("base.img"), dir.path("modified.img")).expect("a copy");
    }
    pair.qemu_io("qcow2", "modified.img", &["write -P 2 1M 64k"]);
    pair.same("create -f qcow2 -b modified.img -F qcow2 diff.qcow2");
    pair.same("rebase -b base.img -F qcow2 diff.qcow2");
    std::fs::remove_file(pair.ours().path("modified.img")).expect("modified.img");
    std::fs::remove_file(pair.theirs().path("modified.img")).expect("modified.img");
    pair.same_image("diff.qcow2", "qcow2");
    let map = pair.ours().qemu_img_ok(&["map", "diff.qcow2"]);
    assert_eq!(map.matches("diff.qcow2").count(), 1, "{map}");
    pair.same("commit diff.qcow2");
    pair.same_image("base.img", "qcow2");
}

#[test]
fn the_name_alone() {
    let pair = bases();
    overlay(&pair, "cluster_size=64k", "old.raw", "raw", "2M");
    for line in [
        "rebase -u -b nope -F raw top.qcow2",
        "rebase -u -b new.raw -F raw top.qcow2",
        "rebase -u -b mid.qcow2 -F qcow2 top.qcow2",
        "rebase -u -F raw top.qcow2",
        "rebase -u -b old.raw -F raw top.qcow2",
        "rebase -u -b '' top.qcow2",
        "rebase -u -b old.raw -F raw top.qcow2",
        "rebase -u top.qcow2",
    ] {
        pair.same(line);
        if !line.contains("nope") {
            pair.same_image("top.qcow2", "qcow2");
        }
    }
}

#[test]
fn progress() {
    let pair = bases();
    overlay(&pair, "cluster_size=64k", "old.raw", "raw", "2M");
    pair.same_but("rebase -p -b new.raw -F raw top.qcow2", Loose::Progress);
    unchanged(&pair);
}

#[test]
fn errors() {
    let pair = bases();
    overlay(&pair, "cluster_size=64k", "old.raw", "raw", "2M");
    pair.qemu("create -q -f qcow2 -u -b missing.raw -F raw ms.qcow2 1M");
    pair.qemu("create -q -f vdi x.vdi 1M");
    pair.all_same(&[
        "rebase",
        "rebase a b",
        "rebase -u",
        "rebase -b new.raw -F raw",
        "rebase top.qcow2",
        "rebase -F raw top.qcow2",
        "rebase -b new.raw -F raw nope",
        "rebase -b nope -F raw top.qcow2",
        "rebase -b nope top.qcow2",
        "rebase -b new.raw -F bogus top.qcow2",
        "rebase -b '' -F bogus top.qcow2",
        "rebase -b new.raw -F bogus nope",
        "rebase -b new.raw -F qcow2 top.qcow2",
        "rebase -b new.raw top.qcow2",
        "rebase -u -b new.raw top.qcow2",
        "rebase -b new.raw -F raw -f raw old.raw",
        "rebase -b new.raw -F raw old.raw",
        "rebase -u -b '' -f raw old.raw",
        "rebase -c -b new.raw -F raw -f raw old.raw",
        "rebase -t bogus -b new.raw -F raw top.qcow2",
        "rebase -T bogus -b new.raw -F raw top.qcow2",
        "rebase -t bogus -T bogus nope",
        "rebase --image-opts -f raw -b new.raw top.qcow2",
        "rebase -f bogus -b new.raw -F raw top.qcow2",
        "rebase -b new.raw -F raw ms.qcow2",
        "rebase -b ms.qcow2 -F qcow2 top.qcow2",
        "rebase -z top.qcow2",
    ]);
    unchanged(&pair);
    // The same file in a format that it is not: refused, and the image still opens.
    let ran = ours(
        &["rebase", "-b", "old.raw", "-F", "qcow2", "top.qcow2"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    unchanged(&pair);
    // Too long a name.
    let name = "x".repeat(1100);
    let args = ["rebase", "-u", "-b", &name, "-F", "raw", "top.qcow2"];
    let ran = ours(&args, pair.ours().root());
    let reason =
        format!("qemu-img: Could not change the backing file to '{name}': Invalid argument\n");
    assert!(ran.code == 1 && ran.err.starts_with(&reason), "{ran:?}");
    unchanged(&pair);
}

#[test]
fn names_are_seen_from_the_overlay() {
    let pair = bases();
    pair.directory("sub");
    overlay(&pair, "cluster_size=64k", "old.raw", "raw", "2M");
    for dir in [pair.theirs(), pair.ours()] {
        std::fs::copy(dir.path("new.raw"), dir.path("sub/new.raw")).expect("a copy");
        std::fs::copy(dir.path("old.raw"), dir.path("sub/old.raw")).expect("a copy");
        std::fs::rename(dir.path("top.qcow2"), dir.path("sub/top.qcow2")).expect("a move");
    }
    pair.same("rebase -b new.raw -F raw sub/top.qcow2");
    pair.same("rebase -b ../old.raw -F raw sub/top.qcow2");
    pair.same_image("sub/top.qcow2", "qcow2");
}

#[test]
fn untrusted_opens_no_chain() {
    let pair = bases();
    overlay(&pair, "cluster_size=64k", "old.raw", "raw", "2M");
    let args = [
        "rebase",
        "--untrusted",
        "-f",
        "qcow2",
        "-b",
        "new.raw",
        "-F",
        "raw",
        "top.qcow2",
    ];
    assert_eq!(ours(&args, pair.ours().root()).code, 1);
    unchanged(&pair);
}

#[test]
fn only_the_subclusters_that_differ_are_copied() {
    let pair = Pair::with(&[
        "create -f qcow2 old.qcow2 1M",
        "create -f qcow2 new.qcow2 1M",
    ]);
    pair.qemu_io("qcow2", "old.qcow2", &["write -P 1 0 1M"]);
    pair.qemu_io(
        "qcow2",
        "new.qcow2",
        &[
            "write -P 1 0 1M",
            "write -P 2 4k 2k",
            "write -P 2 100k 4k",
            "write -z 300k 2k",
        ],
    );
    for line in [
        "rebase -b new.qcow2 -F qcow2 o.qcow2",
        "rebase -b  o.qcow2",
        "rebase -c -b new.qcow2 -F qcow2 o.qcow2",
    ] {
        pair.qemu("create -f qcow2 -o extended_l2=on -b old.qcow2 -F qcow2 o.qcow2");
        pair.same(line);
        pair.same("map --output=json o.qcow2");
        pair.same("check o.qcow2");
    }
}

/// With QEMU the overlay has copies of what differs by then.
#[test]
fn a_name_that_cannot_be_recorded_is_refused_before_anything_is_copied() {
    let dir = Dir::new();
    for name in ["old.raw", "new.raw"] {
        dir.qemu_img_ok(&["create", "-q", name, "1M"]);
    }
    dir.qemu_io("raw", "new.raw", &["write -P 1 0 1M"]);
    let long = "./".repeat(600) + "new.raw";
    for format in ["qcow2", "qed", "qcow"] {
        let overlay = format!("top.{format}");
        dir.qemu_img_ok(&[
            "create", "-q", "-f", format, "-b", "old.raw", "-F", "raw", &overlay,
        ]);
        let before = std::fs::read(dir.path(&overlay)).expect("the overlay");
        let args = ["rebase", "-f", format, "-b", &long, "-F", "raw", &overlay];
        let refused = ours(&args, dir.root());
        assert_eq!(refused.code, 1, "{format}");
        assert!(refused.err.contains("too long"), "{}", refused.err);
        let after = std::fs::read(dir.path(&overlay)).expect("the overlay");
        assert!(before == after, "{format}: the overlay has changed");
    }
}

/// Formats that record what tells a parent from others: a name of a file that is not there changes no more than the
/// name, and without such a record there is nothing to go by.
#[test]
fn a_parent_that_is_not_there_stays_the_one_that_is_recorded() {
    for format in ["vmdk", "vhdx", "vpc"] {
        let dir = Dir::new();
        let ran = |line: &str, code: i32| {
            let line = line.replace("FMT", format);
            let words: Vec<&str> = line.split(' ').collect();
            let ran = ours(&words, dir.root());
            assert_eq!(ran.code, code, "{line}: {ran:?}");
            ran
        };
        let rename = |from: &str, to: &str| {
            std::fs::rename(dir.path(from), dir.path(to)).expect("another name");
        };
        ran("create -q -f FMT base 8M", 0);
        ran("create -q -f FMT other 8M", 0);
        ran("create -q -f FMT -b base -F FMT top", 0);
        rename("base", "kept");
        ran("rebase -q -u -b moved -F FMT top", 0);
        rename("other", "moved");
        ran("map top", 1);
        rename("moved", "other");
        rename("kept", "moved");
        ran("compare moved top", 0);

        let before = std::fs::read(dir.path("other")).expect("the image");
        let lone = ran("rebase -u -b missing -F FMT other", 1);
        assert!(lone.err.contains("has to be opened"), "{}", lone.err);
        assert!(std::fs::read(dir.path("other")).expect("the image") == before);
        let new = ran("create -u -f FMT -b missing -F FMT new 8M", 1);
        assert!(new.err.contains("has to be opened"), "{}", new.err);
        assert!(!dir.path("new").exists());
    }
}

/// A disk without a backing file gets one that holds something wherever it has nothing.
#[test]
fn a_disk_that_gets_a_backing_file_keeps_its_zeroes() {
    for format in ["qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", "vdi"] {
        let dir = Dir::new();
        let ran = |line: &str| {
            let line = line.replace("FMT", format);
            let words: Vec<&str> = line.split(' ').collect();
            let ran = ours(&words, dir.root());
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        };
        let sized = match format {
            "vpc" => " -o force_size=on",
            _ => "",
        };
        let mut bytes = vec![0; 6 << 20];
        std::fs::write(dir.path("empty.raw"), &bytes).expect("a disk");
        bytes[..300_000].fill(5);
        std::fs::write(dir.path("some.raw"), &bytes).expect("a disk");
        std::fs::write(dir.path("full.raw"), vec![b'N'; 6 << 20]).expect("a disk");
        for content in ["some", "empty"] {
            for disk in ["full", content] {
                ran(&format!(
                    "convert -f raw -O FMT{sized} {disk}.raw {disk}.img"
                ));
            }
            ran(&format!("rebase -f FMT -b full.img -F FMT {content}.img"));
            ran(&format!(
                "compare -f raw -F FMT {content}.raw {content}.img"
            ));
            std::fs::remove_file(dir.path("full.img")).expect("the backing file");
        }
    }
}

/// An overlay without data of its own grows into one that a check finds nothing in.
#[test]
fn an_empty_overlay_grows_and_stays_sound() {
    for format in ["qcow2", "qed", "vmdk", "vhdx", "vpc", "vdi"] {
        for size in ["4M", "5M", "100M", "3G"] {
            let dir = Dir::new();
            let run = |line: &str| {
                let line = line.replace("FMT", format);
                let words: Vec<&str> = line.split(' ').collect();
                ours(&words, dir.root())
            };
            for line in [
                "create -q -f FMT base.img 3M",
                "create -q -f FMT -b base.img -F FMT top.img",
                &format!("resize -q -f FMT top.img {size}"),
                "check -q -f FMT top.img",
            ] {
                let ran = run(line);
                assert_eq!(ran.code, 0, "{format} {size}: {line}: {ran:?}");
            }
        }
    }
}
