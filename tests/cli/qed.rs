//! QED images: what the tool prints and ends with, beside QEMU's.

use crate::pair::{Loose, Pair, ours, words};

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f raw base.raw 3M",
        "create -q -f qed empty.qed 10M",
        "create -q -f qed a.qed 10M",
        "create -q -f qed zero.qed 0",
        "create -q -f qed odd.qed 1000001",
        "create -q -f qed -o cluster_size=4096,table_size=2 small.qed 9M",
        "create -q -f qed -b base.raw -F raw over.qed 4M",
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 9 1M 1M"]);
    pair.qemu_io("qed", "a.qed", &["write -P 1 5M 64k", "write -P 2 1M 2M"]);
    pair.qemu_io(
        "qed",
        "small.qed",
        &["write -P 1 0 16k", "write -P 2 5M 8k", "write -z 64k 8k"],
    );
    pair.qemu_io(
        "qed",
        "over.qed",
        &["write -P 3 1100k 10k", "write -z 1536k 64k"],
    );
    pair.qemu("create -q -f qed -b a.qed -F qed top.qed");
    pair
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = images();
    for line in [
        "create -f qed b.qed 10M",
        "create -f qed b.qed 0",
        "create -f qed b.qed 1000001",
        "create -f qed b.qed 64T",
        "create -f qed -o cluster_size=4096,table_size=16 b.qed 1G",
        "create -f qed -o cluster_size=1M b.qed 1T",
        "create -f qed -o preallocation=falloc b.qed 1M",
        "create -f qed -b base.raw -F raw b.qed",
        "create -f qed -b a.qed -F qed b.qed 20M",
        "create -f qed -b a.qed b.qed",
        "create -f qed -b missing.raw -F raw b.qed",
        "create -f qed b.qed",
        "create -f qed -o help",
        "create -f qed -o bogus=1 b.qed 1M",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    pair.same_image("b.qed", "qed");
    // Neither leaves an image; ours leaves no empty file either.
    for line in [
        "create -f qed -o preallocation=metadata c.qed 1M",
        "create -f qed -o cluster_size=2048 c.qed 1M",
        "create -f qed -o cluster_size=128M c.qed 1M",
        "create -f qed -o cluster_size=5000 c.qed 1M",
        "create -f qed -o table_size=3 c.qed 1M",
        "create -f qed -o table_size=32 c.qed 1M",
    ] {
        let run = |tool: crate::common::Ran| (tool.code, tool.out, tool.err);
        let theirs = run(pair.theirs().qemu_img(&words(line)));
        assert_eq!(
            run(ours(&words(line), pair.ours().root())),
            theirs,
            "{line}"
        );
        assert!(!pair.ours().path("c.qed").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("c.qed"));
    }
    // Theirs calls for a multiple of the cluster size that is not 0, and takes others.
    let ran = ours(&words("create -q -f qed c.qed 65T"), pair.ours().root());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("at most 70368744177664 bytes"), "{ran:?}");
}

/// Where the first lower table of `a.qed` stands.
fn first_table(pair: &Pair) -> u64 {
    let bytes = std::fs::read(pair.ours().path("a.qed")).expect("the image");
    let word = |at: u64| {
        let bytes = bytes[at as usize..].first_chunk().expect("a word");
        u64::from_le_bytes(*bytes)
    };
    word(word(40))
}

/// Entries of the last table behind those that the disk needs, far from them too.
#[test]
fn entries_behind_the_end_of_the_disk_are_checked_alike() {
    const L1: u64 = 0x1_0000;
    for entries in [
        &[(200, 0xa5a5_a5a5_a5a5_a5a5_u64)][..],
        &[(5000, 2), (20_000, 3), (32_767, 7)],
        &[(4095, 3), (4096, 3)],
        &[(4096, 1), (9000, 1)],
        &[(5000, 1 << 40), (5001, 0x10001), (5002, 512)],
        // What has another use: the upper table, and a cluster of the disk.
        &[(6000, L1)],
        &[(6000, 0x9_0000), (6001, 0xb_0000)],
    ] {
        let pair = Pair::with(&["create -q -f qed a.qed 10M", "create -q -f raw a.raw 10M"]);
        for (format, name) in [("qed", "a.qed"), ("raw", "a.raw")] {
            pair.qemu_io(format, name, &["write -P 5 0 192k"]);
        }
        let table = first_table(&pair);
        for (index, entry) in entries {
            pair.patch("a.qed", table + index * 8, &entry.to_le_bytes());
        }
        let checked = pair.same("check -f qed a.qed");
        let here = |line: &str| ours(&words(line), pair.ours().root());
        let ran = here("check -q -r all -f qed a.qed");
        assert_eq!(ran.code, 0, "{entries:?}: {ran:?}");
        for line in ["check -f qed a.qed", "compare -f qed -F raw a.qed a.raw"] {
            pair.ours().qemu_img_ok(&words(line));
        }
        let is_damage = entries.iter().any(|(_, entry)| *entry != 1);
        assert_eq!(checked.code, if is_damage { 2 } else { 0 }, "{entries:?}");
        if !is_damage {
            continue;
        }
        // A larger disk has nothing of it.
        pair.ours().qemu_img_ok(&words("resize -q -f qed a.qed 1G"));
        let line = "compare -f qed -F raw a.qed a.raw";
        pair.ours().qemu_img_ok(&words(line));
    }
}

/// The header may say too little: what is named in its place is kept, and what names nothing goes.
#[test]
fn a_repair_of_entries_behind_the_end_keeps_those_that_name_clusters() {
    let pair = Pair::with(&["create -q -f qed a.qed 1G"]);
    pair.qemu_io("qed", "a.qed", &["write -P 5 0 64k", "write -P 6 500M 64k"]);
    let table = first_table(&pair);
    pair.patch("a.qed", 48, &(10_u64 << 20).to_le_bytes());
    for index in [4500_u64, 7999, 8001, 20_000] {
        pair.patch("a.qed", table + index * 8, &2_u64.to_le_bytes());
    }
    let dir = pair.ours();
    let ran = ours(&words("check -r all -f qed a.qed"), dir.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("4 corruptions"), "{ran:?}");
    dir.qemu_img_ok(&words("check -f qed a.qed"));
    // With the size that is right all of it is there.
    pair.patch("a.qed", 48, &(1_u64 << 30).to_le_bytes());
    dir.qemu_img_ok(&words("check -f qed a.qed"));
    dir.qemu_io("qed", "a.qed", &["read -P 5 0 64k", "read -P 6 500M 64k"]);
}

#[test]
fn what_is_there_is_shown_alike() {
    let pair = images();
    for image in [
        "empty.qed",
        "a.qed",
        "zero.qed",
        "odd.qed",
        "small.qed",
        "over.qed",
        "top.qed",
    ] {
        for command in [
            "info",
            "info --output=json",
            "info --backing-chain",
            "map",
            "map --output=json",
            "check",
            "check --output=json",
            "snapshot -l",
        ] {
            pair.same_but(&format!("{command} {image}"), Loose::DiskSize);
        }
        pair.same_but(&format!("convert -O raw {image} out.raw"), Loose::DiskSize);
        if image != "zero.qed" {
            pair.same_image("out.raw", "raw");
        }
    }
}

#[test]
fn damage_is_told_in_the_same_words() {
    let pair = images();
    let before = std::fs::read(pair.ours().path("small.qed")).expect("the image");
    let patched = |patches: &[(u64, u64)], lines: &[&str]| {
        for (at, value) in patches {
            pair.patch("small.qed", *at, &value.to_le_bytes());
        }
        for line in lines {
            pair.same(line);
        }
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::write(dir.path("small.qed"), &before).expect("the image");
        }
    };
    // The header: it is refused.
    for (at, value) in [
        (0, 0x1000_0044_4552),
        (4, 1000),
        (4, 0x3_0000_1000),
        (16, 8),
        (16, u64::MAX),
        (40, 0),
        (40, 4097),
        (40, 1 << 28),
        (48, 8_388_609),
        (48, u64::MAX),
    ] {
        patched(
            &[(at, value)],
            &["info -f qed small.qed", "check -f qed small.qed"],
        );
    }
    // Bits that need not be known, or are for whoever checks.
    for (at, value) in [(24, 8), (32, 8), (16, 4), (16, 2)] {
        patched(
            &[(at, value)],
            &["info small.qed", "check small.qed", "map small.qed"],
        );
    }
    // The tables: an entry that is not aligned, lies outside, names what another one does, or is gone.
    let (directory, table) = (0x1000, 0x7000);
    for (at, value) in [
        (table, 0x3100),
        (table, 0x3001),
        (table, 0x30_0000),
        (table, 0x4000),
        (table, 0x7000),
        (table, 0x1000),
        (table, 0),
        (directory, 0x7100),
        (directory, 0x70_0000),
        (directory, 0xb000),
        (directory, 0),
    ] {
        patched(
            &[(at, value)],
            &["check small.qed", "check --output=json small.qed"],
        );
    }
}

/// A directory names a table behind the end of the disk: one of the disk, and none at all.
#[test]
fn tables_behind_the_end_of_the_disk_are_damage_and_cleared() {
    let pair = images();
    let before = std::fs::read(pair.ours().path("small.qed")).expect("the image");
    for value in [0x7000_u64, 0x123_4567] {
        pair.patch("small.qed", 0x1000 + 8 * 100, &value.to_le_bytes());
        let ran = pair.same("check small.qed");
        assert_eq!(ran.code, 2, "{ran:?}");
        let ran = ours(&words("check -r all small.qed"), pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = pair.ours().qemu_img(&["check", "small.qed"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        pair.file("whole.qed", &before);
        let ran = ours(
            &words("compare -f qed -F qed small.qed whole.qed"),
            pair.ours().root(),
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        pair.file("small.qed", &before);
    }
}

#[test]
fn images_are_converted_resized_and_committed() {
    let pair = images();
    for options in ["", "-o cluster_size=4096,table_size=2", "-S 0", "-W"] {
        for source in ["a.qed", "odd.qed", "top.qed", "zero.qed", "over.qed"] {
            let line = format!("convert {options} -O qed {source} new.qed");
            pair.same_but(&line, Loose::DiskSize);
            pair.theirs().qemu_img_ok(&["check", "new.qed"]);
            pair.ours().qemu_img_ok(&["check", "new.qed"]);
            let same = pair.ours().qemu_img(&["compare", source, "new.qed"]);
            assert_eq!(same.code, 0, "{line}: {same:?}");
        }
    }
    for line in [
        "convert -O qed -B base.raw -F raw over.qed diff.qed",
        "resize a.qed 20M",
        "resize --shrink a.qed 4M",
        "resize a.qed 65T",
        "resize --preallocation=full a.qed 30M",
        "resize over.qed 5M",
        "check over.qed",
        "convert -c -O qed base.raw no.qed",
        "snapshot -c x a.qed",
        "amend -f qed -o size=3G a.qed",
        "amend -f qed -o help",
        "rebase -u -b base.raw -F raw top.qed",
        "info top.qed",
        "rebase -u -b a.qed -F qed top.qed",
        "info top.qed",
        "rebase -b '' over.qed",
        "info over.qed",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    for image in ["diff.qed", "over.qed", "top.qed", "a.qed"] {
        pair.theirs().qemu_img_ok(&["check", image]);
        pair.ours().qemu_img_ok(&["check", image]);
        pair.same_but(&format!("convert -O raw {image} out.raw"), Loose::DiskSize);
        pair.same_image("out.raw", "raw");
    }
}

#[test]
fn a_commit_empties_the_overlay() {
    let pair = images();
    let here = pair.ours();
    here.qemu_img_ok(&["convert", "-O", "raw", "over.qed", "whole.raw"]);
    let ran = ours(&words("commit over.qed"), here.root());
    assert_eq!((ran.code, ran.out.as_str()), (0, "Image committed.\n"));
    here.qemu_img_ok(&["compare", "over.qed", "whole.raw"]);
    here.qemu_img_ok(&["check", "over.qed"]);
    // The header and the upper table are left, as in a new image.
    let len = |name: &str| {
        std::fs::metadata(here.path(name))
            .expect("it is there")
            .len()
    };
    assert_eq!(len("over.qed"), 5 << 16);
    let map = ours(&words("map --output=json over.qed"), here.root()).out;
    assert!(!map.contains("\"depth\": 0, \"present\": true"), "{map}");
}

/// Where there is damage beside leaks, a repair of leaks alone reports what a check does, in no other format's words.
#[test]
fn leaks_beside_damage_are_reported_and_kept() {
    let pair = Pair::with(&["create -q -f qed a.qed 1M"]);
    pair.qemu_io("qed", "a.qed", &["write -P 1 0 512k"]);
    // The second cluster stands where the third does, and nothing names the first.
    let image = std::fs::read(pair.ours().path("a.qed")).expect("an image");
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes"));
    let table = word(word(40) as usize);
    pair.patch("a.qed", table, &[0; 8]);
    pair.patch("a.qed", table + 8, &word(table as usize + 16).to_le_bytes());
    let before = std::fs::read(pair.ours().path("a.qed")).expect("an image");
    let plain = pair.same("check a.qed");
    assert!(
        plain.code == 2 && plain.out.contains("leaked clusters"),
        "{plain:?}"
    );
    for options in ["-r leaks", "-r leaks --output=json", "-q -r leaks"] {
        let line = format!("check {options} a.qed");
        let theirs = pair.theirs().qemu_img(&words(&line));
        let mine = ours(&words(&line), pair.ours().root());
        assert_eq!((&mine.out, mine.code), (&theirs.out, theirs.code), "{line}");
        assert_eq!(mine.code, 2);
        assert!(mine.err.contains("repair all of it"), "{mine:?}");
        assert!(!mine.err.contains("refcount"), "{mine:?}");
    }
    assert!(std::fs::read(pair.ours().path("a.qed")).expect("an image") == before);
    let all = ours(&words("check -r all a.qed"), pair.ours().root());
    assert_eq!(all.code, 0, "{all:?}");
}
