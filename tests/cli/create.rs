//! `create`: the line that it prints, the image that it makes, the errors.

use crate::common::Dir;
use crate::pair::{Loose, Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 base.qcow2 3M",
    ]);
    pair.directory("dir");
    pair
}

#[test]
fn raw_images() {
    let pair = images();
    for line in [
        "create a.raw 1M",
        "create -f raw b.raw 0",
        "create -f raw c.raw 1",
        "create -f raw d.raw 513",
        "create -q e.raw 1G",
        "create -f raw -o preallocation=off f.raw 1M",
        "create -f raw -o preallocation=falloc g.raw 1M",
        "create -f raw -o preallocation=full h.raw 1M",
        "create -f raw -o nocow=off i.raw 1M",
        "create -f raw -o extent_size_hint=0 j.raw 1M",
        "create -f raw -o extent_size_hint=1M k.raw 1M",
        "create -o size=1k -o size=2k l.raw",
        "create a.raw 2M",
        "create -u m.raw 1M",
        "create file:n.raw 1M",
        "create ./o:p.raw 1M",
        "create dir/q.raw 1M",
    ] {
        pair.same(line);
    }
    for name in [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n",
    ] {
        pair.same_image(&format!("{name}.raw"), "raw");
    }
}

#[test]
fn qcow2_images_with_every_option() {
    let pair = images();
    let mut number = 0;
    for options in [
        "",
        "-o compat=1.1",
        "-o compat=v3",
        "-o compat=0.10",
        "-o compat=v2",
        "-o cluster_size=512",
        "-o cluster_size=4k",
        "-o cluster_size=2M",
        "-o cluster_size=0x1000",
        "-o refcount_bits=1",
        "-o refcount_bits=2",
        "-o refcount_bits=4",
        "-o refcount_bits=8",
        "-o refcount_bits=16",
        "-o refcount_bits=32",
        "-o refcount_bits=64",
        "-o refcount_bits=0x10",
        "-o refcount_bits=020",
        "-o compat=0.10,refcount_bits=16",
        "-o lazy_refcounts=on",
        "-o lazy_refcounts=yes",
        "-o lazy_refcounts",
        "-o nolazy_refcounts",
        "-o lazy_refcounts=off,lazy_refcounts=on",
        "-o extended_l2=on",
        "-o extended_l2=on,cluster_size=16k",
        "-o extended_l2=on,cluster_size=128k",
        "-o compression_type=zlib",
        "-o compression_type=zstd",
        "-o preallocation=off",
        "-o preallocation=metadata",
        "-o preallocation=falloc",
        "-o preallocation=full",
        "-o preallocation=metadata,extended_l2=on",
        "-o preallocation=metadata,cluster_size=4k",
        "-o nocow=on",
        "-o extent_size_hint=1M",
        "-o backing_file=base.raw,backing_fmt=raw",
        "-b base.raw -F raw",
        "-b base.qcow2 -F qcow2",
        "-b base.qcow2 -F qcow2 -o cluster_size=4k",
        "-b base.qcow2 -F qcow2 -o extended_l2=on,preallocation=metadata",
        "-o cluster_size=4k -o refcount_bits=1 -o compat=1.1",
    ] {
        for size in ["5M", "0", "1000", "1025k"] {
            number += 1;
            pair.same(&format!("create -f qcow2 {options} {number}.qcow2 {size}"));
            pair.same_image(&format!("{number}.qcow2"), "qcow2");
        }
    }
}

#[test]
fn the_size_of_the_backing_file_is_taken() {
    let pair = images();
    pair.file("odd.raw", &[1; 1000]);
    for line in [
        "create -f qcow2 -b base.raw -F raw a.qcow2",
        "create -f qcow2 -b base.qcow2 -F qcow2 b.qcow2",
        "create -f qcow2 -b odd.raw -F raw c.qcow2",
        "create -f qcow2 -b ../base.raw -F raw dir/d.qcow2",
        "create -f qcow2 -u -b nope -F raw e.qcow2 1M",
        "create -f qcow2 -u -b nope -F bogus f.qcow2 1M",
        "create -f qcow2 -b base.raw -F raw -u g.qcow2 1M",
    ] {
        pair.same(line);
    }
    for name in ["a", "b", "c"] {
        pair.same_image(&format!("{name}.qcow2"), "qcow2");
    }
    for name in ["a", "b", "c", "e", "f", "g"] {
        pair.same_but(&format!("info {name}.qcow2"), Loose::DiskSize);
    }
    pair.same_but("info dir/d.qcow2", Loose::DiskSize);
}

#[test]
fn an_external_data_file() {
    let pair = images();
    for (number, options) in [
        "data_file=d1.raw",
        "data_file=d2.raw,data_file_raw=on",
        "data_file=d3.raw,preallocation=metadata",
        "data_file=d4.raw,data_file_raw=on,preallocation=full",
        "data_file=d5.raw,data_file_raw=off,extended_l2=on",
    ]
    .iter()
    .enumerate()
    {
        pair.same(&format!("create -f qcow2 -o {options} x{number}.qcow2 4M"));
        pair.same_image(&format!("x{number}.qcow2"), "qcow2");
    }
}

#[test]
fn help_on_options() {
    let pair = images();
    pair.all_same(&[
        "create -o help",
        "create -o ?",
        "create -f raw -o help",
        "create -f qcow2 -o help",
        "create -f qcow2 -o ?",
        "create -f raw -o help x",
        "create -f qcow2 -o help x",
        "create -f qcow2 -o ? x",
        "create -f qcow2 -o cluster_size=4k,help x 1kb",
        "create -f qcow2 -o help,bogus=1 x",
        "create -f qcow2 -o help -o bogus x",
        "create -f bogus -o help",
        "create -f bogus -o help x",
        "create -f qcow2 -o help foo:bar",
        "create -q -o help",
        "create -f qcow2 -o backing_file=x,,help x",
        "create -f qcow2 -o backing_file=x,,help,help x",
        "create -f qcow2 -o backing_file=x,,,help x",
        "create -f qcow2 -o backing_file=x,,,,help x",
        "create -f qcow2 -o a,,help x",
        "create -f qcow2 -o size=,? x",
        "create -f qcow2 -o help,,x=1 x",
        "create -f qcow2 -o size=1M,,help x",
        "create -f qcow2 -o ?=1 x",
        "create -f qcow2 -o backing_file=base.raw,,help,backing_fmt=raw x 1M",
    ]);
    for format in [
        "luks",
        "parallels",
        "qcow",
        "qed",
        "vdi",
        "vhdx",
        "vmdk",
        "vpc",
    ] {
        pair.same(&format!("create -f {format} -o help"));
        pair.same(&format!("create -f {format} -o help x"));
    }
    for (format, own) in [
        ("vdi", "backing_file"),
        ("vhdx", "logical_sector_size"),
        ("vpc", "backing_fmt"),
    ] {
        let help = ours(&["create", "-f", format, "-o", "help"], pair.ours().root());
        let further = help.out.split_once("Further options:\n");
        let (_, further) = further.expect("options of our own");
        assert!(further.contains(&format!("  {own}=")), "{further}");
    }
}

#[test]
fn argument_errors() {
    let pair = images();
    pair.all_same(&[
        "create",
        "create -q",
        "create -f qcow2",
        "create x",
        "create -f qcow2 x",
        "create x 1M 2M",
        "create x 1M 2M 3M",
        "create -f bogus x 1M",
        "create -f bogus x",
        "create x 1M -b",
        "create -o '' x 1M",
        "create -o ,a=b x 1M",
        "create -o a=b, x 1M",
        "create -f qcow2 -o bogus x 1M",
        "create -f qcow2 -o bogus=1 x 1M",
        "create -f qcow2 -o nobogus x 1M",
        "create -f qcow2 -o =1 x 1M",
        "create -f raw -o cluster_size=4k x 1M",
        "create -o size=1k x 1M",
        "create -f qcow2 -o size=1k x 1M",
        "create -f qcow2 -o cluster-size=4k x 1M",
        "create foo:x 1M",
        "create -f qcow2 foo:x 1M",
        "create :x 1M",
        "create '' 1M",
        "create -f qcow2 '' 1M",
        "create /nonexistent/y 1M",
        "create -f qcow2 /nonexistent/y 1M",
        "create dir 1M",
        "create -f qcow2 dir 1M",
    ]);
}

#[test]
fn sizes() {
    let pair = images();
    let mut lines = Vec::new();
    for size in [
        "0",
        "1",
        "511",
        "512",
        "513",
        "1k",
        "1K",
        "1m",
        "1M",
        "1b",
        "1B",
        "0x1000",
        "0x1k",
        "010",
        "1.5",
        "1.5b",
        "1.5k",
        "0.1k",
        "1.1k",
        ".5k",
        "1.k",
        "1.",
        "1.0",
        "+1k",
        "++1",
        "1e3",
        "1kb",
        "1KiB",
        "1Z",
        "nan",
        "inf",
        "-0",
        "x",
        "k",
        ".",
        "1..5k",
        "0.5",
        "1,5k",
        "0x",
        "00",
        "7.999E",
        "18446744073709551616",
        "99999999999999999999999",
        "16E",
        "1k1",
    ] {
        lines.push(format!("create -u -f qcow2 s.qcow2 {size}"));
        lines.push(format!("create -f qcow2 -o size={size} t.qcow2"));
    }
    for size in ["9223372036854775808", "18446744073709551615", "8E", "15E"] {
        lines.push(format!("create -u -f qcow2 s.qcow2 {size}"));
    }
    for size in [
        "-1",
        "-1k",
        "-9223372036854775808",
        "-9223372036854775809",
        "-x",
        "-0",
    ] {
        lines.push(format!("create -f qcow2 -- u.qcow2 {size}"));
        lines.push(format!("create -f qcow2 -o size={size} v.qcow2"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
    for size in ["", " 1k", "1k ", "1 k", "\t1k"] {
        pair.same_args(&["create", "-f", "qcow2", "w.qcow2", size], Loose::Exact);
    }
}

#[test]
fn sizes_that_qemu_takes_for_negative_ones() {
    let pair = images();
    for size in [
        "9223372036854775807",
        "9223372036854775808",
        "8E",
        "18446744073709551615",
    ] {
        let option = format!("size={size}");
        let args = ["create", "-q", "-f", "qcow2", "-o", &option, "t.qcow2"];
        let ran = ours(&args, pair.ours().root());
        assert_eq!(ran.code, 1, "{size}: {ran:?}");
        assert_eq!(
            ran.err, "qemu-img: t.qcow2: The image size is too large for file format 'qcow2'\n",
            "{size}"
        );
        assert!(!pair.ours().path("t.qcow2").exists(), "{size}");
    }
}

#[test]
fn option_values() {
    let pair = images();
    let mut lines = Vec::new();
    for options in [
        "cluster_size=x",
        "cluster_size=-1",
        "cluster_size=0",
        "cluster_size=1",
        "cluster_size=256",
        "cluster_size=513",
        "cluster_size=3k",
        "cluster_size=4M",
        "cluster_size=",
        "cluster_size",
        "cluster_size=1.5k",
        "refcount_bits=x",
        "refcount_bits=0",
        "refcount_bits=3",
        "refcount_bits=128",
        "refcount_bits=99999999999999999999999",
        "refcount_bits=",
        "refcount_bits=8,compat=0.10",
        "refcount_bits=1k",
        "extended_l2=x",
        "extended_l2=ON",
        "extended_l2=",
        "extended_l2=on,cluster_size=8k",
        "extended_l2=on,compat=0.10",
        "lazy_refcounts=on,compat=0.10",
        "lazy_refcounts=1",
        "compat=1.2",
        "compat=",
        "compat=v4",
        "compression_type=lzo",
        "compression_type=",
        "compression_type=zstd,compat=0.10",
        "preallocation=bogus",
        "preallocation=",
        "preallocation=Full",
        "data_file_raw=on",
        "data_file=d,compat=0.10",
        "data_file=d,data_file_raw=on,backing_file=base.raw,backing_fmt=raw",
        "backing_file=base.raw",
        "backing_file=base.raw,backing_fmt=raw,preallocation=metadata",
        "backing_file=base.raw,backing_fmt=bogus",
        "backing_fmt=raw",
        "backing_fmt=bogus",
        "backing_file=nope,backing_fmt=raw",
        "backing_file=",
        "nocow=x",
        "extent_size_hint=x",
        "size=x",
        "size=-1",
        "size=16E",
        "encrypt.format=bogus",
    ] {
        lines.push(format!("create -f qcow2 -o {options} x.qcow2 1M"));
    }
    for options in [
        "preallocation=bogus",
        "preallocation=metadata",
        "nocow=x",
        "extent_size_hint=x",
        "extent_size_hint=-1",
        "size=x",
        "compat=1.1",
        "backing_file=base.raw",
    ] {
        lines.push(format!("create -f raw -o {options} x.raw 1M"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn backing_file_errors() {
    let pair = images();
    pair.all_same(&[
        "create -f qcow2 -b base.raw x 1M",
        "create -f qcow2 -b base.qcow2 x",
        "create -f qcow2 -b base.raw -u x 1M",
        "create -f qcow2 -b nope x 1M",
        "create -f qcow2 -b nope -F raw x 1M",
        "create -f qcow2 -b nope -F raw x",
        "create -f qcow2 -b '' x 1M",
        "create -f qcow2 -b '' -F raw x 1M",
        "create -f qcow2 -F raw x 1M",
        "create -f qcow2 -b base.raw -F bogus x 1M",
        "create -f qcow2 -b base.raw -F qcow2 x 1M",
        "create -f qcow2 -b x -F qcow2 x 1M",
        "create -f raw -b base.raw x 1M",
        "create -f raw -F raw x 1M",
        "create -f raw -b base.raw -F raw x 1M",
        "create -f qcow2 -u x",
        "create -f qcow2 -u -b nope -F raw x",
        "create -f qcow2 -b foo:bar -F raw x",
        "create -f qcow2 -b dir -F raw x",
        "create --backing x 1M",
    ]);
}

#[test]
fn an_image_in_its_own_backing_chain_is_refused() {
    // QEMU's tool empties the file and makes it name itself.
    let pair = images();
    let dir = pair.ours();
    pair.qemu("create -q -f raw below.raw 1M");
    pair.qemu("create -q -f qcow2 -b below.raw -F raw above.qcow2");
    for line in [
        "create -f qcow2 -b ./below.raw -F raw below.raw",
        "create -f qcow2 -b above.qcow2 -F qcow2 below.raw",
    ] {
        let before = std::fs::read(dir.path("below.raw")).expect("the file");
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 1, "{line}");
        assert_eq!(
            ran.err,
            "qemu-img: below.raw: \
             Error: Trying to create an image over a file of its own backing chain\n",
            "{line}"
        );
        assert!(
            std::fs::read(dir.path("below.raw")).expect("the file") == before,
            "{line}"
        );
    }
    // A data file is emptied too.
    for line in [
        "create -f qcow2 -o data_file=below.raw -b ./below.raw -F raw over.qcow2",
        "convert -U -f raw -O qcow2 -o data_file=below.raw below.raw over.qcow2",
    ] {
        let before = std::fs::read(dir.path("below.raw")).expect("the file");
        assert_eq!(ours(&words(line), dir.root()).code, 1, "{line}");
        let after = std::fs::read(dir.path("below.raw")).expect("the file");
        assert!(before == after, "{line}");
    }
}

#[test]
fn an_existing_file_keeps_its_mode_and_a_link_stays() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let pair = images();
    for dir in [pair.theirs(), pair.ours()] {
        std::fs::write(dir.path("old"), [7; 5000]).expect("a file");
        std::fs::set_permissions(dir.path("old"), PermissionsExt::from_mode(0o600))
            .expect("a mode");
        symlink("old", dir.path("link")).expect("a link");
    }
    pair.same("create -f qcow2 link 1M");
    for dir in [pair.theirs(), pair.ours()] {
        assert!(dir.path("link").is_symlink());
        assert_eq!(
            dir.path("old").metadata().expect("a file").mode() & 0o777,
            0o600
        );
    }
    pair.same_image("old", "qcow2");
}

#[test]
fn sizes_beyond_what_the_format_can_hold() {
    let pair = images();
    pair.all_same(&[
        "create -f qcow2 x 1E",
        "create -f qcow2 -o cluster_size=512 x 1T",
        "create -f qcow2 -o cluster_size=512,extended_l2=off x 128G",
        "create -f qcow2 -o cluster_size=2M x 1P",
        "create -f raw y 8E",
    ]);
}

#[test]
fn untrusted_refuses_a_backing_file_that_names_others() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -b base.raw -F raw mid.qcow2");
    let dir = pair.ours().root();
    let ran = ours(
        &[
            "create",
            "--untrusted",
            "-f",
            "qcow2",
            "-b",
            "mid.qcow2",
            "-F",
            "qcow2",
            "x.qcow2",
        ],
        dir,
    );
    // The file that the user names is the user's choice; it is opened without its own backing file.
    assert!(ran.code == 0 || ran.err.contains("policy"), "{ran:?}");
}

#[test]
fn protocols_stand_where_formats_do() {
    let pair = images();
    for line in [
        "create -f file a 1M",
        "create -f file b 1000",
        "create -f file -o preallocation=full c 1M",
        "create -f file -o size=2M d",
        "create -f file file:e 1M",
        "create -f file a 2M",
        "create -f host_device f 1M",
        "create -f null-co f 1M",
        "create -f null-aio f 1M",
        "create -f bogus f 1M",
        "create -f file -b base.raw -F raw g",
        "create host_device:f 1M",
        "create host_device:base.raw 1M",
        "create -f qcow2 host_device:f 1M",
        "create -f raw -F host_device f 1M",
        "create -f qcow2 -F host_device f 1M",
        "create -f file -o help",
        "create -f file -o help h",
        "create -f host_device -o help",
        "convert -O file -o help",
        "convert -O file base.raw i",
        "convert -O host_device base.raw j",
        "convert -O null-co base.raw j",
        "convert -O bogus base.raw j",
        "convert -f file -O qcow2 base.raw k",
        "dd -O file if=base.raw of=l",
        "dd -O host_device if=base.raw of=m",
        "dd -O null-co if=base.raw of=m",
        "dd -O bogus if=base.raw of=m",
        "measure -O file --size 1M",
        "measure -O null-co --size 1M",
        "amend -f file -o help",
        "info -f host_device base.raw",
    ] {
        pair.same(line);
    }
    for name in ["a", "b", "c", "d", "e", "i", "l"] {
        pair.same_image(name, "raw");
    }
}

#[test]
fn names_of_drivers_are_recorded_where_nothing_is_opened() {
    let pair = images();
    pair.qemu("create -q -f qcow2 over.qcow2 1M");
    for name in [
        "blkdebug",
        "bochs",
        "compress",
        "dmg",
        "file",
        "host_device",
        "luks",
        "nbd",
        "null-co",
        "parallels",
        "qcow",
        "qcow2",
        "qed",
        "raw",
        "throttle",
        "vdi",
        "vhdx",
        "vmdk",
        "vpc",
        "vvfat",
        "bogus",
        "RAW",
        "qcow3",
    ] {
        pair.same(&format!(
            "create -u -f qcow2 -b base.raw -F {name} new.{name} 1M"
        ));
        pair.same(&format!(
            "create -u -f qcow2 -o backing_file=x,backing_fmt={name} o.{name} 1M"
        ));
        pair.same(&format!("rebase -u -b base.raw -F {name} over.qcow2"));
        pair.same("info over.qcow2");
    }
    // Where the file is opened, it is no name of a controller.
    for line in [
        "create -q -f qcow2 -b base.raw -F nvme x.qcow2",
        "convert -f nvme base.raw x.raw",
        "info -f nvme base.raw",
    ] {
        pair.same(line);
    }
}

/// Space that an overlay has ahead is space, and no contents.
#[test]
fn what_is_allocated_ahead_hides_no_parent() {
    let dir = Dir::new();
    let run = |line: &str| ours(&words(line), dir.root());
    std::fs::write(dir.path("a.raw"), vec![7; 3 << 20]).expect("a disk");
    for format in ["qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", "vdi"] {
        let base = format!("convert -O {format} a.raw base.{format}");
        assert_eq!(run(&base).code, 0, "{base}");
        for mode in ["metadata", "falloc", "full"] {
            for make in [
                format!(
                    "create -q -f {format} -b base.{format} -F {format} -o preallocation={mode} over"
                ),
                format!(
                    "convert -O {format} -B base.{format} -F {format} -o preallocation={mode} a.raw over"
                ),
            ] {
                if run(&make).code != 0 {
                    continue;
                }
                let same = run(&format!("compare -f {format} -F raw over a.raw"));
                assert_eq!(same.code, 0, "{make}: {same:?}");
                std::fs::remove_file(dir.path("over")).expect("an overlay");
            }
        }
    }
}
