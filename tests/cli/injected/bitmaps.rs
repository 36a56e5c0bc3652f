//! The same where persistent bitmaps change: each says what it said before or is to say, or that it misses something.

use std::path::Path;

use platter::ops::bitmap;
use platter::{Image, Location, OpenOptions, OpenPolicy};

use super::{Contents, FROM_THEN_ON, ONCE, case, make, nothing_is_lost_at};
use crate::common::Dir;

/// Begins the names of bitmaps among contents.
pub(super) const NAME: &str = "bitmap ";
/// A bitmap that says that it misses something.
pub(super) const INCOMPLETE: &[u8] = b"inconsistent";

/// Adds what each bitmap of an image says.
pub(super) fn add(path: &Path, contents: &mut Contents) {
    let options = OpenOptions {
        backing: false,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::from_path(path), &options).expect("an image");
    // The older version has none.
    let Some(bitmaps) = image.bitmaps() else {
        return;
    };
    for bitmap in bitmaps.list().expect("a list") {
        let says = match bitmap.inconsistent {
            true => INCOMPLETE.to_vec(),
            false => {
                let dirty = bitmap::dirty(&image, &bitmap.name, 0..image.len());
                let ranges = dirty.expect("the bits").ranges;
                format!("{} {} {ranges:?}", bitmap.granularity, bitmap.enabled).into_bytes()
            }
        };
        contents.insert(format!("{NAME}{}", bitmap.name), says);
    }
}

/// An image with a bitmap that records and one that does not, and one with neither.
fn seed() -> Dir {
    let dir = Dir::new();
    for image in ["bits.qcow2", "new.qcow2"] {
        make(
            &dir,
            &format!("create -q -f qcow2 -o cluster_size=4k {image} 1M"),
        );
    }
    for bitmap in ["m", "n"] {
        make(&dir, &format!("bitmap --add -g 4k bits.qcow2 {bitmap}"));
        dir.qemu_io(
            "qcow2",
            "bits.qcow2",
            &["write -P 6 32k 64k", "write -P 7 600k 5k"],
        );
    }
    make(&dir, "bitmap --disable bits.qcow2 n");
    dir
}

#[test]
fn an_error_at_any_event_of_a_change_of_bitmaps_loses_nothing() {
    let bits = &["bits.qcow2"];
    nothing_is_lost_at(
        &seed(),
        &[
            case("bitmap -f qcow2 --add @bits.qcow2 new", bits),
            case("bitmap -f qcow2 --remove @bits.qcow2 m", bits),
            case("bitmap -f qcow2 --clear @bits.qcow2 n", bits),
            case("bitmap -f qcow2 --enable @bits.qcow2 n", bits),
            case("bitmap -f qcow2 --merge m @bits.qcow2 n", bits),
            case(
                "convert -n --bitmaps -f qcow2 -O qcow2 bits.qcow2 @new.qcow2",
                &["new.qcow2", "bits.qcow2"],
            ),
        ],
        |count| vec![(1, ONCE), (count, FROM_THEN_ON)],
    );
}
