//! `create` against `qemu-img create`: the "Formatting" line, the errors, and the images made.

use crate::common::Dir;
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::{Error, Job, Location, OpenPolicy, Options};

/// One creation, as words of a command line.
#[derive(Clone, Copy, Default)]
struct Case<'a> {
    format: &'a str,
    options: &'a str,
    size: Option<u64>,
    backing: Option<&'a str>,
    backing_format: Option<&'a str>,
    unsafe_backing: bool,
}

impl Case<'_> {
    fn request(&self, path: &str) -> CreateRequest {
        let mut options = Options::new();
        if !self.options.is_empty() {
            options.parse_into(self.options).unwrap();
        }
        CreateRequest {
            location: Location::for_target(path),
            format: self.format.to_owned(),
            size: self.size,
            options,
            backing_file: self.backing.map(Into::into),
            backing_format: self.backing_format.map(str::to_owned),
            backing_unsafe: self.unsafe_backing,
            exclusive: false,
            objects: platter::object::Objects::default(),
            policy: OpenPolicy::permissive(),
            storages: None,
        }
    }

    fn words(&self, path: &str) -> Vec<String> {
        let mut words = vec!["create".to_owned(), "-f".into(), self.format.into()];
        for (flag, value) in [
            ("-o", Some(self.options).filter(|list| !list.is_empty())),
            ("-b", self.backing),
            ("-F", self.backing_format),
        ] {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        if self.unsafe_backing {
            words.push("-u".into());
        }
        words.push(path.into());
        words.extend(self.size.map(|n| n.to_string()));
        words
    }
}

/// What `create` prints: standard output and standard error.
fn printed(request: CreateRequest) -> (String, String) {
    let mut job = Job::new();
    let plan = match CreatePlan::new(request, &mut job) {
        Ok(plan) => plan,
        Err(error) => return (String::new(), lines(&error)),
    };
    let summary = format!("{}\n", plan.summary());
    match plan.run(&mut job) {
        Ok(()) => (summary, String::new()),
        Err(error) => (summary, lines(&error)),
    }
}

fn lines(error: &Error) -> String {
    let mut text = format!("qemu-img: {error}\n");
    // The list of valid keys is ours.
    for hint in error
        .hints()
        .iter()
        .filter(|hint| !hint.starts_with("Valid parameters:"))
    {
        text.push_str(hint);
        text.push('\n');
    }
    text
}

/// Both create the same name, one after the other; all that they print is the same.
fn same(dir: &Dir, case: Case<'_>) {
    let path = dir.str("new");
    let _ = std::fs::remove_file(&path);
    let peer = dir.qemu_img(&case.words(&path));
    let facts = |dir: &Dir| {
        let info = dir.qemu_img(&["info", "-f", case.format, "--output=json", &path]);
        // Files of ours end with a whole cluster.
        let mut in_file = false;
        info.out
            .lines()
            .filter(|line| {
                in_file |= case.format == "qcow2" && line.contains("\"info\": {");
                let len = in_file && line.contains("\"virtual-size\"");
                in_file &= !len;
                !len && !line.contains("actual-size")
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let theirs = facts(dir);
    let left = dir.path("new").exists();
    let _ = std::fs::remove_file(&path);
    let what = case.words("new").join(" ");
    let (out, err) = printed(case.request(&path));
    assert_eq!(out, peer.out, "{what}");
    assert_eq!(err, peer.err, "{what}");
    if peer.code == 0 {
        assert!(left);
        assert_eq!(facts(dir), theirs, "{what}");
        if case.format == "qcow2" && !case.unsafe_backing {
            dir.qemu_img_ok(&["check", "-q", &path]);
        }
    } else {
        assert!(!dir.path("new").exists(), "{what} leaves a file");
    }
}

fn case<'a>(format: &'a str, options: &'a str, size: Option<u64>) -> Case<'a> {
    Case {
        format,
        options,
        size,
        ..Case::default()
    }
}

const MIB: Option<u64> = Some(1 << 20);

#[test]
fn raw_disks() {
    let dir = Dir::new();
    for (options, size) in [
        ("", MIB),
        ("", Some(0)),
        ("", Some(1000)),
        ("size=1.5k", None),
        ("preallocation=falloc", MIB),
        ("preallocation=full", MIB),
        ("preallocation=off", MIB),
        ("nocow=on,extent_size_hint=1k", MIB),
        ("nocow=yes", MIB),
        ("preallocation=bogus", MIB),
        ("preallocation=metadata", MIB),
        ("nocow=xx", MIB),
        ("", None),
        ("size=1M", MIB),
        ("size=xx", None),
        ("size=-1", None),
        ("bogus=1", MIB),
    ] {
        same(&dir, case("raw", options, size));
    }
}

#[test]
fn qcow2_options() {
    let dir = Dir::new();
    for options in [
        "",
        "compat=0.10",
        "compat=v3",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=0x40",
        "lazy_refcounts=yes",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        "nocow=on,extent_size_hint=1k,preallocation=falloc",
        // What is wrong with a value is said after the "Formatting" line.
        "cluster_size=3",
        "cluster_size=4M",
        "refcount_bits=3",
        "refcount_bits=128",
        "compat=0.10,refcount_bits=8",
        "compat=0.10,lazy_refcounts=on",
        "compat=0.10,extended_l2=on",
        "compat=0.10,compression_type=zstd",
        "compat=1.2",
        "compression_type=lzo",
        "preallocation=bogus",
        "extended_l2=on,cluster_size=4k",
        "data_file_raw=on",
        // What is wrong with a type is said before.
        "lazy_refcounts=maybe",
        "refcount_bits=x",
        "cluster_size=1kb",
        "bogus=1",
        "size=1M",
    ] {
        same(&dir, case("qcow2", options, MIB));
    }
    same(&dir, case("qcow2", "", Some(1)));
    same(&dir, case("qcow2", "", Some(0)));
    same(&dir, case("qcow2", "size=3G", None));
    same(&dir, case("qcow2", "", None));
    same(&dir, case("qcow2", "cluster_size=512", Some(1 << 40)));
}

#[test]
fn names_of_formats_and_protocols() {
    let dir = Dir::new();
    same(&dir, case("bogus", "", MIB));
    for (format, name) in [
        ("raw", "foo:y"),
        ("bogus", "foo:y"),
        ("raw", "/nonexistent/y"),
    ] {
        let case = case(format, "bogus=1", MIB);
        let case = Case {
            options: if name.starts_with('/') {
                ""
            } else {
                case.options
            },
            ..case
        };
        let peer = dir.qemu_img(&case.words(name));
        assert_eq!(printed(case.request(name)), (peer.out, peer.err), "{name}");
    }
    let root = dir.str(".");
    for format in ["raw", "qcow2"] {
        let case = case(format, "", MIB);
        let peer = dir.qemu_img(&case.words(&root));
        assert_eq!(printed(case.request(&root)), (peer.out, peer.err));
    }
}

#[test]
fn backing_files() {
    let dir = Dir::new();
    std::fs::write(dir.path("base.raw"), vec![7; 1000]).unwrap();
    let middle = dir.str("middle");
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", &middle, "3M"]);
    let broken = dir.str("broken");
    dir.qemu_img_ok(&[
        "create", "-q", "-u", "-f", "qcow2", "-b", "gone", "-F", "raw", &broken, "1M",
    ]);
    let own = dir.str("new");
    let on = |backing, backing_format, size| Case {
        format: "qcow2",
        size,
        backing: Some(backing),
        backing_format,
        ..Case::default()
    };
    for (file, format) in [
        ("base.raw", Some("raw")),
        ("middle", Some("qcow2")),
        ("middle", Some("raw")),
        ("base.raw", None),
        ("middle", None),
        ("base.raw", Some("bogus")),
        ("base.raw", Some("qcow2")),
        ("gone", Some("raw")),
        ("gone", None),
        ("broken", Some("qcow2")),
        ("", None),
        (own.as_str(), Some("raw")),
        (own.as_str(), Some("bogus")),
    ] {
        for size in [None, MIB] {
            for unsafe_backing in [false, true] {
                same(
                    &dir,
                    Case {
                        unsafe_backing,
                        ..on(file, format, size)
                    },
                );
            }
        }
    }
    let full = "preallocation=full";
    for options in [full, "preallocation=metadata,extended_l2=on", "compat=0.10"] {
        same(
            &dir,
            Case {
                options,
                ..on("base.raw", Some("raw"), MIB)
            },
        );
    }
    for (format, backing, backing_format) in [
        ("raw", Some("base.raw"), None),
        ("raw", Some("base.raw"), Some("bogus")),
        ("raw", None, Some("raw")),
        ("qcow2", None, Some("raw")),
        ("qcow2", None, Some("bogus")),
    ] {
        for size in [None, MIB] {
            same(
                &dir,
                Case {
                    format,
                    size,
                    backing,
                    backing_format,
                    ..Case::default()
                },
            );
        }
    }
    for options in [
        "backing_file=base.raw,backing_fmt=raw",
        "backing_file=base.raw",
        "backing_file=",
        "backing_fmt=raw",
    ] {
        same(&dir, case("qcow2", options, MIB));
        same(&dir, case("qcow2", options, None));
    }
}

#[test]
fn a_data_file_comes_and_goes_with_the_image() {
    let dir = Dir::new();
    let data = dir.str("data");
    let list = format!("data_file={data}");
    same(&dir, case("qcow2", &list, MIB));
    assert_eq!(std::fs::metadata(&data).unwrap().len(), 1 << 20);
    std::fs::remove_file(&data).unwrap();
    // The image cannot be made, so no file may stay; what was there before is kept, but empty.
    let list = format!("data_file={data},preallocation=full");
    let too_large = case("qcow2", &list, Some(1 << 60));
    for image_exists in [true, false] {
        let (_, err) = printed(too_large.request(&dir.str("new")));
        assert!(!err.is_empty());
        assert!(!dir.path("data").exists());
        assert_eq!(dir.path("new").exists(), image_exists);
        if image_exists {
            std::fs::remove_file(dir.path("new")).unwrap();
        }
    }
}

#[test]
fn a_failed_check_leaves_an_existing_file_alone() {
    let dir = Dir::new();
    let path = dir.str("precious");
    for (format, options) in [
        ("qcow2", "cluster_size=3"),
        ("raw", "preallocation=metadata"),
        ("qcow2", "preallocation=bogus"),
    ] {
        std::fs::write(&path, b"data").unwrap();
        let (out, err) = printed(case(format, options, MIB).request(&path));
        assert!(out.starts_with("Formatting "), "{out}");
        assert!(!err.is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }
}

#[test]
fn a_cancelled_creation_leaves_nothing() {
    let dir = Dir::new();
    let path = dir.str("new");
    let mut job = Job::new();
    let plan = CreatePlan::new(case("raw", "", MIB).request(&path), &mut job).unwrap();
    job.control().cancel();
    let error = plan.run(&mut job).unwrap_err();
    assert_eq!(error.kind(), platter::ErrorKind::Cancelled);
    assert!(!dir.path("new").exists());
}
