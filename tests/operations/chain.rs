//! Chains that `qemu-img` makes: read, written, locked and refused as it does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use platter::policy::{ImplicitAnswer, ImplicitFiles};
use platter::storage::{CacheMode, ZeroFlags};
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy};

use crate::common;
use crate::common::Dir;

fn permissive() -> OpenOptions {
    OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn writable() -> OpenOptions {
    OpenOptions {
        writable: true,
        ..permissive()
    }
}

fn open(dir: &Dir, name: &str, options: &OpenOptions) -> platter::Result<Image> {
    Image::open(&Location::from_path(dir.path(name)), options)
}

fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0xa5; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("the image reads");
    bytes
}

/// What the chain reads as to `qemu-img`.
fn theirs(dir: &Dir, name: &str) -> Vec<u8> {
    dir.qemu_img_ok(&["convert", "-O", "raw", name, "plain.out"]);
    std::fs::read(dir.path("plain.out")).expect("the converted file")
}

fn create(dir: &Dir, name: &str, base: Option<(&str, &str)>, size: &str, more: &str) {
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !more.is_empty() {
        args.extend(["-o", more]);
    }
    if let Some((base, format)) = base {
        args.extend(["-b", base, "-F", format]);
    }
    args.extend([name, size]);
    dir.qemu_img_ok(&args);
}

/// raw (1 MiB + 1.5 KiB) below qcow2 (2 MiB) below qcow2 (1.5 MiB) below qcow2 (3 MiB).
fn chain(dir: &Dir, more: &str) {
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base.raw", "1050112"]);
    dir.qemu_io(
        "raw",
        "base.raw",
        &["write -P 1 0 100k", "write -P 2 900k 125k"],
    );
    create(dir, "low.qcow2", Some(("base.raw", "raw")), "2M", more);
    let mut writes = vec![
        "write -P 3 50k 9k",
        "write -z 64k 64k",
        "write -P 4 1500k 300k",
    ];
    if !more.contains("2M") {
        // Compressed clusters come whole.
        writes.push("write -c -P 9 1M 64k");
    }
    dir.qemu_io("qcow2", "low.qcow2", &writes);
    create(
        dir,
        "mid.qcow2",
        Some(("low.qcow2", "qcow2")),
        "1536k",
        more,
    );
    dir.qemu_io(
        "qcow2",
        "mid.qcow2",
        &["write -P 5 200k 1k", "discard 1M 64k"],
    );
    create(dir, "top.qcow2", Some(("mid.qcow2", "qcow2")), "3M", more);
    dir.qemu_io(
        "qcow2",
        "top.qcow2",
        &["write -P 6 2500k 10k", "write -z 960k 64k"],
    );
}

#[test]
fn mixed_chains_read_as_qemu_img_reads_them() {
    for more in [
        "",
        "cluster_size=512",
        "extended_l2=on",
        "compat=0.10",
        "cluster_size=2M",
    ] {
        let dir = Dir::new();
        chain(&dir, more);
        for name in ["top.qcow2", "mid.qcow2", "low.qcow2", "base.raw"] {
            let image = open(&dir, name, &permissive()).unwrap();
            let ours = contents(&image);
            drop(image);
            assert!(ours == theirs(&dir, name), "{name} {more}");
        }
    }
}

#[test]
fn reads_of_any_alignment_agree_with_the_whole() {
    let dir = Dir::new();
    chain(&dir, "cluster_size=4k");
    let image = open(&dir, "top.qcow2", &permissive()).unwrap();
    let whole = contents(&image);
    let mut at = 0u64;
    let mut len = 1usize;
    while at < image.len() {
        let n = len.min((image.len() - at) as usize);
        let mut part = vec![0xee; n];
        image.read_at(&mut part, at).unwrap();
        assert!(part == whole[at as usize..at as usize + n], "{at} {n}");
        at += n as u64;
        len = (len * 7 + 3) % 70_001 + 1;
    }
}

#[test]
fn many_threads_read_one_chain() {
    let dir = Dir::new();
    chain(&dir, "");
    let image = open(&dir, "top.qcow2", &permissive()).unwrap();
    let whole = contents(&image);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (image, whole) = (&image, &whole);
            scope.spawn(move || {
                let mut part = vec![0; 10_000];
                for i in 0..300u64 {
                    let at = (i * 7919 + thread * 104_729) % (image.len() - 10_000);
                    image.read_at(&mut part, at).unwrap();
                    assert!(part == whole[at as usize..at as usize + 10_000]);
                }
            });
        }
    });
}

#[test]
fn what_is_written_over_a_chain_is_what_qemu_img_reads() {
    for more in ["", "cluster_size=4k", "extended_l2=on"] {
        let dir = Dir::new();
        chain(&dir, more);
        let image = open(&dir, "top.qcow2", &writable()).unwrap();
        let mut model = contents(&image);
        let mut seed = 12345u64;
        for step in 0..200u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 20) % image.len();
            let len = ((seed >> 40) % 70_000).min(image.len() - at);
            let range = at as usize..(at + len) as usize;
            if step % 4 == 0 {
                let flags = if step % 8 == 0 {
                    ZeroFlags::MAY_UNMAP
                } else {
                    ZeroFlags::empty()
                };
                image.write_zeroes(at, len, flags).unwrap();
                model[range].fill(0);
            } else {
                image.write_at(&vec![step as u8; len as usize], at).unwrap();
                model[range].fill(step as u8);
            }
        }
        assert!(contents(&image) == model);
        image.close().unwrap();
        assert!(theirs(&dir, "top.qcow2") == model, "{more}");
        dir.qemu_img_ok(&["check", "top.qcow2"]);
    }
}

#[test]
fn every_cache_mode_keeps_what_is_written() {
    for cache in ["none", "writeback", "writethrough", "directsync", "unsafe"] {
        let dir = Dir::new();
        create(&dir, "a.qcow2", None, "1M", "");
        let options = OpenOptions {
            cache: CacheMode::from_name(cache).unwrap(),
            ..writable()
        };
        let image = open(&dir, "a.qcow2", &options).unwrap();
        image.write_at(&[7; 1000], 12345).unwrap();
        image.flush().unwrap();
        drop(image);
        dir.qemu_io(
            "qcow2",
            "a.qcow2",
            &["read -P 7 12345 1000", "read -P 0 0 12345"],
        );
    }
}

/// The error of opening `name` here and of `qemu-img map`, both seen from the directory.
fn both_errors(dir: &Dir, name: &str) -> (String, String) {
    let full = dir.str(name);
    let error = open(dir, name, &permissive()).expect_err("no such chain opens");
    let ran = dir.qemu_img(&["map", &full]);
    assert_eq!(ran.code, 1);
    let theirs = ran.err.trim_end().replacen("qemu-img: ", "", 1);
    (error.to_string(), theirs)
}

#[test]
fn broken_chains_are_refused_in_the_same_words() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    std::fs::create_dir(dir.path("sub")).unwrap();
    let json = "json:{\"driver\":\"qcow2\"}";
    for (i, (base, format)) in [
        ("nope", "raw"),
        ("a.raw", "qcow2"),
        ("sub", "raw"),
        ("foo:x", "raw"),
        ("json:{x", "raw"),
        (json, "raw"),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("bad{i}.qcow2");
        let args = [
            "create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", format, &name, "1M",
        ];
        dir.qemu_img_ok(&args);
        let (ours, theirs) = both_errors(&dir, &name);
        assert_eq!(ours, theirs, "{base}");
        let over = format!("over{i}.qcow2");
        let args = [
            "create", "-q", "-u", "-f", "qcow2", "-b", &name, "-F", "qcow2", &over, "1M",
        ];
        dir.qemu_img_ok(&args);
        let (ours, theirs) = both_errors(&dir, &over);
        assert_eq!(ours, theirs, "over {base}");
    }
}

#[test]
fn a_chain_that_refers_to_itself_is_refused() {
    let dir = Dir::new();
    let link = |name: &str, base: &str| {
        dir.qemu_img_ok(&["rebase", "-u", "-b", base, "-F", "qcow2", name]);
    };
    create(&dir, "self.qcow2", None, "1M", "");
    link("self.qcow2", "self.qcow2");
    create(&dir, "one.qcow2", None, "1M", "");
    create(&dir, "two.qcow2", None, "1M", "");
    std::os::unix::fs::symlink("two.qcow2", dir.path("link.qcow2")).unwrap();
    std::fs::hard_link(dir.path("one.qcow2"), dir.path("hard.qcow2")).unwrap();
    link("one.qcow2", "link.qcow2");
    link("two.qcow2", "./hard.qcow2");
    for name in ["self.qcow2", "one.qcow2", "two.qcow2"] {
        for options in [permissive(), writable()] {
            let error = open(&dir, name, &options).unwrap_err();
            assert!(
                error.to_string().ends_with("creates an infinite loop."),
                "{error}"
            );
        }
        // Its metadata alone can be looked at.
        let options = OpenOptions {
            metadata_only: true,
            ..permissive()
        };
        let image = open(&dir, name, &options).unwrap();
        assert!(image.backing_missing());
        let next = image.open_backing_metadata(&options).unwrap().unwrap();
        assert!(next.identity().is_some());
    }
}

#[test]
fn long_chains_have_a_limit() {
    let dir = Dir::new();
    chain(&dir, "");
    let with = |depth| {
        let mut options = permissive();
        options.policy.max_chain_depth = depth;
        open(&dir, "top.qcow2", &options)
    };
    assert!(with(4).is_ok());
    assert_eq!(with(3).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn files_that_an_image_names_need_permission() {
    let dir = Dir::new();
    chain(&dir, "");
    let with = |files: ImplicitFiles| {
        let mut options = OpenOptions::default();
        options.policy.implicit_files = files;
        open(&dir, "top.qcow2", &options)
    };
    let error = open(&dir, "top.qcow2", &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("backing file 'mid.qcow2'"),
        "{error}"
    );
    let expected = theirs(&dir, "top.qcow2");
    assert!(contents(&with(ImplicitFiles::Allow).unwrap()) == expected);
    let below = vec![dir.root().to_owned()];
    assert!(contents(&with(ImplicitFiles::Below(below)).unwrap()) == expected);
    let error = with(ImplicitFiles::Below(vec![PathBuf::from("/usr")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let root = dir.root().to_owned();
    let ask = ImplicitFiles::Ask(std::sync::Arc::new(move |file| {
        let file = std::fs::File::open(root.join(OsStr::from_bytes(file.name)))
            .expect("a file of the chain");
        Ok(ImplicitAnswer::Fd(file.into()))
    }));
    assert!(contents(&with(ask).unwrap()) == expected);
    // Without the chain the image opens, but what it does not hold is not made up.
    let alone = OpenOptions {
        backing: false,
        ..OpenOptions::default()
    };
    let image = open(&dir, "top.qcow2", &alone).unwrap();
    assert!(image.read_at(&mut [0; 512], 0).is_err());
    image.read_at(&mut [0; 512], 2500 << 10).unwrap();
}

#[test]
fn names_inside_images_are_plain_files_unless_allowed_otherwise() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    let json = format!(
        "json:{{\"driver\":\"raw\",\"file.filename\":\"{}\"}}",
        dir.str("a.raw")
    );
    create(&dir, "o.qcow2", Some((&json, "raw")), "1M", "");
    assert!(open(&dir, "o.qcow2", &permissive()).is_ok());
    let mut options = permissive();
    options.policy.implicit_protocols = false;
    let error = open(&dir, "o.qcow2", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn options_of_the_user_replace_the_backing_file() {
    let dir = Dir::new();
    chain(&dir, "");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "other.raw", "3M"]);
    dir.qemu_io("raw", "other.raw", &["write -P 77 0 3M"]);
    let open = |more: &str| {
        let text = format!("driver=qcow2,file.filename={}{more}", dir.str("top.qcow2"));
        Image::open(&Location::from_image_opts(&text).unwrap(), &permissive())
    };
    let other = dir.str("other.raw");
    let image = open(&format!(
        ",backing.driver=raw,backing.file.filename={other}"
    ))
    .unwrap();
    assert_eq!(image.backing().unwrap().filename(), other);
    let mut byte = [0];
    image.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [77]);
    let image = open(",backing=").unwrap();
    image.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [0]);
    let image = open(",backing.driver=raw").unwrap();
    image.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, *b"Q");
    for (more, end) in [
        (
            ",backing.bogus=1",
            "Block format 'qcow2' does not support the option 'bogus'",
        ),
        (
            ",backing=foo",
            "Cannot find device='foo' nor node-name='foo'",
        ),
    ] {
        let error = open(more).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("Could not open backing file: {end}")),
            "{error}"
        );
    }
}

#[test]
fn an_image_inside_another_is_reached_through_the_tree() {
    let dir = Dir::new();
    create(&dir, "in.qcow2", None, "1M", "");
    dir.qemu_io("qcow2", "in.qcow2", &["write -P 5 0 64k"]);
    let mut bytes = vec![0; 4096];
    bytes.extend(std::fs::read(dir.path("in.qcow2")).unwrap());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    std::fs::write(dir.path("tar"), bytes).unwrap();
    let text = format!(
        "driver=qcow2,file.driver=raw,file.offset=4096,file.file.filename={}",
        dir.str("tar")
    );
    let location = Location::from_image_opts(&text).unwrap();
    let image = Image::open(&location, &writable()).unwrap();
    let mut part = [0; 512];
    image.read_at(&mut part, 512).unwrap();
    assert_eq!(part, [5; 512]);
    image.write_at(&[6; 512], 512 << 10).unwrap();
    let name = image.filename().to_owned();
    assert!(name.starts_with(b"json:{\"driver\": \"qcow2\", \"file\": {\"offset\": \"4096\", "));
    image.close().unwrap();
    let again = Image::open(
        &Location::parse(OsStr::from_bytes(&name)).unwrap(),
        &permissive(),
    )
    .unwrap();
    again.read_at(&mut part, 512 << 10).unwrap();
    assert_eq!(part, [6; 512]);
    let out = dir.qemu_img_ok(&["check", "--image-opts", &text]);
    assert!(out.contains("No errors"), "{out}");
}

#[test]
fn locks_keep_qemu_img_away_and_let_readers_in() {
    let dir = Dir::new();
    create(&dir, "a.qcow2", None, "1M", "");
    let path = dir.str("a.qcow2");
    let writer = open(&dir, "a.qcow2", &writable()).unwrap();
    let refused = dir.qemu_img(&["map", &path]);
    assert_eq!(
        refused.err,
        format!(
            "qemu-img: Could not open '{path}': Failed to get shared \"write\" lock\n\
             Is another process using the image [{path}]?\n"
        )
    );
    let error = open(&dir, "a.qcow2", &permissive()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(
        format!("qemu-img: {error}\n{}\n", error.hints().join("\n")),
        refused.err
    );
    let share = OpenOptions {
        force_share: true,
        ..permissive()
    };
    open(&dir, "a.qcow2", &share).unwrap();
    dir.qemu_img_ok(&["info", "-U", &path]);
    writer.close().unwrap();
    let readers = [
        open(&dir, "a.qcow2", &permissive()).unwrap(),
        open(&dir, "a.qcow2", &permissive()).unwrap(),
    ];
    dir.qemu_img_ok(&["map", &path]);
    let refused = dir.qemu_img(&["resize", &path, "2M"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let error = open(&dir, "a.qcow2", &writable()).unwrap_err();
    assert!(
        error.to_string().ends_with("Failed to get \"write\" lock"),
        "{error}"
    );
    drop(readers);
    dir.qemu_img_ok(&["resize", "-q", &path, "2M"]);
    let both = OpenOptions {
        force_share: true,
        ..writable()
    };
    let error = open(&dir, "a.qcow2", &both).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("force-share=on can only be used with read-only images"),
        "{error}"
    );
}

#[test]
fn a_plain_disk_is_locked_as_its_use_asks() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    let raw = |options: OpenOptions| {
        let options = OpenOptions {
            format: Some("raw".into()),
            ..options
        };
        open(&dir, "a.raw", &options).unwrap()
    };
    // Another process may write as well, another handle of this one not.
    let writer = raw(writable());
    dir.qemu_io("raw", "a.raw", &["write 0 512"]);
    let again = OpenOptions {
        format: Some("raw".into()),
        ..writable()
    };
    let refused = open(&dir, "a.raw", &again).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
    drop(writer);
    let source = raw(OpenOptions {
        deny_writers: true,
        ..permissive()
    });
    let refused = common::run_in(
        dir.root(),
        "qemu-io",
        &["-f", "raw", "-c", "write 0 512", "a.raw"],
    );
    assert!(
        refused.err.contains("Failed to get \"write\" lock"),
        "{refused:?}"
    );
    drop(source);
    dir.qemu_io("raw", "a.raw", &["write 0 512"]);
}

#[test]
fn an_external_data_file_is_found_and_checked() {
    let dir = Dir::new();
    let data = dir.str("d.raw");
    create(&dir, "a.qcow2", None, "1M", &format!("data_file={data}"));
    dir.qemu_io("qcow2", "a.qcow2", &["write -P 3 64k 64k"]);
    let image = open(&dir, "a.qcow2", &permissive()).unwrap();
    assert!(contents(&image) == theirs(&dir, "a.qcow2"));
    drop(image);
    let error = open(&dir, "a.qcow2", &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("data file"), "{error}");
    std::fs::rename(dir.path("d.raw"), dir.path("e.raw")).unwrap();
    let (ours, theirs_text) = both_errors(&dir, "a.qcow2");
    assert_eq!(ours, theirs_text);
    let text = format!(
        "driver=qcow2,file.filename={},data-file.filename={}",
        dir.str("a.qcow2"),
        dir.str("e.raw")
    );
    // The user's own option needs no permission.
    let image = Image::open(
        &Location::from_image_opts(&text).unwrap(),
        &OpenOptions::default(),
    );
    let mut part = [0; 512];
    image.unwrap().read_at(&mut part, 64 << 10).unwrap();
    assert_eq!(part, [3; 512]);
    // An image cannot be its own data file.
    let text = format!(
        "driver=qcow2,file.filename={0},data-file.filename={0}",
        dir.str("a.qcow2")
    );
    assert!(Image::open(&Location::from_image_opts(&text).unwrap(), &writable()).is_err());
}

#[test]
fn names_of_backing_files_are_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let base = OsStr::from_bytes(b"b\xff.raw");
    std::fs::write(dir.root().join(base), [5; 65536]).unwrap();
    // This one looks the same when it is shown.
    std::fs::write(dir.path("b\u{fffd}.raw"), [6; 65536]).unwrap();
    let args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"].map(OsStr::new);
    let args = [&args[..], &[base, OsStr::new("o.qcow2")]].concat();
    dir.qemu_img_ok(&args);
    let image = open(&dir, "o.qcow2", &permissive()).unwrap();
    assert!(contents(&image) == [5; 65536]);
}
