//! Images of the first qcow: what the tool prints and ends with, beside QEMU's.

use crate::pair::{Loose, Pair, ours, words};

/// The secret of encrypted images, for `--object`.
const SECRET: &str = "--object secret,id=s,data=correct";

/// Images that QEMU's tool made, the same in both directories.
fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q -f raw base.raw 3M",
        "create -q -f qcow empty.qcow 10M",
        "create -q -f qcow a.qcow 10M",
        "create -q -f qcow odd.qcow 1000001",
        "create -q -f qcow -b base.raw -F raw over.qcow 4M",
        &format!(
            "create -q {SECRET} -f qcow -o encrypt.format=aes,encrypt.key-secret=s aes.qcow 3M"
        ),
    ]);
    pair.qemu_io("raw", "base.raw", &["write -P 9 1M 1M"]);
    pair.qemu_io(
        "qcow",
        "a.qcow",
        &[
            "write -P 1 5M 64k",
            "write -P 2 1M 2M",
            "write -c -P 3 9M 4k",
            "write -c -P 4 9441280 4k",
        ],
    );
    pair.qemu_io(
        "qcow",
        "over.qcow",
        &[
            "write -P 3 1100k 10k",
            "write -z 1536k 64k",
            "write -c -P 5 2M 512",
        ],
    );
    pair.qemu("create -q -f qcow -b a.qcow -F qcow top.qcow");
    pair
}

#[test]
fn creation_is_said_and_refused_alike() {
    let pair = images();
    for line in [
        "create -f qcow b.qcow 10M",
        "create -f qcow b.qcow 1000001",
        "create -f qcow b.qcow 1",
        "create -f qcow -o preallocation=falloc b.qcow 1M",
        "create -f qcow -b base.raw -F raw b.qcow",
        "create -f qcow -b a.qcow -F qcow b.qcow 20M",
        "create -f qcow -b a.qcow b.qcow",
        "create -f qcow -b missing.raw -F raw b.qcow",
        "create -f qcow b.qcow",
        "create -f qcow -o bogus=1 b.qcow 1M",
        "create -f qcow -o cluster_size=4096 b.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encryption=on,encrypt.key-secret=s b.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.format=aes,encrypt.key-secret=s b.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.format=qcow,encrypt.key-secret=s b.qcow 1M",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    // Neither leaves an image; ours leaves no empty file either.
    for line in [
        "create -f qcow c.qcow 0",
        "create -f qcow -o preallocation=metadata c.qcow 1M",
        "create -f qcow -o encryption=on c.qcow 1M",
        "create -f qcow -o encrypt.format=aes,encrypt.key-secret=s c.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.key-secret=s c.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.format=luks,encrypt.key-secret=s c.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.format=rot13,encrypt.key-secret=s c.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encrypt.format=vmdk,encrypt.key-secret=s c.qcow 1M",
        "create --object secret,id=s,data=x -f qcow -o encryption=on,encrypt.format=aes,encrypt.key-secret=s c.qcow 1M",
    ] {
        let run = |tool: crate::common::Ran| (tool.code, tool.out, tool.err);
        let theirs = run(pair.theirs().qemu_img(&words(line)));
        assert_eq!(
            run(ours(&words(line), pair.ours().root())),
            theirs,
            "{line}"
        );
        assert!(!pair.ours().path("c.qcow").exists(), "{line}");
        let _ = std::fs::remove_file(pair.theirs().path("c.qcow"));
    }
    // Theirs makes what nothing can open.
    for (line, reason) in [
        ("create -q -f qcow c.qcow 1E", "Image too large"),
        (
            &format!(
                "create -q -u -f qcow -b {} -F raw c.qcow 1M",
                "x".repeat(1024)
            )[..],
            "Backing file name too long",
        ),
    ] {
        let ran = ours(&words(line), pair.ours().root());
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(reason), "{ran:?}");
    }
}

#[test]
fn what_is_there_is_shown_alike() {
    let pair = images();
    for image in ["empty.qcow", "a.qcow", "odd.qcow", "over.qcow", "top.qcow"] {
        for command in [
            "info",
            "info --output=json",
            "info --backing-chain",
            "map --output=json",
            "snapshot -l",
        ] {
            pair.same_but(&format!("{command} {image}"), Loose::DiskSize);
        }
        pair.same_but(&format!("convert -O raw {image} out.raw"), Loose::DiskSize);
        pair.same_image("out.raw", "raw");
    }
    for line in [
        "map empty.qcow",
        "map a.qcow",
        "info aes.qcow",
        "info --output=json aes.qcow",
        "map aes.qcow",
        "convert -O raw aes.qcow out.raw",
        "compare a.qcow top.qcow",
        "compare a.qcow over.qcow",
        "convert --image-opts driver=qcow,file.filename=a.qcow,encrypt.format=aes -O raw out.raw",
        "convert --image-opts driver=qcow,file.filename=aes.qcow,encrypt.format=luks -O raw out.raw",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    // Theirs has no check; ours finds nothing wrong with what theirs writes.
    for image in ["empty.qcow", "a.qcow", "odd.qcow", "over.qcow"] {
        let ran = ours(&words(&format!("check {image}")), pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.starts_with("No errors were found on the image."));
    }
}

#[test]
fn headers_are_refused_in_the_same_words() {
    let pair = images();
    let before = std::fs::read(pair.ours().path("empty.qcow")).expect("the image");
    for (at, bytes) in [
        (0, &b"X"[..]),
        (7, &[2]),
        (7, &[0]),
        (18, &[4]),
        (24, &[0; 8]),
        (24, &[0, 0, 0, 0, 0, 0, 0, 1]),
        (24, &[0, 0, 0, 0, 0, 0, 0, 2]),
        (24, &[0, 0, 0, 0, 0, 0, 3, 2]),
        (24, &[0x80]),
        (25, &[0x80]),
        (32, &[8]),
        (32, &[17]),
        (33, &[5]),
        (33, &[14]),
        (39, &[2]),
    ] {
        // A name too long is one where a name is.
        if at == 18 {
            pair.patch("empty.qcow", 15, &[48]);
        }
        pair.patch("empty.qcow", at, bytes);
        pair.same("info -f qcow empty.qcow");
        for dir in [pair.ours(), pair.theirs()] {
            std::fs::write(dir.path("empty.qcow"), &before).expect("the image");
        }
    }
}

#[test]
fn clusters_behind_the_end_of_the_disk_are_told_of_and_kept() {
    let pair = Pair::with(&["create -q -f qcow a.qcow 2M"]);
    pair.qemu_io("qcow", "a.qcow", &["write -P 5 0 2M"]);
    // The header says a quarter of the size.
    pair.patch("a.qcow", 24, &(1_u64 << 19).to_be_bytes());
    for line in [
        "check a.qcow",
        "check -r leaks a.qcow",
        "check -r all a.qcow",
    ] {
        let ran = ours(&words(line), pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("384 clusters are named behind"), "{ran:?}");
        assert!(said.contains("128/128 = 100.00% allocated"), "{ran:?}");
    }
    let (theirs, ours) = (pair.theirs().str("a.qcow"), pair.ours().str("a.qcow"));
    let args = ["compare", "-f", "qcow", "-F", "qcow", &theirs, &ours];
    let same = || {
        let ran = pair.ours().qemu_img(&args);
        assert_eq!(ran.out, "Images are identical.\n", "{ran:?}");
    };
    same();
    pair.patch("a.qcow", 24, &(2_u64 << 20).to_be_bytes());
    same();
}

#[test]
fn images_are_converted_and_committed() {
    let pair = images();
    for options in ["", "-S 0", "-W"] {
        for source in ["a.qcow", "odd.qcow", "top.qcow", "over.qcow"] {
            let line = format!("convert {options} -O qcow {source} new.qcow");
            pair.same_but(&line, Loose::DiskSize);
            let same = pair.ours().qemu_img(&["compare", source, "new.qcow"]);
            assert_eq!(same.code, 0, "{line}: {same:?}");
            let ran = ours(&words("check new.qcow"), pair.ours().root());
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        }
    }
    for line in [
        "convert -O qcow -B base.raw -F raw over.qcow diff.qcow",
        "dd -O qcow if=a.qcow of=dd.qcow bs=1M",
        "convert -n -O qcow base.raw a.qcow",
        "convert -n -O qcow a.qcow over.qcow",
        "resize a.qcow 20M",
        "resize --shrink a.qcow 4M",
        "amend -f qcow -o size=3G a.qcow",
        "amend -f qcow -o help",
        "snapshot -c x a.qcow",
        "snapshot -a x a.qcow",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
    for image in ["diff.qcow", "dd.qcow", "over.qcow", "a.qcow"] {
        pair.same_but(&format!("convert -O raw {image} out.raw"), Loose::DiskSize);
        pair.same_image("out.raw", "raw");
    }
}

/// Theirs ends with 1 and says nothing, although the image is complete.
#[test]
fn compression_succeeds_and_is_no_larger_than_theirs() {
    let pair = images();
    let text: Vec<u8> = (0..900_000_u32)
        .flat_map(|n| (n.wrapping_mul(n) / 7).to_le_bytes())
        .collect();
    pair.file("text.raw", &text[..3_000_000 / 512 * 512]);
    pair.theirs()
        .qemu_img(&["convert", "-c", "-O", "qcow", "text.raw", "c.qcow"]);
    let here = pair.ours();
    let len = |path: std::path::PathBuf| std::fs::metadata(path).expect("the image").len();
    for options in ["", "-W -m 4", "-o compression_level=9"] {
        let line = format!("convert -c {options} -O qcow text.raw c.qcow");
        let ran = ours(&words(&line), here.root());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        here.qemu_img_ok(&["compare", "text.raw", "c.qcow"]);
        let (mine, theirs) = (len(here.path("c.qcow")), len(pair.theirs().path("c.qcow")));
        // Ours ends with a whole sector.
        let theirs = theirs.next_multiple_of(512);
        assert!(mine <= theirs, "{line}: {mine} > {theirs}");
        let ran = ours(&words("check c.qcow"), here.root());
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    for line in [
        "convert -c --object secret,id=s,data=x -O qcow -o encrypt.format=aes,encrypt.key-secret=s base.raw e.qcow",
        "convert -c -O qcow -o encryption=on base.raw e.qcow",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
}

#[test]
fn encrypted_images_cross_both_ways() {
    let pair = images();
    let opening = "driver=qcow,encrypt.key-secret=s,file.filename=";
    let to = format!(
        "convert {SECRET} -O qcow -o encrypt.format=aes,encrypt.key-secret=s base.raw e.qcow"
    );
    pair.same_but(&to, Loose::DiskSize);
    let ours_raw = std::fs::read(pair.ours().path("base.raw")).expect("the source");
    for dir in [pair.ours(), pair.theirs()] {
        let line = format!("convert {SECRET} --image-opts {opening}e.qcow -O raw out.raw");
        dir.qemu_img_ok(&words(&line));
        assert!(std::fs::read(dir.path("out.raw")).expect("a file") == ours_raw);
        let ran = ours(&words(&line), dir.root());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(std::fs::read(dir.path("out.raw")).expect("a file") == ours_raw);
    }
}

#[test]
fn a_commit_empties_the_overlay() {
    let pair = images();
    let here = pair.ours();
    pair.qemu("convert -O raw over.qcow whole.raw");
    pair.same_but("commit over.qcow", Loose::DiskSize);
    here.qemu_img_ok(&["compare", "over.qcow", "whole.raw"]);
    let len = |dir: &crate::common::Dir| {
        std::fs::metadata(dir.path("over.qcow"))
            .expect("it is there")
            .len()
    };
    assert_eq!(len(pair.ours()), len(pair.theirs()));
    let map = ours(&words("map --output=json over.qcow"), here.root()).out;
    assert!(!map.contains("\"depth\": 0, \"present\": true"), "{map}");
}

/// Theirs cannot change the backing file.
#[test]
fn the_backing_file_changes_as_far_as_the_header_holds_its_name() {
    let pair = images();
    let here = pair.ours();
    let run = |line: &str| ours(&words(line), here.root());
    let shown = |image: &str| {
        let info = here.qemu_img(&["info", image]).out;
        let mut lines = info.lines().map(str::to_owned);
        lines.find(|line| line.starts_with("backing file:"))
    };
    here.qemu_img_ok(&["convert", "-O", "raw", "over.qcow", "whole.raw"]);
    let ran = run("rebase -b '' over.qcow");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(shown("over.qcow"), None);
    here.qemu_img_ok(&["compare", "over.qcow", "whole.raw"]);
    assert_eq!(run("check over.qcow").code, 0);
    // Theirs leaves room for no longer name.
    let ran = run("rebase -u -b a-much-longer-name.raw -F raw over.qcow");
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("has room for a backing file name of 8 bytes"),
        "{ran:?}"
    );
    assert_eq!(run("rebase -u -b base.raw -F raw over.qcow").code, 0);
    assert!(shown("over.qcow").is_some_and(|line| line.contains("base.raw")));
    // Ours leaves room.
    assert_eq!(run("create -q -f qcow -b base.raw -F raw new.qcow").code, 0);
    assert_eq!(
        run("convert -O qcow -B base.raw -F raw whole.raw full.qcow").code,
        0
    );
    let long = format!("{}/../base.raw", "d".repeat(200));
    std::fs::create_dir(here.path(&"d".repeat(200))).expect("a directory");
    for line in [
        format!("rebase -b {long} -F raw new.qcow"),
        format!("rebase -u -b {long} -F raw full.qcow"),
        "rebase -b a.qcow -F qcow full.qcow".to_owned(),
    ] {
        let ran = run(&line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }
    assert!(shown("new.qcow").is_some_and(|line| line.contains(&long)));
    here.qemu_img_ok(&["compare", "full.qcow", "whole.raw"]);
    assert_eq!(run("check full.qcow").code, 0);
}
