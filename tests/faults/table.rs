//! The command lines, and what each may leave when a call of it fails.

use std::os::unix::fs::FileExt;

use crate::common::Dir;
use crate::{blocks, parallels, qcow, qed, vmdk};

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
    /// The images are damaged to begin with, so that only a complete repair is clean.
    pub damaged: bool,
}

pub const fn case(line: &'static str, touches: &'static [&'static str], content: Content) -> Case {
    Case {
        line,
        touches,
        content,
        code: 0,
        failures: &[1],
        damaged: false,
    }
}

pub const fn make(line: &'static str) -> Case {
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
    make("create -q -f qcow2 -o compat=0.10,cluster_size=512 new.qcow2 1M"),
    make("create -q -f luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 new.luks 1M"),
    make(
        "create -q -f luks --object secret,id=s,data=x \
         -o key-secret=s,iter-time=10,preallocation=full new.luks 1M",
    ),
    make(
        "create -q -f luks --object secret,id=s,data=x \
         -o key-secret=s,iter-time=10,detached-header=on new.luks",
    ),
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
    make("convert -O qcow2 --bitmaps bits.qcow2 new.qcow2"),
    make("convert -O qcow2 -c -W -o compression_type=zstd top.qcow2 new.qcow2"),
    make("convert -O qcow2 -o preallocation=full top.qcow2 new.qcow2"),
    make("convert -O raw -o preallocation=falloc top.qcow2 new.raw"),
    make("convert -O qcow2 -o data_file=new.data top.qcow2 new.qcow2"),
    make("convert -O raw -S 0 top.qcow2 new.raw"),
    make("convert -O qcow2 plain.raw top.qcow2 new.qcow2"),
    make(
        "convert -O qcow2 --object secret,id=s,data=x --image-opts \
         driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2 new.qcow2",
    ),
    make(
        "convert -O raw --object secret,id=s,data=x --image-opts \
         driver=luks,key-secret=s,file.filename=disk.luks new.raw",
    ),
    make("dd if=plain.raw of=new.raw bs=64k"),
    make("dd of=new.raw bs=64k <plain.raw"),
    make("dd -O qcow2 of=new.qcow2 bs=64k osize=2M <plain.raw"),
    make("dd -f qcow2 if=top.qcow2 bs=64k"),
    case(
        "dd -n -O raw if=top.qcow2 of=plain.raw bs=4k",
        &["plain.raw"],
        Content::Any,
    ),
    case(
        "convert -n -O qcow2 -c plain.raw leaky.qcow2",
        &["leaky.qcow2"],
        Content::Any,
    ),
    case(
        "convert -n --bitmaps -O qcow2 bits.qcow2 snap.qcow2",
        &["snap.qcow2"],
        Content::Any,
    ),
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
    make("map -f raw --output=json plain.raw"),
    make("map -s 100k -l 300k top.qcow2"),
    make("measure -O qcow2 top.qcow2"),
    make("measure -O raw top.qcow2"),
    make("measure -O qcow2 -l one snap.qcow2"),
    make("measure -O qcow2 --output=json bits.qcow2"),
    make("info --output=json bits.qcow2"),
    make("info disk.luks"),
    make(
        "info --object secret,id=s,data=x --image-opts \
         driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2",
    ),
    make("bench -c 20 -d 1 -i threads top.qcow2"),
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
        failures: &[1, 2],
        ..make("check --output=json bits.qcow2")
    },
    Case {
        code: 2,
        failures: &[1, 2, 3],
        ..make("check damaged.qcow2")
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
    Case {
        failures: &[2, 3, 4],
        ..make("compare -s plain.raw plain.raw")
    },
    Case {
        failures: &[2, 3, 4],
        ..make(
            "compare --object secret,id=s,data=x --image-opts \
             driver=luks,key-secret=s,file.filename=disk.luks \
             driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2",
        )
    },
];

const TOP: &[&str] = &["top.qcow2"];
const SNAP: &[&str] = &["snap.qcow2"];
const LEAKY: &[&str] = &["leaky.qcow2"];
const BITS: &[&str] = &["bits.qcow2"];
const DAMAGED: &[&str] = &["damaged.qcow2"];
const CRYPT: &[&str] = &["crypt.qcow2"];
const LUKS: &[&str] = &["disk.luks"];

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
        "commit -q -b base.qcow2 tip.qcow2",
        &["tip.qcow2", "base.qcow2"],
        Content::Same,
    ),
    // The base grows.
    case(
        "commit -q over.qcow2",
        &["over.qcow2", "other.qcow2"],
        Content::Same,
    ),
    case(
        "rebase -u -b other.qcow2 -F qcow2 top.qcow2",
        TOP,
        Content::Either,
    ),
    case("rebase -u -b '' top.qcow2", TOP, Content::Either),
    case("rebase -c -b '' tip.qcow2", &["tip.qcow2"], Content::Same),
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
        "resize -q --preallocation=metadata top.qcow2 3M",
        TOP,
        Content::Either,
    ),
    case(
        "resize -q --preallocation=falloc snap.qcow2 3M",
        SNAP,
        Content::Either,
    ),
    case(
        "resize -q -f raw --preallocation=full plain.raw 3M",
        &["plain.raw"],
        Content::Either,
    ),
    case(
        "resize -q -f raw --preallocation=falloc plain.raw 3M",
        &["plain.raw"],
        Content::Either,
    ),
    case(
        "resize -q -f raw --shrink plain.raw 300k",
        &["plain.raw"],
        Content::Either,
    ),
    case(
        "resize -q --object secret,id=s,data=x --image-opts \
         driver=luks,key-secret=s,file.filename=disk.luks 3M",
        LUKS,
        Content::Either,
    ),
    case("snapshot -q -c two snap.qcow2", SNAP, Content::Same),
    case("snapshot -q -a one snap.qcow2", SNAP, Content::Either),
    case("snapshot -q -d one snap.qcow2", SNAP, Content::Same),
    case(
        "snapshot -q -c two --object secret,id=s,data=x --image-opts \
         driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2",
        CRYPT,
        Content::Same,
    ),
    case("snapshot -q -c two bits.qcow2", BITS, Content::Same),
    case(
        "amend -o compat=1.1 old.qcow2",
        &["old.qcow2"],
        Content::Same,
    ),
    case("amend -o refcount_bits=1 top.qcow2", TOP, Content::Same),
    case(
        "amend --object secret,id=s,data=x --object secret,id=n,data=y \
         -o state=active,new-secret=n,iter-time=10 --image-opts \
         driver=luks,key-secret=s,file.filename=disk.luks",
        LUKS,
        Content::Same,
    ),
    // The only key slot gets another passphrase, and afterwards it has the old one again.
    case(
        "amend --force --object secret,id=s,data=x \
         -o state=active,keyslot=0,new-secret=s,iter-time=10 --image-opts \
         driver=luks,key-secret=s,file.filename=disk.luks",
        LUKS,
        Content::Same,
    ),
    case(
        "amend --object secret,id=s,data=x -o state=inactive,keyslot=1 --image-opts \
         driver=luks,key-secret=s,file.filename=disk.luks",
        LUKS,
        Content::Same,
    ),
    case(
        "amend --object secret,id=s,data=x --object secret,id=n,data=y \
         -o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10 --image-opts \
         driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2",
        CRYPT,
        Content::Same,
    ),
    case(
        "amend --object secret,id=s,data=x -o encrypt.state=inactive,encrypt.keyslot=1 \
         --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=crypt.qcow2",
        CRYPT,
        Content::Same,
    ),
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
    case("bitmap --merge b1 bits.qcow2 b0", BITS, Content::Same),
    case("bitmap --add -g 64k bits.qcow2 b2", BITS, Content::Same),
    case("bitmap --clear bits.qcow2 b0", BITS, Content::Same),
    case("bitmap --disable bits.qcow2 b0", BITS, Content::Same),
    case("bitmap --enable bits.qcow2 b1", BITS, Content::Same),
    case("bitmap --remove bits.qcow2 b0", BITS, Content::Same),
    case(
        "bitmap --merge c0 -b more.qcow2 -F qcow2 bits.qcow2 b0",
        BITS,
        Content::Same,
    ),
    case(
        "bench -w -c 20 -d 1 -i threads --pattern 7 --flush-interval 5 bits.qcow2",
        BITS,
        Content::Any,
    ),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case("check -q -r all damaged.qcow2", DAMAGED, Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r leaks leaky.qcow2", LEAKY, Content::Same)
    },
    Case {
        failures: &[1, 2, 3],
        ..case("check -q -r all leaky.qcow2", LEAKY, Content::Same)
    },
];

/// Where much memory is wanted.
pub const MEMORY: &[Case] = &[
    make("create -q -f qcow2 -o preallocation=full new.qcow2 1M"),
    make("create -q -f raw -o preallocation=full new.raw 1M"),
    make("convert -m 2 -O qcow2 plain.raw new.qcow2"),
    make("convert -O raw top.qcow2 new.raw"),
    make("convert -c -m 2 -O qcow2 plain.raw new.qcow2"),
    make("convert -c -o compression_type=zstd -O qcow2 top.qcow2 new.qcow2"),
    make("dd bs=512M if=plain.raw of=new.raw"),
    make("dd of=new.raw bs=512M <plain.raw"),
    make("map --output=json top.qcow2"),
    make("bench -c 20 -d 4 -s 128k -i threads top.qcow2"),
    Case {
        failures: &[1, 2],
        ..make("check top.qcow2")
    },
    Case {
        failures: &[2, 3, 4],
        ..make("compare top.qcow2 top.qcow2")
    },
    case(
        "commit -q top.qcow2",
        &["top.qcow2", "base.qcow2"],
        Content::Same,
    ),
    case("rebase -b '' top.qcow2", TOP, Content::Same),
    case(
        "resize -q --preallocation=full top.qcow2 3M",
        TOP,
        Content::Either,
    ),
    case("snapshot -q -c two snap.qcow2", SNAP, Content::Same),
    case("snapshot -q -a one snap.qcow2", SNAP, Content::Either),
    case("amend -o refcount_bits=64 snap.qcow2", SNAP, Content::Same),
    case("bitmap --merge b1 bits.qcow2 b0", BITS, Content::Same),
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case("check -q -r all damaged.qcow2", DAMAGED, Content::Same)
    },
];

/// Makes the images that the command lines name, those that are named.
pub fn images(dir: &Dir, line: &str) {
    vmdk::images(dir, line);
    blocks::images(dir, line);
    qed::images(dir, line);
    qcow::images(dir, line);
    parallels::images(dir, line);
    let over = |name: &str, below: &[&str]| {
        line.contains(name) || below.iter().any(|name| line.contains(name))
    };
    let uses = |name: &str| line.contains(name);
    let create = |args: &str| qcow2(dir, args);
    if uses("plain.raw") || uses("disk.luks") || uses("crypt.qcow2") {
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "plain.raw", "1M"]);
        let commands = ["write -P 5 0 200k", "write -P 6 700k 30k"];
        dir.qemu_io("raw", "plain.raw", &commands);
    }
    if uses("disk.luks") {
        encrypted(dir, "luks", "", "disk.luks", line);
    }
    if uses("crypt.qcow2") {
        encrypted(dir, "qcow2", "encrypt.", "crypt.qcow2", line);
    }
    if over("top.qcow2", &["base.qcow2", "tip.qcow2"]) {
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
    if uses("tip.qcow2") {
        create("-b top.qcow2 -F qcow2 tip.qcow2");
        let commands = ["write -P 7 200k 100k", "write -z 0 8k"];
        dir.qemu_io("qcow2", "tip.qcow2", &commands);
    }
    if over("other.qcow2", &["over.qcow2"]) {
        create("other.qcow2 900k");
        let commands = ["write -P 1 0 200k", "write -P 9 650k 100k"];
        dir.qemu_io("qcow2", "other.qcow2", &commands);
    }
    if uses("over.qcow2") {
        create("-b other.qcow2 -F qcow2 over.qcow2 1M");
        let commands = ["write -P 3 100k 50k", "write -P 4 920k 60k"];
        dir.qemu_io("qcow2", "over.qcow2", &commands);
    }
    if uses("snap.qcow2") {
        create("snap.qcow2 1M");
        dir.qemu_io("qcow2", "snap.qcow2", &["write -P 1 0 300k"]);
        dir.qemu_img_ok(&["snapshot", "-c", "one", "snap.qcow2"]);
        let commands = ["write -P 2 100k 100k", "write -P 3 600k 100k"];
        dir.qemu_io("qcow2", "snap.qcow2", &commands);
    }
    if uses("old.qcow2") {
        create("-o compat=0.10 old.qcow2 1M");
        dir.qemu_io("qcow2", "old.qcow2", &["write -P 1 0 300k"]);
    }
    if uses("bits.qcow2") {
        bitmaps(dir, "bits.qcow2", &["b0", "b1"]);
    }
    if uses("more.qcow2") {
        bitmaps(dir, "more.qcow2", &["c0"]);
    }
    for (name, harm) in [
        ("leaky.qcow2", leak as fn(&Dir, &str)),
        ("damaged.qcow2", damage),
    ] {
        if uses(name) {
            create(&format!("{name} 1M"));
            dir.qemu_io("qcow2", name, &["write -P 1 0 300k"]);
            harm(dir, name);
        }
    }
}

fn qcow2(dir: &Dir, args: &str) {
    let line = format!("create -q -f qcow2 -o cluster_size=4096 {args}");
    dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
}

/// What opens an encrypted image, as `--image-opts` has it; None for any other.
pub fn opened_with(name: &str, path: &str) -> Option<String> {
    match name {
        "disk.luks" | "new.luks" => Some(format!("driver=luks,key-secret=s,file.filename={path}")),
        "crypt.qcow2" | "new-crypt.qcow2" => Some(format!(
            "driver=qcow2,encrypt.key-secret=s,file.filename={path}"
        )),
        _ => blocks::opened_with(name, path),
    }
}

/// An image with the contents of `plain.raw`; with a second key slot for who names slot 1.
fn encrypted(dir: &Dir, format: &str, prefix: &str, name: &str, line: &str) {
    let mut options = format!("{prefix}key-secret=s,{prefix}iter-time=1");
    if format == "qcow2" {
        options.push_str(",encrypt.format=luks,cluster_size=4096");
    }
    let secret = ["--object", "secret,id=s,data=x"];
    let target = ["-f", "raw", "-O", format, "-o", &options, "plain.raw", name];
    dir.qemu_img_ok(&[&["convert"], &secret[..], &target].concat());
    if line.contains("keyslot=1") {
        let slot = format!("{prefix}state=active,{prefix}new-secret=n,{prefix}iter-time=1");
        let opts = opened_with(name, name).expect("an encrypted image");
        let another = ["--object", "secret,id=n,data=y"];
        let rest = ["-o", &slot, "--image-opts", &opts];
        dir.qemu_img_ok(&[&["amend"], &secret[..], &another, &rest].concat());
    }
}

/// An image with bitmaps that have recorded writes, the first still does.
fn bitmaps(dir: &Dir, image: &str, names: &[&str]) {
    qcow2(dir, &format!("{image} 1M"));
    dir.qemu_io("qcow2", image, &["write -P 1 0 300k"]);
    for name in names {
        dir.qemu_img_ok(&["bitmap", "--add", "-g", "4k", image, name]);
        let commands = ["write -P 2 100k 50k", "write -P 3 600k 20k"];
        dir.qemu_io("qcow2", image, &commands);
    }
    for name in &names[1..] {
        dir.qemu_img_ok(&["bitmap", "--disable", image, name]);
    }
}

/// Reads and writes the words of an image's file.
struct Words(std::fs::File);

impl Words {
    fn of(dir: &Dir, image: &str) -> Self {
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).open(dir.path(image));
        Self(file.expect("the image"))
    }

    /// The offset that stands there.
    fn offset(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).expect("a table");
        u64::from_be_bytes(bytes) & 0x00ff_ffff_ffff_fe00
    }

    fn empty(&self, at: u64, len: usize) {
        let zeroes = vec![0; len];
        self.0.write_all_at(&zeroes, at).expect("to empty entries");
    }
}

/// Empties the first entries of the first L2 table.
fn leak(dir: &Dir, image: &str) {
    let words = Words::of(dir, image);
    words.empty(words.offset(words.offset(40)), 64);
}

/// Besides a leak, takes the references of some clusters in use away.
fn damage(dir: &Dir, image: &str) {
    leak(dir, image);
    let words = Words::of(dir, image);
    let cluster = words.offset(words.offset(words.offset(40)) + 256) >> 12;
    words.empty(words.offset(words.offset(48)) + 2 * cluster, 16);
}
