//! `info`: the report in both forms, on files that QEMU's tool made.

use crate::pair::{Loose, Pair, ours, words};

fn images() -> Pair {
    let pair = Pair::with(&[
        "create -q a.raw 1M",
        "create -q -f qcow2 b.qcow2 1M",
        "create -q -f qcow2 -o compat=0.10 v2.qcow2 1M",
        "create -q -f qcow2 -o compression_type=zstd,lazy_refcounts=on z.qcow2 1023k",
        "create -q -f qcow2 -o extended_l2=on,cluster_size=128k e.qcow2 999G",
        "create -q -f qcow2 -o refcount_bits=1,cluster_size=512 s.qcow2 1000M",
        "create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M",
        "create -q -f qcow2 -b a.raw -F raw o.qcow2",
        "create -q -f qcow2 -b o.qcow2 -F qcow2 t.qcow2 2M",
        "create -q -f qcow2 -u -b nope.raw -F raw missing.qcow2 1M",
        "create -q -f qcow2 -u -b a.raw -F qcow2 unknown.qcow2 1M",
        "create -q -f qcow2 -u -b loop.qcowX -F qcow2 loop.qcow2 1M",
    ]);
    pair.replace("unknown.qcow2", "qcow2", "bogus");
    pair.replace("loop.qcow2", "loop.qcowX", "loop.qcow2");
    pair.directory("sub");
    pair.qemu("create -q -f qcow2 -b ../a.raw -F raw sub/r.qcow2");
    pair.file("odd.raw", &[5; 1000]);
    pair.file("empty", b"");
    pair
}

#[test]
fn reports() {
    let pair = images();
    let mut lines = Vec::new();
    for image in [
        "a.raw",
        "b.qcow2",
        "v2.qcow2",
        "z.qcow2",
        "e.qcow2",
        "s.qcow2",
        "d.qcow2",
        "o.qcow2",
        "t.qcow2",
        "missing.qcow2",
        "unknown.qcow2",
        "loop.qcow2",
        "sub/r.qcow2",
        "odd.raw",
        "empty",
        "./a.raw",
        "file:a.raw",
        "sub/../a.raw",
    ] {
        for options in [
            "",
            "--output=json",
            "--backing-chain",
            "-b --output json",
            "-U",
            "-f raw",
            "-f qcow2 --output=json",
            "-f file",
            "-f file --output=json",
        ] {
            lines.push(format!("info {options} {image}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn the_disk_size_is_what_the_file_takes() {
    use std::os::unix::fs::MetadataExt;
    let pair = images();
    let dir = pair.ours();
    for image in ["a.raw", "b.qcow2", "s.qcow2", "odd.raw", "empty"] {
        let file = std::fs::File::open(dir.path(image)).expect("an image");
        file.sync_all().expect("its blocks on the disk");
        let ran = ours(&["info", "--output=json", image], dir.root());
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        let blocks = file.metadata().expect("its size").blocks();
        assert_eq!(report["actual-size"], blocks * 512, "{image}");
    }
}

#[test]
fn snapshots_and_bitmaps_in_the_report() {
    let pair = images();
    // Times differ from one run to the next, so both sides get one and the same file.
    let theirs = pair.theirs();
    theirs.qemu_img_ok(&["create", "-q", "-f", "qcow2", "snap.qcow2", "1M"]);
    theirs.qemu_img_ok(&["snapshot", "-c", "one", "snap.qcow2"]);
    theirs.qemu_img_ok(&["snapshot", "-c", "two words and a long name", "snap.qcow2"]);
    theirs.qemu_img_ok(&["bitmap", "--add", "snap.qcow2", "b0"]);
    theirs.qemu_img_ok(&["bitmap", "--add", "-g", "4k", "snap.qcow2", "b1"]);
    theirs.qemu_img_ok(&["bitmap", "--disable", "snap.qcow2", "b1"]);
    std::fs::copy(theirs.path("snap.qcow2"), pair.ours().path("snap.qcow2")).expect("a copy");
    for line in [
        "info snap.qcow2",
        "info --output=json snap.qcow2",
        "info -b snap.qcow2",
    ] {
        pair.same_but(line, Loose::DiskSize);
    }
}

#[test]
fn names_that_need_escapes() {
    let pair = images();
    for name in [
        "with blank.raw",
        "quote\"back\\slash.raw",
        "ünïcode.raw",
        "tab\t.raw",
    ] {
        pair.file(name, &[0; 512]);
        pair.same_args(&["info", "--output=json", name], Loose::Exact);
        if name.contains('\t') {
            let text = ours(&["info", name], pair.ours().root()).out;
            assert!(text.starts_with("image: tab\\u{9}.raw\n"), "{text}");
        } else {
            pair.same_args(&["info", name], Loose::Exact);
        }
    }
}

#[test]
fn image_options() {
    let pair = images();
    pair.all_same(&[
        "info --image-opts file.filename=a.raw",
        "info --image-opts driver=raw,file.filename=a.raw",
        "info --image-opts driver=file,filename=a.raw",
        "info --image-opts driver=qcow2,file.driver=file,file.filename=b.qcow2",
        "info --image-opts driver=raw,offset=4096,size=8192,file.filename=a.raw",
        "info --output=json --image-opts driver=raw,offset=4096,size=8192,file.filename=a.raw",
        "info --image-opts driver=raw,offset=4096,file.filename=a.raw",
        "info json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"b.qcow2\"}}",
        "info json:{\"file.filename\":\"a.raw\"}",
        "info json:{'driver':'raw','file':{'driver':'file','filename':'a.raw'}}",
        "info --image-opts a.raw",
        "info json:{'driver':'raw','file':{'driver':'file','filename':'a.raw','locking':null}}",
        "info json:{'driver':'raw','file':{'driver':'file','filename':'a.raw','locking':'bogus'}}",
        "info json:{'driver':'raw','file':{'driver':'file','filename':'a.raw','locking':{'a':1}}}",
        "info json:{'driver':'raw','file':{'filename':'a.raw','foo':{'bar':[{'x':1}]}}}",
        "info json:{'driver':'file','filename':'a.raw','foo':{}}",
        "info json:{'driver':'file','filename':'a.raw','cache':{'foo':1}}",
        "info json:{'driver':'null-co','filename':'null-co://'}",
        "info json:{'driver':'null-co','size':1048576}",
        "info --image-opts driver=null-aio,size=1M,foo.bar=1",
        "info --image-opts driver=raw,file.driver=file",
        "info --image-opts driver=raw",
        "info --image-opts bogus=x,file.filename=a.raw",
        "info --image-opts driver=bogus,file.filename=a.raw",
        "info --image-opts file.filename=nope",
        "info --image-opts -f raw a.raw",
        "info --image-opts -f raw a.raw b",
        "info json:{",
        "info json:[]",
        "info json:{}",
        "info json:{\"driver\":\"x\"}",
        "info json:{\"driver\":\"qcow2\"}",
        "info json:{\"driver\":\"qcow2\",\"bogus\":1,\"file\":{\"driver\":\"file\",\"filename\":\"b.qcow2\"}}",
    ]);
}

#[test]
fn errors() {
    let pair = images();
    pair.directory("dir");
    pair.all_same(&[
        "info",
        "info a.raw b.qcow2",
        "info nope",
        "info ''",
        "info dir",
        "info foo:x",
        "info :x",
        "info -f bogus a.raw",
        "info -f bogus nope",
        "info -f qcow2 a.raw",
        "info -f qcow2 empty",
        "info --output=zz a.raw",
        "info --output=zz",
        "info --output a.raw",
        "info --output json",
        "info --output JSON a.raw",
        "info -b missing.qcow2",
        "info -b unknown.qcow2",
        "info -b loop.qcow2",
        "info -b --output=json loop.qcow2",
        "info a.raw/x",
    ]);
}

#[test]
fn untrusted_opens_the_one_file_alone() {
    let pair = images();
    let dir = pair.ours().root();
    let plain = ours(&["info", "o.qcow2"], dir);
    assert_eq!(ours(&["info", "--untrusted", "o.qcow2"], dir), plain);
    let chain = ours(&["info", "--untrusted", "-b", "o.qcow2"], dir);
    assert_eq!(chain.code, 1, "{chain:?}");
    assert!(chain.err.starts_with("qemu-img: "), "{chain:?}");
}

/// Names as an attacker writes them: the tool neither cuts a report nor sends the terminal a control.
#[test]
fn names_from_images_neither_cut_a_report_nor_steer_the_terminal() {
    let pair = Pair::with(&[
        "create -q -f raw base-name-aXXXXb 1M",
        "create -q -f qcow2 -b base-name-aXXXXb -F raw i.qcow2",
        "snapshot -c snap-aXXXXb i.qcow2",
        "snapshot -c second i.qcow2",
        "bitmap --add i.qcow2 bitmap-aXXXXb",
        "create -q -f qcow2 s.qcow2 1M",
        "snapshot -c snap-aXXXXb s.qcow2",
        "snapshot -c second s.qcow2",
        "create -q -f qcow2 -o data_file=data-aXXXXb d.qcow2 1M",
        "bitmap --add d.qcow2 bitmap-aXXXXb",
    ]);
    let dir = pair.ours();
    let images = ["i.qcow2", "d.qcow2", "s.qcow2"];
    let originals = images.map(|name| std::fs::read(dir.path(name)).unwrap());
    // "Clear the screen" and a newline with a made-up line; and a NUL.
    for (hostile, shown) in [
        ("\u{1b}[2J", "\\u{1b}[2J"),
        ("\nx: ", "\\u{a}x: "),
        ("\0\0\0\0", "\\u{0}\\u{0}\\u{0}\\u{0}"),
        ("\r\u{7f}\u{8}\t", "\\u{d}\\u{7f}\\u{8}\\u{9}"),
    ] {
        for (name, bytes) in images.iter().zip(&originals) {
            let mut bytes = bytes.clone();
            for at in 0..bytes.len() - 6 {
                if &bytes[at..at + 6] == b"aXXXXb" {
                    bytes[at + 1..at + 5].copy_from_slice(hostile.as_bytes());
                }
            }
            std::fs::write(dir.path(name), bytes).unwrap();
        }
        for line in [
            "info i.qcow2",
            "info -b i.qcow2",
            "info d.qcow2",
            "snapshot -l i.qcow2",
            "snapshot -l s.qcow2",
            "map i.qcow2",
            "map d.qcow2",
            "check i.qcow2",
            "check d.qcow2",
            "compare i.qcow2 d.qcow2",
            "convert -O raw i.qcow2 o",
            "convert -O qcow2 --bitmaps i.qcow2 o",
            "commit i.qcow2",
            "rebase -b other -F raw i.qcow2",
            "resize i.qcow2 2M",
            "amend -o lazy_refcounts=on d.qcow2",
            "bitmap --enable i.qcow2 none",
            "bitmap --merge none i.qcow2 other",
            "measure -O qcow2 d.qcow2",
            "inspect i.qcow2",
            "inspect d.qcow2",
            "bench -c 1 d.qcow2",
            "dd if=d.qcow2 of=o",
        ] {
            let ran = ours(&words(line), dir.root());
            for text in [&ran.out, &ran.err] {
                let bad = |c: char| c.is_control() && c != '\n';
                assert!(!text.contains(bad), "{hostile:?} {line}: {ran:?}");
                assert!(
                    !text.lines().any(|line| line.starts_with("x: ")),
                    "{hostile:?} {line}: {ran:?}"
                );
            }
        }
        let info = ours(&["info", "i.qcow2"], dir.root()).out;
        for name in ["base-name-a", "bitmap-a", "snap-a"] {
            let shown = format!("{name}{shown}b");
            assert!(
                info.contains(&shown) || hostile.contains('\0'),
                "{shown}: {info}"
            );
        }
        let list = ours(&["snapshot", "-l", "s.qcow2"], dir.root()).out;
        assert!(list.contains(&format!("snap-a{shown}b")), "{list}");
        assert!(list.contains(" second "), "{list}");
        let json = ours(&["info", "--output=json", "i.qcow2"], dir.root()).out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["snapshots"][0]["name"], format!("snap-a{hostile}b"));
    }
}

#[test]
fn disks_of_many_files_are_described_and_mapped_as_the_peer_does() {
    let pair = Pair::new();
    let kinds = [
        ("monolithicSparse", "5000M"),
        ("monolithicFlat", "3M"),
        ("twoGbMaxExtentSparse", "5000M"),
        ("twoGbMaxExtentFlat", "3M"),
        ("streamOptimized", "5000M"),
    ];
    let made: Vec<String> = kinds
        .iter()
        .map(|(kind, size)| format!("create -q -f vmdk -o subformat={kind} {kind}.vmdk {size}"))
        .chain(["create -q -f vmdk -b monolithicSparse.vmdk -F vmdk over.vmdk".to_owned()])
        .collect();
    pair.qemu_and_copy(&made.iter().map(String::as_str).collect::<Vec<_>>());
    // A copy has the same holes where what is allocated is not zero.
    for flat in ["monolithicFlat.vmdk", "twoGbMaxExtentFlat.vmdk"] {
        pair.theirs()
            .qemu_io("vmdk", flat, &["write -P 1 0 64k", "write -P 2 1M 4k"]);
    }
    pair.qemu_and_copy(&[]);
    for name in kinds.iter().map(|(kind, _)| *kind).chain(["over"]) {
        for line in [
            "info",
            "info --output=json",
            "map --output=json",
            "check",
            "check --output=json",
        ] {
            pair.same(&format!("{line} {name}.vmdk"));
        }
    }
    pair.same("info --backing-chain over.vmdk");
    pair.same("map monolithicFlat.vmdk");
}

#[test]
fn new_disks_are_announced_and_refused_as_the_peer_does() {
    let pair = Pair::with(&["create -q -f qcow2 q.qcow2 1M"]);
    pair.qemu_and_copy(&["create -q -f vmdk base.vmdk 1M"]);
    for options in [
        "adapter_type=lsilogic",
        "adapter_type=bogus",
        "hwversion=9",
        "compat6=on",
        "compat6=on,hwversion=9",
        "toolsversion=12",
        "zeroed_grain=on",
        "zeroed_grain=on,subformat=monolithicFlat",
        "subformat=streamOptimized",
        "subformat=bogus",
        "subformat=twoGbMaxExtentFlat,adapter_type=buslogic",
    ] {
        pair.same(&format!("create -f vmdk -o {options} x.vmdk 10M"));
    }
    for line in [
        "create -f vmdk -o help",
        "create -f vmdk -b base.vmdk -F vmdk o.vmdk",
        "create -f vmdk -b q.qcow2 -F qcow2 o.vmdk",
        "create -f vmdk -b base.vmdk o.vmdk",
        "create -f vmdk -o subformat=monolithicFlat -b base.vmdk -F vmdk o.vmdk",
        "create -f vmdk -b gone.vmdk -F vmdk o.vmdk",
        "amend -o compat6=on base.vmdk",
        "snapshot -l base.vmdk",
    ] {
        pair.same(line);
    }
}

/// A disk without tables of its own has the clusters of the image that it lies in.
#[test]
fn a_luks_disk_in_an_image_shows_the_clusters_of_the_image() {
    let secret = "--object secret,id=s,data=abc";
    let pair = Pair::new();
    pair.qemu_and_copy(&[
        &format!("create {secret} -q -f luks -o key-secret=s,iter-time=10 l.luks 1M"),
        "convert -f raw -O qcow2 l.luks l.qcow2",
        "convert -f raw -O vmdk l.luks l.vmdk",
    ]);
    let file = |name: &str| format!("{{'driver':'file','filename':'{name}'}}");
    let image = |name: &str| {
        let format = &name[2..];
        format!("{{'driver':'{format}','file':{}}}", file(name))
    };
    let luks = |over: &str| format!("{{'driver':'luks','key-secret':'s','file':{over}}}");
    let disk = luks(&image("l.qcow2"));
    for tree in [
        luks(&file("l.luks")),
        disk.clone(),
        luks(&image("l.vmdk")),
        format!("{{'driver':'raw','file':{disk}}}"),
        format!("{{'driver':'blkdebug','image':{disk}}}"),
    ] {
        let name = format!("json:{tree}");
        for form in ["human", "json"] {
            let args = [
                "info",
                "--object",
                "secret,id=s,data=abc",
                "--output",
                form,
                &name,
            ];
            pair.same_args(&args, Loose::Exact);
        }
    }
}

/// Behind such filters, in the place of the format, stands an image of which nothing is read.
#[test]
fn images_behind_filters_are_opened_for_their_metadata_alone() {
    let pair = Pair::with(&[
        "create -q -f raw a.raw 1M",
        "create -q -f qcow2 -o data_file=d.raw d.qcow2 1M",
    ]);
    let disk = "{'driver':'qcow2','file':{'driver':'file','filename':'d.qcow2'}}";
    let raw = "{'driver':'file','filename':'a.raw'}";
    for tree in [
        format!("'driver':'blkdebug','image':{disk}"),
        format!("'driver':'blkverify','raw':{raw},'test':{disk}"),
        format!("'driver':'quorum','vote-threshold':1,'children':[{disk},{raw}]"),
        format!("'driver':'blkdebug','image':{{'driver':'blkdebug','image':{disk}}}"),
        format!("'driver':'blkdebug','image':{{'driver':'raw','file':{disk}}}"),
        format!("'driver':'throttle','throttle-group':'g','file':{disk}"),
        format!("'driver':'raw','file':{{'driver':'blkdebug','image':{disk}}}"),
    ] {
        let name = format!("json:{{{tree}}}");
        for form in ["human", "json"] {
            let object = "throttle-group,id=g";
            let args = ["info", "--object", object, "--output", form, &name];
            pair.same_args(&args, Loose::Exact);
        }
    }
}

#[test]
fn a_null_is_no_value_of_an_address_nor_an_option() {
    let pair = images();
    for (options, code) in [
        ("'driver':'file','filename':'a.raw','locking':null", 0),
        ("'driver':'file','filename':'a.raw','cache.direct':null", 0),
        (
            "'driver':'file','filename':'a.raw','cache':{'no-flush':null}",
            0,
        ),
        (
            "'driver':'raw','node-name':null,'read-only':null,'file':{'driver':'file','filename':'a.raw'}",
            0,
        ),
        ("'driver':'file','filename':'a.raw','bogus':null", 1),
        ("'driver':'file','filename':'a.raw','cache':null", 1),
        (
            "'driver':'nbd','server':{'type':'unix','path':'none','abstract':null}",
            1,
        ),
    ] {
        let name = format!("json:{{{options}}}");
        let (theirs, ours, _) = pair.both(&["info", &name], Loose::Exact);
        assert_eq!((theirs.code, ours.code), (code, code), "{name}: {ours:?}");
    }
    let address = "'type':'inet','host':'127.0.0.1','port':'1','ipv4':null";
    let name = format!("json:{{'driver':'nbd','server':{{{address}}}}}");
    let (theirs, ours, _) = pair.both(&["info", &name], Loose::Exact);
    assert_eq!((theirs.code, ours.code), (1, 1), "{ours:?}");
    assert!(theirs.err.contains("parameter ipv4 invalid"), "{theirs:?}");
    assert!(
        ours.err.contains("Parameter 'server.ipv4' has no value"),
        "{ours:?}"
    );
}
