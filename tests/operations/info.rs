//! `info` against `qemu-img info`: the same JSON and the same text, byte for byte.

use crate::common::{Dir, said_once};
use platter::ops::info::info;
use platter::{Image, Location, OpenOptions, OpenPolicy};

fn options(format: Option<&str>) -> OpenOptions {
    OpenOptions {
        format: format.map(str::to_owned),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

/// Compares both forms, alone and with the chain, for a file name as it may be typed.
fn same(dir: &Dir, name: &str, format: Option<&str>) {
    let location = Location::parse(name).unwrap();
    same_at(dir, name, &location, format, &[]);
}

fn same_at(dir: &Dir, name: &str, location: &Location, format: Option<&str>, extra: &[&str]) {
    for chain in [false, true] {
        let report = info(location, &options(format), chain)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut args = vec!["info"];
        args.extend(extra);
        if let Some(format) = format {
            args.extend(["-f", format]);
        }
        if chain {
            args.push("--backing-chain");
        }
        let mut json = args.clone();
        json.extend(["--output=json", name]);
        assert_eq!(report.json().unwrap(), dir.qemu_img_ok(&json), "{name}");
        args.push(name);
        assert_eq!(report.text().unwrap(), dir.qemu_img_ok(&args), "{name}");
    }
}

/// Creates an image with `qemu-img` and compares.
fn created(dir: &Dir, name: &str, options: &str, extra: &[&str]) {
    let path = dir.str(name);
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend(extra);
    args.extend([path.as_str(), "10M"]);
    dir.qemu_img_ok(&args);
    same(dir, &path, None);
}

#[test]
fn raw_files() {
    let dir = Dir::new();
    for (name, bytes) in [("empty", 0), ("odd", 1000), ("whole", 70_144)] {
        std::fs::write(dir.path(name), vec![7; bytes]).unwrap();
        same(&dir, &dir.str(name), None);
        same(&dir, &dir.str(name), Some("raw"));
        same(&dir, &format!("file:{}", dir.str(name)), Some("raw"));
    }
    same(&dir, &dir.str("odd"), Some("file"));
}

#[test]
fn raw_windows_and_trees() {
    let dir = Dir::new();
    std::fs::write(dir.path("disk"), vec![7; 8192]).unwrap();
    let path = dir.str("disk");
    for text in [
        format!("driver=raw,offset=512,size=1024,file.filename={path}"),
        format!("driver=raw,file.filename={path}"),
        format!("file.filename={path}"),
        format!("driver=file,filename={path}"),
    ] {
        let location = Location::from_image_opts(&text).unwrap();
        same_at(&dir, &text, &location, None, &["--image-opts"]);
    }
    let json = format!(
        r#"json:{{"driver": "raw", "size": 512, "file": {{"driver": "file", "filename": "{path}"}}}}"#
    );
    same(&dir, &json, None);
}

#[test]
fn an_image_inside_another() {
    let dir = Dir::new();
    let path = dir.str("disk");
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", &path, "10M"]);
    for text in [
        format!("driver=qcow2,file.driver=raw,file.file.filename={path}"),
        format!("driver=qcow2,file.driver=raw,file.offset=0,file.file.filename={path}"),
        format!("driver=raw,size=512,file.driver=raw,file.file.filename={path}"),
    ] {
        let location = Location::from_image_opts(&text).unwrap();
        same_at(&dir, &text, &location, None, &["--image-opts"]);
    }
}

#[test]
fn qcow2_of_every_kind() {
    let dir = Dir::new();
    created(&dir, "default", "", &[]);
    created(&dir, "v2", "compat=0.10", &[]);
    created(&dir, "lazy", "lazy_refcounts=on", &[]);
    created(&dir, "zstd", "compression_type=zstd", &[]);
    created(&dir, "extended", "extended_l2=on", &[]);
    created(&dir, "small", "cluster_size=512,refcount_bits=64", &[]);
    created(&dir, "large", "cluster_size=2M,refcount_bits=1", &[]);
    created(&dir, "meta", "preallocation=metadata", &[]);
    for raw in ["on", "off"] {
        let data = dir.str(&format!("data-{raw}"));
        let list = format!("data_file={data},data_file_raw={raw}");
        created(&dir, &format!("external-{raw}"), &list, &[]);
    }
}

#[test]
fn encrypted_headers() {
    let dir = Dir::new();
    let secret = ["--object", "secret,id=s,data=abc"];
    for format in ["luks", "aes"] {
        let mut list = format!("encrypt.format={format},encrypt.key-secret=s");
        if format == "luks" {
            list.push_str(",encrypt.iter-time=10");
        }
        created(&dir, format, &list, &secret);
    }
}

#[test]
fn snapshots_and_bitmaps() {
    let dir = Dir::new();
    let path = dir.str("disk");
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", &path, "10M"]);
    for name in ["one", "a name that is longer than its column", "zwölf"] {
        dir.qemu_img_ok(&["snapshot", "-c", name, &path]);
    }
    same(&dir, &path, None);
    dir.qemu_img_ok(&["bitmap", "--add", &path, "enabled"]);
    dir.qemu_img_ok(&["bitmap", "--add", "-g", "4k", &path, "disabled"]);
    dir.qemu_img_ok(&["bitmap", "--disable", &path, "disabled"]);
    same(&dir, &path, None);
}

#[test]
fn chains_and_their_names() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("sub")).unwrap();
    std::fs::write(dir.path("base.raw"), vec![7; 70_144]).unwrap();
    let middle = dir.str("sub/middle");
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "../base.raw",
        "-F",
        "raw",
        &middle,
    ]);
    let top = dir.str("top");
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "sub/middle",
        "-F",
        "qcow2",
        &top,
    ]);
    same(&dir, &top, None);
    let base = dir.str("base.raw");
    for (name, tree) in [
        (
            "plain",
            r#"{"driver":"raw","file":{"driver":"file","filename":"BASE"}}"#,
        ),
        (
            "window",
            r#"{"driver":"raw","offset":512,"file":{"driver":"file","filename":"BASE"}}"#,
        ),
    ] {
        let path = dir.str(name);
        let backing = format!("json:{}", tree.replace("BASE", &base));
        dir.qemu_img_ok(&[
            "create", "-q", "-u", "-f", "qcow2", "-b", &backing, "-F", "raw", &path, "1M",
        ]);
        same(&dir, &path, None);
    }
}

#[test]
fn names_that_json_must_escape() {
    let dir = Dir::new();
    for name in ["zwölf \u{1f600}", "a\"b\\c", "co:lon"] {
        std::fs::write(dir.path(name), vec![7; 512]).unwrap();
        same(&dir, &dir.str(name), Some("raw"));
    }
    // For people ours escapes control characters.
    let name = dir.str("a\td\n");
    std::fs::write(&name, vec![7; 512]).unwrap();
    let report = info(
        &Location::parse(&name).unwrap(),
        &options(Some("raw")),
        false,
    )
    .unwrap();
    let peer = |output| dir.qemu_img_ok(&["info", "-f", "raw", output, &name]);
    assert_eq!(report.json().unwrap(), peer("--output=json"));
    let escaped = name.replace('\t', "\\u{9}").replace('\n', "\\u{a}");
    assert_eq!(
        report.text().unwrap(),
        peer("--output=human").replace(&name, &escaped)
    );
}

#[test]
fn a_chain_without_end_is_refused() {
    let dir = Dir::new();
    let (a, b) = (dir.str("a"), dir.str("b"));
    for (file, backing) in [(&a, &b), (&b, &a)] {
        dir.qemu_img_ok(&[
            "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", file, "1M",
        ]);
    }
    let location = Location::parse(&a).unwrap();
    let error = info(&location, &options(None), true).unwrap_err();
    let peer = dir.qemu_img(&["info", "--backing-chain", &a]);
    assert_eq!(format!("qemu-img: {error}\n"), peer.err);
    assert!(info(&location, &options(None), false).is_ok());
}

#[test]
fn a_missing_layer_is_named() {
    let dir = Dir::new();
    let top = dir.str("top");
    dir.qemu_img_ok(&[
        "create", "-q", "-u", "-f", "qcow2", "-b", "gone", "-F", "raw", &top, "1M",
    ]);
    let location = Location::parse(&top).unwrap();
    let error = info(&location, &options(None), true).unwrap_err();
    let peer = dir.qemu_img(&["info", "--backing-chain", &top]);
    let theirs = peer.err.strip_prefix("qemu-img: ").expect("an error");
    assert_eq!(format!("{error}\n"), said_once(theirs));
    same_alone(&dir, &top);
}

fn same_alone(dir: &Dir, name: &str) {
    let report = info(&Location::parse(name).unwrap(), &options(None), false).unwrap();
    assert_eq!(report.text().unwrap(), dir.qemu_img_ok(&["info", name]));
}

#[test]
fn the_default_policy_opens_no_backing_file() {
    let dir = Dir::new();
    std::fs::write(dir.path("base.raw"), vec![7; 512]).unwrap();
    let top = dir.str("top");
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", &top,
    ]);
    let location = Location::parse(&top).unwrap();
    let error = info(&location, &OpenOptions::default(), true).unwrap_err();
    assert_eq!(error.kind(), platter::ErrorKind::Denied);
    assert!(info(&location, &OpenOptions::default(), false).is_ok());
}

#[test]
fn a_snapshot_table_behind_the_end_is_warned_of() {
    let dir = Dir::new();
    let top = dir.str("top");
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", &top, "1M"]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", &top]);
    let location = Location::parse(&top).unwrap();
    let metadata = || OpenOptions {
        metadata_only: true,
        ..options(None)
    };
    let image = Image::open(&location, &metadata()).unwrap();
    assert!(image.warnings().is_empty());
    drop(image);
    let mut bytes = std::fs::read(&top).unwrap();
    bytes[64..72].copy_from_slice(&(1u64 << 40).to_be_bytes());
    std::fs::write(&top, bytes).unwrap();
    let image = Image::open(&location, &metadata()).unwrap();
    let [warning] = image.warnings() else {
        panic!("{:?}", image.warnings());
    };
    assert!(warning.contains("lies past the end of"), "{warning}");
    assert!(warning.contains("0x10000000000"), "{warning}");
}
