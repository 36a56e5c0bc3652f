//! Differencing images and their parents.

use std::path::Path;
use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Gate, Gated, GatedStorage};
use platter::storage::{CacheMode, NamedStorages, Preallocation, Storage, StorageOpen, ZeroFlags};
use platter::{Error, Image, Job, Location, OpenOptions};

use crate::common::Dir;
use crate::random::Random;

use super::{contents, contents_by_peer, create, open, options};

const SIZE: u64 = 5 << 20;

/// A chain of three with random data in each; what its top shows.
fn chain(dir: &Dir) -> Vec<u8> {
    let mut model = vec![0; SIZE as usize];
    let mut random = Random(0x5eed);
    let mut below = None;
    for name in ["base.vhdx", "mid.vhdx", "top.vhdx"] {
        create(dir, name, SIZE, "block_size=1M", below).expect("an image");
        let image = open(&dir.path(name), true).expect("it opens");
        for _ in 0..12 {
            let at = random.below(SIZE as usize - 40_000);
            let bytes = vec![random.next() as u8 | 1; 1 + random.below(40_000)];
            image.write_at(&bytes, at as u64).expect("a write");
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let at = random.below(4 << 20);
        image
            .write_zeroes(at as u64, 70_000, ZeroFlags::empty())
            .expect("zeroes");
        model[at..at + 70_000].fill(0);
        image.close().expect("a close");
        below = Some(name);
    }
    model
}

fn shown(dir: &Dir, name: &str) -> Vec<u8> {
    contents(&open(&dir.path(name), false).expect("it opens"))
}

#[test]
fn a_chain_shows_what_its_layers_hold_and_flattens() {
    let dir = Dir::new();
    let model = chain(&dir);
    assert!(shown(&dir, "top.vhdx") == model);
    let source = Location::from_path(dir.path("top.vhdx"));
    let mut request = ConvertRequest::new(source, Location::from_path(dir.path("flat.vhdx")));
    request.source.options = options(false);
    request.target.format = Some("vhdx".to_owned());
    request.target.policy = options(false).policy;
    convert(&request, &mut Job::new()).expect("a conversion");
    assert!(contents_by_peer(&dir, "flat.vhdx") == model);
}

/// A conversion into an overlay stores what differs, sectors that are zero included.
#[test]
fn a_conversion_over_a_base_stores_zeroes_that_hide_data() {
    let dir = Dir::new();
    let model = chain(&dir);
    let source = Location::from_path(dir.path("top.vhdx"));
    let mut request = ConvertRequest::new(source, Location::from_path(dir.path("new.vhdx")));
    request.source.options = options(false);
    request.target.format = Some("vhdx".to_owned());
    request.target.options.set("block_size", "4M");
    request.target.backing_file = Some("base.vhdx".into());
    request.target.backing_format = Some("vhdx".to_owned());
    request.target.policy = options(false).policy;
    convert(&request, &mut Job::new()).expect("a conversion");
    assert!(shown(&dir, "new.vhdx") == model);
}

#[test]
fn a_parent_that_was_written_to_is_refused() {
    let dir = Dir::new();
    chain(&dir);
    let image = open(&dir.path("mid.vhdx"), true).expect("it opens");
    image.write_at(&[1; 512], 0).expect("a write");
    image.close().expect("a close");
    let error = open(&dir.path("top.vhdx"), false).expect_err("a refusal");
    assert!(error.to_string().contains("data write GUID"), "{error}");
    // Whoever knows better says so.
    let mut request = rebase_of(&dir, "top.vhdx", "mid.vhdx");
    request.name_only = true;
    rebase(&request, &mut Job::new()).expect("a new name");
    open(&dir.path("top.vhdx"), false).expect("it opens");
}

/// Rebases onto another image, or none.
fn onto(dir: &Dir, base: Option<&str>, name_only: bool) -> Result<(), platter::Error> {
    let request = RebaseRequest {
        backing: base.map(Into::into),
        backing_format: base.map(|_| "vhdx".to_owned()),
        name_only,
        ..rebase_of(dir, "top.vhdx", "")
    };
    rebase(&request, &mut Job::new())
}

#[test]
fn an_image_loses_its_parent_and_gets_another_one() {
    let dir = Dir::new();
    let model = chain(&dir);
    let shows = |what: &str| {
        let image = open(&dir.path("top.vhdx"), true).expect("it opens");
        assert!(contents(&image) == model, "{what}");
        let checker = image.format().checker().expect("a check");
        let report = checker.check(RepairMode::Report, &mut Job::new());
        assert_eq!(report.expect("a check").corruptions, 0, "{what}");
        image.backing().is_some()
    };
    onto(&dir, None, false).expect("no parent");
    assert!(!shows("without a parent"));
    assert!(contents_by_peer(&dir, "top.vhdx") == model);
    dir.qemu_img_ok(&["check", "-f", "vhdx", "top.vhdx"]);
    onto(&dir, None, false).expect("nothing to do");
    onto(&dir, Some("base.vhdx"), false).expect("a parent");
    assert!(shows("over a parent"));
    onto(&dir, Some("mid.vhdx"), false).expect("another parent");
    assert!(shows("over another parent"));
    let image = open(&dir.path("top.vhdx"), true).expect("it opens");
    image
        .format()
        .backing_change()
        .expect("it has a parent")
        .make_empty()
        .expect("an empty image");
    image.write_at(&[7; 5000], 3_000_000).expect("a write");
    image.close().expect("a close");
    // The name alone: what the parent showed is gone, and what stands in it no more.
    onto(&dir, None, true).expect("no parent");
    let mut alone = vec![0; SIZE as usize];
    alone[3_000_000..3_005_000].fill(7);
    let shown = contents_by_peer(&dir, "top.vhdx");
    let sectors = 3_000_000 / 512 * 512..(3_005_000_usize).next_multiple_of(512);
    assert!(shown[..sectors.start].iter().all(|byte| *byte == 0));
    assert!(shown[sectors.end..].iter().all(|byte| *byte == 0));
    assert!(shown[3_000_000..3_005_000] == alone[3_000_000..3_005_000]);
    onto(&dir, Some("base.vhdx"), true).expect("the name of a parent");
    assert!(
        open(&dir.path("top.vhdx"), false)
            .expect("it opens")
            .backing()
            .is_some()
    );
}

#[test]
fn a_fixed_image_gets_no_parent() {
    let dir = Dir::new();
    create(&dir, "base.vhdx", SIZE, "block_size=1M", None).expect("an image");
    create(&dir, "top.vhdx", SIZE, "subformat=fixed", None).expect("an image");
    let error = onto(&dir, Some("base.vhdx"), true).expect_err("a refusal");
    let hints = error.hints();
    assert!(hints.iter().any(|hint| hint.contains("fixed")), "{hints:?}");
    open(&dir.path("top.vhdx"), true).expect("it opens");
}

fn rebase_of(dir: &Dir, name: &str, base: &str) -> RebaseRequest {
    RebaseRequest {
        location: Location::from_path(dir.path(name)),
        options: options(false),
        backing: Some(base.into()),
        backing_format: Some("vhdx".to_owned()),
        backing_cache: CacheMode::Writeback,
        share_backing: false,
        name_only: false,
        compress: false,
    }
}

/// Another name or identity of its own parent is nothing that a layer above would see.
#[test]
fn a_layer_in_between_gets_another_parent_and_stays_known() {
    let dir = Dir::new();
    let model = chain(&dir);
    std::fs::rename(dir.path("base.vhdx"), dir.path("moved.vhdx")).expect("another name");
    let mut request = rebase_of(&dir, "mid.vhdx", "moved.vhdx");
    request.name_only = true;
    rebase(&request, &mut Job::new()).expect("a new name");
    assert!(shown(&dir, "top.vhdx") == model);
}

#[test]
fn a_commit_leaves_an_overlay_that_opens_and_shows_the_same() {
    let dir = Dir::new();
    let model = chain(&dir);
    let request = CommitRequest {
        location: Location::from_path(dir.path("top.vhdx")),
        options: options(false),
        base: None,
        keep: false,
    };
    commit(&request, &mut Job::new()).expect("a commit");
    assert!(shown(&dir, "mid.vhdx") == model);
    assert!(shown(&dir, "top.vhdx") == model);
    let image = open(&dir.path("top.vhdx"), true).expect("it opens");
    image.write_at(&[3; 700], 100).expect("a write");
    let mut model = model;
    model[100..800].fill(3);
    assert!(contents(&image) == model);
    image.close().expect("a close");
    assert!(shown(&dir, "top.vhdx") == model);
}

#[test]
fn a_rebase_keeps_what_is_shown_and_finds_the_new_parent() {
    let dir = Dir::new();
    let model = chain(&dir);
    let request = rebase_of(&dir, "top.vhdx", "base.vhdx");
    rebase(&request, &mut Job::new()).expect("a rebase");
    std::fs::remove_file(dir.path("mid.vhdx")).expect("a file");
    assert!(shown(&dir, "top.vhdx") == model);
    let image: Image = open(&dir.path("top.vhdx"), false).expect("it opens");
    let base = image.backing().expect("a parent");
    assert!(base.backing().is_none());
}

#[test]
fn what_a_larger_overlay_has_beyond_its_parent_is_zero() {
    let dir = Dir::new();
    create(&dir, "base.vhdx", 2 << 20, "block_size=1M", None).expect("an image");
    let image = open(&dir.path("base.vhdx"), true).expect("it opens");
    image.write_at(&[9; 2 << 20], 0).expect("a write");
    image.close().expect("a close");
    let short = (1 << 20) + 512;
    create(&dir, "over.vhdx", short, "block_size=1M", Some("base.vhdx")).expect("an image");
    let image = open(&dir.path("over.vhdx"), true).expect("it opens");
    image
        .resize((5 << 20) + 512, Preallocation::Off)
        .expect("a larger size");
    image.write_at(&[4; 512], 5 << 20).expect("a write");
    image.close().expect("a close");
    let mut model = vec![0; (5 << 20) + 512];
    model[..short as usize].fill(9);
    model[5 << 20..].fill(4);
    assert!(shown(&dir, "over.vhdx") == model);
}

#[test]
fn what_cannot_be_a_parent_is_refused_before_anything_is_made() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    create(&dir, "a.vhdx", SIZE, "subformat=fixed", Some("a.vhdx")).expect_err("no such parent");
    create(&dir, "base.vhdx", SIZE, "", None).expect("an image");
    let error = create(
        &dir,
        "over.vhdx",
        SIZE,
        "subformat=fixed",
        Some("base.vhdx"),
    )
    .expect_err("a refusal");
    assert!(error.to_string().contains("A fixed VHDX cannot"), "{error}");
    let error = create(
        &dir,
        "over.vhdx",
        SIZE,
        "backing_file=a.raw,backing_fmt=raw",
        None,
    )
    .expect_err("a refusal");
    assert!(error.to_string().contains("has to be a VHDX"), "{error}");
    assert!(!dir.path("over.vhdx").exists());
}

/// The overlay, whatever it is called.
#[derive(Debug)]
struct Top(Arc<dyn Storage>);

impl NamedStorages for Top {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>, Error>> {
        name.ends_with("top.vhdx").then(|| Ok(self.0.clone()))
    }
}

/// A flush takes its time where the table is large. A block that gets its place meanwhile may be in the table
/// that is written, and what its bitmap said before is not true any more.
#[test]
fn a_table_is_written_with_the_bitmaps_of_all_blocks_that_it_names() {
    const BLOCK: u64 = 1 << 20;
    // What a page of the table has entries for.
    const PAGE: u64 = 512 * BLOCK;
    const LAST: u64 = 299 * PAGE + 8 * BLOCK;
    let dir = Dir::new();
    create(&dir, "base.vhdx", 300 * PAGE, "block_size=1M", None).expect("a base");
    let base = open(&dir.path("base.vhdx"), true).expect("it opens");
    base.write_at(&vec![7; BLOCK as usize], LAST).expect("data");
    base.close().expect("a close");
    create(
        &dir,
        "top.vhdx",
        300 * PAGE,
        "block_size=1M",
        Some("base.vhdx"),
    )
    .expect("an overlay");
    let image = open(&dir.path("top.vhdx"), true).expect("it opens");
    image.write_at(&[1; 65536], LAST).expect("a part");
    image.flush().expect("a flush");
    let change = image.format().backing_change().expect("a parent");
    change.make_empty().expect("nothing is left");
    image.close().expect("a close");
    let file = std::fs::read(dir.path("top.vhdx")).expect("the overlay");
    let memory = Arc::new(MemoryStorage::with_bytes("top", file));
    let gate = Arc::new(Gate::default());
    let gated = GatedStorage::new(memory.clone(), gate.clone(), Gated::Writes);
    let storages: Arc<dyn NamedStorages> = Arc::new(Top(Arc::new(gated)));
    let image = Image::open(
        &Location::from_path(dir.path("top.vhdx")),
        &OpenOptions {
            storages: Some(storages),
            ..options(true)
        },
    )
    .expect("it opens");
    for page in 0..300 {
        image
            .write_zeroes(page * PAGE, BLOCK, ZeroFlags::empty())
            .expect("zeroes");
    }
    // The room that was given up is taken: the next block goes to the end of the file.
    image.write_at(&[2; 512], 4 * BLOCK).expect("a write");
    gate.close();
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| image.flush());
        while gate.waiting() == 0 {
            std::thread::yield_now();
        }
        // Zeroes in a new block at the end of the file need no write.
        let end = LAST + BLOCK - 512;
        image
            .write_zeroes(end, 512, ZeroFlags::empty())
            .expect("zeroes");
        gate.open();
        flush.join().expect("no panic").expect("the flush");
    });
    std::fs::write(dir.path("top.vhdx"), memory.to_vec()).expect("a crash");
    let image = open(&dir.path("top.vhdx"), true).expect("it opens again");
    let mut found = vec![0; BLOCK as usize - 512];
    image.read_at(&mut found, LAST).expect("a read");
    assert!(found.iter().all(|byte| *byte == 7), "{:?}", &found[..16]);
}
