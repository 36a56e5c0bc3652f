//! VMDKs: what the tool prints and ends with, beside QEMU's.

use std::os::unix::fs::{FileExt, MetadataExt};

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::new();
    let dir = pair.theirs();
    for line in [
        "create -q -f vmdk a.vmdk 10M",
        "create -q -f vmdk -o subformat=monolithicFlat f.vmdk 10M",
        "create -q -f vmdk -o subformat=twoGbMaxExtentSparse s.vmdk 5G",
        "create -q -f vmdk -o subformat=twoGbMaxExtentFlat p.vmdk 5G",
        "create -q -f vmdk -o subformat=streamOptimized o.vmdk 10M",
        "create -q -f vmdk z.vmdk 0",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    for (image, commands) in [
        ("a.vmdk", &["write -P 1 1M 64k", "write -P 2 5M 1M"][..]),
        ("f.vmdk", &["write -P 1 1M 64k"]),
        (
            "s.vmdk",
            &[
                "write -P 1 1G 64k",
                "write -P 2 3G 128k",
                "write -P 3 5368643584 64k",
            ],
        ),
        ("p.vmdk", &["write -P 1 1G 64k", "write -P 2 3G 128k"]),
        ("o.vmdk", &["write -P 1 1M 64k", "write -P 2 2M 128k"]),
    ] {
        dir.qemu_io("vmdk", image, commands);
    }
    pair.qemu_and_copy(&[
        "create -q -f vmdk -b a.vmdk -F vmdk t.vmdk",
        "create -q -f qcow2 q.qcow2 10M",
    ]);
    pair
}

fn done(dir: &Dir, line: &str) -> String {
    let ran = ours(&words(line), dir.root());
    assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
    ran.out
}

/// The text of a descriptor without its content ID.
fn descriptor(dir: &Dir, name: &str) -> String {
    let bytes = std::fs::read(dir.path(name)).expect("an image");
    let at = bytes
        .windows(21)
        .position(|part| part == b"# Disk DescriptorFile");
    let text = &bytes[at.expect("a descriptor")..];
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]).into_owned();
    let kept = |line: &&str| !line.starts_with("CID=") && !line.starts_with("parentCID=");
    text.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = Pair::with(&[
        "create -q -f vmdk base.vmdk 10M",
        "create -q -f qcow2 b.qcow2 10M",
    ]);
    for line in [
        "create -f vmdk a.vmdk 10M",
        "create -f vmdk a.vmdk 0",
        "create -f vmdk a.vmdk 1",
        "create -f vmdk a.vmdk 8E",
        "create -f vmdk a.vmdk",
        "create -f vmdk -o subformat=monolithicFlat a.vmdk 10M",
        "create -f vmdk -o subformat=twoGbMaxExtentSparse a.vmdk 5G",
        "create -f vmdk -o subformat=twoGbMaxExtentFlat a.b 5G",
        "create -f vmdk -o subformat=monolithicFlat plain 10M",
        "create -f vmdk -o subformat=streamOptimized a.vmdk 10M",
        "create -f vmdk -o subformat=bogus x.vmdk 10M",
        "create -f vmdk -o subformat=monolithicflat x.vmdk 10M",
        "create -f vmdk -o adapter_type=lsilogic a.vmdk 10M",
        "create -f vmdk -o adapter_type=buslogic a.vmdk 10M",
        "create -f vmdk -o adapter_type=legacyESX a.vmdk 10M",
        "create -f vmdk -o adapter_type=bad x.vmdk 10M",
        "create -f vmdk -o compat6 a.vmdk 10M",
        "create -f vmdk -o compat6=maybe x.vmdk 10M",
        "create -f vmdk -o compat6=on,hwversion=7 x.vmdk 10M",
        "create -f vmdk -o hwversion=abc a.vmdk 10M",
        "create -f vmdk -o hwversion=7,hwversion=9 a.vmdk 10M",
        "create -f vmdk -o toolsversion=zz a.vmdk 10M",
        "create -f vmdk -o zeroed_grain=on a.vmdk 10M",
        "create -f vmdk -o nozeroed_grain a.vmdk 10M",
        "create -f vmdk -o zeroed_grain=on,subformat=monolithicFlat x.vmdk 10M",
        "create -f vmdk -o preallocation=metadata x.vmdk 10M",
        "create -f vmdk -o preallocation=xx x.vmdk 10M",
        "create -f vmdk -o preallocation=falloc a.vmdk 10M",
        "create -f vmdk -o preallocation=full a.vmdk 10M",
        "create -f vmdk -o backing_file=no.vmdk,backing_fmt=vmdk x.vmdk 10M",
        "create -f vmdk -b base.vmdk -F vmdk t.vmdk",
        "create -f vmdk -b base.vmdk -F vmdk t.vmdk 20M",
        "create -f vmdk -b b.qcow2 -F qcow2 x.vmdk",
        "create -f vmdk -b base.vmdk -F raw x.vmdk",
        "create -f vmdk -b base.vmdk x.vmdk",
        "create -f vmdk -o subformat=monolithicFlat -b base.vmdk -F vmdk x.vmdk",
        "create -f vmdk -u -b base.vmdk -F vmdk u.vmdk 10M",
        "create -f vmdk -u -b base.vmdk -F vmdk x.vmdk",
    ] {
        pair.same_but(line, Loose::DiskSize);
        // Where the peer leaves an empty file.
        assert!(!pair.ours().path("x.vmdk").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("x.vmdk"));
    }
    // The parts go by the names that QEMU gives them.
    for name in ["a-s003.vmdk", "a-f003.b", "plain-flat"] {
        assert!(
            pair.ours().path(name).exists() && pair.theirs().path(name).exists(),
            "{name}"
        );
    }
    // The parent's content ID was recorded although it need not have been there.
    for image in ["t.vmdk", "u.vmdk"] {
        let chain = pair.ours().qemu_img_ok(&["info", "--backing-chain", image]);
        assert!(chain.contains("image: base.vmdk"), "{chain}");
    }
    let ran = ours(
        &words("create -f vmdk -u -b no.vmdk -F vmdk x.vmdk 10M"),
        pair.ours().root(),
    );
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.err.contains("'no.vmdk'"), "{ran:?}");
}

#[test]
fn descriptors_are_those_of_the_peer() {
    let pair = Pair::new();
    for options in [
        "",
        "-o adapter_type=lsilogic,toolsversion=7",
        "-o compat6",
        "-o hwversion=14",
        "-o adapter_type=buslogic,zeroed_grain=on",
        "-o subformat=monolithicFlat,adapter_type=legacyESX",
        "-o subformat=twoGbMaxExtentSparse",
        "-o subformat=twoGbMaxExtentFlat",
    ] {
        pair.same(&format!("create -q -f vmdk {options} d.vmdk 3G"));
        assert_eq!(
            descriptor(pair.ours(), "d.vmdk"),
            descriptor(pair.theirs(), "d.vmdk"),
            "{options}"
        );
    }
}

#[test]
fn reports_are_those_of_the_peer() {
    let pair = images();
    for image in ["a", "f", "s", "p", "o", "t"] {
        for command in [
            "info",
            "info --output=json",
            "check",
            "check --output=json",
            "snapshot -l",
        ] {
            pair.same_but(&format!("{command} {image}.vmdk"), Loose::DiskSize);
        }
    }
    for line in [
        "info --backing-chain t.vmdk",
        "info --backing-chain --output=json t.vmdk",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    for line in [
        "amend -o compat6=on a.vmdk",
        "amend -o compat6=on o.vmdk",
        "snapshot -c x a.vmdk",
        "compare a.vmdk f.vmdk",
        "compare -s a.vmdk f.vmdk",
        "commit a.vmdk",
        "commit t.vmdk",
        "convert -c -O vmdk a.vmdk y.vmdk",
        "convert -O vmdk -o subformat=monolithicFlat -B a.vmdk -F vmdk f.vmdk y.vmdk",
    ] {
        pair.same(line);
    }
}

#[test]
fn an_empty_disk_opens() {
    // The peer makes one and cannot open it.
    let pair = images();
    let info = done(pair.ours(), "info --output=json z.vmdk");
    assert!(info.contains("\"virtual-size\": 0"), "{info}");
    done(pair.ours(), "check z.vmdk");
    done(pair.ours(), "convert -O raw z.vmdk z.raw");
}

/// A parent by name alone may be missing; one that is there and cannot be read is not taken for that.
#[test]
fn the_name_of_a_parent_that_cannot_be_read_is_not_recorded() {
    let pair = images();
    let dir = pair.ours();
    let before = std::fs::read(dir.path("t.vmdk")).expect("an overlay");
    std::fs::write(dir.path("odd.vmdk"), [7; 4096]).expect("a file");
    let ran = ours(&words("rebase -u -b odd.vmdk -F vmdk t.vmdk"), dir.root());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err
            .starts_with("qemu-img: Could not open new backing file 'odd.vmdk': "),
        "{ran:?}"
    );
    assert!(std::fs::read(dir.path("t.vmdk")).expect("an overlay") == before);
    let ran = ours(
        &words("rebase -u -b missing.vmdk -F vmdk t.vmdk"),
        dir.root(),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_map_names_the_extent_that_holds_each_run() {
    let pair = images();
    for image in ["a", "s", "t"] {
        pair.same(&format!("map {image}.vmdk"));
        pair.same(&format!("map --output=json {image}.vmdk"));
    }
    for image in ["f", "p"] {
        // Holes are where the copy has them: asked of the same files.
        for form in ["map", "map --output=json"] {
            let line = format!("{form} {image}.vmdk");
            let theirs = pair.theirs().qemu_img_ok(&words(&line));
            assert_eq!(done(pair.theirs(), &line), theirs, "{line}");
        }
    }
    let text = done(pair.ours(), "map s.vmdk");
    for file in ["s-s001.vmdk", "s-s002.vmdk", "s-s003.vmdk"] {
        assert!(text.contains(file), "{text}");
    }
    // Below another image too, and below a plain disk that shows it.
    pair.same("create -q -f qcow2 -b s.vmdk -F vmdk over.qcow2");
    pair.same("map over.qcow2");
    pair.same("map --image-opts driver=raw,file.driver=vmdk,file.file.filename=s.vmdk");
}

#[test]
fn descriptors_by_themselves_are_probed_alike() {
    let pair = images();
    let text = std::fs::read_to_string(pair.theirs().path("f.vmdk")).expect("a descriptor");
    let variants = [
        text.replace('\n', "\r\n"),
        text.replacen("# Disk DescriptorFile\n", "", 1),
        text.replacen("# Disk DescriptorFile\n", "#\n   \n# more\n", 1),
        text.replacen("version=1", "version=3", 1),
        text.replacen("version=1", "version=4", 1),
        text.replacen("version=1", "Version=1", 1),
        text.replacen("# Disk DescriptorFile\n", "\n", 1),
        text.replacen("createType=\"monolithicFlat\"", "createType=\"vmfs\"", 1),
        text.replacen(
            "createType=\"monolithicFlat\"",
            "createType=\"fullDevice\"",
            1,
        ),
    ];
    for (n, variant) in variants.iter().enumerate() {
        let name = format!("v{n}.vmdk");
        pair.file(&name, variant.as_bytes());
        let [ours, theirs] = [
            ours(&["info", "--output=json", &name], pair.ours().root()),
            pair.theirs().qemu_img(&["info", "--output=json", &name]),
        ];
        let format = |out: &str| {
            let json: serde_json::Value = serde_json::from_str(out).ok()?;
            Some(json["format"].clone())
        };
        assert_eq!(ours.code, theirs.code, "{variant}\n{ours:?}\n{theirs:?}");
        assert_eq!(format(&ours.out), format(&theirs.out), "{variant}");
    }
}

/// Readers of streams take ascending grains alone, which QEMU's tool does not write with these options.
#[test]
fn grains_of_a_stream_ascend_whatever_order_is_allowed() {
    let dir = Dir::new();
    let text: Vec<u8> = (0..16_u32 << 20)
        .map(|n| (n >> 9).wrapping_mul(2_654_435_761).to_le_bytes()[n as usize % 4])
        .collect();
    std::fs::write(dir.path("s.raw"), text).expect("the disk");
    done(
        &dir,
        "convert -W -m 16 -O vmdk -o subformat=streamOptimized s.raw o.vmdk",
    );
    let bytes = std::fs::read(dir.path("o.vmdk")).expect("the stream");
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    // From the end of the metadata on: grains, and markers of what stands behind them.
    let (mut at, mut grains) = (long(64) as usize * 512, Vec::new());
    loop {
        let (sectors, len) = (long(at), word(at + 8) as usize);
        match (len, word(at + 12)) {
            (0, 0) => break,
            (0, _) => at += 512 + sectors as usize * 512,
            _ => {
                grains.push(sectors);
                at += (12 + len).next_multiple_of(512);
            }
        }
    }
    assert_eq!(grains.len(), 256);
    assert!(grains.is_sorted(), "{grains:?}");
}

#[test]
fn streams_are_written_to_grain_by_grain() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words(
        "create -q -f vmdk -o subformat=streamOptimized o.vmdk 10M",
    ));
    dir.qemu_img_ok(&words("create -q -f raw model.raw 10M"));
    let model = std::fs::File::options()
        .write(true)
        .open(dir.path("model.raw"))
        .expect("a file");
    // Whole grains as the peer writes them, then parts, twice over, by ours.
    dir.qemu_io("vmdk", "o.vmdk", &["write -P 1 1M 128k"]);
    model
        .write_all_at(&[1; 128 << 10], 1 << 20)
        .expect("a write");
    for (offset, len, byte) in [
        (1 << 20, 4096, 7),
        ((1 << 20) + (100 << 10), 40 << 10, 8),
        (9 << 20, 512, 9),
    ] {
        done(
            &dir,
            &format!("bench -q -w -f vmdk -c 1 -d 1 -s {len} -o {offset} --pattern {byte} o.vmdk")
                .replace(" -q", ""),
        );
        model
            .write_all_at(&vec![byte as u8; len], offset as u64)
            .expect("a write");
    }
    for compared in [
        done(&dir, "compare o.vmdk model.raw"),
        dir.qemu_img_ok(&words("compare o.vmdk model.raw")),
    ] {
        assert_eq!(compared, "Images are identical.\n");
    }
    dir.qemu_img_ok(&words("check o.vmdk"));
    // The peer goes on where ours ended.
    dir.qemu_io("vmdk", "o.vmdk", &["write -P 3 4M 64k"]);
    model
        .write_all_at(&[3; 64 << 10], 4 << 20)
        .expect("a write");
    assert_eq!(
        done(&dir, "compare o.vmdk model.raw"),
        "Images are identical.\n"
    );
    let ran = ours(&words("resize o.vmdk 20M"), dir.root());
    assert_eq!(
        (ran.code, &*ran.err),
        (1, "qemu-img: Image format driver does not support resize\n")
    );
    // One that is filled from its beginning is in order and ends with its marker.
    done(
        &dir,
        "create -q -f vmdk -o subformat=streamOptimized,adapter_type=lsilogic n.vmdk 10M",
    );
    done(&dir, "convert -n -O vmdk model.raw n.vmdk");
    done(&dir, "inspect --profile esxi n.vmdk");
    let bytes = std::fs::read(dir.path("n.vmdk")).expect("an image");
    assert!(bytes[bytes.len() - 512..].iter().all(|byte| *byte == 0));
    assert_eq!(
        done(&dir, "compare n.vmdk model.raw"),
        "Images are identical.\n"
    );
    // One whose directory is at the end stays as it is.
    let piped = std::process::Command::new("sh")
        .args([
            "-c",
            "$P convert -O vmdk -o subformat=streamOptimized model.raw /dev/stdout | cat >e.vmdk",
        ])
        .current_dir(dir.root())
        .env("P", crate::build::tool())
        .status();
    assert!(piped.expect("sh").success());
    let before = std::fs::read(dir.path("e.vmdk")).expect("an image");
    let ran = ours(&words("convert -n -O vmdk model.raw e.vmdk"), dir.root());
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert_eq!(std::fs::read(dir.path("e.vmdk")).expect("an image"), before);
}

#[test]
fn sparse_disks_grow_with_their_space_reserved() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f vmdk base.vmdk 40M"));
    dir.qemu_io("vmdk", "base.vmdk", &["write -P 5 0 40M"]);
    for (options, size) in [("", "10M"), ("-o zeroed_grain=on", "10485248")] {
        for mode in ["off", "falloc", "full"] {
            done(
                &dir,
                &format!("create -q -f vmdk {options} -b base.vmdk -F vmdk a.vmdk {size}"),
            );
            dir.qemu_io("vmdk", "a.vmdk", &["write -P 3 64k 64k"]);
            done(
                &dir,
                &format!("resize -q --preallocation={mode} a.vmdk 70M"),
            );
            done(&dir, "check a.vmdk");
            dir.qemu_img_ok(&words("check a.vmdk"));
            let blocks = std::fs::metadata(dir.path("a.vmdk"))
                .expect("a file")
                .blocks()
                * 512;
            if mode != "off" {
                assert!(blocks >= 60 << 20, "{mode}: {blocks}");
            }
            dir.qemu_img_ok(&words("convert -O raw a.vmdk a.raw"));
            let bytes = std::fs::read(dir.path("a.raw")).expect("a disk");
            let old: usize = if size == "10M" { 10 << 20 } else { 10_485_248 };
            assert_eq!(bytes.len(), 70 << 20);
            assert!(bytes[..64 << 10].iter().all(|byte| *byte == 5), "{mode}");
            assert!(
                bytes[64 << 10..128 << 10].iter().all(|byte| *byte == 3),
                "{mode}"
            );
            assert!(
                bytes[128 << 10..old].iter().all(|byte| *byte == 5),
                "{mode}"
            );
            assert!(
                bytes[old..].iter().all(|byte| *byte == 0),
                "{mode} {options}"
            );
            // Written to where it grew, by both.
            dir.qemu_io("vmdk", "a.vmdk", &["write -P 6 60M 64k"]);
            done(
                &dir,
                "bench -w -f vmdk -c 1 -d 1 -s 4096 -o 68M --pattern 9 a.vmdk",
            );
            dir.qemu_img_ok(&words("convert -O raw a.vmdk a.raw"));
            let bytes = std::fs::read(dir.path("a.raw")).expect("a disk");
            assert_eq!((bytes[60 << 20], bytes[68 << 20]), (6, 9), "{mode}");
            std::fs::remove_file(dir.path("a.vmdk")).expect("a file");
        }
    }
    done(&dir, "create -q -f vmdk a.vmdk 10M");
    let ran = ours(
        &words("resize --preallocation=metadata a.vmdk 20M"),
        dir.root(),
    );
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
}

#[test]
fn a_disk_that_grows_keeps_its_tables_while_their_directory_moves() {
    // The longer directory would reach into the tables behind it: it has more than 128 entries.
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f vmdk base.vmdk 6G"));
    let edge = 3u64 << 30;
    let write = format!("write -P 5 {} 128k", edge - (64 << 10));
    dir.qemu_io("vmdk", "base.vmdk", &[&write]);
    let size = edge - 512;
    for options in [
        "",
        "-o zeroed_grain=on",
        "-o subformat=twoGbMaxExtentSparse",
    ] {
        let create = format!("create -q -f vmdk {options} -b base.vmdk -F vmdk a.vmdk {size}");
        done(&dir, &create);
        dir.qemu_io("vmdk", "a.vmdk", &["write -P 3 0 64k"]);
        let longer = if options.contains("two") { "4G" } else { "5G" };
        done(&dir, &format!("resize -q a.vmdk {longer}"));
        done(&dir, "check a.vmdk");
        let reads = [
            "read -P 3 0 64k".to_owned(),
            format!("read -P 5 {} {}", edge - (64 << 10), (64 << 10) - 512),
            format!("read -P 0 {size} {}", 512 + (64 << 10)),
        ];
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        let seen = dir.qemu_io("vmdk", "a.vmdk", &reads);
        assert!(!seen.contains("verification failed"), "{options}: {seen}");
    }
}

#[test]
fn a_disk_in_parts_gets_parts_and_loses_them() {
    for (kind, letter) in [("Sparse", 's'), ("Flat", 'f')] {
        let dir = Dir::new();
        done(
            &dir,
            &format!("create -q -f vmdk -o subformat=twoGbMaxExtent{kind} p.vmdk 1M"),
        );
        let part = |n: u32| dir.path(&format!("p-{letter}00{n}.vmdk"));
        assert_eq!(done(&dir, "resize p.vmdk 5G"), "Image resized.\n");
        assert!(part(3).is_file() && !part(4).exists());
        dir.qemu_io("vmdk", "p.vmdk", &["write -P 7 4G 1M"]);
        for info in ["info p.vmdk", "info --output=json p.vmdk"] {
            assert_eq!(done(&dir, info), dir.qemu_img_ok(&words(info)));
        }
        let ran = ours(&words("resize p.vmdk 3G"), dir.root());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(part(3).is_file());
        assert_eq!(done(&dir, "resize --shrink p.vmdk 3G"), "Image resized.\n");
        assert!(part(2).is_file() && !part(3).exists());
        for info in ["info p.vmdk", "info --output=json p.vmdk"] {
            assert_eq!(done(&dir, info), dir.qemu_img_ok(&words(info)));
        }
        std::fs::write(part(3), "in the way").expect("a file");
        let ran = ours(&words("resize p.vmdk 5G"), dir.root());
        let error = format!("qemu-img: Could not create 'p-{letter}003.vmdk': File exists\n");
        assert_eq!((ran.code, ran.err), (1, error));
        assert_eq!(std::fs::read(part(3)).expect("a file"), b"in the way");
        std::fs::remove_file(part(3)).expect("to remove it");
        done(&dir, "resize -q --preallocation=falloc p.vmdk 3500M");
        done(
            &dir,
            "resize -q --image-opts driver=vmdk,file.filename=p.vmdk 5G",
        );
        let reads = ["read -P 0 2G 4k", "read -P 0 4G 1M"];
        let seen = dir.qemu_io("vmdk", "p.vmdk", &reads);
        assert!(!seen.contains("verification failed"), "{kind}: {seen}");
    }
}

#[test]
fn what_is_cut_off_or_missing_is_told_in_the_same_words() {
    let pair = Pair::with(&[
        "create -q -f vmdk s.vmdk 1M",
        "create -q -f vmdk -o subformat=monolithicFlat f.vmdk 1M",
    ]);
    let bytes = std::fs::read(pair.theirs().path("s.vmdk")).expect("the image");
    for len in [70, 511, 512, 4096, 65_024] {
        pair.file("cut.vmdk", &bytes[..len]);
        let ran = pair.same("info -f vmdk cut.vmdk");
        assert!(ran.err.contains("File truncated"), "{ran:?}");
    }
    for dir in [pair.ours(), pair.theirs()] {
        std::fs::remove_file(dir.path("f-flat.vmdk")).expect("to lose an extent");
    }
    for line in ["info f.vmdk", "map f.vmdk", "convert -O raw f.vmdk o.raw"] {
        assert_eq!(pair.same(line).code, 1, "{line}");
    }
}

#[test]
fn a_damaged_header_is_refused_in_the_same_words() {
    let pair = Pair::new();
    for (at, bytes) in [
        (4, &[9][..]),
        (20, &[0; 8]),
        (44, &[0; 4]),
        (44, &[0xff; 4]),
    ] {
        pair.qemu("create -q -f vmdk h.vmdk 10M");
        pair.patch("h.vmdk", at, bytes);
        for line in [
            "info -f vmdk h.vmdk",
            "check -f vmdk h.vmdk",
            "map -f vmdk h.vmdk",
            "convert -f vmdk -O raw h.vmdk o",
        ] {
            assert_eq!(pair.same(line).code, 1, "{at}: {line}");
        }
    }
}

/// Of a disk of a type that is not known, the extents say nothing.
#[test]
fn the_type_of_a_disk_is_refused_before_its_extents() {
    let pair = Pair::with(&["create -q f.raw 1M"]);
    for (kind, extent) in [
        ("vmfsRaw", "VMFSRAW"),
        ("vmfsRDM", "VMFSRDM"),
        ("vmfsRawDeviceMap", "VMFSRDM"),
        ("vmfsPassthroughRawDeviceMap", "VMFSRDM"),
        ("fullDevice", "FLAT"),
        ("custom", "BOGUS"),
    ] {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"{kind}\"\nRW 2048 {extent} \"f.raw\" 0\n"
        );
        pair.file("d.vmdk", text.as_bytes());
        pair.same("info -f vmdk d.vmdk");
        pair.same("check -f vmdk d.vmdk");
    }
}

/// Flat extents are refused for compressed data whatever the source holds, before anything is made.
#[test]
fn flat_disks_take_no_compressed_data() {
    let pair = Pair::with(&["create -q empty.raw 1M"]);
    pair.file("text.raw", &[b'a'; 100_000]);
    for source in ["empty.raw", "text.raw"] {
        for subformat in ["monolithicFlat", "twoGbMaxExtentFlat"] {
            let line = format!("convert -c -O vmdk -o subformat={subformat} {source} c.vmdk");
            assert_eq!(pair.theirs().qemu_img(&words(&line)).code, 1, "{line}");
            let ran = ours(&words(&line), pair.ours().root());
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            let text = "Compression not supported for this file format";
            assert!(ran.err.contains(text), "{ran:?}");
            assert!(!pair.ours().path("c.vmdk").exists(), "{line}");
        }
    }
}

/// The descriptor of many parts is longer than a sector, and counts.
#[test]
fn a_disk_of_many_parts_is_as_long_as_it_was_measured_to_be() {
    let dir = Dir::new();
    let options = "vmdk -o subformat=twoGbMaxExtentFlat";
    let ran = ours(
        &words(&format!("measure -O {options} --size 64G")),
        dir.root(),
    );
    let create = format!("create -q -f {options} disk.vmdk 64G");
    assert_eq!(ours(&words(&create), dir.root()).code, 0);
    let files = std::fs::read_dir(dir.root()).expect("the directory");
    let lengths = files.map(|file| file.expect("a file").metadata().expect("its length").len());
    let len: u64 = lengths.map(|len| len.next_multiple_of(512)).sum();
    assert!(len > (64 << 30) + 512, "{len}");
    let line = format!("required size: {len}\n");
    assert!(ran.out.starts_with(&line), "{ran:?} {len}");
}
