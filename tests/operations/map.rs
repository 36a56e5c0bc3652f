//! `map` against `qemu-img map`: the same JSON, the same table, the same error.

use crate::common;
use crate::common::Dir;
use platter::filter::registry;
use platter::image::Status;
use platter::object::Objects;
use platter::ops::map::{MapEntry, map, visit};
use platter::secret::Secret;
use platter::throttle::ThrottleLimits;
use platter::{Image, Job, Location, OpenOptions, OpenPolicy};

fn open(path: &str, format: Option<&str>) -> Image {
    let options = OpenOptions {
        format: format.map(str::to_owned),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::parse(path).unwrap(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

/// The block status of any part, asked for in any way, is what `map` says of it; and it is true.
fn agree(image: &Image, about: &str) {
    let entries = map(image, 0, None, &mut Job::new()).unwrap().entries;
    let at = |offset: u64| -> MapEntry {
        let after = entries.partition_point(|entry| entry.start <= offset);
        let entry = entries[after - 1];
        let skip = offset - entry.start;
        MapEntry {
            start: offset,
            length: entry.length - skip,
            offset: entry.offset.map(|host| host + skip),
            ..entry
        }
    };
    let same = |status: &Status, offset: u64, len: u64| {
        let expected = at(offset);
        let expected = MapEntry {
            length: expected.length.min(len),
            ..expected
        };
        assert_eq!(MapEntry::new(offset, status), expected, "{about}");
    };
    let mut end = 0;
    for entry in entries.iter().filter(|entry| entry.length > 0) {
        assert_eq!(entry.start, end, "{about}");
        end += entry.length;
        let whole = image.status(entry.start, image.len() - entry.start);
        same(&whole.unwrap(), entry.start, entry.length);
    }
    assert_eq!(end, image.len(), "{about}");
    for step in [512, 5000, 70_000, 900_000] {
        for offset in (0..image.len()).step_by(step) {
            let len = (step as u64 * 3).min(image.len() - offset);
            same(&image.status(offset, len).unwrap(), offset, len);
            let part = image.statuses().at(offset, len).unwrap();
            same(&part, offset, part.len);
        }
    }
    // Last, for what was read into the page cache is no hole any more to some file systems.
    for entry in entries.iter().filter(|entry| entry.length > 0) {
        let mut bytes = vec![1; entry.length as usize];
        let read = image.read_at(&mut bytes, entry.start);
        assert_eq!(read.is_err(), entry.unknown, "{about}: {entry:?}: {read:?}");
        assert!(!entry.zero || bytes.iter().all(|b| *b == 0), "{about}");
        assert!(entry.zero || entry.data || entry.unknown, "{about}");
        let none = (false, false, false, None);
        let flags = (entry.zero, entry.data, entry.present, entry.offset);
        assert!(!entry.unknown || flags == none, "{about}: {entry:?}");
    }
}

fn same(dir: &Dir, path: &str, format: Option<&str>) {
    let image = open(path, format);
    agree(&image, path);
    let report = map(&image, 0, None, &mut Job::new()).unwrap();
    let mut args = vec!["map"];
    if let Some(format) = format {
        args.extend(["-f", format]);
    }
    let mut json = args.clone();
    json.extend(["--output=json", path]);
    assert_eq!(report.json().unwrap(), dir.qemu_img_ok(&json), "{path}");
    args.push(path);
    let peer = dir.qemu_img(&args);
    let (text, result) = (report.text().unwrap(), report.text_end());
    assert_eq!(text, peer.out, "{path}");
    let line = result.map_or_else(|error| format!("qemu-img: {error}\n"), |()| String::new());
    assert_eq!(line, peer.err, "{path}");
}

fn qcow2(dir: &Dir, name: &str, options: &str, commands: &[&str]) -> String {
    let path = dir.str(name);
    let list = format!(
        "compat=1.1{}{options}",
        if options.is_empty() { "" } else { "," }
    );
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "-o", &list, &path, "8M"]);
    if !commands.is_empty() {
        dir.qemu_io("qcow2", &path, commands);
    }
    path
}

const WRITES: &[&str] = &[
    "write -P 1 0 256k",
    "write -P 2 700k 3k",
    "write -z 64k 64k",
    "write -z 1000k 4k",
    "write -P 3 4M 1M",
    "write -P 4 3M 1M",
];

#[test]
fn raw_data_and_holes() {
    let dir = Dir::new();
    let path = dir.str("disk");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", &path, "8M"]);
    same(&dir, &path, Some("raw"));
    dir.qemu_io("raw", &path, &["write -P 1 1M 1M", "write -P 1 5000k 1k"]);
    same(&dir, &path, Some("raw"));
    std::fs::write(dir.path("odd"), vec![7; 1000]).unwrap();
    same(&dir, &dir.str("odd"), Some("raw"));
    std::fs::write(dir.path("empty"), []).unwrap();
    same(&dir, &dir.str("empty"), Some("raw"));
}

#[test]
fn qcow2_clusters_of_every_kind() {
    let dir = Dir::new();
    for (name, options) in [
        ("default", ""),
        ("extended", "extended_l2=on"),
        ("small", "cluster_size=512"),
        ("large", "cluster_size=2M"),
        ("lazy", "lazy_refcounts=on"),
    ] {
        let path = qcow2(&dir, name, options, WRITES);
        same(&dir, &path, None);
    }
}

#[test]
fn preallocated_metadata_shows_the_holes_of_the_file() {
    let dir = Dir::new();
    for mode in ["metadata", "falloc", "full"] {
        let options = format!("preallocation={mode}");
        let path = qcow2(&dir, mode, &options, &[]);
        same(&dir, &path, None);
        dir.qemu_io("qcow2", &path, &["write -P 1 0 100k", "write -P 1 300k 4k"]);
        same(&dir, &path, None);
    }
}

#[test]
fn an_external_data_file() {
    let dir = Dir::new();
    for raw in ["off", "on"] {
        let data = dir.str(&format!("data-{raw}"));
        let options = format!("data_file={data},data_file_raw={raw}");
        let path = qcow2(&dir, &format!("top-{raw}"), &options, WRITES);
        same(&dir, &path, None);
    }
}

#[test]
fn compressed_clusters_have_no_place() {
    let dir = Dir::new();
    std::fs::write(dir.path("source"), vec![7; 300_000]).unwrap();
    for kind in ["zlib", "zstd"] {
        let path = dir.str(kind);
        let option = format!("compression_type={kind}");
        let source = dir.str("source");
        dir.qemu_img_ok(&[
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &option, &source, &path,
        ]);
        same(&dir, &path, None);
    }
}

#[test]
fn chains_with_depths() {
    let dir = Dir::new();
    let base = qcow2(&dir, "base", "", WRITES);
    let raw = dir.str("raw");
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", &raw, "1M"]);
    dir.qemu_io("raw", &raw, &["write -P 1 64k 64k"]);
    for (name, below, format, size) in [
        ("over-qcow2", base.as_str(), "qcow2", "16M"),
        ("over-raw", raw.as_str(), "raw", "4M"),
        ("shorter", base.as_str(), "qcow2", "3M"),
    ] {
        let top = dir.str(name);
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-b", below, "-F", format, &top, size,
        ]);
        same(&dir, &top, None);
        dir.qemu_io("qcow2", &top, &["write -P 9 2M 64k", "write -z 192k 64k"]);
        same(&dir, &top, None);
        let third = dir.str(&format!("{name}-3"));
        let list = "extended_l2=on";
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", list, "-b", &top, "-F", "qcow2", &third, "20M",
        ]);
        dir.qemu_io("qcow2", &third, &["write -P 9 66k 2k", "write -z 70k 2k"]);
        same(&dir, &third, None);
    }
}

#[test]
fn a_part_of_the_image() {
    let dir = Dir::new();
    let path = qcow2(&dir, "disk", "", WRITES);
    let image = open(&path, None);
    for (start, length) in [
        (100, Some(70_000)),
        (0, Some(0)),
        (3_000_000, Some(1 << 40)),
        (8 << 20, None),
        (9 << 20, Some(4)),
        (5000, None),
    ] {
        let report = map(&image, start, length, &mut Job::new()).unwrap();
        let start = start.to_string();
        let mut args = vec!["map", "--output=json", "-s", &start];
        let length = length.map(|n: u64| n.to_string());
        if let Some(length) = &length {
            args.extend(["-l", length]);
        }
        args.push(&path);
        assert_eq!(
            report.json().unwrap(),
            dir.qemu_img_ok(&args),
            "{start} {length:?}"
        );
    }
}

#[test]
fn images_whose_data_is_hard_to_find_have_one_block_status() {
    let dir = Dir::new();
    let disk = qcow2(&dir, "disk", "", WRITES);
    let raw = dir.str("raw");
    dir.qemu_img_ok(&["convert", "-O", "raw", &disk, &raw]);
    let secret = "secret,id=s,data=correct horse";
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    dir.qemu_img_ok(&[
        "convert",
        "--object",
        secret,
        "-O",
        "qcow2",
        "-o",
        luks,
        &disk,
        &dir.str("luks"),
    ]);
    dir.qemu_img_ok(&["snapshot", "-c", "one", &disk]);
    dir.qemu_io("qcow2", &disk, &["write -P 5 6M 300k", "write -z 0 64k"]);
    let mut objects = Objects::new();
    objects
        .add_secret("s", Secret::new("correct horse"))
        .unwrap();
    let options = OpenOptions {
        objects,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    for line in [
        "driver=raw,offset=64k,size=1M,file.filename=raw",
        "driver=raw,offset=4M,file.filename=raw",
        "driver=raw,file.driver=qcow2,file.file.filename=disk",
        "driver=raw,offset=512,size=3M,file.driver=qcow2,file.file.filename=disk",
        "driver=qcow2,encrypt.key-secret=s,file.filename=luks",
        "driver=qcow2,file.filename=disk",
    ] {
        let line = line.replace("filename=", &format!("filename={}/", dir.root().display()));
        let location = Location::from_image_opts(&line).unwrap();
        let mut image = Image::open(&location, &options).unwrap();
        agree(&image, &line);
        let object = ["map", "--output=json", "--object", secret, "--image-opts"];
        let peer = dir.qemu_img_ok(&[&object[..], &[&line]].concat());
        let report = map(&image, 0, None, &mut Job::new()).unwrap();
        assert_eq!(report.json().unwrap(), peer, "{line}");
        if line.ends_with("disk") && line.starts_with("driver=qcow2") {
            platter::ops::snapshot::show(&mut image, "one").unwrap();
            agree(&image, "a snapshot");
        }
    }
}

#[test]
fn what_a_closed_backing_file_may_hold_is_neither_data_nor_zero() {
    let dir = Dir::new();
    let base = qcow2(&dir, "base", "", WRITES);
    for (name, options) in [("top", ""), ("sub", "extended_l2=on")] {
        let top = dir.str(name);
        let list = format!(
            "compat=1.1{}{options}",
            if options.is_empty() { "" } else { "," }
        );
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-o", &list, "-b", &base, "-F", "qcow2", &top, "9M",
        ]);
        dir.qemu_io("qcow2", &top, &["write -P 9 66k 2k", "write -z 128k 64k"]);
        dir.qemu_img_ok(&["snapshot", "-c", "one", &top]);
        dir.qemu_io("qcow2", &top, &["write -P 9 2M 2k"]);
        for metadata_only in [false, true] {
            let options = OpenOptions {
                format: Some("qcow2".into()),
                backing: false,
                metadata_only,
                policy: OpenPolicy::permissive(),
                ..OpenOptions::default()
            };
            let mut image = Image::open(&Location::from_path(&top), &options).unwrap();
            agree(&image, name);
            let report = map(&image, 0, None, &mut Job::new()).unwrap();
            assert!(report.entries[0].unknown, "{report:?}");
            assert!(report.entries.iter().any(|entry| entry.zero));
            assert!(
                report.json().unwrap().starts_with(
                    "[{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"present\": false, \
                 \"zero\": false, \"data\": false, \"compressed\": false}"
                ) || name == "sub"
            );
            let error = report.text_end().unwrap_err();
            assert!(error.to_string().contains("backing file"), "{error}");
            platter::ops::snapshot::show(&mut image, "one").unwrap();
            agree(&image, name);
        }
    }
}

#[test]
fn no_operation_takes_what_is_unknown_for_zeroes() {
    use platter::ops::compare::compare;
    use platter::ops::convert::{ConvertRequest, convert};
    use platter::ops::measure::{MeasureSource, measure};

    let dir = Dir::new();
    let base = qcow2(&dir, "base", "", &[]);
    let top = dir.str("top");
    dir.qemu_img_ok(&[
        "create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &top,
    ]);
    let zeroes = qcow2(&dir, "zeroes", "", &[]);
    let alone = OpenOptions {
        backing: false,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::from_path(&top), &alone).unwrap();
    let refused = |error: platter::Error| {
        let all = format!("{error:?}");
        assert!(all.contains("without its backing file"), "{all}");
    };
    for strict in [false, true] {
        let zeroes = open(&zeroes, None);
        let compared = compare(&image, &zeroes, strict, &mut Job::new());
        match compared {
            Err(error) => refused(error),
            Ok(report) => assert!(strict, "{report:?}"),
        }
        refused(compare(&image, &image, strict, &mut Job::new()).unwrap_err());
    }
    let format = platter::ops::create::TargetFormat::find("qcow2").unwrap();
    let source = MeasureSource::Image(&image);
    refused(measure(source, format, &Default::default(), &mut Job::new()).unwrap_err());
    let mut request = ConvertRequest::new(
        Location::from_path(&top),
        Location::from_path(dir.path("out")),
    );
    request.source.options = alone;
    request.target.format = Some("raw".into());
    refused(convert(&request, &mut Job::new()).unwrap_err());
    assert!(!dir.path("out").exists());
}

#[test]
fn runs_without_end_come_one_by_one_or_not_at_all() {
    let dir = Dir::new();
    let path = dir.path("shared");
    common::shared_table_image(&path, 129);
    let image = open(path.to_str().unwrap(), Some("qcow2"));
    let error = map(&image, 0, None, &mut Job::new()).unwrap_err();
    assert_eq!(error.kind(), platter::ErrorKind::Limit);
    assert!(error.to_string().contains("one by one"), "{error}");
    let (mut count, mut end) = (0, 0);
    visit(&image, 0, None, &mut Job::new(), &mut |run| {
        assert_eq!((run.start, run.data), (end, count % 2 == 0));
        end += run.length;
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((count, end), (129 * 8192, image.len()));
    // A part of it fits.
    let part = map(&image, 0, Some((128 * 8192) << 16), &mut Job::new()).unwrap();
    assert_eq!(part.entries.len(), 1 << 20);
    // Who takes the runs ends the map.
    let mut left = 5;
    let stopped = visit(&image, 0, None, &mut Job::new(), &mut |_| {
        left -= 1;
        if left == 0 {
            return Err(platter::Error::cancelled());
        }
        Ok(())
    });
    assert_eq!(stopped.unwrap_err().kind(), platter::ErrorKind::Cancelled);
    assert_eq!(left, 0);
}

#[test]
fn damaged_refcounts_do_not_keep_anybody_from_mapping() {
    let dir = Dir::new();
    let path = qcow2(&dir, "disk", "", WRITES);
    let mut bytes = std::fs::read(&path).unwrap();
    // Two clusters of refcount table, the second of which is none.
    bytes[56..60].copy_from_slice(&2u32.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    same(&dir, &path, None);
}

/// Unaligns the L2 entry of a guest cluster of 4 KiB.
fn damage(path: &str, cluster: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let offset = |at: usize| (word(at) & 0x00ff_ffff_ffff_fe00) as usize;
    let table = offset(offset(40) + cluster / 512 * 8);
    bytes[table + cluster % 512 * 8 + 6] |= 2;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn all_is_told_that_stands_before_damage() {
    let dir = Dir::new();
    let commands = [
        "write -P 1 0 40k",
        "write -P 2 44k 8k",
        "write -P 3 1M 3M",
        "write -P 4 5M 1M",
    ];
    // Within a run, at its start, where a slice and where a table starts.
    for cluster in [5, 9, 11, 12, 300, 512, 513, 1279, 1280] {
        let path = dir.str("disk");
        let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096"];
        dir.qemu_img_ok(&[&create[..], &[&path, "8M"]].concat());
        dir.qemu_io("qcow2", &path, &commands);
        let good = map(&open(&path, None), 0, None, &mut Job::new()).unwrap();
        damage(&path, cluster);
        let peer = dir.qemu_img(&["map", "--output=json", &path]);
        let image = open(&path, None);
        let mut told = Vec::new();
        let ended = visit(&image, 0, None, &mut Job::new(), &mut |run| {
            told.push(*run);
            Ok(())
        });
        let error = ended.unwrap_err().to_string();
        assert!(
            error.starts_with("Could not read file metadata: "),
            "{error}"
        );
        assert!(
            peer.err.contains("Could not read file metadata"),
            "{peer:?}"
        );
        // The same runs as without the damage, to the byte where it begins.
        let at = cluster as u64 * 4096;
        let mut expected = good.entries.clone();
        expected.retain(|run| run.start < at);
        if let Some(last) = expected.last_mut() {
            last.length = last.length.min(at - last.start);
        }
        assert_eq!(told, expected, "cluster {cluster}");
        let report = platter::ops::map::MapReport {
            entries: told,
            files: Vec::new(),
        };
        let ours = report.json().unwrap();
        let theirs = peer.out.trim_end().trim_end_matches(',');
        assert!(
            ours.starts_with(theirs),
            "cluster {cluster}: {ours}\n{theirs}"
        );
        if at > 0 {
            let last = image.status(0, at).unwrap();
            assert_eq!(last.len, expected[0].length);
        }
        assert!(image.status(at, 1).is_err());
    }
}

/// A description of each filter, alone over a plain disk and over an image.
fn filtered() -> Vec<(&'static str, String)> {
    let file = |name: &str| format!(r#"{{"driver":"file","filename":"{name}"}}"#);
    let raw = |name: &str| format!(r#"{{"driver":"raw","file":{}}}"#, file(name));
    let qcow2 = |name: &str| format!(r#"{{"driver":"qcow2","file":{}}}"#, file(name));
    let mut all = vec![
        (
            "blkverify",
            format!(r#""test":{},"raw":{}"#, qcow2("a.qcow2"), file("a.raw")),
        ),
        (
            "quorum",
            format!(
                r#""vote-threshold":2,"children":[{},{},{}]"#,
                qcow2("a.qcow2"),
                raw("a.raw"),
                qcow2("top.qcow2")
            ),
        ),
        (
            "tar",
            format!(r#""member":"a.raw","file":{}"#, file("a.tar")),
        ),
        ("decompress", format!(r#""file":{}"#, file("a.raw.gz"))),
        ("compress", format!(r#""file":{}"#, qcow2("top.qcow2"))),
    ];
    for image in [raw("a.raw"), qcow2("a.qcow2"), qcow2("top.qcow2")] {
        all.extend([
            ("blkdebug", format!(r#""image":{image}"#)),
            (
                "blklogwrites",
                format!(r#""file":{image},"log":{}"#, file("log")),
            ),
            ("preallocate", format!(r#""file":{image}"#)),
            ("copy-on-read", format!(r#""file":{image}"#)),
            (
                "copy-before-write",
                format!(r#""file":{image},"target":{}"#, raw("target.raw")),
            ),
            (
                "throttle",
                format!(r#""throttle-group":"g","file":{image}"#),
            ),
        ]);
    }
    all
}

#[test]
fn each_filter_has_one_block_status() {
    let dir = Dir::new();
    let base = dir.path("a.raw");
    let mut bytes = vec![0; 1 << 20];
    bytes[64 << 10..][..100 << 10].fill(1);
    bytes[700 << 10..][..5000].fill(2);
    std::fs::write(&base, &bytes).unwrap();
    std::fs::write(dir.path("target.raw"), &bytes).unwrap();
    std::fs::write(dir.path("log"), vec![0; 4 << 20]).unwrap();
    dir.qemu_img_ok(&["convert", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let overlay = ["-b", "a.qcow2", "-F", "qcow2", "top.qcow2"];
    dir.qemu_img_ok(&[&["create", "-q", "-f", "qcow2"][..], &overlay].concat());
    dir.qemu_io("qcow2", "top.qcow2", &["write -P 1 64k 70k"]);
    let pack = "tar cf a.tar a.raw && gzip -nk a.raw";
    let packed = std::process::Command::new("sh")
        .args(["-c", pack])
        .current_dir(dir.root())
        .status();
    assert!(packed.unwrap().success());
    let mut objects = Objects::default();
    objects
        .add_throttle_group("g", ThrottleLimits::default())
        .unwrap();
    let mut left: Vec<_> = registry::drivers()
        .iter()
        .map(|driver| driver.name)
        .collect();
    for (driver, options) in filtered() {
        left.retain(|name| *name != driver);
        for outer in ["", r#""driver":"raw","file":{"#] {
            let node = format!(r#""driver":"{driver}",{options}"#);
            let node = node.replace(
                r#""filename":""#,
                &format!(r#""filename":"{}/"#, dir.str("")),
            );
            let end = if outer.is_empty() { "" } else { "}" };
            let name = format!("json:{{{outer}{node}{end}}}");
            let options = OpenOptions {
                objects: objects.clone(),
                writable: !["tar", "decompress", "quorum"].contains(&driver),
                policy: OpenPolicy::permissive(),
                ..OpenOptions::default()
            };
            let image = Image::open(&Location::parse(&name).unwrap(), &options);
            let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
            agree(&image, &name);
        }
    }
    assert!(left.is_empty(), "add a description of {left:?}");
}
