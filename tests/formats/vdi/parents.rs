//! Parents that are known by their UUID alone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use platter::policy::{ImplicitAnswer, ImplicitFiles, ImplicitRole};
use platter::{Error, ErrorKind, Image, Location, OpenOptions};

use super::{DISCARDED, FREE, Made, chain, open_child, options, read};
use crate::common::Dir;

/// Puts bytes into a file.
fn patch(path: &Path, at: usize, value: &[u8]) {
    let mut bytes = fs::read(path).expect("the image");
    bytes[at..at + value.len()].copy_from_slice(value);
    fs::write(path, bytes).expect("the image");
}

/// Writes an image of four blocks with the UUID `id`, over that with the UUID `parent`.
fn write(path: &Path, (id, parent): (u8, u8), map: &[u32]) {
    let made = Made {
        image_type: if parent == 0 { 1 } else { 4 },
        ..Made::new(map)
    };
    fs::write(path, made.bytes()).expect("an image");
    patch(path, 0x188, &[id; 16]);
    patch(path, 0x1a8, &[parent; 16]);
}

fn open_with(path: &Path, implicit_files: ImplicitFiles) -> Result<Image, Error> {
    let mut options = options(false);
    options.policy.implicit_files = implicit_files;
    Image::open(&Location::from_path(path), &options)
}

fn open(path: &Path) -> Result<Image, Error> {
    open_with(path, ImplicitFiles::Allow)
}

/// The machine of a product: a disk with two snapshots.
fn machine() -> Dir {
    let dir = Dir::new();
    fs::create_dir(dir.path("Snapshots")).expect("a directory");
    write(&dir.path("disk.vdi"), (1, 0), &[0, 1, 2, FREE]);
    write(&dir.path("Snapshots/a.vdi"), (2, 1), &[0, FREE, FREE, FREE]);
    write(
        &dir.path("Snapshots/b.vdi"),
        (3, 2),
        &[FREE, DISCARDED, FREE, FREE],
    );
    dir
}

/// How many images are open.
fn depth(image: &Image) -> usize {
    std::iter::successors(Some(image), |image| image.backing().map(AsRef::as_ref)).count()
}

fn check_machine(image: &Image) {
    let bytes = read(image);
    let firsts: Vec<u8> = bytes.iter().step_by(4096).copied().collect();
    assert_eq!(firsts, [1, 0, 3, 0]);
    assert_eq!(depth(image), 3);
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
}

#[test]
fn a_parent_that_was_changed_is_a_warning_and_another_image_is_refused() {
    let (dir, _) = chain();
    patch(&dir.path("parent.vdi"), 0x198, &[7]);
    for changed in [open_child(&dir, false), open(&dir.path("child.vdi"))] {
        let changed = changed.expect("it opens");
        assert_eq!(changed.warnings().len(), 1, "{:?}", changed.warnings());
        assert!(changed.warnings()[0].contains("was changed since"));
    }
    patch(&dir.path("parent.vdi"), 0x188, &[7]);
    let error = open_child(&dir, false).expect_err("a refusal");
    assert!(
        error
            .to_string()
            .contains("is not the parent that was recorded"),
        "{error}"
    );
}

#[test]
fn chains_are_found_as_the_product_lays_them_out() {
    let dir = machine();
    check_machine(&open(&dir.path("Snapshots/b.vdi")).expect("the chain"));
    // All in one directory, beside other files.
    let flat = Dir::new();
    for name in ["disk.vdi", "Snapshots/a.vdi", "Snapshots/b.vdi"] {
        let path = dir.path(name);
        fs::copy(
            &path,
            flat.path(path.file_name().unwrap().to_str().unwrap()),
        )
        .expect("a copy");
    }
    fs::write(flat.path("notes"), b"short").expect("a file");
    fs::create_dir(flat.path("disk.d")).expect("a directory");
    check_machine(&open(&flat.path("b.vdi")).expect("the chain"));
    // The last one beside the first.
    fs::rename(dir.path("Snapshots/b.vdi"), dir.path("b.vdi")).expect("a move");
    check_machine(&open(&dir.path("b.vdi")).expect("the chain"));
    // Alone, it opens for its metadata.
    let metadata = OpenOptions {
        metadata_only: true,
        ..options(false)
    };
    let alone = Image::open(&Location::from_path(dir.path("b.vdi")), &metadata);
    assert_eq!(depth(&alone.expect("it alone")), 1);
}

#[test]
fn a_commit_finds_the_parent_as_well() {
    let dir = machine();
    let image = open(&dir.path("Snapshots/b.vdi")).expect("the chain");
    let below = image
        .open_backing_writable(&options(false))
        .expect("the parent");
    assert!(below.filename().ends_with(b"a.vdi"));
}

#[test]
fn a_parent_that_is_not_there_is_told_with_the_places_and_the_remedy() {
    let dir = machine();
    fs::remove_file(dir.path("disk.vdi")).expect("a removal");
    // Neither a link nor what is no file is looked into.
    symlink("/dev/zero", dir.path("zero")).expect("a link");
    write(&dir.path("Snapshots/c"), (1, 0), &[FREE; 4]);
    fs::rename(dir.path("Snapshots/c"), dir.path("c")).expect("a move");
    fs::create_dir(dir.path("other")).expect("a directory");
    fs::rename(dir.path("c"), dir.path("other/c")).expect("a move");
    symlink("other/c", dir.path("c")).expect("a link");
    let fifo = std::process::Command::new("mkfifo")
        .arg(dir.path("pipe"))
        .status();
    assert!(fifo.expect("a pipe").success());
    let error = open(&dir.path("Snapshots/a.vdi")).expect_err("no parent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    let places = [
        format!("'{}'", dir.str("Snapshots")),
        format!("'{}'", dir.str("Snapshots/..")),
    ];
    for part in [
        "Could not open",
        "01010101-0101-0101-0101-010101010101",
        &places[0],
        &places[1],
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!error.hints().is_empty());
}

#[test]
fn two_files_that_could_be_the_parent_are_both_named() {
    let dir = machine();
    fs::hard_link(dir.path("disk.vdi"), dir.path("same.vdi")).expect("a link");
    check_machine(&open(&dir.path("Snapshots/b.vdi")).expect("one file with two names"));
    fs::copy(dir.path("disk.vdi"), dir.path("Snapshots/copy.vdi")).expect("a copy");
    let error = open(&dir.path("Snapshots/a.vdi")).expect_err("two parents");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("Snapshots/copy.vdi"), "{text}");
    assert!(text.contains("../disk.vdi") || text.contains("../same.vdi"));
    assert!(!error.hints().is_empty());
}

#[test]
fn no_more_files_are_looked_at_than_a_machine_has() {
    let dir = machine();
    let path = dir.path("Snapshots/a.vdi");
    fs::write(dir.path("file"), b"").expect("a file");
    for n in 0..10_000 {
        fs::hard_link(dir.path("file"), dir.path(&format!("Snapshots/{n}"))).expect("a file");
    }
    let error = open(&path).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(!error.hints().is_empty());
}

#[test]
fn a_parent_is_looked_for_where_the_policy_allows_it() {
    let dir = machine();
    let child = dir.path("Snapshots/a.vdi");
    let denied = open_with(&child, ImplicitFiles::Deny).expect_err("denied");
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let below = |path: &str| ImplicitFiles::Below(vec![dir.path(path)]);
    open_with(&child, below("")).expect("all of the machine is allowed");
    let error = open_with(&child, below("Snapshots")).expect_err("the parent is outside");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("does not allow"), "{error}");
    // The parent of the other one is within.
    fs::rename(dir.path("disk.vdi"), dir.path("Snapshots/disk.vdi")).expect("a move");
    open_with(&child, below("Snapshots")).expect("it is within");
}

#[test]
fn a_caller_is_asked_for_the_uuid_and_then_for_the_file() {
    let dir = machine();
    let child = dir.path("Snapshots/a.vdi");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let ask = |give: bool| {
        let (asked, parent) = (asked.clone(), dir.path("disk.vdi"));
        ImplicitFiles::Ask(Arc::new(move |file| {
            assert_eq!(file.role, ImplicitRole::ParentLocator);
            asked.lock().unwrap().push(file.name.to_string());
            Ok(match give {
                true => ImplicitAnswer::Fd(fs::File::open(&parent).unwrap().into()),
                false => ImplicitAnswer::Open,
            })
        }))
    };
    let uuid = "{01010101-0101-0101-0101-010101010101}";
    let image = open_with(&child, ask(false)).expect("the chain");
    let names = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(names, [uuid, "../disk.vdi"]);
    let given = open_with(&child, ask(true)).expect("the chain");
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(read(&given), read(&image));
    // What is given must be what is meant.
    patch(&dir.path("disk.vdi"), 0x188, &[9]);
    let error = open_with(&child, ask(true)).expect_err("another image");
    assert!(error.to_string().contains("is not the parent"), "{error}");
}
