//! The command lines on images of the first qcow.

use super::table::{Case, Content, case, make};
use crate::common::Dir;

pub const MAKE: &[Case] = &[
    make("create -q -f qcow new.qcow1 1M"),
    make("create -q -f qcow -b parent.qcow1 -F qcow new.qcow1"),
    make(
        "create -q -f qcow --object secret,id=s,data=x \
         -o encrypt.format=aes,encrypt.key-secret=s new.qcow1 1M",
    ),
    make("convert -f raw -O qcow plain.raw new.qcow1"),
    make("convert -c -f raw -O qcow plain.raw new.qcow1"),
    make("convert -O qcow -B parent.qcow1 -F qcow child.qcow1 new.qcow1"),
    make("convert -O raw child.qcow1 new.raw"),
];

pub const READ: &[Case] = &[
    make("info disk.qcow1"),
    make("info --backing-chain --output=json child.qcow1"),
    make("map --output=json child.qcow1"),
    make("measure -O qcow child.qcow1"),
    Case {
        failures: &[1, 2],
        ..make("check disk.qcow1")
    },
    Case {
        code: 2,
        failures: &[1, 2, 3],
        ..make("check marred.qcow1")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare child.qcow1 child.qcow1")
    },
];

const DISK: &[&str] = &["disk.qcow1"];
const CHILD: &[&str] = &["child.qcow1"];

pub const CHANGE: &[Case] = &[
    case(
        "commit -q child.qcow1",
        &["child.qcow1", "parent.qcow1"],
        Content::Same,
    ),
    case(
        "commit -q -d child.qcow1",
        &["child.qcow1", "parent.qcow1"],
        Content::Same,
    ),
    case(
        "rebase -b other.qcow1 -F qcow child.qcow1",
        CHILD,
        Content::Same,
    ),
    case(
        "rebase -c -b other.qcow1 -F qcow child.qcow1",
        CHILD,
        Content::Same,
    ),
    case("rebase -b '' child.qcow1", CHILD, Content::Same),
    case(
        "rebase -u -b other.qcow1 -F qcow child.qcow1",
        CHILD,
        Content::Either,
    ),
    case("rebase -u -b '' child.qcow1", CHILD, Content::Either),
    case(
        "convert -n -O qcow plain.raw disk.qcow1",
        DISK,
        Content::Any,
    ),
    case(
        "convert -c -n -O qcow plain.raw disk.qcow1",
        DISK,
        Content::Any,
    ),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case(
            "check -q -r all marred.qcow1",
            &["marred.qcow1"],
            Content::Same,
        )
    },
    Case {
        failures: &[1, 2, 3],
        ..case(
            "check -q -r leaks leaky.qcow1",
            &["leaky.qcow1"],
            Content::Same,
        )
    },
];

/// Makes the images that a line names.
pub fn images(dir: &Dir, line: &str) {
    let uses = |name: &str| line.contains(name);
    let create = |args: &str| {
        let line = format!("create -q -f qcow {args}");
        dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
    };
    for name in ["disk.qcow1", "marred.qcow1", "leaky.qcow1"] {
        if uses(name) {
            create(&format!("{name} 1M"));
            let commands = [
                "write -P 1 0 300k",
                "write -c -P 3 500k 4k",
                "write -P 2 700k 100k",
            ];
            dir.qemu_io("qcow", name, &commands);
        }
    }
    if uses("child.qcow1") || uses("parent.qcow1") {
        create("parent.qcow1 1M");
        dir.qemu_io("qcow", "parent.qcow1", &["write -P 3 0 500k"]);
        create("-b parent.qcow1 -F qcow child.qcow1");
        let commands = ["write -P 4 100k 50k", "write -z 200k 8k"];
        dir.qemu_io("qcow", "child.qcow1", &commands);
    }
    if uses("other.qcow1") {
        create("other.qcow1 1M");
        let commands = ["write -P 3 0 100k", "write -P 5 600k 50k"];
        dir.qemu_io("qcow", "other.qcow1", &commands);
    }
    // Entries of the only lower table: one that names nothing, or one that names no more what it did.
    for (name, index, entry) in [("marred.qcow1", 100, 1 << 50), ("leaky.qcow1", 199, 0_u64)] {
        if uses(name) {
            let mut bytes = std::fs::read(dir.path(name)).expect("an image");
            let place = |at: usize| {
                let word = bytes[at..at + 8].try_into().expect("8 bytes");
                u64::from_be_bytes(word) as usize
            };
            let at = place(place(40)) + 8 * index;
            bytes[at..at + 8].copy_from_slice(&entry.to_be_bytes());
            std::fs::write(dir.path(name), bytes).expect("an image");
        }
    }
}
