//! Images of the formats that are only read (bochs, cloop, dmg, sparseimage, ewf, asif) with edits of their structures:
//! opened, read, checked or inspected. Without an edit the disk is what went in.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::format::RepairMode;
use platter::storage::Storage;
use platter::{Image, Location, OpenOptions, OpenPolicy};
use platter_fuzz::edits::{Edit, MOST};
use platter_fuzz::kit::given::{GIVEN, disk};
use platter_fuzz::kit::shelf::Shelf;
use platter_fuzz::sparse::{Pages, SparseStorage};
use platter_fuzz::{check_image, inspect_file, look_at, policy};

#[derive(Arbitrary, Debug)]
struct Case {
    given: u8,
    /// One in sixteen keeps its wrong checksums.
    unsealed: u8,
    /// What is done with the image.
    work: u8,
    edits: Vec<Edit>,
}

fn adler(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1u32, 0u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65521;
        high = (high + low) % 65521;
    }
    high << 16 | low
}

/// Puts the checksums of the sections of an EWF file right.
fn seal(file: &mut Pages) {
    let mut at = 13;
    for _ in 0..64 {
        let mut section = [0; 72];
        file.read(&mut section, at);
        file.put(&adler(&section).to_le_bytes(), at + 72);
        let next = u64::from_le_bytes(file.get(at + 16));
        if next <= at || next >= file.len() {
            return;
        }
        at = next;
    }
}

fn open(format: &str, file: &Arc<dyn Storage>, for_check: bool) -> platter::Result<Image> {
    let options = OpenOptions {
        for_check,
        policy: OpenPolicy {
            implicit_files: OpenPolicy::permissive().implicit_files,
            ..policy()
        },
        storages: Some(Arc::new(Shelf(vec![file.clone()]))),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(&format!("driver={format},file.filename=image"))?;
    Image::open(&location, &options)
}

fuzz_target!(|case: Case| {
    static MADE: [OnceLock<Pages>; GIVEN.len()] = [const { OnceLock::new() }; GIVEN.len()];
    let which = usize::from(case.given) % GIVEN.len();
    let given = &GIVEN[which];
    let mut pages = MADE[which]
        .get_or_init(|| Pages::of(&given.make().1))
        .clone();
    for edit in case.edits.iter().take(MOST) {
        edit.apply(&mut pages);
    }
    if given.format == "ewf" && case.unsealed % 16 != 1 {
        seal(&mut pages);
    }
    let file: Arc<dyn Storage> = Arc::new(SparseStorage::new("image", pages));
    let opened = open(given.format, &file, false);
    if case.edits.is_empty() {
        let image = opened
            .as_ref()
            .unwrap_or_else(|error| panic!("{}: {error}", given.name));
        assert_eq!(image.len(), given.size as u64, "{}", given.name);
        let mut found = vec![0; given.size];
        let read = image.read_at(&mut found, 0);
        read.unwrap_or_else(|error| panic!("{}: {error}", given.name));
        assert!(found == disk(given.size), "{}", given.name);
    }
    // Each of them decompresses all that it reads.
    match case.work % 3 {
        0 => {
            if let Ok(image) = opened {
                look_at(&image);
            }
        }
        1 => {
            if let Ok(image) = open(given.format, &file, true) {
                check_image(&image, RepairMode::Report);
            }
        }
        _ => inspect_file(file, Some(given.format)),
    }
});
