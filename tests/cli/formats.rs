//! Operations over all formats: chains into chains, sizes, parents, and what is said of images that QEMU's tools have
//! made.

use crate::common::{Dir, Ran};
use crate::pair::{ours, words};

const MIB: usize = 1 << 20;

#[track_caller]
fn done(dir: &Dir, line: &str) -> Ran {
    let ran = ours(&words(line), dir.root());
    assert_eq!((ran.code, &*ran.err), (0, ""), "{line}: {ran:?}");
    ran
}

/// A disk of that many bytes, with data at its beginning and its end.
fn disk(dir: &Dir, name: &str, seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..100_000].fill(seed);
    for (n, byte) in bytes[len - 70_000..].iter_mut().enumerate() {
        *byte = (n * usize::from(seed) / 7) as u8;
    }
    std::fs::write(dir.path(name), &bytes).expect("a file");
    bytes
}

/// Formats whose images have parents.
const OVERLAYS: [&str; 7] = ["qcow2", "qcow", "qed", "vmdk", "vpc", "vhdx", "vdi"];
/// Those of them of which QEMU's tools see the parents.
const SEEN: [&str; 4] = ["qcow2", "qcow", "qed", "vmdk"];

#[test]
fn chains_of_every_format_become_chains_of_every_other() {
    let dir = Dir::new();
    // Three layers: what the base alone has, what is over it, and what is over both.
    let size = 2 * MIB;
    let mut shown = disk(&dir, "base.raw", 3, size);
    for (below, name, at) in [("base", "mid", 50_000), ("mid", "top", MIB)] {
        let format = if below == "base" { "raw" } else { "qcow2" };
        let backing = format!("-b {below}.{format} -F {format}");
        dir.qemu_img_ok(&words(&format!(
            "create -q -f qcow2 {backing} {name}.qcow2"
        )));
        let write = format!("write -P {} {at} 130000", at % 251);
        dir.qemu_io("qcow2", &format!("{name}.qcow2"), &[&write]);
        shown[at..at + 130_000].fill((at % 251) as u8);
    }
    std::fs::write(dir.path("shown.raw"), &shown).expect("a file");
    for from in OVERLAYS {
        done(&dir, &format!("convert --chain -O {from} top.qcow2 {from}"));
        for to in OVERLAYS {
            let (source, target) = (format!("{from}/top.{from}"), format!("{from}-{to}"));
            done(
                &dir,
                &format!("convert --chain -f {from} -O {to} {source} {target}"),
            );
            let top = format!("{target}/top.{to}");
            let line = format!("compare -f raw -F {to} shown.raw {top}");
            assert_eq!(done(&dir, &line).out, "Images are identical.\n", "{line}");
            if from == "qcow2" {
                let info = done(&dir, &format!("info --backing-chain -f {to} {top}")).out;
                assert_eq!(info.matches("\nfile format: ").count(), 3, "{top}: {info}");
            }
            if from == "vdi" && SEEN.contains(&to) {
                dir.qemu_img_ok(&words(&line));
            }
        }
    }
}

/// Formats that are written, each with options of creation, and whether an image can become smaller.
const WRITTEN: [(&str, &str, bool); 16] = [
    ("raw", "", true),
    ("qcow2", "", true),
    ("qcow2", "compat=0.10,cluster_size=4k", true),
    ("qed", "", false),
    ("parallels", "", true),
    ("vdi", "", true),
    ("vdi", "static=on", true),
    ("vpc", "force_size=on", true),
    ("vpc", "subformat=fixed,force_size=on", true),
    ("vhdx", "", true),
    ("vhdx", "subformat=fixed", true),
    ("vmdk", "", true),
    ("vmdk", "subformat=monolithicFlat", true),
    ("vmdk", "subformat=twoGbMaxExtentSparse", true),
    ("vmdk", "subformat=twoGbMaxExtentFlat", true),
    ("vmdk", "zeroed_grain=on", true),
];

fn with(options: &str) -> String {
    match options {
        "" => String::new(),
        options => format!("-o {options}"),
    }
}

#[test]
fn images_of_every_format_grow_and_shrink_to_what_a_plain_disk_would_hold() {
    for (format, options, shrinks) in WRITTEN {
        let dir = Dir::new();
        let mut model = disk(&dir, "r.raw", 5, 3 * MIB);
        let options = with(options);
        done(
            &dir,
            &format!("convert -f raw -O {format} {options} r.raw x"),
        );
        let mut sizes = vec![5 * MIB];
        if shrinks {
            sizes.extend([2 * MIB, 4 * MIB]);
        }
        for size in sizes {
            done(&dir, &format!("resize -q --shrink -f {format} x {size}"));
            model.resize(size, 0);
            std::fs::write(dir.path("r.raw"), &model).expect("a file");
            let line = format!("compare -f raw -F {format} r.raw x");
            assert_eq!(
                done(&dir, &line).out,
                "Images are identical.\n",
                "{line} {options}"
            );
            // Theirs take what is left.
            dir.qemu_img_ok(&words(&line));
        }
        if format != "raw" && !options.contains("Flat") {
            done(&dir, &format!("check -f {format} x"));
        }
    }
}

#[test]
fn overlays_of_every_format_change_their_parent_and_go_into_it() {
    let dir = Dir::new();
    let size = 2 * MIB;
    let mut shown = disk(&dir, "old.raw", 3, size);
    disk(&dir, "new.raw", 9, size);
    dir.qemu_img_ok(&words("create -q -f qcow2 -b old.raw -F raw top.qcow2"));
    let writes = ["write -P 119 300000 200000", "write -P 0 50000 20000"];
    dir.qemu_io("qcow2", "top.qcow2", &writes);
    shown[300_000..500_000].fill(119);
    shown[50_000..70_000].fill(0);
    std::fs::write(dir.path("shown.raw"), &shown).expect("a file");
    for format in OVERLAYS {
        done(
            &dir,
            &format!("convert --chain -O {format} top.qcow2 {format}"),
        );
        let name = |name: &str| format!("{format}/{name}.{format}");
        let (old, new_base, top) = (name("old"), name("new"), name("top"));
        // A parent of VHD is as large as its number says.
        let options = if format == "vpc" {
            "-o force_size=on"
        } else {
            ""
        };
        done(
            &dir,
            &format!("convert -f raw -O {format} {options} new.raw {new_base}"),
        );
        let reads_as = |raw: &str, image: &str, when: &str| {
            let ran = ours(
                &words(&format!("compare -f raw -F {format} {raw} {image}")),
                dir.root(),
            );
            assert_eq!((ran.code, &*ran.err), (0, ""), "{image} {when}: {ran:?}");
        };
        reads_as("shown.raw", &top, "before");
        done(
            &dir,
            &format!("rebase -f {format} -b new.{format} -F {format} {top}"),
        );
        reads_as("shown.raw", &top, "over another parent");
        reads_as("new.raw", &new_base, "below it");
        reads_as("old.raw", &old, "left alone");
        done(&dir, &format!("commit -q -f {format} {top}"));
        reads_as("shown.raw", &new_base, "after the commit");
        reads_as("shown.raw", &top, "after the commit");
        for image in [&old, &new_base, &top] {
            done(&dir, &format!("check -q -f {format} {image}"));
        }
    }
}

/// What QEMU's tools make, each with options of creation.
const THEIRS: [(&str, &str); 26] = [
    ("qcow", ""),
    ("qed", ""),
    ("qed", "cluster_size=4k,table_size=2"),
    ("qed", "cluster_size=1M,table_size=16"),
    ("parallels", ""),
    ("parallels", "cluster_size=64k"),
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vpc", ""),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", ""),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "block_size=1M,block_state_zero=off"),
    ("vhdx", "log_size=2M"),
    ("vmdk", ""),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vmdk", "zeroed_grain=on"),
    ("vmdk", "compat6=on"),
    ("vmdk", "adapter_type=lsilogic,hwversion=8,toolsversion=7"),
    ("qcow2", ""),
    ("raw", ""),
];

/// What is asked of an image; FORMAT and IMAGE stand for it.
const QUESTIONS: [&str; 17] = [
    "info -f FORMAT IMAGE",
    "info -f FORMAT --output=json IMAGE",
    "info -U --backing-chain -f FORMAT IMAGE",
    "check -f FORMAT IMAGE",
    "check -q -f FORMAT IMAGE",
    "check -f FORMAT --output=json IMAGE",
    "check -f FORMAT -r leaks IMAGE",
    "map -f FORMAT IMAGE",
    "map -f FORMAT --output=json IMAGE",
    "map -f FORMAT --start-offset=64k --max-length=1M --output=json IMAGE",
    "measure -f FORMAT -O raw IMAGE",
    "measure -f FORMAT -O qcow2 IMAGE",
    "measure -f FORMAT -O qcow2 --output=json IMAGE",
    "compare -f FORMAT -F raw IMAGE r.raw",
    "compare -s -f FORMAT -F raw IMAGE r.raw",
    "snapshot -l -f FORMAT IMAGE",
    "amend -f FORMAT -o x=y IMAGE",
];

/// What theirs say is another thing, or nothing: why that is left as it is.
fn excepted(format: &str, line: &str, theirs: &Ran) -> Option<&'static str> {
    let command = line.split(' ').next().unwrap_or_default();
    let lacks = |what: &str| theirs.err.contains(what);
    Some(match (command, format) {
        ("check", _) if lacks("does not support checks") => "theirs has no check of the format",
        ("map" | "measure" | "compare", "vhdx") => "theirs takes all of the image for data",
        ("amend", "qcow2") => "ours adds the options that there are",
        ("measure", "parallels") => "theirs speaks of bitmaps that the image cannot have",
        _ => return None,
    })
}

#[test]
fn images_of_theirs_are_spoken_of_in_their_words() {
    let mut compared = 0;
    let mut differences = Vec::new();
    for (format, options) in THEIRS {
        let dir = Dir::new();
        disk(&dir, "r.raw", 7, 3 * MIB);
        let options = with(options);
        for line in [
            format!("convert -f raw -O {format} {options} r.raw full"),
            format!("create -q -f {format} {options} empty 3M"),
        ] {
            dir.qemu_img_ok(&words(&line));
        }
        let few = QUESTIONS
            .iter()
            .filter(|question| question.contains("json"));
        let of_full = QUESTIONS.iter().map(|question| (question, "full"));
        for (question, image) in of_full.chain(few.map(|question| (question, "empty"))) {
            let line = question.replace("FORMAT", format).replace("IMAGE", image);
            let theirs = dir.qemu_img(&words(&line));
            let mine = ours(&words(&line), dir.root());
            let same = (mine.code, &mine.out, &mine.err) == (theirs.code, &theirs.out, &theirs.err);
            match (same, excepted(format, &line, &theirs)) {
                (true, _) => compared += 1,
                (false, Some(_)) => {}
                (false, None) => {
                    differences.push(format!("{line} ({options})\n{mine:?}\n{theirs:?}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    // Most of the questions are answered alike, and not left out.
    assert!(compared > 450, "{compared}");
}

/// Files of 20 MiB on the disk become images of 3 MiB: the same ones as where there was no file, without a byte of what
/// was there, and without its space.
#[test]
fn images_over_large_files_are_as_those_in_new_files() {
    use std::os::unix::fs::MetadataExt;
    let dir = Dir::new();
    disk(&dir, "r.raw", 5, 3 * MIB);
    for (format, options, _) in WRITTEN {
        let options = with(options);
        let line = |target: &str| format!("convert -f raw -O {format} {options} r.raw {target}");
        done(&dir, &line("anew"));
        std::fs::write(dir.path("over"), vec![0xee; 20 * MIB]).expect("a file");
        let file = std::fs::File::open(dir.path("over")).expect("a file");
        file.sync_all().expect("it is on the disk");
        let node = file.metadata().expect("a file").ino();
        done(&dir, &line("over"));
        let [new, over] = ["anew", "over"].map(|name| dir.path(name).metadata().expect("a file"));
        assert_eq!(over.len(), new.len(), "{format} {options}");
        assert_eq!(over.ino(), node, "{format} {options}");
        let space = new.blocks().max(over.blocks()) - new.blocks();
        assert!(space <= 256, "{format} {options}: {space} blocks too many");
        let image = std::fs::read(dir.path("over")).expect("a file");
        let mut stale = image.split(|byte| *byte != 0xee);
        assert!(
            stale.all(|run| run.len() < 64),
            "{format} {options}: what was there shows"
        );
        let compare = format!("compare -f raw -F {format} r.raw over");
        assert_eq!(done(&dir, &compare).out, "Images are identical.\n");
        std::fs::remove_file(dir.path("anew")).expect("a file");
    }
}
