//! The commands on VHDX images: creation, refusals and checks print what QEMU's tool prints.

use crate::common::Dir;
use crate::common::vhdx::crashed;
use crate::pair::{Pair, ours, words};

#[test]
fn creation_prints_and_refuses_the_same() {
    let pair = Pair::new();
    pair.all_same(&[
        "create -f vhdx a.vhdx 10M",
        "create -f vhdx -o block_size=4M,log_size=3000000 a.vhdx 10M",
        "create -f vhdx -o subformat=fixed,block_state_zero=off a.vhdx 3M",
        "create -f vhdx -o block_size=3M a.vhdx 1G",
        "create -f vhdx -o log_size=8G a.vhdx 1G",
        "create -f vhdx a.vhdx 65T",
        "create -f vhdx -o subformat=dense a.vhdx 1G",
        "create -f vhdx a.vhdx",
        "create -f vhdx -o log_size=0 a.vhdx 1M",
        "create -f vhdx -o preallocation=bogus a.vhdx 1M",
    ]);
}

#[test]
fn information_is_the_same_for_images_of_either_side() {
    for block_size in ["0", "1M", "64M", "512M"] {
        let pair = Pair::new();
        let line = format!("create -q -f vhdx -o block_size={block_size} a.vhdx 2G");
        pair.qemu(&line);
        pair.same("info a.vhdx");
        pair.same("info --output=json a.vhdx");
        pair.same("check a.vhdx");
        pair.same("check --output=json a.vhdx");
        let info = |dir: &Dir| {
            let json = dir.qemu_img_ok(&words("info --output=json a.vhdx"));
            let lines = json
                .lines()
                .filter(|line| line.contains("virtual-size\": 2147") || line.contains("cluster"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let theirs = info(pair.ours());
        assert_eq!(ours(&words(&line), pair.ours().root()).code, 0);
        assert_eq!(info(pair.ours()), theirs, "{block_size}");
    }
}

#[test]
fn a_log_that_is_to_be_replayed_is_told_of_in_the_same_words() {
    let pair = Pair::new();
    crashed(pair.ours());
    let image = std::fs::read(pair.ours().path("a.vhdx")).expect("an image");
    pair.file("a.vhdx", &image);
    let ran = pair.same("info a.vhdx");
    assert!(ran.err.contains("check -r all"), "{ran:?}");
}

#[test]
fn the_largest_blocks_cross_both_ways() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f raw s.raw 600M"));
    let writes = [
        "write -P 1 0 64k",
        "write -P 2 300M 1M",
        "write -P 3 599M 1M",
    ];
    dir.qemu_io("raw", "s.raw", &writes);
    let line = |name: &str| format!("convert -O vhdx -o block_size=256M s.raw {name}");
    dir.qemu_img_ok(&words(&line("theirs.vhdx")));
    let ran = ours(&words(&line("ours.vhdx")), dir.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = ours(&words("compare theirs.vhdx s.raw"), dir.root());
    assert_eq!(ran.out, "Images are identical.\n", "{ran:?}");
    for name in ["ours.vhdx", "theirs.vhdx"] {
        let out = dir.qemu_img_ok(&["compare", name, "s.raw"]);
        assert_eq!(out, "Images are identical.\n", "{name}");
        let out = dir.qemu_img_ok(&["info", name]);
        assert!(out.contains("cluster_size: 268435456"), "{out}");
    }
}

#[test]
fn conversions_to_and_from_vhdx_keep_every_byte() {
    let dir = Dir::new();
    let noise: Vec<u8> = (0..9_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut disk = vec![0; 40 << 20];
    disk[1 << 20..][..noise.len()].copy_from_slice(&noise);
    disk[30_000_000..30_000_512].fill(7);
    std::fs::write(dir.path("a.raw"), &disk).expect("a disk");
    for options in [
        "subformat=dynamic",
        "subformat=fixed",
        "block_size=1M",
        "block_size=256M",
    ] {
        let line = format!("convert -f raw -O vhdx -o {options} a.raw a.vhdx");
        let ran = ours(&words(&line), dir.root());
        assert_eq!(ran.code, 0, "{ran:?}");
        dir.qemu_img_ok(&words("compare -f raw -F vhdx a.raw a.vhdx"));
        dir.qemu_img_ok(&words("check -f vhdx a.vhdx"));
        let ran = ours(&words("convert -f vhdx -O raw a.vhdx b.raw"), dir.root());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            std::fs::read(dir.path("b.raw")).expect("the copy") == disk,
            "{options}"
        );
    }
    dir.qemu_img_ok(&words("convert -f raw -O vhdx a.raw c.vhdx"));
    let ran = ours(&words("convert -f vhdx -O raw c.vhdx b.raw"), dir.root());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(std::fs::read(dir.path("b.raw")).expect("the copy") == disk);
}

#[test]
fn a_chain_goes_to_another_format_and_back_layer_by_layer() {
    let dir = Dir::new();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    let mut disk = vec![0; 5 << 20];
    disk[1 << 20..2 << 20].fill(3);
    std::fs::write(dir.path("base.raw"), &disk).expect("a disk");
    disk[1_500_000..1_500_512].fill(0);
    disk[3 << 20..(3 << 20) + 512].fill(7);
    std::fs::write(dir.path("top.raw"), &disk).expect("a disk");
    run("convert -f raw -O vhdx base.raw base.vhdx");
    run("convert -f raw -O vhdx -B base.vhdx -F vhdx top.raw top.vhdx");
    run("convert -f vhdx -O raw top.vhdx flat.raw");
    assert!(std::fs::read(dir.path("flat.raw")).expect("the copy") == disk);
    run("convert --chain -O qcow2 top.vhdx out");
    run("convert --chain -O vhdx out/top.qcow2 back");
    dir.qemu_img_ok(&words("compare -f raw -F qcow2 base.raw out/base.qcow2"));
    dir.qemu_img_ok(&words("compare -f raw -F qcow2 top.raw out/top.qcow2"));
    run("compare -f raw -F vhdx top.raw back/top.vhdx");
    run("compare -f raw -F vhdx base.raw back/base.vhdx");
    run("check back/top.vhdx");
    let ran = ours(&words("info --output=json back/top.vhdx"), dir.root());
    assert!(
        ran.out.contains("\"backing-filename\": \"base.vhdx\""),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("\"backing-filename-format\": \"vhdx\""),
        "{ran:?}"
    );
}

#[test]
fn zeroes_that_hide_a_parent_are_converted_behind_a_block_of_which_a_part_is_there() {
    let dir = Dir::new();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    run("create -q -f vhdx par.vhdx 12G");
    dir.qemu_io("vhdx", "par.vhdx", &["write -P 1 0 1M", "write -P 2 9G 1M"]);
    run("create -q -f qcow2 -b par.vhdx -F vhdx ov.qcow2");
    let changes = ["write -P 3 64k 64k", "write -z 9G 1G", "write -z 10G 1G"];
    dir.qemu_io("qcow2", "ov.qcow2", &changes);
    run("convert -O vhdx -B par.vhdx -F vhdx -o block_size=1M ov.qcow2 c.vhdx");
    run("compare ov.qcow2 c.vhdx");
    run("check -q c.vhdx");
}
