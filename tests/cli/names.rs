//! Names: bytes that are no UTF-8, colons in names of files, and other names of the same file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::pair::{Pair, ours, words};

/// A Latin-1 name, as a host may have it.
const NAME: &[u8] = b"b\xe9d";

/// A command line with the name in the place of `@`.
fn with_name(line: &str) -> Vec<Vec<u8>> {
    let word = |word: &str| {
        let parts: Vec<&[u8]> = word.as_bytes().split(|b| *b == b'@').collect();
        parts.join(NAME)
    };
    line.split_whitespace().map(word).collect()
}

fn same_with_name(pair: &Pair, line: &str) -> Vec<u8> {
    pair.same_bytes(&with_name(line))
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|bytes| bytes == part)
}

#[test]
fn names_of_files_need_not_be_utf8() {
    let pair = Pair::new();
    for line in [
        "create -f raw @ 1M",
        "create -f qcow2 -b @ -F raw c.q",
        "create -f qcow2 -o backing_file=@,backing_fmt=raw @.q",
        "create -f qcow2 -o data_file=@.data d.q 1M",
        "create -u -f qcow2 -b @,@ -F raw e.q 1M",
        "create -f qcow2 -b nope@ -F raw f.q",
        "info c.q",
        "info --output=json c.q",
        "info --backing-chain @.q",
        "info --output=json --backing-chain @.q",
        "info d.q",
        "info --output=json d.q",
        "info e.q",
        "info -f raw @",
        "info nope@",
        "info --image-opts driver=raw,file.filename=@",
        "info --image-opts driver=raw,offset=512,file.filename=@",
        "info --output=json --image-opts driver=raw,offset=512,file.filename=@",
        "info --image-opts driver=qcow2,file.driver=file,file.filename=@.q",
        "check d.q",
        "check @.q",
        "check --output=json @.q",
        "rebase -u -b @ -F raw c.q",
        "rebase -b @ -F raw c.q",
        "rebase -b nope@ -F raw c.q",
        "convert -O qcow2 -B @ -F raw c.q g.q",
        "convert -O qcow2 -o backing_file=@,backing_fmt=raw c.q h.q",
        "convert -O qcow2 -o data_file=@.data2 c.q i.q",
        "convert -f raw -O raw --image-opts driver=raw,file.filename=@ @.copy",
        "amend -o data_file=@.data3 i.q",
        "info i.q",
        "measure -O qcow2 -f raw @",
        "compare -f raw -F raw @ @.copy",
        "dd -f raw -O raw if=@ of=@.dd bs=64k",
        "resize -f raw @.dd 2M",
        "commit -b @ c.q",
        "commit @.q",
        "commit -b nope@ c.q",
    ] {
        same_with_name(&pair, line);
    }
    pair.qemu_io("qcow2", "c.q", &["write -P 7 0 128k"]);
    pair.qemu("commit -q c.q");
    for line in [
        "map c.q",
        "map --output=json c.q",
        "map -f raw @",
        "map @.q",
    ] {
        same_with_name(&pair, line);
    }
    let shown = same_with_name(&pair, "map c.q");
    assert!(holds(&shown, b" b\xe9d\n"), "the bytes themselves");
    for name in ["c.q", "d.q", "g.q", "h.q", "i.q"] {
        if name != "i.q" {
            pair.same_image(name, "qcow2");
        }
    }
}

#[test]
fn names_of_snapshots_and_bitmaps_need_not_be_utf8() {
    let pair = Pair::with(&["create -q -f qcow2 s.q 1M", "create -q -f qcow2 b.q 1M"]);
    same_with_name(&pair, "bitmap --add b.q @");
    let shown = |line| pair.ours_bytes(&with_name(line)).stdout;
    assert!(holds(&shown("info b.q"), b"name: b\xe9d\n"));
    assert!(holds(
        &shown("info --output=json b.q"),
        b"\"name\": \"b\\uFFFDd\""
    ));
    for line in [
        "bitmap --add b.q @2",
        "bitmap --add b.q @",
        "bitmap --disable b.q @",
        "bitmap --enable b.q @",
        "bitmap --merge @2 b.q @",
        "bitmap --merge none@ b.q @",
        "bitmap --clear b.q @",
        "bitmap --remove b.q @2",
        "convert -O qcow2 --bitmaps b.q c.q",
        "bitmap --remove b.q none@",
        // A replaced byte is another name.
        "bitmap --remove b.q b\u{fffd}d",
        "bitmap --remove b.q @",
        "snapshot -c @ s.q",
        "convert -l @ -O raw s.q o.raw",
        "convert -l snapshot.name=@ -O raw s.q o.raw",
        "convert -l none@ -O raw s.q o2.raw",
        "convert -l b\u{fffd}d -O raw s.q o2.raw",
        "snapshot -a @ s.q",
        "snapshot -a none@ s.q",
        "snapshot -d b\u{fffd}d s.q",
    ] {
        same_with_name(&pair, line);
    }
    for line in ["snapshot -l s.q", "info s.q"] {
        assert!(holds(&shown(line), b"\n1       b\xe9d       "), "{line}");
    }
    assert!(holds(
        &shown("info --output=json s.q"),
        b"\"name\": \"b\\uFFFDd\""
    ));
    pair.same_image("c.q", "qcow2");
    same_with_name(&pair, "snapshot -d @ s.q");
    assert!(!holds(&shown("info s.q"), b"Snapshot list"));
}

#[test]
fn the_file_of_a_secret_need_not_be_utf8() {
    let pair = Pair::new();
    for dir in [pair.ours(), pair.theirs()] {
        let name = OsStr::from_bytes(b"b\xe9d.pw");
        std::fs::write(dir.root().join(name), "pw").expect("a file of the test");
    }
    let secret = "--object secret,id=s,file=@.pw";
    same_with_name(
        &pair,
        &format!("create {secret} -f luks -o key-secret=s,iter-time=10 l 1M"),
    );
    same_with_name(
        &pair,
        &format!("measure {secret} -O raw --image-opts driver=luks,key-secret=s,file.filename=l"),
    );
    same_with_name(&pair, "info --object secret,id=s,file=nope@ l");
}

#[test]
fn json_replaces_what_is_no_utf8() {
    let pair = Pair::new();
    for name in [
        &b"\xff\xfe"[..],
        b"a\xc0\x80",
        b"\xed\xa0\x80x",
        b"\xf0\x9f\x98",
        b"\xe2\x82x",
        b"\xf8\x88\x80\x80\x80A",
        b"\xf4\x90\x80\x80",
        b"\x80\x80",
        b"\xef\xbf\xbf",
        "é\u{1f600}".as_bytes(),
    ] {
        let opts = [b"driver=raw,offset=0,file.filename=", name].concat();
        for args in [
            &[&b"create"[..], b"-q", b"-f", b"raw", name, b"512"][..],
            &[b"info", b"-f", b"raw", name],
            &[b"info", b"-f", b"raw", b"--output=json", name],
            &[b"info", b"--image-opts", &opts],
            &[b"info", b"--output=json", b"--image-opts", &opts],
        ] {
            let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
            pair.same_bytes(&args);
        }
    }
}

#[test]
fn a_colon_in_the_name_of_a_file_makes_no_protocol() {
    let pair = Pair::with(&["create -q -f raw ./a:base.raw 1M"]);
    pair.directory("d");
    for line in [
        "create -f qcow2 file:a:b.q 1M",
        "info file:a:b.q",
        "info ./a:b.q",
        "info --output=json file:a:b.q",
        "create -f qcow2 -b file:a:b.q -F qcow2 t.q",
        "info t.q",
        "create -f qcow2 -b ./a:b.q -F qcow2 file:t:1.q",
        "info file:t:1.q",
        "info --backing-chain file:t:1.q",
        "create -f qcow2 -b a:b.q -F qcow2 t2.q",
        "create -u -f qcow2 -b a:b.q -F qcow2 t2.q 1M",
        "info t2.q",
        "create -f qcow2 -o data_file=file:x:data dd.q 1M",
        "info dd.q",
        "check dd.q",
        "create -f qcow2 -o data_file=file:xdata de.q 1M",
        "info de.q",
        "create -f qcow2 -o data_file=./y:data df.q 1M",
        "info df.q",
        "map file:a:base.raw",
        "map t.q",
        "map file:t:1.q",
        "check file:a:b.q",
        "check --output=json file:a:b.q",
        "compare file:a:base.raw file:a:b.q",
        "snapshot -l file:a:b.q",
        "commit file:nope:q",
        "info file:nope:q",
        "info host_device:x:y",
        "create -f qcow2 -b base -F raw file:s:ub.q",
        "create -f raw base 1M",
        "create -f qcow2 -b base -F raw file:s:ub.q",
        "info file:s:ub.q",
        "info --output=json ./s:ub.q",
        "create -u -f qcow2 -b base -F raw ./d/s:ub.q 1M",
        "info ./d/s:ub.q",
        "info file:d/s:ub.q",
        "rebase -b base -F raw file:s:ub.q",
        "rebase -u -b file:a:base.raw -F raw t2.q",
        "info t2.q",
        "commit -b a:b.q file:t:1.q",
        "commit -b ./a:b.q file:t:1.q",
        "convert -O qcow2 -B file:a:base.raw -F raw file:a:base.raw file:o:ut.q",
        "info file:o:ut.q",
        "bitmap --add file:a:b.q bits",
        "measure file:a:b.q",
        "amend -f qcow2 -o lazy_refcounts=on file:a:b.q",
        "dd if=file:a:base.raw of=file:yy:raw",
        "resize -f raw file:yy:raw 2M",
    ] {
        same_with_name(&pair, line);
    }
    pair.same_image("dd.q", "qcow2");
    // Theirs shows a name that cannot be used again.
    let dir = pair.ours().root();
    for opts in [
        "driver=qcow2,file.filename=t:1.q",
        "driver=qcow2,file.driver=file,file.filename=t:1.q",
    ] {
        let shown = ours(&["info", "--image-opts", opts], dir).out;
        assert!(shown.starts_with("image: ./t:1.q\n"), "{shown}");
        assert!(shown.contains("(actual path: ././a:b.q)"), "{shown}");
    }
    // Whatever it says it opens, with the tool of either.
    let amended = ours(&["amend", "-o", "data_file=file:x:data", "dd.q"], dir);
    assert_eq!(amended.code, 0, "{amended:?}");
    let info = pair.ours().qemu_img_ok(&["info", "dd.q"]);
    assert!(info.contains("data file: ./x:data\n"), "{info}");
    let read = pair.ours().qemu_io("qcow2", "dd.q", &["read 0 64k"]);
    assert!(read.contains("65536/65536"), "{read}");
}

/// A chain of three in `d`, with data in the middle one.
fn chain(pair: &Pair) {
    pair.directory("d");
    for line in [
        "create -q -f raw d/base 1M",
        "create -q -f qcow2 -b base -F raw d/mid.q",
        "create -q -f qcow2 -b mid.q -F qcow2 d/top.q",
    ] {
        pair.qemu(line);
    }
    pair.qemu_io("qcow2", "d/mid.q", &["write -P 9 0 64k"]);
}

#[test]
fn the_base_of_a_commit_goes_by_any_name_of_its_file() {
    let pair = Pair::new();
    chain(&pair);
    let root = pair.ours().root().to_owned();
    for dir in [pair.ours(), pair.theirs()] {
        std::os::unix::fs::symlink("base", dir.path("d/link")).expect("a link");
        std::os::unix::fs::symlink("d", dir.path("e")).expect("a link");
    }
    for line in [
        "commit -b base d/top.q",
        "commit -b ./base d/top.q",
        "commit -b ../d/base d/top.q",
        "commit -b link d/top.q",
        "commit -b ./mid.q d/top.q",
        "commit -b base e/top.q",
        "commit -b nope d/top.q",
        "commit -b top.q d/top.q",
        "commit -b /dev/null d/top.q",
        "commit -b d d/top.q",
    ] {
        pair.same(line);
    }
    pair.same_image("d/base", "raw");
    pair.same_image("d/top.q", "qcow2");
    // Names as seen from here, hard links and descriptions are the same file too.
    std::fs::hard_link(root.join("d/base"), root.join("hard")).expect("a link");
    let absolute: PathBuf = root.join("e/base");
    for name in [
        "d/base",
        "./d//base",
        "e/link",
        "hard",
        "file:d/base",
        "json:{'driver':'raw','file':{'driver':'file','filename':'d/base'}}",
        "json:{'file.filename':'d/base'}",
        absolute.to_str().expect("a UTF-8 path"),
    ] {
        let done = ours(&["commit", "-q", "-b", name, "d/top.q"], &root);
        assert_eq!((done.code, &*done.err), (0, ""), "{name}");
    }
    let opts = "driver=qcow2,file.filename=d/top.q";
    let done = ours(&["commit", "-b", "./base", "--image-opts", opts], &root);
    assert_eq!(done.code, 0, "{done:?}");
    for name in ["d/top.q", "''", "file:base"] {
        let done = ours(
            &["commit", "-b", words(name)[0], "d/top.q"],
            pair.ours().root(),
        );
        assert_eq!(done.code, 1, "{name}: {done:?}");
        assert!(done.err.contains("Did not find '"), "{done:?}");
    }
}

#[test]
fn a_name_beside_the_overlay_comes_before_one_from_here() {
    let pair = Pair::new();
    chain(&pair);
    // Seen from here, `mid.q` is the base of the chain; beside the overlay it is the middle.
    for dir in [pair.ours(), pair.theirs()] {
        std::fs::hard_link(dir.path("d/base"), dir.path("mid.q")).expect("a link");
    }
    pair.qemu_io("qcow2", "d/top.q", &["write -P 3 64k 64k"]);
    pair.same("commit -b ./mid.q d/top.q");
    pair.same_image("d/mid.q", "qcow2");
    pair.same_image("d/base", "raw");
}

/// A name that users have for a format is taken wherever one is named, and never recorded or shown.
#[test]
fn vhd_stands_for_vpc() {
    let dir = crate::common::Dir::new();
    for (line, shown) in [
        ("create -f vhd a.vhd 4M", "fmt=vpc"),
        ("info -f vhd a.vhd", "file format: vpc"),
        (
            "create -f qcow2 -b a.vhd -F vhd top.qcow2",
            "backing_fmt=vpc",
        ),
        ("info top.qcow2", "backing file format: vpc"),
        ("convert -f vhd -O raw a.vhd a.raw", ""),
        ("rebase -u -b a.vhd -F vhd top.qcow2", ""),
        (
            "info --image-opts driver=vhd,file.filename=a.vhd",
            "file format: vpc",
        ),
    ] {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        assert!(ran.out.contains(shown), "{line}: {ran:?}");
    }
    let theirs = dir.qemu_img(&["info", "top.qcow2"]);
    assert!(
        theirs.out.contains("backing file format: vpc"),
        "{theirs:?}"
    );
}

/// Names with a credential in each of the ways in which one can stand there; the ports are closed.
const WITH_CREDENTIALS: [&str; 8] = [
    "http://joe:s3cret@127.0.0.1:9/a.qcow2",
    "ftp://joe:s3cret@127.0.0.1:9/a.qcow2",
    "http://127.0.0.1:9/a.qcow2?sv=1&X-Amz-Signature=s3cret&part=2",
    r#"json:{"driver":"qcow2","file":{"driver":"https","url":"https://127.0.0.1:9/a?access_token=s3cret"}}"#,
    "iscsi://joe%s3cret@127.0.0.1:9/iqn.2026-01.example:a/1",
    "rbd:pool/a:id=joe:key=s3cret:mon_host=127.0.0.1",
    r#"json:{"driver":"qcow2","file":{"driver":"http","url":"http://127.0.0.1:9/a","cookie":"s3cret"}}"#,
    r#"json:{"driver":"raw","file.driver":"iscsi","file.portal":"127.0.0.1:9","file.target":"iqn.2026-01.example:a","file.user":"joe","file.password":"s3cret"}"#,
];

#[test]
fn credentials_in_names_that_images_hold_are_shown_nowhere() {
    let pair = Pair::new();
    let run = |args: &[&str]| ours(args, pair.ours().root());
    for format in ["qcow2", "qcow", "qed", "vmdk"] {
        for (n, name) in WITH_CREDENTIALS.iter().enumerate() {
            let file = format!("{n}.{format}");
            let file = file.as_str();
            let made = run(&[
                "create", "-u", "-f", format, "-b", name, "-F", "qcow2", file, "1M",
            ]);
            if format == "vmdk" || made.code != 0 {
                // Some hold fewer names; what they say then holds the name, too.
                assert!(!made.err.contains("s3cret"), "{made:?}");
            }
            if made.code != 0 {
                continue;
            }
            let held = std::fs::read(pair.ours().path(file)).expect("the image");
            assert!(holds(&held, b"s3cret"), "{file} does not hold the name");
            for line in [
                &["info", file][..],
                &["info", "--output=json", file],
                &["info", "--backing-chain", file],
                &["info", "--output=json", "--backing-chain", file],
                &["inspect", file],
                &["inspect", "--output=json", file],
                &["check", file],
                &["map", file],
                &["compare", file, file],
                &["convert", "-O", "raw", file, "out"],
                &["commit", file],
                &["rebase", "-b", "", file],
                &["rebase", "-b", name, "-F", "qcow2", file],
                &["resize", file, "2M"],
                &["measure", "-O", "qcow2", file],
                &["-T", "*", "info", "--backing-chain", file],
                &["-T", "*", "convert", "-O", "raw", file, "out"],
                &[
                    "-T", "*", "create", "-f", format, "-b", name, "-F", "qcow2", "new", "1M",
                ],
            ] {
                let ran = run(line);
                assert!(
                    !ran.out.contains("s3cret") && !ran.err.contains("s3cret"),
                    "{line:?}: {ran:?}"
                );
            }
        }
    }
    // What it is goes without a login.
    let info = run(&["info", "0.qcow2"]);
    let shown = "backing file: http://joe@127.0.0.1:9/a.qcow2\n";
    assert!(info.out.contains(shown), "{info:?}");
    let data = "data_file=http://joe:s3cret@127.0.0.1:9/a.raw";
    let made = run(&["create", "-f", "qcow2", "-o", data, "d.qcow2", "1M"]);
    assert!(!made.err.contains("s3cret"), "{made:?}");
}
