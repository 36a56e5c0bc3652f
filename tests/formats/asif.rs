//! What is odd about ASIF images: whatever is not known of them is refused, wherever it stands.

use std::ops::Range;

use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::inspect::{InspectReport, inspect};
use platter::ops::map::map;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Result};

use crate::common::Dir;
use crate::kit::given;

const CHUNK: usize = 1 << 20;
/// Where the entry of the bitmap of the first group is: the table is in the first chunk behind the header.
const BITMAP: usize = CHUNK + 2048 * 8;

struct Made {
    dir: Dir,
    bytes: Vec<u8>,
}

impl Made {
    fn new(name: &str) -> Self {
        let (_, bytes) = given::by_name(name).make();
        let dir = Dir::new();
        std::fs::write(dir.path("image"), &bytes).expect("an image");
        Self { dir, bytes }
    }

    /// The image with that byte at that place.
    fn with(&self, at: usize, byte: u8) -> &Self {
        let mut bytes = self.bytes.clone();
        bytes[at] = byte;
        std::fs::write(self.dir.path("image"), bytes).expect("an image");
        self
    }

    fn location(&self) -> Location {
        Location::from_path(self.dir.path("image"))
    }

    fn open(&self) -> Result<Image> {
        Image::open(&self.location(), &trusting())
    }

    fn converted(&self) -> Result<()> {
        let target = Location::from_path(self.dir.path("out"));
        let mut request = ConvertRequest::new(self.location(), target);
        request.source.options = trusting();
        request.target.format = Some("raw".to_owned());
        convert(&request, &mut Job::new()).map(drop)
    }

    fn mapped(&self) -> Result<()> {
        map(&self.open()?, 0, None, &mut Job::new()).map(drop)
    }

    fn inspected(&self) -> InspectReport {
        inspect(&self.location(), &OpenOptions::default()).expect("a report")
    }
}

fn trusting() -> OpenOptions {
    OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

/// What an inspection objects to.
fn objections(report: &InspectReport) -> Vec<&'static str> {
    let verdicts = report.requirements.iter();
    let bad = verdicts.filter(|found| !found.verdict.is_good());
    bad.map(|found| found.requirement.id()).collect()
}

#[test]
fn a_header_with_a_value_that_is_not_known_is_refused() {
    let made = Made::new("asif");
    made.converted().expect("nothing is wrong with it");
    // 16 bytes of no known meaning, three words of flags, and what is behind the last field.
    let unknown: [Range<usize>; 5] = [80..96, 96..100, 100..104, 104..108, 108..512];
    for range in unknown {
        for at in [range.start, range.end - 1] {
            let wrong = made.with(at, 1);
            let error = wrong.open().expect_err("a refusal");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{at}: {error}");
            let text = error.to_string();
            let named = text.contains(&format!("(0x01 at byte {at})"));
            assert!(named && text.lines().count() == 1, "{at}: {text}");
            assert!(wrong.converted().is_err(), "{at}");
            assert!(
                objections(&wrong.inspected()).contains(&"known-features"),
                "{at}"
            );
        }
    }
    // Where Apple's metadata is: within the disk, and behind what that can become.
    for at in [79, 73] {
        let wrong = made.with(at, 1);
        let error = wrong.open().expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {error}");
        assert!(
            objections(&wrong.inspected()).contains(&"header-consistent"),
            "{at}"
        );
    }
    // The identity may be any, and the metadata may be behind the disk.
    for at in (32..48).chain([78]) {
        let right = made.with(at, 0xa5);
        right
            .converted()
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(
            !objections(&right.inspected()).contains(&"known-features"),
            "{at}"
        );
    }
}

#[test]
fn an_entry_of_a_bitmap_that_is_not_known_is_refused_where_it_is_read() {
    let made = Made::new("asif of sectors");
    made.converted().expect("nothing is wrong with it");
    made.mapped().expect("nothing is wrong with it");
    // A status that was never seen, bits that are not known, and none at all.
    for (at, byte) in [
        (BITMAP, 0x80),
        (BITMAP, 0xc0),
        (BITMAP, 0x20),
        (BITMAP + 1, 0x80),
        (BITMAP + 7, 0),
    ] {
        let wrong = made.with(at, byte);
        // What is said of the whole image is in its header.
        let image = wrong.open().expect("the header is right");
        let mut bytes = vec![0; 4096];
        let error = image.read_at(&mut bytes, 0).expect_err("a refusal");
        assert!(
            error.to_string().contains("the bitmap of the group"),
            "{byte:#x}: {error}"
        );
        let error = wrong.converted().expect_err("a refusal");
        assert_eq!(error.to_string().lines().count(), 1, "{byte:#x}: {error}");
        // One that is missing is damage, which maps leave to reads.
        if byte != 0 {
            assert!(wrong.mapped().is_err(), "{byte:#x}");
            let objections = objections(&wrong.inspected());
            assert!(
                objections.contains(&"known-features"),
                "{byte:#x}: {objections:?}"
            );
        }
    }
}
