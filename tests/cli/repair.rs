//! `check -r` on damaged images: both tools end with clean images of equal contents.

use crate::pair::{Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::new();
    for line in [
        "b.qcow2",
        "-o compat=0.10 v2.qcow2",
        "-o cluster_size=512 s.qcow2",
    ] {
        pair.qemu(&format!("create -q -f qcow2 {line} 4M"));
        let name = line.rsplit(' ').next().unwrap_or(line);
        pair.qemu_io("qcow2", name, &["write -P 1 0 300k", "write -P 2 3M 64k"]);
        pair.qemu(&format!("snapshot -c one {name}"));
        pair.qemu_io("qcow2", name, &["write -P 3 100k 300k"]);
        pair.qemu(&format!("convert -O qcow2 {name} plain-{name}"));
    }
    pair
}

fn word(pair: &Pair, image: &str, offset: u64) -> u64 {
    let bytes = std::fs::read(pair.ours().path(image)).expect("the image");
    let at = usize::try_from(offset).expect("an offset");
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & 0x00ff_ffff_ffff_fe00
}

fn repaired(pair: &Pair, image: &str, mode: &str) {
    let line = ["check", "-r", mode, image];
    let theirs = pair.theirs().qemu_img(&line);
    let ran = ours(&line, pair.ours().root());
    assert_eq!(ran.code, 0, "{line:?}: {ran:?}");
    let found = "The following inconsistencies were found and repaired:";
    assert!(ran.out.starts_with(found), "{ran:?}");
    let (a, b) = (pair.theirs().str(image), pair.ours().str(image));
    assert_eq!(pair.ours().qemu_img(&["check", &b]).code, 0);
    if theirs.code == 1 {
        // It cannot repair a refcount block that is not aligned.
        return;
    }
    assert_eq!(theirs.code, 0, "{line:?}: {theirs:?}");
    let compared = pair.ours().qemu_img(&["compare", &a, &b]);
    assert_eq!(
        compared.out, "Images are identical.\n",
        "{image}: {compared:?}"
    );
    if !image.starts_with("plain") {
        // What the snapshot holds is the same, too.
        let out = ["convert", "-l", "one", "-O", "raw", image, "one.raw"];
        pair.theirs().qemu_img_ok(&out);
        pair.ours().qemu_img_ok(&out);
        let (a, b) = (pair.theirs().str("one.raw"), pair.ours().str("one.raw"));
        let compared = pair
            .ours()
            .qemu_img(&["compare", "-f", "raw", "-F", "raw", &a, &b]);
        assert_eq!(compared.code, 0, "{image}: {compared:?}");
    }
}

const NAMES: &[&str] = &[
    "b.qcow2",
    "v2.qcow2",
    "s.qcow2",
    "plain-b.qcow2",
    "plain-v2.qcow2",
    "plain-s.qcow2",
];

#[test]
fn leaks() {
    for mode in ["leaks", "all"] {
        let pair = images();
        for name in NAMES {
            let l2 = word(&pair, name, word(&pair, name, 40));
            pair.patch(name, l2, &[0; 8]);
            repaired(&pair, name, mode);
        }
    }
}

#[test]
fn refcounts_and_flags() {
    for value in [0u16, 2, 5, 0xffff] {
        let pair = images();
        for name in NAMES {
            let block = word(&pair, name, word(&pair, name, 48));
            let data = word(&pair, name, word(&pair, name, word(&pair, name, 40)));
            let bits = if name.contains("s.qcow2") { 9 } else { 16 };
            let at = block + 2 * (data >> bits);
            let held = word(&pair, name, at & !7) != 0;
            assert!(held || at > 0);
            pair.patch(name, at, &value.to_be_bytes());
            let ran = ours(&["check", name], pair.ours().root());
            if ran.code != 0 {
                repaired(&pair, name, "all");
            }
        }
    }
    let pair = images();
    for name in NAMES {
        let l1 = word(&pair, name, 40);
        let flag = [u8::try_from(word(&pair, name, l1) >> 56).expect("a byte") | 0x80];
        let old = std::fs::read(pair.ours().path(name)).expect("the image");
        let first = usize::try_from(l1).expect("an offset");
        pair.patch(name, l1, &[old[first] ^ flag[0]]);
        repaired(&pair, name, "all");
    }
}

#[test]
fn unusable_refcount_structures() {
    for damage in [0u64, 0x200, 1 << 40] {
        let pair = images();
        for name in NAMES {
            let table = word(&pair, name, 48);
            let bad = if damage == 0 {
                0
            } else {
                word(&pair, name, table) + damage
            };
            pair.patch(name, table, &bad.to_be_bytes());
            if damage == 0x200 && name.contains("s.qcow2") {
                continue;
            }
            repaired(&pair, name, "all");
        }
    }
}

#[test]
fn the_corrupt_and_the_dirty_bit_are_cleared() {
    let pair = images();
    for name in ["b.qcow2", "plain-b.qcow2"] {
        let l2 = word(&pair, name, word(&pair, name, 40));
        pair.patch(name, l2, &[0; 8]);
        pair.patch(name, 79, &[3]);
        repaired(&pair, name, "all");
        let info = pair.ours().qemu_img_ok(&["info", name]);
        assert!(info.contains("corrupt: false"), "{info}");
    }
}

#[test]
fn what_is_clean_is_left_alone() {
    let pair = images();
    for name in NAMES {
        pair.same(&format!("check -r all {name}"));
        pair.same(&format!("check -r leaks {name}"));
    }
}

/// Whole entries, flags included, that are put in place of another.
#[test]
fn the_code_and_the_contents_are_those_of_qemu() {
    const COPIED: u64 = 1 << 63;
    let pair = images();
    for name in ["b.qcow2", "v2.qcow2", "plain-b.qcow2"] {
        let good = std::fs::read(pair.ours().path(name)).expect("the image");
        let l1 = word(&pair, name, 40);
        let l2 = word(&pair, name, l1);
        let data = word(&pair, name, l2);
        for (what, at, entry) in [
            ("past the end", l2, COPIED | 1 << 40),
            ("used twice", l2, word(&pair, name, l2 + 8)),
            ("not aligned", l2, COPIED | data | 0x200),
            ("no flag", l2, data),
            ("no flag on a table", l1, l2),
            ("a lost table", l1, 0),
        ] {
            for mode in ["leaks", "all"] {
                pair.file(name, &good);
                pair.patch(name, at, &entry.to_be_bytes());
                let what = format!("{name}, {what}, -r {mode}");
                let line = ["check", "-r", mode, name];
                let theirs = pair.theirs().qemu_img(&line);
                let ran = ours(&line, pair.ours().root());
                assert_eq!(ran.code, theirs.code, "{what}: {ran:?} {theirs:?}");
                let checked =
                    [pair.theirs(), pair.ours()].map(|dir| dir.qemu_img(&["check", name]).code);
                assert_eq!(checked, [theirs.code; 2], "{what}: {ran:?}");
                // What is still damaged cannot be read everywhere.
                if theirs.code == 0 {
                    let (a, b) = (pair.theirs().str(name), pair.ours().str(name));
                    let compared = pair.ours().qemu_img(&["compare", &a, &b]);
                    assert_eq!(compared.out, "Images are identical.\n", "{what}");
                }
            }
        }
        pair.file(name, &good);
    }
}

/// QEMU's tool loses them where it also clears a feature bit that goes with its first write.
#[test]
fn a_repair_keeps_the_snapshots_beside_bitmaps_and_unknown_features() {
    for unknown in [false, true] {
        let pair = images();
        let dir = pair.ours();
        if unknown {
            pair.patch("b.qcow2", 88, &[0, 0, 1]);
        } else {
            pair.qemu("bitmap --add b.qcow2 b0");
        }
        let out = ["convert", "-l", "one", "-O", "raw", "b.qcow2"];
        dir.qemu_img_ok(&[&out[..], &["before.raw"]].concat());
        for mode in ["leaks", "all"] {
            let l2 = word(&pair, "b.qcow2", word(&pair, "b.qcow2", 40));
            pair.patch("b.qcow2", l2, &[0; 8]);
            let ran = ours(&["check", "-r", mode, "b.qcow2"], dir.root());
            assert_eq!(ran.code, 0, "{ran:?}");
            dir.qemu_img_ok(&["check", "b.qcow2"]);
            dir.qemu_img_ok(&[&out[..], &["after.raw"]].concat());
            let same = words("compare -f raw -F raw before.raw after.raw");
            dir.qemu_img_ok(&same);
        }
    }
}
