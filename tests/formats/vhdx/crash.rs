//! Power cuts while the size or the parent of an image changes: it is as before or as after.

use std::sync::Arc;

use platter::format::BackingRef;
use platter::storage::testing::Log;
use platter::storage::{Durability, Preallocation, Storage};
use platter::{Error, Image};

use crate::common::Dir;
use crate::random::Random;
use crate::states;

use super::{create, open_replayed, options};

/// Changes an image of that size and options, and looks at every state that a power cut may leave.
fn cut(
    size: u64,
    new: &str,
    base: Option<&str>,
    change: impl FnOnce(&Image) -> Result<(), Error>,
    judge: impl Fn(&Image),
) {
    let dir = Dir::new();
    if let Some(base) = base {
        create(&dir, base, 8 << 20, "", None).expect("a base");
        // Under another name it is the same parent.
        std::fs::copy(dir.path(base), dir.path("other")).expect("a copy");
    }
    create(&dir, "a.vhdx", size, new, base).expect("an image");
    let bytes = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let log = Log::new();
    let file: Arc<dyn Storage> = log.file(dir.str("a.vhdx"), bytes);
    let image = Image::open_storage(file, &options(true)).expect("it opens");
    image.write_at(&[1; 70_000], 5 << 20).expect("a write");
    image.write_at(&[2; 70_000], 0).expect("a write");
    image.flush().expect("a flush");
    let begun = log.count();
    change(&image).expect("a change");
    image.close().expect("a close");
    let mut random = Random(0x51ce);
    let mut seen = 0;
    states::each(&log, Durability::Synced, &mut random, 1, |crash| {
        if crash.count < begun {
            return;
        }
        seen += 1;
        std::fs::write(dir.path("a.vhdx"), &crash.files[0]).expect("a file");
        let image = open_replayed(&dir.path("a.vhdx"))
            .unwrap_or_else(|error| panic!("{} of {}: {error}", crash.what, crash.count));
        let mut bytes = [0; 70_000];
        image.read_at(&mut bytes, 0).expect("a read");
        assert!(bytes == [2; 70_000], "{} of {}", crash.what, crash.count);
        judge(&image);
    });
    assert!(seen > 10, "only {seen} states");
}

#[test]
fn a_table_that_moves_is_where_the_regions_say() {
    const OLD: u64 = 100 << 30;
    const NEW: u64 = 200 << 30;
    cut(
        OLD,
        "block_size=1M",
        None,
        |image| {
            image.resize(NEW, Preallocation::Off)?;
            image.write_at(&[3; 512], NEW - 512)
        },
        |image| {
            assert!([OLD, NEW].contains(&image.len()), "{}", image.len());
            let mut bytes = [0; 512];
            image.read_at(&mut bytes, 5 << 20).expect("a read");
            assert_eq!(bytes, [1; 512]);
            image.read_at(&mut bytes, OLD - 512).expect("a read");
            assert_eq!(bytes, [0; 512]);
        },
    );
}

#[test]
fn what_a_smaller_image_gives_up_is_not_missed() {
    cut(
        8 << 20,
        "block_size=1M",
        None,
        |image| {
            image.resize(2 << 20, Preallocation::Off)?;
            image.write_at(&[3; 512], 1 << 20)
        },
        |image| assert!([8 << 20, 2 << 20].contains(&image.len())),
    );
}

#[test]
fn a_new_parent_is_named_as_a_whole() {
    cut(
        8 << 20,
        "block_size=1M",
        Some("base"),
        |image| {
            let backing = BackingRef {
                name: "other".into(),
                format: Some("vhdx".into()),
            };
            let change = image.format().backing_change().expect("a parent");
            change.set_backing(Some(&backing), None)
        },
        |image| {
            let name = image.backing_file().expect("a parent").name;
            assert!(name == "base" || name == "other", "{name}");
        },
    );
}
