//! The same of images that QEMU's tools can hardly change, or that have no metadata: VDI, VHD, VHDX, LUKS and raw.

use platter::{Image, Location, OpenOptions, OpenPolicy};

use super::{
    Case, FROM_THEN_ON, ONCE, case, make, nothing_is_lost, nothing_is_lost_at, ours_alone, rules,
};
use crate::common::Dir;
use crate::pair::{ours, words};

const SECRET: &str = "--object secret,id=s,data=x";

/// Writes guest data with ours, for theirs know no chains of these: byte, offset and length in KiB.
fn write(dir: &Dir, format: &str, name: &str, data: &[(u8, u64, usize)]) {
    let options = OpenOptions {
        format: Some(format.to_owned()),
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::from_path(dir.path(name)), &options).expect("an image");
    for (byte, at, len) in data {
        image
            .write_at(&vec![*byte; len << 10], at << 10)
            .expect("to write");
    }
    image.close().expect("to close the image");
}

/// Disks of a format, an overlay of qcow2 over one of them, and what a disk is made of.
fn disks(format: &str, options: &str) -> Dir {
    let dir = Dir::new();
    let base = ["write -P 1 0 64k", "write -P 2 2100k 64k"];
    for (name, writes) in [
        ("base", &base[..]),
        ("b", &base),
        ("other", &["write -P 9 32k 64k", "write -P 9 2200k 64k"]),
        ("new", &[]),
    ] {
        let name = format!("{name}.{format}");
        if format == "luks" {
            // An image without metadata of its own is made of one that has none.
            make(&dir, "create -q -f raw plain.raw 3M");
            dir.qemu_io("raw", "plain.raw", writes);
            make(
                &dir,
                &format!("convert {SECRET} -f raw -O luks {options} plain.raw {name}"),
            );
            continue;
        }
        make(&dir, &format!("create -q -f {format} {options} {name} 3M"));
        dir.qemu_io(format, &name, writes);
    }
    rules(dir.root(), "");
    if format != "luks" {
        make(
            &dir,
            &format!("create -q -f qcow2 -b blkdebug:r.cfg:base.{format} -F {format} over.qcow2"),
        );
        let top = ["write -P 4 16k 17k", "write -P 5 2200k 30k"];
        dir.qemu_io("qcow2", "over.qcow2", &top);
    }
    make(&dir, "create -q -f raw src.raw 3M");
    let source = ["write -P 8 8k 100k", "write -P 8 2M 64k"];
    dir.qemu_io("raw", "src.raw", &source);
    dir
}

/// The same of a format with chains, and one disk more with damage at a place.
fn chain(format: &str, options: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Dir {
    let dir = disks(format, options);
    let top = format!("top.{format}");
    let line = format!("create -q -f {format} -b base.{format} -F {format} {top}");
    let made = ours(&words(&line), dir.root());
    assert_eq!(made.code, 0, "{made:?}");
    write(&dir, format, &top, &[(4, 16, 17), (5, 2200, 30)]);
    let mut bytes = std::fs::read(dir.path(&format!("b.{format}"))).expect("an image");
    damage(&mut bytes);
    std::fs::write(dir.path(&format!("bad.{format}")), bytes).expect("an image");
    dir
}

/// With errors at the first event of each kind and at the last: these disks take their time.
fn nothing_is_lost_at_the_ends(seed: &Dir, cases: &[Case<'_>]) {
    match std::env::var_os("PLATTER_FAULTS_ALL") {
        Some(_) => nothing_is_lost(seed, cases),
        None => nothing_is_lost_at(seed, cases, |count| vec![(1, ONCE), (count, FROM_THEN_ON)]),
    }
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_vdi_image_loses_nothing() {
    const CHAIN: &[&str] = &["base.vdi", "top.vdi", "other.vdi"];
    // The count of blocks says more than there are.
    let seed = chain("vdi", "", |bytes| bytes[0x184] = 9);
    nothing_is_lost_at_the_ends(
        &seed,
        &[
            case("commit over.qcow2", &["base.vdi", "over.qcow2"]),
            ours_alone("commit -f vdi @top.vdi", CHAIN),
            ours_alone("rebase -b other.vdi -F vdi %top.vdi", CHAIN),
            ours_alone("rebase -b '' %top.vdi", CHAIN),
            ours_alone("resize -f vdi @b.vdi 9M", &["b.vdi"]),
            ours_alone("resize -f vdi --shrink @b.vdi 2M", &["b.vdi"]),
            ours_alone("check -f vdi -r all @bad.vdi", &["bad.vdi"]),
            case(
                "convert -n -f raw -O vdi src.raw @new.vdi",
                &["new.vdi", "src.raw"],
            ),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_vhd_image_loses_nothing() {
    const CHAIN: &[&str] = &["base.vpc", "top.vpc", "other.vpc"];
    // The footer at the end is gone.
    let seed = chain("vpc", "-o force_size=on", |bytes| {
        let end = bytes.len();
        bytes[end - 512..].fill(0);
    });
    nothing_is_lost_at_the_ends(
        &seed,
        &[
            case("commit over.qcow2", &["base.vpc", "over.qcow2"]),
            ours_alone("commit -f vpc @top.vpc", CHAIN),
            ours_alone("rebase -b other.vpc -F vpc %top.vpc", CHAIN),
            ours_alone("rebase -b '' %top.vpc", CHAIN),
            ours_alone("resize -f vpc @b.vpc 9M", &["b.vpc"]),
            ours_alone("resize -f vpc --shrink @b.vpc 1M", &["b.vpc"]),
            ours_alone("check -f vpc -r all @bad.vpc", &["bad.vpc"]),
            case(
                "convert -n -f raw -O vpc src.raw @new.vpc",
                &["new.vpc", "src.raw"],
            ),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_vhdx_image_loses_nothing() {
    const CHAIN: &[&str] = &["base.vhdx", "top.vhdx", "other.vhdx"];
    // A copy of the header.
    let seed = chain("vhdx", "-o block_size=1M", |bytes| {
        bytes[64 << 10..][..512].fill(0);
    });
    nothing_is_lost_at_the_ends(
        &seed,
        &[
            case("commit over.qcow2", &["base.vhdx", "over.qcow2"]),
            ours_alone("commit -f vhdx @top.vhdx", CHAIN),
            ours_alone("rebase -b other.vhdx -F vhdx %top.vhdx", CHAIN),
            ours_alone("rebase -b '' %top.vhdx", CHAIN),
            ours_alone("resize -f vhdx @b.vhdx 9M", &["b.vhdx"]),
            ours_alone("resize -f vhdx --shrink @b.vhdx 2M", &["b.vhdx"]),
            case("check -f vhdx -r all @bad.vhdx", &["bad.vhdx"]),
            case(
                "convert -n -f raw -O vhdx src.raw @new.vhdx",
                &["new.vhdx", "src.raw"],
            ),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_raw_image_loses_nothing() {
    let over = &["base.raw", "over.qcow2"];
    nothing_is_lost_at_the_ends(
        &disks("raw", ""),
        &[
            case("commit over.qcow2", over),
            case("rebase -b '' over.qcow2", over),
            case("resize -f raw @b.raw 8M", &["b.raw"]),
            case("resize -f raw --preallocation=full @b.raw 8M", &["b.raw"]),
            case("resize -f raw --shrink @b.raw 1M", &["b.raw"]),
            case("convert -f raw -O raw @b.raw out.raw", &["b.raw"]),
            case(
                "convert -n -f raw -O raw src.raw @new.raw",
                &["new.raw", "src.raw"],
            ),
        ],
    );
}

#[test]
fn an_error_at_any_event_of_a_change_of_a_luks_image_loses_nothing() {
    const TARGET: &str = "driver=luks,key-secret=s,file.driver=blkdebug,file.config=r.cfg,file.image.driver=file,file.image.filename=new.luks";
    let seed = disks("luks", "-o key-secret=s,iter-time=1");
    let line = |line: &str| line.replace("SECRET", SECRET).replace("TARGET", TARGET);
    let lines = [
        "resize SECRET %b.luks 8M",
        "amend SECRET --object secret,id=n,data=y -o state=active,new-secret=n,iter-time=1 %b.luks",
        "convert -n SECRET -f raw --target-image-opts src.raw TARGET",
    ]
    .map(line);
    let files: [&[&str]; 3] = [&["b.luks"], &["b.luks"], &["new.luks", "src.raw"]];
    let cases: Vec<Case<'_>> = lines
        .iter()
        .zip(files)
        .map(|(line, files)| case(line, files))
        .collect();
    nothing_is_lost_at_the_ends(&seed, &cases);
}
