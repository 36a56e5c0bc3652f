//! The command lines, and what each may leave when a call of it fails.

use std::os::unix::fs::FileExt;

use crate::common::Dir;

/// What the guest may find in an image after a failed command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// What was there before.
    Same,
    /// What was there before, or what the command makes of it.
    Either,
    /// A target that exists already may be half written.
    Any,
}

/// A command line.
pub struct Case {
    pub line: &'static str,
    /// Files that were there before and may be changed; what the guest finds in the first is
    /// looked at.
    pub touches: &'static [&'static str],
    pub content: Content,
    /// The exit code of a run in which nothing fails.
    pub code: i32,
    /// Those that stand for an error.
    pub failures: &'static [i32],
}

const fn case(line: &'static str, touches: &'static [&'static str], content: Content) -> Case {
    Case {
        line,
        touches,
        content,
        code: 0,
        failures: &[1],
    }
}

const fn make(line: &'static str) -> Case {
    case(line, &[], Content::Same)
}

pub const MAKE: &[Case] = &[
    make("create -q -f raw new.raw 1M"),
    make("create -q -f raw -o preallocation=full new.raw 1M"),
    make("create -q -f raw -o preallocation=falloc new.raw 1M"),
    make("create -q -f qcow2 new.qcow2 1M"),
    make("create -q -f qcow2 -o preallocation=metadata new.qcow2 1M"),
    make("create -q -f qcow2 -o preallocation=falloc new.qcow2 1M"),
    make("create -q -f qcow2 -o preallocation=full new.qcow2 1M"),
    make("create -q -f qcow2 -o data_file=new.data new.qcow2 1M"),
    make("create -q -f qcow2 -b base.qcow2 -F qcow2 new.qcow2"),
    make("create -q -f luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 new.luks 1M"),
    make(
        "create -q -f qcow2 --object secret,id=s,data=x \
         -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 new.qcow2 1M",
    ),
];

pub const CONVERT: &[Case] = &[
    make("convert -f raw -O qcow2 plain.raw new.qcow2"),
    make("convert -f qcow2 -O raw top.qcow2 new.raw"),
    make("convert -O qcow2 -c top.qcow2 new.qcow2"),
    make("convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 new.qcow2"),
    make("convert -O qcow2 -l one snap.qcow2 new.qcow2"),
    make("convert -O qcow2 -o preallocation=metadata top.qcow2 new.qcow2"),
    make(
        "convert -O luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 \
         plain.raw new.luks",
    ),
    make("dd if=plain.raw of=new.raw bs=64k"),
    make("dd -f qcow2 -O qcow2 if=top.qcow2 of=new.qcow2 bs=64k skip=1 count=7"),
    case(
        "convert -n -O qcow2 plain.raw leaky.qcow2",
        &["leaky.qcow2"],
        Content::Any,
    ),
    case(
        "convert -n -O raw top.qcow2 plain.raw",
        &["plain.raw"],
        Content::Any,
    ),
];

pub const READ: &[Case] = &[
    make("info top.qcow2"),
    make("info --backing-chain --output=json top.qcow2"),
    make("map other.qcow2"),
    make("map --output=json top.qcow2"),
    make("measure -O qcow2 top.qcow2"),
    make("snapshot -l snap.qcow2"),
    // What cannot be read is a verdict as well.
    Case {
        failures: &[1, 2],
        ..make("inspect base.qcow2")
    },
    Case {
        code: 2,
        ..make("inspect --output json top.qcow2")
    },
    Case {
        failures: &[1, 2],
        ..make("check top.qcow2")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare top.qcow2 top.qcow2")
    },
    Case {
        code: 1,
        failures: &[2, 3, 4],
        ..make("compare top.qcow2 base.qcow2")
    },
];

const TOP: &[&str] = &["top.qcow2"];
const SNAP: &[&str] = &["snap.qcow2"];
const LEAKY: &[&str] = &["leaky.qcow2"];

pub const CHANGE: &[Case] = &[
    case(
        "commit -q top.qcow2",
        &["top.qcow2", "base.qcow2"],
        Content::Same,
    ),
    case(
        "commit -q -d top.qcow2",
        &["top.qcow2", "base.qcow2"],
        Content::Same,
    ),
    case(
        "rebase -f qcow2 -b other.qcow2 -F qcow2 top.qcow2",
        TOP,
        Content::Same,
    ),
    case(
        "rebase -c -b other.qcow2 -F qcow2 top.qcow2",
        TOP,
        Content::Same,
    ),
    case("rebase -b '' top.qcow2", TOP, Content::Same),
    case("resize -q top.qcow2 3M", TOP, Content::Either),
    case("resize -q --shrink top.qcow2 300k", TOP, Content::Either),
    case(
        "resize -q --preallocation=full top.qcow2 3M",
        TOP,
        Content::Either,
    ),
    case(
        "resize -q -f raw --preallocation=full plain.raw 3M",
        &["plain.raw"],
        Content::Either,
    ),
    case("snapshot -q -c two snap.qcow2", SNAP, Content::Same),
    case("snapshot -q -a one snap.qcow2", SNAP, Content::Either),
    case("snapshot -q -d one snap.qcow2", SNAP, Content::Same),
    case("amend -o refcount_bits=64 snap.qcow2", SNAP, Content::Same),
    case("amend -o compat=0.10 top.qcow2", TOP, Content::Same),
    case("amend -o lazy_refcounts=on top.qcow2", TOP, Content::Same),
    case("amend -o size=3M top.qcow2", TOP, Content::Either),
    case("bitmap --add snap.qcow2 b", SNAP, Content::Same),
    case(
        "bitmap --add --disable --enable --clear --remove snap.qcow2 b",
        SNAP,
        Content::Same,
    ),
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r leaks leaky.qcow2", LEAKY, Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r all leaky.qcow2", LEAKY, Content::Same)
    },
];

/// Makes the images that the command lines name, those that are named.
pub fn images(dir: &Dir, case: &Case) {
    let uses = |name: &str| case.line.contains(name);
    let create = |args: &str| {
        let line = format!("create -q -f qcow2 -o cluster_size=4096 {args}");
        dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
    };
    if uses("plain.raw") {
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "plain.raw", "1M"]);
        let commands = ["write -P 5 0 200k", "write -P 6 700k 30k"];
        dir.qemu_io("raw", "plain.raw", &commands);
    }
    if uses("top.qcow2") || uses("base.qcow2") {
        create("base.qcow2 1M");
        let commands = ["write -P 1 0 300k", "write -P 2 600k 100k"];
        dir.qemu_io("qcow2", "base.qcow2", &commands);
        create("-b base.qcow2 -F qcow2 top.qcow2");
        let commands = [
            "write -P 3 100k 150k",
            "write -z 620k 20k",
            "write -c -P 4 800k 4k",
            "write -P 4 900k 10k",
        ];
        dir.qemu_io("qcow2", "top.qcow2", &commands);
    }
    if uses("other.qcow2") {
        create("other.qcow2 900k");
        let commands = ["write -P 1 0 200k", "write -P 9 650k 100k"];
        dir.qemu_io("qcow2", "other.qcow2", &commands);
    }
    if uses("snap.qcow2") {
        create("snap.qcow2 1M");
        dir.qemu_io("qcow2", "snap.qcow2", &["write -P 1 0 300k"]);
        dir.qemu_img_ok(&["snapshot", "-c", "one", "snap.qcow2"]);
        let commands = ["write -P 2 100k 100k", "write -P 3 600k 100k"];
        dir.qemu_io("qcow2", "snap.qcow2", &commands);
    }
    if uses("leaky.qcow2") {
        create("leaky.qcow2 1M");
        dir.qemu_io("qcow2", "leaky.qcow2", &["write -P 1 0 300k"]);
        leak(dir, "leaky.qcow2");
    }
}

/// Empties the first entries of the first L2 table.
fn leak(dir: &Dir, image: &str) {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open(dir.path(image));
    let file = file.expect("the image");
    let word = |offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).expect("a table");
        u64::from_be_bytes(bytes) & 0x00ff_ffff_ffff_fe00
    };
    let table = word(word(40));
    file.write_all_at(&[0; 64], table)
        .expect("to empty entries");
}
