//! Parents are known by their content IDs, which change with the contents.

use platter::format::ParentId;
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::storage::CacheMode;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Options};

use super::{contents, open};
use crate::common::Dir;

fn cid(image: &Image) -> ParentId {
    image.format().parent_id().expect("a content ID")
}

fn create(dir: &Dir, name: &str, options: &str, backing: Option<&str>) {
    let request = CreateRequest {
        location: Location::from_path(dir.path(name)),
        format: "vmdk".to_owned(),
        size: backing.is_none().then_some(1 << 20),
        options: match options {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        },
        backing_file: backing.map(Into::into),
        backing_format: backing.map(|_| "vmdk".to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: Default::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)
        .and_then(|plan| plan.run(&mut job))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn write(dir: &Dir, name: &str, byte: u8, offset: u64, len: usize) {
    let image = open(dir, name, true).expect("it opens");
    image.write_at(&vec![byte; len], offset).expect("a write");
    image.close().expect("an end");
}

#[test]
fn the_content_id_changes_with_the_first_write_and_once() {
    let dir = Dir::new();
    for (n, options) in [
        "",
        "subformat=monolithicFlat",
        "subformat=twoGbMaxExtentSparse",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{n}.vmdk");
        create(&dir, &name, options, None);
        let before = cid(&open(&dir, &name, false).expect("it opens"));
        let image = open(&dir, &name, true).expect("it opens");
        assert_eq!(cid(&image), before);
        image.write_at(&[1], 5).expect("a write");
        let after = cid(&image);
        assert_ne!(after, before);
        image.write_at(&[1], 70_000).expect("a write");
        image.close().expect("an end");
        assert_eq!(cid(&open(&dir, &name, false).expect("it opens")), after);
    }
}

#[test]
fn a_parent_that_was_changed_is_refused() {
    let dir = Dir::new();
    create(&dir, "base.vmdk", "", None);
    create(&dir, "over.vmdk", "", Some("base.vmdk"));
    open(&dir, "over.vmdk", false).expect("the chain is whole");
    write(&dir, "base.vmdk", 1, 0, 10);
    let error = open(&dir, "over.vmdk", false).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("was changed since"), "{error}");
}

#[test]
fn qemu_reads_a_chain_that_was_made_and_written_here() {
    let dir = Dir::new();
    create(&dir, "base.vmdk", "", None);
    write(&dir, "base.vmdk", 1, 0, 1 << 20);
    create(&dir, "over.vmdk", "zeroed_grain=on", Some("base.vmdk"));
    create(
        &dir,
        "top.vmdk",
        "subformat=twoGbMaxExtentSparse",
        Some("over.vmdk"),
    );
    let over = open(&dir, "over.vmdk", true).expect("it opens");
    over.write_at(&[2; 5000], 100_000).expect("a write");
    over.write_zeroes(
        65536 * 3 - 7,
        65536 * 2 + 20,
        platter::storage::ZeroFlags::empty(),
    )
    .expect("zeroes");
    over.close().expect("an end");
    // The overlay has changed: its own overlay is made again.
    create(
        &dir,
        "top.vmdk",
        "subformat=twoGbMaxExtentSparse",
        Some("over.vmdk"),
    );
    write(&dir, "top.vmdk", 3, 1_000_000, 2000);
    let mut guest = vec![1; 1 << 20];
    guest[100_000..105_000].fill(2);
    guest[65536 * 3 - 7..65536 * 5 + 13].fill(0);
    guest[1_000_000..1_002_000].fill(3);
    assert!(contents(&open(&dir, "top.vmdk", false).expect("it opens")) == guest);
    dir.qemu_img_ok(&["convert", "-O", "raw", "top.vmdk", "top.raw"]);
    assert!(std::fs::read(dir.path("top.raw")).expect("bytes") == guest);
}

#[test]
fn a_commit_leaves_a_chain_that_is_whole() {
    let dir = Dir::new();
    for keep in [false, true] {
        create(&dir, "base.vmdk", "", None);
        write(&dir, "base.vmdk", 1, 0, 300_000);
        create(&dir, "over.vmdk", "", Some("base.vmdk"));
        write(&dir, "over.vmdk", 2, 200_000, 200_000);
        let guest = contents(&open(&dir, "over.vmdk", false).expect("it opens"));
        let request = CommitRequest {
            location: Location::from_path(dir.path("over.vmdk")),
            options: OpenOptions {
                policy: OpenPolicy::permissive(),
                ..OpenOptions::default()
            },
            base: None,
            keep,
        };
        commit(&request, &mut Job::new()).expect("a commit");
        for name in ["base.vmdk", "over.vmdk"] {
            let image = open(&dir, name, false).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(contents(&image) == guest, "{name}");
        }
        dir.qemu_img_ok(&["compare", "base.vmdk", "over.vmdk"]);
    }
}

#[test]
fn a_rebase_records_the_new_parent() {
    let dir = Dir::new();
    for name in ["one.vmdk", "two.vmdk"] {
        create(&dir, name, "", None);
    }
    write(&dir, "one.vmdk", 1, 0, 500_000);
    write(&dir, "two.vmdk", 9, 100_000, 700_000);
    create(&dir, "over.vmdk", "", Some("one.vmdk"));
    write(&dir, "over.vmdk", 5, 50, 70_000);
    let guest = contents(&open(&dir, "over.vmdk", false).expect("it opens"));
    let mut request = RebaseRequest {
        location: Location::from_path(dir.path("over.vmdk")),
        options: OpenOptions {
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        },
        backing: Some("two.vmdk".into()),
        backing_format: Some("vmdk".to_owned()),
        backing_cache: CacheMode::Writeback,
        share_backing: false,
        name_only: false,
        compress: false,
    };
    rebase(&request, &mut Job::new()).expect("a rebase");
    assert!(contents(&open(&dir, "over.vmdk", false).expect("it opens")) == guest);
    dir.qemu_img_ok(&["convert", "-O", "raw", "over.vmdk", "o.raw"]);
    assert!(std::fs::read(dir.path("o.raw")).expect("bytes") == guest);
    // By name alone, the file that is there now counts.
    write(&dir, "two.vmdk", 9, 100_000, 1);
    open(&dir, "over.vmdk", false).expect_err("the parent was changed");
    request.name_only = true;
    rebase(&request, &mut Job::new()).expect("a rebase");
    assert!(contents(&open(&dir, "over.vmdk", false).expect("it opens")) == guest);
    request.backing = None;
    request.backing_format = None;
    request.name_only = false;
    rebase(&request, &mut Job::new()).expect("a rebase");
    let image = open(&dir, "over.vmdk", false).expect("it opens");
    assert!(image.backing_file().is_none() && contents(&image) == guest);
}

/// Another program may put the descriptor behind the grains, where the header can say it as well.
#[test]
fn a_commit_keeps_a_descriptor_that_stands_behind_the_grains() {
    let dir = Dir::new();
    create(&dir, "base.vmdk", "", None);
    write(&dir, "base.vmdk", 1, 0, 300_000);
    create(&dir, "over.vmdk", "", Some("base.vmdk"));
    write(&dir, "over.vmdk", 2, 200_000, 200_000);
    let path = dir.path("over.vmdk");
    let mut bytes = std::fs::read(&path).expect("an image");
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a number"));
    let (first, count) = (number(28) as usize * 512, number(36) as usize * 512);
    let descriptor = bytes[first..first + count].to_vec();
    bytes[first..first + count].fill(0);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let moved = bytes.len() as u64 / 512;
    bytes[28..36].copy_from_slice(&moved.to_le_bytes());
    bytes.extend(descriptor);
    std::fs::write(&path, &bytes).expect("an image");
    let guest = contents(&open(&dir, "over.vmdk", false).expect("it opens"));
    let request = CommitRequest {
        location: Location::from_path(&path),
        options: OpenOptions {
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        },
        base: None,
        keep: false,
    };
    commit(&request, &mut Job::new()).expect("a commit");
    for name in ["base.vmdk", "over.vmdk"] {
        let image = open(&dir, name, false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(contents(&image) == guest, "{name}");
    }
}
