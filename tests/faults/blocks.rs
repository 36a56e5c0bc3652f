//! The command lines on images whose guest data lies in blocks: VDI, VHD and VHDX. Chains of these, and a
//! log that waits to be replayed, are more than QEMU's tools read: all is looked at by this one.

use std::os::unix::fs::FileExt;

use platter::{Image, Location, OpenOptions, OpenPolicy};

use super::table::{Case, Content, case, make};
use super::{build, common::Dir, common::run_in};

/// How an image of these formats is opened, whatever its writer left behind; None for any other.
pub fn opened_with(name: &str, path: &str) -> Option<String> {
    let driver = match name.rsplit('.').next()? {
        "vdi" => "vdi",
        "vhd" => "vpc",
        "vhdx" => "vhdx,replay-log=on",
        _ => return None,
    };
    Some(format!("driver={driver},file.filename={path}"))
}

/// The parent that an image names, and knows by what changes with its contents.
pub fn parent_of(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "child.vhdx" => Some(("parent.vhdx", "vhdx")),
        "child.vmdk" => Some(("parent.vmdk", "vmdk")),
        _ => None,
    }
}

const fn check(line: &'static str) -> Case {
    Case {
        failures: &[1, 2],
        ..make(line)
    }
}

const fn compare(line: &'static str) -> Case {
    Case {
        failures: &[2, 3, 4],
        ..make(line)
    }
}

const fn repair(line: &'static str, touches: &'static [&'static str]) -> Case {
    Case {
        failures: &[1, 2, 3],
        damaged: true,
        ..case(line, touches, Content::Same)
    }
}

const fn either(line: &'static str, touches: &'static [&'static str]) -> Case {
    case(line, touches, Content::Either)
}

const fn same(line: &'static str, touches: &'static [&'static str]) -> Case {
    case(line, touches, Content::Same)
}

pub const VDI: &[Case] = &[
    make("create -q -f vdi new.vdi 3M"),
    make("create -q -f vdi -o static=on new.vdi 3M"),
    make("create -q -f vdi -b disk.vdi -F vdi new.vdi"),
    make("create -q -f vdi -o static=on,preallocation=full new.vdi 3M"),
    make("convert -f raw -O vdi plain.raw new.vdi"),
    make("convert -f raw -O vdi -o static=on plain.raw new.vdi"),
    make("convert -O raw disk.vdi new.raw"),
    make("info disk.vdi"),
    make("map --output=json disk.vdi"),
    check("check disk.vdi"),
    compare("compare disk.vdi disk.vdi"),
    either("resize -q disk.vdi 5M", &["disk.vdi"]),
    either("resize -q --shrink disk.vdi 2M", &["disk.vdi"]),
    either("resize -q static.vdi 5M", &["static.vdi"]),
    either(
        "resize -q --preallocation=full static.vdi 5M",
        &["static.vdi"],
    ),
    case(
        "convert -n -f raw -O vdi plain.raw disk.vdi",
        &["disk.vdi"],
        Content::Any,
    ),
    same("commit -q layer.qcow2", &["layer.qcow2", "disk.vdi"]),
    repair("check -q -r all harmed.vdi", &["harmed.vdi"]),
];

pub const VPC: &[Case] = &[
    make("create -q -f vpc -o force_size=on new.vhd 3M"),
    make("create -q -f vpc -o subformat=fixed,force_size=on new.vhd 3M"),
    make("create -q -f vpc -o subformat=fixed,preallocation=full new.vhd 3M"),
    make("create -q -f vpc -b parent.vhd -F vpc new.vhd"),
    make("convert -f raw -O vpc plain.raw new.vhd"),
    make("convert -f raw -O vpc -o subformat=fixed plain.raw new.vhd"),
    make("convert -f vpc -O vpc -B parent.vhd -F vpc child.vhd new.vhd"),
    make("convert -f vpc -O raw child.vhd new.raw"),
    make("info --backing-chain --output=json child.vhd"),
    make("map --output=json child.vhd"),
    check("check child.vhd"),
    compare("compare parent.vhd parent.vhd"),
    either("resize -q parent.vhd 5M", &["parent.vhd"]),
    either("resize -q --shrink parent.vhd 1M", &["parent.vhd"]),
    either("resize -q child.vhd 5M", &["child.vhd"]),
    either("resize -q -f vpc fixed.vhd 5M", &["fixed.vhd"]),
    either("resize -q -f vpc --shrink fixed.vhd 1M", &["fixed.vhd"]),
    same("rebase -b other.vhd -F vpc child.vhd", &["child.vhd"]),
    same("rebase -b '' child.vhd", &["child.vhd"]),
    either("rebase -u -b other.vhd -F vpc child.vhd", &["child.vhd"]),
    either("rebase -u -b '' child.vhd", &["child.vhd"]),
    same("commit -q child.vhd", &["child.vhd", "parent.vhd"]),
    case(
        "convert -n -f raw -O vpc plain.raw parent.vhd",
        &["parent.vhd"],
        Content::Any,
    ),
    repair("check -q -r all harmed.vhd", &["harmed.vhd"]),
];

pub const VHDX: &[Case] = &[
    make("create -q -f vhdx -o block_size=1M new.vhdx 3M"),
    make("create -q -f vhdx -o subformat=fixed,block_size=1M new.vhdx 3M"),
    make("create -q -f vhdx -o block_size=1M -b parent.vhdx -F vhdx new.vhdx"),
    make("convert -f raw -O vhdx -o block_size=1M plain.raw new.vhdx"),
    make("convert -O vhdx -o block_size=1M -B parent.vhdx -F vhdx child.vhdx new.vhdx"),
    make("convert -O raw child.vhdx new.raw"),
    make("info --backing-chain --output=json child.vhdx"),
    make("map --output=json child.vhdx"),
    check("check child.vhdx"),
    compare("compare parent.vhdx parent.vhdx"),
    either("resize -q parent.vhdx 5M", &["parent.vhdx"]),
    either("resize -q --shrink parent.vhdx 1M", &["parent.vhdx"]),
    either("resize -q child.vhdx 5M", &["child.vhdx"]),
    same("rebase -b other.vhdx -F vhdx child.vhdx", &["child.vhdx"]),
    same("rebase -b '' child.vhdx", &["child.vhdx"]),
    either(
        "rebase -u -b other.vhdx -F vhdx child.vhdx",
        &["child.vhdx"],
    ),
    either("rebase -u -b '' child.vhdx", &["child.vhdx"]),
    same("commit -q child.vhdx", &["child.vhdx", "parent.vhdx"]),
    case(
        "convert -n -f raw -O vhdx plain.raw parent.vhdx",
        &["parent.vhdx"],
        Content::Any,
    ),
    repair("check -q -r all harmed.vhdx", &["harmed.vhdx"]),
];

/// Runs this tool, which has to succeed.
fn ours(dir: &Dir, line: &str) {
    let tool = build::tool().to_str().expect("UTF-8");
    let words: Vec<_> = line.split_whitespace().collect();
    let ran = run_in(dir.root(), tool, &words);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
}

/// Writes guest data: byte, offset, and length in KiB.
fn write(dir: &Dir, name: &str, data: &[(u8, u64, usize)]) {
    let options = OpenOptions {
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let opts = opened_with(name, &dir.str(name)).expect("one of these formats");
    // What writes replays the log itself.
    let opts = opts.replace(",replay-log=on", "");
    let location = Location::from_image_opts(&opts).expect("image options");
    let image = Image::open(&location, &options).expect("the image");
    for (byte, at, len) in data {
        let bytes = vec![*byte; len << 10];
        image.write_at(&bytes, at << 10).expect("to write");
    }
    image.close().expect("to close the image");
}

/// Makes the images that a line names.
pub fn images(dir: &Dir, line: &str) {
    let uses = |name: &str| line.contains(name);
    let data: &[_] = &[(1, 0, 300), (2, 1700, 100)];
    for (name, args) in [
        ("disk.vdi", "-f vdi"),
        ("harmed.vdi", "-f vdi"),
        ("static.vdi", "-f vdi -o static=on"),
        ("fixed.vhd", "-f vpc -o subformat=fixed,force_size=on"),
        ("harmed.vhd", "-f vpc -o force_size=on"),
        ("harmed.vhdx", "-f vhdx -o block_size=1M"),
    ] {
        if uses(name) || name == "disk.vdi" && uses("layer.qcow2") {
            ours(dir, &format!("create -q {args} {name} 3M"));
            write(dir, name, data);
        }
    }
    if uses("layer.qcow2") {
        ours(dir, "create -q -f qcow2 -b disk.vdi -F vdi layer.qcow2");
        dir.qemu_io("qcow2", "layer.qcow2", &["write -P 3 1M 100k"]);
    }
    for (suffix, format, options) in [
        (".vhd", "vpc", "-o force_size=on"),
        (".vhdx", "vhdx", "-o block_size=1M"),
    ] {
        let named = |name: &str| {
            let name = format!("{name}{suffix}");
            line.split([' ', '=']).any(|word| word == name)
        };
        if named("parent") || named("child") {
            ours(
                dir,
                &format!("create -q -f {format} {options} parent{suffix} 3M"),
            );
            write(dir, &format!("parent{suffix}"), data);
        }
        if named("child") {
            let options = options.replace("-o force_size=on", "");
            let over = format!("-b parent{suffix} -F {format} child{suffix}");
            ours(dir, &format!("create -q -f {format} {options} {over}"));
            let data = [(4, 100, 50), (5, 2100, 3)];
            write(dir, &format!("child{suffix}"), &data);
        }
        if named("other") {
            ours(
                dir,
                &format!("create -q -f {format} {options} other{suffix} 3M"),
            );
            write(
                dir,
                &format!("other{suffix}"),
                &[(1, 0, 100), (6, 1200, 60)],
            );
        }
    }
    if uses("harmed.") {
        harm(dir, line);
    }
}

/// Damage that a repair undoes.
fn harm(dir: &Dir, line: &str) {
    let name = line.split(' ').next_back().expect("a name");
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open(dir.path(name));
    let file = file.expect("the image");
    let len = file.metadata().expect("its length").len();
    match name {
        // The count of blocks says more than there are.
        "harmed.vdi" => file.write_all_at(&[9], 0x184),
        // The footer at the end is gone.
        "harmed.vhd" => file.write_all_at(&[0; 512], len - 512),
        // A copy of the header.
        _ => file.write_all_at(&[0; 512], 64 << 10),
    }
    .expect("to damage the image");
}
