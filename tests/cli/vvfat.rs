//! Directories as disks with a FAT file system, against QEMU's tool and the readers of others.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{Dir, Ran, run_in};
use crate::pair::{Pair, ours, words};

/// Where the volume of a hard disk begins.
const PARTITION: u64 = 63 * 512;

fn small_directory() -> Pair {
    let pair = Pair::new();
    pair.directory("d/sub");
    pair.file("d/hello.txt", b"hello\n");
    pair.file("d/A long file name.text", b"long\n");
    pair.file("d/sub/x", b"x");
    pair
}

fn run(line: &str, dir: &Dir) -> Ran {
    ours(&words(line), dir.root())
}

#[track_caller]
fn ran(line: &str, dir: &Dir) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

/// A program of the system's administration, wherever that is.
fn tool(dir: &Dir, program: &str, args: &[&str]) -> Ran {
    let places = ["/usr/sbin/", "/sbin/", "/usr/bin/"].map(|place| format!("{place}{program}"));
    let mut places = places.iter();
    let found = places.find(|path| Path::new(path).exists());
    let program = found.unwrap_or_else(|| panic!("{program} must be installed (ci/setup.sh)"));
    run_in(dir.root(), program, args)
}

/// The volume of a disk in a file of its own, for programs that look at nothing else.
fn volume(dir: &Dir, disk: &str, start: u64) -> String {
    let name = format!("{disk}.volume");
    let skip = format!("skip={}", start / 512);
    let (from, to) = (format!("if={disk}"), format!("of={name}"));
    let args = [&from, &to, "bs=512", &skip, "conv=sparse", "status=none"];
    let ran = run_in(dir.root(), "dd", &args);
    assert_eq!(ran.code, 0, "{ran:?}");
    name
}

/// `fsck.fat` finds nothing wrong, and the type and number of files that are expected.
#[track_caller]
fn check_volume(dir: &Dir, volume: &str, fat: &str) {
    let ran = tool(dir, "fsck.fat", &["-n", "-v", volume]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains(&format!("{fat} bit entries")) || fat.is_empty(),
        "{ran:?}"
    );
    for bad in ["Dirty", "wrong", "differ", "invalid", "Bad", "truncat"] {
        assert!(!ran.out.contains(bad), "{ran:?}");
    }
}

/// All files below a directory, by their names from there, with their contents.
fn contents(root: &Path) -> std::collections::BTreeMap<String, Option<Vec<u8>>> {
    let mut all = std::collections::BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if path.is_dir() {
                all.insert(name, None);
                pending.push(path);
            } else {
                all.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// What mtools copy out of a volume is what stands in the directory.
#[track_caller]
fn same_by_mtools(dir: &Dir, disk: &str, start: u64, directory: &str) {
    let out = dir.path("copied");
    std::fs::create_dir(&out).unwrap();
    let image = format!("{disk}@@{start}");
    let names: Vec<_> = std::fs::read_dir(dir.path(directory)).unwrap().collect();
    if !names.is_empty() {
        let args = ["-s", "-m", "-n", "-i", &image, "::*", "copied"];
        let ran = std::process::Command::new("mcopy")
            .args(args)
            .current_dir(dir.root())
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("mtools must be installed (ci/setup.sh)");
        assert!(ran.status.success(), "{ran:?}");
    }
    let (copied, there) = (contents(&out), contents(&dir.path(directory)));
    let names =
        |all: &std::collections::BTreeMap<String, _>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&copied), names(&there));
    assert!(copied == there, "contents differ");
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn names_and_reports_are_those_of_qemu() {
    let pair = small_directory();
    let mut lines = Vec::new();
    for name in [
        "fat:d",
        "fat:floppy:d",
        "fat:floppy:12:d",
        "fat:12:floppy:d",
        "fat:floppy:16:d",
        "fat:12:d",
        "fat:16:d",
        "fat:odd:d",
        "fat:FLOPPY:d",
        "fat:d/sub",
    ] {
        for command in [
            "info",
            "info --output=json",
            "info -f raw",
            "info -f vvfat",
            "info -U",
        ] {
            lines.push(format!("{command} {name}"));
        }
        lines.push(format!("check {name}"));
        lines.push(format!("snapshot -l {name}"));
    }
    for options in [
        "driver=vvfat,dir=d",
        "driver=vvfat,dir=d,label=ABC",
        "driver=vvfat,dir=d,label=,fat-type=12",
        "driver=vvfat,dir=d,floppy=on,fat-type=16",
        "driver=raw,file.driver=vvfat,file.dir=d,file.label=AB",
        "driver=raw,file.driver=vvfat,file.dir=d,file.floppy=on,file.rw=off",
    ] {
        lines.push(format!("info --image-opts {options}"));
        lines.push(format!("info --output=json --image-opts {options}"));
    }
    for tree in [
        "{'driver':'vvfat','dir':'d','fat-type':16}",
        "{'driver':'vvfat','rw':false,'label':'X','floppy':true,'dir':'d','fat-type':16}",
        "{'driver':'raw','size':512,'file':{'driver':'vvfat','rw':false,'label':'X','dir':'d'}}",
    ] {
        lines.push(format!("info json:{tree}"));
    }
    lines.push("create -f qcow2 -b fat:d -F raw o.qcow2".to_owned());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    pair.all_same(&lines);
}

#[test]
fn what_describes_no_disk_is_refused_as_by_qemu() {
    let pair = small_directory();
    pair.all_same(&[
        "info --image-opts driver=vvfat",
        "info --image-opts driver=vvfat,dir=d,fat-type=13",
        "info --image-opts driver=vvfat,dir=d,fat-type=x",
        "info --image-opts driver=vvfat,dir=d,foo=x",
        "info --image-opts driver=vvfat,dir=d,label=ABCDEFGHIJKL",
        "info json:{'driver':'vvfat','dir':'d','filename':'x'}",
        "info -f vvfat d",
        "info -f qcow2 fat:d",
        "info fat:rw:d",
        "info --image-opts driver=vvfat,dir=d,rw=on",
        "create -f vvfat x 1M",
        "resize -f raw fat:d 1G",
        "convert -n -O raw fat:12:d fat:d",
    ]);
    // These say why as well.
    for name in ["fat:", "fat:/nonexistent", "fat:d/hello.txt"] {
        let line = format!("info {name}");
        let (theirs, ran) = (
            pair.theirs().qemu_img(&words(&line)),
            run(&line, pair.ours()),
        );
        assert_eq!(ran.code, theirs.code);
        let text = theirs.err.trim_end();
        assert!(
            ran.err.starts_with(text) && ran.err.len() > text.len(),
            "{ran:?}"
        );
    }
    // QEMU shows disks with these that no system reads.
    for line in [
        "info fat:floppy:32:d",
        "info --image-opts driver=vvfat,dir=d,label=a/b",
        "create fat:d 1M",
        "create -f raw fat:rw:d 1M",
    ] {
        let ran = run(line, pair.ours());
        assert_eq!(
            (ran.code, ran.err.lines().count()),
            (1, 1),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn readers_of_fat_find_every_file_on_disks_of_every_type() {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("d/sub/deeper/still")).unwrap();
    let file = |name: &str, content: &[u8]| std::fs::write(dir.path(name), content).unwrap();
    let large: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
    for (n, name) in [
        "UPPER.TXT",
        "lower.txt",
        "Mixed.Txt",
        "no extension at all",
        ".hidden",
        "a+b,c;d=[e].f",
        "many.dots.in.it",
        "ünïcode.txt",
        "日本語.データ",
        "longlonglong1.txt",
        "longlonglong2.txt",
        "12345678.123",
        "123456789.123",
        "sub/deeper/still/here",
    ]
    .into_iter()
    .enumerate()
    {
        file(&format!("d/{name}"), &large[..n * n * 700]);
    }
    file(&format!("d/{}", "x".repeat(255)), b"longest");
    for n in 0..300 {
        file(&format!("d/sub/a file with a long name {n}"), b"");
    }
    for (name, start, fat) in [
        ("fat:d", PARTITION, "16"),
        ("fat:12:d", PARTITION, "12"),
        ("fat:32:d", PARTITION, "32"),
        ("fat:floppy:d", 0, "12"),
        ("fat:floppy:12:d", 0, "12"),
        ("fat:floppy:16:d", 0, "16"),
    ] {
        let made = ran(&format!("convert -O raw {name} disk.raw"), &dir);
        assert_eq!(made.err, "", "{name}");
        let volume = volume(&dir, "disk.raw", start);
        check_volume(&dir, &volume, fat);
        same_by_mtools(&dir, "disk.raw", start, "d");
        let info = tool(&dir, "minfo", &["-i", &volume]);
        assert!(info.out.contains("disk label=\"QEMU VVFAT \""), "{info:?}");
        // Once more: the same bytes.
        ran(&format!("compare -f raw {name} disk.raw"), &dir);
    }
}

#[test]
fn a_root_with_many_files_and_an_empty_one_are_read() {
    let dir = Dir::new();
    for name in ["many", "empty"] {
        std::fs::create_dir(dir.path(name)).unwrap();
    }
    for n in 0..2000 {
        std::fs::write(dir.path(&format!("many/f{n}")), n.to_string()).unwrap();
    }
    for (options, start) in [
        ("fat-type=16", PARTITION),
        ("fat-type=32", PARTITION),
        ("floppy=on", 0),
    ] {
        for name in ["many", "empty"] {
            let line = format!(
                "convert --image-opts driver=vvfat,dir={name},label=,{options} -O raw disk.raw"
            );
            ran(&line, &dir);
            check_volume(&dir, &volume(&dir, "disk.raw", start), "");
            same_by_mtools(&dir, "disk.raw", start, name);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_fat32_grows() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("d")).unwrap();
    let file = std::fs::File::create(dir.path("d/a")).unwrap();
    file.set_len(600 << 20).unwrap();
    for name in ["fat:d", "fat:12:d", "fat:floppy:d", "fat:floppy:12:d"] {
        let theirs = dir.qemu_img(&["info", name]);
        let ran = run(&format!("info {name}"), &dir);
        assert_eq!(ran.code, 1);
        assert_eq!(ran.err.lines().next(), theirs.err.lines().next(), "{name}");
    }
    ran("convert -O raw fat:32:d disk.raw", &dir);
    check_volume(&dir, &volume(&dir, "disk.raw", PARTITION), "32");
    file.set_len(4 << 30).unwrap();
    let refused = run("info fat:32:d", &dir);
    assert!(
        refused.err.contains("'d/a' has 4 GiB or more"),
        "{refused:?}"
    );
    file.set_len((4 << 30) - 1).unwrap();
    let size = |name: &str| ran(&format!("info {name}"), &dir).out;
    assert!(
        size("fat:32:d").contains("virtual size: 4.5"),
        "{}",
        size("fat:32:d")
    );
}

#[test]
fn what_the_disk_cannot_show_is_left_out_and_named() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("d")).unwrap();
    std::fs::write(dir.path("secret"), "outside").unwrap();
    std::fs::write(dir.path("d/kept"), "inside").unwrap();
    std::os::unix::fs::symlink("../secret", dir.path("d/link")).unwrap();
    let one = ran("convert -O raw fat:floppy:d disk.raw", &dir);
    assert!(
        one.err
            .contains("'d/link' is left out of the disk: it is a symbolic link"),
        "{one:?}"
    );
    std::os::unix::fs::symlink(".", dir.path("d/loop")).unwrap();
    assert_eq!(run_in(dir.root(), "mkfifo", &["d/fifo"]).code, 0);
    std::fs::write(dir.path("d/a:b"), "").unwrap();
    std::fs::write(dir.path("d/KEPT"), "").unwrap();
    std::os::unix::net::UnixListener::bind(dir.path("d/socket")).unwrap();
    let many = ran("convert -O raw fat:floppy:d disk.raw", &dir);
    assert!(
        many.err
            .contains("6 files are left out of the disk, the first of them 'd/a:b'"),
        "{many:?}"
    );
    let listed = tool(&dir, "mdir", &["-b", "-i", "disk.raw", "::"]);
    assert_eq!(listed.out.trim(), "::/KEPT");
    // A directory that is itself reached by a link is one that the user named.
    std::os::unix::fs::symlink("d", dir.path("named")).unwrap();
    ran("info fat:named", &dir);
}

#[test]
fn no_command_writes_over_a_file_that_the_disk_shows() {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("d/sub")).unwrap();
    std::fs::write(dir.path("d/sub/file"), "contents").unwrap();
    let refused = run("convert -O raw fat:d d/sub/file", &dir);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(std::fs::read(dir.path("d/sub/file")).unwrap(), b"contents");
    std::fs::set_permissions(dir.path("d/sub/file"), PermissionsExt::from_mode(0o444)).unwrap();
    ran("convert -O raw fat:d disk.raw", &dir);
    let listed = tool(&dir, "mattrib", &["-i", "disk.raw@@32256", "::sub/file"]);
    assert!(
        listed.out.trim_start().starts_with("A") && listed.out.contains('R'),
        "{listed:?}"
    );
}

#[test]
fn maps_know_what_is_empty_and_no_place() {
    let pair = small_directory();
    let text = pair.same("map fat:d");
    assert_eq!(text.code, 1);
    let json = ran("map --output=json fat:d", pair.ours()).out;
    let runs: serde_json::Value = serde_json::from_str(&json).unwrap();
    let runs = runs.as_array().unwrap();
    let data: u64 = runs
        .iter()
        .filter(|run| run["data"] == true)
        .map(|run| run["length"].as_u64().unwrap())
        .sum();
    assert!(data < 64 << 10, "{json}");
    assert!(runs.iter().all(|run| run.get("offset").is_none()), "{json}");
}

/// Runs an mtools program on the volume of a disk.
#[track_caller]
fn mtool(dir: &Dir, program: &str, image: &str, args: &[&str]) {
    let ran = std::process::Command::new(program)
        .args(["-i", image])
        .args(args)
        .current_dir(dir.root())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("mtools must be installed (ci/setup.sh)");
    assert!(ran.status.success(), "{program} {args:?}: {ran:?}");
}

#[test]
fn what_mtools_change_on_the_disk_reaches_the_directory() {
    for (name, start) in [
        ("16:", PARTITION),
        ("12:", PARTITION),
        ("32:", PARTITION),
        ("floppy:", 0),
    ] {
        let dir = Dir::new();
        std::fs::create_dir_all(dir.path("d/sub/inner")).unwrap();
        let file = |name: &str, content: &[u8]| std::fs::write(dir.path(name), content).unwrap();
        file("d/kept.txt", b"kept");
        file("d/a name to change", &[7; 20_000]);
        file("d/gone", b"gone");
        file("d/replaced", b"old contents");
        file("d/sub/inner/deep", b"deep");
        file("new", &[9; 30_000]);
        std::fs::set_permissions(dir.path("d/replaced"), PermissionsExt::from_mode(0o640)).unwrap();
        let inode =
            |name: &str| std::os::unix::fs::MetadataExt::ino(&dir.path(name).metadata().unwrap());
        let (kept, changed) = (inode("d/kept.txt"), inode("d/a name to change"));
        ran(&format!("convert -O raw fat:{name}d disk.raw"), &dir);
        let image = format!("disk.raw@@{start}");
        mtool(&dir, "mdel", &image, &["::gone"]);
        mtool(
            &dir,
            "mren",
            &image,
            &["::a name to change", "::änderung.text"],
        );
        mtool(&dir, "mcopy", &image, &["-o", "new", "::replaced"]);
        mtool(&dir, "mmd", &image, &["::made"]);
        mtool(&dir, "mcopy", &image, &["new", "::made/a new file.bin"]);
        mtool(&dir, "mdeltree", &image, &["::sub/inner"]);
        let line = format!("convert -n -O raw disk.raw fat:{name}rw:d");
        let done = ran(&line, &dir);
        assert_eq!((&*done.out, &*done.err), ("", ""), "{name}");
        same_by_mtools(&dir, "disk.raw", start, "d");
        let names: Vec<_> = contents(&dir.path("d")).into_keys().collect();
        let wanted = [
            "kept.txt",
            "made",
            "made/a new file.bin",
            "replaced",
            "sub",
            "änderung.text",
        ];
        assert_eq!(names, wanted);
        assert_eq!(
            (inode("d/kept.txt"), inode("d/änderung.text")),
            (kept, changed)
        );
        let mode = dir
            .path("d/replaced")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        // Once more: nothing is to be done, and nothing is.
        let before = inode("d/replaced");
        ran(&line, &dir);
        assert_eq!(inode("d/replaced"), before);
    }
}

#[test]
fn a_damaged_file_system_leaves_the_directory_as_it_was() {
    let pair = small_directory();
    let dir = pair.ours();
    ran("convert -O raw fat:floppy:d good.raw", dir);
    let there = contents(&dir.path("d"));
    let good = std::fs::read(dir.path("good.raw")).unwrap();
    let root = 19 * 512;
    let entry = |name: &[u8]| good.windows(11).position(|w| w == name).unwrap();
    let hello = entry(b"HELLO   TXT");
    assert!(hello > root);
    // Table, boot sector, clusters of another file, a name that leads outside.
    let changes: [(usize, &[u8], &str); 5] = [
        (512, &[0; 512], "is not consistent"),
        (13, &[0], "is not consistent"),
        (
            hello + 26,
            &good[entry(b"SUB        ") + 26..][..2],
            "belongs to something else",
        ),
        (hello + 28, &[0xff; 4], "longer than its clusters"),
        (hello, b"../../X TXT", "the host can have none of that name"),
    ];
    for (at, bytes, text) in changes {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(dir.path("bad.raw"), bad).unwrap();
        let refused = run("convert -n -O raw bad.raw fat:floppy:rw:d", dir);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains(text), "{text}: {refused:?}");
        assert_eq!(contents(&dir.path("d")), there, "{text}");
    }
    // A conversion that fails carries over nothing of what it wrote.
    std::fs::create_dir(dir.path("other")).unwrap();
    std::fs::write(dir.path("other/large"), vec![1; 2 << 20]).unwrap();
    ran("convert -O raw fat:floppy:other other.raw", dir);
    let options = "driver=raw,file.driver=blkdebug,file.image.filename=other.raw,\
                   file.inject-error.0.event=none,file.inject-error.0.iotype=read,\
                   file.inject-error.0.sector=4000";
    let line = format!("convert -n --image-opts {options} -O raw fat:floppy:rw:d");
    let failed = run(&line, dir);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!(contents(&dir.path("d")), there);
}

#[test]
fn an_overlay_stands_on_a_directory_and_is_not_committed_into_it() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("d")).unwrap();
    std::fs::write(dir.path("d/old"), "old").unwrap();
    std::fs::create_dir(dir.path("other")).unwrap();
    std::fs::write(dir.path("other/new"), "new").unwrap();
    ran("create -q -f qcow2 -b fat:floppy:d -F raw over.qcow2", &dir);
    ran("convert -O raw fat:floppy:other other.raw", &dir);
    ran("convert -n -f raw -O qcow2 other.raw over.qcow2", &dir);
    // The disk is read-only without `rw`.
    let refused = run("commit over.qcow2", &dir);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(dir.path("d/old").exists());
    ran("convert -O raw over.qcow2 flat.raw", &dir);
    ran("compare -f raw -F raw flat.raw other.raw", &dir);
}
