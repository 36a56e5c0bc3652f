//! Filters that act on reading, against `qemu-io`.

use crate::common::Dir;
use platter::{Image, Location, OpenOptions, OpenPolicy};

fn images(dir: &Dir) {
    for line in [
        "create -q -f raw base.raw 1M",
        "create -q -f qcow2 -b base.raw -F raw ours.qcow2 2M",
    ] {
        dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    }
    dir.qemu_io(
        "raw",
        "base.raw",
        &["write -P 1 0 200k", "write -P 3 700k 10k"],
    );
    dir.qemu_io("qcow2", "ours.qcow2", &["write -P 2 128k 64k"]);
    std::fs::copy(dir.path("ours.qcow2"), dir.path("theirs.qcow2")).unwrap();
}

fn options_of(image: &str) -> String {
    format!("driver=copy-on-read,file.driver=qcow2,file.file.filename={image}")
}

fn open(dir: &Dir, image: &str, writable: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(&options_of(&dir.str(image)))?;
    Image::open(&location, &options)
}

#[test]
fn what_is_read_through_copy_on_read_is_kept_where_qemu_keeps_it() {
    const READS: [(u64, usize); 5] = [
        (3 << 10, 4 << 10),
        (100 << 10, 200 << 10),
        (640 << 10, 100 << 10),
        (1000 << 10, 100 << 10),
        (0, 64 << 10),
    ];
    let dir = Dir::new();
    images(&dir);
    let ours = open(&dir, "ours.qcow2", true).unwrap();
    let mut got = Vec::new();
    let commands = READS.map(|(offset, len)| format!("read {offset} {len}"));
    for (offset, len) in READS {
        let mut bytes = vec![0xee; len];
        ours.read_at(&mut bytes, offset).unwrap();
        got.push(bytes);
    }
    ours.close().unwrap();
    let mut args = vec![
        "--image-opts".to_owned(),
        options_of(&dir.str("theirs.qcow2")),
    ];
    args.extend(
        commands
            .into_iter()
            .flat_map(|command| ["-c".to_owned(), command]),
    );
    let ran = crate::common::run_in(dir.root(), "qemu-io", &args);
    assert_eq!(ran.code, 0, "{ran:?}");
    let flags = |image: &str| {
        let map = dir.qemu_img_ok(&["map", "--output=json", &dir.str(image)]);
        // Where in the file is the allocator's matter.
        let lines = map
            .lines()
            .map(|line| match line.split_once(", \"offset\"") {
                Some((flags, _)) => flags.to_owned(),
                None => line.trim_end_matches(['}', ',', ']']).to_owned(),
            });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(flags("ours.qcow2"), flags("theirs.qcow2"));
    dir.qemu_img_ok(&["check", "-q", &dir.str("ours.qcow2")]);
    dir.qemu_img_ok(&[
        "compare",
        "-q",
        &dir.str("ours.qcow2"),
        &dir.str("theirs.qcow2"),
    ]);
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let plain = Image::open(&Location::from_path(dir.path("theirs.qcow2")), &options).unwrap();
    for ((offset, len), got) in READS.into_iter().zip(got) {
        let mut bytes = vec![0; len];
        plain.read_at(&mut bytes, offset).unwrap();
        assert!(bytes == got, "at {offset}");
    }
}

#[test]
fn nothing_below_the_bottom_is_copied() {
    let dir = Dir::new();
    images(&dir);
    for line in [
        "create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw middle.qcow2 2M",
        "create -q -f qcow2 -b middle.qcow2 -F qcow2 o.qcow2 2M",
        "create -q -f qcow2 -b middle.qcow2 -F qcow2 t.qcow2 2M",
    ] {
        dir.qemu_img_ok(&line.split(' ').collect::<Vec<_>>());
    }
    dir.qemu_io(
        "qcow2",
        "middle.qcow2",
        &["write -P 5 20k 4k", "write -P 6 300k 100k"],
    );
    let reads = [(0, 8 << 10), (100 << 10, 300 << 10), (500 << 10, 300 << 10)];
    for bottom in ["middle", "top"] {
        let options = |image: &str| {
            let middle = dir.str("middle.qcow2");
            format!(
                "driver=copy-on-read,bottom={bottom},file.driver=qcow2,file.node-name=top,\
                 file.file.driver=file,file.file.filename={},file.backing.driver=qcow2,\
                 file.backing.node-name=middle,file.backing.file.driver=file,\
                 file.backing.file.filename={middle}",
                dir.str(image)
            )
        };
        let location = Location::from_image_opts(&options("o.qcow2")).unwrap();
        let how = OpenOptions {
            writable: true,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let held = |image: &str| {
            let map = dir.qemu_img_ok(&["map", "--output=json", &dir.str(image)]);
            let map: serde_json::Value = serde_json::from_str(&map).unwrap();
            let runs = map.as_array().unwrap().iter();
            let place = |run: &serde_json::Value| {
                (
                    run["start"].clone(),
                    run["depth"].clone(),
                    run["zero"].clone(),
                )
            };
            runs.map(place).collect::<Vec<_>>()
        };
        let before = held("o.qcow2");
        let image = Image::open(&location, &how).unwrap();
        let mut args = vec!["--image-opts".to_owned(), options("t.qcow2")];
        for (offset, len) in reads {
            image.read_at(&mut vec![0; len], offset).unwrap();
            args.extend(["-c".to_owned(), format!("read {offset} {len}")]);
        }
        image.close().unwrap();
        if bottom == "top" {
            // Theirs copies all of it then, against its own documentation.
            assert_eq!(held("o.qcow2"), before);
            continue;
        }
        let ran = crate::common::run_in(dir.root(), "qemu-io", &args);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_ne!(held("o.qcow2"), before);
        assert_eq!(held("o.qcow2"), held("t.qcow2"));
    }
}

#[test]
fn copies_and_writes_of_many_threads_lose_no_write() {
    let dir = Dir::new();
    images(&dir);
    let image = open(&dir, "ours.qcow2", true).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let image = &image;
            scope.spawn(move || {
                for round in 0..64u64 {
                    let offset = (round * 4 + thread) * 4096;
                    image.write_at(&[9; 4096], offset).unwrap();
                    let mut bytes = [0; 8192];
                    image.read_at(&mut bytes, offset ^ 0x10_000).unwrap();
                }
            });
        }
    });
    let mut bytes = vec![0; 1 << 20];
    image.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 9));
    image.close().unwrap();
    dir.qemu_img_ok(&["check", "-q", &dir.str("ours.qcow2")]);
}

#[test]
fn copy_on_read_needs_an_image_that_may_be_written() {
    let dir = Dir::new();
    images(&dir);
    let error = open(&dir, "ours.qcow2", false).unwrap_err();
    assert_eq!(error.kind(), platter::ErrorKind::ReadOnly);
    assert!(
        error.to_string().ends_with("Block node is read-only"),
        "{error}"
    );
}

#[test]
fn what_is_brought_near_through_copy_on_read_is_kept() {
    let dir = Dir::new();
    images(&dir);
    let image = open(&dir, "ours.qcow2", true).unwrap();
    let control = platter::job::JobControl::default();
    image.prefetch(0, 256 << 10, &control).unwrap();
    image.close().unwrap();
    let map = dir.qemu_img_ok(&["map", "--output=json", &dir.str("ours.qcow2")]);
    let below = map.lines().find(|line| line.contains("\"depth\": 1,"));
    assert!(
        below.is_some_and(|line| line.contains("{ \"start\": 262144,")),
        "{map}"
    );
}
