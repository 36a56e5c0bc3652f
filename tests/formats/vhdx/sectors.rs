//! The sectors of differencing images: those of the parent.

use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::storage::CacheMode;
use platter::{Error, Image, Job, Location};
use uuid::{Uuid, uuid};

use crate::common::Dir;

use super::{contents, create, open, options};

const SIZE: u64 = (3 << 20) + 4096;
const LOGICAL: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");

/// An image with data in its first and last sectors.
fn filled(dir: &Dir, name: &str, options: &str, base: Option<&str>) {
    create(dir, name, SIZE, options, base).expect("an image");
    let image = open(&dir.path(name), true).expect("it opens");
    let byte = name.len() as u8;
    image.write_at(&[byte; 700], 900).expect("a write");
    image.write_at(&[byte; 4096], SIZE - 4096).expect("a write");
    image.close().expect("a close");
}

/// The logical and the physical sector.
fn sectors(dir: &Dir, name: &str) -> (u32, u32) {
    let image = open(&dir.path(name), false).expect("it opens");
    let sectors = image.format().sectors().expect("sectors");
    (sectors.logical, sectors.physical)
}

fn refused(error: &Error) {
    let text = std::iter::once(error.to_string())
        .chain(error.hints().iter().cloned())
        .collect::<Vec<_>>()
        .join("\n");
    assert!(text.contains("logical sectors of 4096 bytes"), "{text}");
    assert!(text.contains("such of 512"), "{text}");
}

fn onto(dir: &Dir, name_only: bool) -> Result<(), Error> {
    let request = RebaseRequest {
        location: Location::from_path(dir.path("over.vhdx")),
        options: options(false),
        backing: Some("large.vhdx".into()),
        backing_format: Some("vhdx".to_owned()),
        backing_cache: CacheMode::Writeback,
        share_backing: false,
        name_only,
        compress: false,
    };
    rebase(&request, &mut Job::new())
}

#[test]
fn a_child_has_the_sectors_of_its_parent_unless_others_are_asked_for() {
    let dir = Dir::new();
    let table = [
        ("", "", (512, 512)),
        ("physical_sector_size=4096", "", (512, 4096)),
        ("logical_sector_size=4096", "", (4096, 4096)),
        (
            "logical_sector_size=4096,physical_sector_size=512",
            "",
            (4096, 512),
        ),
        (
            "logical_sector_size=4096",
            "logical_sector_size=4096,physical_sector_size=512",
            (4096, 512),
        ),
    ];
    for (of_base, of_child, expected) in table {
        filled(&dir, "base.vhdx", of_base, None);
        filled(&dir, "child.vhdx", of_child, Some("base.vhdx"));
        assert_eq!(sectors(&dir, "child.vhdx"), expected, "{of_base}");
        // The size may be another one than that of the parent.
        create(&dir, "odd.vhdx", 512, of_child, Some("base.vhdx")).expect("a child");
        let image = open(&dir.path("odd.vhdx"), false).expect("it opens");
        assert_eq!(image.len(), u64::from(expected.0), "{of_base}");
        let shown = contents(&open(&dir.path("child.vhdx"), false).expect("it opens"));
        assert_eq!(shown[900..1600], [10; 700], "{of_base}");
    }
}

#[test]
fn other_logical_sectors_than_those_of_the_parent_are_refused() {
    let dir = Dir::new();
    filled(&dir, "large.vhdx", "logical_sector_size=4096", None);
    let small = "logical_sector_size=512";
    let error = create(&dir, "new.vhdx", SIZE, small, Some("large.vhdx")).expect_err("a refusal");
    refused(&error);
    assert!(!dir.path("new.vhdx").exists());

    filled(&dir, "base.vhdx", "", None);
    filled(&dir, "over.vhdx", "", Some("base.vhdx"));
    let before = std::fs::read(dir.path("over.vhdx")).expect("a file");
    for name_only in [false, true] {
        refused(&onto(&dir, name_only).expect_err("a refusal"));
        let after = std::fs::read(dir.path("over.vhdx")).expect("a file");
        assert!(after == before, "{name_only}");
    }
}

/// Another program may have written such a chain.
#[test]
fn a_chain_of_different_logical_sectors_is_not_opened() {
    let dir = Dir::new();
    filled(&dir, "large.vhdx", "logical_sector_size=4096", None);
    create(&dir, "over.vhdx", SIZE, "", Some("large.vhdx")).expect("a child");
    let mut file = std::fs::read(dir.path("over.vhdx")).expect("a file");
    let id = LOGICAL.to_bytes_le();
    let found = file.windows(16).position(|bytes| bytes == id);
    let entry = found.expect("the item of the logical sector");
    let region = entry - entry % (1 << 20);
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("a number"));
    let item = region + number(entry + 16) as usize;
    assert_eq!(number(item), 4096);
    file[item..item + 4].copy_from_slice(&512_u32.to_le_bytes());
    std::fs::write(dir.path("over.vhdx"), file).expect("another sector");
    let error = open(&dir.path("over.vhdx"), false).expect_err("a refusal");
    refused(&error);
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

fn conversion(dir: &Dir, source: &str, target: &str) -> ConvertRequest {
    let source = Location::from_path(dir.path(source));
    let mut request = ConvertRequest::new(source, Location::from_path(dir.path(target)));
    request.source.options = options(false);
    request.target.format = Some("vhdx".to_owned());
    request.target.policy = options(false).policy;
    request
}

#[test]
fn converted_layers_have_the_sectors_of_those_below_them() {
    let dir = Dir::new();
    filled(&dir, "large.vhdx", "logical_sector_size=4096", None);
    filled(&dir, "top.vhdx", "", Some("large.vhdx"));
    let shown = |image: Result<Image, Error>| contents(&image.expect("it opens"));
    let model = shown(open(&dir.path("top.vhdx"), false));

    let mut request = conversion(&dir, "top.vhdx", "new.vhdx");
    request.target.backing_file = Some("large.vhdx".into());
    request.target.backing_format = Some("vhdx".to_owned());
    convert(&request, &mut Job::new()).expect("a conversion over a base");
    assert_eq!(sectors(&dir, "new.vhdx"), (4096, 4096));
    assert!(shown(open(&dir.path("new.vhdx"), false)) == model);

    for (asked, expected) in [("", 512), ("4096", 4096)] {
        let out = format!("out{asked}");
        let mut request = conversion(&dir, "top.vhdx", &out);
        request.target.whole_chain = true;
        if !asked.is_empty() {
            request.target.options.set("logical_sector_size", asked);
        }
        convert(&request, &mut Job::new()).expect("a conversion of a chain");
        for name in ["large.vhdx", "top.vhdx"] {
            let layer = format!("{out}/{name}");
            assert_eq!(sectors(&dir, &layer), (expected, expected), "{layer}");
        }
        let top = open(&dir.path(&out).join("top.vhdx"), false);
        assert!(shown(top) == model, "{asked}");
    }
}
