//! New images: until the header is there, which comes last, they do not open; then they are whole.

use std::io::IoSlice;
use std::sync::Arc;

use platter::error::ErrorKind;
use platter::format::{Bulk, RepairMode};
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};

use crate::configs::{Config, FRESH};
use crate::random::Random;
use crate::rig::{self, Access, FILES, SECTOR};
use crate::states::{self, Crash};

/// Every other unit holds its number; every fourth of them is compressed where that can be, and all are
/// where the format holds nothing else.
fn fill(bulk: &dyn Bulk, config: &Config) -> platter::Result<()> {
    let unit = u64::from(bulk.encode_unit().unwrap_or(bulk.zero_unit())).max(4096);
    let mut encoder = platter::codec::Encoder::default();
    let every = if config.has("streamOptimized") { 2 } else { 8 };
    for n in (0..config.size / unit).step_by(2) {
        let at = n * unit;
        let bytes = rig::sector_of(n + 1).repeat(unit as usize / SECTOR);
        let mut out = platter::memory::IoBuf::new();
        let encodes = bulk.encode_unit().is_some() && !config.stays_plain() && n % every == 0;
        if encodes && bulk.encode(&mut encoder, at, &bytes, &mut out)? {
            let (slot, host) = bulk.reserve_encoded(at, out.len() as u32)?;
            bulk.storage(slot)?.write_at(&out, host)?;
            continue;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let guest = at + (bytes.len() - rest.len()) as u64;
            let reserved = bulk.reserve(guest, rest.len() as u64)?;
            let (now, later) = rest.split_at(reserved.len as usize);
            let place = (reserved.slot, reserved.offset);
            bulk.write_data(place, guest, &[IoSlice::new(now)])?;
            rest = later;
        }
    }
    Ok(())
}

/// Interrupts the making of each kind at every event; returns the number of states.
pub fn run(durability: Durability) -> usize {
    FRESH.iter().map(|config| one(config, durability)).sum()
}

fn one(config: &Config, durability: Durability) -> usize {
    let log = Log::new();
    let Config { name, format, .. } = *config;
    let files = FILES[..config.files()].iter();
    let files: Vec<Arc<dyn Storage>> = files.map(|name| log.file(*name, vec![]) as _).collect();
    let new = config.new_image();
    new.create_over(config.parent(), &files, durability, |bulk| {
        fill(bulk, config)
    })
    .unwrap();
    let open = |bytes: &[Vec<u8>]| {
        let files = rig::memory(bytes);
        rig::open(config, &files, durability, Access::Check)
    };
    let end = open(&rig::bytes_of(&files)).unwrap();
    let expected = rig::read_tags(&*end, &config.below()).unwrap();
    let below = |tag: &&u64| **tag >> 32 == rig::base_tag(0) >> 32;
    let tags = expected
        .iter()
        .flatten()
        .filter(|tag| **tag != 0 && !below(tag));
    let distinct = tags.count();
    assert!(distinct >= config.sectors() / 4, "{name}");
    let mut random = Random(config.options.len() as u64);
    let end = log.count();
    states::each_on(config.drive(), &log, durability, &mut random, 1, |crash| {
        let what = || {
            let Crash { count, what, .. } = &crash;
            format!("{name}: {what} of the first {count} events of {end}")
        };
        let image = match open(&crash.files) {
            Ok(image) => image,
            Err(error) => {
                let refused = matches!(
                    (format, error.kind()),
                    (_, ErrorKind::NotAnImage)
                        | ("luks" | "vhdx", ErrorKind::Corrupt)
                        | ("qed" | "qcow" | "parallels", ErrorKind::Invalid)
                );
                let expected = refused && crash.count < end;
                assert!(expected, "{}: {error:?}", what());
                return;
            }
        };
        let tags = rig::read_tags(&*image, &config.below()).unwrap();
        assert!(
            tags == expected,
            "{}: it opens, and is not complete",
            what()
        );
        if image.checker().is_some() {
            let (report, notes) = rig::check(&*image, RepairMode::Report).unwrap();
            let wrong = report.corruptions + report.check_errors;
            assert_eq!(wrong, 0, "{}: {report:?} {notes:?}", what());
        }
    })
}
