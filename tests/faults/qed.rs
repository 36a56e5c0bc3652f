//! The command lines on QED images.

use super::table::{Case, Content, case, make};
use crate::common::Dir;

pub const MAKE: &[Case] = &[
    make("create -q -f qed new.qed 1M"),
    make("create -q -f qed -o cluster_size=4096,table_size=2 new.qed 9M"),
    make("create -q -f qed -b parent.qed -F qed new.qed"),
    make("convert -f raw -O qed plain.raw new.qed"),
    make("convert -O qed -B parent.qed -F qed child.qed new.qed"),
    make("convert -O raw child.qed new.raw"),
];

pub const READ: &[Case] = &[
    make("info disk.qed"),
    make("info --backing-chain --output=json child.qed"),
    make("map --output=json child.qed"),
    make("measure -O qed child.qed"),
    Case {
        failures: &[1, 2],
        ..make("check disk.qed")
    },
    Case {
        code: 2,
        failures: &[1, 2, 3],
        ..make("check marred.qed")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare child.qed child.qed")
    },
];

const DISK: &[&str] = &["disk.qed"];
const CHILD: &[&str] = &["child.qed"];

pub const CHANGE: &[Case] = &[
    case("resize -q disk.qed 3M", DISK, Content::Either),
    case("resize -q child.qed 9M", CHILD, Content::Either),
    case(
        "commit -q child.qed",
        &["child.qed", "parent.qed"],
        Content::Same,
    ),
    case(
        "commit -q -d child.qed",
        &["child.qed", "parent.qed"],
        Content::Same,
    ),
    case("rebase -b other.qed -F qed child.qed", CHILD, Content::Same),
    case("rebase -b '' child.qed", CHILD, Content::Same),
    case(
        "rebase -u -b other.qed -F qed child.qed",
        CHILD,
        Content::Either,
    ),
    case("rebase -u -b '' child.qed", CHILD, Content::Either),
    case("convert -n -O qed plain.raw disk.qed", DISK, Content::Any),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case("check -q -r all marred.qed", &["marred.qed"], Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r leaks leaky.qed", &["leaky.qed"], Content::Same)
    },
];

/// Makes the images that a line names.
pub fn images(dir: &Dir, line: &str) {
    let uses = |name: &str| line.contains(name);
    let create = |args: &str| {
        let line = format!("create -q -f qed {args}");
        dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
    };
    for name in ["disk.qed", "marred.qed", "leaky.qed"] {
        if uses(name) {
            create(&format!("-o cluster_size=4096,table_size=2 {name} 1M"));
            dir.qemu_io("qed", name, &["write -P 1 0 300k", "write -P 2 700k 100k"]);
        }
    }
    if uses("child.qed") || uses("parent.qed") {
        create("-o cluster_size=4096,table_size=2 parent.qed 1M");
        dir.qemu_io("qed", "parent.qed", &["write -P 3 0 500k"]);
        create("-o cluster_size=4096,table_size=2 -b parent.qed -F qed child.qed");
        let commands = ["write -P 4 100k 50k", "write -z 200k 8k"];
        dir.qemu_io("qed", "child.qed", &commands);
    }
    if uses("other.qed") {
        create("other.qed 1M");
        let commands = ["write -P 3 0 100k", "write -P 5 600k 50k"];
        dir.qemu_io("qed", "other.qed", &commands);
    }
    // Entries of the only lower table: one that names what another one does, and one that names nothing.
    for (name, index) in [("marred.qed", 100), ("leaky.qed", 199)] {
        if uses(name) {
            let mut bytes = std::fs::read(dir.path(name)).expect("an image");
            let place = |at: usize| {
                let word = bytes[at..at + 8].try_into().expect("8 bytes");
                u64::from_le_bytes(word) as usize
            };
            let table = place(place(40));
            let entry = match name {
                "marred.qed" => bytes[table..table + 8].to_vec(),
                _ => vec![0; 8],
            };
            let at = table + 8 * index;
            bytes[at..at + 8].copy_from_slice(&entry);
            std::fs::write(dir.path(name), bytes).expect("an image");
        }
    }
}
