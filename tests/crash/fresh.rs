//! New images: until the header is there, which comes last, they do not open; then they are whole.

use std::io::IoSlice;
use std::sync::Arc;

use platter::error::ErrorKind;
use platter::format::{Bulk, RepairMode, registry};
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};

use crate::random::Random;
use crate::rig::{self, Access, Base, FILES, New, SECTOR, SIZE};
use crate::states::{self, Crash};

/// Formats and options.
const KINDS: &[(&str, &str)] = &[
    ("qcow2", "cluster_size=4096"),
    ("qcow2", "cluster_size=512,refcount_bits=64"),
    ("qcow2", "cluster_size=4096,compat=0.10"),
    ("qcow2", "cluster_size=16384,extended_l2=on"),
    ("qcow2", "cluster_size=4096,preallocation=metadata"),
    ("qcow2", "cluster_size=4096,preallocation=full"),
    ("qcow2", "cluster_size=4096,data_file=data"),
    ("qcow2", "cluster_size=4096,data_file=data,data_file_raw=on"),
    ("qcow2", "encrypt.format=aes,encrypt.key-secret=s"),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
    ),
    ("luks", "key-secret=s,iter-time=1"),
];

/// Every other unit holds its number; every fourth of them is compressed where that can be.
fn fill(bulk: &dyn Bulk, coded: bool) -> platter::Result<()> {
    let unit = u64::from(bulk.encode_unit().unwrap_or(512)).max(4096);
    let mut encoder = platter::codec::Encoder::default();
    for n in (0..SIZE / unit).step_by(2) {
        let at = n * unit;
        let bytes = rig::sector_of(n + 1).repeat(unit as usize / SECTOR);
        let mut out = platter::memory::IoBuf::new();
        if coded && n % 8 == 0 && bulk.encode(&mut encoder, at, &bytes, &mut out)? {
            let (slot, host) = bulk.reserve_encoded(at, out.len() as u32)?;
            bulk.storage(slot)?.write_at(&out, host)?;
        } else {
            let at_host = bulk.reserve(at, unit)?;
            assert_eq!(at_host.len, unit);
            let place = (at_host.slot, at_host.offset);
            bulk.write_data(place, at, &[IoSlice::new(&bytes)])?;
        }
    }
    Ok(())
}

/// Interrupts the making of each kind at every event; returns the number of states.
pub fn run(durability: Durability) -> usize {
    KINDS
        .iter()
        .map(|(format, options)| one(format, options, durability))
        .sum()
}

fn one(format: &str, options: &str, durability: Durability) -> usize {
    let log = Log::new();
    let count = 1 + usize::from(options.contains("data_file"));
    let files = FILES[..count].iter();
    let files: Vec<Arc<dyn Storage>> = files.map(|name| log.file(*name, vec![]) as _).collect();
    let plain = ["data_file", "encrypt", "preallocation"];
    let coded = format == "qcow2" && !plain.iter().any(|option| options.contains(option));
    let new = New {
        format,
        options,
        len: SIZE,
        backing: None,
    };
    new.create(&files, durability, |bulk| fill(bulk, coded))
        .unwrap();
    let driver = registry::by_name(format).unwrap();
    let open = |bytes: &[Vec<u8>]| {
        let files = rig::memory(bytes);
        rig::open(driver, options, &files, durability, Access::Check)
    };
    let end = open(&rig::bytes_of(&files)).unwrap();
    let expected = rig::read_tags(&*end, &Base(false)).unwrap();
    let distinct = expected.iter().flatten().filter(|tag| **tag != 0).count();
    assert!(distinct >= SIZE as usize / SECTOR / 4, "{format} {options}");
    let mut random = Random(options.len() as u64);
    let end = log.count();
    states::each(&log, durability, &mut random, 1, |crash| {
        let what = || {
            let Crash { count, what, .. } = &crash;
            format!("{format} {options}: {what} of the first {count} events of {end}")
        };
        let image = match open(&crash.files) {
            Ok(image) => image,
            Err(error) => {
                let kind = error.kind();
                let refused =
                    kind == ErrorKind::NotAnImage || format == "luks" && kind == ErrorKind::Corrupt;
                let expected = refused && crash.count < end;
                assert!(expected, "{}: {error:?}", what());
                return;
            }
        };
        let tags = rig::read_tags(&*image, &Base(false)).unwrap();
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
