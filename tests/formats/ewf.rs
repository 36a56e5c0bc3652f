//! What is odd about EWF images: several segments, and digests of the whole disk.

use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::check::check;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::inspect::inspect;
use platter::storage::memory::MemoryStorage;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy};

use crate::common::Dir;
use crate::kit::given::{self, GIVEN};
use crate::kit::shelf::contents;
use crate::products::unpack;

/// The two segments of a disk with a file system, written by libewf.
const SEGMENTS: [&str; 2] = ["ext2.split.E01", "ext2.split.E02"];

fn trusting() -> OpenOptions {
    OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn unpacked() -> Dir {
    let dir = Dir::new();
    for name in SEGMENTS {
        unpack(&dir, name);
    }
    dir
}

fn checked(image: &Image) -> i32 {
    let outcome = check(image, RepairMode::Report, &mut Job::new()).expect("a check");
    outcome.exit_code()
}

#[test]
fn the_segments_of_an_image_are_found_beside_the_first() {
    let dir = unpacked();
    let location = Location::from_path(dir.path(SEGMENTS[0]));
    let image = Image::open(&location, &trusting()).expect("both segments");
    assert_eq!((image.format_name(), image.len()), ("ewf", 4 << 20));
    assert_eq!(checked(&image), 0);
    let mut request = ConvertRequest::new(location, Location::from_path(dir.path("disk.raw")));
    request.source.options = trusting();
    request.target.format = Some("raw".to_owned());
    convert(&request, &mut Job::new()).expect("a conversion");
    let disk = std::fs::read(dir.path("disk.raw")).expect("a disk");
    // The mark of the file system that the name promises.
    assert_eq!(disk[1080..1082], [0x53, 0xef]);
    // The same disk from a VMDK of the same collection.
    unpack(&dir, "ext2.vmdk");
    let other = Image::open(&Location::from_path(dir.path("ext2.vmdk")), &trusting());
    let other = other.expect("the other image");
    assert!(contents(&other).expect("it is read") == disk);
}

#[test]
fn a_segment_is_opened_where_the_policy_allows_it_and_named_where_it_is_missing() {
    let dir = unpacked();
    let location = Location::from_path(dir.path(SEGMENTS[0]));
    let error = Image::open(&location, &OpenOptions::default()).expect_err("no further files");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let report = inspect(&location, &OpenOptions::default()).expect("a report");
    let names: Vec<_> = report
        .references
        .iter()
        .map(|found| found.name_text())
        .collect();
    assert_eq!(names, [SEGMENTS[1]]);
    let described = format!(
        "driver=ewf,file.filename={},extents.0.driver=file,extents.0.filename={}",
        dir.str(SEGMENTS[0]),
        dir.str("elsewhere")
    );
    std::fs::rename(dir.path(SEGMENTS[1]), dir.path("elsewhere")).expect("a rename");
    let described = Location::from_image_opts(&described).expect("a description");
    let image = Image::open(&described, &OpenOptions::default()).expect("it is described");
    assert_eq!(checked(&image), 0);
    let error = Image::open(&location, &trusting()).expect_err("it is not there");
    assert!(error.to_string().contains(SEGMENTS[1]), "{error}");
    // One that is another's.
    std::fs::copy(dir.path(SEGMENTS[0]), dir.path(SEGMENTS[1])).expect("a copy");
    let error = Image::open(&location, &trusting()).expect_err("it is the first one again");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // And a later one is no image by itself.
    let later = Location::from_path(dir.path("elsewhere"));
    let error = Image::open(&later, &trusting()).expect_err("it is the second one");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

fn in_memory(bytes: Vec<u8>) -> Image {
    let options = OpenOptions {
        format: Some("ewf".to_owned()),
        ..trusting()
    };
    Image::open_storage(
        Arc::new(MemoryStorage::with_bytes("image", bytes)),
        &options,
    )
    .expect("it opens")
}

#[test]
fn checking_compares_every_chunk_and_the_digests() {
    for given in GIVEN.iter().filter(|given| given.format == "ewf") {
        assert_eq!(checked(&in_memory(given.make().1)), 0, "{}", given.name);
    }
    let whole = given::by_name("ewf").make().1;
    let mut damaged = whole.clone();
    damaged[8000] ^= 1;
    assert_eq!(checked(&in_memory(damaged)), 2);
    // The digest alone: it is at the end, before the last section.
    let mut damaged = whole.clone();
    let at = whole.len() - 76 - 80;
    damaged[at] ^= 1;
    let sum = libdeflater::adler32(&damaged[at..at + 76]);
    damaged[at + 76..at + 80].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(checked(&in_memory(damaged)), 2);
}
