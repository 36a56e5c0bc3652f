//! Growing: within the tables that there are, and past them.

use platter::ErrorKind;
use platter::storage::Preallocation;

use super::{contents, open};
use crate::common::Dir;

#[test]
fn a_disk_grows_past_its_tables_and_qemu_reads_it() {
    let dir = Dir::new();
    for (kind, options) in [
        ("sparse", "subformat=monolithicSparse"),
        ("flat", "subformat=monolithicFlat"),
        ("parts", "subformat=twoGbMaxExtentSparse"),
    ] {
        let name = format!("{kind}.vmdk");
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "vmdk", "-o", options, &name, "1000448",
        ]);
        let image = open(&dir, &name, true).expect("it opens");
        image.write_at(&[1; 448], 1_000_000).expect("a write");
        // One table holds 32 MiB: 128 of them fill a sector of the directory.
        for len in [2_000_384, 40 << 20, (32 << 20) * 130u64] {
            let len = if kind == "parts" {
                len.min(2 << 30)
            } else {
                len
            };
            image.resize(len, Preallocation::Off).expect("another size");
            assert_eq!(image.len(), len);
            image.write_at(&[2; 3000], len - 3000).expect("a write");
        }
        let len = image.len();
        image.close().expect("an end");
        let image = open(&dir, &name, false).expect("it opens again");
        assert_eq!(image.len(), len);
        for (offset, byte) in [
            (1_000_000, 1),
            (1_000_448, 0),
            (2_000_384 - 3000, 2),
            ((40 << 20) - 3000, 2),
            (len - 1, 2),
        ] {
            let mut read = [9];
            image.read_at(&mut read, offset).expect("a read");
            assert_eq!(read, [byte], "{kind}: {offset}");
        }
        drop(image);
        dir.qemu_img_ok(&["check", &name]);
        let info = dir.qemu_img_ok(&["info", &name]);
        assert!(info.contains(&format!("({len} bytes)")), "{kind}: {info}");
        dir.qemu_img_ok(&["convert", "-O", "qcow2", &name, "back.qcow2"]);
        let compared = dir.qemu_img(&["compare", &name, "back.qcow2"]);
        assert_eq!(compared.code, 0, "{kind}");
    }
}

#[test]
fn what_a_longer_parent_holds_does_not_show_in_what_is_new() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "base.vmdk", "2M"]);
    dir.qemu_io("vmdk", "base.vmdk", &["write -P 8 0 2M"]);
    for options in ["zeroed_grain=off", "zeroed_grain=on"] {
        dir.qemu_img_ok(&[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-o",
            options,
            "-b",
            "base.vmdk",
            "-F",
            "vmdk",
            "over.vmdk",
            "1M",
        ]);
        let image = open(&dir, "over.vmdk", true).expect("it opens");
        image
            .resize(2 << 20, Preallocation::Off)
            .expect("another size");
        image.close().expect("an end");
        let guest = contents(&open(&dir, "over.vmdk", false).expect("it opens"));
        assert!(guest[..1 << 20].iter().all(|byte| *byte == 8), "{options}");
        assert!(guest[1 << 20..].iter().all(|byte| *byte == 0), "{options}");
    }
}

#[test]
fn a_size_that_the_descriptor_has_no_room_for_changes_nothing() {
    let dir = Dir::new();
    // 8192 sectors are one digit shorter than 16384.
    dir.qemu_img_ok(&["create", "-q", "-f", "vmdk", "v.vmdk", "4M"]);
    let mut bytes = std::fs::read(dir.path("v.vmdk")).expect("an image");
    let descriptor = 512..512 * 21;
    let text = &mut bytes[descriptor];
    let end = text.iter().position(|byte| *byte == 0).expect("padding");
    text[end..].fill(b'#');
    *text.last_mut().expect("a descriptor") = b'\n';
    std::fs::write(dir.path("v.vmdk"), &bytes).expect("an image");
    let image = open(&dir, "v.vmdk", true).expect("it opens");
    let error = image
        .resize(8 << 20, Preallocation::Off)
        .expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert_eq!(image.len(), 4 << 20);
    image.close().expect("an end");
    assert!(std::fs::read(dir.path("v.vmdk")).expect("an image") == bytes);
}

#[test]
fn a_flat_extent_does_not_grow_over_what_its_file_has_behind_it() {
    let dir = Dir::new();
    let create = [
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "a.vmdk",
        "1M",
    ];
    dir.qemu_img_ok(&create);
    let flat = dir.path("a-flat.vmdk");
    for (behind, is_lost) in [(7, true), (0, false)] {
        let mut bytes = vec![1; 1 << 20];
        bytes.extend(vec![0; 1 << 20]);
        bytes.extend([behind; 512]);
        std::fs::write(&flat, &bytes).expect("an extent");
        let image = open(&dir, "a.vmdk", true).expect("it opens");
        let grown = image.resize(4 << 20, Preallocation::Off);
        assert_eq!(grown.is_err(), is_lost, "{grown:?}");
        image.close().expect("a close");
        if let Err(error) = grown {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(std::fs::read(&flat).expect("an extent") == bytes);
            continue;
        }
        bytes.resize(4 << 20, 0);
        let image = open(&dir, "a.vmdk", false).expect("it opens");
        assert!(contents(&image) == bytes);
    }
}
