//! `resize`: sizes, refusals and what the image is afterwards.

use crate::pair::{Loose, Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q a.raw 1M",
        "create -q -f qcow2 b.qcow2 1M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 1M",
        "create -q -f qcow2 -o compat=0.10 plain2.qcow2 1M",
        "create -q -f qcow2 -o extended_l2=on e.qcow2 1M",
        "create -q -f qcow2 -o cluster_size=512 s.qcow2 1M",
        "create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M",
        "create -q -f qcow2 s3.qcow2 1M",
    ]);
    pair.qemu_io("raw", "a.raw", &["write -P 1 0 1M"]);
    for image in [
        "b.qcow2",
        "v2.qcow2",
        "plain2.qcow2",
        "e.qcow2",
        "s.qcow2",
        "d.qcow2",
        "s3.qcow2",
    ] {
        pair.qemu_io(
            "qcow2",
            image,
            &["write -P 1 0 100k", "write -P 2 900k 124k"],
        );
    }
    // A snapshot has a date: the same one in both.
    for image in ["v2.qcow2", "s3.qcow2"] {
        pair.theirs().qemu_img_ok(&["snapshot", "-c", "s", image]);
        std::fs::copy(pair.theirs().path(image), pair.ours().path(image)).expect("a copy");
    }
    pair
}

#[test]
fn one_size_after_another() {
    let pair = images();
    for line in [
        "resize -f raw a.raw 2M",
        "resize -f raw a.raw +1M",
        "resize -f raw a.raw -1M --shrink",
        "resize --shrink -f raw a.raw -512k",
        "resize -f raw --shrink a.raw 1000",
        "resize -q -f raw a.raw 4M",
        "resize -f raw a.raw +0",
        "resize -f raw a.raw ++1k",
        "resize --preallocation full -f raw a.raw +1M",
        "resize --preallocation falloc -f raw a.raw +1M",
        "resize --preallocation off -f raw a.raw 9M",
        "resize -f raw --image-opts a.raw 1M",
        "resize --image-opts driver=raw,file.filename=a.raw +1M",
        "resize a.raw +1M",
    ] {
        pair.same(line);
        pair.same_image("a.raw", "raw");
    }
    for image in [
        "b.qcow2",
        "plain2.qcow2",
        "e.qcow2",
        "s.qcow2",
        "d.qcow2",
        "s3.qcow2",
    ] {
        for options in [
            "+1M",
            "--preallocation=metadata 3M",
            "--preallocation=falloc 3200k",
            "--preallocation=full +100k",
            "--shrink -1500k",
            "700k",
            "--shrink 64k",
            "+30M",
            "--shrink 1M",
            "--preallocation=full 1M",
        ] {
            let (options, size) = options.rsplit_once(' ').unwrap_or(("", options));
            if image == "d.qcow2" && options.contains("metadata") {
                continue;
            }
            pair.same(&format!("resize {options} {image} {size}"));
            pair.same_image(image, "qcow2");
        }
    }
}

#[test]
fn refusals() {
    let pair = images();
    pair.all_same(&[
        "resize",
        "resize a.raw",
        "resize 1M",
        "resize -1M",
        "resize a.raw 1M 2M",
        "resize a.raw 1M -2M",
        "resize -f raw a.raw -1k",
        "resize -q -f raw a.raw 1000",
        "resize -f raw a.raw 1kb",
        "resize -f raw a.raw ''",
        "resize -f raw a.raw +",
        "resize -f raw a.raw -100M --shrink",
        "resize -f raw a.raw 0",
        "resize -f raw a.raw -1G",
        "resize -f raw a.raw 8E",
        "resize -f raw a.raw 9E",
        "resize -f raw a.raw 16E",
        "resize -f raw a.raw -16E",
        "resize -f raw a.raw +-1M",
        "resize -f raw a.raw +-1",
        "resize -f raw a.raw --1M",
        "resize -f raw a.raw +7E",
        "resize --preallocation=bogus -f raw a.raw 5M",
        "resize --preallocation=bogus nope",
        "resize --preallocation metadata -f raw a.raw 5M",
        "resize --preallocation full -f raw --shrink a.raw 512k",
        "resize --preallocation full -f raw a.raw 1M",
        "resize --preallocation metadata b.qcow2 1M",
        "resize --preallocation metadata b.qcow2 64k",
        "resize v2.qcow2 2M",
        "resize b.qcow2 7E",
        "resize b.qcow2 64k",
        "resize nope 2M",
        "resize nope 1kb",
        "resize -f qcow2 a.raw 2M",
        "resize -f bogus a.raw 2M",
        "resize --image-opts -f raw a.raw 2M",
        "resize --image-opts -f raw a.raw 1kb",
        "resize --bogus a.raw 1M",
        "resize a.raw -x",
        "resize -f",
    ]);
    for image in ["a.raw", "b.qcow2"] {
        pair.same_image(image, image.rsplit_once('.').expect("a suffix").1);
    }
}

#[test]
fn an_overlay_shows_no_more_of_a_longer_base() {
    let pair = images();
    pair.qemu("create -q -f qcow2 -b a.raw -F raw o.qcow2 100k");
    for line in [
        "resize o.qcow2 2M",
        "resize --shrink o.qcow2 90k",
        "resize o.qcow2 300k",
    ] {
        pair.same(line);
        pair.same_image("o.qcow2", "qcow2");
    }
}

#[test]
fn luks() {
    let pair = Pair::new();
    let object = "--object secret,id=s,data=x";
    pair.qemu(&format!(
        "create -q {object} -f luks -o key-secret=s,iter-time=10 l.luks 1M"
    ));
    std::fs::copy(pair.theirs().path("l.luks"), pair.ours().path("l.luks")).expect("a copy");
    for size in [
        "+1M",
        "--shrink -1500k",
        "--preallocation=full 3M",
        "-1M",
        "0",
    ] {
        let image = "driver=luks,key-secret=s,file.filename=l.luks";
        let (options, size) = size.rsplit_once(' ').unwrap_or(("", size));
        pair.same(&format!(
            "resize {object} --image-opts {options} {image} {size}"
        ));
        let len = |dir: &crate::common::Dir| std::fs::metadata(dir.path("l.luks")).map(|m| m.len());
        assert_eq!(len(pair.ours()).ok(), len(pair.theirs()).ok());
    }
}

#[test]
fn untrusted_guesses_no_format() {
    let pair = images();
    let ran = ours(
        &["resize", "--untrusted", "a.raw", "2M"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1);
    let line = "resize -f raw a.raw 2M";
    assert_eq!(
        ours(
            &["resize", "--untrusted", "-f", "raw", "a.raw", "2M"],
            pair.ours().root()
        ),
        pair.same_but(line, Loose::Exact)
    );
}

/// The file may not grow as far as it would have to: then the image is what it was.
#[test]
fn space_that_is_not_there_leaves_the_old_size() {
    let pair = Pair::with(&[
        "create -q -f raw r.raw 64k",
        "create -q -f qcow2 q.qcow2 1M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 64k",
        "create -q -f qcow2 -o data_file=e.raw,data_file_raw=on e.qcow2 64k",
    ]);
    let dir = pair.ours();
    for (image, files) in [
        ("r.raw", vec!["r.raw"]),
        ("q.qcow2", vec!["q.qcow2"]),
        ("d.qcow2", vec!["d.qcow2", "d.raw"]),
        ("e.qcow2", vec!["e.qcow2", "e.raw"]),
    ] {
        let lengths = || -> Vec<u64> {
            let len = |name: &&str| std::fs::metadata(dir.path(name)).expect("a file").len();
            files.iter().map(len).collect()
        };
        let format = if image == "r.raw" { "raw" } else { "qcow2" };
        let before = (lengths(), dir.qemu_img_ok(&["info", "-f", format, image]));
        for mode in ["falloc", "full"] {
            let line = format!(
                "ulimit -f 4096; exec \"$0\" resize -f {format} --preallocation={mode} {image} 64M"
            );
            let tool = crate::build::tool().display().to_string();
            let ran = crate::common::run_in(dir.root(), "sh", &["-c", &line, &tool]);
            assert_eq!(ran.code, 1, "{image} {mode}: {ran:?}");
            assert!(
                ran.err.contains("File too large"),
                "{image} {mode}: {ran:?}"
            );
            let size = |text: &str| {
                let line = text.lines().find(|line| line.starts_with("virtual size"));
                line.map(str::to_owned)
            };
            let now = dir.qemu_img_ok(&["info", "-f", format, image]);
            assert_eq!(size(&now), size(&before.1), "{image} {mode}");
            for (now, then) in lengths().iter().zip(&before.0) {
                assert!(
                    *now <= then.next_multiple_of(65536) + 131_072,
                    "{image} {mode}: {now}"
                );
            }
            if format == "qcow2" {
                assert_eq!(dir.qemu_img(&["check", image]).code, 0, "{image} {mode}");
            }
        }
    }
}

/// What marks that an image changes, such as a content ID, is written behind the last check.
#[test]
fn a_size_that_is_refused_changes_no_byte() {
    let kinds = [
        ("vdi", ""),
        ("vdi", "-o static=on"),
        ("vhdx", ""),
        ("vhdx", "-o subformat=fixed"),
        ("vpc", ""),
        ("vpc", "-o subformat=fixed"),
        ("vmdk", ""),
        ("vmdk", "-o subformat=monolithicFlat"),
        ("qed", ""),
        ("qcow", ""),
        ("parallels", ""),
        ("qcow2", ""),
    ];
    let pair = Pair::new();
    let dir = pair.ours();
    let mut refusals = 0;
    for (format, options) in kinds {
        let line = format!("create -q -f {format} {options} img 4M");
        dir.qemu_img_ok(&words(&line));
        dir.qemu_io(format, "img", &["write -P 1 0 64k"]);
        let before = std::fs::read(dir.path("img")).expect("the image");
        for change in [
            "--preallocation=metadata img +1M",
            "--preallocation=full img +1M",
            "--preallocation=full --shrink img 1M",
            "img 900000T",
        ] {
            // How large a file may be is known to the file system alone.
            if change == "img 900000T" && options.contains("Flat") {
                continue;
            }
            let line = format!("resize -q -f {format} {change}");
            let ran = ours(&words(&line), dir.root());
            let now = std::fs::read(dir.path("img")).expect("the image");
            if ran.code == 0 {
                std::fs::write(dir.path("img"), &before).expect("the image");
                continue;
            }
            refusals += 1;
            assert!(now == before, "{format} {options} {change}: {ran:?}");
        }
    }
    assert!(refusals > 25, "{refusals}");
}
