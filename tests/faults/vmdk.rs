//! The command lines on VMDK images.

use super::table::{Case, Content, case, make};
use crate::common::Dir;

pub const MAKE: &[Case] = &[
    make("create -q -f vmdk new.vmdk 1M"),
    make("create -q -f vmdk -o zeroed_grain=on,preallocation=falloc new.vmdk 1M"),
    make("create -q -f vmdk -o preallocation=full new.vmdk 1M"),
    make("create -q -f vmdk -o subformat=monolithicFlat new.vmdk 1M"),
    make("create -q -f vmdk -o subformat=monolithicFlat,preallocation=full new.vmdk 1M"),
    make("create -q -f vmdk -o subformat=twoGbMaxExtentSparse new.vmdk 5G"),
    make("create -q -f vmdk -o subformat=twoGbMaxExtentFlat new.vmdk 5G"),
    make("create -q -f vmdk -o subformat=streamOptimized new.vmdk 1M"),
    make("create -q -f vmdk -b parent.vmdk -F vmdk new.vmdk"),
    make("convert -f raw -O vmdk plain.raw new.vmdk"),
    make("convert -f raw -O vmdk -o subformat=monolithicFlat plain.raw new.vmdk"),
    make("convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse plain.raw new.vmdk"),
    make("convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat plain.raw new.vmdk"),
    make("convert -f raw -O vmdk -o subformat=streamOptimized plain.raw new.vmdk"),
    make("convert -O vmdk -B parent.vmdk -F vmdk child.vmdk new.vmdk"),
    make("convert -O raw child.vmdk new.raw"),
    make("convert -O qcow2 stream.vmdk new.qcow2"),
    make("convert -O raw parts.vmdk new.raw"),
];

pub const READ: &[Case] = &[
    make("info parts.vmdk"),
    make("info --backing-chain --output=json child.vmdk"),
    make("map --output=json parts.vmdk"),
    make("map child.vmdk"),
    make("measure -O qcow2 child.vmdk"),
    Case {
        failures: &[1, 2],
        ..make("check disk.vmdk")
    },
    Case {
        failures: &[1, 2],
        ..make("check parts.vmdk")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare parts.vmdk stream.vmdk")
    },
];

const DISK: &[&str] = &["disk.vmdk"];
const CHILD: &[&str] = &["child.vmdk"];
const PARTS: &[&str] = &["parts.vmdk", "parts-s001.vmdk"];
const LONG: &[&str] = &["long.vmdk", "long-s001.vmdk"];
const TWO: &[&str] = &["two.vmdk", "two-s001.vmdk", "two-s002.vmdk"];
const FLAT: &[&str] = &["flat.vmdk", "flat-flat.vmdk"];

pub const CHANGE: &[Case] = &[
    case("resize -q disk.vmdk 3M", DISK, Content::Either),
    case("resize -q disk.vmdk 65M", DISK, Content::Either),
    case(
        "resize -q --preallocation=full disk.vmdk 3M",
        DISK,
        Content::Either,
    ),
    case("resize -q --shrink disk.vmdk 300k", DISK, Content::Either),
    case("resize -q child.vmdk 2M", CHILD, Content::Either),
    case("resize -q parts.vmdk 3M", PARTS, Content::Either),
    case("resize -q --shrink parts.vmdk 300k", PARTS, Content::Either),
    case("resize -q parts.vmdk 3G", PARTS, Content::Either),
    case("resize -q parts.vmdk 2049M", PARTS, Content::Either),
    // The new descriptor is another file.
    case("resize -q long.vmdk 3G", LONG, Content::Either),
    case("resize -q --shrink two.vmdk 300k", TWO, Content::Either),
    case("resize -q --shrink two.vmdk 2G", TWO, Content::Either),
    case("resize -q flat.vmdk 3M", FLAT, Content::Either),
    case(
        "resize -q --preallocation=falloc flat.vmdk 3M",
        FLAT,
        Content::Either,
    ),
    case("resize -q --shrink flat.vmdk 300k", FLAT, Content::Either),
    case(
        "rebase -b other.vmdk -F vmdk child.vmdk",
        CHILD,
        Content::Same,
    ),
    case("rebase -b '' child.vmdk", CHILD, Content::Same),
    case(
        "rebase -u -b other.vmdk -F vmdk child.vmdk",
        CHILD,
        Content::Either,
    ),
    case("rebase -u -b '' child.vmdk", CHILD, Content::Either),
    // The new descriptor is another file.
    case("rebase -b '' long.vmdk", LONG, Content::Same),
    case(
        "rebase -u -b other.vmdk -F vmdk long.vmdk",
        LONG,
        Content::Either,
    ),
    case(
        "commit -q child.vmdk",
        &["child.vmdk", "parent.vmdk"],
        Content::Same,
    ),
    case("convert -n -O vmdk plain.raw disk.vmdk", DISK, Content::Any),
    case(
        "convert -n -O vmdk plain.raw parts.vmdk",
        PARTS,
        Content::Any,
    ),
    case("convert -n -O vmdk plain.raw flat.vmdk", FLAT, Content::Any),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case(
            "check -q -r all harmed.vmdk",
            &["harmed.vmdk"],
            Content::Same,
        )
    },
];

/// Whether a name is that of an image, not of an extent of one.
pub fn is_image(name: &str) -> bool {
    name.ends_with(".vmdk") && !name.contains('-')
}

/// Makes the images that a line names.
pub fn images(dir: &Dir, line: &str) {
    let uses = |name: &str| line.contains(name);
    let create = |args: &str| {
        let line = format!("create -q -f vmdk {args}");
        dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
    };
    for (name, options) in [
        ("disk.vmdk", ""),
        ("harmed.vmdk", ""),
        ("flat.vmdk", "-o subformat=monolithicFlat"),
        ("parts.vmdk", "-o subformat=twoGbMaxExtentSparse"),
    ] {
        if uses(name) {
            create(&format!("{options} {name} 1M"));
            dir.qemu_io("vmdk", name, &["write -P 1 0 300k", "write -P 2 700k 100k"]);
        }
    }
    if uses("two.vmdk") {
        create("-o subformat=twoGbMaxExtentSparse two.vmdk 3G");
        let commands = ["write -P 1 0 300k", "write -P 2 2047M 2M"];
        dir.qemu_io("vmdk", "two.vmdk", &commands);
    }
    if uses("stream.vmdk") {
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "source.raw", "1M"]);
        let commands = ["write -P 1 0 300k", "write -P 2 700k 100k"];
        dir.qemu_io("raw", "source.raw", &commands);
        let options = ["-o", "subformat=streamOptimized", "source.raw"];
        let convert = ["convert", "-f", "raw", "-O", "vmdk"];
        dir.qemu_img_ok(&[&convert[..], &options, &["stream.vmdk"]].concat());
        std::fs::remove_file(dir.path("source.raw")).expect("to remove a file");
    }
    if ["child", "parent", "long", "far"]
        .iter()
        .any(|name| uses(&format!("{name}.vmdk")))
    {
        create("parent.vmdk 1M");
        dir.qemu_io("vmdk", "parent.vmdk", &["write -P 3 0 500k"]);
        create("-b parent.vmdk -F vmdk child.vmdk");
        dir.qemu_io("vmdk", "child.vmdk", &["write -P 4 100k 50k"]);
    }
    if uses("long.vmdk") {
        // A descriptor of several sectors.
        let tools = "7".repeat(500);
        let options = format!("subformat=twoGbMaxExtentSparse,toolsversion={tools}");
        create(&format!("-o {options} -b parent.vmdk -F vmdk long.vmdk"));
        dir.qemu_io("vmdk", "long.vmdk", &["write -P 4 100k 50k"]);
    }
    if uses("far.vmdk") {
        // A descriptor whose many lines all move when the name of the parent goes.
        create("-o subformat=twoGbMaxExtentSparse -b parent.vmdk -F vmdk far.vmdk 40G");
        dir.qemu_io("vmdk", "far.vmdk", &["write -P 4 100k 50k"]);
    }
    if uses("other.vmdk") {
        create("other.vmdk 1M");
        dir.qemu_io(
            "vmdk",
            "other.vmdk",
            &["write -P 3 0 100k", "write -P 5 600k 50k"],
        );
    }
    if uses("harmed.vmdk") {
        // The first entry of the redundant table points nowhere.
        let mut bytes = std::fs::read(dir.path("harmed.vmdk")).expect("an image");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let table = word(word(48) as usize * 512) as usize * 512;
        bytes[table..table + 4].fill(0xff);
        std::fs::write(dir.path("harmed.vmdk"), bytes).expect("an image");
    }
}
