//! `check -r` of images with damaged tables, interrupted anywhere: nothing gets worse, and a second
//! repair ends where the first would have.

use std::collections::BTreeSet;
use std::sync::Arc;

use platter::format::{Format, RepairMode};
use platter::storage::testing::Log;
use platter::storage::{Durability, Storage};

use crate::configs::Config;
use crate::random::Random;
use crate::replay;
use crate::rig::{self, Access, FILES, SECTOR};
use crate::states;

/// Damaged images per configuration.
const IMAGES: usize = 24;
/// The header extension that names the bitmap directory.
const BITMAPS: u64 = 0x2385_2875;

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let field = bytes.get(at..at + len).unwrap_or_default();
    field
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// What a table is, where it stands, and the bytes in use there.
type Area = (&'static str, usize, usize);

/// Where the tables of an image stand.
fn areas(config: &Config, bytes: &[u8]) -> Vec<Area> {
    match config.format {
        "qcow2" => areas_of_qcow2(bytes),
        "vmdk" => areas_of_vmdk(bytes),
        "qed" => areas_of_qed(bytes),
        "qcow" => areas_of_qcow(bytes),
        "parallels" => vec![("BAT", 64, word(bytes, 32) as usize * 4)],
        other => panic!("the tables of {other} are not known"),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The upper table of an image whose tables hold offsets in eight bytes each, and those that it names.
fn areas_in_levels(
    (kinds, l1, entries): ([&'static str; 2], usize, usize),
    table: usize,
    place: impl Fn(usize) -> usize,
) -> Vec<Area> {
    let lower = (0..entries).map(|n| place(l1 + n * 8));
    let lower = lower.filter(|at| *at != 0).map(|at| (kinds[1], at, table));
    std::iter::once((kinds[0], l1, entries * 8))
        .chain(lower)
        .collect()
}

fn areas_of_qed(bytes: &[u8]) -> Vec<Area> {
    let place = |at: usize| word(bytes, at) as usize;
    let table = place(4) * place(8);
    let covered = table / 8 * place(4);
    let entries = place(48).div_ceil(covered);
    areas_in_levels((["QED L1", "QED L2"], place(40), entries), table, place)
}

fn areas_of_qcow(bytes: &[u8]) -> Vec<Area> {
    let table = 8 << bytes[33];
    let covered = (table / 8) << bytes[32];
    let entries = (number(bytes, 24, 8) as usize).div_ceil(covered);
    let l1 = number(bytes, 40, 8) as usize;
    areas_in_levels((["qcow L1", "qcow L2"], l1, entries), table, |at| {
        number(bytes, at, 8) as usize
    })
}

fn areas_of_vmdk(bytes: &[u8]) -> Vec<Area> {
    let sector = |at: usize| word(bytes, at) as usize * SECTOR;
    let (redundant, primary) = (sector(48), sector(56));
    vec![
        ("grain directory", primary, 8),
        ("grain table", sector(primary), 32),
        ("redundant directory", redundant, 8),
        ("redundant table", sector(redundant), 32),
    ]
}

fn areas_of_qcow2(bytes: &[u8]) -> Vec<Area> {
    let place = |at| number(bytes, at, 8) as usize & 0x00ff_ffff_ffff_fe00;
    let cluster = 1 << number(bytes, 20, 4);
    let (l1, entries) = (place(40), number(bytes, 36, 4) as usize);
    let mut areas = vec![
        ("L1 table", l1, entries * 8),
        ("refcount table", place(48), 16),
    ];
    let tables = (0..entries).map(|n| place(l1 + n * 8));
    areas.extend(
        tables
            .filter(|at| *at != 0)
            .map(|at| ("L2 table", at, cluster)),
    );
    areas.push(("refcount block", place(place(48)), 512));
    if number(bytes, 60, 4) > 0 {
        areas.push(("snapshot table", place(64), 60));
    }
    let mut at = number(bytes, 100, 4) as usize;
    while number(bytes, 4, 4) == 3 && number(bytes, at, 4) != 0 {
        if number(bytes, at, 4) == BITMAPS {
            areas.push(("bitmap directory", place(at + 24), 32));
        }
        at += 8 + (number(bytes, at + 4, 4) as usize).next_multiple_of(8);
    }
    areas
}

/// Flips a bit, or replaces a word by another of the same table.
fn damage(config: &Config, bytes: &mut [u8], random: &mut Random) -> &'static str {
    let areas = areas(config, bytes);
    let kinds: BTreeSet<_> = areas.iter().map(|(kind, ..)| *kind).collect();
    let kind = *kinds.iter().nth(random.below(kinds.len())).unwrap();
    let of_kind: Vec<_> = areas.iter().filter(|(name, ..)| *name == kind).collect();
    let (_, start, len) = *of_kind[random.below(of_kind.len())];
    let word = |random: &mut Random| start + random.below(len / 8) * 8;
    let at = word(random);
    if random.coin() {
        bytes[at + random.below(8)] ^= 1 << random.below(8);
    } else {
        let from = word(random);
        bytes.copy_within(from..from + 8, at);
    }
    kind
}

fn open(
    config: &Config,
    files: &[Arc<dyn Storage>],
    access: Access,
) -> platter::Result<Box<dyn Format>> {
    rig::open(config, files, Durability::Synced, access)
}

/// What each sector holds, where it can be read.
fn sectors(config: &Config, image: &dyn Format) -> Vec<Option<[u8; SECTOR]>> {
    let mut buf = [0; SECTOR];
    let below = config.below();
    let mut read = |offset| {
        rig::read(image, &mut buf, offset, &below)
            .ok()
            .map(|()| buf)
    };
    (0..image.len()).step_by(SECTOR).map(&mut read).collect()
}

/// What a repair leaves: what is still wrong, and the sectors.
type Left = ((u64, u64), Vec<Option<[u8; SECTOR]>>);

/// Repairs.
fn repair(config: &Config, files: &[Arc<dyn Storage>]) -> platter::Result<Left> {
    let image = open(config, files, Access::Repair)?;
    rig::check(&*image, RepairMode::All)?;
    image.close()?;
    drop(image);
    let image = open(config, files, Access::Check)?;
    let (left, _) = rig::check(&*image, RepairMode::Report)?;
    Ok((
        (left.corruptions, left.check_errors),
        sectors(config, &*image),
    ))
}

/// Damages images, repairs them, and interrupts that; returns the number of states. `kinds` gets
/// the tables that were repaired.
pub fn run(config: &Config, kinds: &mut BTreeSet<&'static str>) -> usize {
    let mut states = 0;
    let images = [100, 101].map(|seed| replay::bytes(config, seed));
    for n in 0..IMAGES {
        let mut random = Random(n as u64);
        let mut bytes = images[n % 2].clone();
        let what = damage(config, &mut bytes[0], &mut random);
        let name = format!("{}, damage {n} to a {what}", config.name);
        let Ok(image) = open(config, &rig::memory(&bytes), Access::Check) else {
            continue;
        };
        let before = sectors(config, &*image);
        let log = Log::new();
        let files: Vec<Arc<dyn Storage>> = FILES
            .iter()
            .zip(bytes)
            .map(|(name, bytes)| log.file(*name, bytes) as _)
            .collect();
        let Ok((left, after)) = repair(config, &files) else {
            continue;
        };
        if log.count() > 0 {
            kinds.insert(what);
        }
        states += states::each(&log, Durability::Synced, &mut random, 1, |crash| {
            let name = format!("{name}: {} of the first {} events", crash.what, crash.count);
            let files = rig::memory(&crash.files);
            let image = open(config, &files, Access::Check)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let now = sectors(config, &*image);
            let worse = (0..now.len()).find(|n| now[*n] != before[*n] && now[*n] != after[*n]);
            assert_eq!(worse, None, "{name}: other contents of a sector");
            drop(image);
            let (again, end) =
                repair(config, &files).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(again <= left, "{name}: {again:?} are left, not {left:?}");
            assert!(end == after, "{name}: the contents have changed");
        });
    }
    states
}
