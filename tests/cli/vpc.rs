//! VHDs, which the tools call vpc: what the tool prints and ends with, beside QEMU's.

use crate::pair::{Loose, Pair, ours, words};

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f vpc empty.vhd 10M",
        "create -q -f vpc a.vhd 10M",
        "create -q -f vpc -o force_size=on exact.vhd 10M",
        "create -q -f vpc -o subformat=fixed f.vhd 3M",
        "create -q -f vpc -o subformat=fixed,force_size=on g.vhd 3M",
        "create -q -f vpc zero.vhd 0",
    ]);
    pair.qemu_io("vpc", "a.vhd", &["write -P 1 5M 64k", "write -P 2 1M 2M"]);
    pair.qemu_io("vpc", "exact.vhd", &["write -P 1 9M 64k"]);
    pair.qemu_io("vpc", "f.vhd", &["write -P 1 1M 64k"]);
    pair.qemu_io("vpc", "g.vhd", &["write -P 1 1M 64k"]);
    pair.qemu("create -q -f qcow2 -b a.vhd -F vpc top.qcow2");
    for dir in [pair.ours(), pair.theirs()] {
        // UUIDs and times differ; both work on the same.
        for image in [
            "empty.vhd",
            "a.vhd",
            "exact.vhd",
            "f.vhd",
            "g.vhd",
            "zero.vhd",
        ] {
            std::fs::copy(pair.theirs().path(image), dir.path("copy")).expect("a copy");
            std::fs::rename(dir.path("copy"), dir.path(image)).expect("the copy");
        }
    }
    pair
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = Pair::new();
    for line in [
        "create -f vpc a.vhd 10M",
        "create -f vpc a.vhd 0",
        "create -f vpc a.vhd 1",
        "create -q -f vpc a.vhd 1M",
        "create -f vpc -o subformat=fixed a.vhd 3M",
        "create -f vpc -o subformat=dynamic,force_size=on a.vhd 3M",
        "create -f vpc -o force_size=off a.vhd 3M",
        "create -f vpc -o force_size=maybe a.vhd 3M",
        "create -f vpc -o subformat=fixed,preallocation=full a.vhd 1M",
        "create -f vpc -o preallocation=falloc a.vhd 1M",
        "create -f vpc -o block_size=64k a.vhd 1M",
        "create -f vpc a.vhd",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    for size in [
        "1", "34817", "500k", "1M", "2M", "4M", "10M", "100M", "504M", "512M", "1G", "10G", "127G",
        "128G", "2040G",
    ] {
        for options in ["", "-o force_size=on"] {
            pair.same_but(
                &format!("create -f vpc {options} s.vhd {size}"),
                Loose::DiskSize,
            );
            let size = |ran: crate::common::Ran| {
                let text = ran
                    .out
                    .lines()
                    .find(|line| line.starts_with("virtual size"));
                text.map(str::to_owned)
            };
            let line = words("info s.vhd");
            assert_eq!(
                size(ours(&line, pair.ours().root())),
                size(pair.theirs().qemu_img(&line))
            );
        }
    }
    // Neither leaves an image; ours leaves no empty file either.
    for line in [
        "create -f vpc -o preallocation=metadata b.vhd 1M",
        "create -f vpc -o subformat=bogus b.vhd 1M",
        "create -f vpc b.vhd 2041G",
        "create -f vpc -o force_size=on b.vhd 2041G",
    ] {
        let run = |tool: crate::common::Ran| (tool.code, tool.out, tool.err);
        let theirs = run(pair.theirs().qemu_img(&words(line)));
        assert_eq!(
            run(ours(&words(line), pair.ours().root())),
            theirs,
            "{line}"
        );
        assert!(!pair.ours().path("b.vhd").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("b.vhd"));
    }
}

#[test]
fn what_is_there_is_shown_alike() {
    let pair = images();
    for image in [
        "empty.vhd",
        "a.vhd",
        "exact.vhd",
        "zero.vhd",
        "top.qcow2",
        "-f vpc f.vhd",
        "-f vpc g.vhd",
    ] {
        for command in ["info", "info --output=json", "map", "map --output=json"] {
            pair.same_but(&format!("{command} {image}"), Loose::DiskSize);
        }
        pair.same_but(&format!("convert {image} -O raw out.raw"), Loose::DiskSize);
        if image != "zero.vhd" {
            pair.same_image("out.raw", "raw");
        }
    }
    // The order of options in names that describe an image is another matter.
    for calculation in ["chs", "current_size"] {
        let line = format!(
            "map --image-opts driver=vpc,file.filename=a.vhd,force_size_calc={calculation}"
        );
        pair.same_but(&line, Loose::DiskSize);
    }
    pair.same("map --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=bogus");
    // A fixed disk is known by its end alone.
    pair.same_but("info f.vhd", Loose::DiskSize);
    for line in ["check a.vhd", "check --output=json top.qcow2"] {
        assert_eq!(ours(&words(line), pair.ours().root()).code, 0, "{line}");
    }
}

#[test]
fn images_are_converted_resized_and_committed_to() {
    let pair = images();
    for options in ["", "-o subformat=fixed", "-o force_size=on", "-S 0", "-W"] {
        for source in ["a.vhd", "exact.vhd", "top.qcow2", "zero.vhd"] {
            if options.contains("fixed") && source == "zero.vhd" {
                // QEMU takes the footer at the beginning for that of a dynamic disk.
                continue;
            }
            let line = format!("convert {options} -O vpc {source} new.vhd");
            pair.same_but(&line, Loose::DiskSize);
            let here = pair.ours();
            let same = here.qemu_img(&["compare", "-F", "vpc", source, "new.vhd"]);
            let there = pair
                .theirs()
                .qemu_img(&["compare", "-F", "vpc", source, "new.vhd"]);
            assert_eq!((same.code, same.out), (there.code, there.out), "{line}");
            assert_eq!(
                ours(&words("check -f vpc new.vhd"), here.root()).code % 63,
                0
            );
        }
    }
    let here = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), here.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    };
    run("convert -O raw exact.vhd a.raw");
    run("resize exact.vhd 20M");
    run("resize -f raw a.raw 20M");
    here.qemu_img_ok(&["compare", "exact.vhd", "a.raw"]);
    run("resize --shrink exact.vhd 4M");
    run("resize --shrink -f raw a.raw 4M");
    here.qemu_img_ok(&["compare", "exact.vhd", "a.raw"]);
    run("check exact.vhd");
    run("resize -f vpc g.vhd 5M");
    run("create -q -f qcow2 -b g.vhd -F vpc over.qcow2");
    here.qemu_io(
        "qcow2",
        "over.qcow2",
        &["write -P 7 4M 100k", "write -z 0 1M"],
    );
    run("convert -O raw over.qcow2 over.raw");
    run("commit over.qcow2");
    here.qemu_img_ok(&["compare", "-f", "vpc", "g.vhd", "over.raw"]);
    let measured = run("measure -O vpc --size 10M -o force_size=on");
    assert_eq!(
        measured,
        "required size: 2560\nfully allocated size: 10506752\n"
    );
}
