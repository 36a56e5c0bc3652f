//! Images of the formats that are only read (bochs, cloop, dmg, sparseimage, ewf, asif) with edits of their structures:
//! opened, read, checked or inspected. Without an edit the disk is what went in.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::format::RepairMode;
use platter::storage::Storage;
use platter::{Image, Location, OpenOptions, OpenPolicy};
use platter_fuzz::kit::given::{GIVEN, disk};
use platter_fuzz::kit::shelf::Shelf;
use platter_fuzz::sparse::{Pages, SparseStorage};
use platter_fuzz::{check_image, inspect_file, look_at, policy};

/// Edits of one run.
const MOST: usize = 12;
/// Bytes at either end of a file in which most structures stand.
const ENDS: u64 = 8 << 10;

/// Where an edit is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    FromStart(u16),
    FromEnd(u16),
    /// A word of any sector.
    Sector {
        sector: u16,
        word: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Number {
        at: Place,
        big: bool,
        wide: bool,
        value: u64,
    },
    /// A number becomes larger or smaller by a little, in units of a power of two.
    Add {
        at: Place,
        big: bool,
        wide: bool,
        by: i8,
        shift: u8,
    },
    /// A number that stands elsewhere: pointers that meet.
    Copy {
        from: Place,
        to: Place,
        words: u8,
    },
    Bytes {
        at: Place,
        bytes: Vec<u8>,
    },
    /// The file ends here, or goes on.
    End {
        grow: bool,
        sectors: u16,
        bytes: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Case {
    given: u8,
    /// One in sixteen keeps its wrong checksums.
    unsealed: u8,
    /// What is done with the image.
    work: u8,
    edits: Vec<Edit>,
}

impl Place {
    fn offset(self, len: u64) -> u64 {
        match self {
            Self::FromStart(at) => u64::from(at) * 4 % ENDS,
            Self::FromEnd(at) => len.saturating_sub(4 + u64::from(at) * 4 % ENDS),
            Self::Sector { sector, word } => {
                let sectors = (len / 512).max(1);
                u64::from(sector) % sectors * 512 + u64::from(word) % 128 * 4
            }
        }
    }
}

fn number(bytes: [u8; 8], big: bool, wide: bool) -> u64 {
    match (big, wide) {
        (true, true) => u64::from_be_bytes(bytes),
        (true, false) => u64::from_be_bytes(bytes) >> 32,
        (false, true) => u64::from_le_bytes(bytes),
        (false, false) => u64::from_le_bytes(bytes) & 0xffff_ffff,
    }
}

fn put(file: &mut Pages, at: u64, value: u64, big: bool, wide: bool) {
    match (big, wide) {
        (true, true) => file.put(&value.to_be_bytes(), at),
        (true, false) => file.put(&(value as u32).to_be_bytes(), at),
        (false, true) => file.put(&value.to_le_bytes(), at),
        (false, false) => file.put(&(value as u32).to_le_bytes(), at),
    }
}

fn apply(edit: &Edit, file: &mut Pages) {
    let len = file.len();
    match edit {
        Edit::Number {
            at,
            big,
            wide,
            value,
        } => put(file, at.offset(len), *value, *big, *wide),
        Edit::Add {
            at,
            big,
            wide,
            by,
            shift,
        } => {
            let at = at.offset(len);
            let by = (i64::from(*by) as u64) << (shift % 64);
            let sum = number(file.get(at), *big, *wide).wrapping_add(by);
            put(file, at, sum, *big, *wide);
        }
        Edit::Copy { from, to, words } => {
            let mut bytes = [0; 64];
            let bytes = &mut bytes[..(usize::from(*words) % 16 + 1) * 4];
            file.read(bytes, from.offset(len));
            file.put(bytes, to.offset(len));
        }
        Edit::Bytes { at, bytes } => file.put(bytes, at.offset(len)),
        Edit::End {
            grow,
            sectors,
            bytes,
        } => {
            let end = u64::from(*sectors) * 512 + u64::from(*bytes);
            match grow {
                true => file.set_len(len + end),
                false => file.set_len(end.min(len)),
            }
        }
    }
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
        apply(edit, &mut pages);
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
